//! The transaction driver: how the leader turns one request into one entry of the log.
//!
//! ```text
//! latches ► view ► accounts::evaluate ► encode ► propose, pinned to the term ► applied ► answer
//!    ▲                                                                │
//!    └────────────── a guard failed: look again, a few times ◄────────┘
//! ```
//!
//! - Evaluation begins only while this node leads and has passed a read barrier of its own term
//!   ([`Leadership::ready`](holdfast_consensus::Leadership)), and the proposal is pinned to that term.
//! - Each attempt reads the request's record first (`accounts::evaluate` does), so an attempt whose outcome was
//!   lost is found and not repeated.
//! - The work runs in a task of its own. A caller that stops waiting is told whether a proposal had been made
//!   by then; the task goes on and holds its latches until the proposal was applied or the term is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use holdfast_accounts::{self as accounts, EvaluateError, Evaluation, Operation, Outcome, Plan, Request};
use holdfast_consensus::{Committed, EncodedCommand, ProposeError};
use holdfast_machine::{Body, Command, Mutation, Reply};
use holdfast_markers::{planted, reached, unlucky};
use holdfast_storage::command;
use holdfast_storage::schema::{RowView, encode_plan};
use holdfast_types::{Account, RealmNumber, Rejection};
use holdfast_wire::status::{OutcomeView, Problem, Reason};
use tokio::time::Instant;
use tracing::Instrument;

use crate::admission::Permit;
use crate::call::Call;
use crate::core::Core;
use crate::deadline::Deadline;
use crate::failure::Failure;
use crate::latches::LatchGuard;
use crate::realms;

/// How often a request is evaluated before it is given up as contended.
const ATTEMPTS: u32 = 6;
/// How long a proposal is waited for. Only a leader cut off without noticing takes this long.
const PROPOSAL: Duration = Duration::from_secs(60);

/// What a carried-out request came to.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    /// The account now; after a replay it may be newer than what the request made.
    pub(crate) account: Account,
    /// The revision that the request made.
    pub(crate) revision: u64,
    /// What was done.
    pub(crate) action: Action,
    /// The realm.
    pub(crate) realm: RealmNumber,
    /// A log index at or above the effect's.
    pub(crate) index: u64,
}

/// What a request did with its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// It came to be.
    Created,
    /// It was changed.
    Updated,
    /// It stayed as it was.
    Skipped,
}

/// How far a request has come, shared by the task that works and the caller who waits.
#[derive(Debug, Default)]
struct Progress(AtomicU8);

const WAITING: u8 = 0;
const PROPOSED: u8 = 1;
const ABANDONED: u8 = 2;

