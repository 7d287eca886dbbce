//! What a group must be told before it can start.

use holdfast_types::{ClusterId, NodeId, ShardId};
use serde::{Deserialize, Serialize};

/// The name of a data directory: 16 random bytes, drawn when a node first used it.
pub type Directory = [u8; 16];

/// Where a member can be reached, `host:port` each, and which data directory it came with. Travels in the Raft
/// membership, so that every node knows this of every other one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PeerAddresses {
    /// The peer port: Raft and forwarding.
    pub peer: String,
    /// The client port.
    pub client: String,
    /// The admin port.
    pub admin: String,
    /// The data directory it was taken in with. `None` for founders, whose directories the other founders remember
    /// (see [`Group::initialize`](crate::Group::initialize)).
    pub directory: Option<Directory>,
}

impl PeerAddresses {
    /// Whether both name the same ports.
    pub fn same_ports(&self, other: &Self) -> bool {
        (&self.peer, &self.client, &self.admin) == (&other.peer, &other.client, &other.admin)
    }
}

/// How to prove and check identity on the peer port; PEM texts.
#[derive(Clone)]
pub struct PeerTls {
    /// The certificate authority that signed every peer's certificate.
    pub ca_pem: String,
    /// This node's certificate.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: String,
    /// The name that every peer's certificate carries, whatever its host is called.
    pub domain: String,
}

impl std::fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerTls")
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

/// Settings of one Raft group on one node.
#[derive(Debug, Clone)]
pub struct ConsensusConfig {
    /// The cluster this node belongs to; checked against the data directory and every peer.
    pub cluster_id: ClusterId,
    /// This node; checked against the data directory. Never reused.
    pub node_id: NodeId,
    /// The shard this group serves.
    pub shard: ShardId,
    /// Identity on the peer port; `None`: plain text. Ignored in simulation.
    pub tls: Option<PeerTls>,
    /// How often a leader tells that it is alive, milliseconds.
    pub heartbeat_interval_ms: u64,
    /// The shortest wait before standing for election, milliseconds.
    pub election_timeout_ms_min: u64,
    /// The longest wait, milliseconds; also the lease during which nobody votes against a live leader.
    pub election_timeout_ms_max: u64,
    /// How long the receiver of a snapshot may take none of it, milliseconds. The whole may take as long as it moves.
    pub snapshot_silence_ms_max: u64,
    /// How long it may take to install what it has received, milliseconds.
    pub snapshot_install_ms_max: u64,
    /// How long a peer may take to answer one request, connect included, milliseconds.
    pub rpc_timeout_ms: u64,
    /// Entries kept behind the applied one, so that a follower that was away briefly needs no snapshot. After as many a
    /// snapshot is taken, which flushes the memory tables, by one member after the other.
    pub log_entries_kept: u64,
    /// A voter this many entries behind is given up on: the log is purged past it and it gets a snapshot. While it
    /// receives that, and until it has caught up, four times as many are kept for it.
    pub log_entries_kept_max: u64,
    /// Entry bytes kept in memory behind the newest, for replication and apply.
    pub log_cache_bytes: usize,
    /// Accounts and claims kept in memory that were read lately.
    pub hot_rows_bytes: usize,
    /// Entries in one replication request.
    pub append_entries_max: u64,
    /// How often a follower refreshes its staleness bound, milliseconds; 0: only with reads.
    pub staleness_probe_ms: u64,
}

impl ConsensusConfig {
    /// Settings for a local network and this identity.
    pub fn new(cluster_id: ClusterId, node_id: NodeId) -> Self {
        ConsensusConfig {
            cluster_id,
            node_id,
            shard: ShardId(0),
            tls: None,
            heartbeat_interval_ms: 100,
            election_timeout_ms_min: 500,
            election_timeout_ms_max: 1_000,
            snapshot_silence_ms_max: 20_000,
            snapshot_install_ms_max: 600_000,
            rpc_timeout_ms: 400,
            log_entries_kept: 10_000,
            log_entries_kept_max: 200_000,
            log_cache_bytes: 32 << 20,
            hot_rows_bytes: 32 << 20,
            append_entries_max: 300,
            staleness_probe_ms: 1_000,
        }
    }
}
