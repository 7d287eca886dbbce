//! Whether to try again, where, and when: a pure decision over what the failed attempt said.
//!
//! Repeating is safe for every call: reads change nothing, and mutations carry the same request id each time,
//! so an attempt that had its effect unseen is answered with that effect. So the question is only whether
//! repeating can help. A server that thinks so says it (`RetryInfo`); an unknown outcome can only be learned by
//! asking again; and a failure without our error details comes from the transport, not from a service.

use std::time::Duration;

use tonic::Code;

use crate::backoff::Backoff;
use crate::error::{ClientError, Outcome};

/// When to stop and how long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The most attempts of one call.
    pub attempts_max: u32,
    /// Waits between them.
    pub backoff: Backoff,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Return the error.
    GiveUp,
    /// Try again after this wait.
    Retry {
        /// How long to wait.
        wait: Duration,
        /// Whether another node should get the next attempt.
        elsewhere: bool,
    },
}

/// What happened so far in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Attempts made, the failed one included.
    pub attempts: u32,
    /// How many of the coming attempts may go without a wait, because they ask a node not asked yet.
    pub free_moves: u32,
    /// Time left until the caller's deadline.
    pub left: Duration,
}

impl RetryPolicy {
    /// The next step after `error`; `draw` is uniform in `0.0..1.0`.
    pub fn step(&self, error: &ClientError, progress: Progress, draw: f64) -> Step {
        if progress.attempts >= self.attempts_max || !can_help(error) {
            return Step::GiveUp;
        }
        let elsewhere = elsewhere_helps(error);
        let wait = if elsewhere && progress.free_moves > 0 {
            Duration::ZERO
        } else {
            let asked = error.retry_after.unwrap_or_default();
            asked + self.backoff.wait(progress.attempts - 1, draw)
        };
        // The caller learns sooner, and as much, when a wait beyond the deadline is not begun.
        if wait >= progress.left {
            Step::GiveUp
        } else {
            Step::Retry { wait, elsewhere }
        }
    }
}

/// Whether repeating the call unchanged can end differently.
pub fn can_help(error: &ClientError) -> bool {
    if error.reason.is_empty() {
        return matches!(
            error.code,
            // A connection that broke, a node that died or froze, a stream that was reset, a proxy in between.
            Code::Unavailable
                | Code::Unknown
                | Code::Internal
                | Code::Cancelled
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
        );
    }
    matches!(error.code, Code::Unavailable | Code::DeadlineExceeded)
        || error.outcome == Outcome::Unknown
        || error.retry_after.is_some()
}

/// Whether another node may do better: not where the cluster as a whole said no (overload is answered by the
/// leader, whoever forwards).
fn elsewhere_helps(error: &ClientError) -> bool {
    matches!(
        error.code,
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::DeadlineExceeded
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts_max: 5,
        backoff: Backoff {
            base_ms: 100,
            wait_ms_max: 1_000,
        },
    };

    fn error(code: Code, reason: &str, outcome: Outcome, retry_after_ms: Option<u64>) -> ClientError {
        let mut error = ClientError::local(code, "scripted", outcome);
        error.reason = reason.to_owned();
        error.retry_after = retry_after_ms.map(Duration::from_millis);
        error
    }

    fn retry(wait_ms: u64, elsewhere: bool) -> Step {
        Step::Retry {
            wait: Duration::from_millis(wait_ms),
            elsewhere,
        }
    }

    #[test]
    fn the_table() {
        use Outcome::{NotApplied, Unknown};
        let after = |attempts, free_moves, left_ms| Progress {
            attempts,
            free_moves,
            left: Duration::from_millis(left_ms),
        };
        let table = [
            // Transport: no details. Unheard nodes are tried at once, then with back-off (draw 0.5).
            (
                error(Code::Unavailable, "", NotApplied, None),
                after(1, 2, 9_000),
                retry(0, true),
            ),
            (
                error(Code::Unavailable, "", Unknown, None),
                after(3, 0, 9_000),
                retry(200, true),
            ),
            (
                error(Code::Unknown, "", Unknown, None),
                after(1, 0, 9_000),
                retry(50, true),
            ),
            (
                error(Code::DeadlineExceeded, "", Unknown, None),
                after(1, 1, 9_000),
                retry(0, true),
            ),
            // The service says unavailable: what it asks for comes on top of the back-off.
            (
                error(Code::Unavailable, "NO_LEADER", NotApplied, Some(200)),
                after(1, 0, 9_000),
                retry(250, true),
            ),
            // Overload: the same node, never at once.
            (
                error(Code::ResourceExhausted, "OVERLOADED", NotApplied, Some(300)),
                after(1, 2, 9_000),
                retry(350, false),
            ),
            // Unknown outcomes are asked for again.
            (
                error(Code::DeadlineExceeded, "DEADLINE", Unknown, None),
                after(1, 0, 9_000),
                retry(50, true),
            ),
            // Definite answers are answers.
            (
                error(Code::AlreadyExists, "IDENTIFIER_UNAVAILABLE", NotApplied, None),
                after(1, 2, 9_000),
                Step::GiveUp,
            ),
            (
                error(Code::Aborted, "ETAG_MISMATCH", NotApplied, None),
                after(1, 2, 9_000),
                Step::GiveUp,
            ),
            (
                error(Code::InvalidArgument, "INVALID", NotApplied, None),
                after(1, 2, 9_000),
                Step::GiveUp,
            ),
            (
                error(Code::Unimplemented, "", NotApplied, None),
                after(1, 2, 9_000),
                Step::GiveUp,
            ),
            (
                error(Code::Unauthenticated, "", NotApplied, None),
                after(1, 2, 9_000),
                Step::GiveUp,
            ),
            // A contended key: the server asks for a retry with the same id.
            (
                error(Code::Aborted, "CONTENTION", NotApplied, Some(20)),
                after(1, 2, 9_000),
                retry(70, false),
            ),
            // The end of attempts, the end of time.
            (
                error(Code::Unavailable, "", Unknown, None),
                after(5, 2, 9_000),
                Step::GiveUp,
            ),
            (
                error(Code::Unavailable, "", Unknown, Some(500)),
                after(1, 0, 400),
                Step::GiveUp,
            ),
        ];
        for (error, progress, expected) in table {
            assert_eq!(
                POLICY.step(&error, progress, 0.5),
                expected,
                "{error:?} after {progress:?}"
            );
        }
    }
}
