//! What can go wrong, as a gRPC status that a program can act on.
//!
//! A [`Problem`] is a failure with its facts; it becomes a [`Status`] with exactly one `google.rpc.ErrorInfo`
//! (reason, outcome, facts), a `BadRequest` where it is the caller's fault and a `RetryInfo` where the same
//! request may succeed later. The reasons, and the keys of their facts, are documented in
//! `proto/holdfast/v1/errors.proto`; which code each has is said here and nowhere else.
//!
//! Details travel in an HTTP/2 trailer, for which many clients allow no more than 8 KiB. So violations are
//! given until [`VIOLATIONS_BYTES_MAX`] is reached, and the message says how many there are in all.

mod transport;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use holdfast_accounts::{IdentifierChange, Operation};
use holdfast_types::{AccountState, FieldViolation, IdentifierKind, Refusal, Rejection};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub use crate::v1::Reason;
pub use transport::MESSAGE;
pub use view::ErrorView;

/// `ErrorInfo.domain` of every error: the package in which the reasons are defined.
pub const DOMAIN: &str = "holdfast.v1";

/// The key of `ErrorInfo.metadata` that holds the outcome.
pub const OUTCOME_KEY: &str = "outcome";

/// How much of an answer the violations may take, bytes.
pub const VIOLATIONS_BYTES_MAX: usize = 3 * 1024;

/// Whether a failed request may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutcomeView {
    /// It did not and never will.
    NotApplied,
    /// It may have, or may yet.
    Unknown,
}

impl OutcomeView {
    /// The value of the metadata key.
    pub fn name(self) -> &'static str {
        match self {
            OutcomeView::NotApplied => "NOT_APPLIED",
            OutcomeView::Unknown => "UNKNOWN",
        }
    }
}

