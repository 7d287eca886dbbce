//! ExportAccounts: one frozen view, streamed.
//!
//! The header says at which position of the change log the view stands; batches follow as fast as the caller
//! takes them, since the channel between the two holds only a few. The view pins what compaction would
//! otherwise remove, so an export that nobody reads is ended.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use holdfast_markers::crash_point;
use holdfast_storage::schema;
use holdfast_types::{AccountState, Realm};
use holdfast_wire::convert::accounts as messages;
use holdfast_wire::convert::reads::ExportAccounts;
use holdfast_wire::status::{OutcomeView, Problem, Reason};
use holdfast_wire::v1;
use holdfast_wire::v1::export_accounts_response::Payload;
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;
use tracing::Instrument;

use super::list::ROWS_PER_TURN;
use crate::admission::Permit;
use crate::call::Call;
use crate::core::{Core, SHARD};
use crate::deadline::Deadline;
use crate::driver::unreadable;
use crate::failure::Failure;
use crate::lifecycle::Phase;
use crate::reads::{FreshView, fresh_view};
use crate::realms;

/// The stream of answers.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<v1::ExportAccountsResponse, Status>> + Send>>;

/// A batch is sent once it has this many bytes.
const BATCH_BYTES: usize = 1024 * 1024;
/// How long a caller may take to read one batch.
const READER: Duration = Duration::from_secs(120);
/// How long the view may take to become fresh.
const BEGIN: Duration = Duration::from_secs(15);

type Sender = mpsc::Sender<Result<v1::ExportAccountsResponse, Status>>;

/// Begins an export.
pub(super) async fn start(
    core: &Arc<Core>,
    export: ExportAccounts,
    call: &Call,
    permit: Option<Permit>,
) -> Result<Answers, Failure> {
    let fresh = fresh_view(core, &export.freshness, call.deadline.at_most(BEGIN)).await?;
    let realm = realms::by_name(core, &fresh.view, &export.realm)?;
    let (sender, receiver) = mpsc::channel(2);
    let work = {
        let (core, deadline) = (core.clone(), call.deadline);
        async move {
            let stop = core.lifecycle.reached(Phase::Stopping);
            let ended = tokio::select! {
                biased;
                () = stop => {
                    Err(Failure::new(Reason::NodeNotServing, "this node is being stopped; export from another"))
                }
                ended = send_all(&core, &fresh, &realm.value, &export.states, deadline, &sender) => ended,
            };
            if let Err(failure) = ended {
                // The caller may be gone, which is one of the reasons to end.
                drop(sender.send(Err(failure.into())).await);
            }
            drop(permit);
        }
    };
    core.tasks.spawn(work.in_current_span());
    Ok(Box::pin(super::answers(core.clone(), receiver)))
}

async fn send_all(
    core: &Core,
    fresh: &FreshView,
    realm: &Realm,
    states: &BTreeSet<AccountState>,
    deadline: Deadline,
    sender: &Sender,
) -> Result<(), Failure> {
    let position = v1::ShardPosition {
        shard: SHARD.0,
        epoch: core.group.state().epoch.0,
        log_index: fresh.index,
    };
    let header = v1::ExportHeader {
        positions: vec![position],
        consistency_token: core.token(realm.number, fresh.index),
    };
    send(sender, deadline, Payload::Header(header)).await?;
    crash_point!("export.begun").await;
    let mut batch = v1::ExportBatch::default();
    let mut bytes = 0;
    for (at, row) in schema::account::accounts_after(&*fresh.view, realm, None).enumerate() {
        let account = row.map_err(|error| unreadable(core, &error))?.value;
        if states.contains(&account.state()) {
            let account = messages::to_message(&realm.id, account);
            bytes += account.encoded_len();
            batch.accounts.push(account);
        }
        if bytes >= BATCH_BYTES {
            bytes = 0;
            send(sender, deadline, Payload::Batch(std::mem::take(&mut batch))).await?;
        }
        if at.is_multiple_of(ROWS_PER_TURN) {
            tokio::task::yield_now().await;
        }
    }
    if !batch.accounts.is_empty() {
        send(sender, deadline, Payload::Batch(batch)).await?;
    }
    Ok(())
}

async fn send(sender: &Sender, deadline: Deadline, payload: Payload) -> Result<(), Failure> {
    let answer = v1::ExportAccountsResponse {
        payload: Some(payload),
    };
    match tokio::time::timeout(deadline.left().min(READER), sender.send(Ok(answer))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Failure::new(Reason::NodeNotServing, "the caller has left")),
        Err(_) => Err(Problem::deadline(OutcomeView::NotApplied).into()),
    }
}
