//! The runtime seam as openraft wants it: tasks, time, channels and randomness of the workspace's `tokio`,
//! which is the real one in a normal build and the simulator's under `--cfg madsim`.
//!
//! openraft's own tokio adapter names the real tokio, so it cannot run in a simulation. This one passes
//! openraft-rt's suite. Two deliberate differences: `spawn_blocking` runs the function in place instead of
//! starting a thread (nothing behind this seam blocks: the engine has its own threads), and
//! `timeout` is written out, because the simulator has no `timeout_at`. One addition: whatever openraft starts
//! inside [`raising`], and whatever that starts, is watched, so that a panic in it ends the node. openraft itself
//! only lets go of the task, and the node would go on answering health checks and stale reads.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft_rt::{
    AsyncRuntime, Instant, Mpsc, MpscReceiver, MpscSender, MpscWeakSender, Mutex, Oneshot, OneshotSender,
    OptionalSend, OptionalSync, TryRecvError, Watch, WatchReceiver, WatchSender, mpsc, watch,
};
use pin_project_lite::pin_project;
use tokio::sync as tokio_sync;
use tracing::Instrument;

use crate::FatalSink;

tokio::task_local! {
    /// Whom a panic of the current task is reported to.
    static PANICS: FatalSink;
}

/// Runs something that starts tasks of openraft's, so that their panics are reported.
pub(crate) async fn raising<F: Future>(fatal: &FatalSink, future: F) -> F::Output {
    PANICS.scope(fatal.clone(), future).await
}

/// Gives everybody who can run a turn.
///
/// A task that is woken by a message runs before all others on its thread, and would find that one message in its queue:
/// whoever works in batches lets those go first who are about to send more.
pub(crate) async fn others_first() {
    tokio::task::yield_now().await;
}

/// A queue whose servers take from it what waits there, one server after the other.
pub(crate) struct Shared<T>(Arc<tokio_sync::Mutex<tokio_sync::mpsc::UnboundedReceiver<T>>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared(Arc::clone(&self.0))
    }
}

impl<T> Shared<T> {
    pub(crate) fn new(queue: tokio_sync::mpsc::UnboundedReceiver<T>) -> Self {
        Shared(Arc::new(tokio_sync::Mutex::new(queue)))
    }

    /// All that wait, at least one; `None` once nobody can come any more.
    pub(crate) async fn take(&self) -> Option<Vec<T>> {
        let mut queue = self.0.lock().await;
        let first = queue.recv().await?;
        Some(with_those_behind(first, &mut queue))
    }

    /// The same, once everybody who can run has had a turn after the first one came. Another server waits meanwhile, or it would
    /// take those away.
    pub(crate) async fn take_after_others(&self) -> Option<Vec<T>> {
        let mut queue = self.0.lock().await;
        let first = queue.recv().await?;
        others_first().await;
        Some(with_those_behind(first, &mut queue))
    }

    /// All that wait now, perhaps none; none either while another server takes some.
    pub(crate) fn take_waiting(&self) -> Vec<T> {
        match self.0.try_lock() {
            Ok(mut queue) => waiting_in(&mut queue).collect(),
            Err(_) => Vec::new(),
        }
    }
}

fn with_those_behind<T>(first: T, queue: &mut tokio_sync::mpsc::UnboundedReceiver<T>) -> Vec<T> {
    std::iter::once(first).chain(waiting_in(queue)).collect()
}

fn waiting_in<T>(queue: &mut tokio_sync::mpsc::UnboundedReceiver<T>) -> impl Iterator<Item = T> {
    std::iter::from_fn(|| queue.try_recv().ok())
}

/// Waits until the node is being stopped, or is gone.
pub(crate) async fn stopped(mut stopping: tokio_sync::watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Runs `future` until `deadline`. (The simulator's `time` has no `timeout_at`.)
pub(crate) async fn timeout_at<F: Future>(
    deadline: tokio::time::Instant,
    future: F,
) -> Result<F::Output, Elapsed> {
    Timeout {
        future,
        sleep: tokio::time::sleep_until(deadline),
    }
    .await
}

/// Runs `future` for at most `duration`.
pub(crate) async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(tokio::time::Instant::now() + duration, future).await
}

/// The time was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline has elapsed")]
pub(crate) struct Elapsed;

pin_project! {
    /// A future and the moment at which it is given up.
    pub(crate) struct Timeout<F> {
        #[pin]
        future: F,
        #[pin]
        sleep: tokio::time::Sleep,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        this.sleep.poll(cx).map(|()| Err(Elapsed))
    }
}

/// The adapter. Only tests make one of it; everything else runs on the runtime it is called from.
pub(crate) struct Runtime {
    #[cfg(not(madsim))]
    inner: tokio::runtime::Runtime,
    #[cfg(madsim)]
    inner: madsim::runtime::Runtime,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}

/// A point in monotonic time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) tokio::time::Instant);

impl std::ops::Add<Duration> for Moment {
    type Output = Self;
    fn add(self, other: Duration) -> Self {
        Moment(self.0 + other)
    }
}

impl std::ops::AddAssign<Duration> for Moment {
    fn add_assign(&mut self, other: Duration) {
        self.0 += other;
    }
}

impl std::ops::Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, other: Duration) -> Self {
        Moment(self.0 - other)
    }
}

