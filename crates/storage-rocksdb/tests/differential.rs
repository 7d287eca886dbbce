//! RocksDB and the fault-injecting engine side by side: the same random history must give the same reads.
//!
//! What simulated nodes run on stands in for what real ones run on, so the two must not differ in anything that a node can see. A
//! history that fails is shrunk and shown.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use holdfast_storage::choices::SplitMix64;
use holdfast_storage::contract::differential::{self, Turn};
use holdfast_storage::contract::{Factory, Subject};
use holdfast_storage::engine::{Engine, EngineError};
use holdfast_storage::faulty::{FaultyDisk, FaultyEngine};
use proptest::collection::vec;
use proptest::prelude::*;
use support::subject::Stores;

/// A store on the simulated disk.
struct Simulated {
    disk: FaultyDisk,
    engine: Arc<FaultyEngine>,
    checkpoints: AtomicU64,
}

impl Simulated {
    fn new() -> Self {
        let disk = FaultyDisk::new(0);
        Self {
            engine: Arc::new(disk.open().unwrap()),
            disk,
            checkpoints: AtomicU64::new(0),
        }
    }
}

#[async_trait]
impl Subject for Simulated {
    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    async fn try_reopen(&mut self) -> Result<(), EngineError> {
        self.engine = Arc::new(self.disk.open()?);
        Ok(())
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
        let disk = self.disk.restore_checkpoint(directory, 0)?;
        Some(Arc::new(disk.open().unwrap()))
    }
}

/// Each turn comes from a number of its own, so a history shrinks by losing turns.
fn history() -> impl Strategy<Value = Vec<Turn>> {
    vec(any::<u64>().no_shrink(), 1..160).prop_map(|numbers| {
        let draw = |number| Turn::draw(&mut SplitMix64::new(number));
        numbers.into_iter().map(draw).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn reads_are_equal(turns in history()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut rocks = Stores::default().fresh().await;
            differential::play(&mut [&mut rocks, &mut Simulated::new()], &turns, "side by side").await;
        });
    }
}
