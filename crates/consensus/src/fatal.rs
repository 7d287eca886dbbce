//! Where a node learns that it must stop.
//!
//! A failed sync, damage, an entry that does not decode: after any of them nothing may be acknowledged, voted
//! or retried. Whoever notices reports it here, once, and stays silent for ever after; whoever owns the process
//! waits here and ends it with the message.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures::FutureExt;
use tokio::sync::watch;

/// Receives the first fatal failure of a node. Clones share it.
#[derive(Debug, Clone)]
pub struct FatalSink {
    sender: Arc<watch::Sender<Option<String>>>,
}

impl FatalSink {
    /// A sink to which nothing has been reported.
    pub fn new() -> Self {
        FatalSink {
            sender: Arc::new(watch::channel(None).0),
        }
    }

    /// Reports that the node must stop. The first report wins; later ones are consequences of it.
    pub fn report(&self, message: impl Into<String>) {
        let message = message.into();
        let first = self.sender.send_if_modified(|slot| {
            if slot.is_some() {
                return false;
            }
            *slot = Some(message.clone());
            true
        });
        if first {
            tracing::error!(message, "fatal: this node must stop");
            metrics::counter!("holdfast_raft_fatal_total").increment(1);
        }
    }

    /// Runs a task that the node cannot do without: a panic in it is fatal.
    ///
    /// # Panics
    ///
    /// If the task does, after the report.
    pub async fn guard<F: Future>(self, what: &'static str, task: F) -> F::Output {
        // What the task leaves behind is not looked at again: the node stops.
        match AssertUnwindSafe(task).catch_unwind().await {
            Ok(output) => output,
            Err(panic) => {
                let message = said(&*panic);
                self.report(format!(
                    "{what} panicked ({message}); this is a defect, please report it. Start the node again: what was \
                     acknowledged is on its disk"
                ));
                std::panic::resume_unwind(panic)
            }
        }
    }

    /// Runs `work` unless this node has failed, which is looked at whenever the work could go on.
    ///
    /// openraft's answers to a call when it has stopped are prepared by the first caller that notices, and if that one goes
    /// away meanwhile, the next one's task panics (`raft_inner.rs`, `get_core_stop_error`). A failure is reported before
    /// openraft stops, so no call that is run here notices.
    pub(crate) async fn unless_failed<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        poll_fn(|context| {
            if self.has_failed() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// The failure, if there was one.
    pub fn reason(&self) -> Option<String> {
        self.sender.borrow().clone()
    }

    /// Whether there was one.
    pub fn has_failed(&self) -> bool {
        self.sender.borrow().is_some()
    }

    /// Waits for the failure.
    pub async fn wait(&self) -> String {
        let mut receiver = self.sender.subscribe();
        loop {
            if let Some(reason) = receiver.borrow_and_update().clone() {
                return reason;
            }
            if receiver.changed().await.is_err() {
                // The sender is in `self`, so it is still there.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Default for FatalSink {
    fn default() -> Self {
        Self::new()
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
