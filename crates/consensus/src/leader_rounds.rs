//! Whether this node still leads.
//!
//! A leader may answer a read from its own state if nobody succeeded it before the read began (ReadIndex; Ongaro's
//! dissertation, 6.4). So it asks the other voters, and what it needs of each is one number: the term of its vote. A
//! vote is noted ([`LogStore::reached`](crate::log_store::LogStore::reached)) before the candidate hears of it, so a voter
//! that answers with this leader's term, or an earlier one, has not helped to elect a later leader yet; and a later one needs a quorum, one
//! of which is among those that answered.
//!
//! openraft's own rounds ask with a heartbeat, which is a call to every member that goes through Raft there. This is a message
//! on a stream that stays open, to as few voters as are a quorum: first those that answered last, and the others as soon as
//! one of these is slow or says something else. A follower that asks for itself says the term of its own vote, which
//! its reads had begun before: of three voters it and the leader are a quorum, and nobody else need be asked.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use holdfast_markers::{planted, reached};
use holdfast_types::NodeId;
use holdfast_wire::internal as wire;
use openraft::async_runtime::WatchReceiver;
use openraft::{RaftState, ServerState};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tonic::Status;

use crate::lane::Lane;
use crate::peers::{Peers, Purpose};
use crate::runtime::{Shared, stopped, timeout};
use crate::type_config::{LogId, Raft, StoredMembership, TypeConfig};
use crate::{FatalSink, PeerAddresses};

/// Rounds that are under way at a time. With one, all readers but those of the next round wait for the same answer, are served
/// together, ask again together, and meanwhile either the node or its clients have nothing to do. With two, some are
/// served while others wait; more give no more.
pub(crate) const ROUNDS_AT_ONCE: usize = 2;

/// How long those that were asked first may take before the others are asked too.
const PATIENCE: Duration = Duration::from_millis(10);

/// Why a leader's round failed.
#[derive(Debug, Clone)]
pub(crate) enum LeaderError {
    /// This node does not lead; perhaps that one does.
    NotLeader(Option<NodeId>),
    /// It leads but no quorum confirmed it, or it is stopping.
    Failed(String),
}

type LeaderReply = oneshot::Sender<Result<LogId, LeaderError>>;

/// A voter's word that it had voted in no term later than this, given after the reads began that it asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vouched {
    pub(crate) node: NodeId,
    pub(crate) term: u64,
}

/// The leader's quorum rounds.
#[derive(Clone)]
pub(crate) struct LeaderRounds {
    queue: mpsc::UnboundedSender<LeaderReply>,
    core: Core,
}

impl LeaderRounds {
    pub(crate) fn start(
        raft: Raft,
        peers: Arc<Peers>,
        stopping: watch::Receiver<bool>,
        fatal: FatalSink,
    ) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel::<LeaderReply>();
        let core = Core {
            raft,
            node: peers.config.node_id,
            fatal: fatal.clone(),
        };
        let waiting = Shared::new(waiting);
        for _ in 0..ROUNDS_AT_ONCE {
            let rounds = Rounds {
                core: core.clone(),
                peers: peers.clone(),
                number: 0,
                membership: None,
                voters: Vec::new(),
            };
            let serves = rounds.serve(waiting.clone(), stopping.clone());
            tokio::spawn(fatal.clone().guard("the leader's rounds", serves));
        }
        LeaderRounds { queue, core }
    }

    /// Waits for a round that begins after this call.
    pub(crate) async fn join(&self) -> Result<LogId, LeaderError> {
        let stopped = || LeaderError::Failed("this node is stopping".into());
        let (sender, receiver) = oneshot::channel();
        self.queue.send(sender).map_err(|_| stopped())?;
        receiver.await.map_err(|_| stopped())?
    }

    /// The same for a voter that vouches for the leader, if it does; nobody else is asked then whose word is not needed.
    pub(crate) async fn join_vouching(&self, vouched: Vouched) -> Result<LogId, LeaderError> {
        let standing = self.core.standing().await?;
        if standing.is_confirmed_by(vouched.term) && standing.is_quorum(&[self.core.node, vouched.node]) {
            reached!("barrier.vouched-for");
            return Ok(standing.read);
        }
        self.join().await
    }
}

