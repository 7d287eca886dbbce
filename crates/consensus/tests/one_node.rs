//! What the groups of one node share: one engine, one log writer, one fate.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_consensus::{
    ConsensusConfig, EncodedCommand, FatalSink, FlushError, Group, InitializeError, LogWriter, PeerAddresses,
};
use holdfast_machine::{Body, Command, Mutation, Write};
use holdfast_storage::command;
use holdfast_storage::engine::{Batch, Engine, EngineError, Row, Seq, Stall, Usage, View};
use holdfast_storage::faulty::{FaultyDisk, FaultyEngine};
use holdfast_types::{ClusterId, Family, Millis, ShardEpoch, ShardId};
use tokio::time::Instant;
use uuid::Uuid;

/// An engine that counts syncs, and on which reading panics when asked to: a defect in a task of Raft's.
#[derive(Debug)]
struct Watched {
    engine: FaultyEngine,
    syncs: AtomicU64,
    panic: AtomicBool,
}

#[async_trait]
impl Engine for Watched {
    fn write(&self, batch: Batch) -> Result<Seq, EngineError> {
        self.engine.write(batch)
    }

    async fn sync(&self) -> Result<Seq, EngineError> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.engine.sync().await
    }

    async fn flush(&self) -> Result<Seq, EngineError> {
        self.engine.flush().await
    }

    fn view(&self) -> Box<dyn View> {
        assert!(!self.panic.load(Ordering::SeqCst), "a defect");
        self.engine.view()
    }

    async fn ingest(&self, rows: Vec<(Family, Vec<Row>)>) -> Result<(), EngineError> {
        self.engine.ingest(rows).await
    }

    async fn checkpoint(&self, directory: &Path) -> Result<(), EngineError> {
        self.engine.checkpoint(directory).await
    }

    fn condemn(&self, message: String) -> EngineError {
        self.engine.condemn(message)
    }

    fn usage(&self) -> Result<Usage, EngineError> {
        self.engine.usage()
    }

    fn stall(&self) -> Stall {
        self.engine.stall()
    }
}

/// One node with the groups of these shards, of which it is the only member.
struct Node {
    disk: FaultyDisk,
    engine: Arc<Watched>,
    fatal: FatalSink,
    groups: Vec<Group>,
}

impl Node {
    async fn start(shards: std::ops::Range<u32>) -> Self {
        let disk = FaultyDisk::new(1);
        let engine = Arc::new(Watched {
            engine: disk.open().unwrap(),
            syncs: AtomicU64::new(0),
            panic: AtomicBool::new(false),
        });
        let fatal = FatalSink::new();
        let writer = LogWriter::start(engine.clone(), fatal.clone());
        let mut groups = Vec::new();
        for shard in shards {
            let config = ConsensusConfig {
                shard: ShardId(shard),
                ..ConsensusConfig::new(ClusterId(Uuid::from_u128(1)), 1)
            };
            let group = Group::start(config, engine.clone(), writer.clone(), fatal.clone())
                .await
                .unwrap();
            let addresses = PeerAddresses {
                peer: "127.0.0.1:1".into(),
                ..PeerAddresses::default()
            };
            group.initialize(BTreeMap::from([(1, addresses)])).await.unwrap();
            let mut leadership = group.leadership();
            leadership.wait_for(|now| now.ready).await.unwrap();
            groups.push(group);
        }
        Node {
            disk,
            engine,
            fatal,
            groups,
        }
    }

