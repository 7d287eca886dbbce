//! What a group tells about itself.

use holdfast_types::NodeId;
use serde::Serialize;

use crate::PeerAddresses;

/// Who leads, as this node knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The newest term seen.
    pub term: u64,
    /// Its leader, if known.
    pub leader: Option<NodeId>,
    /// Whether that is this node. It may already have been deposed without knowing.
    pub is_me: bool,
    /// Whether this node leads and has passed a read barrier of this term: all that earlier leaders
    /// acknowledged is applied here. Evaluate and propose only then.
    pub ready: bool,
}

/// A point at which a read is linearizable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPoint {
    /// The applied log index that a view taken now includes.
    pub index: u64,
    /// The term this node leads in, if it leads: proposals evaluated on such a view are pinned to it.
    pub term: Option<u64>,
}

/// A command that a quorum accepted and this node applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log.
    pub index: u64,
    /// What applying it came to.
    pub reply: holdfast_machine::Reply,
}

/// A log id in plain numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LogPosition {
    /// The leader's term.
    pub term: u64,
    /// The place in the log.
    pub index: u64,
}

impl GroupStatus {
    /// Whether a membership change is half done: two sets of voters are in force.
    pub fn membership_changing(&self) -> bool {
        self.voter_sets.len() > 1
    }
}

impl std::fmt::Display for LogPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.term, self.index)
    }
}

/// What a node is doing in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Takes the log without a vote.
    Learner,
    /// Follows a leader.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Stopped or stopping.
    Stopped,
}

/// Whether a member's vote counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// Counts towards quorums.
    Voter,
    /// Does not.
    Learner,
}

/// One member, as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    /// The node.
    pub id: NodeId,
    /// Whether its vote counts.
    pub role: MemberRole,
    /// Where it can be reached.
    pub addresses: PeerAddresses,
    /// The last log index known to be stored there. Only a leader knows.
    pub matched: Option<u64>,
    /// How long ago it last answered, milliseconds. Only a leader knows.
    pub last_heard_ms: Option<u64>,
}

/// A group's condition on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupStatus {
    /// This node.
    pub node_id: NodeId,
    /// What it is doing.
    pub role: Role,
    /// The newest term it has seen.
    pub term: u64,
    /// Whom it voted for in that term, and whether that node won.
    pub vote: String,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// The newest log entry here.
    pub last_log: Option<LogPosition>,
    /// The newest entry known to be committed.
    pub committed: Option<LogPosition>,
    /// The newest entry applied here.
    pub applied: Option<LogPosition>,
    /// The point of the last snapshot taken or installed.
    pub snapshot: Option<LogPosition>,
    /// Entries up to this one are gone from the log.
    pub purged: Option<LogPosition>,
    /// How long ago a quorum last followed this leader, milliseconds.
    pub quorum_age_ms: Option<u64>,
    /// Everyone in the group.
    pub members: Vec<MemberStatus>,
    /// Which membership that is, "term-index"; empty before the first.
    pub membership_id: String,
    /// Whether that membership is known to be committed: no new leader can undo it.
    pub membership_committed: bool,
    /// The sets of voters of each of which a majority must agree: one, or two while a membership change is half done.
    pub voter_sets: Vec<Vec<NodeId>>,
    /// How long the running sync has taken so far, milliseconds.
    pub sync_age_ms: Option<u64>,
    /// How many requests to the log writer are not written yet.
    pub log_requests: u64,
    /// How many reads wait for their barrier.
    pub readers: u64,
    /// Whether everything acknowledged before this node started has been applied again.
    pub recovered: bool,
    /// Why the node must stop, if it must.
    pub fatal: Option<String>,
}
