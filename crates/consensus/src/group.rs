//! One Raft group on one node: the whole of consensus as the rest of the house sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_machine::State;
use holdfast_storage::engine::{Engine, View};
use holdfast_types::{Clock, NodeId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{BarrierError, InitializeError, MembershipError, ProposeError, StartError, Timeout};
use crate::status::{Committed, GroupStatus, Leadership, ReadPoint};
use crate::{ConsensusConfig, FatalSink, PeerAddresses};

/// A command in its stored form. Encoded once by the proposer; log, network and cache share the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedCommand(pub Bytes);

/// A handle to the group. Cheap to clone; the group runs until [`Group::shutdown`].
#[derive(Clone)]
pub struct Group {}

#[allow(unused_variables)]
impl Group {
    /// Checks the directory's identity, finishes what a crash interrupted, and starts the node's part in the
    /// group. It does not wait for a leader.
    pub async fn start(
        config: ConsensusConfig,
        engine: Arc<dyn Engine>,
        clock: Arc<dyn Clock>,
        fatal: FatalSink,
    ) -> Result<Group, StartError> {
        unimplemented!()
    }

    /// Founds the cluster with these voters. Every founding member may call it with the same members; a node
    /// that already has a log or a vote answers [`InitializeError::AlreadyInitialized`].
    pub async fn initialize(&self, members: BTreeMap<NodeId, PeerAddresses>) -> Result<(), InitializeError> {
        unimplemented!()
    }

    /// Proposes a command evaluated in `term` (see [`ReadPoint::term`]) and waits until it is applied here.
    pub async fn propose(
        &self,
        command: EncodedCommand,
        term: u64,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        unimplemented!()
    }

    /// Waits until a view taken afterwards includes everything acknowledged anywhere before the call. Works on
    /// every member; readers that wait at the same time share one round.
    pub async fn read_barrier(&self, deadline: Instant) -> Result<ReadPoint, BarrierError> {
        unimplemented!()
    }

    /// Waits until the entry at `index` is applied here.
    pub async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<(), Timeout> {
        unimplemented!()
    }

    /// Waits until everything acknowledged before this node started is applied here again.
    pub async fn wait_recovered(&self, deadline: Instant) -> Result<(), Timeout> {
        unimplemented!()
    }

    /// How old the newest moment is of which a view taken now certainly includes everything acknowledged.
    /// `None`: no such moment is known since the start.
    pub fn staleness(&self) -> Option<Duration> {
        unimplemented!()
    }

    /// The shard's own state as of the last applied entry: log clock, epoch, feature level, floors.
    pub fn state(&self) -> State {
        unimplemented!()
    }

    /// The last applied log index; 0 before the first.
    pub fn applied_index(&self) -> u64 {
        unimplemented!()
    }

    /// The applied state, frozen.
    pub fn view(&self) -> Box<dyn View> {
        unimplemented!()
    }

    /// Who leads, and whether this node may evaluate and propose.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        unimplemented!()
    }

    /// The group's condition, as known here.
    pub fn status(&self) -> GroupStatus {
        unimplemented!()
    }

    /// Where the members can be reached.
    pub fn members(&self) -> BTreeMap<NodeId, PeerAddresses> {
        unimplemented!()
    }

    /// Adds a member without a vote and waits until the change is committed. The membership id afterwards is returned.
    pub async fn add_learner(
        &self,
        id: NodeId,
        addresses: PeerAddresses,
        expected_membership_id: Option<String>,
        deadline: Instant,
    ) -> Result<String, MembershipError> {
        unimplemented!()
    }

    /// Gives a learner a vote, once it has caught up.
    pub async fn promote(
        &self,
        id: NodeId,
        expected_membership_id: Option<String>,
        deadline: Instant,
    ) -> Result<String, MembershipError> {
        unimplemented!()
    }

    /// Removes a member for good. Its id is never used again.
    pub async fn remove(
        &self,
        id: NodeId,
        expected_membership_id: Option<String>,
        deadline: Instant,
    ) -> Result<String, MembershipError> {
        unimplemented!()
    }

    /// Hands leadership to `to`, or to the voter with the most of the log. Returns the new leader. On a node
    /// that does not lead it is refused.
    pub async fn transfer_leadership(
        &self,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> Result<NodeId, MembershipError> {
        unimplemented!()
    }

    /// Flushes state, so that the log before it may be purged.
    pub async fn trigger_snapshot(&self) -> Result<(), MembershipError> {
        unimplemented!()
    }

    /// Stops this node's part in the group. Acknowledged entries are synced already; nothing else is promised.
    pub async fn shutdown(&self) {
        unimplemented!()
    }
}
