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
//!
//! A round that fails is tried again, then also for those who came meanwhile, and without those who gave up. Whose index is not applied for
//! long asks for another round, because that index may be one that no leader ever commits.

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

struct Reader {
    deadline: Instant,
    trace_parent: String,
    /// What its round found, which is not applied here yet.
    reply: oneshot::Sender<Result<ReadPoint, BarrierError>>,
}

/// Those whom a round serves.
struct Readers(Vec<Reader>);

impl Readers {
    /// Forgets those that gave up. Returns until when the last of the others waits, if there is one.
    fn wait_until(&mut self) -> Option<Instant> {
        self.0.retain(|reader| !reader.reply.is_closed());
        self.0.iter().map(|reader| reader.deadline).max()
    }

    fn serve(self, result: &Result<ReadPoint, BarrierError>) {
        for reader in self.0 {
            // A reader that gave up meanwhile needs no answer.
            drop(reader.reply.send(result.clone()));
        }
    }
}

/// When rounds began, and which index they answered, in the order of their answers: of two at a time the second may be first, which
/// makes staleness no less than it is.
#[derive(Debug, Default)]
struct Points(VecDeque<(Instant, u64)>);

impl Points {
    /// Remembers a round, and forgets those before it with an answer no less, which say nothing that it does not. If there are too many
    /// whose answers are not applied, one between is forgotten: the first is the first to be applied, and without it nothing would be
    /// known until then.
    fn note(&mut self, began: Instant, index: u64, next_index: u64) {
        self.forget_before_applied(next_index);
        while self.0.back().is_some_and(|(_, last)| *last >= index) {
            self.0.pop_back();
        }
        if self.0.len() == POINTS_MAX {
            self.0.remove(1);
        }
        self.0.push_back((began, index));
    }

    /// When the newest began whose answer is applied.
    fn newest_applied(&mut self, next_index: u64) -> Option<Instant> {
        self.forget_before_applied(next_index);
        let (began, index) = self.0.front()?;
        (*index < next_index).then_some(*began)
    }

    /// What is before the newest applied tells nothing more.
    fn forget_before_applied(&mut self, next_index: u64) {
        if let Some(newest) = self.0.iter().rposition(|(_, index)| *index < next_index) {
            self.0.drain(..newest);
        }
    }
}

/// This node's readers.
#[derive(Clone)]
pub(crate) struct Barrier {
    queue: mpsc::UnboundedSender<Reader>,
    applied: Arc<Applied>,
    points: Arc<Mutex<Points>>,
    /// How long a reader waits for its index to be applied before it asks for another.
    ask_again: Duration,
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
        let points: Arc<Mutex<Points>> = Arc::default();
        let ask_again = Duration::from_millis(peers.config.election_timeout_ms_max);
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
            ask_again,
            readers: Arc::default(),
            stopping,
        }
    }

    /// Passes a barrier; see [`Group::read_barrier`](crate::Group::read_barrier).
    pub(crate) async fn pass(&self, deadline: Instant) -> Result<ReadPoint, BarrierError> {
        let _counted = Counted::begin(&self.readers);
        timeout_at(deadline, self.passed(deadline))
            .await
            .unwrap_or(Err(BarrierError::Timeout))
    }

    async fn passed(&self, deadline: Instant) -> Result<ReadPoint, BarrierError> {
        let mut point = self.join(deadline).await?;
        loop {
            if point.index < self.applied.next_index() {
                return Ok(point);
            }
            reached!("barrier.waited-for-apply");
            let another = async {
                tokio::time::sleep(self.ask_again).await;
                self.join(deadline).await
            };
            tokio::select! {
                biased;
                () = self.applied.wait(point.index) => return Ok(point),
                // Nothing is applied any more.
                () = stopped(self.stopping.clone()) => return Err(BarrierError::Stopped),
                // A new leader names its last entry until it has committed one, and if it dies that entry may never be: then nobody
                // acknowledged it either, and the next leader's answer is less. Any round's answer will do that began after the read.
                another = another => {
                    let another = another?;
                    if another.index < point.index {
                        reached!("barrier.index-never-committed");
                        point = another;
                    }
                }
            }
        }
    }

    /// Waits for a round that begins after this call.
    async fn join(&self, deadline: Instant) -> Result<ReadPoint, BarrierError> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(Reader {
                deadline,
                trace_parent: trace::current(),
                reply,
            })
            .map_err(|_| BarrierError::Stopped)?;
        answer.await.map_err(|_| BarrierError::Stopped)?
    }

    /// How many readers wait.
    pub(crate) fn readers(&self) -> u64 {
        self.readers.load(Ordering::Relaxed)
    }

    /// How old the newest confirmed moment is that is applied here.
    pub(crate) fn staleness(&self) -> Option<Duration> {
        let newest = lock(&self.points).newest_applied(self.applied.next_index());
        newest.map(|began| began.elapsed())
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
    points: Arc<Mutex<Points>>,
}

