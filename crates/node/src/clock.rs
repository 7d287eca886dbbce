//! The production clock, and the guard that keeps a node with a wrong one from stamping.
//!
//! Stamps rise whatever the clock does (the machine sees to that), but a leader whose clock runs ahead drags
//! the log clock with it: request ids expire early, purges come early, and it cannot be taken back. So a node
//! compares its clock with its peers' and steps aside while it is far from their median.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_types::{Clock, Millis};

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis(since_epoch.as_millis() as u64)
    }
}

/// How far this node's clock is from the median of its peers', as last measured.
#[derive(Debug)]
pub(crate) struct ClockGuard {
    offset_ms: AtomicI64,
    offset_ms_max: i64,
}

impl ClockGuard {
    pub(crate) fn new(offset_ms_max: u64) -> Self {
        ClockGuard {
            offset_ms: AtomicI64::new(0),
            offset_ms_max: i64::try_from(offset_ms_max).unwrap_or(i64::MAX),
        }
    }

    /// Takes a round of measurements: how far each reachable peer's clock is ahead of this one's. With fewer
    /// than two peers nobody can say whose clock is wrong, so nothing is concluded.
    pub(crate) fn measured(&self, mut ahead_ms: Vec<i64>) {
        let offset = if ahead_ms.len() < 2 {
            0
        } else {
            ahead_ms.sort_unstable();
            // Of an even number the one nearer to this clock: a single bad peer must not unseat a good node.
            let upper = ahead_ms[ahead_ms.len() / 2];
            let lower = ahead_ms[(ahead_ms.len() - 1) / 2];
            -(if upper.abs() < lower.abs() { upper } else { lower })
        };
        self.offset_ms.store(offset, Ordering::Relaxed);
        metrics::gauge!("holdfast_clock_offset_milliseconds").set(offset as f64);
    }

    /// How far this clock is ahead of its peers' median, milliseconds; negative: behind.
    pub(crate) fn offset_ms(&self) -> i64 {
        self.offset_ms.load(Ordering::Relaxed)
    }

    /// Whether this node may stamp and lead.
    pub(crate) fn trusted(&self) -> bool {
        self.offset_ms().abs() <= self.offset_ms_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_odd_one_out_steps_aside() {
        let guard = ClockGuard::new(500);
        let table: [(&[i64], i64, bool); 6] = [
            (&[], 0, true),
            (&[9_000], 0, true),
            (&[10, -20], -10, true),
            // One peer is wrong: the other one speaks for this node.
            (&[9_000, 5], -5, true),
            // Both agree that this clock is behind.
            (&[9_000, 8_000], -8_000, false),
            (&[-700, -900, -600, 4], 600, false),
        ];
        for (ahead, offset, trusted) in table {
            guard.measured(ahead.to_vec());
            assert_eq!(
                (guard.offset_ms(), guard.trusted()),
                (offset, trusted),
                "{ahead:?}"
            );
        }
    }
}
