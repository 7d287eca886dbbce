//! What all rooms of a node share.

use std::sync::Arc;

use holdfast_consensus::{FatalSink, Group, Leadership};
use holdfast_markers::{planted, reached};
use holdfast_storage::engine::Engine;
use holdfast_types::{Clock, ClusterId, ConsistencyToken, Millis, NodeId, Placement, RealmNumber, ShardId};
use holdfast_wire::status::{OutcomeView, Problem, Reason};
use tokio::time::Instant;

use crate::admission::{Admission, Permit, Work};
use crate::alarms::Alarms;
use crate::clock::ClockGuard;
use crate::config::Config;
use crate::disk::DiskGuard;
use crate::failure::Failure;
use crate::latches::Latches;
use crate::lifecycle::{Lifecycle, Phase, Tasks};
use crate::peers::Peers;
use crate::realms::Known;
use crate::transport::{Probe, Tls};

/// The one shard there is today.
pub(crate) const SHARD: ShardId = ShardId(0);

/// The parts of a node.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) group: Group,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) fatal: FatalSink,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) tasks: Tasks,
    pub(crate) latches: Latches,
    pub(crate) realms: Known,
    pub(crate) admission: Admission,
    pub(crate) disk: DiskGuard,
    pub(crate) clock_guard: ClockGuard,
    pub(crate) alarms: Alarms,
    pub(crate) peers: Peers,
    pub(crate) tls: Option<Tls>,
    pub(crate) started: Instant,
    pub(crate) started_wall: Millis,
}

impl Core {
    /// This node.
    pub(crate) fn node_id(&self) -> NodeId {
        self.config.node.id
    }

    /// Its cluster.
    pub(crate) fn cluster_id(&self) -> ClusterId {
        self.config.cluster_id()
    }

    /// The time to evaluate and stamp at: this node's clock, or the log's while this node's cannot be believed, which
    /// moves nothing.
    pub(crate) fn wall(&self) -> Millis {
        let log_clock = self.group.state().stamp.millis();
        let now = self.clock.now();
        if self.clock_guard.may_stamp(now, log_clock) {
            now
        } else {
            log_clock
        }
    }

    /// Who leads, as known here.
    pub(crate) fn leadership(&self) -> Leadership {
        *self.group.leadership().borrow()
    }

    /// Whether the last membership this node knows has it in it. A new machine knows none until it is taken in.
    pub(crate) fn is_member(&self) -> bool {
        self.group.with_member(self.node_id(), |_| ()).is_some()
    }

    /// Lets a public call in, if the node serves and has room for it.
    pub(crate) fn admit(&self, work: Work, bytes: usize) -> Result<Permit, Failure> {
        self.serving()?;
        if planted!("memory-of-calls-kept") {
            std::mem::forget(vec![1_u8; 256 * 1024]);
        }
        if planted!("calls-leave-tasks-behind") {
            drop(tokio::spawn(std::future::pending::<()>()));
        }
        self.admission.admit(work, bytes).map_err(|_| {
            Failure::new(
                Reason::Overloaded,
                "this node has as much under way as it takes on; back off and retry",
            )
        })
    }

    /// What may be said of a call that has just ended: once the node has failed, nothing, whatever it came to.
    pub(crate) fn unless_failed<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        match self.silence() {
            Some(silence) => Err(silence),
            None => result,
        }
    }

    /// What a node that has failed says to everything.
    pub(crate) fn silence(&self) -> Option<Failure> {
        if !self.fatal.has_failed() || planted!("doors-left-open-after-failure") {
            return None;
        }
        reached!("core.silent-after-failure");
        let why = "this node stops after a failure, and does not vouch for anything any more; ask another";
        let silence = Problem::new(Reason::NodeNotServing, why).outcome(OutcomeView::Unknown);
        Some(silence.into())
    }

    /// Says no to clients while the node is drained and once it has stopped. A node that starts up lets calls in: they wait for
    /// its recovery.
    pub(crate) fn serving(&self) -> Result<(), Failure> {
        if self.lifecycle.turns_away() {
            return Err(turned_away());
        }
        Ok(())
    }

    /// Says no to what other nodes forward as soon as this node shall lead no more: they wait for the next leader then.
    pub(crate) fn leading_on(&self) -> Result<(), Failure> {
        if self.lifecycle.phase() >= Phase::Draining {
            return Err(turned_away());
        }
        Ok(())
    }

    /// The token of an answer that has seen the log up to `index`.
    pub(crate) fn token(&self, realm: RealmNumber, index: u64) -> bytes::Bytes {
        let token = ConsistencyToken {
            cluster: self.token_cluster(),
            realm,
            placement: Placement(0),
            shard: SHARD,
            epoch: self.group.state().epoch,
            index,
        };
        token.encode()
    }

    /// The mark of this cluster's tokens.
    pub(crate) fn token_cluster(&self) -> [u8; 8] {
        let mut cluster = [0; 8];
        cluster.copy_from_slice(&self.cluster_id().0.as_bytes()[..8]);
        cluster
    }

    /// Where clients reach the leader, if one is known.
    pub(crate) fn leader_client_address(&self) -> Option<String> {
        let leader = self.leadership().leader?;
        self.group
            .with_member(leader, |addresses| addresses.client.clone())
    }

    /// Where operators reach the leader, if one is known.
    pub(crate) fn leader_admin_address(&self) -> Option<String> {
        let leader = self.leadership().leader?;
        self.group
            .with_member(leader, |addresses| addresses.admin.clone())
    }

    /// "I do not lead; ask that one."
    pub(crate) fn not_leader(&self) -> Failure {
        let problem = Problem::new(Reason::NotLeader, "this node does not lead the shard");
        match self.leader_client_address() {
            Some(leader) => problem.fact("leader", leader).into(),
            None => problem.into(),
        }
    }
}

fn turned_away() -> Failure {
    reached!("core.turned-away");
    Failure::new(
        Reason::NodeNotServing,
        "this node is being drained or stopped; ask another",
    )
}

/// What the HTTP endpoint asks.
#[derive(Clone)]
#[cfg_attr(madsim, allow(dead_code, reason = "there is no HTTP in simulation"))]
pub(crate) struct CoreProbe(pub(crate) Arc<Core>);

impl Probe for CoreProbe {
    fn fatal(&self) -> Option<String> {
        self.0.fatal.reason()
    }

    fn phase(&self) -> Phase {
        self.0.lifecycle.phase()
    }

    fn has_leader(&self) -> bool {
        self.0.leadership().leader.is_some()
    }
}
