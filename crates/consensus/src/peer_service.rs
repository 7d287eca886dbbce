//! What this node answers its peers.
//!
//! Every call is checked first: it must come from a member of the same cluster that means this node and this
//! shard. Whatever Raft refuses is an answer; only trouble is a status.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use holdfast_markers::{crash_point, reached};
use holdfast_storage::engine::Engine;
use holdfast_types::{Family, NodeId};
use holdfast_wire::internal as wire;
use holdfast_wire::internal::peer_service_server;
use openraft::raft::{TransferLeaderError, TransferLeaderRequest};
use openraft::storage::Snapshot;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use crate::FatalSink;
use crate::acknowledged::{forgotten, put_back};
use crate::codec;
use crate::config::Directory;
use crate::convert;
use crate::identity::{LearnError, OtherDirectory};
use crate::leader_rounds::{LeaderError, LeaderRounds, Vouched};
use crate::log_store::LogStore;
use crate::log_writer::writes_flow;
use crate::peers::Peers;
use crate::runtime::{stopped, timeout};
use crate::snapshot::{self, SnapshotData, chunk_checksum};
use crate::trace;
use crate::type_config::{Raft, SnapshotMeta, StoredMembership};

/// How long the sender of a snapshot may be silent.
const SNAPSHOT_SILENCE_MAX: Duration = Duration::from_secs(20);

/// The service on the peer port.
#[derive(Clone)]
pub struct PeerService {
    inner: Arc<Inner>,
}

struct Inner {
    peers: Arc<Peers>,
    raft: Raft,
    log: LogStore,
    engine: Arc<dyn Engine>,
    rounds: LeaderRounds,
    /// True once this node is being stopped.
    stopping: watch::Receiver<bool>,
    fatal: FatalSink,
    /// Held by whoever stages a snapshot, until it is installed or given up.
    staging: Arc<tokio::sync::Mutex<()>>,
}

impl PeerService {
    pub(crate) fn new(
        peers: Arc<Peers>,
        raft: Raft,
        log: LogStore,
        engine: Arc<dyn Engine>,
        rounds: LeaderRounds,
        stopping: watch::Receiver<bool>,
        fatal: FatalSink,
    ) -> Self {
        let staging = Arc::default();
        PeerService {
            inner: Arc::new(Inner {
                peers,
                raft,
                log,
                engine,
                rounds,
                stopping,
                fatal,
                staging,
            }),
        }
    }

    /// Refuses strangers.
    fn check(&self, header: Option<wire::PeerHeader>, what: &'static str) -> Result<(), Status> {
        let config = &self.inner.peers.config;
        unless_failed(&self.inner.fatal)?;
        let header = header.ok_or_else(|| Status::invalid_argument("the header is missing"))?;
        if header.cluster_id[..] != config.cluster_id.0.as_bytes()[..] {
            reached!("peer.stranger-refused");
            return Err(Status::failed_precondition(format!(
                "node {} here is a member of cluster {}, not of the caller's; check the addresses",
                config.node_id, config.cluster_id
            )));
        }
        if header.to_node != config.node_id {
            return Err(Status::failed_precondition(format!(
                "node {} answers here, not node {}; check the addresses",
                config.node_id, header.to_node
            )));
        }
        if header.from_node == config.node_id {
            return Err(Status::failed_precondition(format!(
                "two nodes call themselves node {}; an id belongs to one node for ever",
                config.node_id
            )));
        }
        if header.shard != config.shard.0 {
            return Err(Status::failed_precondition(format!(
                "shard {} is not served here",
                header.shard
            )));
        }
        self.check_directories(&header)?;
        self.check_epoch(&header)?;
        self.check_acknowledged(&header)?;
        if !header.trace_parent.is_empty() {
            tracing::debug!(
                node = config.node_id,
                from = header.from_node,
                trace_id = trace::id(&header.trace_parent),
                "{what}"
            );
        }
        Ok(())
    }

