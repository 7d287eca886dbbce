//! How a command ends: the exit code for scripts, the sentence for people.
//!
//! The codes are part of the interface and listed in `holdfast --help`.

use holdfast_client::{ClientError, Outcome};
use serde_json::json;
use tonic::Code;

use crate::output::Format;

/// What scripts can tell apart. `0` is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// A bug or a failing machine: on this side (a file that cannot be written) or in the cluster.
    Internal = 1,
    /// The command, its input or the configuration is wrong; doing it again will not help.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// The present state forbids it: taken, stale etag, wrong state of the account.
    Conflict = 4,
    /// Nobody who can answer was reached in time, and nothing was changed.
    Unavailable = 5,
    /// It may or may not have happened. Repeat it with the request id that was printed.
    UnknownOutcome = 6,
    /// It ran to its end, but some items were rejected.
    PartlyRejected = 7,
    /// The caller may not do this.
    Denied = 8,
    /// The node stopped, or refused to start, because going on could lose data; its message says what to do.
    Fatal = 9,
    /// Interrupted by a signal (128 + SIGINT, as shells have it).
    Interrupted = 130,
}

/// The table for `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  internal error, on this side or in the cluster
  2  the command, its input or the configuration is wrong
  3  not found
  4  the present state forbids it (taken, stale etag, wrong state)
  5  unavailable, and nothing was changed
  6  outcome unknown: repeat with the request id that was printed
  7  done, but some items were rejected
  8  not allowed
  9  the node stopped, or did not start, to protect its data";

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    /// What to do about it, if that is known.
    pub(crate) hint: Option<String>,
    /// The error of the service, for `--output json`.
    pub(crate) cause: Option<ClientError>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure {
            exit,
            message: message.into(),
            hint: None,
            cause: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Something failed with a file or the terminal.
    pub(crate) fn io(what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => Exit::Usage,
            _ => Exit::Internal,
        };
        Self::new(exit, format!("{what}: {error}"))
    }

    /// Whether the same command can end differently if it is run again, with the same request id if it has one.
    fn is_retryable(&self) -> bool {
        match &self.cause {
            Some(cause) => cause.is_retryable(),
            None => matches!(self.exit, Exit::Unavailable | Exit::Interrupted),
        }
    }

    /// Tells it on standard error, in the form asked for.
    pub(crate) fn report(&self, format: Format) {
        match format {
            Format::Human => {
                eprintln!("error: {}", self.message);
                if let Some(hint) = &self.hint {
                    eprintln!("  hint: {hint}");
                }
                if let Some(retry) = self.cause.as_ref().and_then(retry_text) {
                    eprintln!("  retry: {retry}");
                }
            }
            Format::Json => {
                let mut error = json!({ "message": self.message, "exit_code": self.exit as u8 });
                error["retryable"] = json!(self.is_retryable());
                if let Some(hint) = &self.hint {
                    error["hint"] = json!(hint);
                }
                if let Some(cause) = &self.cause {
                    error["code"] = json!(code_name(cause.code));
                    error["reason"] = json!(cause.reason);
                    error["outcome"] = json!(match cause.outcome {
                        Outcome::NotApplied => "NOT_APPLIED",
                        Outcome::Unknown => "UNKNOWN",
                    });
                    error["retry_after_ms"] = json!(cause.retry_after.map(|wait| wait.as_millis() as u64));
                    error["metadata"] = json!(cause.metadata);
                    error["request_id"] = json!(cause.request_id);
                    error["field_violations"] = cause
                        .violations
                        .iter()
                        .map(|violation| json!({ "field": violation.field, "description": violation.description }))
                        .collect();
                }
                eprintln!("{}", json!({ "error": error }));
            }
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = exit_of(&error);
        let reason = if error.reason.is_empty() {
            code_name(error.code)
        } else {
            &error.reason
        };
        let mut failure = Failure::new(exit, format!("{error} ({reason})"));
        failure.hint = match exit {
            Exit::UnknownOutcome => error.request_id.as_ref().map(|id| {
                format!("it may have happened; `--request-id {id}` repeats the same request safely")
            }),
            Exit::Unavailable if error.reason.is_empty() => Some(
                "is the cluster running, are --endpoints right, and does it speak TLS (--tls-ca)?".to_owned(),
            ),
            Exit::Conflict => error
                .metadata
                .get("current_etag")
                .map(|etag| format!("the current etag is {etag}")),
            _ => None,
        };
        failure.cause = Some(error);
        failure
    }
}