/// Where a node's Raft is asked whether it leads.
#[derive(Clone)]
struct Core {
    raft: Raft,
    node: NodeId,
    fatal: FatalSink,
}

impl Core {
    /// Whether Raft has not said otherwise lately.
    fn seems_to_lead(&self, term: u64) -> bool {
        let receiver = self.raft.metrics();
        let metrics = receiver.borrow_watched();
        metrics.current_term == term && metrics.current_leader == Some(self.node)
    }

    /// How this node leads at a moment after the call.
    async fn standing(&self) -> Result<Standing, LeaderError> {
        let node = self.node;
        let asked = self.raft.with_raft_state(move |state| Standing::of(state, node));
        match self.fatal.unless_failed(asked).await {
            Some(Ok(Some(standing))) => Ok(standing),
            Some(Ok(None)) => {
                reached!("barrier.deposed");
                let leader = self.raft.metrics().borrow_watched().current_leader;
                Err(LeaderError::NotLeader(leader.filter(|leader| *leader != node)))
            }
            Some(Err(error)) => Err(LeaderError::Failed(error.to_string())),
            None => Err(LeaderError::Failed("this node has failed".into())),
        }
    }
}

/// A leader, at one moment.
struct Standing {
    term: u64,
    /// No member has applied anything behind it, and nothing behind it was acknowledged.
    read: LogId,
    membership: Arc<StoredMembership>,
}

impl Standing {
    /// `None`: `node` does not lead.
    fn of(state: &RaftState<TypeConfig>, node: NodeId) -> Option<Self> {
        let vote = state.vote_ref();
        let leads = state.server_state == ServerState::Leader && vote.committed;
        if !leads || vote.leader_id.voted_for != node {
            return None;
        }
        let term = vote.leader_id.term;
        // What earlier leaders committed it knows only once the first entry of its own term is; that one comes after it.
        let committed = state
            .cluster_committed()
            .filter(|id| id.leader_id.term == term || planted!("read-before-own-entry-committed"));
        Some(Standing {
            term,
            read: *committed.or(state.log_ids.last())?,
            membership: state.membership_state.effective().clone(),
        })
    }

    /// Whether a voter that has voted in no term later than this has not helped to elect a later leader.
    fn is_confirmed_by(&self, voted_term: u64) -> bool {
        voted_term <= self.term || planted!("later-vote-overlooked")
    }

    fn is_quorum(&self, nodes: &[NodeId]) -> bool {
        self.is_quorum_of(|id| nodes.contains(id))
    }

    /// Whether a quorum is left when these do not confirm.
    fn can_be_confirmed_without(&self, nodes: &[NodeId]) -> bool {
        self.is_quorum_of(|id| !nodes.contains(id))
    }

    fn is_quorum_of(&self, counts: impl Fn(&NodeId) -> bool) -> bool {
        let configs = self.membership.get_joint_config();
        configs.iter().all(|config| {
            let counted = config.iter().filter(|id| counts(id)).count();
            counted * 2 > config.len()
        })
    }
}

struct Rounds {
    core: Core,
    peers: Arc<Peers>,
    /// Of the last round.
    number: u64,
    /// What `voters` was made from.
    membership: Option<Arc<StoredMembership>>,
    /// All but this node, those first that answered last.
    voters: Vec<Voter>,
}

impl Rounds {
    /// One round after another, each for all who wait when it begins.
    async fn serve(mut self, waiting: Shared<LeaderReply>, stopping: watch::Receiver<bool>) {
        let mut stopped = std::pin::pin!(stopped(stopping));
        loop {
            let readers = tokio::select! {
                biased;
                () = &mut stopped => return,
                readers = waiting.take_after_others() => readers,
            };
            let Some(mut readers) = readers else { return };
            // Nobody may have waited long enough to see it begin.
            readers.retain(|reader| !reader.is_closed());
            if readers.is_empty() {
                reached!("barrier.nobody-waits-any-more");
                continue;
            }
            if readers.len() > 1 {
                reached!("barrier.round-shared");
            }
            let result = self.run().await;
            if planted!("round-answers-later-readers") {
                readers.extend(waiting.take_waiting());
            }
            for reader in readers {
                // A reader that gave up meanwhile needs no answer.
                drop(reader.send(result.clone()));
            }
        }
    }

