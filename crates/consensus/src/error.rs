//! What can go wrong, divided by what the caller may conclude from it.

use holdfast_types::NodeId;

/// Why a group did not start. The message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory belongs to another cluster.
    #[error(
        "this data directory belongs to cluster {found}, but this node is configured for cluster {configured}; \
         point it at its own directory, or at an empty one under a node id that was never used"
    )]
    OtherCluster {
        /// What the directory says.
        found: String,
        /// What the configuration says.
        configured: String,
    },
    /// The data directory belongs to another node.
    #[error(
        "this data directory belongs to node {found}, but this node is configured as node {configured}; \
         a node id and its directory stay together for ever, so start it as node {found}, \
         or give node {configured} its own directory"
    )]
    OtherNode {
        /// What the directory says.
        found: NodeId,
        /// What the configuration says.
        configured: NodeId,
    },
    /// A newer release wrote the directory.
    #[error(
        "this data directory has on-disk format {found}, and this release knows formats up to {known}; \
         install the release that wrote it, or a newer one"
    )]
    NewerFormat {
        /// What the directory says.
        found: u32,
        /// The newest this build knows.
        known: u32,
    },
    /// Settings that contradict each other.
    #[error("invalid consensus settings: {0}")]
    Config(String),
    /// What is stored cannot be used.
    #[error(
        "{0}; this node must not rejoin with this directory: start the machine with an empty one under a new node id, \
         and put it in the place of this one with `holdfast cluster replace`"
    )]
    Damaged(String),
    /// The disk failed.
    #[error("the storage engine failed: {0}")]
    Engine(#[from] holdfast_storage::engine::EngineError),
    /// Raft did not start.
    #[error("raft did not start: {0}")]
    Raft(String),
}

/// Why a proposal has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It is in no log and never will be. The only definite failure.
    #[error("not proposed: this node does not lead in that term")]
    NotAppended {
        /// Who leads now, if known and not this node.
        leader: Option<NodeId>,
    },
    /// It may or may not take effect, now or later.
    #[error("the outcome of the proposal is unknown: {why}")]
    Unknown {
        /// What happened.
        why: String,
    },
}

/// Why a read barrier was not passed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BarrierError {
    /// Nobody leads, or the leader could not be reached or reach a quorum.
    #[error("no leader confirmed the read: {why}")]
    NoLeader {
        /// What happened.
        why: String,
    },
    /// The deadline came first.
    #[error("the deadline passed before the read could be confirmed")]
    Timeout,
    /// This node is stopping.
    #[error("this node is stopping")]
    Stopped,
}

/// The deadline came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed first")]
pub struct Timeout;

/// Why a membership change or a hand-over was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Only the leader can. Nothing happened.
    #[error("only the leader can change the membership")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// The membership is no longer what the caller decided upon. Nothing happened.
    #[error("the membership changed: expected {expected}, found {found}")]
    Changed {
        /// What the caller expected.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The change makes no sense or would be unsafe. Nothing happened.
    #[error("{0}")]
    Refused(String),
    /// Another change is under way. Nothing happened; try again later.
    #[error("another membership change is in progress")]
    Busy,
    /// It may or may not take effect. Look at the membership.
    #[error("the outcome of the membership change is unknown: {why}")]
    Unknown {
        /// What happened.
        why: String,
    },
}

/// Why the state was not flushed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlushError {
    /// The deadline came first. The flush goes on.
    #[error(
        "the deadline passed before the state was flushed: up to log index {flushed} it is, up to {wanted} was asked \
         for; the flush goes on"
    )]
    Timeout {
        /// What was applied when the flush was asked for.
        wanted: u64,
        /// What is flushed.
        flushed: u64,
    },
    /// Raft is stopping or has died.
    #[error("raft has stopped here: {why}")]
    Stopped {
        /// What happened.
        why: String,
    },
}

/// Why a group could not be initialized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitializeError {
    /// It already has a log or a vote. Nothing happened.
    #[error("this node already belongs to a cluster")]
    AlreadyInitialized,
    /// The membership makes no sense.
    #[error("{0}")]
    Refused(String),
    /// The node is stopping.
    #[error("this node is stopping: {0}")]
    Stopped(String),
}
