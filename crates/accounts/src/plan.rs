//! What evaluation is given and what it gives back.

use holdfast_types::{Account, Expect, Millis, Realm, Rejection};

use crate::{ChangeEvent, Outcome, RequestRecord, Row, RowKey};

/// Under which rules and when a request is evaluated.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The realm with its rules and keys.
    pub realm: &'a Realm,
    /// The later of wall clock and log clock. Stamps what is written.
    pub now: Millis,
    /// The log clock. Decides what has expired: replicas agree on it, and a leader whose wall clock runs ahead
    /// cannot end a quarantine early.
    pub log_clock: Millis,
}

/// What to propose. Applied as a whole, if every guard still holds, or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Every row that was read, absences included; each row once.
    pub guards: Vec<(RowKey, Expect)>,
    /// Rows to write (`None`: delete); each row once.
    pub writes: Vec<(RowKey, Option<Row>)>,
    /// What to put into the change log.
    pub events: Vec<ChangeEvent>,
    /// What to answer once it is applied.
    pub outcome: Outcome,
    /// The account once it is applied; none if the request was refused.
    pub account_after: Option<Account>,
    /// When the request id was born: applying refuses it below the request floor.
    pub request_birth: Option<Millis>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Evaluation {
    /// Propose this. A refusal is proposed too: its plan writes the request record and nothing else. (A plan
    /// without writes, possible only without a request id, need not be proposed.)
    Propose(Box<Plan>),
    /// The request id has run before with the same content; this is what it did. Nothing to propose.
    Replay(RequestRecord),
}

/// Why a request could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError<E> {
    /// The request is not acceptable as it stands. Nothing was written.
    #[error("the request was rejected")]
    Rejected(Rejection),
    /// Reading the view failed.
    #[error("reading state failed: {0}")]
    View(E),
    /// Rows contradict each other: an account lists an identifier that its claim gives to someone else. Damage
    /// or a bug here; nothing was written. The text holds no personal data.
    #[error("stored rows contradict each other: {0}")]
    Inconsistent(String),
}

impl<E> From<Rejection> for EvaluateError<E> {
    fn from(rejection: Rejection) -> Self {
        EvaluateError::Rejected(rejection)
    }
}
