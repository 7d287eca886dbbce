//! The engine that a node holds while its disk is well.

use std::fmt;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_markers::planted;
use holdfast_types::Family;

use super::disk::{Disk, Flipped, Shared};
use super::image::Image;
use crate::engine::{Batch, Direction, Engine, EngineError, Row, Seq, Stall, Usage, View};

/// An engine on a [`FaultyDisk`](super::FaultyDisk).
pub struct FaultyEngine {
    shared: Arc<Shared>,
    generation: u64,
    /// The failure that finished this engine.
    stopped: Mutex<Option<String>>,
}

impl fmt::Debug for FaultyEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyEngine")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl FaultyEngine {
    pub(super) fn new(shared: Arc<Shared>, generation: u64) -> Self {
        FaultyEngine {
            shared,
            generation,
            stopped: Mutex::new(None),
        }
    }

    /// The disk, if this engine may still use it.
    fn disk(&self) -> Result<MutexGuard<'_, Disk>, EngineError> {
        if let Some(message) = self.stopped().clone() {
            return Err(EngineError::Stopped { message });
        }
        let disk = self.shared.lock();
        if disk.generation != self.generation {
            let message = "the power failed, or the disk was opened again".into();
            return Err(EngineError::Stopped { message });
        }
        Ok(disk)
    }

    fn stopped(&self) -> MutexGuard<'_, Option<String>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finishes this engine.
    fn fail(&self, error: EngineError) -> EngineError {
        *self.stopped() = Some(error.to_string());
        self.shared.told(error)
    }

    /// Lets the time of one sync pass. Fails if the engine did not live to see the end of it.
    async fn spin(&self) -> Result<(), EngineError> {
        let delay = self.disk()?.draw_sync_delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        loop {
            // Made before the look at the faults, so that no change in between is missed.
            let changed = self.shared.changed.notified();
            if !self.disk()?.faults.sync_stalled {
                return Ok(());
            }
            changed.await;
        }
    }

    /// A sync, and with `flush` the end of the write-ahead log before it.
    async fn make_durable(&self, flush: bool) -> Result<Seq, EngineError> {
        let mark = self.disk()?.mark();
        let seq = mark.seq;
        self.spin().await?;
        let mut disk = self.disk()?;
        if disk.faults.fail_next_sync {
            disk.faults.fail_next_sync = false;
            disk.unsynced_undefined = true;
            drop(disk);
            let error = EngineError::Io {
                operation: "sync",
                message: "input/output error".into(),
            };
            // Real disks let themselves be asked again.
            if planted!("retry-after-failed-sync") {
                return Err(self.shared.told(error));
            }
            return Err(self.fail(error));
        }
        if disk.unsynced_undefined {
            // And then they say yes to what is gone, and to all that needs it.
            return Ok(seq);
        }
        if flush {
            disk.wal_bytes = disk.wal_bytes.saturating_sub(mark.wal_bytes);
        }
        disk.reach(mark);
        Ok(seq)
    }
}

#[async_trait]
impl Engine for FaultyEngine {
    fn write(&self, batch: Batch) -> Result<Seq, EngineError> {
        let written = self.disk()?.write(batch);
        written.map_err(|error| self.fail(error))
    }

    async fn sync(&self) -> Result<Seq, EngineError> {
        self.make_durable(false).await
    }

    async fn flush(&self) -> Result<Seq, EngineError> {
        self.make_durable(true).await
    }

    fn view(&self) -> Box<dyn View> {
        match self.disk() {
            Ok(disk) => Box::new(FaultyView {
                image: disk.current.clone(),
                shared: Some(Arc::clone(&self.shared)),
                flipped: Arc::clone(&disk.flipped),
            }),
            Err(error) => Box::new(DeadView { error }),
        }
    }

    async fn ingest(&self, rows: Vec<(Family, Vec<Row>)>) -> Result<(), EngineError> {
        let mut rest = rows;
        while !rest.is_empty() {
            let next = self.disk()?.below(rest.len() as u64);
            let (family, rows) = rest.swap_remove(next as usize);
            self.spin().await?;
            self.disk()?.ingest(family, rows);
        }
        Ok(())
    }

