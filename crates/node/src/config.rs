//! What an operator may set on one node, with units and defaults.
//!
//! Everything that must be the same on all nodes (quarantine, request window, record size, …) is *not* here:
//! it is a replicated `RealmConfig`. What stands here may differ from node to node without harm.
//!
//! A configuration is data and rules about the data: [`Config::validate`] reads no file and opens no socket,
//! so `--check-config` and a test see exactly what a start would see.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use holdfast_types::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A node's configuration. In TOML each field below is a section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who this node is.
    pub node: NodeSection,
    /// Which cluster it belongs to.
    pub cluster: ClusterSection,
    /// Where it listens.
    pub listen: ListenSection,
    /// How much it takes on.
    pub limits: LimitsSection,
    /// Raft's timing.
    pub raft: RaftSection,
    /// Certificates. Without the section nothing is encrypted, and only loopback may be listened on.
    pub tls: Option<TlsSection>,
    /// Logging.
    pub log: LogSection,
    /// Room that must stay free on the disk.
    pub disk: DiskSection,
    /// How much history is kept.
    pub history: HistorySection,
    /// Listen beyond loopback without TLS all the same. Anyone who can reach the ports can then read and
    /// change everything. Default: false.
    pub insecure: bool,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSection {
    /// This node's number, from 1. Never reused: a wiped machine comes back under a new one. No default.
    pub id: NodeId,
    /// Directory of the records. Belongs to this node alone. Default: `data`.
    pub data_dir: PathBuf,
}

impl Default for NodeSection {
    fn default() -> Self {
        NodeSection {
            id: 0,
            data_dir: PathBuf::from("data"),
        }
    }
}

/// `[cluster]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSection {
    /// The cluster's id, a UUID, the same on all its nodes and never changed. No default: draw one with
    /// `uuidgen` when the cluster is laid out.
    pub id: Uuid,
    /// The nodes that form the cluster when none of them has any data yet; the same list on each. Leave it
    /// out on a node that joins later through `holdfast cluster add-learner`. Ignored once the cluster exists.
    pub initial_members: Vec<InitialMember>,
}

/// One entry of `cluster.initial_members`. Addresses are `host:port`, as the other nodes and the clients
/// reach them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitialMember {
    /// The member's `node.id`.
    pub id: NodeId,
    /// Where its peer port is reached.
    pub peer: String,
    /// Where its client port is reached.
    pub client: String,
    /// Where its admin port is reached.
    pub admin: String,
}

/// `[listen]`: IP address and port of each endpoint. Defaults for node N: loopback, ports 7100+N (client),
/// 7200+N (admin), 7300+N (peer), 7400+N (metrics).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct ListenSection {
    /// AccountService, health and reflection.
    pub client: Option<SocketAddr>,
    /// ClusterService, RealmService, health and reflection.
    pub admin: Option<SocketAddr>,
    /// The other nodes.
    pub peer: Option<SocketAddr>,
    /// HTTP: `/metrics`, `/healthz`, `/readyz`.
    pub metrics: Option<SocketAddr>,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// Memory this process should stay within, MiB: half of it memory tables and block cache; a quarter bounds the bytes of requests
    /// in flight; a sixteenth each is for the newest log entries and for accounts that were read lately. Default: 512.
    pub memory_budget_mib: u64,
    /// The most mutations being worked on at once; one more is refused with RESOURCE_EXHAUSTED. Default: 2048.
    pub max_in_flight_writes: usize,
    /// The most reads being worked on at once. Default: 4096.
    pub max_in_flight_reads: usize,
    /// The most streams (imports, exports) at once. Default: 16.
    pub max_streams: usize,
    /// The most connections at once, for each of the four ports; one more is closed at once. Each takes a file
    /// descriptor, of which the system must allow the process that many. Default: 1024.
    pub max_connections: usize,
    /// The largest message accepted, bytes. Default: 4194304, gRPC's own default.
    pub max_message_bytes: usize,
    /// Items of one import being worked on at once. Default: 256.
    pub import_window: usize,
    /// Rows one list call reads at most before it answers with a page token. Default: 20000.
    pub scan_budget_rows: usize,
    /// Threads that run requests, Raft and timers (others wait for the disk). 0: one for each core, which is right for
    /// a machine of its own; with several nodes on one machine they should share its cores out. Default: 0.
    pub worker_threads: usize,
    /// How far, in milliseconds, this node's clock may be from the median of its peers before it stops
    /// stamping and leading. Default: 500.
    pub clock_offset_ms_max: u64,
}