    /// Refuses nodes that lost their directory, and notices when this one did.
    fn check_directories(&self, header: &wire::PeerHeader) -> Result<(), Status> {
        let Inner { peers, fatal, .. } = &*self.inner;
        let Peers {
            config, directories, ..
        } = &**peers;
        let wiped = |node: NodeId| {
            format!(
                "node {node} comes with another data directory than before, so it has forgotten what it promised; \
                 give the machine a new node id, start it, and put it in the place of node {node} with \
                 `holdfast cluster replace`"
            )
        };
        if !header.to_directory.is_empty() && header.to_directory[..] != directories.own {
            reached!("peer.told-that-wiped");
            fatal.report(wiped(config.node_id));
            return Err(Status::failed_precondition(wiped(config.node_id)));
        }
        // It may be new, and it may have lost everything. Whoever may speak to a new one knows its directory.
        if header.to_directory.is_empty() && self.inner.log.is_empty() {
            reached!("peer.unknown-without-data");
            return Err(Status::failed_precondition(format!(
                "node {} has no data, and node {} does not know its data directory",
                config.node_id, header.from_node
            )));
        }
        let from = Directory::try_from(&header.from_directory[..])
            .map_err(|_| Status::invalid_argument("the sender's directory is missing"))?;
        // Before Raft sees anything of the message, and before the sender is held against a founding that came to nothing.
        match directories.learn(&header.founders, self.inner.log.joined()) {
            Ok(()) => {}
            Err(error @ LearnError::Unreadable) => return Err(Status::invalid_argument(error.to_string())),
            Err(LearnError::Engine(error)) => {
                fatal.report(format!("remembering the founders failed: {error}"));
                return Err(Status::unavailable(error.to_string()));
            }
        }
        match directories.meet(header.from_node, from) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(OtherDirectory)) => {
                reached!("peer.wiped-refused");
                Err(Status::failed_precondition(wiped(header.from_node)))
            }
            Err(error) => {
                fatal.report(format!("remembering a peer failed: {error}"));
                Err(Status::unavailable(error.to_string()))
            }
        }
    }

    /// Refuses who follows another history of the shard.
    ///
    /// An epoch changes by an entry of the log only. So a message of another epoch is usually right: one side has
    /// applied the change and the other has not yet, and a follower that lags must take the very appends that bring
    /// it the change. It is certainly wrong if the side that has applied less is in the later epoch, or if both have
    /// applied as much and differ: then the same log gave two answers, or it is not the same log.
    fn check_epoch(&self, header: &wire::PeerHeader) -> Result<(), Status> {
        let (state, next) = self.inner.peers.applied.position();
        if epochs_contradict((header.applied_next, header.shard_epoch), (next, state.epoch.0)) {
            return Err(Status::failed_precondition(format!(
                "node {} is in epoch {} of shard {} before log index {}, but node {} here is in epoch {} before {}: \
                 they do not follow one log",
                header.from_node,
                header.shard_epoch,
                header.shard,
                header.applied_next,
                header.to_node,
                state.epoch.0,
                next
            )));
        }
        Ok(())
    }

    /// Asks Raft, unless the node has failed or does so meanwhile.
    async fn ask<T, E: std::fmt::Display>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Status> {
        match self.inner.fatal.unless_failed(work).await {
            Some(answer) => answer.map_err(raft_stopped),
            None => Err(failed(self.inner.fatal.reason())),
        }
    }

    /// Says yes, unless the node has failed meanwhile.
    fn answer<T>(&self, reply: T) -> Result<Response<T>, Status> {
        unless_failed(&self.inner.fatal)?;
        Ok(Response::new(reply))
    }

    /// Notices when this node's directory was put back from an older copy. Before Raft sees the message: its answer
    /// would be a conflict below what the leader knows to agree, which is not supposed to exist.
    fn check_acknowledged(&self, header: &wire::PeerHeader) -> Result<(), Status> {
        let Inner {
            peers, log, fatal, ..
        } = &*self.inner;
        let (reached, term) = log.reached();
        // After a snapshot was installed the log may begin behind what is applied.
        let last = reached.max(peers.applied.next_index().checked_sub(1));
        if let Some(index) = forgotten(header, last, term) {
            let why = put_back(peers.config.node_id, last, index);
            fatal.report(&*why);
            return Err(Status::failed_precondition(why));
        }
        peers.acknowledged.heard(header);
        Ok(())
    }

    /// Refuses the candidate whose directory was put back from an older copy: it must not be elected by those who
    /// hold no more than it still has.
    fn check_candidate(&self, request: &wire::VoteRequest, candidate: Option<NodeId>) -> Result<(), Status> {
        let last = request.last_log_id.map(|id| id.index);
        let held = candidate.and_then(|id| Some((id, self.inner.peers.acknowledged.held_by(id)?)));
        match held {
            Some((id, held)) if last < Some(held) => {
                Err(Status::failed_precondition(put_back(id, last, held)))
            }
            _ => Ok(()),
        }
    }

    /// The index that a follower's reads need, which began before it asked.
    async fn answer_read_index(
        &self,
        request: wire::ReadIndexRequest,
    ) -> Result<wire::ReadIndexReply, Status> {
        use wire::read_index_reply::Result as Kind;
        let wire::ReadIndexRequest { header, voted_term } = request;
        let (node, deadline_ms) = header
            .as_ref()
            .map_or((0, 0), |header| (header.from_node, header.deadline_ms));
        self.check(header, "read_index")?;
        let vouched = Vouched {
            node,
            term: voted_term,
        };
        let ttl = Duration::from_millis(u64::from(deadline_ms));
        let result = match timeout(ttl, self.inner.rounds.join_vouching(vouched)).await {
            Ok(Ok(id)) => Kind::ReadLogId(convert::log_id_to_wire(&id)),
            Ok(Err(LeaderError::NotLeader(leader))) => Kind::NotLeader(wire::NotLeader {
                leader: leader.unwrap_or_default(),
            }),
            Ok(Err(LeaderError::Failed(why))) => return Err(Status::unavailable(why)),
            Err(_) => {
                reached!("peer.read-index-late");
                return Err(Status::deadline_exceeded(
                    "no quorum confirmed the leader in time",
                ));
            }
        };
        unless_failed(&self.inner.fatal)?;
        Ok(wire::ReadIndexReply { result: Some(result) })
    }

    /// Stages a whole snapshot, checking every chunk.
    async fn receive(
        &self,
        mut chunks: Streaming<wire::SnapshotChunk>,
    ) -> Result<(wire::SnapshotStart, SnapshotData), Status> {
        use wire::snapshot_chunk::Part;
        let engine = &*self.inner.engine;
        let shard = self.inner.peers.config.shard;
        let storage = |error: holdfast_storage::engine::EngineError| {
            self.inner
                .fatal
                .report(format!("staging a snapshot failed: {error}"));
            Status::unavailable(error.to_string())
        };

        let Some(Part::Start(mut start)) = next_part(&mut chunks).await? else {
            return Err(Status::invalid_argument("a snapshot starts with its header"));
        };
        self.check(start.header.take(), "install_snapshot")?;
        let guard = self.inner.staging.clone().try_lock_owned().map_err(|_| {
            reached!("snapshot.second-refused");
            Status::aborted("another snapshot is being received; try again")
        })?;
        snapshot::clear_staged(engine, shard).map_err(storage)?;

        let mut count = 0_u64;
        let mut digest = blake3::Hasher::new();
        let mut last: Option<(Family, Bytes)> = None;
        loop {
            match next_part(&mut chunks).await? {
                Some(Part::Rows(rows)) => {
                    let family = u8::try_from(rows.family)
                        .ok()
                        .and_then(Family::from_u8)
                        .filter(|family| Family::STATE.contains(family))
                        .ok_or_else(|| {
                            Status::data_loss(format!("a snapshot has no family {}", rows.family))
                        })?;
                    if chunk_checksum(rows.rows.iter().map(|row| (&row.key, &row.value))) != rows.checksum {
                        return Err(Status::data_loss("a snapshot chunk was damaged on the way"));
                    }
                    digest.update(&rows.checksum.to_be_bytes());
                    count += rows.rows.len() as u64;
                    for row in &rows.rows {
                        let this = (family, row.key.clone());
                        if last.as_ref().is_some_and(|last| *last >= this) {
                            return Err(Status::data_loss("a snapshot's rows are not in order"));
                        }
                        last = Some(this);
                    }
                    let rows = rows.rows.into_iter().map(|row| (row.key, row.value));
                    writes_flow(engine).await;
                    snapshot::stage(engine, shard, family, rows).map_err(storage)?;
                    crash_point!("snapshot.chunk-staged").await;
                }
                Some(Part::End(end)) => {
                    if end.rows != count || end.digest[..] != digest.finalize().as_bytes()[..] {
                        return Err(Status::data_loss("a snapshot is not whole"));
                    }
                    crash_point!("snapshot.received").await;
                    return Ok((start, SnapshotData::Incoming(guard)));
                }
                Some(Part::Start(_)) => return Err(Status::invalid_argument("a snapshot starts but once")),
                None => return Err(Status::aborted("the snapshot broke off")),
            }
        }
    }
}