impl std::ops::Sub<Moment> for Moment {
    type Output = Duration;
    fn sub(self, other: Moment) -> Duration {
        self.0 - other.0
    }
}

impl std::ops::SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, other: Duration) {
        self.0 -= other;
    }
}

impl Instant for Moment {
    fn now() -> Self {
        Moment(tokio::time::Instant::now())
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = Moment;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = rand::rngs::ThreadRng;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match PANICS.try_with(FatalSink::clone) {
            Ok(fatal) => {
                let guarded = fatal.clone().guard("raft", future);
                tokio::spawn(PANICS.scope(fatal, guarded).in_current_span())
            }
            Err(_) => tokio::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        tokio::time::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        tokio::time::sleep_until(deadline.0)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Timeout {
            future,
            sleep: tokio::time::sleep(duration),
        }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Timeout {
            future,
            sleep: tokio::time::sleep_until(deadline.0),
        }
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        rand::rng()
    }

    type Mpsc = Channels;
    type Watch = Channels;
    type Oneshot = Channels;
    type Mutex<T: OptionalSend + 'static> = AsyncMutex<T>;

    #[cfg(not(madsim))]
    fn new(threads: usize) -> Self {
        let inner = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .expect("only tests make a runtime, and they can");
        Runtime { inner }
    }

    #[cfg(madsim)]
    fn new(_threads: usize) -> Self {
        Runtime {
            inner: madsim::runtime::Runtime::new(),
        }
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.inner.block_on(future)
    }

    async fn spawn_blocking<F, T>(f: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Ok(f())
    }
}

/// tokio's channels under openraft's names. (`sync` is not simulated: it is the real one in both builds.)
pub(crate) struct Channels;

pub(crate) struct Sender<T>(tokio_sync::mpsc::Sender<T>);
pub(crate) struct WeakSender<T>(tokio_sync::mpsc::WeakSender<T>);
pub(crate) struct Receiver<T>(tokio_sync::mpsc::Receiver<T>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender(self.0.clone())
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        WeakSender(self.0.clone())
    }
}

impl Mpsc for Channels {
    type Sender<T: OptionalSend> = Sender<T>;
    type Receiver<T: OptionalSend> = Receiver<T>;
    type WeakSender<T: OptionalSend> = WeakSender<T>;

    fn channel<T: OptionalSend>(buffer: usize) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = tokio_sync::mpsc::channel(buffer);
        (Sender(sender), Receiver(receiver))
    }
}

impl<T: OptionalSend> MpscSender<Channels, T> for Sender<T> {
    async fn send(&self, msg: T) -> Result<(), mpsc::SendError<T>> {
        self.0.send(msg).await.map_err(|error| mpsc::SendError(error.0))
    }

    fn downgrade(&self) -> WeakSender<T> {
        WeakSender(self.0.downgrade())
    }
}

impl<T: OptionalSend> MpscWeakSender<Channels, T> for WeakSender<T> {
    fn upgrade(&self) -> Option<Sender<T>> {
        self.0.upgrade().map(Sender)
    }
}

impl<T: OptionalSend> MpscReceiver<T> for Receiver<T> {
    async fn recv(&mut self) -> Option<T> {
        self.0.recv().await
    }

    fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.0.try_recv().map_err(|error| match error {
            tokio_sync::mpsc::error::TryRecvError::Empty => TryRecvError::Empty,
            tokio_sync::mpsc::error::TryRecvError::Disconnected => TryRecvError::Disconnected,
        })
    }
}

pub(crate) struct OnceSender<T>(tokio_sync::oneshot::Sender<T>);

