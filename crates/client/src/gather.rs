//! Reads that wait together travel together.
//!
//! A service that answers many people asks for many accounts at the same moment, and each call costs far more than the
//! record it brings. A [`Gather`] sends such reads as batches, without waiting for company: a read goes out at once
//! while few batches are under way; otherwise it goes with the next, which leaves when one comes back. So a batch is as
//! large as the load is high, as with a log that is synced for all who wait.
//!
//! Nothing is cached, and each read is as fresh as a call of its own: its batch is sent after it was asked for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_wire::v1;
use tokio::sync::oneshot;
use tonic::Code;

use crate::client::Client;
use crate::config::CallOptions;
use crate::error::{ClientError, Outcome};

/// The most batches under way. With two, the cluster works on one while the other travels.
const FLIGHTS_MAX: usize = 2;
/// The most names in a batch: what the service takes.
const NAMES_MAX: usize = 100;

/// Gathers the reads of many tasks into batches. Cheap to clone; clones gather together.
#[derive(Clone)]
pub struct Gather {
    shared: Arc<Shared>,
}

type Answer = Result<Option<v1::Account>, ClientError>;

struct Shared {
    client: Client,
    parent: String,
    options: CallOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(String, oneshot::Sender<Answer>)>,
    flights: usize,
}

impl Client {
    /// Gathers reads of accounts of one realm (`realms/{realm}`), with these options for each batch.
    pub fn gather(&self, parent: impl Into<String>, options: CallOptions) -> Gather {
        Gather {
            shared: Arc::new(Shared {
                client: self.clone(),
                parent: parent.into(),
                options,
                state: Mutex::default(),
            }),
        }
    }
}

impl Gather {
    /// Reads one account by id; `None` if there is none. Must run within a Tokio runtime.
    pub async fn get_account(&self, account_id: &str) -> Result<Option<v1::Account>, ClientError> {
        let (sender, answer) = oneshot::channel();
        let name = format!("{}/accounts/{account_id}", self.shared.parent);
        let takes_off = {
            let mut state = self.shared.lock();
            state.waiting.push_back((name, sender));
            let free = state.flights < FLIGHTS_MAX;
            state.flights += usize::from(free);
            free
        };
        if takes_off {
            tokio::spawn(fly(self.shared.clone()));
        }
        // Waiting for a flight and the flight itself: one deadline for both.
        let limit = self.shared.options.deadline;
        let limit = limit.unwrap_or(self.shared.client.shared.config.deadline);
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => answer,
            // The flight was dropped with its runtime.
            Ok(Err(_)) => Err(local(Code::Cancelled, "the batch of this read was abandoned")),
            Err(_) => Err(local(
                Code::DeadlineExceeded,
                &format!("no answer within {} ms", limit.as_millis()),
            )),
        }
    }
}

/// Sends batches for as long as anybody waits.
async fn fly(shared: Arc<Shared>) {
    while let Some(mut batch) = shared.board() {
        let request = v1::BatchGetAccountsRequest {
            parent: shared.parent.clone(),
            names: batch.keys().cloned().collect(),
            consistency: None,
        };
        match shared.client.batch_get_accounts(request, &shared.options).await {
            Ok(response) => shared.land(batch, response),
            Err(error) => {
                for sender in batch.values_mut().flat_map(std::mem::take) {
                    // One who no longer waits needs no answer; the same below.
                    let _ = sender.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Who waits for which name.
type Batch = BTreeMap<String, Vec<oneshot::Sender<Answer>>>;

impl Shared {
    /// The next batch; none if nobody waits, and then this flight is over.
    fn board(&self) -> Option<Batch> {
        let mut state = self.lock();
        let mut batch = Batch::new();
        while let Some((name, _)) = state.waiting.front() {
            if batch.len() == NAMES_MAX && !batch.contains_key(name) {
                break;
            }
            if let Some((name, sender)) = state.waiting.pop_front()
                && !sender.is_closed()
            {
                batch.entry(name).or_default().push(sender);
            }
        }
        if batch.is_empty() {
            state.flights -= 1;
            return None;
        }
        Some(batch)
    }

    /// Gives everybody their answer.
    fn land(&self, mut batch: Batch, response: v1::BatchGetAccountsResponse) {
        for account in response.accounts {
            let mut senders = batch.remove(&account.name).unwrap_or_default();
            let last = senders.pop();
            for sender in senders {
                let _ = sender.send(Ok(Some(account.clone())));
            }
            if let Some(sender) = last {
                let _ = sender.send(Ok(Some(account)));
            }
        }
        for name in response.not_found_names {
            for sender in batch.remove(&name).unwrap_or_default() {
                let _ = sender.send(Ok(None));
            }
        }
        if !response.unread_names.is_empty() {
            let mut state = self.lock();
            for name in response.unread_names {
                for sender in batch.remove(&name).unwrap_or_default() {
                    state.waiting.push_front((name.clone(), sender));
                }
            }
        }
        for sender in batch.into_values().flatten() {
            let what = "the service left a name out of its answer; this is a defect";
            let _ = sender.send(Err(local(Code::DataLoss, what)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error of a read found on this side: reads apply nothing.
fn local(code: Code, message: &str) -> ClientError {
    ClientError::local(code, message, Outcome::NotApplied)
}
