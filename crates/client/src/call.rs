//! One call: attempts with the same message, until an answer, the deadline, or an error that stays.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::backoff;
use crate::config::{CallOptions, ClientConfig};
use crate::endpoints::{Endpoints, canonical_address};
use crate::error::{ClientError, Outcome};
use crate::retry::{Progress, RetryPolicy, Step};

/// Response metadata in which a node names the leader's address for the port that was called.
pub(crate) const LEADER_HINT: &str = "holdfast-leader";

/// What a call may change, and so when it may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: always.
    Read,
    /// Something, at most once for this request id: always.
    Once { request_id: String },
    /// Something, without a request id (administration): only while it surely had no effect.
    Plain,
}

/// How one method is called.
pub(crate) struct Call<'a> {
    pub(crate) config: &'a ClientConfig,
    pub(crate) endpoints: &'a Endpoints,
    pub(crate) caller: Option<&'a MetadataValue<Ascii>>,
    pub(crate) options: &'a CallOptions,
    pub(crate) effect: Effect,
    /// The longest attempt; `None`: as long as the call (administration, which waits for data to move).
    pub(crate) attempt_timeout: Option<Duration>,
    /// Whether `endpoints` are client ports (and not admin ports).
    pub(crate) on_client_port: bool,
    /// The call opens a stream: the limit is for opening it, not for all that it brings.
    pub(crate) opens_stream: bool,
}

/// What must be left of the deadline for another attempt.
const ATTEMPT_MIN: Duration = Duration::from_millis(2);

impl Call<'_> {
    /// Runs attempts of `send` until one succeeds or nothing more can be done within the deadline.
    pub(crate) async fn run<M, R, F, S>(&self, message: M, send: S) -> Result<R, ClientError>
    where
        M: Clone,
        S: Fn(Channel, Request<M>) -> F,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let started = Instant::now();
        let deadline = started + self.options.deadline.unwrap_or(self.config.deadline);
        let policy = RetryPolicy {
            attempts_max: self.options.attempts_max.unwrap_or(self.config.attempts_max),
            backoff: self.config.backoff,
        };
        let traceparent = self.options.traceparent.clone().unwrap_or_else(fresh_traceparent);
        let mut free_moves = self.endpoints.len() as u32 - 1;
        let mut attempts = 0;
        let mut unknown = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = self.attempt_timeout.map_or(left, |timeout| timeout.min(left));
            attempts += 1;
            let target = self.endpoints.pick();
            let request = self.request(message.clone(), limit, &traceparent);
            let answer = match tokio::time::timeout(limit, send(target.channel, request)).await {
                Ok(answer) => answer,
                Err(_) => Err(Status::deadline_exceeded(format!(
                    "{} did not answer within {} ms",
                    target.address,
                    limit.as_millis()
                ))),
            };
            let status = match answer {
                Ok(response) => {
                    if let Some(leader) = text(response.metadata(), LEADER_HINT) {
                        self.endpoints.leader_is(leader);
                    }
                    return Ok(response.into_inner());
                }
                Err(status) => status,
            };

            let mut error = ClientError::from_status(&status);
            let hint = text(status.metadata(), LEADER_HINT).or_else(|| self.hint_in(&error));
            let news = learn(self.endpoints, &error, hint, &target.address);
            let left = deadline.saturating_duration_since(Instant::now());
            let progress = Progress {
                attempts,
                free_moves,
                left,
            };
            unknown |= error.outcome == Outcome::Unknown;
            let step = match self.effect {
                Effect::Plain if unknown => Step::GiveUp,
                _ => policy.step(&error, progress, backoff::draw()),
            };
            match step {
                Step::Retry { mut wait, elsewhere } => {
                    if elsewhere {
                        free_moves = free_moves.saturating_sub(1);
                        // The leader that was just named has not been asked yet; a second redirection waits.
                        if news && attempts <= 2 {
                            wait = Duration::ZERO;
                        }
                    }
                    tracing::debug!(
                        code = ?error.code, reason = %error.reason, node = %target.address,
                        attempt = attempts, wait_ms = wait.as_millis() as u64, "trying again"
                    );
                    if !wait.is_zero() {
                        tokio::time::sleep(wait).await;
                    }
                    // It may have slept longer. An attempt that has no time would only blur what is known.
                    if deadline.saturating_duration_since(Instant::now()) >= ATTEMPT_MIN {
                        continue;
                    }
                }
                Step::GiveUp => {}
            }
            self.finish(&mut error, attempts, unknown);
            return Err(error);
        }
    }

    /// The leader as an error's facts name it: by its client address, which is of no use on the admin port.
    fn hint_in<'e>(&self, error: &'e ClientError) -> Option<&'e str> {
        let address = if self.on_client_port {
            error.metadata.get("leader")
        } else {
            None
        };
        address.map(String::as_str).filter(|address| !address.is_empty())
    }

    /// What the caller is told: the outcome of all attempts together.
    fn finish(&self, error: &mut ClientError, attempts: u32, unknown: bool) {
        error.attempts = attempts;
        match &self.effect {
            Effect::Read => error.outcome = Outcome::NotApplied,
            Effect::Plain => {}
            Effect::Once { request_id } => {
                error.request_id = Some(request_id.clone());
                if unknown && !conclusive(&error.reason) {
                    error.outcome = Outcome::Unknown;
                }
            }
        }
    }

    fn request<M>(&self, message: M, limit: Duration, traceparent: &str) -> Request<M> {
        let mut request = Request::new(message);
        if !self.opens_stream {
            // Zero would be a deadline that has passed already.
            request.set_timeout(limit.max(Duration::from_millis(1)));
        }
        annotate(request.metadata_mut(), self.caller, traceparent);
        request
    }
}