impl Rounds {
    async fn run(mut self) {
        while let Some(readers) = self.waiting.take().await {
            let mut readers = Readers(readers);
            // Without a leader to ask, a node that is being stopped would try again until its readers give up.
            let result = tokio::select! {
                biased;
                () = stopped(self.stopping.clone()) => {
                    reached!("barrier.stopped");
                    Err(BarrierError::Stopped)
                }
                result = self.round(&mut readers) => result,
            };
            if planted!("round-answers-later-readers") {
                readers.0.extend(self.waiting.take_waiting());
            }
            readers.serve(&result);
        }
    }

    /// One round, tried again until it succeeds or the last of its readers has given up. Every attempt begins
    /// after all of them arrived, so the first success serves all.
    async fn round(&mut self, readers: &mut Readers) -> Result<ReadPoint, BarrierError> {
        let mut why = String::from("this node has not yet applied again what it had acknowledged");
        let Some(deadline) = readers.wait_until() else {
            return Err(BarrierError::NoLeader { why });
        };
        metrics::histogram!("holdfast_barrier_batch_readers").record(readers.0.len() as f64);
        if !*self.recovered.borrow() {
            reached!("barrier.waited-for-recovery");
        }
        if timeout_at(deadline, self.recovered.wait_for(|recovered| *recovered))
            .await
            .is_err()
        {
            return Err(BarrierError::NoLeader { why });
        }
        loop {
            // Those that gave up keep this round no longer than those that wait.
            let Some(deadline) = readers.wait_until() else {
                return Err(BarrierError::NoLeader { why });
            };
            let began = Instant::now();
            if began >= deadline {
                return Err(BarrierError::NoLeader { why });
            }
            let trace_parent = readers.0.first().map_or("", |reader| &reader.trace_parent);
            match self.attempt(deadline, trace_parent).await {
                Ok(point) => {
                    metrics::histogram!("holdfast_barrier_seconds").record(began.elapsed().as_secs_f64());
                    let next_index = self.peers.applied.next_index();
                    lock(&self.points).note(began, point.index, next_index);
                    return Ok(point);
                }
                Err(error) => why = error,
            }
            reached!("barrier.tried-again");
            tokio::time::sleep(RETRY_PAUSE).await;
            // While none succeeds, all rounds that may be under way are tried again like this one, and nobody else takes those who come.
            let more = self.waiting.take_waiting();
            if !more.is_empty() {
                reached!("barrier.joined-by-more");
            }
            readers.0.extend(more);
        }
    }