async fn next_part(
    chunks: &mut Streaming<wire::SnapshotChunk>,
) -> Result<Option<wire::snapshot_chunk::Part>, Status> {
    match timeout(SNAPSHOT_SILENCE_MAX, chunks.message()).await {
        Ok(Ok(Some(chunk))) => match chunk.part {
            Some(part) => Ok(Some(part)),
            None => Err(Status::invalid_argument(
                "a snapshot chunk is of a kind this release does not know",
            )),
        },
        Ok(Ok(None)) => Ok(None),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("the sender of a snapshot fell silent")),
    }
}

/// Whether two replicas cannot be of one log: each is what it has applied up to, and the epoch there.
fn epochs_contradict(one: (u64, u64), other: (u64, u64)) -> bool {
    let (less, more) = (one.min(other), one.max(other));
    less.1 > more.1 || (less.0 == more.0 && less.1 != more.1)
}

/// A node that has failed says nothing to its peers, not even what was true before.
fn unless_failed(fatal: &FatalSink) -> Result<(), Status> {
    match fatal.reason() {
        Some(reason) => Err(failed(Some(reason))),
        None => Ok(()),
    }
}

fn failed(reason: Option<String>) -> Status {
    reached!("peer.silent-after-failure");
    Status::unavailable(format!("this node has failed: {}", reason.unwrap_or_default()))
}

