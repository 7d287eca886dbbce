//! The one writer of a node's logs.
//!
//! Appends, votes, truncations and purges of all groups go through one queue, in order. The writer takes as
//! much as is waiting (bounded in bytes), writes it as one unsynced batch, syncs once, and only then reports:
//! so a slow disk makes batches larger instead of queues longer. Entries count as *written* between the two,
//! which is what applying waits for; see [`LogWriter::wait_written`].
//!
//! After the first failure nothing is ever reported as done again: whoever waits gets an error, and the node
//! is told to stop.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use holdfast_storage::engine::{Batch, Engine, EngineError, Op};
use openraft::storage::IOFlushed;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::FatalSink;
use crate::type_config::TypeConfig;

/// The most bytes that wait, in units of the most that one sync takes.
const WAITING_BATCHES_MAX: usize = 4;

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

/// A handle to the writer. The writer ends when the last one is dropped.
#[derive(Clone)]
pub(crate) struct LogWriter {
    queue: mpsc::UnboundedSender<Request>,
    room: Arc<Semaphore>,
    room_max: usize,
    next_ticket: Arc<Mutex<u64>>,
    progress: watch::Receiver<Progress>,
    sync_started: Arc<Mutex<Option<Instant>>>,
}

impl LogWriter {
    /// Starts the writer.
    pub(crate) fn start(engine: Arc<dyn Engine>, fatal: FatalSink, sync_bytes_max: usize) -> Self {
        let (queue, requests) = mpsc::unbounded_channel();
        let (progress_sender, progress) = watch::channel(Progress {
            written: 0,
            failed: None,
        });
        let room_max = sync_bytes_max
            .saturating_mul(WAITING_BATCHES_MAX)
            .min(Semaphore::MAX_PERMITS);
        let sync_started = Arc::new(Mutex::new(None));
        let task = Writer {
            engine,
            fatal,
            requests,
            progress: progress_sender,
            sync_started: sync_started.clone(),
            sync_bytes_max,
        };
        tokio::spawn(task.run());
        LogWriter {
            queue,
            room: Arc::new(Semaphore::new(room_max)),
            room_max,
            next_ticket: Arc::new(Mutex::new(1)),
            progress,
            sync_started,
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

    /// How long the running sync has taken so far.
    pub(crate) fn sync_age(&self) -> Option<Duration> {
        lock(&self.sync_started).map(|started| started.elapsed())
    }
}

struct Writer {
    engine: Arc<dyn Engine>,
    fatal: FatalSink,
    requests: mpsc::UnboundedReceiver<Request>,
    progress: watch::Sender<Progress>,
    sync_started: Arc<Mutex<Option<Instant>>>,
    sync_bytes_max: usize,
}

impl Writer {
    async fn run(mut self) {
        while let Some(first) = self.requests.recv().await {
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
            return Err(reason);
        }
        self.engine.write(batch).map_err(explain)?;
        if let Some(last) = group.last() {
            self.progress
                .send_modify(|progress| progress.written = last.ticket);
        }
        if group.iter().any(|request| !matches!(request.done, Done::Nobody)) {
            let started = Instant::now();
            *lock(&self.sync_started) = Some(started);
            let synced = self.engine.sync().await;
            *lock(&self.sync_started) = None;
            synced.map_err(explain)?;
            metrics::histogram!("holdfast_log_sync_seconds").record(started.elapsed().as_secs_f64());
            metrics::histogram!("holdfast_log_batch_entries").record(entries as f64);
        }
        match self.fatal.reason() {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }

    /// Answers everything with the failure, for as long as anybody asks.
    async fn refuse(mut self, group: Vec<Request>, why: String) {
        for request in group {
            request.done.report(Err(io::Error::other(why.clone())));
        }
        while let Some(request) = self.requests.recv().await {
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
