//! The one writer of a node's logs.
//!
//! Appends, votes, truncations and purges of all groups go through one queue, in order. The writer takes as
//! much as is waiting (bounded in bytes), writes it as one unsynced batch, syncs once, and only then reports:
//! so a slow disk makes batches larger instead of queues longer. Entries count as *written* between the two,
//! which is what applying waits for; see [`LogWriter::wait_written`].
//!
//! An engine that has stopped writes (RocksDB does, while compaction is behind) would hold up the thread that
//! writes, and with it everything else that runs there. So it is asked first, and waited for outside of it; the wait
//! counts like a sync that takes long, after which a leader hands over. A stall that begins between the question
//! and the write still holds up one thread.
//!
//! After the first failure nothing is ever reported as done again: whoever waits gets an error, and the node
//! is told to stop.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use holdfast_markers::{crash_point, planted, reached};
use holdfast_storage::engine::{Batch, Engine, EngineError, Op, Stall};
use openraft::storage::IOFlushed;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::FatalSink;
use crate::runtime::others_first;
use crate::type_config::TypeConfig;

/// The most bytes gathered into one sync.
const SYNC_BYTES_MAX: usize = 4 << 20;
/// The most bytes that wait, in units of the most that one sync takes.
const WAITING_BATCHES_MAX: usize = 4;
/// How often an engine that has stopped writes is asked again.
const STALL_PAUSE: Duration = Duration::from_millis(5);

/// Waits while the engine has stopped writes.
pub(crate) async fn writes_flow(engine: &dyn Engine) {
    while engine.stall() == Stall::Stopped {
        tokio::time::sleep(STALL_PAUSE).await;
    }
}

/// Who wants to know that a request is durable.
pub(crate) enum Done {
    /// Nobody; it need not be synced for its own sake.
    Nobody,
    /// openraft, for appended entries.
    Flushed(IOFlushed<TypeConfig>),
    /// A waiting task, for votes.
    Reply(oneshot::Sender<io::Result<()>>),
}

impl Done {
    fn report(self, result: io::Result<()>) {
        match self {
            Done::Nobody => {}
            Done::Flushed(callback) => callback.io_completed(result),
            // The waiter may have gone; then nobody is misled.
            Done::Reply(sender) => drop(sender.send(result)),
        }
    }
}

struct Request {
    ticket: u64,
    ops: Vec<Op>,
    entries: usize,
    bytes: usize,
    done: Done,
    _room: OwnedSemaphorePermit,
}

/// How far the writer has come.
#[derive(Debug, Clone)]
struct Progress {
    /// Everything up to this ticket is in the engine, if perhaps not synced.
    written: u64,
    failed: Option<String>,
}

/// A place in the queue, taken before the request is ordered, so that waiting for room never reorders.
pub(crate) struct Room {
    permit: OwnedSemaphorePermit,
    bytes: usize,
}

/// A handle to the writer that all groups of a node share. The writer ends when the last one is dropped.
#[derive(Clone)]
pub struct LogWriter {
    queue: mpsc::UnboundedSender<Request>,
    room: Arc<Semaphore>,
    room_max: usize,
    next_ticket: Arc<Mutex<u64>>,
    progress: watch::Receiver<Progress>,
    busy_since: Arc<Mutex<Option<Instant>>>,
}

impl LogWriter {
    /// Starts the writer of the logs on `engine`.
    pub fn start(engine: Arc<dyn Engine>, fatal: FatalSink) -> Self {
        Self::with_sync_bytes(engine, fatal, SYNC_BYTES_MAX)
    }

    /// The same, with another bound on what is gathered into one sync.
    pub(crate) fn with_sync_bytes(engine: Arc<dyn Engine>, fatal: FatalSink, sync_bytes_max: usize) -> Self {
        let (queue, requests) = mpsc::unbounded_channel();
        let (progress_sender, progress) = watch::channel(Progress {
            written: 0,
            failed: None,
        });
        let room_max = sync_bytes_max
            .saturating_mul(WAITING_BATCHES_MAX)
            .min(Semaphore::MAX_PERMITS);
        let busy_since = Arc::new(Mutex::new(None));
        let task = Writer {
            engine,
            fatal: fatal.clone(),
            requests,
            progress: progress_sender,
            busy_since: busy_since.clone(),
            sync_bytes_max,
        };
        tokio::spawn(fatal.guard("the log writer", task.run()));
        LogWriter {
            queue,
            room: Arc::new(Semaphore::new(room_max)),
            room_max,
            next_ticket: Arc::new(Mutex::new(1)),
            progress,
            busy_since,
        }
    }

    /// Waits until `bytes` more may be queued.
    pub(crate) async fn reserve(&self, bytes: usize) -> io::Result<Room> {
        let permits = u32::try_from(bytes.clamp(1, self.room_max)).unwrap_or(u32::MAX);
        let permit = self
            .room
            .clone()
            .acquire_many_owned(permits)
            .await
            .map_err(|_| stopped())?;
        Ok(Room { permit, bytes })
    }

    /// Queues a request and returns its ticket. Requests are done in the order of the calls.
    pub(crate) fn enqueue(&self, room: Room, ops: Vec<Op>, entries: usize, done: Done) -> io::Result<u64> {
        let mut next = lock(&self.next_ticket);
        let ticket = *next;
        let request = Request {
            ticket,
            ops,
            entries,
            bytes: room.bytes,
            done,
            _room: room.permit,
        };
        match self.queue.send(request) {
            Ok(()) => {
                *next += 1;
                let waiting = self.room_max - self.room.available_permits();
                metrics::gauge!("holdfast_raft_log_queue_bytes").set(waiting as f64);
                Ok(ticket)
            }
            Err(refused) => {
                refused.0.done.report(Err(stopped()));
                Err(stopped())
            }
        }
    }

