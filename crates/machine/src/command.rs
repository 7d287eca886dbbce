//! What the log carries.

use bytes::Bytes;
pub use holdfast_types::Expect;
use holdfast_types::{Bucket, Family, Millis, ShardEpoch};

/// The newest feature level this build understands. A command that needs more is never proposed below it.
pub const FEATURE_LEVEL: u32 = 1;

/// One proposed command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The shard's epoch as the proposer saw it; another one at apply refuses the command.
    pub epoch: ShardEpoch,
    /// The proposer's wall clock; apply never lets the log clock go back.
    pub wall: Millis,
    /// What to do.
    pub body: Body,
}

/// The kinds of command. Each names the feature level it needs in [`Body::level`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Guards, writes and events of one evaluated request.
    Mutate(Mutation),
    /// Moves the log clock and nothing else.
    Tick,
    /// Refuses requests born before `before` from now on and deletes their records in these buckets.
    ExpireRequests {
        /// Births before this are expired.
        before: Millis,
        /// First bucket to sweep.
        first: Bucket,
        /// Last bucket to sweep, inclusive.
        last: Bucket,
    },
    /// Deletes change events of entries before `index` (exclusive).
    TrimChanges {
        /// The first log index whose events stay.
        index: u64,
    },
    /// Raises the feature level; a lower one than today's is ignored.
    RaiseFeatureLevel {
        /// The new level.
        level: u32,
    },
}

impl Body {
    /// The feature level that every replica must have before this may be proposed.
    pub fn level(&self) -> u32 {
        match self {
            Body::Mutate(_)
            | Body::Tick
            | Body::ExpireRequests { .. }
            | Body::TrimChanges { .. }
            | Body::RaiseFeatureLevel { .. } => 1,
        }
    }
}

/// The outcome of evaluating one request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mutation {
    /// When the request id was born, for mutations that have one: refused once that is below the floor.
    pub request_birth: Option<Millis>,
    /// What evaluation read. All must hold, or nothing is written.
    pub guards: Vec<Guard>,
    /// What to write, in order; a key occurs at most once.
    pub writes: Vec<Write>,
    /// Change events, in order; their bodies are opaque here.
    pub events: Vec<Bytes>,
}

/// One thing evaluation relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Table.
    pub family: Family,
    /// Row.
    pub key: Bytes,
    /// What must be true of it.
    pub expect: Expect,
}

/// One row to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Store `body` in an envelope with this entry's stamp.
    Put {
        /// Table.
        family: Family,
        /// Row.
        key: Bytes,
        /// The encryption key that sealed the body; 0: none.
        key_id: u8,
        /// The record.
        body: Bytes,
    },
    /// Remove the row, if it is there.
    Delete {
        /// Table.
        family: Family,
        /// Row.
        key: Bytes,
    },
}
