//! What needs doing now and then whether anybody asks or not: gauges, the ballast, background errors.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_storage::engine::EngineError;

use crate::ballast::Tended;
use crate::engine::Core;
use crate::{syncer, usage};

/// How often the file system and RocksDB are asked.
const INTERVAL: Duration = Duration::from_secs(5);

/// The thread; dropping it ends it.
pub(crate) struct Housekeeping {
    /// Never sent on: closing it is the message. `None` only while dropping.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Housekeeping {
    /// Starts the thread.
    pub(crate) fn start(core: &Arc<Core>) -> Result<Self, EngineError> {
        let (stop, stopped) = mpsc::channel();
        let core = core.clone();
        let thread = syncer::spawn("holdfast-housekeeping", move || {
            let mut errors = 0;
            while stopped.recv_timeout(INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                keep(&core);
                report_background_errors(&core, &mut errors);
            }
        })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Nothing depends on what it did last.
            let _ = thread.join();
        }
    }
}

/// Failures are logged, not terminal: a number that cannot be had or a ballast that cannot be made says nothing
/// about the rows.
fn keep(core: &Core) {
    match usage::record(core) {
        Ok(usage) => tend_ballast(core, usage.disk_free_bytes.unwrap_or(u64::MAX)),
        Err(error) => tracing::warn!(%error, "the storage engine's usage is unknown"),
    }
}

/// A failed flush, or damage found by a compaction, makes the next write fail, which stops the engine. What is left are
/// compactions that found no room: RocksDB gives up compacting then, and goes on serving. So does this node, since its
/// peers' disks are probably as full, but somebody must know.
fn report_background_errors(core: &Core, before: &mut u64) {
    let now = usage::background_errors(core);
    if now > *before {
        tracing::error!(
            count = now - *before,
            "RocksDB's background work failed; compaction may have stopped until this node is restarted (see db/LOG)"
        );
        *before = now;
    }
}

fn tend_ballast(core: &Core, disk_free_bytes: u64) {
    match core.ballast.tend(disk_free_bytes) {
        Ok(tended) => report(tended, disk_free_bytes),
        Err(error) => tracing::warn!(%error, "the ballast could not be tended"),
    }
}

/// Says what happened to the ballast, if anything.
pub(crate) fn report(tended: Tended, disk_free_bytes: u64) {
    match tended {
        Tended::Kept => {}
        Tended::Created => tracing::info!(disk_free_bytes, "the ballast is in place"),
        Tended::Released(bytes) => tracing::warn!(
            disk_free_bytes,
            released_bytes = bytes,
            "the disk is nearly full: the ballast was deleted to keep this node running; make room now"
        ),
    }
}
