//! Who leads: handing leadership over, and whom not to hand it to.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use holdfast_consensus::{GroupStatus, MemberRole, MembershipError};
use holdfast_markers::reached;
use holdfast_types::NodeId;
use holdfast_wire::convert::members;
use holdfast_wire::internal::{ReportReply, ReportRequest};
use holdfast_wire::status::Reason;
use holdfast_wire::v1;
use tokio::time::Instant;

use super::{member, refused};
use crate::admission::Permit;
use crate::call::Call;
use crate::core::Core;
use crate::failure::Failure;
use crate::lifecycle::Phase;
use crate::router::Mutation;

/// How long a member that shall lead may take to say how it is doing.
const REPORT: Duration = Duration::from_secs(1);

/// Hands leadership to another voter, if this node leads and there is one.
pub(crate) async fn hand_over(core: &Core, deadline: Instant) {
    if !core.leadership().is_me {
        return;
    }
    match transfer(core, None, deadline).await {
        Ok(leader) => tracing::info!(leader, "leadership was handed over"),
        Err(error) => {
            reached!("leadership.not-handed-over");
            tracing::warn!(%error, "leadership could not be handed over");
        }
    }
}

/// Hands leadership to `to`, or else to a voter that answers and is not being drained, if there is one.
async fn transfer(core: &Core, to: Option<NodeId>, deadline: Instant) -> Result<NodeId, MembershipError> {
    let avoid = match to {
        Some(_) => Vec::new(),
        None => unwilling(core, &core.group.status()).await,
    };
    core.group.transfer_leadership(to, &avoid, deadline).await
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
        let handed = transfer(core, to, call.deadline.at()).await;
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

/// Refuses to make a leader of a node that is being drained. One that does not answer is consensus's to refuse.
async fn not_draining(core: &Core, status: &GroupStatus, node: NodeId) -> Result<(), Failure> {
    let draining = if node == core.node_id() {
        core.lifecycle.phase() >= Phase::Draining
    } else {
        report(core, status, node)
            .await
            .is_some_and(|report| report.draining)
    };
    if draining {
        return Err(Failure::new(
            Reason::MemberDraining,
            format!("node {node} is being drained; undo that first, or choose another"),
        ));
    }
    Ok(())
}

/// The other voters that are being drained or stopped, or do not answer.
async fn unwilling(core: &Core, status: &GroupStatus) -> Vec<NodeId> {
    let voters = status
        .members
        .iter()
        .filter(|member| member.role == MemberRole::Voter && member.id != core.node_id());
    let asked = voters.map(|member| async {
        match report(core, status, member.id).await {
            Some(report) if !report.draining => None,
            _ => Some(member.id),
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// How another member is doing, if it says so in time.
async fn report(core: &Core, status: &GroupStatus, node: NodeId) -> Option<ReportReply> {
    let member = status.members.iter().find(|member| member.id == node)?;
    let request = ReportRequest {
        header: Some(core.peers.header(node)),
    };
    let mut client = core.peers.client(&member.addresses.peer).ok()?;
    let answer = tokio::time::timeout(REPORT, client.report(request)).await;
    Some(answer.ok()?.ok()?.into_inner())
}
