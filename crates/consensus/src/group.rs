//! One Raft group on one node: the whole of consensus as the rest of the house sees it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use holdfast_machine::State;
use holdfast_markers::{planted, reached};
use holdfast_storage::engine::{Engine, View};
use holdfast_types::NodeId;
use holdfast_wire::internal::peer_service_server::PeerServiceServer;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError as RaftInitializeError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::{ServerState, SnapshotPolicy};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;

use crate::acknowledged::Acknowledged;
use crate::apply::{Applied, StateMachine};
use crate::backoff::{self, Backoff};
use crate::barrier::Barrier;
use crate::error::{
    BarrierError, FlushError, InitializeError, MembershipError, ProposeError, StartError, Timeout,
};
use crate::identity::Directories;
use crate::leader_rounds::LeaderRounds;
use crate::log_store::LogStore;
use crate::log_writer::LogWriter;
use crate::maintenance::{self, Maintenance};
use crate::membership::{self, Change};
use crate::network::NetworkFactory;
use crate::peer_service::PeerService;
use crate::peers::{MESSAGE_BYTES_MAX, Peers};
use crate::runtime::{raising, timeout_at};
use crate::status::{
    Committed, GroupStatus, Leadership, LogPosition, MemberRole, MemberStatus, ReadPoint, Role,
};
use crate::type_config::{ApplyReply, EncodedCommand, LogId, Raft};
use crate::{ConsensusConfig, Directory, FatalSink, PeerAddresses, identity, snapshot, trace};

/// The service on the peer port as tonic takes it.
#[cfg(not(madsim))]
pub type PeerServer = PeerServiceServer<PeerService>;
/// The service on the peer port as the simulator's tonic takes it.
#[cfg(madsim)]
pub type PeerServer = PeerServiceServer<PeerService, tonic::codegen::IdentityInterceptor>;

