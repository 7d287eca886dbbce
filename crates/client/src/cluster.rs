//! ClusterService, method by method.
//!
//! Membership changes go to any node and are carried out by the leader; they are methods of [`Client`]. What
//! concerns one node in particular (its status, draining it, its snapshot) is a method of [`NodeClient`], which
//! talks to that node and no other. None of the changes has a request id, so one whose outcome is unknown is
//! reported and not repeated.

use holdfast_wire::v1;
use holdfast_wire::v1::cluster_service_client::ClusterServiceClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::call::{Call, Effect};
use crate::client::{ANSWER_BYTES_MAX, Client};
use crate::config::CallOptions;
use crate::endpoints::Endpoints;
use crate::error::{ClientError, Outcome};
use crate::transport::InvalidEndpoint;

fn service(channel: Channel) -> ClusterServiceClient<Channel> {
    ClusterServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

impl Client {
    /// Adds a node that receives the log but does not vote.
    pub async fn add_learner(
        &self,
        request: v1::AddLearnerRequest,
        options: &CallOptions,
    ) -> Result<v1::AddLearnerResponse, ClientError> {
        self.admin_call(options, Effect::Plain)?
            .run(request, |channel, request| async move {
                service(channel).add_learner(request).await
            })
            .await
    }

    /// Gives a learner its vote.
    pub async fn promote_member(
        &self,
        request: v1::PromoteMemberRequest,
        options: &CallOptions,
    ) -> Result<v1::PromoteMemberResponse, ClientError> {
        self.admin_call(options, Effect::Plain)?
            .run(request, |channel, request| async move {
                service(channel).promote_member(request).await
            })
            .await
    }

    /// Takes a member out, for ever.
    pub async fn remove_member(
        &self,
        request: v1::RemoveMemberRequest,
        options: &CallOptions,
    ) -> Result<v1::RemoveMemberResponse, ClientError> {
        self.admin_call(options, Effect::Plain)?
            .run(request, |channel, request| async move {
                service(channel).remove_member(request).await
            })
            .await
    }

    /// Puts a new node in the place of one that is lost. Give it a deadline that lets the data move.
    pub async fn replace_member(
        &self,
        request: v1::ReplaceMemberRequest,
        options: &CallOptions,
    ) -> Result<v1::ReplaceMemberResponse, ClientError> {
        self.admin_call(options, Effect::Plain)?
            .run(request, |channel, request| async move {
                service(channel).replace_member(request).await
            })
            .await
    }

    /// Hands leadership over.
    pub async fn transfer_leadership(
        &self,
        request: v1::TransferLeadershipRequest,
        options: &CallOptions,
    ) -> Result<v1::TransferLeadershipResponse, ClientError> {
        self.admin_call(options, Effect::Plain)?
            .run(request, |channel, request| async move {
                service(channel).transfer_leadership(request).await
            })
            .await
    }

    /// The status of whichever node answers first.
    pub async fn get_status(&self, options: &CallOptions) -> Result<v1::GetStatusResponse, ClientError> {
        self.admin_call(options, Effect::Read)?
            .run(v1::GetStatusRequest {}, |channel, request| async move {
                service(channel).get_status(request).await
            })
            .await
    }

    /// The status of the node with this admin address, and no other.
    pub async fn get_status_of(
        &self,
        admin_address: &str,
        options: &CallOptions,
    ) -> Result<v1::GetStatusResponse, ClientError> {
        let node = self.node(admin_address).map_err(|error| {
            ClientError::local(Code::InvalidArgument, error.to_string(), Outcome::NotApplied)
        })?;
        node.get_status(options).await
    }

    /// The node with this admin address, and no other.
    pub fn node(&self, admin_address: &str) -> Result<NodeClient, InvalidEndpoint> {
        let endpoints = Endpoints::pinned(admin_address, self.shared.connector.clone())?;
        Ok(NodeClient {
            client: self.clone(),
            endpoints,
        })
    }
}

/// One node's admin port.
pub struct NodeClient {
    client: Client,
    endpoints: Endpoints,
}

impl NodeClient {
    /// What the node knows about itself, its shards and, where it leads one, the other members.
    pub async fn get_status(&self, options: &CallOptions) -> Result<v1::GetStatusResponse, ClientError> {
        self.call(options, Effect::Read)
            .run(v1::GetStatusRequest {}, |channel, request| async move {
                service(channel).get_status(request).await
            })
            .await
    }

    /// Makes the node hand over what it leads and turn clients away, or (`undo`) serve again. Repeating it
    /// changes nothing more.
    pub async fn drain(
        &self,
        request: v1::DrainRequest,
        options: &CallOptions,
    ) -> Result<v1::DrainResponse, ClientError> {
        self.call(options, Effect::Plain)
            .run(request, |channel, request| async move {
                service(channel).drain(request).await
            })
            .await
    }

    /// Makes the node flush its state and purge the log that the state covers.
    pub async fn trigger_snapshot(
        &self,
        request: v1::TriggerSnapshotRequest,
        options: &CallOptions,
    ) -> Result<v1::TriggerSnapshotResponse, ClientError> {
        self.call(options, Effect::Plain)
            .run(request, |channel, request| async move {
                service(channel).trigger_snapshot(request).await
            })
            .await
    }

    fn call<'a>(&'a self, options: &'a CallOptions, effect: Effect) -> Call<'a> {
        let call = self.client.call(options, effect);
        Call {
            endpoints: &self.endpoints,
            attempt_timeout: None,
            on_client_port: false,
            ..call
        }
    }
}