    async fn attempt(&mut self, deadline: Instant, trace_parent: &str) -> Result<ReadPoint, String> {
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
                    Ok(Ok(id)) => Ok(ReadPoint {
                        index: id.index,
                        term: Some(id.leader_id.term),
                    }),
                    Ok(Err(LeaderError::NotLeader(_))) => Err("this node has just been deposed".into()),
                    Ok(Err(LeaderError::Failed(why))) => Err(why),
                    Err(_) => {
                        reached!("barrier.quorum-silent");
                        Err("no quorum confirmed this leader".into())
                    }
                }
            }
            (Some(_), _) if planted!("stale-follower-read") => {
                let index = self.peers.applied.next_index().saturating_sub(1);
                Ok(ReadPoint { index, term: None })
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
    ) -> Result<ReadPoint, String> {
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
                        let index = convert::log_id_from_wire(id).index;
                        Ok(ReadPoint { index, term: None })
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

    /// A node's barrier whose rounds answer these indexes, one after the other.
    fn answering(indexes: Vec<u64>) -> (Barrier, Arc<Applied>, watch::Sender<bool>) {
        let (queue, mut waiting) = mpsc::unbounded_channel::<Reader>();
        let applied = Applied::nothing();
        let reached = applied.clone();
        tokio::spawn(async move {
            let first = indexes.first().copied();
            for index in indexes {
                let reader = waiting.recv().await.unwrap();
                drop(reader.reply.send(Ok(at(index))));
            }
            // Who asks once more waits, and meanwhile what it was told first is applied, unless more is.
            let _last = waiting.recv().await;
            if let Some(first) = first.filter(|first| reached.next_index() <= *first) {
                reached.reach(first);
            }
            std::future::pending::<()>().await;
        });
        let (stop, stopping) = watch::channel(false);
        let barrier = Barrier {
            queue,
            applied: applied.clone(),
            points: Arc::default(),
            ask_again: Duration::from_millis(5),
            readers: Arc::default(),
            stopping,
        };
        (barrier, applied, stop)
    }

    fn at(index: u64) -> ReadPoint {
        ReadPoint { index, term: None }
    }

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn an_index_that_is_never_committed_is_not_waited_for() {
        let (barrier, applied, _stop) = answering(vec![301, 202]);
        applied.reach(202);
        assert_eq!(barrier.pass(in_a_minute()).await, Ok(at(202)));
    }

    #[tokio::test]
    async fn who_lags_behind_waits_for_the_first_answer_though_it_asks_again() {
        let (barrier, _, _stop) = answering(vec![7, 20, 30]);
        assert_eq!(barrier.pass(in_a_minute()).await, Ok(at(7)));
    }

    #[test]
    fn readers_that_gave_up_keep_nobody_waiting() {
        let now = Instant::now();
        let reader = |seconds| {
            let (reply, answer) = oneshot::channel();
            let reader = Reader {
                deadline: now + Duration::from_secs(seconds),
                trace_parent: String::new(),
                reply,
            };
            (reader, answer)
        };
        let (patient, gives_up) = reader(60);
        let (other, _waits) = reader(2);
        let mut readers = Readers(vec![patient, other]);
        assert_eq!(readers.wait_until(), Some(now + Duration::from_secs(60)));
        drop(gives_up);
        assert_eq!(readers.wait_until(), Some(now + Duration::from_secs(2)));
        assert_eq!(readers.0.len(), 1);
    }

    #[test]
    fn staleness_stays_known_however_many_rounds_an_apply_is_behind() {
        let began = |number: u64| Instant::now() + Duration::from_secs(number);
        let first = began(0);
        let mut points = Points::default();
        points.note(first, 5, 0);
        assert_eq!(points.newest_applied(5), None, "it is not applied");
        for number in 1..=1_000 {
            points.note(began(number), 5 + number, 6);
            assert_eq!(points.newest_applied(6), Some(first), "round {number}");
        }
        assert_eq!(points.0.len(), POINTS_MAX);
        let newest = points.newest_applied(1_006).unwrap();
        assert!(newest > began(900), "what is applied is forgotten");
        assert_eq!(points.0.len(), 1);

        // An index that is never committed is in nobody's way.
        let mut points = Points::default();
        points.note(first, 301, 202);
        for number in 1..=100 {
            points.note(began(number), 202, 202);
        }
        assert!(points.newest_applied(203).unwrap() > began(90));

        // Nothing is applied for long: the first is the first to be.
        let mut points = Points::default();
        for number in 0..1_000 {
            points.note(if number == 0 { first } else { began(number) }, number, 0);
        }
        assert_eq!(points.newest_applied(1), Some(first));
    }

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
