//! Starting a node, and stopping it so that nobody notices.
//!
//! Start: bind the ports (a taken one is a clear error before anything else happened), start consensus on the
//! engine (it checks whose directory this is and finishes what a crash interrupted), serve, found the cluster if
//! this is its very beginning, begin the background duties.
//!
//! Stop: hand leadership over, say to load balancers that this node goes and to clients that they shall connect to
//! another (HTTP/2's GOAWAY), answer what they ask until they have heard of it, within a bound, finish what is under way,
//! close the other ports, leave the group. A node that failed stops at once instead: nothing may be acknowledged after a
//! failed sync.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_consensus::{
    self as consensus, ConsensusConfig, FailStop, FatalSink, Group, InitializeError, LogWriter, PeerAddresses,
};
use holdfast_markers::{crash_point, planted, reached};
use holdfast_storage::engine::Engine;
use holdfast_types::{Clock, NodeId};
use holdfast_wire::internal::forward_service_server::ForwardServiceServer;
use holdfast_wire::v1::account_service_server::AccountServiceServer;
use holdfast_wire::v1::cluster_service_server::ClusterServiceServer;
use holdfast_wire::v1::realm_service_server::RealmServiceServer;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::admission::Admission;
use crate::alarms::Alarms;
use crate::background;
use crate::clock::ClockGuard;
use crate::config::{Config, ConfigProblem};
use crate::core::{Core, CoreProbe};
use crate::deadline::Deadline;
use crate::disk::DiskGuard;
use crate::forward::Forward;
use crate::latches::Latches;
use crate::lifecycle::{Lifecycle, Phase, Tasks};
use crate::peers::Peers;
use crate::realms::Known;
use crate::roster;
use crate::services::{Service, hand_over};
use crate::transport::{self, Health, Listener, Tls, TransportError};

/// How long a stop waits for leadership to be taken over.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How long a stop waits for clients to leave. One that watches this node's health, or has not said a word, keeps it waiting for
/// all of that.
const LEAVE: Duration = Duration::from_secs(2);
/// How long a stop waits for work under way.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a stop waits for the other nodes' connections to close.
const CLOSE: Duration = Duration::from_secs(2);

/// Why a node did not start. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error("the configuration has {} problem(s); the first: {}", .0.len(), .0[0])]
    Config(Vec<ConfigProblem>),
    /// A port cannot be listened on, or a certificate cannot be used.
    #[error("{0}")]
    Transport(String),
    /// The data directory cannot be used, or Raft did not start.
    #[error(transparent)]
    Consensus(#[from] consensus::StartError),
    /// The directory is empty, but this node id has been in use.
    #[error(
        "node {node} has no data, but its cluster remembers it: what it held is lost, and a node that forgot what \
         it promised must not come back under its old id. Give the machine a new node id, leave out \
         cluster.initial_members, and put it in the place of node {node} with `holdfast cluster replace`"
    )]
    IdUsed {
        /// The node id.
        node: NodeId,
    },
    /// This node was a member and is none any more.
    #[error(
        "node {node} was removed from its cluster, by membership {membership}; a node id is never used again. To \
         bring the machine back, give it a new node id and an empty data directory, leave out \
         cluster.initial_members, and add it with `holdfast cluster add-learner`"
    )]
    Removed {
        /// The node id.
        node: NodeId,
        /// The first membership seen without it.
        membership: String,
    },
    /// The other founders belong to another cluster.
    #[error(
        "this node is configured for cluster {configured}, but {peer} belongs to cluster {found}. If this node is \
         meant for that cluster, set cluster.id to {found}; if not, correct the addresses in \
         cluster.initial_members. It has not joined any cluster, so delete {data_dir} before you start it again"
    )]
    OtherCluster {
        /// The cluster in the configuration.
        configured: String,
        /// Who says otherwise.
        peer: String,
        /// That one's cluster.
        found: String,
        /// The directory that was begun for the wrong cluster.
        data_dir: String,
    },
    /// The founding members make no sense.
    #[error("the cluster cannot be founded: {0}")]
    Found(String),
}

impl From<TransportError> for StartError {
    fn from(error: TransportError) -> Self {
        StartError::Transport(error.to_string())
    }
}

