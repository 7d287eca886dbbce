//! Why a call did not succeed, in one type: what happened, whether it may have had its effect, what to do.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use holdfast_types::FieldViolation;
use holdfast_wire::status::{ErrorView, OutcomeView};
use tonic::{Code, Status};

/// Whether a failed mutation may have had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It had none and will have none.
    NotApplied,
    /// It may have had, or may still have. Repeating it with the same request id tells.
    Unknown,
}

/// Why a call did not succeed. Boxed, so that results stay small.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub struct ClientError(Box<Failure>);

/// The facts of a [`ClientError`].
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The gRPC code.
    pub code: Code,
    /// A sentence for people.
    pub message: String,
    /// The stable reason (a name of `holdfast.v1.ErrorReason`); empty if no service of Holdfast answered.
    pub reason: String,
    /// Whether the mutation may have had its effect. Reads are always `NotApplied`.
    pub outcome: Outcome,
    /// How long the server asked to wait before a retry; none if it did not say that one can help.
    pub retry_after: Option<Duration>,
    /// What is wrong with the request, field by field.
    pub violations: Vec<FieldViolation>,
    /// Facts that go with the reason, such as `etag` or `state`.
    pub metadata: BTreeMap<String, String>,
    /// Attempts made.
    pub attempts: u32,
    /// The request id that the mutation carried: with it, the call can be repeated safely.
    pub request_id: Option<String>,
}

impl ClientError {
    /// An error found on this side.
    pub fn local(code: Code, message: impl Into<String>, outcome: Outcome) -> Self {
        ClientError(Box::new(Failure {
            code,
            message: message.into(),
            reason: String::new(),
            outcome,
            retry_after: None,
            violations: Vec::new(),
            metadata: BTreeMap::new(),
            attempts: 0,
            request_id: None,
        }))
    }

    /// Reads what a server, or the transport, answered. Without details of ours, only a failure to connect
    /// proves that nothing happened.
    pub fn from_status(status: &Status) -> Self {
        let Some(view) = ErrorView::of(status) else {
            let outcome = if never_sent(status) {
                Outcome::NotApplied
            } else {
                Outcome::Unknown
            };
            if timed_out(status) {
                let message = "the deadline passed before an answer came";
                return Self::local(Code::DeadlineExceeded, message, outcome);
            }
            return Self::local(status.code(), transport_message(status), outcome);
        };
        let mut error = Self::local(status.code(), status.message(), Outcome::NotApplied);
        if view.outcome == OutcomeView::Unknown {
            error.outcome = Outcome::Unknown;
        }
        error.reason = view.reason;
        error.retry_after = view.retry_after;
        error.violations = view.violations;
        error.metadata = view.metadata;
        error
    }

    /// Whether repeating the call, with the same request id, can end differently.
    pub fn is_retryable(&self) -> bool {
        crate::retry::can_help(self)
    }
}

/// A deadline of the transport's own, ours or the server's: tonic says CANCELLED then, as if somebody had changed their
/// mind.
fn timed_out(status: &Status) -> bool {
    status.code() == Code::Cancelled && status.message() == "Timeout expired"
}

/// The request never left: the connection could not be opened.
#[cfg(not(madsim))]
fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    matches!(
        status.code(),
        Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied
    )
}

/// The simulator keeps no cause. It says this in one place only, where a connection is opened.
#[cfg(madsim)]
fn never_sent(status: &Status) -> bool {
    status.message().contains("connection refused")
        || matches!(
            status.code(),
            Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied
        )
}

/// The transport's message with the innermost cause, which is the one that helps (`Connection refused`).
fn transport_message(status: &Status) -> String {
    let mut message = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    let mut innermost = None;
    while let Some(error) = cause {
        innermost = Some(error.to_string());
        cause = error.source();
    }
    if let Some(cause) = innermost
        && !message.contains(&cause)
    {
        message = if message.is_empty() {
            cause
        } else {
            format!("{message}: {cause}")
        };
    }
    message
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        // The service's message names the first violation already.
        for violation in self
            .violations
            .iter()
            .filter(|violation| !self.message.contains(&violation.field))
        {
            write!(f, "; {}: {}", violation.field, violation.description)?;
        }
        Ok(())
    }
}

impl Deref for ClientError {
    type Target = Failure;
    fn deref(&self) -> &Failure {
        &self.0
    }
}

impl DerefMut for ClientError {
    fn deref_mut(&mut self) -> &mut Failure {
        &mut self.0
    }
}