/// Whether an answer settles what became of the request id, whatever happened to earlier attempts: it was found in
/// the state after the request's record had been looked for. Everything else is said about one attempt only. An
/// expired id above all: its record may be gone, with the effect that an earlier attempt had.
fn conclusive(reason: &str) -> bool {
    matches!(
        reason,
        "REQUEST_ID_REUSED"
            | "LIMIT_EXCEEDED"
            | "ACCOUNT_NOT_FOUND"
            | "ACCOUNT_PURGED"
            | "ACCOUNT_EXISTS"
            | "IDENTIFIER_NOT_FOUND"
            | "IDENTIFIER_UNAVAILABLE"
            | "STATE_FORBIDS"
            | "ETAG_MISMATCH"
    )
}

/// Takes note of what a failure says about the nodes. Returns whether a leader was named that is news.
pub(crate) fn learn(endpoints: &Endpoints, error: &ClientError, hint: Option<&str>, address: &str) -> bool {
    match hint {
        Some(leader) if canonical_address(leader) != address => endpoints.leader_is(leader),
        _ => {
            let transport_failed = error.reason.is_empty() && error.is_retryable();
            if error.code == Code::Unavailable || transport_failed {
                endpoints.failed(address);
            }
            false
        }
    }
}

/// Who calls, and in which trace.
pub(crate) fn annotate(metadata: &mut MetadataMap, caller: Option<&MetadataValue<Ascii>>, traceparent: &str) {
    if let Some(caller) = caller {
        metadata.insert("holdfast-caller", caller.clone());
    }
    if let Ok(mut value) = traceparent.parse::<MetadataValue<Ascii>>() {
        // No two are alike: kept out of the header tables of both ends, where it would only drive out what repeats.
        value.set_sensitive(true);
        metadata.insert("traceparent", value);
    }
}

/// A new W3C trace with its first span, sampled.
pub(crate) fn fresh_traceparent() -> String {
    let bytes: [u8; 24] = rand::random();
    // Every call has one: digits from a table cost a twentieth of formatting them.
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(55);
    text.push_str("00-");
    for (at, byte) in bytes.iter().enumerate() {
        if at == 16 {
            text.push('-');
        }
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
    text.push_str("-01");
    text
}

pub(crate) fn text<'m>(metadata: &'m MetadataMap, key: &str) -> Option<&'m str> {
    metadata.get(key)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_has_the_standard_form() {
        let value = fresh_traceparent();
        let parts: Vec<&str> = value.split('-').collect();
        assert_eq!(
            parts.iter().map(|part| part.len()).collect::<Vec<_>>(),
            [2, 32, 16, 2]
        );
        assert!(
            value
                .bytes()
                .all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        );
        assert_ne!(value, fresh_traceparent());
    }
}
