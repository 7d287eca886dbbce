//! What a follower does when the connection to its leader breaks.
//!
//! Silence does not say why, so Raft waits for the lease to end and then for a random time more. A process that is killed
//! says why: the system closes its connections at once. A follower that sees this stands for election as soon as the lease is
//! over. The voters' ids say who goes first, so that two do not divide the votes.
//!
//! It costs nothing where it is wrong. A leader that lives is heard again within the lease, by this node or by those
//! whose votes it would need: they keep the lease, and a Pre-Vote asks them first (Ongaro, *Consensus: Bridging Theory and Practice*,
//! 2014, 9.6). If whoever goes first is gone, too, Raft's own timers are still there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_markers::reached;
use holdfast_types::NodeId;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::runtime::timeout_at;
use crate::type_config::Raft;
use crate::{ConsensusConfig, FatalSink};

/// How long the lease that others keep may last beyond this node's.
const MARGIN: Duration = Duration::from_millis(20);
/// How long a voter gives the one before it: time for an election on healthy disks.
const TURN: Duration = Duration::from_millis(60);

/// When the leader was last heard of, and who waits for it to be gone.
#[derive(Clone)]
pub(crate) struct Succession {
    heard: Arc<Mutex<Instant>>,
    broken: mpsc::UnboundedSender<NodeId>,
}

impl Succession {
    pub(crate) fn start(raft: Raft, config: &ConsensusConfig, fatal: FatalSink) -> Self {
        let (broken, leaders) = mpsc::unbounded_channel();
        let heard = Arc::new(Mutex::new(Instant::now()));
        let task = Successor {
            raft,
            node: config.node_id,
            lease: Duration::from_millis(config.election_timeout_ms_max),
            heard: heard.clone(),
            leaders,
        };
        tokio::spawn(fatal.guard("the succession", task.run()));
        Succession { heard, broken }
    }

    /// A leader was heard of.
    pub(crate) fn heard(&self) {
        *lock(&self.heard) = Instant::now();
    }

    /// Watches over a stream of `leader`'s: lets it be known if it is dropped before it was ended.
    pub(crate) fn watch(&self, leader: NodeId) -> Watched {
        Watched {
            leader: Some(leader),
            broken: self.broken.clone(),
        }
    }
}

/// See [`Succession::watch`].
pub(crate) struct Watched {
    leader: Option<NodeId>,
    broken: mpsc::UnboundedSender<NodeId>,
}

impl Watched {
    /// The stream's end is no surprise.
    pub(crate) fn ended(&mut self) {
        self.leader = None;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // Nobody waits any more where the group has ended.
            let _ = self.broken.send(leader);
        }
    }
}

struct Successor {
    raft: Raft,
    node: NodeId,
    lease: Duration,
    heard: Arc<Mutex<Instant>>,
    leaders: mpsc::UnboundedReceiver<NodeId>,
}

impl Successor {
    async fn run(mut self) {
        while let Some(leader) = self.leaders.recv().await {
            let Some(turn) = self.turn(leader) else { continue };
            let last = *lock(&self.heard);
            if !self.wait(last + self.lease + MARGIN + TURN * turn).await {
                return;
            }
            if *lock(&self.heard) == last && self.turn(leader).is_some() {
                reached!("succession.stood-for-election");
                tracing::info!(
                    leader,
                    "the leader's connection broke, and it was not heard of since"
                );
                // Raft has ended where this fails.
                let _ = self.raft.trigger().elect(true).await;
            }
        }
    }

    /// Whether the group still runs then.
    async fn wait(&mut self, until: Instant) -> bool {
        let ended = async { while self.leaders.recv().await.is_some() {} };
        timeout_at(until, ended).await.is_err()
    }

    /// The place of this node among those who may follow `leader`; none if it may not, or another leads by now.
    fn turn(&self, leader: NodeId) -> Option<u32> {
        let receiver = self.raft.metrics();
        let metrics = receiver.borrow_watched();
        if metrics.current_leader != Some(leader) {
            return None;
        }
        let mut voters: Vec<NodeId> = metrics.membership_config.voter_ids().collect();
        voters.sort_unstable();
        let mut successors = voters.into_iter().filter(|voter| *voter != leader);
        let place = successors.position(|voter| voter == self.node)?;
        u32::try_from(place).ok()
    }
}

fn lock(heard: &Mutex<Instant>) -> MutexGuard<'_, Instant> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