/// A failure with its facts, before it becomes a status.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Why. Decides the code.
    pub reason: Reason,
    /// Whether the request may have taken effect all the same.
    pub outcome: OutcomeView,
    /// A sentence for people. No personal data.
    pub message: String,
    /// Further facts, by the keys documented with the reason.
    pub metadata: BTreeMap<String, String>,
    /// What is wrong with the request.
    pub violations: Vec<FieldViolation>,
    /// After how long the same request may succeed; none: not by waiting.
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// A failure without effect, with the retry hint that its reason usually has.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Problem {
            reason,
            outcome: OutcomeView::NotApplied,
            message: message.into(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            retry_after: usual_retry(reason),
        }
    }

    /// A request that is wrong in these places.
    pub fn invalid(violations: Vec<FieldViolation>) -> Self {
        let message = match violations.as_slice() {
            [] => "the request is malformed".to_owned(),
            [one] => format!("{}: {}", one.field, one.description),
            [first, rest @ ..] => {
                format!("{}: {} (and {} more)", first.field, first.description, rest.len())
            }
        };
        Problem {
            violations,
            ..Problem::new(Reason::InvalidField, message)
        }
    }

    /// A "no" that does not depend on committed state.
    pub fn rejected(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::Invalid(violations) => Problem::invalid(violations.clone()),
            Rejection::EtagMismatch { current } => Problem::new(
                Reason::EtagMismatch,
                "the account has changed since this etag was read",
            )
            .fact("current_etag", current),
            Rejection::RequestIdReused => Problem::new(
                Reason::RequestIdReused,
                "this request id was used before for a request with other content",
            )
            .violation(
                "request_id",
                "was used before with other content; draw a new one for each request",
            ),
            Rejection::RequestIdExpired { oldest } => Problem::new(
                Reason::RequestIdExpired,
                "this request id is older than the request window, so it cannot be told whether it has run",
            )
            .violation(
                "request_id",
                "is older than the realm's request window; read, and decide again",
            )
            .fact("oldest_birth_ms", oldest.0),
            Rejection::RequestIdFromFuture { latest } => Problem::new(
                Reason::RequestIdFromFuture,
                "this request id was born in the future",
            )
            .violation(
                "request_id",
                "was born in the future; check the clock of the machine that drew it",
            )
            .fact("latest_birth_ms", latest.0),
        }
    }

    /// A business "no", for the request that it answers.
    pub fn refused(refusal: &Refusal, operation: &Operation) -> Self {
        match refusal {
            Refusal::AccountExists => Problem::new(
                Reason::AccountExists,
                "an account with this id exists or existed; ids are not reused",
            ),
            Refusal::AccountNotFound => Problem::new(Reason::AccountNotFound, "there is no such account"),
            Refusal::AccountPurged => Problem::new(Reason::AccountPurged, "this account was purged"),
            Refusal::StateForbids { state } => Problem::new(
                Reason::StateForbids,
                format!("an account that is {} does not allow this", state.name()),
            )
            .fact("state", state.name()),
            Refusal::IdentifierUnavailable { kind, index } => {
                // Its place and kind, which the caller knows, but not the value: messages end up in logs.
                let message = format!("identifier {index} ({}) is not available", kind.name());
                Problem::new(Reason::IdentifierUnavailable, message)
                    .fact("kind", kind.name())
                    .fact("index", index)
            }
            Refusal::IdentifierNotFound { index } => {
                let kind = changed_kind(operation, *index).map(IdentifierKind::name);
                let message = format!(
                    "the account does not have identifier {index}{}",
                    kind.map(|kind| format!(" ({kind})")).unwrap_or_default()
                );
                let problem = Problem::new(Reason::IdentifierNotFound, message).fact("index", index);
                match kind {
                    Some(kind) => problem.fact("kind", kind),
                    None => problem,
                }
            }
            Refusal::LimitExceeded { what, limit, actual } => {
                let description = format!("at most {limit}; this would make {actual}");
                Problem::new(Reason::LimitExceeded, format!("{what}: {description}"))
                    .violation(limited_field(what, operation), description)
                    .fact("what", what)
                    .fact("limit", limit)
                    .fact("actual", actual)
            }
        }
    }

    /// An account that a read did not find, or found purged.
    pub fn not_readable(state: Option<AccountState>) -> Self {
        match state {
            Some(_) => Problem::new(Reason::AccountPurged, "this account was purged"),
            None => Problem::new(Reason::AccountNotFound, "there is no such account"),
        }
    }

    /// The change was handed to the log, and its fate is not known.
    pub fn outcome_unknown() -> Self {
        Problem::new(
            Reason::OutcomeUnknown,
            "it is not known whether the change took effect; send it again with the same request id",
        )
        .outcome(OutcomeView::Unknown)
    }

    /// The deadline passed, with or without a chance that the request has an effect.
    pub fn deadline(outcome: OutcomeView) -> Self {
        let message = match outcome {
            OutcomeView::NotApplied => "the deadline passed before anything was done",
            OutcomeView::Unknown => {
                "the deadline passed; the change may have taken effect: send it again with the same request id"
            }
        };
        Problem::new(Reason::DeadlineExceeded, message).outcome(outcome)
    }

    /// Sets the outcome.
    #[must_use]
    pub fn outcome(mut self, outcome: OutcomeView) -> Self {
        self.outcome = outcome;
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn fact(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Adds something wrong with the request.
    #[must_use]
    pub fn violation(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.violations.push(FieldViolation::new(field, description));
        self
    }

    /// Sets after how long the same request may succeed.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The gRPC code of the reason.
    pub fn code(&self) -> Code {
        code_of(self.reason)
    }

    /// The status with its details.
    pub fn to_status(&self) -> Status {
        let mut metadata: HashMap<String, String> = self.metadata.clone().into_iter().collect();
        metadata.insert(OUTCOME_KEY.to_owned(), self.outcome.name().to_owned());
        let mut details = ErrorDetails::with_error_info(reason_name(self.reason), DOMAIN, metadata);
        let mut bytes = 0;
        for violation in &self.violations {
            bytes += violation.field.len() + violation.description.len();
            if bytes > VIOLATIONS_BYTES_MAX {
                break;
            }
            details.add_bad_request_violation(&violation.field, &violation.description);
        }
        if self.retry_after.is_some() {
            details.set_retry_info(self.retry_after);
        }
        Status::with_error_details(self.code(), truncated(&self.message), details)
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        problem.to_status()
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        Problem::rejected(&rejection)
    }
}

/// The name that `ErrorInfo.reason` holds.
pub fn reason_name(reason: Reason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("REASON_").unwrap_or(name)
}

/// The code each reason comes with.
fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::InvalidField
        | Reason::RequestIdReused
        | Reason::RequestIdExpired
        | Reason::RequestIdFromFuture
        | Reason::LimitExceeded => Code::InvalidArgument,
        Reason::AccountNotFound
        | Reason::AccountPurged
        | Reason::IdentifierNotFound
        | Reason::RealmNotFound
        | Reason::MemberNotFound => Code::NotFound,
        Reason::AccountExists | Reason::IdentifierUnavailable | Reason::MemberExists => Code::AlreadyExists,
        Reason::StateForbids
        | Reason::MembershipChangeInProgress
        | Reason::MemberLags
        | Reason::MemberDraining
        | Reason::OtherNodeAnswers
        | Reason::QuorumAtRisk => Code::FailedPrecondition,
        Reason::EtagMismatch | Reason::Contention | Reason::MembershipChanged => Code::Aborted,
        Reason::NoLeader
        | Reason::NotLeader
        | Reason::OutcomeUnknown
        | Reason::NodeNotServing
        | Reason::TooStale
        | Reason::TokenNotReached
        | Reason::ClockSkew => Code::Unavailable,
        Reason::Overloaded | Reason::DiskFull => Code::ResourceExhausted,
        Reason::DeadlineExceeded => Code::DeadlineExceeded,
        Reason::WrongCluster => Code::PermissionDenied,
        Reason::Unimplemented => Code::Unimplemented,
        Reason::Internal | Reason::Unspecified => Code::Internal,
    }
}

