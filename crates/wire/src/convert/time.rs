//! Times and durations.

use std::time::Duration;

use holdfast_types::Millis;

use super::check::Check;

/// Seconds of 0001-01-01T00:00:00Z and of 9999-12-31T23:59:59Z: what protobuf's Timestamp allows.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// An instant as a message.
pub fn timestamp(instant: Millis) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(instant.0 / 1_000).unwrap_or(i64::MAX),
        nanos: (instant.0 % 1_000) as i32 * 1_000_000,
    }
}

/// A duration as a message.
pub fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos() as i32,
    }
}

/// Whole milliseconds as a message.
pub fn duration_ms(ms: u64) -> prost_types::Duration {
    duration(Duration::from_millis(ms))
}

/// An instant that protobuf allows, as (seconds, nanoseconds).
pub fn exact(check: &mut Check, field: &str, timestamp: prost_types::Timestamp) -> Option<(i64, i32)> {
    let ok = TIMESTAMP_SECONDS.contains(&timestamp.seconds) && (0..1_000_000_000).contains(&timestamp.nanos);
    if !ok {
        check.wrong(
            field,
            "must lie in the years 1 to 9999, with 0 to 999,999,999 nanoseconds",
        );
    }
    ok.then_some((timestamp.seconds, timestamp.nanos))
}

/// An instant since the Unix epoch, cut to milliseconds.
pub fn millis(check: &mut Check, field: &str, timestamp: prost_types::Timestamp) -> Option<Millis> {
    let (seconds, nanos) = exact(check, field, timestamp)?;
    match u64::try_from(seconds) {
        Ok(seconds) => Some(Millis(seconds * 1_000 + nanos as u64 / 1_000_000)),
        Err(_) => {
            check.wrong(field, "must not be before 1970");
            None
        }
    }
}

/// A duration that is not negative.
pub fn not_negative(check: &mut Check, field: &str, duration: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(duration.seconds).ok();
    let nanos = u32::try_from(duration.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000);
    let duration = seconds
        .zip(nanos)
        .map(|(seconds, nanos)| Duration::new(seconds, nanos));
    if duration.is_none() {
        check.wrong(field, "must be a duration that is not negative");
    }
    duration
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_survive_to_the_millisecond() {
        for ms in [0, 1, 999, 1_000, 1_700_000_000_123, 253_402_300_799_999] {
            let mut check = Check::new();
            assert_eq!(millis(&mut check, "t", timestamp(Millis(ms))), Some(Millis(ms)));
        }
    }

    #[test]
    fn what_protobuf_forbids_is_refused() {
        for (seconds, nanos) in [(i64::MIN, 0), (i64::MAX, 0), (0, -1), (0, 1_000_000_000), (-1, 0)] {
            let mut check = Check::new();
            assert_eq!(
                millis(&mut check, "t", prost_types::Timestamp { seconds, nanos }),
                None
            );
            assert!(check.finish(Some(())).is_err());
        }
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
            let mut check = Check::new();
            assert_eq!(
                not_negative(&mut check, "d", prost_types::Duration { seconds, nanos }),
                None
            );
        }
    }
}