/// A handle to the group. Cheap to clone; the group runs until [`Group::shutdown`].
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<ConsensusConfig>,
    raft: Raft,
    writer: LogWriter,
    log: LogStore,
    applied: Arc<Applied>,
    peers: Arc<Peers>,
    directories: Arc<Directories>,
    /// Held while this node writes its founding membership.
    founding: tokio::sync::Mutex<()>,
    barrier: Barrier,
    peer_service: PeerService,
    leadership: Arc<watch::Sender<Leadership>>,
    recovered: watch::Receiver<bool>,
    stopping: watch::Sender<bool>,
    fatal: FatalSink,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Group {
    /// `writer` is the node's, on the same engine and with the same sink.
    ///
    /// Checks the directory's identity, finishes what a crash interrupted, and starts the node's part in the
    /// group. It does not wait for a leader.
    pub async fn start(
        config: ConsensusConfig,
        engine: Arc<dyn Engine>,
        writer: LogWriter,
        fatal: FatalSink,
    ) -> Result<Group, StartError> {
        let config = Arc::new(config);
        let trusting = planted!("leader-restored-before-reapplied");
        let raft_config = raft_config(&config, trusting)?;
        let directory = identity::check(&*engine, config.cluster_id, config.node_id).await?;
        let resumed = snapshot::finish_install(&*engine, config.shard)
            .await
            .map_err(damaged)?;
        if resumed {
            reached!("snapshot.install-resumed-at-start");
        }
        // What was recovered but never synced counts from here on: others will be told that it is stored.
        engine.sync().await?;

        let directories = Arc::new(Directories::open(directory, engine.clone())?);
        let log = LogStore::open(
            engine.clone(),
            writer.clone(),
            config.shard,
            config.log_cache_bytes,
        )
        .map_err(damaged)?;
        let tail = log.last_log_id().map(|id| id.index);
        let (machine, applied) = StateMachine::open(
            engine.clone(),
            config.shard,
            log.clone(),
            config.hot_rows_bytes,
            fatal.clone(),
        )
        .map_err(damaged)?;
        let acknowledged = Arc::new(Acknowledged::open(engine.clone(), config.shard)?);
        let (backoff, members_back) = Backoff::new();
        let peers = Arc::new(Peers::new(
            config.clone(),
            applied.clone(),
            directories.clone(),
            acknowledged,
            backoff,
            fatal.clone(),
        ));
        let starting = Raft::new(
            config.node_id,
            raft_config,
            NetworkFactory {
                peers: peers.clone(),
                log: log.clone(),
            },
            log.clone(),
            machine,
        );
        let span = tracing::info_span!("raft", node = config.node_id, shard = config.shard.0);
        let raft = raising(&fatal, starting)
            .instrument(span)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;

        let (recovered_sender, recovered) = watch::channel(trusting);
        let (stopping, stopping_receiver) = watch::channel(false);
        let rounds = LeaderRounds::start(
            raft.clone(),
            peers.clone(),
            stopping_receiver.clone(),
            fatal.clone(),
        );
        let barrier = Barrier::start(
            raft.clone(),
            log.clone(),
            rounds.clone(),
            peers.clone(),
            recovered.clone(),
            stopping_receiver.clone(),
            fatal.clone(),
        );
        let leadership = Arc::new(watch::channel(Leadership::default()).0);
        let peer_service = PeerService::new(
            peers.clone(),
            raft.clone(),
            log.clone(),
            engine,
            rounds,
            stopping_receiver.clone(),
            fatal.clone(),
        );

        let guarded = |what, task: BoxFuture<'static, ()>| tokio::spawn(fatal.clone().guard(what, task));
        let mut tasks = vec![
            guarded(
                "the watch over the recovery",
                maintenance::watch_recovery(raft.clone(), tail, recovered_sender).boxed(),
            ),
            guarded(
                "the watch over the leadership",
                maintenance::watch_leadership(
                    raft.clone(),
                    barrier.clone(),
                    leadership.clone(),
                    Duration::from_millis(config.election_timeout_ms_max),
                )
                .boxed(),
            ),
            guarded(
                "the maintenance of the log",
                Maintenance {
                    config: config.clone(),
                    raft: raft.clone(),
                    writer: writer.clone(),
                    peers: peers.clone(),
                    fatal: fatal.clone(),
                    stopping: stopping_receiver,
                }
                .run()
                .boxed(),
            ),
            guarded(
                "the end of Raft's pauses",
                backoff::end_pauses(raft.clone(), members_back).boxed(),
            ),
            tokio::spawn(maintenance::stop_when_fatal(raft.clone(), fatal.clone())),
        ];
        if config.staleness_probe_ms > 0 {
            let every = Duration::from_millis(config.staleness_probe_ms);
            let probe = maintenance::probe_staleness(barrier.clone(), every);
            tasks.push(guarded("the staleness probe", probe.boxed()));
        }
        let inner = Inner {
            config,
            raft,
            writer,
            log,
            applied,
            peers,
            directories,
            founding: tokio::sync::Mutex::default(),
            barrier,
            peer_service,
            leadership,
            recovered,
            stopping,
            fatal,
            tasks: Mutex::new(tasks),
        };
        Ok(Group {
            inner: Arc::new(inner),
        })
    }

    /// What to serve on the peer port.
    pub fn peer_service(&self) -> PeerServer {
        PeerServiceServer::new(self.inner.peer_service.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Founds the cluster with these voters. Every founding member may call it with the same members; a node
    /// that already has a log or a vote answers [`InitializeError::AlreadyInitialized`].
    ///
    /// The founders' directories, this node's own included, are written down here and are no part of the membership,
    /// which must be the same on all founders whatever each of them has heard of the others.
    pub async fn initialize(
        &self,
        mut members: BTreeMap<NodeId, PeerAddresses>,
    ) -> Result<(), InitializeError> {
        let directories = members
            .iter_mut()
            .filter_map(|(id, member)| Some((*id, member.directory.take()?)))
            .collect();
        let _one_at_a_time = self.inner.founding.lock().await;
        if !self.inner.log.is_empty() || self.voted_term() > 0 {
            reached!("start.others-founded-first");
            return Err(InitializeError::AlreadyInitialized);
        }
        if let Err(error) = self.inner.directories.found(directories).await {
            let why = format!("writing down the founders' directories failed: {error}");
            self.inner.fatal.report(why.clone());
            return Err(InitializeError::Stopped(why));
        }
        match self.inner.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(RaftInitializeError::NotAllowed(_))) => {
                Err(InitializeError::AlreadyInitialized)
            }
            Err(RaftError::APIError(error)) => Err(InitializeError::Refused(error.to_string())),
            Err(RaftError::Fatal(error)) => Err(InitializeError::Stopped(error.to_string())),
        }
    }

    /// Proposes a command evaluated in `term` (see [`ReadPoint::term`]) and waits until it is applied here.
    pub async fn propose(
        &self,
        command: EncodedCommand,
        term: u64,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        let started = Instant::now();
        let result = self.propose_inner(command, term, deadline).await;
        let outcome = match &result {
            Ok(_) => "committed",
            Err(ProposeError::NotAppended { .. }) => {
                reached!("propose.not-appended");
                "not_appended"
            }
            Err(ProposeError::Unknown { .. }) => {
                reached!("propose.unknown");
                "unknown"
            }
        };
        metrics::counter!("holdfast_proposals_total", "outcome" => outcome).increment(1);
        if result.is_ok() {
            metrics::histogram!("holdfast_commit_seconds").record(started.elapsed().as_secs_f64());
        }
        result
    }

    async fn propose_inner(
        &self,
        command: EncodedCommand,
        term: u64,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        let unknown = |why: &dyn std::fmt::Display| ProposeError::Unknown { why: why.to_string() };
        let answer = async {
            let (responder, receiver) = ProgressResponder::complete_only();
            self.inner
                .raft
                .write(command)
                .with_leader(term)
                .responder(responder)
                .await
                .map_err(|error| unknown(&error))?;
            receiver
                .await
                .map_err(|_| unknown(&"raft stopped before it answered"))
        };
        let answer = timeout_at(deadline, self.inner.fatal.unless_failed(answer))
            .await
            .map_err(|_| unknown(&"the deadline passed before it was committed"))?
            .ok_or_else(|| unknown(&"this node has failed"))??;
        match answer {
            Ok(response) => match response.data {
                ApplyReply::Command(reply) => Ok(Committed {
                    index: response.log_id.index,
                    reply,
                }),
                ApplyReply::Nothing => Err(unknown(&"it was committed as something else")),
            },
            // The only answer that says the entry was never appended.
            Err(ClientWriteError::ForwardToLeader(forward)) => {
                let leader = forward
                    .leader_id
                    .filter(|leader| *leader != self.inner.config.node_id);
                Err(ProposeError::NotAppended { leader })
            }
            Err(error) => Err(unknown(&error)),
        }
    }

    /// Waits until a view taken afterwards includes everything acknowledged anywhere before the call. Works on
    /// every member; readers that wait at the same time share one round.
    pub async fn read_barrier(&self, deadline: Instant) -> Result<ReadPoint, BarrierError> {
        self.inner.barrier.pass(deadline).await
    }

    /// Waits until the entry at `index` is applied here.
    pub async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<(), Timeout> {
        timeout_at(deadline, self.inner.applied.wait(index))
            .await
            .map_err(|_| Timeout)
    }

    /// Waits until everything acknowledged before this node started is applied here again.
    pub async fn wait_recovered(&self, deadline: Instant) -> Result<(), Timeout> {
        let mut recovered = self.inner.recovered.clone();
        match timeout_at(deadline, recovered.wait_for(|recovered| *recovered)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Timeout),
        }
    }

    /// How old the newest moment is of which a view taken now certainly includes everything acknowledged.
    /// `None`: no such moment is known since the start.
    pub fn staleness(&self) -> Option<Duration> {
        self.inner.barrier.staleness()
    }

    /// The shard's own state as of the last applied entry: log clock, epoch, feature level, floors.
    pub fn state(&self) -> State {
        self.inner.applied.state()
    }

    /// The last applied log index; 0 before the first.
    pub fn applied_index(&self) -> u64 {
        self.inner.applied.next_index().saturating_sub(1)
    }

    /// The shard's own state and the log index that it is the state of: two replicas at the same index have the
    /// same digest.
    pub fn applied(&self) -> (u64, State) {
        let (state, next_index) = self.inner.applied.position();
        (next_index.saturating_sub(1), state)
    }

    /// The applied state, frozen.
    pub fn view(&self) -> Arc<dyn View> {
        self.inner.applied.view()
    }

    /// Who leads, and whether this node may evaluate and propose.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    /// The term of the newest vote that this node has given or taken note of, durable or about to be; 0: none.
    pub fn voted_term(&self) -> u64 {
        self.inner.log.reached().1
    }

    /// The name of this node's data directory.
    pub fn directory(&self) -> Directory {
        self.inner.directories.own
    }

    /// Where the members can be reached.
    pub fn members(&self) -> BTreeMap<NodeId, PeerAddresses> {
        let receiver = self.inner.raft.metrics();
        let metrics = receiver.borrow_watched();
        metrics
            .membership_config
            .nodes()
            .map(|(id, node)| (*id, node.clone()))
            .collect()
    }

    /// The newest term this node has promised to keep to: it is durable, and survives whatever happens to the machine.
    /// [`GroupStatus::term`] is ahead of it while a vote waits for its sync, and so do all answers that depend on it.
    pub fn promised_term(&self) -> u64 {
        self.inner.log.promised_term()
    }

    /// Looks at one member's addresses; `None` if it is no member.
    pub fn with_member<T>(&self, id: NodeId, look: impl FnOnce(&PeerAddresses) -> T) -> Option<T> {
        let receiver = self.inner.raft.metrics();
        let metrics = receiver.borrow_watched();
        metrics.membership_config.get_node(&id).map(look)
    }

    /// The group's condition, as known here.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let membership = &metrics.membership_config;
        let voters: Vec<NodeId> = membership.voter_ids().collect();
        let heard = |id: NodeId| {
            let heartbeat = metrics.heartbeat.as_ref()?.get(&id)?.as_ref()?;
            Some(millis(heartbeat.0.elapsed()))
        };
        let members = membership
            .nodes()
            .map(|(id, addresses)| MemberStatus {
                id: *id,
                role: if voters.contains(id) {
                    MemberRole::Voter
                } else {
                    MemberRole::Learner
                },
                addresses: addresses.clone(),
                matched: metrics
                    .replication
                    .as_ref()
                    .and_then(|replication| replication.get(id).copied().flatten())
                    .map(|id| id.index),
                last_heard_ms: heard(*id),
            })
            .collect();
        let role = match metrics.state {
            ServerState::Learner => Role::Learner,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Leader => Role::Leader,
            ServerState::Shutdown => Role::Stopped,
        };
        let committed = metrics
            .cluster_committed
            .as_ref()
            .or(metrics.local_committed.as_ref())
            .map(position);
        let membership_at = membership.log_id().as_ref().map(position);
        GroupStatus {
            node_id: metrics.id,
            role: if metrics.running_state.is_err() {
                Role::Stopped
            } else {
                role
            },
            term: metrics.current_term,
            vote: metrics.vote.to_string(),
            leader: metrics.current_leader,
            last_log: self.inner.log.last_log_id().as_ref().map(position),
            committed,
            applied: metrics.last_applied.as_ref().map(position),
            snapshot: metrics.snapshot.as_ref().map(position),
            purged: metrics.purged.as_ref().map(position),
            quorum_age_ms: metrics
                .last_quorum_acked
                .as_ref()
                .map(|at| millis(at.0.elapsed())),
            members,
            membership_id: membership::show_id(membership.log_id().as_ref()),
            membership_committed: membership_at.is_some() && membership_at <= committed,
            voter_sets: membership
                .get_joint_config()
                .iter()
                .map(|voters| voters.iter().copied().collect())
                .collect(),
            sync_age_ms: self.inner.writer.sync_age().map(millis),
            log_requests: self.inner.writer.waiting(),
            readers: self.inner.barrier.readers(),
            recovered: *self.inner.recovered.borrow(),
            fatal: self.inner.fatal.reason(),
        }
    }

    /// Adds a member without a vote and returns the membership id afterwards. On the leader only.
    pub async fn add_learner(
        &self,
        id: NodeId,
        addresses: PeerAddresses,
        expected_membership_id: Option<String>,
        deadline: Instant,
    ) -> Result<String, MembershipError> {
        self.change(expected_membership_id, deadline)?
            .add_learner(id, addresses)
            .await
    }

    /// Gives a learner a vote, once it has caught up. On the leader only.
    pub async fn promote(
        &self,
        id: NodeId,
        expected_membership_id: Option<String>,
        deadline: Instant,
    ) -> Result<String, MembershipError> {
        self.change(expected_membership_id, deadline)?.promote(id).await
    }

    /// Gives a learner the vote of another member, which goes for good, once it has caught up. On the leader
    /// only.
    pub async fn replace(
        &self,
        old: NodeId,
        new: NodeId,
        expected_membership_id: Option<String>,
        deadline: Instant,
    ) -> Result<String, MembershipError> {
        self.change(expected_membership_id, deadline)?
            .replace(old, new)
            .await
    }

    /// Removes a member for good. Its id is never used again. On the leader only.
    pub async fn remove(
        &self,
        id: NodeId,
        expected_membership_id: Option<String>,
        deadline: Instant,
    ) -> Result<String, MembershipError> {
        self.change(expected_membership_id, deadline)?.remove(id).await
    }

    fn change(&self, expected: Option<String>, deadline: Instant) -> Result<Change, MembershipError> {
        Change::begin(&self.inner.raft, expected, deadline)
    }

    /// Hands leadership to `to`, or to the voter with the most of the log; to one of `avoid` only if there is no
    /// other. Returns who leads then. On the leader only.
    pub async fn transfer_leadership(
        &self,
        to: Option<NodeId>,
        avoid: &[NodeId],
        deadline: Instant,
    ) -> Result<NodeId, MembershipError> {
        let attempt_ttl = Duration::from_millis(self.inner.config.election_timeout_ms_max) * 2;
        *self
            .inner
            .peers
            .transferring
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = trace::current();
        membership::transfer_leadership(&self.inner.raft, to, avoid, deadline, attempt_ttl).await
    }

    /// Flushes the state, so that the log before it may be purged, and waits until the state that was applied at this
    /// call is flushed. Returns the last log index that it covers.
    pub async fn trigger_snapshot(&self, deadline: Instant) -> Result<u64, FlushError> {
        let wanted = self.inner.applied.next_index().checked_sub(1);
        let flushed = snapshot::flush_up_to(&self.inner.raft, wanted);
        match timeout_at(deadline, self.inner.fatal.unless_failed(flushed)).await {
            Ok(Some(result)) => result,
            Ok(None) => Err(FlushError::Stopped {
                why: "this node has failed".into(),
            }),
            Err(_) => {
                reached!("snapshot.not-flushed-in-time");
                Err(FlushError::Timeout {
                    wanted: wanted.unwrap_or(0),
                    flushed: self.status().snapshot.map_or(0, |at| at.index),
                })
            }
        }
    }

    /// Stops this node's part in the group. Acknowledged entries are synced already; nothing else is promised.
    pub async fn shutdown(&self) {
        self.inner.stopping.send_replace(true);
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        let tasks = std::mem::take(
            &mut *self
                .inner
                .tasks
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        for task in tasks {
            task.abort();
        }
        // What a fatal failure left behind is nobody's to write.
        if self.inner.fatal.reason().is_none()
            && let Err(error) = self.inner.peers.acknowledged.store()
        {
            tracing::warn!(%error, "what the peers hold could not be written down");
        }
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("node_id", &self.inner.config.node_id)
            .finish_non_exhaustive()
    }
}

