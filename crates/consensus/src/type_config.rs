//! The types openraft is instantiated with. Raft in its standard form: one leader a term, so a log id is a
//! term and an index.

use std::fmt;

use bytes::Bytes;
use openraft::entry::{EntryPayload, RaftEntry};
use openraft::vote::leader_id_std;

use crate::apply::StateMachine;
use crate::config::PeerAddresses;
use crate::runtime::Runtime;

openraft::declare_raft_types!(
    /// The instantiation.
    pub(crate) TypeConfig:
        D = EncodedCommand,
        R = ApplyReply,
        NodeId = u64,
        Node = PeerAddresses,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        Payload = EntryPayload<EncodedCommand, u64, PeerAddresses>,
        Entry = LogEntry,
        AsyncRuntime = Runtime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type LeaderTerm = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;
pub(crate) type Payload = EntryPayload<EncodedCommand, u64, PeerAddresses>;
pub(crate) type Membership = openraft::Membership<u64, PeerAddresses>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;

/// The log id of `index` in `term`.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: LeaderTerm::new(term),
        index,
    }
}

/// A command in its stored form. Encoded once by the proposer; log, network and cache share the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedCommand(pub Bytes);

impl fmt::Display for EncodedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

/// What applying an entry came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ApplyReply {
    /// A blank or membership entry: nothing of ours.
    Nothing,
    /// A command.
    Command(holdfast_machine::Reply),
}

/// A log entry that remembers its stored form, so that each is encoded and checksummed once on the way
/// through a node: by the leader when it is appended, on a follower never.
#[derive(Debug, Clone)]
pub(crate) struct LogEntry {
    pub(crate) log_id: LogId,
    pub(crate) payload: Payload,
    /// The stored form, if it is known. It is that of exactly this log id and payload.
    pub(crate) encoded: Option<Bytes>,
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.log_id, self.payload)
    }
}

impl RaftEntry for LogEntry {
    type CommittedLeaderId = LeaderTerm;
    type Payload = Payload;

    fn new(log_id: LogId, payload: Payload) -> Self {
        LogEntry {
            log_id,
            payload,
            encoded: None,
        }
    }

    fn log_id_parts(&self) -> (&LeaderTerm, u64) {
        (&self.log_id.leader_id, self.log_id.index)
    }

    fn set_log_id(&mut self, new: LogId) {
        self.log_id = new;
        self.encoded = None;
    }

    fn get_membership(&self) -> Option<Membership> {
        match &self.payload {
            EntryPayload::Membership(membership) => Some(membership.clone()),
            _ => None,
        }
    }
}
