//! ForwardService, on the peer port: carries out what another node's client asked for, if this node leads.
//!
//! The sender authenticated the caller; that word is taken, since only nodes of this cluster can speak here.
//! One hop only: a node that does not lead says so and names who does.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_machine::FEATURE_LEVEL;
use holdfast_markers::reached;
use holdfast_types::{Caller, NodeId};
use holdfast_wire::internal::forward_service_server::ForwardService;
use holdfast_wire::internal::{ForwardReply, ForwardRequest, ReportReply, ReportRequest};
use holdfast_wire::status::{Problem, Reason};
use holdfast_wire::{internal, v1};
use prost::Message;
use tonic::{Request, Response, Status};
use tracing::Instrument;

use crate::admission::Work;
use crate::background::alarms;
use crate::call::Call;
use crate::core::Core;
use crate::deadline::Deadline;
use crate::failure::Failure;
use crate::lifecycle::Phase;
use crate::roster;
use crate::router::Mutation;
use crate::trace::TraceContext;

/// The service.
#[derive(Clone)]
pub(crate) struct Forward(pub(crate) Arc<Core>);

#[tonic::async_trait]
impl ForwardService for Forward {
    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<ForwardReply>, Status> {
        let message = request.into_inner();
        self.0.peers.check(message.header.as_ref())?;
        let trace = TraceContext::of_header(&message.trace_parent);
        let span = tracing::info_span!("forwarded", method = message.method, trace_id = %trace.trace_id);
        let call = Call {
            caller: Caller::new(message.caller),
            trace,
            deadline: Deadline::after(std::time::Duration::from_millis(message.deadline_ms.into())),
        };
        let work = carry_out(&self.0, &message.method, message.request, &call);
        let ended = holdfast_consensus::traced(call.trace.to_header(), work)
            .instrument(span)
            .await;
        let response = self.0.unless_failed(ended)?;
        Ok(Response::new(ForwardReply { response }))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportReply>, Status> {
        let sender = self
            .0
            .peers
            .check(request.into_inner().header.as_ref())
            .map_err(|refusal| roster::to_stranger(&self.0, refusal))?;
        Ok(Response::new(report(&self.0, sender)))
    }
}

/// Finds the method by name and runs it.
async fn carry_out(core: &Arc<Core>, method: &str, request: Bytes, call: &Call) -> Result<Bytes, Failure> {
    macro_rules! dispatch {
        ($($message:ty),* $(,)?) => {
            match method {
                $(<$message as Mutation>::NAME => here::<$message>(core, request, call).await,)*
                unknown => Err(Failure::new(
                    Reason::Unimplemented,
                    format!("the leader's release does not know {unknown:?}; finish the upgrade"),
                )),
            }
        };
    }
    dispatch!(
        v1::CreateAccountRequest,
        v1::UpdateAccountRequest,
        v1::ChangeIdentifiersRequest,
        v1::DeleteAccountRequest,
        v1::UndeleteAccountRequest,
        v1::UpdateRealmRequest,
        v1::AddLearnerRequest,
        v1::PromoteMemberRequest,
        v1::RemoveMemberRequest,
        v1::ReplaceMemberRequest,
        v1::TransferLeadershipRequest,
        internal::ImportStep,
        internal::ImportCheckpoint,
    )
}

async fn here<M: Mutation>(core: &Arc<Core>, request: Bytes, call: &Call) -> Result<Bytes, Failure> {
    if !core.leadership().is_me {
        reached!("forward.second-hop-refused");
        return Err(core.not_leader());
    }
    core.leading_on()?;
    let permit = core.admit(Work::Write, request.len())?;
    let message = M::decode(request).map_err(|error| {
        let problem = Problem::new(Reason::Internal, "a forwarded request cannot be read");
        Failure::from(problem.fact("cause", error))
    })?;
    let response = message.run(core, call, Some(Arc::new(permit))).await?;
    Ok(response.encode_to_vec().into())
}

/// How this node is doing, as told to `sender`.
fn report(core: &Core, sender: NodeId) -> ReportReply {
    let status = core.group.status();
    let usage = core.engine.usage().unwrap_or_default();
    ReportReply {
        node_id: core.node_id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        wall_ms: core.clock.now().0,
        uptime_ms: core.started.elapsed().as_millis() as u64,
        term: status.term.max(core.group.voted_term()),
        last_log_index: status.last_log.map_or(0, |position| position.index),
        applied_index: core.group.applied_index(),
        feature_level_max: FEATURE_LEVEL,
        disk_used_bytes: usage.disk_bytes,
        disk_free_bytes: usage.disk_free_bytes.unwrap_or(0),
        disk_total_bytes: usage.disk_total_bytes.unwrap_or(0),
        memory_bytes: usage.memory_bytes,
        alarms: alarms(core).into_iter().map(|alarm| alarm.message).collect(),
        disk_nearly_full: core.disk.nearly_full(),
        draining: core.lifecycle.phase() >= Phase::Draining,
        sender_id_used: roster::used(core, sender),
        joined: roster::joined(core),
        directory: core.group.directory().to_vec().into(),
        sender_removed_by: roster::removed_by(core, sender),
    }
}