/// A running node.
///
/// Dropping the handle does not stop it; a simulated or real kill does, at once, which is always safe.
pub struct NodeHandle {
    core: Arc<Core>,
    addresses: Addresses,
    background: Mutex<Vec<JoinHandle<()>>>,
    /// The ports of clients and operators, closed when the node begins to stop.
    public: Mutex<Vec<JoinHandle<()>>>,
    /// What other nodes and monitoring need until it has stopped.
    internal: Mutex<Vec<JoinHandle<()>>>,
}

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    client: SocketAddr,
    admin: SocketAddr,
    peer: SocketAddr,
    metrics: SocketAddr,
}

/// Reads the certificates that a configuration names, as a start does.
///
/// # Errors
/// If one is missing or cannot be used.
pub fn check_certificates(config: &Config) -> Result<(), StartError> {
    let tls = config.tls.as_ref().map(Tls::load).transpose()?;
    transport::server(tls.as_ref(), true)?;
    Ok(())
}

/// Starts a node on an engine. It serves when this returns, though requests wait until it has recovered and
/// somebody leads.
///
/// # Errors
/// If the node must not run: see [`StartError`].
pub async fn start(
    config: Config,
    engine: Arc<dyn Engine>,
    clock: Arc<dyn Clock>,
) -> Result<NodeHandle, StartError> {
    config.validate().map_err(StartError::Config)?;
    transport::install_recorder();
    let tls = config.tls.as_ref().map(Tls::load).transpose()?;
    let listeners = Listeners::bind(&config).await?;
    let addresses = listeners.addresses();

    let fatal = FatalSink::new();
    let engine: Arc<dyn Engine> = Arc::new(FailStop::new(engine, fatal.clone()));
    let writer = LogWriter::start(engine.clone(), fatal.clone());
    let group = Group::start(
        consensus_config(&config, tls.as_ref()),
        engine.clone(),
        writer,
        fatal.clone(),
    )
    .await?;
    let (cluster, me) = (config.cluster_id(), config.node.id);
    let started_wall = clock.now();
    let core = Arc::new(Core {
        lifecycle: Lifecycle::new(),
        tasks: Tasks::new(),
        latches: Latches::new(),
        realms: Known::default(),
        admission: Admission::new(&config.limits),
        disk: DiskGuard::new(&config.disk),
        clock_guard: ClockGuard::new(config.limits.clock_offset_ms_max),
        alarms: Alarms::default(),
        peers: Peers::new(
            cluster,
            me,
            tls.clone(),
            config.limits.max_message_bytes + 64 * 1024,
        ),
        started: Instant::now(),
        started_wall,
        tls,
        config,
        group,
        engine,
        clock,
        fatal,
    });

    let health = Health::new();
    let Servers { public, mut internal } = serve(&core, listeners, &health)?;
    internal.push(tokio::spawn(stop_when_fatal(core.clone())));
    let mut background = background::start(&core, &health);
    if let Err(error) = found(&core).await {
        core.lifecycle.advance(Phase::Stopped);
        core.group.shutdown().await;
        return Err(error);
    }
    background.push(tokio::spawn(log_leaders(core.clone())));
    metrics::gauge!("holdfast_up_info", "version" => env!("CARGO_PKG_VERSION"), "node" => me.to_string())
        .set(1);
    tracing::info!(
        node = me,
        %cluster,
        client = %addresses.client,
        admin = %addresses.admin,
        peer = %addresses.peer,
        metrics = %addresses.metrics,
        "the node has started"
    );
    Ok(NodeHandle {
        core,
        addresses,
        background: Mutex::new(background),
        public: Mutex::new(public),
        internal: Mutex::new(internal),
    })
}

impl NodeHandle {
    /// Where AccountService listens.
    pub fn client_addr(&self) -> SocketAddr {
        self.addresses.client
    }

    /// Where ClusterService and RealmService listen.
    pub fn admin_addr(&self) -> SocketAddr {
        self.addresses.admin
    }

    /// Where the other nodes connect.
    pub fn peer_addr(&self) -> SocketAddr {
        self.addresses.peer
    }