fn damaged(error: std::io::Error) -> StartError {
    StartError::Damaged(error.to_string())
}

fn position(id: &LogId) -> LogPosition {
    LogPosition {
        term: id.leader_id.term,
        index: id.index,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// openraft's settings; the ones that safety hangs on are not configurable.
fn raft_config(config: &ConsensusConfig, restore_leader: bool) -> Result<Arc<openraft::Config>, StartError> {
    let lease = config.election_timeout_ms_max;
    let settings = openraft::Config {
        cluster_name: config.cluster_id.to_string(),
        heartbeat_interval: config.heartbeat_interval_ms,
        election_timeout_min: config.election_timeout_ms_min,
        election_timeout_max: config.election_timeout_ms_max,
        // Not used: `network` watches the progress of a transfer.
        install_snapshot_timeout: config.snapshot_install_ms_max,
        max_payload_entries: config.append_entries_max,
        // Ours; see `maintenance`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: config.log_entries_kept_max,
        api_channel_size: Some(4_096),
        enable_pre_vote: Some(true),
        // A leader without a quorum falls silent for a while, so that it does not keep those that still hear it
        // from electing another.
        quorum_loss_probe_interval: Some(lease * 3),
        // A restarted leader must be elected again: it may not have applied again what it acknowledged.
        enable_leader_restore: Some(restore_leader),
        // A log that lost its end is damage, not a follower to be repaired.
        allow_log_reversion: Some(false),
        backoff: "50ms 100ms 200ms ...1s".into(),
        ..openraft::Config::default()
    };
    settings
        .validate()
        .map(Arc::new)
        .map_err(|error| StartError::Config(error.to_string()))
}
