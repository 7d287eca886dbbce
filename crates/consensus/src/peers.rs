//! Connections to the other members.
//!
//! One channel a peer carries everything that answers quickly; heartbeats have one of their own, so that no
//! backlog delays them, and so do snapshots, so that they delay nobody. Channels connect when first used and
//! reconnect by themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use holdfast_types::NodeId;
use holdfast_wire::internal as wire;
use holdfast_wire::internal::peer_service_client::PeerServiceClient;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::acknowledged::Acknowledged;
use crate::apply::Applied;
use crate::backoff::Backoff;
use crate::identity::Directories;
use crate::{ConsensusConfig, FatalSink, PeerTls};

/// The largest message either side takes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The least time between two lines about a member that refuses this node.
const TELL_OF_REFUSALS: Duration = Duration::from_secs(60);

/// When the log was last told that a member refuses this node.
#[derive(Default)]
pub(crate) struct Told(Mutex<BTreeMap<NodeId, Instant>>);

impl Told {
    /// Whether it is time to tell of `node`: at first, and then now and then, because Raft goes on asking it many times
    /// a second.
    pub(crate) fn due(&self, node: NodeId, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let due = told
            .get(&node)
            .is_none_or(|told| now.duration_since(*told) >= TELL_OF_REFUSALS);
        if due {
            told.insert(node, now);
        }
        due
    }
}

/// What a channel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Replication, votes, read indexes.
    Common,
    /// Signs of life.
    Heartbeat,
    /// Bulk.
    Snapshot,
}

/// Everything needed to speak to a member.
pub(crate) struct Peers {
    pub(crate) config: Arc<ConsensusConfig>,
    pub(crate) applied: Arc<Applied>,
    pub(crate) directories: Arc<Directories>,
    pub(crate) acknowledged: Arc<Acknowledged>,
    pub(crate) backoff: Backoff,
    /// Where it is said that this node's own state cannot be read.
    pub(crate) fatal: FatalSink,
    /// The trace parent of the transfer of leadership under way.
    pub(crate) transferring: Mutex<String>,
    /// Members that get or got a snapshot and have not caught up since, and its last index.
    receiving: Mutex<BTreeMap<NodeId, u64>>,
    channels: Mutex<BTreeMap<(String, Purpose), Channel>>,
    pub(crate) told_of_refusals: Told,
}

impl Peers {
    pub(crate) fn new(
        config: Arc<ConsensusConfig>,
        applied: Arc<Applied>,
        directories: Arc<Directories>,
        acknowledged: Arc<Acknowledged>,
        backoff: Backoff,
        fatal: FatalSink,
    ) -> Self {
        Peers {
            config,
            applied,
            directories,
            acknowledged,
            backoff,
            fatal,
            transferring: Mutex::default(),
            receiving: Mutex::default(),
            channels: Mutex::new(BTreeMap::new()),
            told_of_refusals: Told::default(),
        }
    }

    /// The header of a message to `to`, whose directory is that of the `membership`, if it says one.
    pub(crate) fn header(
        &self,
        to: NodeId,
        membership: Option<crate::Directory>,
        deadline: Duration,
    ) -> wire::PeerHeader {
        let (state, applied_next) = self.applied.position();
        let mut header = wire::PeerHeader {
            cluster_id: Bytes::copy_from_slice(self.config.cluster_id.0.as_bytes()),
            from_node: self.config.node_id,
            to_node: to,
            shard: self.config.shard.0,
            shard_epoch: state.epoch.0,
            deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
            trace_parent: String::new(),
            applied_next,
            from_directory: Bytes::copy_from_slice(&self.directories.own),
            to_directory: membership
                .or_else(|| self.directories.of(to))
                .map_or_else(Bytes::new, |directory| Bytes::copy_from_slice(&directory)),
            held: Vec::new(),
            acknowledged: None,
            founders: self.directories.told(),
        };
        self.acknowledged.tell(to, &mut header);
        header
    }

    /// `node` is being sent a snapshot up to `index`.
    pub(crate) fn snapshot_begins(&self, node: NodeId, index: u64) {
        self.receiving().insert(node, index);
    }

    /// The snapshot for `node` did not arrive.
    pub(crate) fn snapshot_failed(&self, node: NodeId) {
        self.receiving().remove(&node);
    }

    /// Who has or gets a snapshot and still needs the log behind it.
    pub(crate) fn receiving(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, u64>> {
        self.receiving
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A client for the peer at `address`.
    pub(crate) fn client(
        &self,
        address: &str,
        purpose: Purpose,
    ) -> Result<PeerServiceClient<Channel>, Status> {
        let mut channels = self
            .channels
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = (address.to_owned(), purpose);
        let channel = match channels.get(&key) {
            Some(channel) => channel.clone(),
            None => {
                let channel = self.connect(address)?;
                channels.insert(key, channel.clone());
                channel
            }
        };
        Ok(PeerServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn connect(&self, address: &str) -> Result<Channel, Status> {
        let scheme = if self.config.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let timeout = Duration::from_millis(self.config.rpc_timeout_ms);
        let alive = Duration::from_millis(self.config.election_timeout_ms_max);
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|error| {
                Status::invalid_argument(format!("the peer address {address:?} is not valid: {error}"))
            })?
            .connect_timeout(timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(alive)
            .keep_alive_timeout(alive * 2)
            .keep_alive_while_idle(true);
        let endpoint = match &self.config.tls {
            Some(tls) => with_tls(endpoint, tls)?,
            None => endpoint,
        };
        Ok(tonic::connect_lazy(&endpoint))
    }
}

#[cfg(not(madsim))]
fn with_tls(endpoint: Endpoint, tls: &PeerTls) -> Result<Endpoint, Status> {
    use tonic::transport::{Certificate, ClientTlsConfig, Identity};
    endpoint
        .tls_config(
            ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(&tls.ca_pem))
                .identity(Identity::from_pem(&tls.certificate_pem, &tls.key_pem))
                .domain_name(&tls.domain),
        )
        .map_err(|error| Status::internal(format!("the peer TLS settings cannot be used: {error}")))
}

/// The simulated network has no TLS.
#[cfg(madsim)]
fn with_tls(endpoint: Endpoint, _tls: &PeerTls) -> Result<Endpoint, Status> {
    Ok(endpoint)
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_at_once_and_then_once_a_minute() {
        let told = Told::default();
        let began = Instant::now();
        assert!(told.due(2, began));
        assert!(told.due(3, began), "each member's for itself");
        let later = (1..=1_800).map(|n| began + Duration::from_millis(100) * n);
        assert_eq!(
            later.filter(|now| told.due(2, *now)).count(),
            3,
            "in three minutes"
        );
    }
}
