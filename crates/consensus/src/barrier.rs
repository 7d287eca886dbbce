//! Read barriers: how a read learns that it sees everything acknowledged before it began.
//!
//! The leader confirms with a quorum that it still leads (Raft's ReadIndex), *after* the read arrived; the
//! index it then names must be applied before the read looks. All reads that wait when a round begins share
//! it, and those that come later wait for the next: a round costs the same for one reader as for a thousand. The next begins
//! while the answers to this one are on their way ([`ROUNDS_AT_ONCE`]).
//!
//! There are two queues. [`LeaderRounds`](crate::leader_rounds::LeaderRounds) runs the leader's quorum rounds, for its own readers and for
//! followers that ask. [`Barrier`] serves this node's readers, whoever leads: it asks the leader, here or by
//! message, and waits for this node's own apply. It also knows how stale this node's state can be at most: at
//! the moment a round began, everything acknowledged had an index no higher than the round's answer. Measured
//! that way, on one clock, the bound holds whatever the network delayed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use holdfast_markers::{planted, reached};
use holdfast_types::NodeId;
use holdfast_wire::internal as wire;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::apply::Applied;
use crate::convert;
use crate::error::BarrierError;
use crate::lane::Lane;
use crate::leader_rounds::{LeaderError, LeaderRounds, ROUNDS_AT_ONCE};
use crate::log_store::LogStore;
use crate::peers::{Peers, Purpose};
use crate::runtime::{Shared, stopped, timeout, timeout_at};
use crate::status::ReadPoint;
use crate::trace;
use crate::type_config::Raft;
use crate::{ConsensusConfig, FatalSink};

/// The pause before a round is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// The part of what is left of the deadline that one attempt may take.
const ATTEMPT_SHARE: u32 = 4;
/// Rounds remembered whose answer is not applied yet.
const POINTS_MAX: usize = 64;

/// What a round found: reads need this index; the term, if this node leads.
type Round = (u64, Option<u64>);

struct Reader {
    deadline: Instant,
    trace_parent: String,
    reply: oneshot::Sender<Result<Round, BarrierError>>,
}

/// This node's readers.
#[derive(Clone)]
pub(crate) struct Barrier {
    queue: mpsc::UnboundedSender<Reader>,
    applied: Arc<Applied>,
    /// When rounds began, and what they answered, in the order of their answers: of two at a time the second may be first, which
    /// makes staleness no less than it is.
    points: Arc<Mutex<VecDeque<(Instant, u64)>>>,
    /// How many readers wait.
    readers: Arc<AtomicU64>,
    /// True once this node is being stopped.
    stopping: watch::Receiver<bool>,
}

impl Barrier {
    pub(crate) fn start(
        raft: Raft,
        log: LogStore,
        rounds: LeaderRounds,
        peers: Arc<Peers>,
        recovered: watch::Receiver<bool>,
        stopping: watch::Receiver<bool>,
        fatal: FatalSink,
    ) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let points: Arc<Mutex<VecDeque<(Instant, u64)>>> = Arc::default();
        let applied = peers.applied.clone();
        let waiting = Shared::new(waiting);
        for _ in 0..ROUNDS_AT_ONCE {
            let task = Rounds {
                raft: raft.clone(),
                log: log.clone(),
                rounds: rounds.clone(),
                peers: peers.clone(),
                lane: None,
                recovered: recovered.clone(),
                stopping: stopping.clone(),
                waiting: waiting.clone(),
                points: points.clone(),
            };
            tokio::spawn(fatal.clone().guard("the read barrier", task.run()));
        }
        Barrier {
            queue,
            applied,
            points,
            readers: Arc::default(),
            stopping,
        }
    }

    /// Passes a barrier; see [`Group::read_barrier`](crate::Group::read_barrier).
    pub(crate) async fn pass(&self, deadline: Instant) -> Result<ReadPoint, BarrierError> {
        let _counted = Counted::begin(&self.readers);
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(Reader {
                deadline,
                trace_parent: trace::current(),
                reply,
            })
            .map_err(|_| BarrierError::Stopped)?;
        let passed = async {
            let (index, term) = answer.await.map_err(|_| BarrierError::Stopped)??;
            if index >= self.applied.next_index() {
                reached!("barrier.waited-for-apply");
                tokio::select! {
                    biased;
                    () = self.applied.wait(index) => {}
                    // Nothing is applied any more.
                    () = stopped(self.stopping.clone()) => return Err(BarrierError::Stopped),
                }
            }
            Ok(ReadPoint { index, term })
        };
        timeout_at(deadline, passed)
            .await
            .unwrap_or(Err(BarrierError::Timeout))
    }

    /// How many readers wait.
    pub(crate) fn readers(&self) -> u64 {
        self.readers.load(Ordering::Relaxed)
    }

    /// How old the newest confirmed moment is that is applied here.
    pub(crate) fn staleness(&self) -> Option<Duration> {
        let next_index = self.applied.next_index();
        let mut points = lock(&self.points);
        let newest = points.iter().rposition(|(_, index)| *index < next_index)?;
        points.drain(..newest);
        points.front().map(|(began, _)| began.elapsed())
    }
}

