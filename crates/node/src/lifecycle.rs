//! Where a node is in its life, and the work it still has under way.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_markers::reached;
use tokio::sync::watch;

use crate::deadline::Deadline;

/// A node's phases, in order. Only a drain can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// What was acknowledged before the start is being applied again.
    Starting,
    /// Serving.
    Serving,
    /// Told to drain: new requests are turned away, those under way are finished, and it does not lead.
    Draining,
    /// About to end: it does not lead, streams end, clients are told to leave, and what they ask until they have is answered.
    Stopping,
    /// Nothing is served any more.
    Stopped,
}

/// The phase, for everyone to watch.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle {
    phase: Arc<watch::Sender<Phase>>,
    /// A drain was asked for and not taken back.
    drained: Arc<AtomicBool>,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Lifecycle {
            phase: Arc::new(watch::channel(Phase::Starting).0),
            drained: Arc::default(),
        }
    }

    /// The phase now.
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on to `phase`, unless the node is past it already.
    pub(crate) fn advance(&self, phase: Phase) {
        let moved = self.phase.send_if_modified(|current| {
            let moves = *current < phase;
            *current = (*current).max(phase);
            moves
        });
        if moved {
            if phase == Phase::Draining {
                self.drained.store(true, Ordering::SeqCst);
            }
            tracing::info!(?phase, "the node's phase changed");
        }
    }

    /// Takes a drain back.
    pub(crate) fn resume(&self) {
        self.phase.send_if_modified(|current| {
            let drained = *current == Phase::Draining;
            if drained {
                reached!("lifecycle.drain-undone");
                *current = Phase::Serving;
                self.drained.store(false, Ordering::SeqCst);
            }
            drained
        });
    }

    /// Whether clients are told no. Those of a node that begins to stop have been told to leave, and may not have heard of it; a
    /// drained node has turned them away before.
    pub(crate) fn turns_away(&self) -> bool {
        match self.phase() {
            Phase::Starting | Phase::Serving => false,
            Phase::Stopping => self.drained.load(Ordering::SeqCst),
            Phase::Draining | Phase::Stopped => true,
        }
    }

    /// Waits until the node is in `phase` or past it.
    pub(crate) async fn reached(&self, phase: Phase) {
        // The sender is in `self`, so waiting cannot fail.
        let _ = self.phase.subscribe().wait_for(|current| *current >= phase).await;
    }
}

/// Counts tasks, so that a stop can wait for them.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    running: Arc<watch::Sender<usize>>,
}

/// One task under way.
#[derive(Debug)]
pub(crate) struct TaskGuard {
    running: Arc<watch::Sender<usize>>,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Tasks {
            running: Arc::new(watch::channel(0).0),
        }
    }

    /// Counts a task until the guard is dropped.
    pub(crate) fn enter(&self) -> TaskGuard {
        self.running.send_modify(|running| *running += 1);
        TaskGuard {
            running: self.running.clone(),
        }
    }

    /// Runs a counted task of its own, which goes on whatever becomes of whoever waits for it.
    pub(crate) fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let guard = self.enter();
        tokio::spawn(async move {
            let output = task.await;
            drop(guard);
            output
        })
    }

    /// Waits until none runs, but not beyond the deadline. Returns how many are left.
    pub(crate) async fn idle(&self, deadline: Deadline) -> usize {
        let mut running = self.running.subscribe();
        let waited = tokio::time::timeout(deadline.left(), running.wait_for(|running| *running == 0)).await;
        if matches!(waited, Ok(Ok(_))) {
            0
        } else {
            *self.running.borrow()
        }
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.running.send_modify(|running| *running -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn only_a_drain_is_taken_back() {
        let lifecycle = Lifecycle::new();
        lifecycle.advance(Phase::Draining);
        lifecycle.advance(Phase::Serving);
        assert_eq!(lifecycle.phase(), Phase::Draining);
        lifecycle.reached(Phase::Serving).await;
        lifecycle.resume();
        assert_eq!(lifecycle.phase(), Phase::Serving);
        lifecycle.advance(Phase::Stopping);
        lifecycle.resume();
        assert_eq!(lifecycle.phase(), Phase::Stopping);
    }

    #[test]
    fn a_node_that_stops_answers_unless_it_was_drained() {
        let lifecycle = Lifecycle::new();
        lifecycle.advance(Phase::Draining);
        assert!(lifecycle.turns_away());
        lifecycle.resume();
        assert!(!lifecycle.turns_away());
        lifecycle.advance(Phase::Stopping);
        assert!(!lifecycle.turns_away(), "the drain was taken back");
        lifecycle.advance(Phase::Stopped);
        assert!(lifecycle.turns_away());

        let drained = Lifecycle::new();
        drained.advance(Phase::Draining);
        drained.advance(Phase::Stopping);
        assert!(drained.turns_away());
    }

    #[tokio::test]
    async fn a_stop_waits_for_work_but_not_for_ever() {
        let tasks = Tasks::new();
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn(async move {
            let _ = finished.await;
        });
        assert_eq!(tasks.idle(Deadline::after(Duration::from_millis(20))).await, 1);
        finish.send(()).unwrap();
        assert_eq!(tasks.idle(Deadline::after(Duration::from_secs(5))).await, 0);
    }
}