    /// Everything up to this ticket is in the engine.
    pub(crate) fn written(&self) -> u64 {
        self.progress.borrow().written
    }

    /// How many requests are not written yet.
    pub(crate) fn waiting(&self) -> u64 {
        self.last_ticket().saturating_sub(self.written())
    }

    /// The ticket of the request queued last.
    pub(crate) fn last_ticket(&self) -> u64 {
        *lock(&self.next_ticket) - 1
    }

    /// Waits until the request with this ticket is in the engine, synced or not.
    pub(crate) async fn wait_written(&self, ticket: u64) -> io::Result<()> {
        let mut progress = self.progress.clone();
        loop {
            {
                let seen = progress.borrow_and_update();
                if let Some(why) = &seen.failed {
                    return Err(io::Error::other(why.clone()));
                }
                if seen.written >= ticket {
                    return Ok(());
                }
            }
            progress.changed().await.map_err(|_| stopped())?;
        }
    }

    /// How long the disk has been busy with the running write and sync, waits for a stalled engine included.
    pub(crate) fn sync_age(&self) -> Option<Duration> {
        lock(&self.busy_since).map(|started| started.elapsed())
    }
}

/// Notes since when the disk is busy, until it is dropped.
struct Busy<'a>(&'a Mutex<Option<Instant>>);

impl<'a> Busy<'a> {
    fn begin(since: &'a Mutex<Option<Instant>>) -> Self {
        *lock(since) = Some(Instant::now());
        Busy(since)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        *lock(self.0) = None;
    }
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogWriter").finish_non_exhaustive()
    }
}

struct Writer {
    engine: Arc<dyn Engine>,
    fatal: FatalSink,
    requests: mpsc::UnboundedReceiver<Request>,
    progress: watch::Sender<Progress>,
    busy_since: Arc<Mutex<Option<Instant>>>,
    sync_bytes_max: usize,
}

impl Writer {
    async fn run(mut self) {
        while let Some(first) = self.requests.recv().await {
            others_first().await;
            let mut bytes = first.bytes;
            let mut group = vec![first];
            while bytes < self.sync_bytes_max {
                let Ok(next) = self.requests.try_recv() else { break };
                bytes += next.bytes;
                group.push(next);
            }
            if let Err(why) = self.commit(&mut group).await {
                self.fatal.report(why.clone());
                self.progress
                    .send_modify(|progress| progress.failed = Some(why.clone()));
                return self.refuse(group, why).await;
            }
            for request in group {
                request.done.report(Ok(()));
            }
        }
    }

    /// Writes and, where somebody waits for it, syncs a group.
    async fn commit(&self, group: &mut [Request]) -> Result<(), String> {
        let entries: usize = group.iter().map(|request| request.entries).sum();
        let batch = Batch {
            ops: group
                .iter_mut()
                .flat_map(|request| std::mem::take(&mut request.ops))
                .collect(),
        };
        let explain = |error: EngineError| format!("writing the raft log failed: {error}");
        // Another part of the node may have failed since: then this one is silent too.
        if let Some(reason) = self.fatal.reason() {
            reached!("log.silent-after-failure");
            return Err(reason);
        }
        let _busy = Busy::begin(&self.busy_since);
        writes_flow(&*self.engine).await;
        self.engine.write(batch).map_err(explain)?;
        if let Some(last) = group.last() {
            self.progress
                .send_modify(|progress| progress.written = last.ticket);
        }
        let awaited = group.iter().any(|request| !matches!(request.done, Done::Nobody));
        if planted!("flush-reported-before-sync") {
            let appends = group
                .iter_mut()
                .filter(|request| matches!(request.done, Done::Flushed(_)));
            for request in appends {
                std::mem::replace(&mut request.done, Done::Nobody).report(Ok(()));
            }
        }
        if awaited {
            crash_point!("log.written-not-synced").await;
            let started = Instant::now();
            let mut synced = self.engine.sync().await;
            if synced.is_err() && planted!("retry-after-failed-sync") {
                synced = self.engine.sync().await;
            }
            synced.map_err(|error| {
                reached!("log.sync-failed");
                explain(error)
            })?;
            metrics::histogram!("holdfast_log_sync_seconds").record(started.elapsed().as_secs_f64());
            metrics::histogram!("holdfast_log_batch_entries").record(entries as f64);
        }
        if let Some(reason) = self.fatal.reason() {
            reached!("log.failed-elsewhere-during-sync");
            return Err(reason);
        }
        if awaited {
            crash_point!("log.synced-not-acknowledged").await;
        }
        Ok(())
    }

    /// Answers everything with the failure, for as long as anybody asks.
    async fn refuse(mut self, group: Vec<Request>, why: String) {
        for request in group {
            request.done.report(Err(io::Error::other(why.clone())));
        }
        while let Some(request) = self.requests.recv().await {
            reached!("log.refused-after-failure");
            request.done.report(Err(io::Error::other(why.clone())));
        }
    }
}

fn stopped() -> io::Error {
    io::Error::other("the log writer has stopped")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
