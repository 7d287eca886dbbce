//! Members that come, go and get a vote. Each change is a compare-and-set on the membership.

use std::sync::Arc;

use holdfast_consensus::{GroupStatus, MemberRole, PeerAddresses};
use holdfast_markers::{crash_point, reached};
use holdfast_types::NodeId;
use holdfast_wire::convert::members::{self, Terms};
use holdfast_wire::status::Reason;
use holdfast_wire::v1;

use super::status::{membership, to_message};
use super::{changed, member, refused};
use crate::admission::Permit;
use crate::call::Call;
use crate::core::Core;
use crate::failure::Failure;
use crate::reads;
use crate::roster;
use crate::router::Mutation;

/// A member that has not answered for this long does not count as alive.
const SILENCE_MS_MAX: u64 = 5_000;

macro_rules! membership_changes {
    ($($request:ident => $response:ident, $method:literal, $convert:path, $change:path;)*) => {
        $(
            impl Mutation for v1::$request {
                type Response = v1::$response;
                const NAME: &'static str = concat!("holdfast.v1.ClusterService/", $method);
                /// Each is a compare-and-set on the membership.
                const REPEATABLE: bool = false;

                async fn run(
                    self,
                    core: &Arc<Core>,
                    call: &Call,
                    _permit: Option<Arc<Permit>>,
                ) -> Result<v1::$response, Failure> {
                    confirmed(core, call).await?;
                    let planned: Planned = $change(core, call, $convert(self)?).await?;
                    let membership = planned.unwrap_or_else(|| membership(&core.group.status()));
                    Ok(v1::$response { membership: Some(membership) })
                }
            }
        )*
    };
}

membership_changes! {
    AddLearnerRequest => AddLearnerResponse, "AddLearner", members::add_learner, add_learner;
    PromoteMemberRequest => PromoteMemberResponse, "PromoteMember", members::promote_member, promote;
    RemoveMemberRequest => RemoveMemberResponse, "RemoveMember", members::remove_member, remove;
    ReplaceMemberRequest => ReplaceMemberResponse, "ReplaceMember", members::replace_member, replace;
}

/// Checks that this node leads, and still does: one that was deposed without knowing would answer by an old membership
/// ("is a member already").
async fn confirmed(core: &Core, call: &Call) -> Result<(), Failure> {
    if core.leadership().is_me {
        reads::barrier(core, call.deadline).await?;
    }
    if core.leadership().is_me {
        Ok(())
    } else {
        Err(core.not_leader())
    }
}

/// What the membership would be, if the change was only to be validated.
type Planned = Option<v1::Membership>;

/// The membership as it would be with these members.
fn planned(status: &GroupStatus, change: impl FnOnce(&mut Vec<v1::Member>)) -> Planned {
    let mut planned = membership(status);
    planned.membership_id.clear();
    change(&mut planned.members);
    planned.members.sort_by_key(|member| member.node_id);
    Some(planned)
}

async fn add_learner(
    core: &Core,
    call: &Call,
    (node, addresses, terms): (NodeId, v1::MemberAddresses, Terms),
) -> Result<Planned, Failure> {
    let status = core.group.status();
    expected(&status, &terms)?;
    let mut addresses = from_message(addresses);
    match status.members.iter().find(|member| member.id == node) {
        Some(known) if !known.addresses.same_ports(&addresses) => {
            return Err(Failure::new(
                Reason::MemberExists,
                format!(
                    "node {node} is a member already, at {}; a node id is never reused",
                    known.addresses.peer
                ),
            ));
        }
        // Nothing is left to do; and it may be removed before anything was.
        Some(_) if !terms.validate_only => return Ok(None),
        Some(_) => {}
        None => {
            roster::free(core, node)?;
            addresses.directory = Some(roster::introduced(core, node, &addresses.peer).await?);
            // It may have been taken in and removed meanwhile.
            roster::free(core, node)?;
        }
    }
    if terms.validate_only {
        return Ok(planned(&status, |members| {
            if members.iter().all(|member| member.node_id != node) {
                members.push(v1::Member {
                    node_id: node,
                    role: v1::MemberRole::Learner.into(),
                    addresses: Some(to_message(&addresses)),
                });
            }
        }));
    }
    let added = core
        .group
        .add_learner(node, addresses, terms.expected_membership_id, call.deadline.at());
    let id = added
        .await
        .map_err(|error| refused(core, error, Reason::MemberExists))?;
    crash_point!("membership.learner-added").await;
    tracing::info!(
        node,
        membership = id,
        actor = terms.actor.actor,
        "a learner was added"
    );
    Ok(None)
}

async fn promote(core: &Core, call: &Call, (node, terms): (NodeId, Terms)) -> Result<Planned, Failure> {
    let status = core.group.status();
    expected(&status, &terms)?;
    member(&status, node)?;
    if votes(&status, node) {
        return Ok(None);
    }
    if terms.validate_only {
        return Ok(planned(&status, |members| {
            for member in members.iter_mut().filter(|member| member.node_id == node) {
                member.set_role(v1::MemberRole::Voter);
            }
        }));
    }
    let promoted = core
        .group
        .promote(node, terms.expected_membership_id, call.deadline.at());
    let id = promoted
        .await
        .map_err(|error| refused(core, error, Reason::MemberLags))?;
    tracing::info!(
        node,
        membership = id,
        actor = terms.actor.actor,
        "a member was given its vote"
    );
    Ok(None)
}

