//! Raft's messages to one member.
//!
//! Replication is one bidirectional stream: requests go out as the log grows, replies come back in order, and
//! only a request that stays unanswered too long ends it. Everything else is a call with a deadline: a peer
//! that hangs must never hold up this node.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use holdfast_markers::{crash_point, reached};
use holdfast_types::NodeId;
use holdfast_wire::internal as wire;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, storage::Snapshot};
use tokio::time::Instant;
use tonic::{Code, Response, Status};

use crate::PeerAddresses;
use crate::codec;
use crate::convert;
use crate::log_store::LogStore;
use crate::peers::{Peers, Purpose};
use crate::runtime::{timeout, timeout_at};
use crate::snapshot::{SnapshotData, Walk, chunk_checksum};
use crate::trace;
use crate::type_config::{LeaderTerm, LogId, SnapshotMeta, TypeConfig, Vote};

type RpcError = RPCError<TypeConfig>;

/// Makes [`Network`]s.
pub(crate) struct NetworkFactory {
    pub(crate) peers: Arc<Peers>,
    pub(crate) log: LogStore,
}

/// The way to one member, for one purpose.
pub(crate) struct Network {
    peers: Arc<Peers>,
    log: LogStore,
    /// The term in which this node led when it set out. (Raft stores its vote before it replicates anything.)
    term: u64,
    target: NodeId,
    addresses: PeerAddresses,
    purpose: Purpose,
}

impl NetworkFactory {
    fn network(&self, target: NodeId, node: &PeerAddresses, purpose: Purpose) -> Network {
        Network {
            peers: self.peers.clone(),
            log: self.log.clone(),
            term: self.log.reached().1,
            target,
            addresses: node.clone(),
            purpose,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &PeerAddresses) -> Network {
        self.network(target, node, Purpose::Common)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerAddresses) -> Network {
        self.network(target, node, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &PeerAddresses) -> Network {
        self.network(target, node, Purpose::Snapshot)
    }
}

impl Network {
    fn header(&self, deadline: Duration) -> wire::PeerHeader {
        self.peers.header(self.target, self.addresses.directory, deadline)
    }

    fn client(
        &self,
    ) -> Result<wire::peer_service_client::PeerServiceClient<tonic::transport::Channel>, RpcError> {
        self.peers
            .client(&self.addresses.peer, self.purpose)
            .map_err(|status| self.error(&status))
    }

    /// Waits for an answer, but not for ever.
    async fn call<T>(
        &self,
        action: RPCTypes,
        ttl: Duration,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RpcError> {
        match timeout(ttl, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.error(&status)),
            Err(_) => Err(self.timed_out(action, ttl)),
        }
    }

    fn timed_out(&self, action: RPCTypes, ttl: Duration) -> RpcError {
        RPCError::Timeout(Timeout {
            action,
            id: self.peers.config.node_id,
            target: self.target,
            timeout: ttl,
        })
    }

    fn error(&self, status: &Status) -> RpcError {
        let message = format!("node {} at {}: {status}", self.target, self.addresses.peer);
        match status.code() {
            Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated => {
                reached!("network.refused-by-peer");
                // Not a passing trouble, so it is said at once, but not with every message.
                if self.peers.told_of_refusals.due(self.target, Instant::now()) {
                    tracing::warn!(message, "a peer refuses this node");
                }
                RPCError::Unreachable(Unreachable::from_string(message))
            }
            Code::Unavailable | Code::Unimplemented | Code::InvalidArgument => {
                RPCError::Unreachable(Unreachable::from_string(message))
            }
            _ => RPCError::Network(NetworkError::from_string(message)),
        }
    }

    /// Waits for the answer to a snapshot for as long as chunks are taken, and then for its installation.
    async fn while_it_moves<T>(
        &self,
        progress: &Mutex<SnapshotProgress>,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RpcError> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let SnapshotProgress { at, ended } = *lock(progress);
            let ttl = Duration::from_millis(if ended {
                self.peers.config.snapshot_install_ms_max
            } else {
                self.peers.config.snapshot_silence_ms_max
            });
            match timeout_at(at + ttl, &mut answer).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => return Err(self.error(&status)),
                Err(_) if lock(progress).at > at => {}
                Err(_) => return Err(self.timed_out(RPCTypes::InstallSnapshot, ttl)),
            }
        }
    }

    /// The member says that its log is durable and agrees up to there. Noted before openraft hears it, so that the
    /// member is asked about no less than openraft takes for granted.
    fn note_matched(&self, term: u64, matched: Option<&LogId>) {
        if let Some(matched) = matched {
            self.peers.acknowledged.matched(term, self.target, matched.index);
        }
    }