async fn first_message<T>(requests: &mut Streaming<T>) -> Result<T, Status> {
    let first = requests.message().await?;
    first.ok_or_else(|| Status::invalid_argument("the stream ended before it began"))
}

fn raft_stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("raft has stopped here: {error}"))
}

#[tonic::async_trait]
impl peer_service_server::PeerService for PeerService {
    type StreamAppendStream = BoxStream<'static, Result<wire::AppendReply, Status>>;

    async fn stream_append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::StreamAppendStream>, Status> {
        let mut requests = request.into_inner();
        let mut first = first_message(&mut requests).await?;
        self.check(first.header.take(), "stream_append")?;
        let first = convert::append_from_wire(first)?;
        let node = self.inner.peers.config.node_id;
        trace::arrived(node, &first.entries);
        // A request that cannot be read ends the stream: Raft has answered all before it, and none after it.
        let rest = requests.scan((), move |(), request| {
            let request = request.and_then(convert::append_from_wire);
            futures::future::ready(match request {
                Ok(request) => {
                    trace::arrived(node, &request.entries);
                    Some(request)
                }
                Err(status) => {
                    tracing::warn!(%status, "a replication stream broke off");
                    None
                }
            })
        });
        let requests = futures::stream::once(async { first }).chain(rest);
        let mut replies = self
            .inner
            .raft
            .stream_append(requests)
            .map(|result| result.map(convert::append_reply_to_wire).map_err(raft_stopped))
            .boxed();
        // Raft may have made a reply before the node failed that is asked for only now.
        let fatal = self.inner.fatal.clone();
        let replies = futures::stream::poll_fn(move |context| match unless_failed(&fatal) {
            Ok(()) => replies.poll_next_unpin(context),
            Err(failed) => Poll::Ready(Some(Err(failed))),
        });
        Ok(Response::new(replies.boxed()))
    }

    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::AppendReply>, Status> {
        let mut request = request.into_inner();
        self.check(request.header.take(), "append")?;
        let request = convert::append_from_wire(request)?;
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let reply = self.ask(self.inner.raft.append_entries(request)).await?;
        self.answer(convert::append_reply_to_wire(
            reply.into_stream_result(prev, last),
        ))
    }

    type ConfirmLeaderStream = BoxStream<'static, Result<wire::ConfirmLeaderReply, Status>>;

    async fn confirm_leader(
        &self,
        request: Request<Streaming<wire::ConfirmLeaderRequest>>,
    ) -> Result<Response<Self::ConfirmLeaderStream>, Status> {
        let mut requests = request.into_inner();
        let mut first = first_message(&mut requests).await?;
        self.check(first.header.take(), "confirm_leader")?;
        let Inner {
            log, fatal, stopping, ..
        } = &*self.inner;
        let (log, fatal, stopping) = (log.clone(), fatal.clone(), stopping.clone());
        let replies = futures::stream::once(async { Ok(first) })
            .chain(requests)
            .map(move |request| {
                unless_failed(&fatal)?;
                Ok(wire::ConfirmLeaderReply {
                    round: request?.round,
                    voted_term: log.reached().1,
                })
            });
        // Nobody else ends it, and a node that stops waits for what it still serves.
        Ok(Response::new(replies.take_until(stopped(stopping)).boxed()))
    }