impl Progress {
    /// The task is about to propose. False: the caller has left and was told that nothing happened.
    fn propose(&self) -> bool {
        self.0
            .compare_exchange(WAITING, PROPOSED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The proposal certainly had no effect.
    fn undo(&self) {
        self.0.store(WAITING, Ordering::Release);
    }

    /// The caller leaves. What it may be told about the outcome.
    fn abandon(&self) -> OutcomeView {
        match self
            .0
            .compare_exchange(WAITING, ABANDONED, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => {
                reached!("driver.caller-left-before-proposal");
                OutcomeView::NotApplied
            }
            Err(_) if planted!("unknown-said-to-be-definite") => OutcomeView::NotApplied,
            Err(_) => {
                reached!("driver.caller-left-after-proposal");
                OutcomeView::Unknown
            }
        }
    }
}

/// Carries a request out on this node, which must lead. `permit` is held until the work has ended, whether or
/// not anybody still waits for it.
pub(crate) async fn run(
    core: &Arc<Core>,
    request: Request,
    call: &Call,
    permit: Option<Arc<Permit>>,
) -> Result<Done, Failure> {
    let progress = Arc::new(Progress::default());
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let work = {
        let (core, progress, deadline) = (core.clone(), progress.clone(), call.deadline);
        async move {
            let result = attempts(&core, &request, deadline, &progress).await;
            // The caller may have left.
            drop(sender.send(result));
            drop(permit);
        }
    };
    // Boxed: the runtime would move all of it about, more than once.
    core.tasks.spawn(Box::pin(work).in_current_span());
    let without_effect = match tokio::time::timeout(call.deadline.left(), receiver).await {
        Ok(Ok(result)) => return result,
        Ok(Err(_)) => Failure::new(Reason::NodeNotServing, "this node is being stopped; ask another"),
        Err(_) => Problem::deadline(OutcomeView::NotApplied).into(),
    };
    Err(match progress.abandon() {
        OutcomeView::NotApplied => without_effect,
        // Most likely it waits for a quorum.
        OutcomeView::Unknown => Problem::outcome_unknown().into(),
    })
}

async fn attempts(
    core: &Core,
    request: &Request,
    deadline: Deadline,
    progress: &Progress,
) -> Result<Done, Failure> {
    // A rejection that depends on state is confirmed with a quorum once: this node may have been deposed.
    let mut confirmed = false;
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        let latches = latch(core, request, deadline).await?;
        let term = leading(core)?;
        let Evaluated {
            rows,
            evaluation,
            index,
        } = evaluate(core, request)?;
        let plan = match evaluation {
            Ok(Evaluation::Replay(record)) => {
                if attempt > 0 {
                    reached!("driver.twin-won");
                }
                count("replayed");
                return replayed(core, &rows, request, record, index);
            }
            Ok(Evaluation::Propose(plan)) => *plan,
            Err(rejection @ Rejection::EtagMismatch { .. }) if !confirmed => {
                reached!("driver.rejection-confirmed");
                drop(rejection);
                drop(latches);
                barrier(core, deadline).await?;
                confirmed = true;
                continue;
            }
            Err(rejection) => {
                count("rejected");
                return Err(rejection.into());
            }
        };
        attempt += 1;
        let mutation = encode_plan(&rows, &plan).map_err(|error| unreadable(core, &error))?;
        if !progress.propose() {
            return Err(Problem::deadline(OutcomeView::NotApplied).into());
        }
        match settled(propose(core, mutation, term, latches).await)? {
            Settled::Applied { index } => return applied(plan, request, index),
            Settled::LookAgain => {
                reached!("driver.evaluated-again");
                count("guard_failed");
                progress.undo();
            }
        }
    }
    count("contended");
    Err(Failure::new(
        Reason::Contention,
        "others kept changing the same records; nothing was done",
    ))
}

fn count(outcome: &'static str) {
    metrics::counter!("holdfast_evaluations_total", "outcome" => outcome).increment(1);
}

/// The latches of everything the request is known to touch.
async fn latch(core: &Core, request: &Request, deadline: Deadline) -> Result<LatchGuard, Failure> {
    let began = Instant::now();
    let realm = realms::by_number(core, &core.group.view(), request.realm)?;
    // Guards make it right without them too.
    let keys = if unlucky!("driver.latches-skipped") {
        Vec::new()
    } else {
        accounts::latch_keys(request, &realm.value.config)
    };
    let keys = keys.into_iter().map(|key| (request.realm, key));
    let latches = tokio::time::timeout(deadline.left(), core.latches.acquire(keys)).await;
    metrics::histogram!("holdfast_latch_wait_seconds").record(began.elapsed().as_secs_f64());
    latches.map_err(|_| Problem::deadline(OutcomeView::NotApplied).into())
}

/// The term this node may evaluate and propose in.
pub(crate) fn leading(core: &Core) -> Result<u64, Failure> {
    let leadership = core.leadership();
    if !leadership.is_me || !leadership.ready {
        return Err(core.not_leader());
    }
    let log_clock = core.group.state().stamp.millis();
    if !core.clock_guard.may_stamp(core.clock.now(), log_clock) {
        reached!("clock.refused-to-stamp");
        return Err(Failure::new(
            Reason::ClockSkew,
            "the leader's clock is far from its peers', or not compared with them yet",
        ));
    }
    Ok(leadership.term)
}

async fn barrier(core: &Core, deadline: Deadline) -> Result<(), Failure> {
    match core.group.read_barrier(deadline.at()).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::no_leader(error)),
    }
}

/// A request evaluated on the state applied at a moment.
struct Evaluated {
    rows: RowView,
    evaluation: Result<Evaluation, Rejection>,
    /// A log index that the rows include.
    index: u64,
}

/// Evaluates the request on what is applied now.
fn evaluate(core: &Core, request: &Request) -> Result<Evaluated, Failure> {
    // The index first, so that the view holds at least that much.
    let index = core.group.applied_index();
    let state = core.group.state();
    let view = core.group.view();
    let realm = realms::by_number(core, &view, request.realm)?;
    let rows = RowView::new(view, realm).sharing(core.realms.inhabited(request.realm));
    let context = accounts::Context {
        realm: rows.realm(),
        now: core.wall().max(state.stamp.millis()),
        log_clock: state.stamp.millis(),
    };
    let evaluation = match accounts::evaluate(&rows, &context, request) {
        Ok(evaluation) => Ok(evaluation),
        Err(EvaluateError::Rejected(rejection)) => Err(rejection),
        Err(EvaluateError::View(error)) => return Err(unreadable(core, &error)),
        Err(EvaluateError::Inconsistent(what)) => {
            let trace_id = &request.actor.trace_id;
            tracing::error!(what, trace_id, "stored rows contradict each other");
            return Err(Failure::new(
                Reason::Internal,
                "stored rows contradict each other; see the node's log",
            ));
        }
    };
    Ok(Evaluated {
        rows,
        evaluation,
        index,
    })
}

