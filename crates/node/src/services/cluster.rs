//! ClusterService: what operators see, and what they do to the membership. On the admin port.

use std::sync::Arc;
use std::time::Duration;

use holdfast_consensus::{GroupStatus, MemberRole, MembershipError, PeerAddresses, Role};
use holdfast_machine::FEATURE_LEVEL;
use holdfast_markers::{crash_point, reached};
use holdfast_types::{Family, NodeId, Placement};
use holdfast_wire::convert::members::{self, Terms};
use holdfast_wire::convert::time;
use holdfast_wire::internal::ReportRequest;
use holdfast_wire::status::{OutcomeView, Problem, Reason};
use holdfast_wire::v1;
use holdfast_wire::v1::cluster_service_server::ClusterService;
use tonic::{Request, Response, Status};

use super::Service;
use crate::admission::Permit;
use crate::background::alarms;
use crate::call::Call;
use crate::core::{Core, SHARD};
use crate::failure::Failure;
use crate::lifecycle::Phase;
use crate::methods;
use crate::roster;
use crate::router::Mutation;

/// A member that has not answered for this long does not count as alive.
const SILENCE_MS_MAX: u64 = 5_000;
/// How long a member that shall lead may take to say how it is doing.
const REPORT: Duration = Duration::from_secs(1);

#[tonic::async_trait]
impl ClusterService for Service {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let core = &self.core;
        self.call(&methods::GET_STATUS, request, async |_message, _call, _permit| {
            Ok(v1::GetStatusResponse {
                cluster_id: core.cluster_id().to_string(),
                node: Some(node_status(core)),
                shards: vec![shard_status(core)],
            })
        })
        .await
    }

    async fn add_learner(
        &self,
        request: Request<v1::AddLearnerRequest>,
    ) -> Result<Response<v1::AddLearnerResponse>, Status> {
        self.mutate(&methods::ADD_LEARNER, request, members::add_learner)
            .await
    }

    async fn promote_member(
        &self,
        request: Request<v1::PromoteMemberRequest>,
    ) -> Result<Response<v1::PromoteMemberResponse>, Status> {
        self.mutate(&methods::PROMOTE_MEMBER, request, members::promote_member)
            .await
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        self.mutate(&methods::REMOVE_MEMBER, request, members::remove_member)
            .await
    }

    async fn replace_member(
        &self,
        request: Request<v1::ReplaceMemberRequest>,
    ) -> Result<Response<v1::ReplaceMemberResponse>, Status> {
        self.mutate(&methods::REPLACE_MEMBER, request, members::replace_member)
            .await
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        self.mutate(
            &methods::TRANSFER_LEADERSHIP,
            request,
            members::transfer_leadership,
        )
        .await
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        let core = &self.core;
        self.call(&methods::DRAIN, request, async |message, call: Call, _permit| {
            let (undo, actor) = members::drain(message)?;
            tracing::info!(
                undo,
                actor = actor.actor,
                reason = actor.reason,
                "drain was asked for"
            );
            if undo {
                core.lifecycle.resume();
            } else {
                core.lifecycle.advance(Phase::Draining);
                hand_over(core, call.deadline.at()).await;
                let left = core.tasks.idle(call.deadline).await;
                tracing::info!(left, "drained");
            }
            Ok(v1::DrainResponse {
                node: Some(node_status(core)),
            })
        })
        .await
    }

    async fn trigger_snapshot(
        &self,
        request: Request<v1::TriggerSnapshotRequest>,
    ) -> Result<Response<v1::TriggerSnapshotResponse>, Status> {
        let core = &self.core;
        self.call(
            &methods::TRIGGER_SNAPSHOT,
            request,
            async |message, call: Call, _permit| {
                members::trigger_snapshot(message)?;
                match tokio::time::timeout(call.deadline.left(), core.group.trigger_snapshot()).await {
                    Ok(result) => result.map_err(|error| refused(core, error, Reason::NodeNotServing))?,
                    Err(_) => return Err(Problem::deadline(OutcomeView::Unknown).into()),
                }
                let status = core.group.status();
                Ok(v1::TriggerSnapshotResponse {
                    snapshot_index: status.snapshot.map_or(0, |position| position.index),
                    purged_index: status.purged.map_or(0, |position| position.index),
                })
            },
        )
        .await
    }
}