impl Default for LimitsSection {
    fn default() -> Self {
        LimitsSection {
            memory_budget_mib: 512,
            max_in_flight_writes: 2048,
            max_in_flight_reads: 4096,
            max_streams: 16,
            max_connections: 1024,
            max_message_bytes: 4 * 1024 * 1024,
            import_window: 256,
            scan_budget_rows: 20_000,
            worker_threads: 0,
            clock_offset_ms_max: 500,
        }
    }
}

impl LimitsSection {
    /// The most bytes of requests in flight: a quarter of the memory budget.
    pub fn in_flight_bytes_max(&self) -> u64 {
        self.memory_budget_mib * 1024 * 1024 / 4
    }
}

/// More threads than any machine has cores would only wait for each other.
const WORKER_THREADS_MAX: usize = 1_024;

/// `[raft]`. A follower stands for election after a silence of `election_timeout_ms_max` (the lease) plus a
/// random time between the two timeouts: 1000 to 1300 ms with the defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftSection {
    /// Pause between a leader's heartbeats, milliseconds. Default: 100.
    pub heartbeat_ms: u64,
    /// Lower bound of the random part of the election timeout, milliseconds. Default: 350.
    pub election_timeout_ms_min: u64,
    /// Upper bound of the random part, and the lease, milliseconds. Default: 650.
    pub election_timeout_ms_max: u64,
}

impl Default for RaftSection {
    fn default() -> Self {
        RaftSection {
            heartbeat_ms: 100,
            election_timeout_ms_min: 350,
            election_timeout_ms_max: 650,
        }
    }
}

/// `[tls]`. One certificate serves all ports and is shown to peers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authority that signed peers' and clients' certificates, PEM. Required for more than one node.
    pub ca: Option<PathBuf>,
    /// A DNS name that each node's certificate carries besides its own, and no client's: who shows it may speak
    /// on the peer port. Default: `node.holdfast.internal`.
    #[serde(default = "default_peer_name")]
    pub peer_name: String,
    /// Refuse clients without a certificate of `ca`. The certificate's first DNS name becomes the caller's.
    /// Default: false.
    #[serde(default)]
    pub require_client_cert: bool,
}

fn default_peer_name() -> String {
    "node.holdfast.internal".into()
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// `human` or `json`. Default: human.
    pub format: LogFormat,
    /// Level, or `target=level` pairs separated by commas. Default: `info,openraft=warn`.
    pub level: String,
}

