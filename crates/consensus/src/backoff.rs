//! Ends Raft's pause before a member that is there again.
//!
//! After a failure openraft waits before it sends entries to the member again, longer each time, up to most of a second; and
//! because it asks for its second request before the first is answered, a member that is back may wait twice more. Its readers
//! wait with it. Heartbeats know of no pause: the first one that is answered after a failure says that there is nothing left to
//! wait for.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use holdfast_markers::reached;
use holdfast_types::NodeId;
use tokio::sync::mpsc;

use crate::type_config::Raft;

/// Who failed to take entries and has not answered since.
pub(crate) struct Backoff {
    failed: Mutex<BTreeSet<NodeId>>,
    back: mpsc::UnboundedSender<NodeId>,
}

impl Backoff {
    /// Also the members that are there again, as [`end_pauses`] takes them.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<NodeId>) {
        let (back, receiver) = mpsc::unbounded_channel();
        let failed = Mutex::default();
        (Backoff { failed, back }, receiver)
    }

    /// Entries for `node` did not arrive.
    pub(crate) fn failed(&self, node: NodeId) {
        self.lock().insert(node);
    }

    /// `node` answered a heartbeat.
    pub(crate) fn answered(&self, node: NodeId) {
        if self.lock().remove(&node) {
            reached!("backoff.member-is-back");
            // Nobody takes it when the group is being stopped.
            let _ = self.back.send(node);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<NodeId>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells Raft of each member that is back, until Raft stops.
pub(crate) async fn end_pauses(raft: Raft, mut back: mpsc::UnboundedReceiver<NodeId>) {
    while let Some(node) = back.recv().await {
        if raft.trigger().reset_backoff([node]).await.is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_answer_after_a_failure_ends_a_pause() {
        let (backoff, mut back) = Backoff::new();
        backoff.answered(2);
        assert!(back.try_recv().is_err(), "it never failed");
        backoff.failed(2);
        backoff.failed(2);
        backoff.answered(3);
        assert!(back.try_recv().is_err(), "another answered");
        backoff.answered(2);
        backoff.answered(2);
        assert_eq!(back.try_recv(), Ok(2));
        assert!(back.try_recv().is_err(), "once");
    }
}
