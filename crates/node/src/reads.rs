//! Reads: how fresh a view must be, and how it gets there. Any node serves them.
//!
//! - *Linearizable*: one ReadIndex round, shared by all readers waiting at the time, then this node's own apply.
//! - *Stale within a bound*: served at once while a quorum was heard of recently enough; otherwise the same round
//!   is tried, and only if nobody can confirm in time is the read refused.
//! - *At least a token*: waits until this node has applied as much as the answer the token came from.

use std::sync::Arc;
use std::time::Duration;

use holdfast_consensus::BarrierError;
use holdfast_markers::{planted, reached};
use holdfast_storage::engine::View;
use holdfast_types::{ConsistencyToken, FieldViolation, Rejection};
use holdfast_wire::convert::reads::{AT_LEAST_FIELD, Freshness, ReadMode};
use holdfast_wire::status::Reason;

use crate::core::{Core, SHARD};
use crate::deadline::Deadline;
use crate::failure::Failure;

/// How long a barrier is tried anew while nobody leads. Longer than two elections.
const PATIENCE: Duration = Duration::from_secs(8);
/// The pause between two tries, unless news of a leader come first.
const PAUSE: Duration = Duration::from_millis(100);

/// A view that is fresh enough.
pub(crate) struct FreshView {
    /// The rows.
    pub(crate) view: Arc<dyn View>,
    /// A log index that the view includes.
    pub(crate) index: u64,
}

/// Waits until this node's state is as fresh as asked for, and freezes it.
pub(crate) async fn fresh_view(
    core: &Core,
    freshness: &Freshness,
    deadline: Deadline,
) -> Result<FreshView, Failure> {
    if let Some(token) = &freshness.at_least {
        reach(core, token, deadline).await?;
    }
    match freshness.mode {
        ReadMode::Linearizable => barrier(core, deadline).await?,
        ReadMode::Stale(None) => {}
        ReadMode::Stale(Some(bound)) => within(core, bound, deadline).await?,
    }
    // The index first, so that the view includes at least that much.
    let index = core.group.applied_index();
    Ok(FreshView {
        view: core.group.view(),
        index,
    })
}

/// Passes a read barrier, trying again while an election is under way.
pub(crate) async fn barrier(core: &Core, deadline: Deadline) -> Result<(), Failure> {
    let give_up = deadline.at_most(PATIENCE);
    let mut leadership = core.group.leadership();
    if planted!("barrier-skipped") && leadership.borrow().ready {
        return Ok(());
    }
    loop {
        leadership.mark_unchanged();
        let why = match core.group.read_barrier(give_up.at()).await {
            Ok(_) => return Ok(()),
            Err(BarrierError::Stopped) => {
                return Err(Failure::new(
                    Reason::NodeNotServing,
                    "this node is being stopped; ask another",
                ));
            }
            Err(BarrierError::Timeout) => return Err(Failure::no_leader("none confirmed the read in time")),
            Err(error @ BarrierError::NoLeader { .. }) => error,
        };
        if !core.is_member() {
            reached!("reads.not-a-member");
            return Err(Failure::not_a_member());
        }
        if give_up.left() < PAUSE {
            reached!("reads.no-leader-in-time");
            return Err(Failure::no_leader(why));
        }
        tokio::select! {
            biased;
            _ = leadership.changed() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn within(core: &Core, bound: Duration, deadline: Deadline) -> Result<(), Failure> {
    let fresh = |core: &Core| core.group.staleness().is_some_and(|age| age <= bound);
    if fresh(core) {
        return Ok(());
    }
    if barrier(core, deadline).await.is_ok() {
        reached!("reads.stale-needed-a-barrier");
        return Ok(());
    }
    reached!("reads.too-stale");
    let age = match core.group.staleness() {
        Some(age) => format!("its state may be {} ms old", age.as_millis()),
        None => "it has not heard of a quorum since it started".to_owned(),
    };
    Err(Failure::new(
        Reason::TooStale,
        format!("this node is further behind than the read allows: {age}"),
    ))
}

async fn reach(core: &Core, token: &ConsistencyToken, deadline: Deadline) -> Result<(), Failure> {
    if token.cluster != core.token_cluster() || token.shard != SHARD {
        let violation = FieldViolation::new(AT_LEAST_FIELD, "is a token of another cluster");
        return Err(Rejection::Invalid(vec![violation]).into());
    }
    if core.group.applied_index() < token.index {
        reached!("reads.token-waited-for");
    }
    core.group
        .wait_applied(token.index, deadline.at())
        .await
        .map_err(|_| {
            reached!("reads.token-not-reached");
            Failure::new(
                Reason::TokenNotReached,
                "this node has not yet applied as much as the token asks for",
            )
        })
}
