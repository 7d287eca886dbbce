//! How a request can be turned down: values with their facts, never strings to parse.
//!
//! A [`Refusal`] depends on the state, so it is proposed and recorded like an effect: an isolated leader must
//! not be able to say no, and a late duplicate must not succeed after a no. A [`Rejection`] does not (the
//! request itself is wrong, or the caller raced) and is never recorded.

use serde::{Deserialize, Serialize};

use crate::{AccountState, IdentifierKind, Millis};

/// A business "no" that depends on the state. Recorded under the request id. Holds no personal data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Create: the id is in use, or was once (ids are never reused).
    AccountExists,
    /// No account with this id was ever created.
    AccountNotFound,
    /// The account was purged.
    AccountPurged,
    /// The account's state forbids the operation.
    StateForbids {
        /// The state it is in.
        state: AccountState,
    },
    /// The identifier is taken or in quarantine; which of the two, and whose, is not revealed.
    IdentifierUnavailable {
        /// Its kind.
        kind: IdentifierKind,
        /// Its place in the request's list, from 0.
        index: u32,
    },
    /// The account does not have the identifier that was to be removed or replaced.
    IdentifierNotFound {
        /// Its place in the request's list, from 0.
        index: u32,
    },
    /// The change would exceed a limit of the record.
    LimitExceeded {
        /// What: `identifiers`, `attributes`, `labels`, `record_bytes`, `restrictions`.
        what: String,
        /// The most there may be.
        limit: u64,
        /// What the change would lead to.
        actual: u64,
    },
}

/// A "no" that does not depend on committed state, or that the caller can resolve by reading and trying again
/// with a new request id. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The request is malformed.
    Invalid(Vec<FieldViolation>),
    /// The etag is stale.
    EtagMismatch {
        /// The current one.
        current: String,
    },
    /// The request id was used before with other content.
    RequestIdReused,
    /// The request id was born before the window.
    RequestIdExpired {
        /// The oldest birth that is still accepted.
        oldest: Millis,
    },
    /// The request id was born too far in the future.
    RequestIdFromFuture {
        /// The latest birth that is accepted.
        latest: Millis,
    },
}

/// One thing wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field in the request message, as in `account.identifiers[2].value`.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
}

impl FieldViolation {
    /// Makes one.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        FieldViolation {
            field: field.into(),
            description: description.into(),
        }
    }
}