    /// Finds out what a read must see that began before this call.
    async fn run(&mut self) -> Result<LogId, LeaderError> {
        let standing = self.core.standing().await;
        if let Err(LeaderError::NotLeader(_)) = standing {
            self.membership = None;
            self.voters.clear();
        }
        let standing = standing?;
        self.number += 1;
        self.meet(&standing.membership);

        let ends = Instant::now() + Duration::from_millis(self.peers.config.election_timeout_ms_max);
        let mut confirmed = vec![self.core.node];
        let mut asked = confirmed.clone();
        let mut voted_later = Vec::new();
        for voter in &mut self.voters {
            if standing.is_quorum(&asked) {
                break;
            }
            voter.ask(&self.peers, self.number);
            asked.push(voter.id);
        }
        while !standing.is_quorum(&confirmed) {
            if Instant::now() >= ends {
                reached!("barrier.no-quorum");
                return Err(LeaderError::Failed("no quorum confirmed this leader".into()));
            }
            let answer = timeout(PATIENCE, answer(&mut self.voters, self.number)).await;
            let waited = answer.is_err();
            match answer {
                Ok((voter, Ok(term))) if standing.is_confirmed_by(term) => {
                    confirmed.push(self.voters[voter].id);
                    self.voters[..=voter].rotate_right(1);
                    continue;
                }
                Ok((voter, Ok(term))) => {
                    reached!("barrier.voted-for-another");
                    tracing::debug!(
                        node = self.voters[voter].id,
                        term,
                        "a voter has voted in a later term"
                    );
                    voted_later.push(self.voters[voter].id);
                    if !standing.can_be_confirmed_without(&voted_later) {
                        reached!("barrier.a-quorum-voted-later");
                        return Err(LeaderError::Failed("a later leader has been voted for".into()));
                    }
                }
                Ok((voter, Err(status))) => {
                    tracing::debug!(node = self.voters[voter].id, %status, "a voter does not answer");
                }
                Err(_) => {
                    reached!("barrier.voters-slow");
                    // What they say to a leader that has been deposed meanwhile is of no use.
                    if !self.core.seems_to_lead(standing.term) {
                        self.core.standing().await?;
                    }
                }
            }
            for voter in &mut self.voters {
                // One that failed is asked again, but not at once: it may fail at once.
                if voter.asked_in != self.number || (waited && voter.lane.is_none()) {
                    reached!("barrier.others-asked-too");
                    voter.ask(&self.peers, self.number);
                }
            }
        }
        Ok(standing.read)
    }

    /// Makes `voters` those of the membership, keeping the ways there.
    fn meet(&mut self, membership: &Arc<StoredMembership>) {
        if self
            .membership
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, membership))
        {
            return;
        }
        let mut known = std::mem::take(&mut self.voters);
        let others = membership.voter_ids().filter(|id| *id != self.core.node);
        for id in others {
            let addresses = membership.get_node(&id).cloned().unwrap_or_default();
            let same = known
                .iter()
                .position(|voter| voter.id == id && voter.addresses == addresses);
            self.voters.push(match same {
                Some(at) => known.swap_remove(at),
                None => Voter {
                    id,
                    addresses,
                    asked_in: 0,
                    lane: None,
                },
            });
        }
        self.membership = Some(membership.clone());
    }
}

/// Another voter.
struct Voter {
    id: NodeId,
    addresses: PeerAddresses,
    /// The last round in which it was asked.
    asked_in: u64,
    /// The way there, if one is open.
    lane: Option<Lane<wire::ConfirmLeaderRequest, wire::ConfirmLeaderReply>>,
}