    /// Where metrics are served.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.addresses.metrics
    }

    /// The node's Raft group, for whoever compares replicas.
    pub fn group(&self) -> &Group {
        &self.core.group
    }

    /// Waits until the node fails, and says why. Whoever owns the process ends it then.
    pub async fn wait_fatal(&self) -> String {
        self.core.fatal.wait().await
    }

    /// Stops the node gracefully. Safe to call more than once; what is left to do is done.
    pub async fn shutdown(&self) {
        let core = &self.core;
        if core.fatal.reason().is_none() {
            hand_over(core, Instant::now() + HAND_OVER).await;
            crash_point!("stop.handed-over").await;
        }
        core.lifecycle.advance(Phase::Stopping);
        if core.fatal.reason().is_none() {
            // Those who do not leave (a stream that watches, a client that is gone) keep their connections until the end.
            let staying = ended(take(&self.public), LEAVE).await;
            put(&self.public, staying);
            let left = core.tasks.idle(Deadline::after(DRAIN)).await;
            crash_point!("stop.drained").await;
            if left > 0 {
                reached!("stop.work-left");
                tracing::warn!(
                    left,
                    "work is left that did not end in time; its callers see an unknown outcome"
                );
            }
        }
        core.lifecycle.advance(Phase::Stopped);
        for task in take(&self.background) {
            task.abort();
        }
        core.group.shutdown().await;
        crash_point!("stop.left-the-group").await;
        let mut servers = take(&self.public);
        servers.extend(take(&self.internal));
        for server in ended(servers, CLOSE).await {
            server.abort();
        }
        tracing::info!(node = core.node_id(), "the node has stopped");
    }
}

fn take(tasks: &Mutex<Vec<JoinHandle<()>>>) -> Vec<JoinHandle<()>> {
    std::mem::take(&mut *tasks.lock().unwrap_or_else(PoisonError::into_inner))
}

fn put(tasks: &Mutex<Vec<JoinHandle<()>>>, more: Vec<JoinHandle<()>>) {
    tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(more);
}

/// Waits until servers have ended, but not for ever. Returns those that have not.
async fn ended(servers: Vec<JoinHandle<()>>, within: Duration) -> Vec<JoinHandle<()>> {
    let deadline = Deadline::after(within);
    let mut left = Vec::new();
    for mut server in servers {
        if tokio::time::timeout(deadline.left(), &mut server).await.is_err() {
            left.push(server);
        }
    }
    left
}

fn consensus_config(config: &Config, tls: Option<&Tls>) -> ConsensusConfig {
    let budget_bytes = usize::try_from(config.limits.memory_budget_mib * 1024 * 1024).unwrap_or(usize::MAX);
    ConsensusConfig {
        tls: tls.and_then(Tls::for_peers),
        heartbeat_interval_ms: config.raft.heartbeat_ms,
        election_timeout_ms_min: config.raft.election_timeout_ms_min,
        election_timeout_ms_max: config.raft.election_timeout_ms_max,
        log_entries_kept: config.history.log_entries / 20,
        log_entries_kept_max: config.history.log_entries,
        log_cache_bytes: budget_bytes / 16,
        hot_rows_bytes: budget_bytes / 16,
        ..ConsensusConfig::new(config.cluster_id(), config.node.id)
    }
}

struct Listeners {
    client: Listener,
    admin: Listener,
    peer: Listener,
    metrics: Listener,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, TransportError> {
        let most = config.limits.max_connections;
        Ok(Listeners {
            client: Listener::bind("client", config.listen_client(), most).await?,
            admin: Listener::bind("admin", config.listen_admin(), most).await?,
            peer: Listener::bind("peer", config.listen_peer(), most).await?,
            metrics: Listener::bind("metrics", config.listen_metrics(), most).await?,
        })
    }

    fn addresses(&self) -> Addresses {
        Addresses {
            client: self.client.address(),
            admin: self.admin.address(),
            peer: self.peer.address(),
            metrics: self.metrics.address(),
        }
    }
}

/// The tasks that serve a node's ports.
struct Servers {
    public: Vec<JoinHandle<()>>,
    internal: Vec<JoinHandle<()>>,
}

