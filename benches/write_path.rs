//! The processor's share of one create with two identifiers, part by part.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use holdfast_accounts::normalize::canonicalize;
use holdfast_benches::{Shard, create};
use holdfast_storage::command;
use holdfast_types::IdentifierKind;

fn normalize(c: &mut Criterion) {
    let shard = Shard::default();
    let config = &shard.realm().config;
    let mut group = c.benchmark_group("normalize");
    for (name, kind, value) in [
        ("email", IdentifierKind::Email, "Maria.Müller@Bücher.example"),
        ("phone", IdentifierKind::Phone, "+46 70 123 45 67"),
        ("username", IdentifierKind::Username, "Maria_Müller"),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| canonicalize(kind, black_box(value), "", config))
        });
    }
    group.finish();
}

fn evaluate(c: &mut Criterion) {
    let mut shard = Shard::default();
    let stored: Vec<_> = (0..10_000).map(|number| shard.propose(&create(number))).collect();
    shard.apply(&stored);
    let request = create(1_000_000);
    c.bench_function("evaluate and encode a create, 10,000 stored", |b| {
        b.iter(|| shard.propose(black_box(&request)))
    });
    let bytes = shard.propose(&request);
    c.bench_function("decode a create's command", |b| {
        b.iter(|| command::decode(black_box(&bytes)))
    });
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply creates");
    for batch in [1_u64, 64] {
        let shard = Shard::default();
        let commands: Vec<_> = (0..batch).map(|number| shard.propose(&create(number))).collect();
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("batches of {batch}"), |b| {
            b.iter_batched(
                Shard::default,
                |mut shard| shard.apply(&commands),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, normalize, evaluate, apply);
criterion_main!(benches);