/// After how long the same request may succeed, where waiting helps at all. An election takes about a second, a
/// full disk somebody's attention; the rest passes quickly.
fn usual_retry(reason: Reason) -> Option<Duration> {
    let ms = match reason {
        Reason::Contention | Reason::NotLeader => 20,
        Reason::TokenNotReached | Reason::OutcomeUnknown | Reason::DeadlineExceeded => 100,
        Reason::NoLeader | Reason::NodeNotServing | Reason::Overloaded => 250,
        Reason::TooStale | Reason::ClockSkew | Reason::MembershipChangeInProgress | Reason::MemberLags => {
            1_000
        }
        Reason::DiskFull => 30_000,
        _ => return None,
    };
    Some(Duration::from_millis(ms))
}

/// The kind of the identifier that this change is to take away.
fn changed_kind(operation: &Operation, index: u32) -> Option<IdentifierKind> {
    let Operation::ChangeIdentifiers(change) = operation else {
        return None;
    };
    match change.changes.get(usize::try_from(index).ok()?)? {
        IdentifierChange::Add(_) => None,
        IdentifierChange::Remove(old) | IdentifierChange::Replace { old, .. } => Some(old.kind),
    }
}

/// The field of the request that makes the record exceed this limit.
fn limited_field(what: &str, operation: &Operation) -> String {
    match (operation, what) {
        (Operation::ChangeIdentifiers(_), _) => "changes".to_owned(),
        (Operation::Update(_), "attributes") => "set_attributes".to_owned(),
        (_, "record_bytes") => "account".to_owned(),
        (_, what) => format!("account.{what}"),
    }
}

/// A message short enough for a header, cut between characters.
fn truncated(message: &str) -> String {
    const MAX: usize = 512;
    if message.len() <= MAX {
        return message.to_owned();
    }
    format!("{}…", &message[..message.floor_char_boundary(MAX)])
}

#[cfg(test)]
mod tests;