impl Oneshot for Channels {
    type Sender<T: OptionalSend> = OnceSender<T>;
    type Receiver<T: OptionalSend> = tokio_sync::oneshot::Receiver<T>;
    type ReceiverError = tokio_sync::oneshot::error::RecvError;

    fn channel<T: OptionalSend>() -> (OnceSender<T>, tokio_sync::oneshot::Receiver<T>) {
        let (sender, receiver) = tokio_sync::oneshot::channel();
        (OnceSender(sender), receiver)
    }
}

impl<T: OptionalSend> OneshotSender<T> for OnceSender<T> {
    fn send(self, t: T) -> Result<(), T> {
        self.0.send(t)
    }
}

pub(crate) struct Watched<T>(tokio_sync::watch::Sender<T>);
pub(crate) struct Watcher<T>(tokio_sync::watch::Receiver<T>);

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Watched(self.0.clone())
    }
}

impl<T> Clone for Watcher<T> {
    fn clone(&self) -> Self {
        Watcher(self.0.clone())
    }
}

impl Watch for Channels {
    type Sender<T: OptionalSend + OptionalSync> = Watched<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Watcher<T>;
    type Ref<'a, T: OptionalSend + 'a> = tokio_sync::watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Watched<T>, Watcher<T>) {
        let (sender, receiver) = tokio_sync::watch::channel(init);
        (Watched(sender), Watcher(receiver))
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<Channels, T> for Watched<T> {
    fn send(&self, value: T) -> Result<(), watch::SendError<T>> {
        self.0.send(value).map_err(|error| watch::SendError(error.0))
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.0.send_if_modified(modify)
    }

    fn borrow_watched(&self) -> tokio_sync::watch::Ref<'_, T> {
        self.0.borrow()
    }

    fn subscribe(&self) -> Watcher<T> {
        Watcher(self.0.subscribe())
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<Channels, T> for Watcher<T> {
    async fn changed(&mut self) -> Result<(), watch::RecvError> {
        self.0.changed().await.map_err(|_| watch::RecvError(()))
    }

    fn borrow_watched(&self) -> tokio_sync::watch::Ref<'_, T> {
        self.0.borrow()
    }

    fn borrow_and_update(&mut self) -> tokio_sync::watch::Ref<'_, T> {
        self.0.borrow_and_update()
    }
}

pub(crate) struct AsyncMutex<T>(tokio_sync::Mutex<T>);

impl<T: OptionalSend + 'static> Mutex<T> for AsyncMutex<T> {
    type Guard<'a> = tokio_sync::MutexGuard<'a, T>;

    fn new(value: T) -> Self {
        AsyncMutex(tokio_sync::Mutex::new(value))
    }

    async fn lock(&self) -> tokio_sync::MutexGuard<'_, T> {
        self.0.lock().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_suite_of_openraft_rt() {
        openraft_rt::testing::Suite::<Runtime>::test_all();
    }

    #[cfg(not(madsim))]
    #[tokio::test]
    async fn servers_take_from_a_queue_in_turns() {
        let (queue, waiting) = tokio_sync::mpsc::unbounded_channel();
        let shared = Shared::new(waiting);
        let put = |item| queue.send(item).unwrap();
        put(1);
        put(2);
        assert_eq!(shared.take().await, Some(vec![1, 2]));
        // The first serves those; the second gets who comes meanwhile, all of them.
        let second = tokio::spawn({
            let shared = shared.clone();
            async move { shared.take_after_others().await }
        });
        tokio::task::yield_now().await;
        put(3);
        assert!(shared.take_waiting().is_empty(), "another server waits for them");
        put(4);
        assert_eq!(second.await.unwrap(), Some(vec![3, 4]));
        // One that waits and is dropped keeps nobody from taking.
        let gone = tokio::spawn({
            let shared = shared.clone();
            async move { shared.take().await }
        });
        tokio::task::yield_now().await;
        gone.abort();
        assert!(gone.await.is_err());
        put(5);
        assert_eq!(shared.take_waiting(), vec![5]);
        drop(queue);
        assert_eq!(shared.take().await, None);
    }

    #[cfg(not(madsim))]
    #[tokio::test]
    async fn a_panic_in_a_task_of_a_task_is_reported() {
        let fatal = FatalSink::new();
        let starts = async {
            let inner = Runtime::spawn(async { Runtime::spawn(async { panic!("oh") }).await });
            inner.await.unwrap()
        };
        let ended: Result<(), _> = raising(&fatal, starts).await;
        assert!(ended.unwrap_err().is_panic());
        assert!(fatal.reason().unwrap().contains("raft panicked (oh)"));
    }
}