/// Whether a retry can help, as the service or its silence says. An unknown outcome has a hint of its own.
fn retry_text(cause: &ClientError) -> Option<String> {
    if cause.outcome == Outcome::Unknown {
        return None;
    }
    Some(match cause.retry_after {
        Some(wait) if cause.is_retryable() && !wait.is_zero() => {
            format!("the same command may succeed, after {wait:?}")
        }
        _ if cause.is_retryable() => "the same command may succeed later".to_owned(),
        _ => "does not help: the command, or what it found, has to change first".to_owned(),
    })
}

/// The exit code for what a call ended with.
fn exit_of(error: &ClientError) -> Exit {
    if error.outcome == Outcome::Unknown {
        return Exit::UnknownOutcome;
    }
    match error.code {
        Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => Exit::Usage,
        Code::NotFound => Exit::NotFound,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Exit::Conflict,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled => {
            Exit::Unavailable
        }
        Code::PermissionDenied | Code::Unauthenticated => Exit::Denied,
        _ if error.reason.is_empty() && error.is_retryable() => Exit::Unavailable,
        _ => Exit::Internal,
    }
}

/// The name that gRPC's documentation uses.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_has_its_exit_code() {
        let table = [
            (
                Code::NotFound,
                "ACCOUNT_NOT_FOUND",
                Outcome::NotApplied,
                Exit::NotFound,
            ),
            (
                Code::AlreadyExists,
                "IDENTIFIER_UNAVAILABLE",
                Outcome::NotApplied,
                Exit::Conflict,
            ),
            (
                Code::Aborted,
                "ETAG_MISMATCH",
                Outcome::NotApplied,
                Exit::Conflict,
            ),
            (Code::InvalidArgument, "INVALID", Outcome::NotApplied, Exit::Usage),
            (Code::Unavailable, "", Outcome::NotApplied, Exit::Unavailable),
            (
                Code::Unavailable,
                "NO_LEADER",
                Outcome::Unknown,
                Exit::UnknownOutcome,
            ),
            (Code::Unknown, "", Outcome::NotApplied, Exit::Unavailable),
            (Code::Internal, "INTERNAL", Outcome::NotApplied, Exit::Internal),
            (Code::PermissionDenied, "", Outcome::NotApplied, Exit::Denied),
        ];
        for (code, reason, outcome, exit) in table {
            let mut error = ClientError::local(code, "scripted", outcome);
            error.reason = reason.to_owned();
            assert_eq!(Failure::from(error).exit, exit, "{code:?} {reason}");
        }
    }

    #[test]
    fn it_is_said_whether_a_retry_helps() {
        let error = |code, reason: &str, retry_after| {
            let mut error = ClientError::local(code, "scripted", Outcome::NotApplied);
            error.reason = reason.to_owned();
            error.retry_after = retry_after;
            error
        };
        let second = Some(std::time::Duration::from_secs(1));
        let table = [
            (error(Code::Unavailable, "NO_LEADER", second), true, "after 1s"),
            (error(Code::Unavailable, "", None), true, "may succeed later"),
            (
                error(Code::NotFound, "ACCOUNT_NOT_FOUND", None),
                false,
                "does not help",
            ),
            (
                error(Code::AlreadyExists, "IDENTIFIER_UNAVAILABLE", None),
                false,
                "does not help",
            ),
        ];
        for (error, retryable, words) in table {
            let text = retry_text(&error).unwrap();
            assert!(text.contains(words), "{error:?}: {text}");
            assert_eq!(Failure::from(error).is_retryable(), retryable);
        }
        let unknown = ClientError::local(Code::Unavailable, "scripted", Outcome::Unknown);
        assert_eq!(retry_text(&unknown), None);
        assert!(!Failure::usage("no such file").is_retryable());
    }
}
