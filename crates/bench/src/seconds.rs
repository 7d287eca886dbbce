//! Latencies second by second, in one place for all clients: counters that they add to and never wait for.
//!
//! A histogram of its own for each client and second would be gigabytes. Buckets are a sixteenth of a power of two wide,
//! so what is read from them is exact to 3 %; a second is 2 KB.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::pace::Span;

/// Buckets of a power of two, as a power of two.
const FINE: u32 = 4;
/// Powers of two: 2^36 us are 19 hours. What is longer counts as that.
const POWERS: u32 = 36;
const BUCKETS: usize = ((POWERS - FINE + 1) << FINE) as usize;

/// The seconds of the measured time.
pub(crate) struct Seconds {
    span: Span,
    counts: Vec<[AtomicU32; BUCKETS]>,
}

impl Seconds {
    pub(crate) fn new(span: Span) -> Self {
        let seconds = (span.end - span.measured).as_secs_f64().ceil() as usize;
        Seconds {
            span,
            counts: (0..seconds)
                .map(|_| [const { AtomicU32::new(0) }; BUCKETS])
                .collect(),
        }
    }

    /// An operation that was due then, and ended now.
    pub(crate) fn note(&self, due: Instant, ended: Instant) {
        if ended < self.span.measured || ended >= self.span.end {
            return;
        }
        let second = (ended - self.span.measured).as_secs() as usize;
        if let Some(counts) = self.counts.get(second) {
            counts[bucket((ended - due).as_micros() as u64)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// 99 of 100 that ended in this second were quicker, microseconds; 0 if none did.
    pub(crate) fn p99_us(&self, second: usize) -> u64 {
        p99_us(&self.counts[second..=second])
    }

    /// The same of each whole minute.
    pub(crate) fn minutes_p99_us(&self) -> Vec<u64> {
        let whole = (self.span.end - self.span.measured).as_secs() as usize;
        let seconds = &self.counts[..whole.min(self.counts.len())];
        seconds
            .chunks_exact(Duration::from_secs(60).as_secs() as usize)
            .map(p99_us)
            .collect()
    }
}

fn p99_us(seconds: &[[AtomicU32; BUCKETS]]) -> u64 {
    let count = |bucket: usize| -> u64 {
        let each = seconds
            .iter()
            .map(|counts| u64::from(counts[bucket].load(Ordering::Relaxed)));
        each.sum()
    };
    let all: u64 = (0..BUCKETS).map(count).sum();
    // The least value that at least 99 of 100 do not exceed.
    let wanted = (all * 99).div_ceil(100);
    let mut seen = 0;
    for bucket in 0..BUCKETS {
        seen += count(bucket);
        if wanted > 0 && seen >= wanted {
            return middle(bucket);
        }
    }
    0
}

/// Small values have a bucket each; of larger ones the highest bits choose.
fn bucket(value_us: u64) -> usize {
    let value = value_us.clamp(1, (1 << POWERS) - 1);
    let power = value.ilog2();
    if power < FINE {
        return value as usize;
    }
    let fine = (value >> (power - FINE)) as usize & ((1 << FINE) - 1);
    ((power - FINE + 1) << FINE) as usize + fine
}

/// The middle of what is counted there.
fn middle(bucket: usize) -> u64 {
    let (row, fine) = ((bucket >> FINE) as u32, bucket as u64 & ((1 << FINE) - 1));
    if row == 0 {
        return fine;
    }
    let width = 1_u64 << (row - 1);
    ((1 << FINE) + fine) * width + width / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_back_is_near_what_was_noted() {
        let mut last = 0;
        for value in (1..5_000).chain((1..400).map(|step| step * step * 977)) {
            let bucket = bucket(value);
            assert!(bucket < BUCKETS && (value < 5_000 || bucket >= last), "{value}");
            last = last.max(bucket);
            let near = middle(bucket) as f64 / value as f64;
            assert!((0.96..1.04).contains(&near), "{value}: {}", middle(bucket));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn seconds_and_minutes() {
        let start = Instant::now();
        let span = Span {
            start,
            measured: start + Duration::from_secs(1),
            end: start + Duration::from_millis(62_500),
        };
        let seconds = Seconds::new(span);
        let at = |ms| start + Duration::from_millis(ms);
        for number in 0..200 {
            let latency = if number < 3 { 500 } else { 10 };
            seconds.note(at(1_600 - latency), at(1_600));
        }
        seconds.note(at(3_000), at(3_100));
        seconds.note(at(0), at(999));
        seconds.note(at(0), at(62_500));
        assert!(
            (480_000..520_000).contains(&seconds.p99_us(0)),
            "{}",
            seconds.p99_us(0)
        );
        assert_eq!(seconds.p99_us(1), 0);
        assert!((96_000..104_000).contains(&seconds.p99_us(2)));
        let minutes = seconds.minutes_p99_us();
        assert_eq!(minutes.len(), 1, "the rest is no minute");
        assert!((96_000..520_000).contains(&minutes[0]));
    }
}