impl Voter {
    /// Asks in a round. What goes wrong is found out by whoever waits for the answer.
    fn ask(&mut self, peers: &Peers, round: u64) {
        self.asked_in = round;
        let silence_max = Duration::from_millis(peers.config.rpc_timeout_ms);
        if self
            .lane
            .as_ref()
            .is_some_and(|lane| lane.silent_for() > silence_max)
        {
            reached!("barrier.silent-lane-closed");
            self.lane = None;
        }
        let mut header = None;
        if self.lane.is_none() {
            header = Some(peers.header(self.id, self.addresses.directory, Duration::ZERO));
            self.lane = peers
                .client(&self.addresses.peer, Purpose::Heartbeat)
                .ok()
                .map(|mut client| {
                    Lane::open(|questions| async move { client.confirm_leader(questions).await })
                });
        }
        let asked = self
            .lane
            .as_mut()
            .is_some_and(|lane| lane.ask(wire::ConfirmLeaderRequest { header, round }));
        if !asked {
            self.lane = None;
        }
    }

    /// Its answer in this round.
    fn poll_answer(&mut self, context: &mut Context<'_>, round: u64) -> Poll<Result<u64, Status>> {
        let Some(lane) = &mut self.lane else {
            return Poll::Pending;
        };
        loop {
            match ready!(lane.poll_answer(context)) {
                Ok(answer) if answer.round == round => return Poll::Ready(Ok(answer.voted_term)),
                Ok(_) => reached!("barrier.late-answer-ignored"),
                Err(status) => {
                    self.lane = None;
                    return Poll::Ready(Err(status));
                }
            }
        }
    }
}

/// The next answer in this round, and who gave it.
async fn answer(voters: &mut [Voter], round: u64) -> (usize, Result<u64, Status>) {
    poll_fn(|context| {
        for (at, voter) in voters.iter_mut().enumerate() {
            if let Poll::Ready(answer) = voter.poll_answer(context, round) {
                return Poll::Ready((at, answer));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::type_config::{Membership, log_id};

    fn leading(term: u64, configs: &[&[NodeId]]) -> Standing {
        let sets: Vec<BTreeSet<NodeId>> = configs
            .iter()
            .map(|config| config.iter().copied().collect())
            .collect();
        let nodes: BTreeMap<NodeId, PeerAddresses> =
            (1..=9).map(|id| (id, PeerAddresses::default())).collect();
        let membership = Membership::new(sets, nodes).unwrap();
        Standing {
            term,
            read: log_id(term, 5),
            membership: Arc::new(StoredMembership::new(Some(log_id(1, 1)), membership)),
        }
    }

    #[test]
    fn a_quorum_is_a_majority_of_each_config_and_learners_do_not_count() {
        let three = leading(2, &[&[1, 2, 3]]);
        assert!(three.is_quorum(&[1, 3]) && !three.is_quorum(&[1]));
        assert!(!three.is_quorum(&[1, 8, 9]), "learners");
        assert!(!three.is_quorum(&[1, 1]), "twice the same");
        let joint = leading(2, &[&[1, 2, 3], &[3, 4, 5]]);
        assert!(!joint.is_quorum(&[1, 2]) && !joint.is_quorum(&[3, 4]));
        assert!(joint.is_quorum(&[1, 3, 4]));
        assert!(leading(2, &[&[1]]).is_quorum(&[1]), "alone");
        assert!(
            !leading(2, &[&[2, 3]]).is_quorum(&[1]),
            "a leader that is being removed"
        );
    }

    #[test]
    fn when_a_quorum_has_voted_later_nobody_else_can_confirm() {
        let three = leading(2, &[&[1, 2, 3]]);
        assert!(three.can_be_confirmed_without(&[2]), "it may have been cut off");
        assert!(!three.can_be_confirmed_without(&[2, 3]));
        let joint = leading(2, &[&[1, 2, 3], &[3, 4, 5]]);
        assert!(joint.can_be_confirmed_without(&[3]));
        assert!(!joint.can_be_confirmed_without(&[4, 5]));
    }

    #[test]
    fn who_has_voted_later_does_not_confirm() {
        let leader = leading(7, &[&[1, 2, 3]]);
        assert!(leader.is_confirmed_by(7) && leader.is_confirmed_by(6));
        assert!(!leader.is_confirmed_by(8));
    }
}
