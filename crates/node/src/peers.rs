//! Calls to other nodes' peer ports, besides Raft's: forwarding and reports.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use holdfast_types::{ClusterId, NodeId};
use holdfast_wire::internal::ForwardHeader;
use holdfast_wire::internal::forward_service_client::ForwardServiceClient;
use holdfast_wire::status::{Problem, Reason};
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

use crate::failure::Failure;
use crate::transport::{self, Tls};

/// The fact that names the cluster of whoever refuses a stranger.
pub(crate) const CLUSTER_ID: &str = "cluster_id";
/// The fact that names who answers, where another node was meant.
pub(crate) const NODE_ID: &str = "node_id";
/// The least time between two lines about strangers.
const TELL_OF_STRANGERS: Duration = Duration::from_secs(60);

/// Channels to the other nodes, one an address, made when first needed.
pub(crate) struct Peers {
    cluster: ClusterId,
    me: NodeId,
    tls: Option<Tls>,
    message_bytes_max: usize,
    channels: Mutex<BTreeMap<String, Channel>>,
    told_of_strangers: Mutex<Option<Instant>>,
}

impl Peers {
    pub(crate) fn new(cluster: ClusterId, me: NodeId, tls: Option<Tls>, message_bytes_max: usize) -> Self {
        Peers {
            cluster,
            me,
            tls,
            message_bytes_max,
            channels: Mutex::new(BTreeMap::new()),
            told_of_strangers: Mutex::new(None),
        }
    }

    /// A client for the node at `address`.
    pub(crate) fn client(&self, address: &str) -> Result<ForwardServiceClient<Channel>, Failure> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match channels.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let channel = transport::connect(address, self.tls.as_ref()).map_err(|error| {
                    Failure::no_leader(format!("{address} is no usable address: {error}"))
                })?;
                channels.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        let bytes = self.message_bytes_max;
        Ok(ForwardServiceClient::new(channel)
            .max_decoding_message_size(bytes)
            .max_encoding_message_size(bytes))
    }

    /// Who speaks to whom.
    pub(crate) fn header(&self, to: NodeId) -> ForwardHeader {
        ForwardHeader {
            cluster_id: Bytes::copy_from_slice(self.cluster.0.as_bytes()),
            from_node: self.me,
            to_node: to,
        }
    }

    /// Checks that a call comes from this cluster and is meant for this node.
    pub(crate) fn check(&self, header: Option<&ForwardHeader>) -> Result<NodeId, Failure> {
        match header {
            Some(header) if header.cluster_id[..] != self.cluster.0.as_bytes()[..] => {
                Err(self.stranger(header))
            }
            Some(header) if header.to_node != self.me => Err(Problem::new(
                Reason::NotLeader,
                format!(
                    "this is node {}, the call is for node {}",
                    self.me, header.to_node
                ),
            )
            .fact(NODE_ID, self.me)
            .into()),
            Some(header) => Ok(header.from_node),
            None => Err(Failure::new(
                Reason::WrongCluster,
                "the sender does not say where it belongs",
            )),
        }
    }

    /// Turns a node of another cluster away. It goes on calling, so the log has a line about it now and then.
    fn stranger(&self, header: &ForwardHeader) -> Failure {
        let theirs = uuid::Uuid::from_slice(&header.cluster_id)
            .map_or_else(|_| "without a readable id".to_owned(), |id| id.to_string());
        let mut told = self
            .told_of_strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= TELL_OF_STRANGERS) {
            *told = Some(Instant::now());
            tracing::warn!(
                own_cluster = %self.cluster,
                their_cluster = theirs,
                their_node = header.from_node,
                "a node of another cluster calls and is refused; one of the two has a wrong cluster.id or a wrong \
                 address"
            );
        }
        Problem::new(
            Reason::WrongCluster,
            format!(
                "node {} here belongs to cluster {}, the caller to cluster {theirs}; check cluster.id and the addresses",
                self.me, self.cluster
            ),
        )
        .fact(CLUSTER_ID, self.cluster)
        .into()
    }
}

/// Whether a call certainly did not leave this machine: nobody listened at the other end.
pub(crate) fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}
