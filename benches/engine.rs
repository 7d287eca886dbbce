//! What the storage engine costs: synced batches, reads, views. On a real directory, so the disk is in it.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use holdfast_storage::engine::{Batch, Engine};
use holdfast_storage_rocksdb::{OpenOptions, RocksEngine};
use holdfast_types::Family;

/// Rows that are there.
const ROWS: u64 = 20_000;
const VALUE: [u8; 1024] = [7; 1024];

fn key(number: u64) -> [u8; 16] {
    // Spread as identifiers are, which are hashed.
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

fn filled(directory: &std::path::Path) -> RocksEngine {
    let options = OpenOptions {
        ballast_bytes: 0,
        ..OpenOptions::new(directory)
    };
    let engine = RocksEngine::open(options).expect("an empty directory opens");
    for first in (0..ROWS).step_by(500) {
        let mut batch = Batch::default();
        for number in first..first + 500 {
            batch.put(Family::Account, key(number).to_vec(), VALUE.to_vec());
        }
        engine.write(batch).expect("there is room");
    }
    engine
}

fn reads(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = filled(directory.path());
    c.bench_function("engine: a view", |b| b.iter(|| black_box(engine.view())));
    let view = engine.view();
    let mut number = 0;
    c.bench_function("engine: get a row of 1 KiB", |b| {
        b.iter(|| {
            number = (number + 7_919) % ROWS;
            view.get(Family::Account, &key(number))
        })
    });
    c.bench_function("engine: get a row that is not there", |b| {
        b.iter(|| {
            number += 1;
            view.get(Family::Account, &key(ROWS + number))
        })
    });
    let keys: Vec<_> = (0..64).map(|number| key(number * 311)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let mut group = c.benchmark_group("engine: get 64 rows");
    group.throughput(Throughput::Elements(64));
    group.bench_function("at once", |b| b.iter(|| view.multi_get(Family::Account, &keys)));
    group.bench_function("one by one", |b| {
        b.iter(|| {
            let rows = keys.iter().map(|key| view.get(Family::Account, key));
            rows.collect::<Result<Vec<_>, _>>()
        })
    });
    group.finish();
}

fn writes(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = filled(directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let mut number = ROWS;
    let mut group = c.benchmark_group("engine: write rows of 1 KiB");
    for rows in [1_u64, 64] {
        group.throughput(Throughput::Elements(rows));
        for synced in [false, true] {
            let name = format!("{rows}, {}", if synced { "synced" } else { "not synced" });
            group.bench_function(name, |b| {
                b.iter(|| {
                    let mut batch = Batch::default();
                    for _ in 0..rows {
                        number += 1;
                        batch.put(Family::RaftLog, number.to_be_bytes().to_vec(), VALUE.to_vec());
                    }
                    engine.write(batch).expect("there is room");
                    if synced {
                        runtime.block_on(engine.sync()).expect("the disk is well");
                    }
                })
            });
        }
    }
    group.finish();
}

criterion_group!(benches, reads, writes);
criterion_main!(benches);