/// One that waits, until it is dropped.
struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    fn begin(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The way to the leader, if that is another node.
struct LeaderLane {
    address: String,
    lane: Lane<wire::ReadIndexRequest, wire::ReadIndexReply>,
}

struct Rounds {
    raft: Raft,
    log: LogStore,
    rounds: LeaderRounds,
    peers: Arc<Peers>,
    lane: Option<LeaderLane>,
    recovered: watch::Receiver<bool>,
    stopping: watch::Receiver<bool>,
    waiting: Shared<Reader>,
    points: Arc<Mutex<VecDeque<(Instant, u64)>>>,
}

impl Rounds {
    async fn run(mut self) {
        while let Some(mut readers) = self.waiting.take().await {
            readers.retain(|reader| !reader.reply.is_closed());
            let Some(deadline) = readers.iter().map(|reader| reader.deadline).max() else {
                continue;
            };
            metrics::histogram!("holdfast_barrier_batch_readers").record(readers.len() as f64);
            let trace_parent = readers.first().map_or("", |reader| &reader.trace_parent);
            // Without a leader to ask, a node that is being stopped would try again until its readers give up.
            let result = tokio::select! {
                biased;
                () = stopped(self.stopping.clone()) => {
                    reached!("barrier.stopped");
                    Err(BarrierError::Stopped)
                }
                result = self.round(deadline, trace_parent) => result,
            };
            for reader in readers {
                // A reader that gave up meanwhile needs no answer.
                drop(reader.reply.send(result.clone()));
            }
        }
    }

    /// One round, tried again until it succeeds or the last of its readers has given up. Every attempt begins
    /// after all of them arrived, so the first success serves all.
    async fn round(&mut self, deadline: Instant, trace_parent: &str) -> Result<Round, BarrierError> {
        if !*self.recovered.borrow() {
            reached!("barrier.waited-for-recovery");
        }
        let mut why = String::from("this node has not yet applied again what it had acknowledged");
        if timeout_at(deadline, self.recovered.wait_for(|recovered| *recovered))
            .await
            .is_err()
        {
            return Err(BarrierError::NoLeader { why });
        }
        loop {
            let began = Instant::now();
            if began >= deadline {
                return Err(BarrierError::NoLeader { why });
            }
            match self.attempt(deadline, trace_parent).await {
                Ok((index, term)) => {
                    metrics::histogram!("holdfast_barrier_seconds").record(began.elapsed().as_secs_f64());
                    let mut points = lock(&self.points);
                    if points.len() == POINTS_MAX {
                        points.pop_front();
                    }
                    points.push_back((began, index));
                    return Ok((index, term));
                }
                Err(error) => why = error,
            }
            reached!("barrier.tried-again");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn attempt(&mut self, deadline: Instant, trace_parent: &str) -> Result<Round, String> {
        let (leader, address) = {
            let receiver = self.raft.metrics();
            let metrics = receiver.borrow_watched();
            let leader = metrics.current_leader;
            let node = leader.and_then(|id| metrics.membership_config.get_node(&id).cloned());
            (leader, node)
        };
        let remaining = deadline.saturating_duration_since(Instant::now());
        let ttl = attempt_ttl(remaining, &self.peers.config);
        match (leader, address) {
            (Some(id), _) if id == self.peers.config.node_id => {
                match timeout(ttl, self.rounds.join()).await {
                    Ok(Ok(id)) => Ok((id.index, Some(id.leader_id.term))),
                    Ok(Err(LeaderError::NotLeader(_))) => Err("this node has just been deposed".into()),
                    Ok(Err(LeaderError::Failed(why))) => Err(why),
                    Err(_) => {
                        reached!("barrier.quorum-silent");
                        Err("no quorum confirmed this leader".into())
                    }
                }
            }
            (Some(_), _) if planted!("stale-follower-read") => {
                Ok((self.peers.applied.next_index().saturating_sub(1), None))
            }
            // One that is cut off answers late or never. Who was elected meanwhile is asked at once.
            (Some(id), Some(addresses)) => {
                let succeeded = succeeded(self.raft.clone(), id);
                tokio::select! {
                    biased;
                    answer = self.ask(id, addresses.peer, ttl, trace_parent) => answer,
                    () = succeeded => Err(format!("another node leads instead of node {id}")),
                }
            }
            (Some(id), None) => Err(format!(
                "the address of the leader, node {id}, is not known here yet"
            )),
            (None, _) => Err("there is no leader".into()),
        }
    }

    /// Asks the leader. Of the node's own vote it says what holds after all of these reads began.
    async fn ask(
        &mut self,
        leader: NodeId,
        address: String,
        ttl: Duration,
        trace_parent: &str,
    ) -> Result<Round, String> {
        use wire::read_index_reply::Result as Kind;
        let mut header = self.peers.header(leader, None, ttl);
        header.trace_parent = trace_parent.to_owned();
        let request = wire::ReadIndexRequest {
            header: Some(header),
            voted_term: self.log.reached().1,
        };
        // Taken out: if nobody waits for the answer any more, the next question must not get it.
        let known = self.lane.take().filter(|lane| lane.address == address);
        let mut lane = match known {
            Some(lane) => lane,
            None => {
                let mut client = self
                    .peers
                    .client(&address, Purpose::Common)
                    .map_err(|status| status.to_string())?;
                LeaderLane {
                    address,
                    lane: Lane::open(|questions| async move { client.read_index(questions).await }),
                }
            }
        };
        if !lane.lane.ask(request) {
            return Err(format!("the stream to the leader, node {leader}, has ended"));
        }
        match timeout(ttl, lane.lane.answer()).await {
            Ok(Ok(reply)) => {
                self.lane = Some(lane);
                match reply.result {
                    Some(Kind::ReadLogId(id)) => {
                        reached!("barrier.passed-by-asking");
                        Ok((convert::log_id_from_wire(id).index, None))
                    }
                    Some(Kind::NotLeader(_)) => {
                        reached!("barrier.asked-one-deposed");
                        Err(format!("node {leader} does not lead any more"))
                    }
                    None => Err(format!("node {leader} gave no answer this release knows")),
                }
            }
            Ok(Err(status)) => Err(format!("the leader, node {leader}, did not answer: {status}")),
            Err(_) => {
                reached!("barrier.leader-silent");
                Err(format!("the leader, node {leader}, did not answer in time"))
            }
        }
    }
}

/// Waits until another node than `leader` leads.
async fn succeeded(raft: Raft, leader: NodeId) {
    let mut receiver = raft.metrics();
    loop {
        let now = receiver.borrow_and_update().current_leader;
        if now.is_some_and(|now| now != leader) {
            return;
        }
        if receiver.changed().await.is_err() {
            // Raft has ended; the deadline will, too.
            std::future::pending::<()>().await;
        }
    }
}

/// How long one attempt may take: never all there is, so that a leader that has just died leaves time for the next,
/// but long enough for an answer.
fn attempt_ttl(remaining: Duration, config: &ConsensusConfig) -> Duration {
    let least = Duration::from_millis(config.heartbeat_interval_ms * 2);
    let most = Duration::from_millis(config.election_timeout_ms_max);
    (remaining / ATTEMPT_SHARE).max(least).min(most).min(remaining)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use holdfast_types::ClusterId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_attempt_leaves_time_for_the_next_leader() {
        let config = ConsensusConfig::new(ClusterId(Uuid::nil()), 1);
        let ttl = |ms| attempt_ttl(Duration::from_millis(ms), &config).as_millis();
        assert_eq!(ttl(30_000), 1_000);
        assert_eq!(ttl(1_200), 300);
        assert_eq!(ttl(400), 200);
        assert_eq!(ttl(50), 50);
    }
}
