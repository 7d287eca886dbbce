//! The tables (RocksDB: column families) that a node keeps. One list, so that every engine has the same.

/// A table. The discriminant is stored and must never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// Account records.
    Account = 1,
    /// Credentials, apart from the account.
    Credential = 2,
    /// Coarse activity (last login and the like).
    Activity = 3,
    /// Claims: which account holds an identifier.
    Claim = 4,
    /// Request records: what a request id did.
    Request = 5,
    /// Deadlines and what happens then.
    Due = 6,
    /// The change log.
    Change = 7,
    /// Cross-shard transactions.
    Txn = 8,
    /// Cross-shard write intents.
    Intent = 9,
    /// Per-shard metadata: applied log id, membership, clock, epoch, feature level, realms.
    Meta = 10,
    /// Raft log entries.
    RaftLog = 32,
    /// Raft vote, purge mark, snapshot-install marks and node identity. Never part of a snapshot.
    RaftMeta = 33,
}

impl Family {
    /// Every family, in discriminant order.
    pub const ALL: [Family; 12] = [
        Family::Account,
        Family::Credential,
        Family::Activity,
        Family::Claim,
        Family::Request,
        Family::Due,
        Family::Change,
        Family::Txn,
        Family::Intent,
        Family::Meta,
        Family::RaftLog,
        Family::RaftMeta,
    ];

    /// The families that make up a shard's replicated state, and so its snapshot.
    pub const STATE: [Family; 10] = [
        Family::Account,
        Family::Credential,
        Family::Activity,
        Family::Claim,
        Family::Request,
        Family::Due,
        Family::Change,
        Family::Txn,
        Family::Intent,
        Family::Meta,
    ];

    /// The stable name, used as RocksDB's column family name and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Family::Account => "account",
            Family::Credential => "credential",
            Family::Activity => "activity",
            Family::Claim => "claim",
            Family::Request => "request",
            Family::Due => "due",
            Family::Change => "change",
            Family::Txn => "txn",
            Family::Intent => "intent",
            Family::Meta => "meta",
            Family::RaftLog => "raft_log",
            Family::RaftMeta => "raft_meta",
        }
    }

    /// The family with this stored discriminant.
    pub fn from_u8(byte: u8) -> Option<Self> {
        Family::ALL.into_iter().find(|family| *family as u8 == byte)
    }
}
