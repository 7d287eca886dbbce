//! The production clock, and the guard that keeps a node with a wrong one from stamping.
//!
//! Stamps rise whatever the clock does (the machine sees to that), but a leader whose clock runs ahead drags
//! the log clock with it: request ids expire early, purges come early, and it cannot be taken back. So a node
//! compares its clock with its peers' and steps aside while it is far from their median. Between two comparisons
//! the monotonic clock vouches for it: a wall clock that jumped since a quorum agreed with it is not believed for
//! even one entry, until a quorum agrees again. And until a quorum has agreed once since the start, it does not
//! move the log clock by more than [`LEAP_MS_MAX`]: a machine may come back from a power cut years ahead.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_markers::{planted, reached};
use holdfast_types::{Clock, Millis};
use tokio::time::Instant;

/// How far a node may move the log clock before anybody has agreed with its own.
const LEAP_MS_MAX: u64 = 60_000;

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
    /// When a quorum's clocks last agreed with this one, by both of this node's clocks.
    confirmed: Mutex<Option<(Millis, Instant)>>,
}

impl ClockGuard {
    pub(crate) fn new(offset_ms_max: u64) -> Self {
        ClockGuard {
            offset_ms: AtomicI64::new(0),
            offset_ms_max: i64::try_from(offset_ms_max).unwrap_or(i64::MAX),
            confirmed: Mutex::new(None),
        }
    }

    /// Takes a round of measurements in a cluster of `members`, begun when both of this node's clocks showed `began`:
    /// how far each reachable peer's clock is ahead of it. With fewer than two peers nobody can say whose clock is
    /// wrong; then the last conclusion stands, unless the one peer agrees with this clock.
    ///
    /// It is the beginning that a quorum vouches for. A round takes a while, and a clock that jumps in the middle of it
    /// shows at its end what those that were asked before have never agreed with.
    pub(crate) fn measured(&self, began: (Millis, Instant), mut ahead_ms: Vec<i64>, members: usize) {
        let near = |ahead: &&i64| ahead.abs() <= self.offset_ms_max;
        let agreeing = 1 + ahead_ms.iter().filter(near).count();
        if agreeing > members / 2 {
            *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
        }
        let offset = match ahead_ms[..] {
            [] => return,
            [only] if near(&&only) => -only,
            [_] => return,
            _ => {
                ahead_ms.sort_unstable();
                // Of an even number the one nearer to this clock: a single bad peer must not unseat a good node.
                let upper = ahead_ms[ahead_ms.len() / 2];
                let lower = ahead_ms[(ahead_ms.len() - 1) / 2];
                -(if upper.abs() < lower.abs() { upper } else { lower })
            }
        };
        self.offset_ms.store(offset, Ordering::Relaxed);
        metrics::gauge!("holdfast_clock_offset_milliseconds").set(offset as f64);
    }

    /// Whether this node may stamp an entry at `now` when the log clock shows `log_clock`.
    pub(crate) fn may_stamp(&self, now: Millis, log_clock: Millis) -> bool {
        let believed = match self.confirmation() {
            None => now <= log_clock.plus(LEAP_MS_MAX),
            Some((then, at)) => {
                let elapsed = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
                let jumped = now.0.abs_diff(then.plus(elapsed).0);
                planted!("jumped-clock-believed")
                    || i64::try_from(jumped).is_ok_and(|jumped| jumped <= self.offset_ms_max)
            }
        };
        if !believed {
            reached!("clock.jumped");
        }
        believed && self.trusted()
    }

    /// Whether a quorum has agreed with this clock since the start.
    pub(crate) fn confirmed(&self) -> bool {
        self.confirmation().is_some()
    }

    fn confirmation(&self) -> Option<(Millis, Instant)> {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Now, by a clock that shows this.
    fn at(wall: Millis) -> (Millis, Instant) {
        (wall, Instant::now())
    }

    #[test]
    fn only_the_odd_one_out_steps_aside() {
        let guard = ClockGuard::new(500);
        let table: [(&[i64], i64, bool); 9] = [
            (&[], 0, true),
            (&[9_000], 0, true),
            (&[10, -20], -10, true),
            // One peer is wrong: the other one speaks for this node.
            (&[9_000, 5], -5, true),
            // Both agree that this clock is behind.
            (&[9_000, 8_000], -8_000, false),
            // That stands until somebody agrees with it.
            (&[], -8_000, false),
            (&[7_000], -8_000, false),
            (&[40], -40, true),
            (&[-700, -900, -600, 4], 600, false),
        ];
        for (ahead, offset, trusted) in table {
            guard.measured(at(Millis(0)), ahead.to_vec(), 3);
            assert_eq!(
                (guard.offset_ms(), guard.trusted()),
                (offset, trusted),
                "{ahead:?}"
            );
        }
    }

    #[test]
    fn nobody_leaps_before_a_quorum_agreed() {
        let guard = ClockGuard::new(500);
        let (log_clock, years_later) = (Millis(1_000_000), Millis(100_000_000_000));
        assert!(guard.may_stamp(log_clock.plus(1_000), log_clock));
        assert!(!guard.may_stamp(years_later, log_clock));
        guard.measured(at(years_later), vec![9_000], 3);
        assert!(
            !guard.may_stamp(years_later, log_clock),
            "the one peer that answered does not agree"
        );
        guard.measured(at(years_later), vec![20], 3);
        assert!(guard.may_stamp(years_later, log_clock));
        let alone = ClockGuard::new(500);
        alone.measured(at(years_later), vec![], 1);
        assert!(
            alone.may_stamp(years_later, log_clock),
            "a cluster of one has nobody to ask"
        );
    }

    #[test]
    fn a_clock_that_jumped_since_is_not_believed_until_a_quorum_agrees_again() {
        let guard = ClockGuard::new(500);
        let (log_clock, now) = (Millis(1_000_000), Millis(1_000_100));
        guard.measured(at(now), vec![20, -3], 3);
        assert!(guard.may_stamp(now.plus(200), log_clock));
        assert!(!guard.may_stamp(now.plus(15 * 60_000), log_clock));
        assert!(!guard.may_stamp(now.plus(2_000), log_clock));
        assert!(!guard.may_stamp(now.minus(2_000), log_clock));
        // Somebody set it right, and the peers say so.
        guard.measured(at(now.plus(2_000)), vec![20, -3], 3);
        assert!(guard.may_stamp(now.plus(2_100), log_clock));
    }

    #[test]
    fn a_clock_that_jumps_while_peers_are_asked_is_not_believed() {
        let guard = ClockGuard::new(500);
        let (log_clock, now) = (Millis(1_000_000), Millis(1_000_100));
        let began = at(now);
        // All were asked before it jumped; the round ends after.
        let jumped = now.plus(18 * 60_000);
        guard.measured(began, vec![20, -3, 5, 1], 5);
        assert!(!guard.may_stamp(jumped, log_clock));
        assert!(guard.may_stamp(now.plus(100), log_clock));
    }
}