/// A stored row cannot be read: damage, or a newer release wrote it. The node must not go on guessing.
pub(crate) fn unreadable(core: &Core, error: &dyn std::fmt::Display) -> Failure {
    reached!("driver.row-not-readable");
    core.fatal.report(format!("a stored row cannot be read: {error}"));
    Failure::new(
        Reason::NodeNotServing,
        "this node cannot read its state and is stopping",
    )
}

/// Proposes a mutation and waits for its fate. The latches are let go when it is applied or its term is over.
pub(crate) async fn propose<L>(
    core: &Core,
    mutation: Mutation,
    term: u64,
    latches: L,
) -> Result<Committed, ProposeError> {
    let command = Command {
        epoch: core.group.state().epoch,
        wall: core.wall(),
        body: Body::Mutate(mutation),
    };
    let encoded = EncodedCommand(command::encode(&command));
    let mut leadership = core.group.leadership();
    let mut latches = Some(latches);
    let mut proposal = std::pin::pin!(core.group.propose(encoded, term, Instant::now() + PROPOSAL));
    loop {
        tokio::select! {
            biased;
            result = &mut proposal => return result,
            _ = leadership.wait_for(|now| now.term != term), if latches.is_some() => {
                reached!("driver.latches-let-go-with-the-term");
                latches = None;
            }
        }
    }
}

/// What a proposal definitely came to.
pub(crate) enum Settled {
    /// It took effect at this index.
    Applied {
        /// The log index.
        index: u64,
    },
    /// It had no effect, because something else came first.
    LookAgain,
}

/// Reads the fate of a proposal.
pub(crate) fn settled(result: Result<Committed, ProposeError>) -> Result<Settled, Failure> {
    match result {
        Ok(Committed {
            index,
            reply: Reply::Applied { .. },
        }) => Ok(Settled::Applied { index }),
        Ok(Committed {
            reply: Reply::GuardFailed { .. } | Reply::WrongEpoch { .. },
            ..
        }) => Ok(Settled::LookAgain),
        Ok(Committed {
            reply: Reply::RequestExpired { floor },
            ..
        }) => {
            reached!("driver.request-expired-at-apply");
            Err(Rejection::RequestIdExpired { oldest: floor }.into())
        }
        Err(ProposeError::NotAppended { .. }) => Err(Failure::new(
            Reason::NotLeader,
            "this node lost leadership before it could propose",
        )),
        Err(ProposeError::Unknown { why }) => {
            tracing::debug!(why, "the outcome of a proposal is unknown");
            Err(Problem::outcome_unknown().into())
        }
    }
}

fn applied(plan: Plan, request: &Request, index: u64) -> Result<Done, Failure> {
    match (plan.outcome, plan.account_after) {
        (Outcome::Done { revision, .. }, Some(account)) => {
            count("applied");
            let action = match plan.events.first() {
                None => Action::Skipped,
                Some(_) if revision == 1 => Action::Created,
                Some(_) => Action::Updated,
            };
            Ok(Done {
                account,
                revision,
                action,
                realm: request.realm,
                index,
            })
        }
        (Outcome::Refused { refusal, .. }, _) => {
            count("refused");
            Err(Problem::refused(&refusal, &request.operation).into())
        }
        (Outcome::Done { .. }, None) => Err(Failure::new(
            Reason::Internal,
            "an accepted change has no account; see the node's log",
        )),
    }
}

/// The answer to a request that had run before.
fn replayed(
    core: &Core,
    rows: &RowView,
    request: &Request,
    record: accounts::RequestRecord,
    index: u64,
) -> Result<Done, Failure> {
    let (account, revision) = match record.outcome {
        Outcome::Refused { refusal, .. } => {
            return Err(Problem::refused(&refusal, &request.operation).into());
        }
        Outcome::Done { account, revision } => (account, revision),
    };
    let found = accounts::View::account(rows, &account).map_err(|error| unreadable(core, &error))?;
    let Some(found) = found else {
        return Err(Failure::new(
            Reason::Internal,
            "a recorded change has no account; see the node's log",
        ));
    };
    let action = match &request.operation {
        // A skip records the revision it found; one that is above 1 was certainly not made by it.
        Operation::Import {
            mode: accounts::ImportMode::Skip,
            ..
        } if revision > 1 => Action::Skipped,
        _ if revision == 1 => Action::Created,
        _ => Action::Updated,
    };
    Ok(Done {
        account: found.value,
        revision,
        action,
        realm: request.realm,
        index,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_told_no_effect_only_if_none_can_follow() {
        let progress = Progress::default();
        assert_eq!(progress.abandon(), OutcomeView::NotApplied);
        assert!(!progress.propose(), "the task must not propose after that");

        let progress = Progress::default();
        assert!(progress.propose());
        assert_eq!(progress.abandon(), OutcomeView::Unknown);

        let progress = Progress::default();
        assert!(progress.propose());
        progress.undo();
        assert_eq!(progress.abandon(), OutcomeView::NotApplied);
    }
}
