//! An engine whose first failure stops the node, whoever meets it, and that takes nothing more once the node has failed.
//!
//! Many rooms write, sync, flush and read, and each has to hand its errors on; on its way up through Raft, a task or a
//! stream an error can take its time, and meanwhile the node would go on with a disk that has lied once. So the failure
//! is reported where it comes from, before anybody else hears of it. And whoever is in the midst of something else then,
//! such as taking the rows of a snapshot, finds nothing to write to.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_markers::{planted, reached};
use holdfast_storage::engine::{Batch, Direction, Engine, EngineError, Row, Seq, Stall, Usage, View};
use holdfast_types::Family;

use crate::FatalSink;

/// The engine that all rooms of a node share.
pub struct FailStop {
    engine: Arc<dyn Engine>,
    fatal: FatalSink,
}

impl std::fmt::Debug for FailStop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FailStop").finish_non_exhaustive()
    }
}

impl FailStop {
    /// Reports every failure of this engine.
    pub fn new(engine: Arc<dyn Engine>, fatal: FatalSink) -> Self {
        FailStop { engine, fatal }
    }

    /// A node that has failed changes nothing any more, whatever it failed of.
    fn unless_failed(&self) -> Result<(), EngineError> {
        match self.fatal.reason() {
            Some(message) => {
                reached!("engine.closed-after-failure");
                Err(EngineError::Stopped { message })
            }
            None => Ok(()),
        }
    }
}

/// Tells of a failure. What comes after the first is a consequence and says nothing new; but the first may have met nobody
/// who waited for it, and then what follows from it is the news.
fn told<T>(fatal: &FatalSink, result: Result<T, EngineError>) -> Result<T, EngineError> {
    if let Err(error) = &result {
        fatal.report(error.to_string());
    }
    result
}

#[async_trait]
impl Engine for FailStop {
    fn write(&self, batch: Batch) -> Result<Seq, EngineError> {
        self.unless_failed()?;
        told(&self.fatal, self.engine.write(batch))
    }

    async fn sync(&self) -> Result<Seq, EngineError> {
        self.unless_failed()?;
        let synced = self.engine.sync().await;
        if planted!("retry-after-failed-sync") {
            return synced;
        }
        told(&self.fatal, synced)
    }

    async fn flush(&self) -> Result<Seq, EngineError> {
        self.unless_failed()?;
        told(&self.fatal, self.engine.flush().await)
    }

    fn view(&self) -> Box<dyn View> {
        Box::new(FailStopView {
            view: self.engine.view(),
            fatal: self.fatal.clone(),
        })
    }

    async fn ingest(&self, rows: Vec<(Family, Vec<Row>)>) -> Result<(), EngineError> {
        self.unless_failed()?;
        told(&self.fatal, self.engine.ingest(rows).await)
    }

    // A directory that is not empty, or not there, harms nobody but whoever named it.
    async fn checkpoint(&self, directory: &Path) -> Result<(), EngineError> {
        self.engine.checkpoint(directory).await
    }

    fn condemn(&self, message: String) -> EngineError {
        let damage = self.engine.condemn(message);
        self.fatal.report(damage.to_string());
        damage
    }

    fn usage(&self) -> Result<Usage, EngineError> {
        self.engine.usage()
    }

    fn stall(&self) -> Stall {
        self.engine.stall()
    }
}

/// A view whose failed reads stop the node.
struct FailStopView {
    view: Box<dyn View>,
    fatal: FatalSink,
}

impl View for FailStopView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let read = self.view.get(family, key);
        if planted!("damage-taken-for-absence") {
            return read;
        }
        told(&self.fatal, read)
    }

    fn multi_get(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        told(&self.fatal, self.view.multi_get(family, keys))
    }

    fn scan<'v>(
        &'v self,
        family: Family,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row, EngineError>> + Send + 'v> {
        let rows = self.view.scan(family, from, to, direction);
        Box::new(rows.map(|row| told(&self.fatal, row)))
    }
}

#[cfg(test)]
mod tests {
    use holdfast_storage::faulty::FaultyDisk;

    use super::*;

    /// An engine on a disk with one row, and where its failures are heard.
    fn engine() -> (FaultyDisk, FailStop, FatalSink) {
        let disk = FaultyDisk::new(1);
        let fatal = FatalSink::new();
        let engine = FailStop::new(Arc::new(disk.open().unwrap()), fatal.clone());
        let mut batch = Batch::default();
        batch.put(Family::Account, &b"key"[..], &b"value"[..]);
        engine.write(batch).unwrap();
        (disk, engine, fatal)
    }

    #[tokio::test]
    async fn whoever_meets_a_failure_the_node_hears_of_it() {
        let (disk, engine, fatal) = engine();
        engine.flush().await.unwrap();
        assert_eq!(fatal.reason(), None);
        disk.configure(|faults| faults.fail_next_sync = true);
        assert!(engine.flush().await.is_err());
        let first = fatal.reason().unwrap();
        assert!(first.contains("sync"), "{first}");
        assert!(engine.write(Batch::default()).is_err());
        assert_eq!(
            fatal.reason(),
            Some(first),
            "what follows from it says nothing new"
        );
    }

    #[tokio::test]
    async fn a_damaged_row_stops_whoever_reads_it() {
        let (disk, engine, fatal) = engine();
        engine.sync().await.unwrap();
        assert!(disk.flip_bit_in(Family::Account));
        let view = engine.view();
        assert!(view.get(Family::Claim, b"another").unwrap().is_none());
        assert_eq!(fatal.reason(), None);
        let read: Result<Vec<_>, _> = view
            .scan(
                Family::Account,
                Bound::Unbounded,
                Bound::Unbounded,
                Direction::Forward,
            )
            .collect();
        assert!(read.is_err());
        assert!(fatal.reason().unwrap().contains("damaged"));
    }

    #[tokio::test]
    async fn a_node_that_failed_of_something_else_writes_nothing_either() {
        let (disk, engine, fatal) = engine();
        let last = disk.last();
        fatal.report("a stored row cannot be read");
        let mut batch = Batch::default();
        batch.put(Family::Account, &b"key"[..], &b"another value"[..]);
        assert!(matches!(engine.write(batch), Err(EngineError::Stopped { .. })));
        assert!(engine.sync().await.is_err() && engine.flush().await.is_err());
        assert!(engine.ingest(Vec::new()).await.is_err());
        assert_eq!(disk.last(), last);
    }

    #[tokio::test]
    async fn a_checkpoint_to_the_wrong_place_stops_nobody() {
        let (_disk, engine, fatal) = engine();
        engine.checkpoint(Path::new("there")).await.unwrap();
        assert!(engine.checkpoint(Path::new("there")).await.is_err());
        assert_eq!(fatal.reason(), None);
    }
}
