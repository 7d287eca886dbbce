//! What Raft costs one node that is alone, on a real directory: an entry appended, synced, committed and applied, and the barrier
//! before a linearizable read. Without a network, so what members say to each other is not in it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::future::try_join_all;
use holdfast_consensus::{ConsensusConfig, EncodedCommand, FatalSink, Group, LogWriter, PeerAddresses};
use holdfast_machine::{Body, Command, Mutation, Reply, Write};
use holdfast_storage::command;
use holdfast_storage_rocksdb::{OpenOptions, RocksEngine};
use holdfast_types::{ClusterId, Family, Millis, ShardEpoch};
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// Longer than a benchmark.
const DEADLINE: Duration = Duration::from_secs(3_600);
/// As many callers as the comparison with other stores has clients.
const MANY: u64 = 64;

/// A cluster of one.
async fn alone(directory: &std::path::Path) -> Group {
    let options = OpenOptions {
        ballast_bytes: 0,
        ..OpenOptions::new(directory)
    };
    let engine = Arc::new(RocksEngine::open(options).expect("an empty directory opens"));
    let fatal = FatalSink::new();
    let writer = LogWriter::start(engine.clone(), fatal.clone());
    let config = ConsensusConfig::new(ClusterId(uuid::Uuid::from_u128(1)), 1);
    let group = Group::start(config, engine, writer, fatal)
        .await
        .expect("an empty directory starts");
    let addresses = PeerAddresses {
        peer: "127.0.0.1:1".into(),
        ..PeerAddresses::default()
    };
    group
        .initialize(BTreeMap::from([(1, addresses)]))
        .await
        .expect("nobody founded it before");
    let mut leadership = group.leadership();
    leadership
        .wait_for(|now| now.ready)
        .await
        .expect("the node has not ended");
    group
}

/// A command that puts one row of 1 KiB, its key spread as identifiers are, which are hashed.
fn put(number: u64) -> EncodedCommand {
    let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let write = Write::Put {
        family: Family::Account,
        key: Bytes::copy_from_slice(&key.to_be_bytes()),
        key_id: 0,
        body: Bytes::from_static(&[7; 1024]),
    };
    EncodedCommand(command::encode(&Command {
        epoch: ShardEpoch(1),
        wall: Millis(1),
        body: Body::Mutate(Mutation {
            writes: vec![write],
            ..Mutation::default()
        }),
    }))
}

/// One worker, as a node has on a small machine.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// How long these rounds take on a task of the runtime, as a node's handlers are. What prepares a round is not in it.
fn rounds<T, F>(runtime: &Runtime, times: u64, mut round: impl FnMut() -> F + Send + 'static) -> Duration
where
    F: Future<Output = T> + Send + 'static,
{
    let all = runtime.spawn(async move {
        let mut taken = Duration::ZERO;
        for _ in 0..times {
            let round = round();
            let began = Instant::now();
            round.await;
            taken += began.elapsed();
        }
        taken
    });
    runtime.block_on(all).expect("no round failed")
}

fn appends(c: &mut Criterion) {
    let (directory, runtime) = (tempfile::tempdir().expect("a directory"), runtime());
    let node = runtime.block_on(alone(directory.path()));
    let term = node.leadership().borrow().term;
    let number = Arc::new(AtomicU64::new(0));
    let mut group = c.benchmark_group("consensus: append, sync and apply rows of 1 KiB");
    for rows in [1, MANY] {
        group.throughput(Throughput::Elements(rows));
        group.bench_function(format!("{rows} at once"), |b| {
            b.iter_custom(|times| {
                let (node, number) = (node.clone(), Arc::clone(&number));
                rounds(&runtime, times, move || {
                    let node = node.clone();
                    let commands: Vec<_> = (0..rows)
                        .map(|_| put(number.fetch_add(1, Ordering::Relaxed)))
                        .collect();
                    async move {
                        let deadline = Instant::now() + DEADLINE;
                        let proposals = commands
                            .into_iter()
                            .map(|command| node.propose(command, term, deadline));
                        for committed in try_join_all(proposals).await.expect("it leads") {
                            assert!(matches!(committed.reply, Reply::Applied { .. }), "{committed:?}");
                        }
                    }
                })
            })
        });
    }
    group.finish();
    runtime.block_on(node.shutdown());
}

fn barriers(c: &mut Criterion) {
    let (directory, runtime) = (tempfile::tempdir().expect("a directory"), runtime());
    let node = runtime.block_on(alone(directory.path()));
    let mut group = c.benchmark_group("consensus: pass the barrier");
    for readers in [1, MANY] {
        group.throughput(Throughput::Elements(readers));
        group.bench_function(format!("{readers} at once"), |b| {
            b.iter_custom(|times| {
                let node = node.clone();
                rounds(&runtime, times, move || {
                    let node = node.clone();
                    async move {
                        let deadline = Instant::now() + DEADLINE;
                        let readers = (0..readers).map(|_| node.read_barrier(deadline));
                        try_join_all(readers).await.expect("it leads")
                    }
                })
            })
        });
    }
    group.finish();
    runtime.block_on(node.shutdown());
}

criterion_group!(benches, appends, barriers);
criterion_main!(benches);