    /// Proposes a row, and waits for it elsewhere.
    fn put(&self, group: usize, key: &str) -> tokio::task::JoinHandle<bool> {
        let write = Write::Put {
            family: Family::Account,
            key: Bytes::copy_from_slice(key.as_bytes()),
            key_id: 0,
            body: Bytes::from_static(b"v"),
        };
        let body = Body::Mutate(Mutation {
            writes: vec![write],
            ..Mutation::default()
        });
        let command = EncodedCommand(command::encode(&Command {
            epoch: ShardEpoch(1),
            wall: Millis(1),
            body,
        }));
        let group = self.groups[group].clone();
        let term = group.leadership().borrow().term;
        let deadline = Instant::now() + Duration::from_secs(20);
        tokio::spawn(async move { group.propose(command, term, deadline).await.is_ok() })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_groups_share_a_writer_and_its_syncs() {
    let node = Node::start(0..2).await;
    node.disk.configure(|faults| faults.sync_stalled = true);
    let before = node.engine.syncs.load(Ordering::SeqCst);
    let mut proposals = vec![node.put(0, "first")];
    while node.engine.syncs.load(Ordering::SeqCst) == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for n in 0..10 {
        for group in 0..2 {
            proposals.push(node.put(group, &format!("row {n} of group {group}")));
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        node.groups
            .iter()
            .all(|group| group.status().sync_age_ms.is_some()),
        "both see the sync that hangs"
    );
    node.disk.configure(|faults| faults.sync_stalled = false);
    for proposal in proposals {
        assert!(proposal.await.unwrap());
    }
    assert_eq!(
        node.engine.syncs.load(Ordering::SeqCst) - before,
        2,
        "one for the first entry, one for all that waited behind it"
    );
    let rows = node.groups[0].view();
    for group in 0..2 {
        let key = format!("row 9 of group {group}");
        assert!(
            rows.get(Family::Account, key.as_bytes()).unwrap().is_some(),
            "{key}"
        );
    }
    // One fate, too.
    node.disk.configure(|faults| faults.fail_next_sync = true);
    assert!(!node.put(0, "lost").await.unwrap());
    assert!(node.fatal.wait().await.contains("raft log"));
    assert!(node.groups.iter().all(|group| group.status().fatal.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_founded_is_not_founded_again() {
    let node = Node::start(0..1).await;
    let address = PeerAddresses {
        peer: "127.0.0.1:2".into(),
        ..PeerAddresses::default()
    };
    let again = node.groups[0].initialize(BTreeMap::from([(7, address)])).await;
    assert!(
        matches!(again, Err(InitializeError::AlreadyInitialized)),
        "{again:?}"
    );
    assert_eq!(node.groups[0].members().keys().collect::<Vec<_>>(), [&1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_raft_is_fatal() {
    let node = Node::start(0..1).await;
    assert_eq!(node.fatal.reason(), None);
    node.engine.panic.store(true, Ordering::SeqCst);
    drop(node.put(0, "row"));
    let reason = tokio::time::timeout(Duration::from_secs(10), node.fatal.wait())
        .await
        .unwrap();
    assert!(reason.contains("raft panicked (a defect)"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_was_asked_for_covers_what_was_applied() {
    let node = Node::start(0..1).await;
    let group = &node.groups[0];
    // Each time: the second flush must not be answered with the first.
    for n in 0..20 {
        assert!(node.put(0, &format!("row {n}")).await.unwrap());
        let applied = group.applied_index();
        let deadline = Instant::now() + Duration::from_secs(20);
        let flushed = group.trigger_snapshot(deadline).await.unwrap();
        assert!(flushed >= applied, "{flushed} < {applied}");
        assert_eq!(group.status().snapshot.map(|at| at.index), Some(flushed));
    }

    assert!(node.put(0, "one more").await.unwrap());
    let flushed = group.applied_index() - 1;
    node.disk.configure(|faults| faults.sync_stalled = true);
    let deadline = Instant::now() + Duration::from_millis(300);
    let late = group.trigger_snapshot(deadline).await;
    let wanted = flushed + 1;
    assert_eq!(late, Err(FlushError::Timeout { wanted, flushed }));
    node.disk.configure(|faults| faults.sync_stalled = false);
    let deadline = Instant::now() + Duration::from_secs(20);
    assert!(group.trigger_snapshot(deadline).await.unwrap() >= wanted);
}