    /// How long one request of the replication stream may stay unanswered. The answer waits for the peer's
    /// disk, so it is more than a call's.
    fn stream_ttl(&self) -> Duration {
        Duration::from_millis(
            self.peers
                .config
                .election_timeout_ms_max
                .max(self.peers.config.rpc_timeout_ms),
        ) * 2
    }

    fn call_ttl(&self) -> Duration {
        Duration::from_millis(self.peers.config.rpc_timeout_ms)
    }

    async fn replicate<S>(
        &self,
        mut input: S,
    ) -> Result<BoxStream<'static, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        // openraft tells the streams of a leader that has been deposed to end, and they may be asked for a request before
        // they hear of it. What they would look for then is from their last entry to the newest, which by then is one
        // of the next leader, perhaps before it: openraft takes that for its own mistake, and the node dies of it. The
        // vote for the next leader is stored before its entries are.
        let (log, leads) = (self.log.clone(), self.term);
        let (open, hold) = Open::new();
        // openraft may go back to entries that it had begun to send before it chose a snapshot instead, and which are purged by
        // then. It would find nothing and say so for ever. Told that it failed, it looks at what is to be sent now.
        let outdated = Arc::new(AtomicBool::new(false));
        let noticed = outdated.clone();
        let mut input = futures::stream::poll_fn(move |context| {
            open.unless_closed(|| {
                if log.reached().1 != leads {
                    reached!("network.former-leader-falls-silent");
                    return Poll::Ready(None);
                }
                let request = ready!(input.poll_next_unpin(context));
                if request
                    .as_ref()
                    .is_some_and(|request| log.has_purged_beyond(request))
                {
                    reached!("network.payload-purged");
                    noticed.store(true, Ordering::Relaxed);
                    return Poll::Ready(None);
                }
                Poll::Ready(request)
            })
        });
        // openraft pauses after failures before it yields the first request. A connection that is refused at once
        // would never ask for one, and a dead peer would be tried again without any pause.
        let Some(first) = input.next().await else {
            if outdated.load(Ordering::Relaxed) {
                return Err(purged().into());
            }
            return Ok(futures::stream::empty().boxed());
        };
        let term = first.vote.leader_id.term;
        let trace_parent = trace::of_entries(&first.entries);
        let input = futures::stream::iter([first]).chain(input);
        let ttl = self.stream_ttl();
        let unanswered: Arc<Mutex<VecDeque<Instant>>> = Arc::default();
        let sent = unanswered.clone();
        let mut header = self.header(Duration::ZERO);
        header.trace_parent = trace_parent;
        let mut header = Some(header);
        let peers = self.peers.clone();
        let requests = input.map(move |request| {
            lock(&sent).push_back(Instant::now());
            this_leader_committed(&peers, &request);
            convert::append_to_wire(request, header.take())
        });
        let mut client = self.client()?;
        let replies = self
            .call(RPCTypes::AppendEntries, ttl, client.stream_append(requests))
            .await?;

