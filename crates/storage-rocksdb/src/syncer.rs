//! Durability, on threads of its own: the log's sync, and the synced-through mark's.
//!
//! Whoever asks while a sync runs waits for the next one, which answers all of them: their writes returned before they asked, so it covers
//! them. The mark is raised before anybody is answered, so nothing acknowledged is above it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use holdfast_storage::engine::{EngineError, Seq};
use metrics::histogram;
use tokio::sync::oneshot;

use crate::engine::Core;

/// The least time between two syncs of the mark's file.
const MARK_SYNC_INTERVAL: Duration = Duration::from_millis(50);

type Waiter = oneshot::Sender<Result<Seq, EngineError>>;

/// The two threads. Dropping it waits for the sync in progress and for a last one of the mark.
pub(crate) struct Syncer {
    /// As many waiters as there are callers, each waiting for one answer. `None` only while dropping.
    waiters: Option<mpsc::Sender<Waiter>>,
    threads: Vec<JoinHandle<()>>,
    fail_next: Arc<AtomicBool>,
}

impl Syncer {
    /// Starts the threads.
    pub(crate) fn start(core: &Arc<Core>) -> Result<Self, EngineError> {
        let (waiters, queue) = mpsc::channel();
        // One nudge is remembered, so the last raise is always followed by a sync.
        let (nudge, nudges) = mpsc::sync_channel(1);
        let fail_next = Arc::new(AtomicBool::new(false));
        let log = {
            let (core, fail_next) = (core.clone(), fail_next.clone());
            spawn("holdfast-sync", move || {
                sync_log(&core, &queue, &nudge, &fail_next)
            })?
        };
        let mark = {
            let core = core.clone();
            spawn("holdfast-mark", move || sync_mark(&core, &nudges))?
        };
        Ok(Self {
            waiters: Some(waiters),
            threads: vec![log, mark],
            fail_next,
        })
    }

    /// Makes what was written before the call durable.
    pub(crate) async fn sync(&self, core: &Core) -> Result<Seq, EngineError> {
        core.fate.check()?;
        let (waiter, answer) = oneshot::channel();
        let sent = self
            .waiters
            .as_ref()
            .is_some_and(|waiters| waiters.send(waiter).is_ok());
        if sent && let Ok(result) = answer.await {
            return result;
        }
        core.fate.check()?;
        Err(core.fate.stop(EngineError::Io {
            operation: "sync",
            message: "the syncing thread died".into(),
        }))
    }

    /// Test seam: see [`crate::RocksEngine::fail_next_sync`].
    pub(crate) fn fail_next(&self) {
        self.fail_next.store(true, Ordering::SeqCst);
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        drop(self.waiters.take());
        for thread in self.threads.drain(..) {
            // A panic of the thread was already reported by whoever waited for it.
            let _ = thread.join();
        }
    }
}

/// Starts a named thread.
pub(crate) fn spawn(
    name: &'static str,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, EngineError> {
    thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(|error| EngineError::Io {
            operation: "starting a thread",
            message: format!("{name}: {error}"),
        })
}

fn sync_log(
    core: &Core,
    queue: &mpsc::Receiver<Waiter>,
    nudge: &mpsc::SyncSender<()>,
    fail_next: &AtomicBool,
) {
    while let Ok(first) = queue.recv() {
        let mut waiters = vec![first];
        waiters.extend(queue.try_iter());
        let result = sync_once(core, fail_next);
        if result.is_ok() {
            // Full: a nudge is waiting already. Closed: the other thread has stopped the engine.
            let _ = nudge.try_send(());
        }
        for waiter in waiters {
            // Whoever no longer waits loses nothing.
            let _ = waiter.send(result.clone());
        }
    }
}

fn sync_once(core: &Core, fail_next: &AtomicBool) -> Result<Seq, EngineError> {
    core.fate.check()?;
    // Read first: what is written during the sync may or may not be covered.
    let sequence = core.db.latest_sequence_number();
    let started = Instant::now();
    if fail_next.swap(false, Ordering::SeqCst) {
        return Err(core.fate.stop(EngineError::Io {
            operation: "sync",
            message: "failed on request of a test".into(),
        }));
    }
    core.db
        .flush_wal(true)
        .map_err(|error| core.fate.stop_rocks("sync", &error))?;
    histogram!("holdfast_engine_sync_seconds").record(started.elapsed());
    core.mark.raise(sequence).map_err(|error| core.fate.stop(error))?;
    Ok(Seq(sequence))
}

fn sync_mark(core: &Core, nudges: &mpsc::Receiver<()>) {
    let sync = || core.mark.sync().map_err(|error| core.fate.stop(error)).is_ok();
    while nudges.recv().is_ok() {
        if core.fate.check().is_err() || !sync() {
            return;
        }
        thread::sleep(MARK_SYNC_INTERVAL);
    }
    sync();
}
