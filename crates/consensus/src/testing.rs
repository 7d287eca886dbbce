//! Openraft's own suite for log stores and state machines, over any engine.

use std::future::Future;
use std::sync::Arc;

use holdfast_storage::engine::Engine;
use holdfast_types::ShardId;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use crate::FatalSink;
use crate::apply::StateMachine;
use crate::log_store::LogStore;
use crate::log_writer::LogWriter;
use crate::type_config::TypeConfig;

struct Builder<F>(F);

impl<F, Fut, G> StoreBuilder<TypeConfig, LogStore, StateMachine, G> for Builder<F>
where
    F: Fn() -> Fut + Send + Sync,
    Fut: Future<Output = (G, Arc<dyn Engine>)> + Send,
    G: Send + Sync,
{
    async fn build(&self) -> Result<(G, LogStore, StateMachine), StorageError<TypeConfig>> {
        let (guard, engine) = (self.0)().await;
        let shard = ShardId(0);
        let fatal = FatalSink::new();
        let writer = LogWriter::start(engine.clone(), fatal.clone());
        // A cache of nothing: what is written is read from the engine.
        let log = LogStore::open(engine.clone(), writer, shard, 0).map_err(read_failed)?;
        let (machine, _) =
            StateMachine::open(engine, shard, log.clone(), 1 << 20, fatal).map_err(read_failed)?;
        Ok((guard, log, machine))
    }
}

fn read_failed(error: std::io::Error) -> StorageError<TypeConfig> {
    StorageError::from_io_error(openraft::ErrorSubject::Logs, openraft::ErrorVerb::Read, error)
}

/// Runs the whole suite. `engines` makes an empty engine each time, and a guard that is dropped after it.
///
/// # Panics
///
/// If the suite fails.
pub async fn log_suite<F, Fut, G>(engines: F)
where
    F: Fn() -> Fut + Send + Sync,
    Fut: Future<Output = (G, Arc<dyn Engine>)> + Send,
    G: Send + Sync,
{
    Suite::test_all(Builder(engines))
        .await
        .expect("the suite reports nothing but failures");
}

#[cfg(test)]
mod tests {
    use holdfast_storage::faulty::FaultyDisk;

    use super::*;

    #[tokio::test]
    async fn passes_openrafts_suite_on_the_fault_injecting_engine() {
        log_suite(|| async {
            let disk = FaultyDisk::new(1);
            let engine: Arc<dyn Engine> = Arc::new(disk.open().unwrap());
            (disk, engine)
        })
        .await;
    }
}