fn serve(core: &Arc<Core>, listeners: Listeners, health: &Health) -> Result<Servers, TransportError> {
    let bytes = core.config.limits.max_message_bytes;
    let tls = core.tls.as_ref();
    let service = Service::new(core.clone());
    let account = AccountServiceServer::new(service.clone())
        .max_decoding_message_size(bytes)
        .max_encoding_message_size(usize::MAX);
    let cluster = ClusterServiceServer::new(service.clone()).max_decoding_message_size(bytes);
    let realm = RealmServiceServer::new(service).max_decoding_message_size(bytes);
    // A forwarded request is the client's and a little more.
    let forward =
        ForwardServiceServer::new(Forward(core.clone())).max_decoding_message_size(bytes + 64 * 1024);

    let client = transport::with_standard(transport::server(tls, false)?.add_service(account), health);
    let admin = transport::server(tls, false)?
        .add_service(cluster)
        .add_service(realm);
    let admin = transport::with_standard(admin, health);
    let peer = transport::server(tls, true)?
        .add_service(transport::only_peers(core.group.peer_service(), tls))
        .add_service(transport::only_peers(forward, tls));

    let past = |phase| {
        let lifecycle = core.lifecycle.clone();
        async move { lifecycle.reached(phase).await }
    };
    let grpc = |name, router, listener, until| {
        let (stop, fatal) = (past(until), core.fatal.clone());
        tokio::spawn(async move {
            if let Err(error) = transport::serve_grpc(router, listener, stop).await {
                fatal.report(format!("the {name} port cannot be served any more: {error}"));
            }
        })
    };
    let http = {
        let (stop, probe) = (past(Phase::Stopped), CoreProbe(core.clone()));
        tokio::spawn(async move {
            if let Err(error) = transport::serve_http(listeners.metrics, probe, stop).await {
                tracing::error!(error, "the metrics port cannot be served any more");
            }
        })
    };
    Ok(Servers {
        public: vec![
            grpc("client", client, listeners.client, Phase::Stopping),
            grpc("admin", admin, listeners.admin, Phase::Stopping),
        ],
        internal: vec![grpc("peer", peer, listeners.peer, Phase::Stopped), http],
    })
}

/// Closes all doors at once when the node fails: whoever asks it gets no answer, and never a wrong one.
async fn stop_when_fatal(core: Arc<Core>) {
    tokio::select! {
        biased;
        () = core.lifecycle.reached(Phase::Stopped) => {}
        reason = core.fatal.wait() => {
            tracing::error!(reason, "the node stops serving");
            if !planted!("doors-left-open-after-failure") {
                core.lifecycle.advance(Phase::Stopped);
            }
        }
    }
}

/// Founds the cluster, if this node has never belonged to one and no other founder has. All founding members do so with
/// the same list, so none has to be first. Who has to wait for another is tried again: [`roster::until_joined`].
pub(crate) async fn found(core: &Core) -> Result<(), StartError> {
    if roster::has_data(core) || core.config.cluster.initial_members.is_empty() {
        return Ok(());
    }
    let directories = match roster::may_found(core).await {
        Ok(Some(directories)) => directories,
        Ok(None) => {
            reached!("start.waits-for-founders");
            return Ok(());
        }
        // It was taken in while it asked.
        Err(StartError::IdUsed { .. }) if roster::has_data(core) => return Ok(()),
        Err(error) => return Err(error),
    };
    let members: BTreeMap<NodeId, PeerAddresses> = core
        .config
        .cluster
        .initial_members
        .iter()
        .map(|member| {
            let addresses = PeerAddresses {
                peer: member.peer.clone(),
                client: member.client.clone(),
                admin: member.admin.clone(),
                directory: directories.get(&member.id).copied(),
            };
            (member.id, addresses)
        })
        .collect();
    match core.group.initialize(members).await {
        Ok(()) => {
            crash_point!("start.founded").await;
            tracing::info!("this node has founded its part of a new cluster");
            Ok(())
        }
        Err(InitializeError::AlreadyInitialized) => Ok(()),
        Err(InitializeError::Refused(why) | InitializeError::Stopped(why)) => Err(StartError::Found(why)),
    }
}

/// Says who leads, whenever that changes.
async fn log_leaders(core: Arc<Core>) {
    let mut leadership = core.group.leadership();
    let mut known = None;
    loop {
        let now = *leadership.borrow_and_update();
        if known != Some((now.term, now.leader)) {
            known = Some((now.term, now.leader));
            tracing::info!(
                node = core.node_id(),
                term = now.term,
                leader = now.leader,
                "leadership"
            );
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}
