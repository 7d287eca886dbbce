//! Imports: a stream of items, broken off in the middle and resumed under the same id, sometimes by two streams
//! at the same time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use holdfast_client::{ImportEvent, ImportOptions, v1};
use holdfast_types::RequestId;
use tokio::time::sleep;

use super::call::{Caller, GRACE};
use super::convert;
use super::record::Call;
use super::request::{self, REALM, Typed};
use super::worker::Worker;
use crate::history::{ImportAction, ImportMode, Input, Outcome, Output};

/// Broken imports kept to be resumed; the oldest is given up for a newer one.
const BROKEN_MAX: usize = 3;

/// An import's items, which are the same whenever it is resumed.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    import: RequestId,
    mode: ImportMode,
    items: Vec<Item>,
}

#[derive(Debug, Clone)]
struct Item {
    index: u64,
    account: String,
    fingerprint: String,
    identifiers: Vec<Typed>,
}

/// The calls of one stream that have no result yet.
#[derive(Default)]
struct Open {
    calls: BTreeMap<u64, Call>,
    /// Items up to this index are passed over by the client.
    settled: u64,
}

impl Worker {
    /// Runs an import, or goes on with one that was broken off.
    pub(super) async fn import(&mut self) -> bool {
        let batch = match self.broken.pop() {
            Some(broken) if self.dice.percent(70) => broken,
            _ => self.new_batch(),
        };
        let break_after = self
            .dice
            .percent(40)
            .then(|| self.dice.below(batch.items.len() as u64));
        let window = self.dice.between(1, 64) as usize;
        let pace = Duration::from_millis(match self.dice.below(3) {
            0 => 0,
            _ => self.dice.between(0, 30),
        });
        let twin = self.dice.percent(15).then(|| {
            let (caller, batch) = (self.caller.clone(), batch.clone());
            tokio::spawn(async move { stream(&caller, &batch, window, pace, None).await })
        });
        let complete = stream(&self.caller, &batch, window, pace, break_after).await;
        if let Some(twin) = twin {
            // A task of ours that ended by itself is seen as calls without an end.
            drop(twin.await);
        }
        // A complete one is sometimes sent again, too: everything in it must be known.
        if !complete || self.dice.percent(20) {
            if self.broken.len() == BROKEN_MAX {
                self.broken.remove(0);
            }
            self.broken.insert(0, batch);
        }
        complete
    }

    fn new_batch(&mut self) -> Batch {
        let mode = match self.dice.below(4) {
            0 => ImportMode::Create,
            1 => ImportMode::Skip,
            _ => ImportMode::Upsert,
        };
        let mut items = Vec::new();
        let mut index = 0;
        for _ in 0..self.dice.between(3, 30) {
            index += self.dice.between(1, 2);
            let account = self.any_account();
            let identifiers = self.identifiers_for(&account);
            items.push(Item {
                index,
                identifiers,
                fingerprint: self.caller.recorder.fingerprint(self.caller.number),
                account,
            });
        }
        Batch {
            import: request::request_id(&mut self.dice, 0),
            mode,
            items,
        }
    }
}

/// Runs one stream of an import until its end, or until it has brought so many results. True: it was complete.
async fn stream(
    caller: &Caller,
    batch: &Batch,
    window: usize,
    pace: Duration,
    break_after: Option<u64>,
) -> bool {
    let open = Arc::new(Mutex::new(Open::default()));
    let mode = match batch.mode {
        ImportMode::Create => v1::ImportMode::Create,
        ImportMode::Upsert => v1::ImportMode::Upsert,
        ImportMode::Skip => v1::ImportMode::Skip,
    };
    let mut options = ImportOptions::new(REALM, batch.import, mode);
    options.window = window;
    options.stall_timeout = caller.deadline.min(Duration::from_secs(3));
    options.patience = caller.deadline;
    // When the patience ends, an attempt that has just begun may still stall.
    let limit = options.patience + options.stall_timeout + GRACE;
    let source = source(caller.clone(), batch.clone(), Arc::clone(&open), pace);
    let mut import = caller.client.import_accounts(options, source);
    let mut results = 0;
    let complete = loop {
        if break_after.is_some_and(|after| results >= after) {
            break false;
        }
        match tokio::time::timeout(limit, Box::pin(import.next())).await {
            Ok(Some(Ok(ImportEvent::Resumed { after_index }))) => lock(&open).settled = after_index,
            Ok(Some(Ok(ImportEvent::Result(result)))) => {
                results += 1;
                let call = lock(&open).calls.remove(&result.index);
                match call {
                    Some(call) => caller.recorder.returned(call, outcome(&result)),
                    None => caller.recorder.violation(format!(
                        "import {} brought a result for item {}, which was not asked for",
                        batch.import, result.index
                    )),
                }
            }
            Ok(Some(Err(_))) => break false,
            Ok(None) => break true,
            Err(_) => {
                caller.hung(limit);
                break false;
            }
        }
    };
    // Breaks the stream, if it still is one.
    drop(import);
    let rest = std::mem::take(&mut lock(&open).calls);
    for call in rest.into_values() {
        caller.recorder.returned(call, Outcome::Unknown);
    }
    complete
}

/// The items, each recorded as a call when the client takes it.
fn source(
    caller: Caller,
    batch: Batch,
    open: Arc<Mutex<Open>>,
    pace: Duration,
) -> impl futures::Stream<Item = v1::ImportItem> + Send + 'static {
    let (import, mode) = (batch.import, batch.mode);
    futures::stream::iter(batch.items).then(move |item| {
        let (caller, open) = (caller.clone(), Arc::clone(&open));
        async move {
            if !pace.is_zero() {
                sleep(pace).await;
            }
            let mut open = lock(&open);
            if item.index > open.settled {
                let input = Input::ImportItem {
                    import: import.to_string(),
                    index: item.index,
                    mode,
                    account: item.account.clone(),
                    fingerprint: item.fingerprint.clone(),
                    identifiers: request::canonical(&item.identifiers),
                };
                let call = caller.recorder.invoked(caller.number, None, input);
                open.calls.insert(item.index, call);
            }
            v1::ImportItem {
                index: item.index,
                account: Some(request::account(&item.fingerprint, &item.identifiers)),
                account_id: item.account,
            }
        }
    })
}

/// What became of an item. The service reports only what is final.
fn outcome(result: &v1::ImportItemResult) -> Outcome {
    let action = match result.action() {
        v1::ImportAction::Created => ImportAction::Created,
        v1::ImportAction::Updated => ImportAction::Updated,
        v1::ImportAction::Skipped => ImportAction::Skipped,
        v1::ImportAction::Rejected | v1::ImportAction::Unspecified => {
            let name = result.reason().as_str_name();
            let name = name.strip_prefix("REASON_").unwrap_or(name);
            return Outcome::DefinitelyNot(convert::reason(name, &BTreeMap::new(), &[]));
        }
    };
    Outcome::Ok {
        output: Output::Imported {
            action,
            revision: result.revision,
        },
        position: None,
    }
}

fn lock(open: &Mutex<Open>) -> std::sync::MutexGuard<'_, Open> {
    // Nothing panics while holding it.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