/// Hands leadership to another voter, if this node leads and there is one.
pub(crate) async fn hand_over(core: &Core, deadline: tokio::time::Instant) {
    if !core.leadership().is_me {
        return;
    }
    match core.group.transfer_leadership(None, deadline).await {
        Ok(leader) => tracing::info!(leader, "leadership was handed over"),
        Err(error) => {
            reached!("leadership.not-handed-over");
            tracing::warn!(%error, "leadership could not be handed over");
        }
    }
}

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
                    if !core.leadership().is_me {
                        return Err(core.not_leader());
                    }
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
    let addresses = from_message(addresses);
    match status.members.iter().find(|member| member.id == node) {
        Some(known) if known.addresses != addresses => {
            return Err(Failure::new(
                Reason::MemberExists,
                format!(
                    "node {node} is a member already, at {}; a node id is never reused",
                    known.addresses.peer
                ),
            ));
        }
        Some(_) => {}
        None => {
            roster::free(core, node)?;
            roster::introduced(core, node, &addresses.peer).await?;
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
    // A repetition of a request that had come to its end.
    if known(new) && !known(old) {
        return Ok(None);
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
    let voter = |node| {
        status
            .members
            .iter()
            .any(|member| member.id == node && member.role == MemberRole::Voter)
    };
    // The expectation is about the membership before; from here on each step builds on the one before.
    let next = Terms {
        expected_membership_id: None,
        ..terms.clone()
    };
    add_learner(core, call, (new, addresses, terms)).await?;
    if !voter(old) || voter(new) {
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

impl Mutation for v1::TransferLeadershipRequest {
    type Response = v1::TransferLeadershipResponse;
    const NAME: &'static str = "holdfast.v1.ClusterService/TransferLeadership";
    const REPEATABLE: bool = false;

    async fn run(
        self,
        core: &Arc<Core>,
        call: &Call,
        _permit: Option<Arc<Permit>>,
    ) -> Result<v1::TransferLeadershipResponse, Failure> {
        let (to, actor) = members::transfer_leadership(self)?;
        if !core.leadership().is_me {
            return Err(core.not_leader());
        }
        if let Some(to) = to {
            let status = core.group.status();
            member(&status, to)?;
            not_draining(core, &status, to).await?;
        }
        let handed = core.group.transfer_leadership(to, call.deadline.at()).await;
        let leader_node_id = handed.map_err(|error| refused(core, error, Reason::MemberLags))?;
        tracing::info!(
            leader = leader_node_id,
            actor = actor.actor,
            "leadership was handed over"
        );
        Ok(v1::TransferLeadershipResponse {
            leader_node_id,
            term: core.leadership().term,
        })
    }
}

/// Checks early what the change itself checks again.
fn expected(status: &GroupStatus, terms: &Terms) -> Result<(), Failure> {
    match &terms.expected_membership_id {
        Some(expected) if *expected != status.membership_id => Err(changed(&status.membership_id)),
        _ => Ok(()),
    }
}

fn changed(current: &str) -> Failure {
    Problem::new(
        Reason::MembershipChanged,
        "the membership is not the expected one",
    )
    .fact("current_membership_id", current)
    .into()
}

fn member(status: &GroupStatus, node: NodeId) -> Result<(), Failure> {
    if status.members.iter().any(|member| member.id == node) {
        return Ok(());
    }
    Err(Failure::new(
        Reason::MemberNotFound,
        format!("node {node} is not a member"),
    ))
}

/// Refuses to make a leader of a node that is being drained. One that does not answer is consensus's to refuse.
async fn not_draining(core: &Core, status: &GroupStatus, node: NodeId) -> Result<(), Failure> {
    let draining = if node == core.node_id() {
        core.lifecycle.phase() >= Phase::Draining
    } else if let Some(member) = status.members.iter().find(|member| member.id == node) {
        let request = ReportRequest {
            header: Some(core.peers.header(node)),
        };
        let mut client = core.peers.client(&member.addresses.peer)?;
        let answer = tokio::time::timeout(REPORT, client.report(request)).await;
        matches!(answer, Ok(Ok(report)) if report.get_ref().draining)
    } else {
        false
    };
    if draining {
        return Err(Failure::new(
            Reason::MemberDraining,
            format!("node {node} is being drained; undo that first, or choose another"),
        ));
    }
    Ok(())
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

/// What a refused change means to the caller. `otherwise`: the reason of a refusal that has no other.
fn refused(core: &Core, error: MembershipError, otherwise: Reason) -> Failure {
    match error {
        MembershipError::NotLeader { .. } => core.not_leader(),
        MembershipError::Changed { found, .. } => changed(&found),
        MembershipError::Busy => Failure::new(
            Reason::MembershipChangeInProgress,
            "another membership change is under way",
        ),
        MembershipError::Refused(why) => Failure::new(otherwise, why),
        MembershipError::Unknown { why } => Problem::new(
            Reason::OutcomeUnknown,
            format!("{why}; look at the status before you try again"),
        )
        .outcome(OutcomeView::Unknown)
        .into(),
    }
}

fn from_message(addresses: v1::MemberAddresses) -> PeerAddresses {
    PeerAddresses {
        peer: addresses.peer,
        client: addresses.client,
        admin: addresses.admin,
    }
}

fn to_message(addresses: &PeerAddresses) -> v1::MemberAddresses {
    v1::MemberAddresses {
        peer: addresses.peer.clone(),
        client: addresses.client.clone(),
        admin: addresses.admin.clone(),
    }
}

fn membership(status: &GroupStatus) -> v1::Membership {
    v1::Membership {
        membership_id: status.membership_id.clone(),
        members: status
            .members
            .iter()
            .map(|member| v1::Member {
                node_id: member.id,
                role: match member.role {
                    MemberRole::Voter => v1::MemberRole::Voter,
                    MemberRole::Learner => v1::MemberRole::Learner,
                }
                .into(),
                addresses: Some(to_message(&member.addresses)),
            })
            .collect(),
    }
}

fn node_status(core: &Core) -> v1::NodeStatus {
    let usage = core.engine.usage().unwrap_or_default();
    let log_bytes = usage
        .families
        .iter()
        .find(|(family, _)| *family == Family::RaftLog);
    let state: u64 = usage
        .families
        .iter()
        .filter(|(family, _)| Family::STATE.contains(family))
        .map(|(_, bytes)| bytes)
        .sum();
    let serving = match core.lifecycle.phase() {
        Phase::Starting => v1::ServingState::Starting,
        Phase::Serving => v1::ServingState::Serving,
        Phase::Draining | Phase::Stopping | Phase::Stopped => v1::ServingState::Draining,
    };
    v1::NodeStatus {
        node_id: core.node_id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        supported_feature_level: FEATURE_LEVEL,
        serving: serving.into(),
        start_time: Some(time::timestamp(core.started_wall)),
        addresses: core.group.members().get(&core.node_id()).map(to_message),
        disk: Some(v1::DiskStatus {
            data_path: core.config.node.data_dir.display().to_string(),
            total_bytes: usage.disk_total_bytes.unwrap_or(0),
            free_bytes: usage.disk_free_bytes.unwrap_or(0),
            state_bytes: state,
            log_bytes: log_bytes.map_or(0, |(_, bytes)| *bytes),
        }),
        alarms: alarms(core),
    }
}

fn shard_status(core: &Core) -> v1::ShardStatus {
    let status = core.group.status();
    let (applied_index, state) = core.group.applied();
    let index =
        |position: Option<holdfast_consensus::LogPosition>| position.map_or(0, |position| position.index);
    let last_log_index = index(status.last_log);
    let role = match status.role {
        Role::Leader => v1::ReplicaRole::Leader,
        Role::Follower => v1::ReplicaRole::Follower,
        Role::Candidate => v1::ReplicaRole::Candidate,
        Role::Learner => v1::ReplicaRole::Learner,
        Role::Stopped => v1::ReplicaRole::Unspecified,
    };
    let leads = status.role == Role::Leader;
    v1::ShardStatus {
        shard: SHARD.0,
        epoch: state.epoch.0,
        placement: u32::from(Placement(0).0),
        first_slot: 0,
        last_slot: u32::from(u16::MAX),
        role: role.into(),
        leader_node_id: status.leader.unwrap_or(0),
        term: status.term,
        last_log_index,
        committed_index: index(status.committed),
        applied_index,
        snapshot_index: index(status.snapshot),
        purged_index: index(status.purged),
        feature_level: state.feature_level,
        log_time: Some(time::timestamp(state.stamp.millis())),
        staleness: core.group.staleness().map(time::duration),
        membership: Some(membership(&status)),
        progress: status
            .members
            .iter()
            .filter(|_| leads)
            .map(|member| v1::MemberProgress {
                node_id: member.id,
                matched_index: member.matched,
                lag_entries: last_log_index.saturating_sub(member.matched.unwrap_or(0)),
                last_heard: member
                    .last_heard_ms
                    .map(|ms| time::duration(Duration::from_millis(ms))),
            })
            .collect(),
        state_digest: bytes::Bytes::copy_from_slice(&state.digest),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_consensus::MemberStatus;

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
            membership_changing: false,
            sync_age_ms: None,
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