    async fn checkpoint(&self, directory: &Path) -> Result<(), EngineError> {
        self.spin().await?;
        let mut disk = self.disk()?;
        if disk.checkpoints.contains_key(directory) {
            let message = format!("{} is not empty", directory.display());
            return Err(EngineError::Io {
                operation: "checkpoint",
                message,
            });
        }
        let image = disk.current.clone();
        disk.checkpoints.insert(directory.to_owned(), image);
        Ok(())
    }

    fn condemn(&self, message: String) -> EngineError {
        self.fail(EngineError::Damaged { message })
    }

    fn usage(&self) -> Result<Usage, EngineError> {
        let disk = self.disk()?;
        let disk_bytes = disk.current.bytes();
        Ok(Usage {
            families: Family::ALL
                .map(|family| (family, disk.current.table(family).bytes))
                .to_vec(),
            disk_bytes,
            wal_bytes: disk.wal_bytes,
            memory_bytes: disk.wal_bytes,
            disk_free_bytes: disk
                .faults
                .capacity_bytes
                .map(|capacity| capacity.saturating_sub(disk_bytes)),
            disk_total_bytes: disk.faults.capacity_bytes,
        })
    }

    fn stall(&self) -> Stall {
        // A dead engine holds nobody up: it refuses.
        self.disk().map_or(Stall::None, |disk| disk.faults.stall)
    }
}

/// A frozen picture.
pub(super) struct FaultyView {
    image: Image,
    /// Whose faults it has; none for whoever looks at the disk from outside.
    shared: Option<Arc<Shared>>,
    flipped: Flipped,
}

impl FaultyView {
    /// What somebody sees who takes the disk out and reads it elsewhere.
    pub(super) fn from_outside(image: Image) -> Self {
        FaultyView {
            image,
            shared: None,
            flipped: Flipped::default(),
        }
    }

    fn check(&self) -> Result<(), EngineError> {
        if self.shared.as_ref().is_some_and(|shared| shared.fail_reads()) {
            return Err(self.told(EngineError::Io {
                operation: "read",
                message: "input/output error".into(),
            }));
        }
        Ok(())
    }

    fn told(&self, error: EngineError) -> EngineError {
        match &self.shared {
            Some(shared) => shared.told(error),
            None => error,
        }
    }

    /// Fails if a bit of this row is wrong.
    fn check_row(&self, family: Family, key: &Bytes) -> Result<(), EngineError> {
        self.check()?;
        if !self.flipped.is_empty() && self.flipped.contains(&(family, key.clone())) {
            return Err(self.told(EngineError::Damaged {
                message: format!("block checksum mismatch in {}", family.name()),
            }));
        }
        Ok(())
    }
}

impl View for FaultyView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.check()?;
        let Some((key, value)) = self.image.table(family).rows.get_key_value(key) else {
            return Ok(None);
        };
        self.check_row(family, key)?;
        Ok(Some(value.clone()))
    }

    fn scan<'v>(
        &'v self,
        family: Family,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row, EngineError>> + Send + 'v> {
        if is_empty(from, to) {
            return Box::new(std::iter::empty());
        }
        let range = (from.map(Bytes::copy_from_slice), to.map(Bytes::copy_from_slice));
        let rows = self.image.table(family).rows.range::<Bytes, _>(range);
        let read = move |(key, value): (&Bytes, &Bytes)| {
            self.check_row(family, key)?;
            Ok((key.clone(), value.clone()))
        };
        match direction {
            Direction::Forward => Box::new(rows.map(read)),
            Direction::Backward => Box::new(rows.rev().map(read)),
        }
    }
}

/// Whether no key lies between the bounds. The trees insist on being asked for sensible ranges.
fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => {
            from >= to
        }
        _ => false,
    }
}

/// What a dead engine gives for a view.
struct DeadView {
    error: EngineError,
}

impl View for DeadView {
    fn get(&self, _: Family, _: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Err(self.error.clone())
    }

    fn scan<'v>(
        &'v self,
        _: Family,
        _: Bound<&[u8]>,
        _: Bound<&[u8]>,
        _: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row, EngineError>> + Send + 'v> {
        Box::new(std::iter::once(Err(self.error.clone())))
    }
}