        let this = Network {
            peers: self.peers.clone(),
            log: self.log.clone(),
            term: self.term,
            target: self.target,
            addresses: self.addresses.clone(),
            purpose: self.purpose,
        };
        let state = Some((this, replies, unanswered, outdated, hold));
        Ok(futures::stream::unfold(state, move |state| async move {
            let (this, mut replies, unanswered, outdated, hold) = state?;
            loop {
                let reply = match timeout(ttl, replies.message()).await {
                    Ok(reply) => reply,
                    Err(_) => {
                        let oldest = lock(&unanswered).front().copied();
                        if oldest.is_some_and(|sent| sent.elapsed() >= ttl) {
                            reached!("network.replication-unanswered");
                            return Some((Err(this.timed_out(RPCTypes::AppendEntries, ttl)), None));
                        }
                        continue;
                    }
                };
                lock(&unanswered).pop_front();
                return match reply.and_then(|reply| reply.map(convert::append_reply_from_wire).transpose()) {
                    Ok(Some(Ok(matched))) => {
                        this.note_matched(term, matched.as_ref());
                        Some((Ok(Ok(matched)), Some((this, replies, unanswered, outdated, hold))))
                    }
                    Ok(Some(refused)) => {
                        reached!("network.replication-refused");
                        Some((Ok(refused), None))
                    }
                    Ok(None) if outdated.load(Ordering::Relaxed) => Some((Err(purged().into()), None)),
                    Ok(None) => None,
                    Err(status) => Some((Err(this.error(&status)), None)),
                };
            }
        })
        .boxed())
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let ttl = self.call_ttl();
        let term = rpc.vote.leader_id.term;
        this_leader_committed(&self.peers, &rpc);
        let request = convert::append_to_wire(rpc, Some(self.header(ttl)));
        let mut client = self.client()?;
        let reply = self
            .call(RPCTypes::AppendEntries, ttl, client.append(request))
            .await?;
        self.peers.backoff.answered(self.target);
        let result = convert::append_reply_from_wire(reply).map_err(|status| self.error(&status))?;
        Ok(match result {
            Ok(matched) => {
                self.note_matched(term, matched.as_ref());
                AppendEntriesResponse::PartialSuccess(matched)
            }
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.purpose == Purpose::Heartbeat {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let (peers, target) = (self.peers.clone(), self.target);
            match self.replicate(input).await {
                Ok(replies) => {
                    let noted = replies.inspect(move |reply| {
                        if reply.is_err() {
                            peers.backoff.failed(target);
                        }
                    });
                    Ok(noted.boxed())
                }
                Err(error) => {
                    peers.backoff.failed(target);
                    Err(error)
                }
            }
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        // A vote waits for the peer's disk.
        let ttl = self.stream_ttl();
        let request = convert::vote_request_to_wire(&rpc, self.header(ttl));
        let mut client = self.client()?;
        let reply = self.call(RPCTypes::Vote, ttl, client.vote(request)).await?;
        convert::vote_reply_from_wire(reply).map_err(|status| self.error(&status))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let ttl = self.call_ttl();
        let request = convert::vote_request_to_wire(&rpc, self.header(ttl));
        let mut client = self.client()?;
        let reply = self.call(RPCTypes::Vote, ttl, client.pre_vote(request)).await?;
        convert::vote_reply_from_wire(reply).map_err(|status| self.error(&status))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<LeaderTerm, u64, PeerAddresses, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::Outgoing(view) = snapshot.snapshot else {
            return Err(NetworkError::from_string("a snapshot being received cannot be sent on").into());
        };
        let config = &self.peers.config;
        let last = snapshot.meta.last_log_id.map_or(0, |id| id.index);
        let start = start_chunk(self.header(Duration::ZERO), &vote, &snapshot.meta);
        let failure: Arc<Mutex<Option<String>>> = Arc::default();
        // Said in the moment of the reading: the peer's answer may take long, or nobody may wait for it any more.
        let (fatal, target, noted_failure) = (self.peers.fatal.clone(), self.target, failure.clone());
        let unreadable = move |why: String| {
            reached!("snapshot.not-readable");
            // A leader that went on would keep this member without its state for ever, and no other could help it.
            fatal.report(format!(
                "the state cannot be read to send it to node {target}: {why}"
            ));
            *lock(&noted_failure) = Some(why);
        };
        let progress = Arc::new(Mutex::new(SnapshotProgress {
            at: Instant::now(),
            ended: false,
        }));
        let noted = progress.clone();
        let chunks = chunks(start, Walk::new(view, config.shard), unreadable).inspect(move |chunk| {
            *lock(&noted) = SnapshotProgress {
                at: Instant::now(),
                ended: matches!(chunk.part, Some(wire::snapshot_chunk::Part::End(_))),
            };
        });
        let mut client = self.client()?;
        self.peers.snapshot_begins(self.target, last);
        let answer = self.while_it_moves(&progress, client.install_snapshot(chunks));
        let reply = tokio::select! {
            biased;
            closed = cancel => {
                reached!("snapshot.send-cancelled");
                self.peers.snapshot_failed(self.target);
                return Err(closed.into());
            }
            reply = answer => reply,
        };
        if reply.is_err() {
            self.peers.snapshot_failed(self.target);
        }
        if let Some(why) = lock(&failure).take() {
            return Err(NetworkError::from_string(format!("the snapshot could not be read: {why}")).into());
        }
        match &reply {
            Ok(_) => reached!("snapshot.sent"),
            Err(_) => reached!("snapshot.send-failed"),
        }
        let vote = convert::vote_from_wire(reply?.vote).map_err(|status| self.error(&status))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        use wire::transfer_leader_reply::Result as Kind;
        let ttl = self.stream_ttl();
        let mut header = self.header(ttl);
        header.trace_parent.clone_from(&lock(&self.peers.transferring));
        let request = wire::TransferLeaderRequest {
            header: Some(header),
            from_leader: Some(convert::vote_to_wire(req.from_leader())),
            to_node: *req.to_node_id(),
            last_log_id: req.last_log_id().map(convert::log_id_to_wire),
        };
        let mut client = self.client()?;
        let reply = self
            .call(RPCTypes::TransferLeader, ttl, client.transfer_leader(request))
            .await?;
        Ok(match reply.result {
            Some(Kind::Accepted(_)) => Ok(()),
            Some(Kind::VoteChanged(vote)) => Err(TransferLeaderError::VoteChanged {
                expected: *req.from_leader(),
                actual: convert::vote_from_wire(Some(vote)).map_err(|status| self.error(&status))?,
            }),
            Some(Kind::LogNotFlushed(actual)) => Err(TransferLeaderError::LogNotFlushed {
                expected: req.last_log_id().copied(),
                actual: actual.log_id.map(convert::log_id_from_wire),
            }),
            None => return Err(self.error(&Status::internal("a peer gave no answer this release knows"))),
        })
    }
}

/// When a snapshot's last chunk was taken, and whether it was the end.
#[derive(Clone, Copy)]
struct SnapshotProgress {
    at: Instant,
    ended: bool,
}

/// A quorum holds what a leader calls committed.
fn this_leader_committed(peers: &Peers, request: &AppendEntriesRequest<TypeConfig>) {
    if let Some(committed) = request.leader_commit {
        peers
            .acknowledged
            .committed(request.vote.leader_id.term, committed.index);
    }
}

fn start_chunk(header: wire::PeerHeader, vote: &Vote, meta: &SnapshotMeta) -> wire::SnapshotStart {
    wire::SnapshotStart {
        header: Some(header),
        vote: Some(convert::vote_to_wire(vote)),
        last_log_id: meta.last_log_id.as_ref().map(convert::log_id_to_wire),
        membership: codec::encode(&meta.last_membership),
    }
}

/// A snapshot as a stream: start, rows, end. If reading fails `unreadable` hears why, and there is no end, so nobody takes
/// it for whole.
fn chunks(
    start: wire::SnapshotStart,
    walk: Walk,
    unreadable: impl Fn(String) + Clone + Send + 'static,
) -> impl Stream<Item = wire::SnapshotChunk> + Send + 'static {
    use wire::snapshot_chunk::Part;

    struct State {
        start: Option<wire::SnapshotStart>,
        walk: Walk,
        rows: u64,
        digest: blake3::Hasher,
        ended: bool,
    }

    let state = State {
        start: Some(start),
        walk,
        rows: 0,
        digest: blake3::Hasher::new(),
        ended: false,
    };
    futures::stream::unfold(state, move |mut state| {
        let unreadable = unreadable.clone();
        async move {
            if state.ended {
                return None;
            }
            if let Some(start) = state.start.take() {
                return Some((
                    wire::SnapshotChunk {
                        part: Some(Part::Start(start)),
                    },
                    state,
                ));
            }
            let part = match state.walk.next_chunk() {
                Ok(Some((family, rows))) => {
                    let checksum = chunk_checksum(rows.iter().map(|(key, value)| (key, value)));
                    state.digest.update(&checksum.to_be_bytes());
                    state.rows += rows.len() as u64;
                    let rows = rows
                        .into_iter()
                        .map(|(key, value)| wire::SnapshotRow { key, value })
                        .collect();
                    Part::Rows(wire::SnapshotRows {
                        family: u32::from(family as u8),
                        rows,
                        checksum,
                    })
                }
                Ok(None) => {
                    state.ended = true;
                    let digest = bytes::Bytes::copy_from_slice(state.digest.finalize().as_bytes());
                    Part::End(wire::SnapshotEnd {
                        rows: state.rows,
                        digest,
                    })
                }
                Err(error) => {
                    unreadable(error.to_string());
                    return None;
                }
            };
            crash_point!("snapshot.sending").await;
            Some((wire::SnapshotChunk { part: Some(part) }, state))
        }
    })
}

fn purged() -> NetworkError<TypeConfig> {
    NetworkError::from_string("what was to be sent is purged")
}

/// Whether anybody still hears the replies to a stream of requests.
///
/// Whoever carries a stream to a peer goes on asking for requests when the replies have ended already. By then openraft
/// takes nothing for under way to this follower any more and may have purged what comes next, which the stream would pass
/// over: a request with a hole in it.
#[derive(Clone)]
struct Open(Arc<Mutex<bool>>);

/// Keeps it open until it is dropped.
struct Hold(Open);

impl Open {
    fn new() -> (Self, Hold) {
        let open = Open(Arc::new(Mutex::new(true)));
        (open.clone(), Hold(open))
    }

    /// The next request. Whoever closes meanwhile waits until it is made.
    fn unless_closed<T>(&self, next: impl FnOnce() -> Poll<Option<T>>) -> Poll<Option<T>> {
        let open = lock(&self.0);
        if *open {
            return next();
        }
        reached!("network.nobody-hears-the-replies");
        Poll::Ready(None)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        *lock(&self.0.0) = false;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_ends_when_nobody_hears_its_replies() {
        let (open, hold) = Open::new();
        let mut asked = 0;
        let mut ask = || {
            open.unless_closed(|| {
                asked += 1;
                Poll::Ready(Some(asked))
            })
        };
        assert_eq!(ask(), Poll::Ready(Some(1)));
        assert_eq!(ask(), Poll::Ready(Some(2)));
        drop(hold);
        assert_eq!(ask(), Poll::Ready(None));
        assert_eq!(asked, 2, "openraft is not asked any more");
    }
}
