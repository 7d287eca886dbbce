//! From a request to a plan: what every operation has in common.

use holdfast_markers::{planted, reached};
use holdfast_types::{Account, Refusal, Rejection, RequestId};

use crate::digest::digest;
use crate::draft::{Draft, Effect, Stop};
use crate::limits::CLOCK_SKEW_MS_MAX;
use crate::size::record_bytes;
use crate::{
    ChangeEvent, Context, EvaluateError, Evaluation, Operation, Outcome, Plan, Request, RequestKey,
    RequestRecord, Row, RowKey, View, event, operation,
};

/// Evaluates a request against a view of applied state.
///
/// The view must reflect everything acknowledged before (a read barrier of the leader's own term); if it is
/// older all the same, the plan's guards fail when it is applied and nothing happens.
///
/// # Errors
/// [`EvaluateError::Rejected`] if the request is not acceptable as it stands; nothing is recorded then.
pub fn evaluate<V: View>(
    view: &V,
    ctx: &Context<'_>,
    request: &Request,
) -> Result<Evaluation, EvaluateError<V::Error>> {
    debug_assert_eq!(
        request.realm, ctx.realm.number,
        "the context is that of the request's realm"
    );
    let mut draft = Draft::new(view, ctx, request);
    let digest = digest(ctx.realm, request);
    let record_key = RequestKey::of(request);
    if let Some(key) = &record_key {
        match draft.record(key.clone()).map_err(EvaluateError::View)? {
            Some(record) if record.digest == digest || planted!("digest-of-request-ignored") => {
                reached!("request.replayed");
                return Ok(Evaluation::Replay(record));
            }
            Some(_) => {
                reached!("request.id-reused");
                return Err(Rejection::RequestIdReused.into());
            }
            None => check_birth(key.request, ctx)?,
        }
    }
    let account = request.account.clone();
    let (outcome, event, account_after) = match decide(&mut draft) {
        Ok(Effect {
            before,
            mut after,
            kind: Some(kind),
        }) => {
            after.revision = before.as_ref().map_or(0, |before| before.revision) + 1;
            after.update_time = ctx.now;
            let event = ChangeEvent {
                kind,
                account: account.clone(),
                revision: after.revision,
                fields: event::changed_fields(before.as_ref(), &after),
                identifier_kinds: event::changed_kinds(before.as_ref(), &after),
                actor: request.actor.clone(),
                request_id: request.request_id,
            };
            draft.put(RowKey::Account(account.clone()), Row::Account(after.clone()));
            (
                Outcome::Done {
                    account,
                    revision: after.revision,
                },
                Some(event),
                Some(after),
            )
        }
        Ok(Effect {
            after: found,
            kind: None,
            ..
        }) => (
            Outcome::Done {
                account,
                revision: found.revision,
            },
            None,
            Some(found),
        ),
        Err(Stop::Refused(refusal)) => {
            draft.discard_writes();
            (Outcome::Refused { account, refusal }, None, None)
        }
        Err(Stop::Rejected(rejection)) => return Err(EvaluateError::Rejected(rejection)),
        Err(Stop::View(error)) => return Err(EvaluateError::View(error)),
        Err(Stop::Inconsistent(what)) => return Err(EvaluateError::Inconsistent(what)),
    };
    let unrecorded = matches!(outcome, Outcome::Refused { .. }) && planted!("refusal-not-recorded");
    if let Some(key) = record_key
        && !unrecorded
    {
        let record = RequestRecord {
            digest,
            outcome: outcome.clone(),
        };
        draft.put(RowKey::Request(key), Row::Request(record));
    }
    let plan = Plan {
        events: event.into_iter().collect(),
        account_after,
        ..draft.into_plan(outcome)
    };
    Ok(Evaluation::Propose(Box::new(plan)))
}

fn decide<V: View>(draft: &mut Draft<'_, V>) -> Result<Effect, Stop<V::Error>> {
    let request = draft.request;
    draft.check.actor(&request.actor);
    let effect = match &request.operation {
        Operation::Create(account) => operation::create(draft, account),
        Operation::Import { mode, account } => operation::import(draft, *mode, account),
        Operation::Update(update) => operation::update(draft, update),
        Operation::ChangeIdentifiers(change) => operation::change_identifiers(draft, change),
        Operation::Delete { etag } => operation::delete(draft, etag.as_deref()),
        Operation::Undelete { etag } => operation::undelete(draft, etag.as_deref()),
        Operation::Purge { deadline } => operation::purge(draft, *deadline),
    }?;
    if effect.kind.is_some() {
        let limit = u64::from(draft.ctx.realm.config.max_record_bytes);
        check_size(effect.before.as_ref(), &effect.after, limit)?;
    }
    Ok(effect)
}

/// Refuses a record that has grown beyond the limit. One that is too large because the limit was lowered may
/// still shrink.
fn check_size(before: Option<&Account>, after: &Account, limit: u64) -> Result<(), Refusal> {
    let actual = record_bytes(after);
    let grows = before.is_none_or(|before| actual > record_bytes(before));
    if actual > limit && grows {
        return Err(Refusal::LimitExceeded {
            what: "record_bytes".into(),
            limit,
            actual,
        });
    }
    Ok(())
}

/// A request id that is older than the window may have run and been forgotten; one from the future would outlive
/// the window. The window is measured in log time, which all replicas share.
fn check_birth(id: RequestId, ctx: &Context<'_>) -> Result<(), Rejection> {
    let oldest = ctx.log_clock.minus(ctx.realm.config.request_window_ms);
    let latest = ctx.now.plus(CLOCK_SKEW_MS_MAX);
    match id.birth() {
        birth if birth < oldest => {
            reached!("request.expired");
            Err(Rejection::RequestIdExpired { oldest })
        }
        birth if birth > latest => {
            reached!("request.from-future");
            Err(Rejection::RequestIdFromFuture { latest })
        }
        _ => Ok(()),
    }
}
