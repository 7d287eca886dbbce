//! The contract suite: what every engine must do, as tests that run on any engine.
//!
//! An engine's crate implements [`Factory`] and [`Subject`] and calls [`run_all`] from a test. Each duty that
//! [`Engine`]'s documentation names has a function of its own in [`duties`], so a failure says what was broken;
//! [`differential`] then compares random histories with a plain map.
//!
//! Besides what the trait says, three duties of *opening* a store are tested here: everything that was written
//! before a stop without power failure is there again, and what is there is durable from then on; and a store whose
//! reader met damage does not open again.

pub mod differential;
pub mod duties;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use holdfast_types::Family;

use crate::engine::{Engine, EngineError};

/// Makes stores to test.
#[async_trait]
pub trait Factory: Sync {
    /// A store under test.
    type Subject: Subject;

    /// An empty store, opened.
    async fn fresh(&self) -> Self::Subject;
}

/// A store under test, and what can be done to it from outside.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The engine that is open now. Callers drop what they hold before they reopen or crash.
    fn engine(&self) -> Arc<dyn Engine>;

    /// Drops the engine without syncing, as a process that ends does, and opens the store again. What was the engine
    /// stays dropped if that fails.
    async fn try_reopen(&mut self) -> Result<(), EngineError>;

    /// [`try_reopen`](Subject::try_reopen) of a store that is well.
    async fn reopen(&mut self) {
        self.try_reopen().await.expect("a healthy store opens");
    }

    /// Damages a row that was flushed, and opens the store again, which goes well until the row is read. False: this store
    /// cannot do that, nothing was done.
    async fn damage(&mut self, family: Family, key: &[u8]) -> bool {
        let _ = (family, key);
        false
    }

    /// Cuts the power and opens the store again. False: this store cannot do that, nothing was done.
    async fn crash(&mut self) -> bool {
        false
    }

    /// A directory that does not exist yet and may be used for a checkpoint, another one each time. `None`: checkpoints
    /// cannot be opened again here, and are not tested.
    fn checkpoint_directory(&self) -> Option<PathBuf> {
        None
    }

    /// Opens a checkpoint taken to `directory`.
    async fn open_checkpoint(&self, directory: &Path) -> Option<Arc<dyn Engine>> {
        let _ = directory;
        None
    }
}

/// Every duty, each on a store of its own, then random histories.
///
/// # Panics
///
/// With the duty's own words, if the engine breaks one.
pub async fn run_all<F: Factory>(factory: &F) {
    duties::a_batch_applies_in_order(factory.fresh().await).await;
    duties::a_batch_is_visible_as_a_whole(factory.fresh().await).await;
    duties::families_are_apart(factory.fresh().await).await;
    duties::sequences_grow(factory.fresh().await).await;
    duties::views_are_frozen(factory.fresh().await).await;
    duties::multi_get_keeps_the_order_of_its_keys(factory.fresh().await).await;
    duties::scans_stay_within_their_bounds(factory.fresh().await).await;
    duties::keys_sort_as_bytes(factory.fresh().await).await;
    duties::delete_range_ends_before_its_end(factory.fresh().await).await;
    duties::ingest_replaces(factory.fresh().await).await;
    duties::ingest_wins_over_an_earlier_range_delete(factory.fresh().await).await;
    duties::a_restart_keeps_everything(factory.fresh().await).await;
    duties::a_crash_keeps_what_was_synced(factory.fresh().await).await;
    duties::what_an_open_finds_is_durable(factory.fresh().await).await;
    duties::a_crash_keeps_what_was_flushed_or_ingested(factory.fresh().await).await;
    duties::a_crash_keeps_whole_batches(factory).await;
    duties::syncs_may_overlap(factory.fresh().await).await;
    duties::a_checkpoint_is_a_store(factory.fresh().await).await;
    duties::usage_is_reported(factory.fresh().await).await;
    duties::large_values_survive(factory.fresh().await).await;
    duties::damage_is_remembered(factory.fresh().await).await;
    duties::what_is_condemned_stays_so(factory.fresh().await).await;
    for seed in 0..8 {
        differential::run(factory.fresh().await, seed, 150).await;
    }
}
