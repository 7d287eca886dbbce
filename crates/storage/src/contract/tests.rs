//! The suite passes on the fault-injecting engine, and fails on engines with a planted bug.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use holdfast_types::Family;

use super::*;
use crate::engine::{Batch, EngineError, Op, Row, Seq, Stall, Usage, View};
use crate::faulty::{FaultyDisk, FaultyEngine};

/// What is wrong with an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// Every step of a batch is a batch of its own.
    TornBatches,
    /// A sync returns without having synced.
    LyingSync,
    /// A range delete takes its end too.
    InclusiveRangeDelete,
    /// A batch with an empty value deletes.
    EmptyValueIsNone,
    /// Ingested rows are left to the next sync.
    LazyIngest,
    /// Damage is not remembered.
    ForgottenDamage,
}

#[derive(Debug)]
struct Buggy(FaultyEngine, Bug);

#[async_trait]
impl Engine for Buggy {
    fn write(&self, batch: Batch) -> Result<Seq, EngineError> {
        match self.1 {
            Bug::TornBatches => {
                let mut last = self.0.write(Batch::default());
                for op in batch.ops {
                    last = self.0.write(Batch { ops: vec![op] });
                }
                last
            }
            Bug::InclusiveRangeDelete => self.0.write(map(batch, |op| match op {
                Op::DeleteRange(family, from, to) if from < to => {
                    Op::DeleteRange(family, from, [&to[..], b"\0"].concat().into())
                }
                op => op,
            })),
            Bug::EmptyValueIsNone => self.0.write(map(batch, |op| match op {
                Op::Put(family, key, value) if value.is_empty() => Op::Delete(family, key),
                op => op,
            })),
            Bug::None | Bug::LyingSync | Bug::LazyIngest | Bug::ForgottenDamage => self.0.write(batch),
        }
    }

    async fn sync(&self) -> Result<Seq, EngineError> {
        match self.1 {
            Bug::LyingSync => self.0.write(Batch::default()),
            _ => self.0.sync().await,
        }
    }

    async fn flush(&self) -> Result<Seq, EngineError> {
        self.0.flush().await
    }

    fn view(&self) -> Box<dyn View> {
        self.0.view()
    }

    async fn ingest(&self, rows: Vec<(Family, Vec<Row>)>) -> Result<(), EngineError> {
        if self.1 != Bug::LazyIngest {
            return self.0.ingest(rows).await;
        }
        let mut batch = Batch::default();
        for (family, rows) in rows {
            for (key, value) in rows {
                batch.put(family, key, value);
            }
        }
        self.0.write(batch).map(|_| ())
    }

    async fn checkpoint(&self, directory: &Path) -> Result<(), EngineError> {
        self.0.checkpoint(directory).await
    }

    fn condemn(&self, message: String) -> EngineError {
        self.0.condemn(message)
    }

    fn usage(&self) -> Result<Usage, EngineError> {
        self.0.usage()
    }

    fn stall(&self) -> Stall {
        self.0.stall()
    }
}

fn map(batch: Batch, change: impl Fn(Op) -> Op) -> Batch {
    Batch {
        ops: batch.ops.into_iter().map(change).collect(),
    }
}

struct Stores {
    bug: Bug,
    seed: AtomicU64,
}

impl Stores {
    fn new(bug: Bug) -> Self {
        Stores {
            bug,
            seed: AtomicU64::new(0),
        }
    }
}

struct Store {
    bug: Bug,
    disk: FaultyDisk,
    engine: Option<Arc<dyn Engine>>,
    checkpoints: AtomicU64,
}

#[async_trait]
impl Factory for Stores {
    type Subject = Store;

    async fn fresh(&self) -> Store {
        let disk = FaultyDisk::new(self.seed.fetch_add(1, Ordering::SeqCst));
        disk.configure(|faults| faults.sync_delay = Duration::from_micros(10));
        let mut store = Store {
            bug: self.bug,
            disk,
            engine: None,
            checkpoints: AtomicU64::new(0),
        };
        store.reopen().await;
        store
    }
}

#[async_trait]
impl Subject for Store {
    fn engine(&self) -> Arc<dyn Engine> {
        Arc::clone(self.engine.as_ref().unwrap())
    }

    async fn try_reopen(&mut self) -> Result<(), EngineError> {
        self.engine = None;
        if self.bug == Bug::ForgottenDamage {
            self.disk.forget_damage();
        }
        self.engine = Some(Arc::new(Buggy(self.disk.open()?, self.bug)));
        Ok(())
    }

    async fn damage(&mut self, family: Family, key: &[u8]) -> bool {
        self.disk.flip_bit_at(family, key)
    }

    async fn crash(&mut self) -> bool {
        self.disk.crash();
        self.reopen().await;
        true
    }

    fn checkpoint_directory(&self) -> Option<PathBuf> {
        let number = self.checkpoints.fetch_add(1, Ordering::SeqCst);
        Some(format!("/checkpoint-{number}").into())
    }

    async fn open_checkpoint(&self, directory: &Path) -> Option<Arc<dyn Engine>> {
        Some(Arc::new(
            self.disk.restore_checkpoint(directory, 0)?.open().unwrap(),
        ))
    }
}

#[tokio::test]
async fn the_fault_injecting_engine_passes() {
    run_all(&Stores::new(Bug::None)).await;
}

#[tokio::test]
#[should_panic(expected = "part of a batch survived")]
async fn torn_batches_are_noticed() {
    duties::a_crash_keeps_whole_batches(&Stores::new(Bug::TornBatches)).await;
}

#[tokio::test]
#[should_panic(expected = "assertion")]
async fn a_lying_sync_is_noticed() {
    let stores = Stores::new(Bug::LyingSync);
    for _ in 0..10 {
        duties::a_crash_keeps_what_was_synced(stores.fresh().await).await;
    }
}

#[tokio::test]
#[should_panic(expected = "assertion")]
async fn a_lazy_ingest_is_noticed() {
    let stores = Stores::new(Bug::LazyIngest);
    for _ in 0..10 {
        duties::a_crash_keeps_what_was_flushed_or_ingested(stores.fresh().await).await;
    }
}

#[tokio::test]
#[should_panic(expected = "assertion")]
async fn an_inclusive_range_delete_is_noticed() {
    duties::delete_range_ends_before_its_end(Stores::new(Bug::InclusiveRangeDelete).fresh().await).await;
}

#[tokio::test]
#[should_panic(expected = "assertion")]
async fn lost_empty_values_are_noticed() {
    duties::keys_sort_as_bytes(Stores::new(Bug::EmptyValueIsNone).fresh().await).await;
}

#[tokio::test]
#[should_panic(expected = "Ok(())")]
async fn forgotten_damage_is_noticed() {
    duties::damage_is_remembered(Stores::new(Bug::ForgottenDamage).fresh().await).await;
}

/// The random histories alone find the same bugs.
#[tokio::test]
async fn random_histories_notice_every_planted_bug() {
    let bugs = [
        Bug::TornBatches,
        Bug::LyingSync,
        Bug::InclusiveRangeDelete,
        Bug::EmptyValueIsNone,
        Bug::LazyIngest,
    ];
    for bug in bugs {
        let stores = Stores::new(bug);
        let mut noticed = false;
        for seed in 0..20 {
            let history = differential::run(stores.fresh().await, seed, 150);
            noticed |= AssertUnwindSafe(history).catch_unwind().await.is_err();
        }
        assert!(noticed, "{bug:?} went unnoticed");
    }
}