    async fn vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteReply>, Status> {
        let mut request = request.into_inner();
        let candidate = request.header.as_ref().map(|header| header.from_node);
        self.check(request.header.take(), "vote")?;
        self.check_candidate(&request, candidate)?;
        let request = convert::vote_request_from_wire(request)?;
        let reply = self.ask(self.inner.raft.vote(request)).await?;
        self.answer(convert::vote_reply_to_wire(&reply))
    }

    async fn pre_vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteReply>, Status> {
        let mut request = request.into_inner();
        let candidate = request.header.as_ref().map(|header| header.from_node);
        self.check(request.header.take(), "pre_vote")?;
        self.check_candidate(&request, candidate)?;
        let request = convert::vote_request_from_wire(request)?;
        let reply = self.ask(self.inner.raft.pre_vote(request)).await?;
        self.answer(convert::vote_reply_to_wire(&reply))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<wire::SnapshotReply>, Status> {
        let received = self.receive(request.into_inner()).await;
        let (start, snapshot) = received.inspect_err(|_| reached!("snapshot.not-received"))?;
        let vote = convert::vote_from_wire(start.vote)?;
        let last_membership = codec::decode::<StoredMembership>(&start.membership)
            .map_err(|error| Status::data_loss(error.to_string()))?;
        let meta = SnapshotMeta {
            last_log_id: start.last_log_id.map(convert::log_id_from_wire),
            last_membership,
        };
        let snapshot = Snapshot { meta, snapshot };
        let installed = self.inner.raft.install_full_snapshot(vote, snapshot);
        let reply = self.ask(installed).await?;
        self.answer(wire::SnapshotReply {
            vote: Some(convert::vote_to_wire(&reply.vote)),
        })
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderReply>, Status> {
        use wire::transfer_leader_reply::Result as Kind;
        let mut request = request.into_inner();
        self.check(request.header.take(), "transfer_leader")?;
        let request = TransferLeaderRequest::new(
            convert::vote_from_wire(request.from_leader)?,
            request.to_node,
            request.last_log_id.map(convert::log_id_from_wire),
        );
        let result = match self.ask(self.inner.raft.handle_transfer_leader(request)).await? {
            Ok(()) => Kind::Accepted(wire::TransferAccepted {}),
            Err(TransferLeaderError::VoteChanged { actual, .. }) => {
                reached!("leadership.offer-outdated");
                Kind::VoteChanged(convert::vote_to_wire(&actual))
            }
            Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
                reached!("leadership.offered-before-log");
                Kind::LogNotFlushed(wire::Matched {
                    log_id: actual.as_ref().map(convert::log_id_to_wire),
                })
            }
        };
        self.answer(wire::TransferLeaderReply { result: Some(result) })
    }

    type ReadIndexStream = BoxStream<'static, Result<wire::ReadIndexReply, Status>>;

    async fn read_index(
        &self,
        request: Request<Streaming<wire::ReadIndexRequest>>,
    ) -> Result<Response<Self::ReadIndexStream>, Status> {
        let service = self.clone();
        let replies = request.into_inner().then(move |request| {
            let service = service.clone();
            async move { service.answer_read_index(request?).await }
        });
        let stopping = stopped(self.inner.stopping.clone());
        Ok(Response::new(replies.take_until(stopping).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::epochs_contradict;

    #[test]
    fn replicas_of_one_log_may_lag_but_not_contradict() {
        assert!(!epochs_contradict((10, 1), (20, 2)), "a laggard");
        assert!(!epochs_contradict((20, 2), (10, 1)), "the other way round");
        assert!(!epochs_contradict((10, 2), (10, 2)));
        assert!(!epochs_contradict((0, 1), (10, 1)));
        assert!(epochs_contradict((10, 2), (20, 1)));
        assert!(epochs_contradict((20, 1), (10, 2)));
        assert!(epochs_contradict((10, 1), (10, 2)));
    }
}