impl Default for LogSection {
    fn default() -> Self {
        LogSection {
            format: LogFormat::Human,
            level: "info,openraft=warn".into(),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// `[disk]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskSection {
    /// Creates and imports are refused while less than this is free, MiB; reads, updates and deletes go on.
    /// Ends by itself once a tenth more is free. Default: 1024.
    pub reserve_mib: u64,
    /// Size of the ballast file in the data directory, MiB: deleting it gives an operator with a full disk
    /// room to act. 0: none. Default: 256.
    pub ballast_mib: u64,
}

impl Default for DiskSection {
    fn default() -> Self {
        DiskSection {
            reserve_mib: 1024,
            ballast_mib: 256,
        }
    }
}

/// `[history]`. Counted in log entries, because that is what it costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistorySection {
    /// Applied Raft log entries kept for followers that fall behind; one further behind gets a snapshot.
    /// Default: 200000.
    pub log_entries: u64,
    /// Entries whose change events are kept for readers of the change log. Default: 2000000.
    pub change_entries: u64,
}

impl Default for HistorySection {
    fn default() -> Self {
        HistorySection {
            log_entries: 200_000,
            change_entries: 2_000_000,
        }
    }
}

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Path of the field, as in `raft.heartbeat_ms`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl Config {
    /// The cluster this node belongs to.
    pub fn cluster_id(&self) -> ClusterId {
        ClusterId(self.cluster.id)
    }

    /// Where AccountService listens.
    pub fn listen_client(&self) -> SocketAddr {
        self.listen.client.unwrap_or_else(|| self.loopback(7100))
    }

    /// Where ClusterService listens.
    pub fn listen_admin(&self) -> SocketAddr {
        self.listen.admin.unwrap_or_else(|| self.loopback(7200))
    }

    /// Where the other nodes connect.
    pub fn listen_peer(&self) -> SocketAddr {
        self.listen.peer.unwrap_or_else(|| self.loopback(7300))
    }

    /// Where metrics are served.
    pub fn listen_metrics(&self) -> SocketAddr {
        self.listen.metrics.unwrap_or_else(|| self.loopback(7400))
    }

    fn loopback(&self, base: u16) -> SocketAddr {
        // Validation keeps ids that need this default below 100.
        SocketAddr::new(
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            base + (self.node.id % 100) as u16,
        )
    }

    fn listeners(&self) -> [(&'static str, Option<SocketAddr>, SocketAddr); 4] {
        [
            ("listen.client", self.listen.client, self.listen_client()),
            ("listen.admin", self.listen.admin, self.listen_admin()),
            ("listen.peer", self.listen.peer, self.listen_peer()),
            ("listen.metrics", self.listen.metrics, self.listen_metrics()),
        ]
    }

    /// Checks everything that can be checked without touching the machine, and reports all of it at once.
    pub fn validate(&self) -> Result<(), Vec<ConfigProblem>> {
        let mut problems = Problems::default();
        self.validate_identity(&mut problems);
        self.validate_listeners(&mut problems);
        self.validate_numbers(&mut problems);
        if problems.0.is_empty() {
            Ok(())
        } else {
            Err(problems.0)
        }
    }

    fn validate_identity(&self, problems: &mut Problems) {
        if self.node.id == 0 {
            problems.add(
                "node.id",
                "must be set, from 1; each node has its own and it is never reused",
            );
        }
        if self.node.data_dir.as_os_str().is_empty() {
            problems.add("node.data_dir", "must not be empty");
        }
        if self.cluster.id.is_nil() {
            problems.add(
                "cluster.id",
                "must be set to the cluster's UUID, the same on each node",
            );
        }
        let mut ids = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for (at, member) in self.cluster.initial_members.iter().enumerate() {
            let path = format!("cluster.initial_members[{at}]");
            if member.id == 0 {
                problems.add(format!("{path}.id"), "must be at least 1");
            }
            if !ids.insert(member.id) {
                problems.add(
                    format!("{path}.id"),
                    format!("node {} is listed twice", member.id),
                );
            }
            for (name, address) in [
                ("peer", &member.peer),
                ("client", &member.client),
                ("admin", &member.admin),
            ] {
                if !is_host_port(address) {
                    problems.add(format!("{path}.{name}"), format!("{address:?} is not host:port"));
                } else if !addresses.insert(address.clone()) {
                    problems.add(format!("{path}.{name}"), format!("{address} is used twice"));
                }
            }
        }
        if !ids.is_empty() && !ids.contains(&self.node.id) {
            problems.add(
                "cluster.initial_members",
                format!(
                    "does not list this node ({}); leave the list out on a node that joins later",
                    self.node.id
                ),
            );
        }
    }

    fn validate_listeners(&self, problems: &mut Problems) {
        let mut taken = BTreeSet::new();
        for (field, given, address) in self.listeners() {
            if given.is_none() && self.node.id > 99 {
                problems.add(field, "must be set: the default ports only reach to node 99");
            }
            if address.port() != 0 && !taken.insert(address) {
                problems.add(field, format!("{address} is used twice"));
            }
            let open = !address.ip().is_loopback();
            // The metrics endpoint is plain HTTP and shows numbers only.
            if open && self.tls.is_none() && !self.insecure && field != "listen.metrics" {
                problems.add(
                    field,
                    format!(
                        "{address} is reachable from other machines and there is no [tls]; configure certificates, \
                         listen on loopback, or start with --insecure if the network itself is trusted"
                    ),
                );
            }
        }
        if let Some(tls) = &self.tls {
            if tls.require_client_cert && tls.ca.is_none() {
                problems.add(
                    "tls.ca",
                    "is needed to check clients' certificates (tls.require_client_cert)",
                );
            }
            if tls.ca.is_none() && self.cluster.initial_members.len() > 1 {
                problems.add("tls.ca", "is needed to check the other nodes' certificates");
            }
        }
    }

    fn validate_numbers(&self, problems: &mut Problems) {
        let raft = &self.raft;
        if raft.heartbeat_ms == 0 {
            problems.add("raft.heartbeat_ms", "must be at least 1");
        }
        if raft.election_timeout_ms_min < raft.heartbeat_ms.saturating_mul(3) {
            problems.add(
                "raft.election_timeout_ms_min",
                "must be at least three heartbeats, or a single delayed one unseats the leader",
            );
        }
        if raft.election_timeout_ms_max <= raft.election_timeout_ms_min {
            problems.add(
                "raft.election_timeout_ms_max",
                "must be above raft.election_timeout_ms_min",
            );
        }
        let limits = &self.limits;
        let at_least = [
            ("limits.memory_budget_mib", limits.memory_budget_mib, 64),
            (
                "limits.max_in_flight_writes",
                limits.max_in_flight_writes as u64,
                1,
            ),
            ("limits.max_in_flight_reads", limits.max_in_flight_reads as u64, 1),
            ("limits.max_streams", limits.max_streams as u64, 1),
            ("limits.max_connections", limits.max_connections as u64, 16),
            (
                "limits.max_message_bytes",
                limits.max_message_bytes as u64,
                512 * 1024,
            ),
            ("limits.import_window", limits.import_window as u64, 1),
            ("limits.scan_budget_rows", limits.scan_budget_rows as u64, 1_000),
            ("limits.clock_offset_ms_max", limits.clock_offset_ms_max, 10),
            ("history.log_entries", self.history.log_entries, 1_000),
            ("history.change_entries", self.history.change_entries, 1_000),
        ];
        for (field, value, least) in at_least {
            if value < least {
                problems.add(field, format!("must be at least {least}, is {value}"));
            }
        }
        if limits.worker_threads > WORKER_THREADS_MAX {
            problems.add(
                "limits.worker_threads",
                format!("must be at most {WORKER_THREADS_MAX}; 0: one for each core"),
            );
        }
        if limits.max_message_bytes > 64 * 1024 * 1024 {
            problems.add("limits.max_message_bytes", "must be at most 67108864 (64 MiB)");
        }
        if self.log.level.trim().is_empty() {
            problems.add("log.level", "must be a level such as info, or target=level pairs");
        }
    }
}

#[derive(Default)]
struct Problems(Vec<ConfigProblem>);

impl Problems {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(ConfigProblem {
            field: field.into(),
            message: message.into(),
        });
    }
}

fn is_host_port(address: &str) -> bool {
    match address.rsplit_once(':') {
        Some((host, port)) => {
            !host.is_empty()
                && !host.contains(|c: char| c.is_whitespace() || c == '/')
                && port.parse::<u16>().is_ok_and(|port| port != 0)
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: NodeId) -> InitialMember {
        InitialMember {
            id,
            peer: format!("127.0.0.1:{}", 7300 + id),
            client: format!("127.0.0.1:{}", 7100 + id),
            admin: format!("127.0.0.1:{}", 7200 + id),
        }
    }

    fn good() -> Config {
        Config {
            node: NodeSection {
                id: 1,
                ..NodeSection::default()
            },
            cluster: ClusterSection {
                id: Uuid::from_u128(7),
                initial_members: vec![member(1), member(2), member(3)],
            },
            ..Config::default()
        }
    }

    #[test]
    fn the_defaults_need_only_names() {
        assert_eq!(good().validate(), Ok(()));
        assert_eq!(good().listen_client().to_string(), "127.0.0.1:7101");
        assert_eq!(good().listen_metrics().to_string(), "127.0.0.1:7401");
        let fields: Vec<_> = Config::default()
            .validate()
            .unwrap_err()
            .into_iter()
            .map(|p| p.field)
            .collect();
        assert_eq!(fields, ["node.id", "cluster.id"]);
    }

    type Spoil = fn(&mut Config);

    #[test]
    fn each_mistake_is_named() {
        let table: &[(&str, Spoil)] = &[
            ("node.id", |c| {
                c.cluster.initial_members.clear();
                c.node.id = 0;
            }),
            ("node.data_dir", |c| c.node.data_dir = PathBuf::new()),
            ("cluster.id", |c| c.cluster.id = Uuid::nil()),
            ("cluster.initial_members", |c| c.node.id = 9),
            ("cluster.initial_members[1].id", |c| {
                c.cluster.initial_members[1].id = 1;
            }),
            ("cluster.initial_members[2].peer", |c| {
                c.cluster.initial_members[2].peer = "host".into()
            }),
            ("cluster.initial_members[2].client", |c| {
                c.cluster.initial_members[2].client = "127.0.0.1:7101".into()
            }),
            ("listen.client", |c| {
                c.listen.client = Some("0.0.0.0:1".parse().unwrap())
            }),
            ("listen.peer", |c| {
                c.listen.peer = Some("127.0.0.1:7101".parse().unwrap())
            }),
            ("tls.ca", |c| {
                c.cluster.initial_members.truncate(1);
                c.tls = Some(TlsSection {
                    cert: "c".into(),
                    key: "k".into(),
                    ca: None,
                    peer_name: default_peer_name(),
                    require_client_cert: true,
                });
            }),
            ("raft.election_timeout_ms_min", |c| c.raft.heartbeat_ms = 200),
            ("raft.election_timeout_ms_max", |c| {
                c.raft.election_timeout_ms_max = 350
            }),
            ("limits.memory_budget_mib", |c| c.limits.memory_budget_mib = 1),
            ("limits.max_message_bytes", |c| {
                c.limits.max_message_bytes = 1 << 30
            }),
            ("history.log_entries", |c| c.history.log_entries = 0),
            ("log.level", |c| c.log.level = " ".into()),
        ];
        for (field, spoil) in table {
            let mut config = good();
            spoil(&mut config);
            let fields: Vec<_> = config
                .validate()
                .unwrap_err()
                .into_iter()
                .map(|p| p.field)
                .collect();
            assert_eq!(fields, [*field]);
        }
    }

    #[test]
    fn open_ports_need_tls_or_an_explicit_word() {
        let mut config = good();
        config.listen.client = Some("10.0.0.1:7101".parse().unwrap());
        config.listen.metrics = Some("10.0.0.1:7401".parse().unwrap());
        assert_eq!(config.validate().unwrap_err().len(), 1);
        config.insecure = true;
        assert_eq!(config.validate(), Ok(()));
        config.insecure = false;
        config.tls = Some(TlsSection {
            cert: "c".into(),
            key: "k".into(),
            ca: Some("a".into()),
            peer_name: default_peer_name(),
            require_client_cert: false,
        });
        assert_eq!(config.validate(), Ok(()));
    }
}
