//! Deadlines: every call has one, the caller's or the method's.
//!
//! The answer must arrive before the caller stops listening, and it should say *why*; so work stops a little
//! earlier than the caller does, and whatever is handed on to another node gets what is left, less the way.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// The header with a caller's deadline.
pub(crate) const GRPC_TIMEOUT: &str = "grpc-timeout";

/// When a call must have its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    at: Instant,
}

impl Deadline {
    /// The deadline of a call that came in just now: `grpc-timeout` less what the way back takes, but at most
    /// `most`; without one `default`.
    pub(crate) fn of_call(metadata: &MetadataMap, default: Duration, most: Duration) -> Self {
        let given = metadata
            .get(GRPC_TIMEOUT)
            .and_then(|value| value.to_str().ok())
            .and_then(parse_grpc_timeout);
        let budget = given.map_or(default, |given| given.saturating_sub(way_back(given)).min(most));
        Deadline {
            at: Instant::now() + budget,
        }
    }

    /// A deadline this long from now.
    pub(crate) fn after(budget: Duration) -> Self {
        Deadline {
            at: Instant::now() + budget,
        }
    }

    /// The moment.
    pub(crate) fn at(self) -> Instant {
        self.at
    }

    /// What is left; zero once it has passed.
    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub(crate) fn passed(self) -> bool {
        self.left().is_zero()
    }

    /// The budget of a call to another node made on behalf of this one: its answer must come back in time to
    /// be passed on.
    pub(crate) fn for_hop(self) -> Duration {
        let left = self.left();
        left.saturating_sub(way_back(left))
    }

    /// This deadline, or `budget` from now if that is sooner.
    pub(crate) fn at_most(self, budget: Duration) -> Self {
        Deadline {
            at: self.at.min(Instant::now() + budget),
        }
    }
}

/// A tenth of the budget, at most 50 ms: more than a way back inside a data centre, little of any budget.
fn way_back(budget: Duration) -> Duration {
    (budget / 10).min(Duration::from_millis(50))
}

/// After how long a call with this `grpc-timeout` is answered whatever happens: later than its handler does by
/// itself, earlier than the caller leaves.
#[cfg_attr(
    madsim,
    allow(dead_code, reason = "the simulator's transport makes no errors of its own")
)]
pub(crate) fn last_word(given: Duration) -> Duration {
    given.saturating_sub(way_back(given) / 2)
}

/// Reads gRPC's `TimeoutValue TimeoutUnit`: at most eight digits and one of `HMSmun`.
pub(crate) fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let split = text.len().checked_sub(1)?;
    if !text.is_char_boundary(split) {
        return None;
    }
    let (digits, unit) = text.split_at(split);
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_as_the_protocol_says() {
        assert_eq!(parse_grpc_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(
            parse_grpc_timeout("99999999n"),
            Some(Duration::from_nanos(99_999_999))
        );
        assert_eq!(parse_grpc_timeout("1H"), Some(Duration::from_secs(3600)));
        for bad in ["", "S", "5", "5s", "-1S", "123456789S", "1é"] {
            assert_eq!(parse_grpc_timeout(bad), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn answers_are_due_before_the_caller_leaves() {
        let mut metadata = MetadataMap::new();
        let (default, most) = (Duration::from_secs(5), Duration::from_secs(60));
        let unset = Deadline::of_call(&metadata, default, most).left();
        assert!(unset > Duration::from_secs(4) && unset <= default);
        metadata.insert("grpc-timeout", "100m".parse().unwrap());
        let short = Deadline::of_call(&metadata, default, most);
        assert!(short.left() <= Duration::from_millis(90));
        assert!(short.for_hop() <= Duration::from_millis(81));
        metadata.insert("grpc-timeout", "9H".parse().unwrap());
        assert!(Deadline::of_call(&metadata, default, most).left() <= most);
    }
}
