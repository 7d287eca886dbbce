//! ClusterService: what operators see, and what they do to the membership. On the admin port.
//!
//! `status`: what a node says of itself. `changes`: members that come, go and get a vote. `leadership`: who leads.

mod changes;
mod leadership;
mod status;

use holdfast_consensus::{FlushError, GroupStatus, MembershipError};
use holdfast_types::NodeId;
use holdfast_wire::convert::members;
use holdfast_wire::status::{OutcomeView, Problem, Reason};
use holdfast_wire::v1;
use holdfast_wire::v1::cluster_service_server::ClusterService;
use tonic::{Request, Response, Status};

use super::Service;
use crate::call::Call;
use crate::core::Core;
use crate::failure::Failure;
use crate::lifecycle::Phase;
use crate::methods;

pub(crate) use leadership::hand_over;
use status::{node_status, shard_status};

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
                let flushed = core.group.trigger_snapshot(call.deadline.at()).await;
                let snapshot_index = flushed.map_err(|error| {
                    let why = error.to_string();
                    match error {
                        FlushError::Timeout { .. } => {
                            Problem::new(Reason::DeadlineExceeded, why).outcome(OutcomeView::Unknown)
                        }
                        FlushError::Stopped { .. } => Problem::new(Reason::NodeNotServing, why),
                    }
                })?;
                Ok(v1::TriggerSnapshotResponse {
                    snapshot_index,
                    purged_index: core.group.status().purged.map_or(0, |position| position.index),
                })
            },
        )
        .await
    }
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

fn changed(current: &str) -> Failure {
    Problem::new(
        Reason::MembershipChanged,
        "the membership is not the expected one",
    )
    .fact("current_membership_id", current)
    .into()
}