async fn remove(core: &Core, call: &Call, (node, terms): (NodeId, Terms)) -> Result<Planned, Failure> {
    let status = core.group.status();
    expected(&status, &terms)?;
    member(&status, node)?;
    quorum_without(&status, node, None)?;
    if terms.validate_only {
        return Ok(planned(&status, |members| {
            members.retain(|member| member.node_id != node);
        }));
    }
    // First, so that no removed id is ever forgotten. An id that is retired and then not removed goes on as it is.
    roster::remember(core, node, |member| member.retired = true).await?;
    crash_point!("membership.retired-not-removed").await;
    let removed = core
        .group
        .remove(node, terms.expected_membership_id, call.deadline.at());
    let id = removed
        .await
        .map_err(|error| refused(core, error, Reason::QuorumAtRisk))?;
    tracing::info!(
        node,
        membership = id,
        actor = terms.actor.actor,
        "a member was removed"
    );
    Ok(None)
}

async fn replace(core: &Core, call: &Call, replace: members::ReplaceMember) -> Result<Planned, Failure> {
    let members::ReplaceMember {
        old,
        new,
        addresses,
        terms,
    } = replace;
    let status = core.group.status();
    expected(&status, &terms)?;
    let known = |node| status.members.iter().any(|member| member.id == node);
    // A repetition of a request that had come to its end; or somebody removed the old node before it had, and what is left to do is the
    // new one's vote.
    if known(new) && !known(old) && roster::is_retired(core, old) {
        if !votes(&status, new) {
            reached!("membership.replaced-after-removal");
        }
        return promote(core, call, (new, terms)).await;
    }
    member(&status, old)?;
    quorum_without(&status, old, Some(new))?;
    if terms.validate_only {
        return Ok(planned(&status, |members| {
            members.retain(|member| ![old, new].contains(&member.node_id));
            members.push(v1::Member {
                node_id: new,
                role: v1::MemberRole::Voter.into(),
                addresses: Some(addresses),
            });
        }));
    }
    // The expectation is about the membership before; from here on each step builds on the one before.
    let next = Terms {
        expected_membership_id: None,
        ..terms.clone()
    };
    add_learner(core, call, (new, addresses, terms)).await?;
    if !votes(&status, old) || votes(&status, new) {
        promote(core, call, (new, next.clone())).await?;
        return remove(core, call, (old, next)).await;
    }
    roster::remember(core, old, |member| member.retired = true).await?;
    crash_point!("membership.retired-not-replaced").await;
    let swapped = core.group.replace(old, new, None, call.deadline.at()).await;
    let id = swapped.map_err(|error| refused(core, error, Reason::MemberLags))?;
    tracing::info!(
        old,
        new,
        membership = id,
        actor = next.actor.actor,
        "a member was replaced"
    );
    Ok(None)
}

fn votes(status: &GroupStatus, node: NodeId) -> bool {
    status
        .members
        .iter()
        .any(|member| member.id == node && member.role == MemberRole::Voter)
}

/// Checks early what the change itself checks again.
fn expected(status: &GroupStatus, terms: &Terms) -> Result<(), Failure> {
    match &terms.expected_membership_id {
        Some(expected) if *expected != status.membership_id => Err(changed(&status.membership_id)),
        _ => Ok(()),
    }
}

/// Refuses to take `node` out if those that stay could not agree on anything. `new` comes in its place.
fn quorum_without(status: &GroupStatus, node: NodeId, new: Option<NodeId>) -> Result<(), Failure> {
    let voter = |role| role == MemberRole::Voter;
    let staying = status
        .members
        .iter()
        .filter(|member| voter(member.role) && member.id != node);
    let alive = staying
        .clone()
        .filter(|member| {
            member.id == status.node_id
                || member
                    .last_heard_ms
                    .is_some_and(|silence| silence <= SILENCE_MS_MAX)
        })
        .count()
        + usize::from(new.is_some());
    let voters = staying.count() + usize::from(new.is_some());
    if alive > voters / 2 {
        return Ok(());
    }
    reached!("membership.quorum-at-risk");
    Err(Failure::new(
        Reason::QuorumAtRisk,
        format!("without node {node} there would be {voters} voters, of which {alive} answer: no quorum"),
    ))
}

fn from_message(addresses: v1::MemberAddresses) -> PeerAddresses {
    PeerAddresses {
        peer: addresses.peer,
        client: addresses.client,
        admin: addresses.admin,
        directory: None,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_consensus::{MemberStatus, Role};

    use super::*;

    fn status(members: &[(NodeId, MemberRole, Option<u64>)]) -> GroupStatus {
        GroupStatus {
            node_id: 1,
            role: Role::Leader,
            term: 1,
            vote: String::new(),
            leader: Some(1),
            last_log: None,
            committed: None,
            applied: None,
            snapshot: None,
            purged: None,
            quorum_age_ms: None,
            members: members
                .iter()
                .map(|(id, role, last_heard_ms)| MemberStatus {
                    id: *id,
                    role: *role,
                    addresses: PeerAddresses::default(),
                    matched: None,
                    last_heard_ms: *last_heard_ms,
                })
                .collect(),
            membership_id: "1-1".into(),
            membership_committed: true,
            voter_sets: Vec::new(),
            sync_age_ms: None,
            log_requests: 0,
            readers: 0,
            recovered: true,
            fatal: None,
        }
    }

    #[test]
    fn nobody_is_removed_whose_absence_ends_the_quorum() {
        use MemberRole::{Learner, Voter};
        let three = status(&[(1, Voter, None), (2, Voter, Some(10)), (3, Voter, Some(60_000))]);
        assert!(quorum_without(&three, 3, None).is_ok(), "the dead one may go");
        assert!(
            quorum_without(&three, 2, None).is_err(),
            "1 and the dead 3 agree on nothing"
        );
        assert!(quorum_without(&three, 2, Some(4)).is_ok());
        let one = status(&[(1, Voter, None), (2, Learner, Some(10))]);
        assert!(quorum_without(&one, 1, None).is_err());
        assert!(quorum_without(&one, 2, None).is_ok());
    }
}
