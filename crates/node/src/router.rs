//! Where a mutation is carried out: here, if this node leads the shard, otherwise on the leader, one hop away.
//!
//! The router hides elections. While nobody leads it waits, and what was certainly not carried out is tried
//! again; so is what may have been, if the request id makes that harmless. It gives up a little before the
//! caller's deadline, with the truth about the outcome: once one attempt may have had an effect, no later
//! "nobody leads" makes that undone. A node that is no member does not wait: no election will end there.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use holdfast_markers::reached;
use holdfast_types::NodeId;
use holdfast_wire::internal::ForwardRequest;
use holdfast_wire::status::{ErrorView, Problem, Reason};
use prost::Message;

use crate::admission::Permit;
use crate::call::Call;
use crate::core::Core;
use crate::failure::Failure;
use crate::peers;

/// How long the router waits for a leader before it says that there is none. Longer than two elections.
const PATIENCE: Duration = Duration::from_secs(8);
/// The pause before the first repetition; doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(320);
/// What must be left of the deadline for another attempt.
const ATTEMPT_MIN: Duration = Duration::from_millis(10);

/// A request that changes something, as the leader carries it out.
pub(crate) trait Mutation: Message + Default + Clone + Sync + 'static {
    /// The answer.
    type Response: Message + Default;
    /// What it is called between nodes.
    const NAME: &'static str;
    /// Whether sending it twice has one effect.
    const REPEATABLE: bool;

    /// Carries it out. Only the leader does; any other node says [`Reason::NotLeader`]. `permit` is given
    /// back when the work has ended, which may be after the caller stopped waiting.
    fn run(
        self,
        core: &Arc<Core>,
        call: &Call,
        permit: Option<Arc<Permit>>,
    ) -> impl Future<Output = Result<Self::Response, Failure>> + Send;
}

/// Has a mutation carried out by whoever leads.
pub(crate) async fn route<M: Mutation>(
    core: &Arc<Core>,
    message: M,
    call: &Call,
    permit: Option<Arc<Permit>>,
) -> Result<M::Response, Failure> {
    let give_up = call.deadline.at_most(PATIENCE);
    let mut leadership = core.group.leadership();
    let mut pause = PAUSE;
    let mut unknown = false;
    loop {
        let seen = *leadership.borrow_and_update();
        if seen.leader.is_none() && !core.is_member() {
            reached!("router.not-a-member");
            return Err(not_a_member(unknown));
        }
        let attempt = match seen.leader {
            _ if seen.is_me && seen.ready => message.clone().run(core, call, permit.clone()).await,
            _ if seen.is_me => Err(Failure::no_leader("this node was elected just now")),
            Some(leader) if leader != core.node_id() => {
                tokio::select! {
                    biased;
                    result = forward(core, leader, &message, call) => result,
                    // It may be frozen, or cut off. Asking its successor is safe where asking twice is.
                    () = succeeded(core, leader), if M::REPEATABLE => {
                        reached!("router.successor-asked");
                        Err(Problem::outcome_unknown().into())
                    }
                }
            }
            _ => Err(Failure::no_leader("none is known")),
        };
        let failure = match attempt {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        unknown |= failure.may_have_applied();
        let elsewhere = matches!(failure, Failure::There(_));
        let again = match failure.reason() {
            Reason::NotLeader | Reason::NoLeader | Reason::ClockSkew => M::REPEATABLE || !unknown,
            // The leader is about to hand over.
            Reason::NodeNotServing if elsewhere => M::REPEATABLE || !unknown,
            Reason::OutcomeUnknown => M::REPEATABLE,
            _ => false,
        };
        if !again || give_up.left() < pause + ATTEMPT_MIN {
            return Err(
                if unknown && !conclusive(failure.reason()) && !failure.may_have_applied() {
                    reached!("router.unknown-not-hidden");
                    Problem::outcome_unknown().into()
                } else {
                    failure
                },
            );
        }
        reached!("router.tried-again");
        if unknown {
            reached!("router.tried-again-unknown");
        }
        tokio::select! {
            biased;
            _ = leadership.changed() => {}
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}

/// Said where no leader will be heard of. `unknown`: an attempt before may have had its effect.
fn not_a_member(unknown: bool) -> Failure {
    if unknown {
        Problem::outcome_unknown().into()
    } else {
        Failure::not_a_member()
    }
}

/// Waits until another node than `leader` leads.
async fn succeeded(core: &Core, leader: NodeId) {
    let mut leadership = core.group.leadership();
    let ended = leadership
        .wait_for(|now| now.leader.is_some_and(|now| now != leader))
        .await
        .is_err();
    if ended {
        // The group has ended; whoever waits is told by others.
        std::future::pending().await
    }
}

/// Whether an answer settles what became of the request id, whatever happened to earlier attempts: it was found
/// in the state after the request record had been looked for. Everything else is said about one attempt only
/// and must not hide that an earlier one may have had its effect.
fn conclusive(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::RequestIdReused
            | Reason::LimitExceeded
            | Reason::AccountNotFound
            | Reason::AccountPurged
            | Reason::AccountExists
            | Reason::IdentifierNotFound
            | Reason::IdentifierUnavailable
            | Reason::StateForbids
            | Reason::EtagMismatch
    )
}

/// Hands a mutation to the leader.
async fn forward<M: Mutation>(
    core: &Core,
    leader: NodeId,
    message: &M,
    call: &Call,
) -> Result<M::Response, Failure> {
    let members = core.group.members();
    let Some(addresses) = members.get(&leader) else {
        return Err(Failure::no_leader(format!(
            "node {leader} leads, but its address is not known yet"
        )));
    };
    let budget = call.deadline.for_hop();
    if budget < ATTEMPT_MIN {
        return Err(Problem::deadline(holdfast_wire::status::OutcomeView::NotApplied).into());
    }
    reached!("router.forwarded");
    let mut client = core.peers.client(&addresses.peer)?;
    let mut request = tonic::Request::new(ForwardRequest {
        header: Some(core.peers.header(leader)),
        method: M::NAME.to_owned(),
        request: message.encode_to_vec().into(),
        caller: call.caller.as_str().to_owned(),
        deadline_ms: u32::try_from(budget.as_millis()).unwrap_or(u32::MAX),
        trace_parent: call.trace.to_header(),
    });
    request.set_timeout(budget);
    let result = match tokio::time::timeout(budget, client.forward(request)).await {
        Err(_) => Err(Problem::outcome_unknown().into()),
        Ok(Err(status)) => Err(said_by_leader(status)),
        Ok(Ok(reply)) => M::Response::decode(reply.into_inner().response).map_err(|error| {
            let trace_id = &call.trace.trace_id;
            tracing::error!(%error, leader, trace_id, "the leader's answer cannot be read");
            Problem::outcome_unknown().into()
        }),
    };
    let outcome = match &result {
        Ok(_) => "OK",
        Err(failure) => holdfast_wire::status::reason_name(failure.reason()),
    };
    metrics::counter!("holdfast_forwarded_total", "outcome" => outcome).increment(1);
    result
}

fn said_by_leader(status: tonic::Status) -> Failure {
    match ErrorView::of(&status) {
        Some(_) => Failure::There(Box::new(status)),
        None if peers::never_sent(&status) => {
            reached!("router.leader-not-there");
            Failure::no_leader("the last one does not answer")
        }
        // The transport speaks: the request may have arrived.
        None => Problem::outcome_unknown().into(),
    }
}
