//! Writes the history: one operation for each call, the moment it begins and the moment it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use holdfast_types::RequestId;

use super::brief;
use super::repeats::Late;
use crate::history::{History, Input, Operation, Outcome, RESTRICTING};
use crate::trace;

/// Collects what clients see. Clones write into the same history.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    history: History,
    /// What may not be whatever the judges say, one line each.
    violations: Vec<String>,
    /// Requests that were answered long ago and are to be sent once more at the very end.
    late: Vec<Late>,
    fingerprints: u64,
    scans: u64,
}

/// The operation that a call is recorded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call(pub(super) u64);

impl Recorder {
    /// An empty history.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was recorded so far. Calls that have not ended are there, without an end and with an unknown outcome.
    pub fn history(&self) -> History {
        self.lock().history.clone()
    }

    /// The same for a run that ends in a panic: none if that came while the history was being written.
    pub(crate) fn history_if_free(&self) -> Option<History> {
        match self.0.try_lock() {
            Ok(inner) => Some(inner.history.clone()),
            Err(TryLockError::Poisoned(inner)) => Some(inner.into_inner().history.clone()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// How many calls have begun.
    pub fn count(&self) -> usize {
        self.lock().history.operations.len()
    }

    /// What clients saw that may not be, apart from the history: calls that hung, answers that make no sense.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// A call begins.
    pub(super) fn invoked(&self, client: u32, request_id: Option<RequestId>, input: Input) -> Call {
        let mut inner = self.lock();
        let id = inner.history.operations.len() as u64 + 1;
        trace::event("call", &format!("op={id} c={client} {}", brief::input(&input)));
        inner.history.operations.push(Operation {
            id,
            client,
            invoked: now(),
            returned: None,
            request_id: request_id.map(|id| id.to_string()),
            input,
            outcome: Outcome::Unknown,
        });
        Call(id)
    }

    /// A call ends.
    pub(super) fn returned(&self, call: Call, outcome: Outcome) {
        trace::event("back", &format!("op={} {}", call.0, brief::outcome(&outcome)));
        let mut inner = self.lock();
        if let Some(operation) = inner.history.operations.get_mut(call.0 as usize - 1) {
            operation.returned = Some(now());
            operation.outcome = outcome;
        }
    }

    /// Something that may not be.
    pub(super) fn violation(&self, what: String) {
        trace::event("violation", &what);
        self.lock().violations.push(what);
    }

    /// What no other attempt writes. Every third restricts the account.
    pub(super) fn fingerprint(&self, client: u32) -> String {
        let mut inner = self.lock();
        inner.fingerprints += 1;
        let restricting = if inner.fingerprints.is_multiple_of(3) {
            RESTRICTING
        } else {
            ""
        };
        format!("c{client}-{}{restricting}", inner.fingerprints)
    }

    /// A number that no other scan has.
    pub(super) fn scan(&self) -> u64 {
        let mut inner = self.lock();
        inner.scans += 1;
        inner.scans
    }

    /// Keeps requests that are to be sent again when all is over.
    pub(super) fn repeat_later(&self, late: Vec<Late>) {
        self.lock().late.extend(late);
    }

    /// Those requests.
    pub(super) fn late(&self) -> Vec<Late> {
        self.lock().late.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Simulated nanoseconds since the run began.
fn now() -> u64 {
    madsim::time::TimeHandle::try_current().map_or(0, |time| time.elapsed().as_nanos() as u64)
}
