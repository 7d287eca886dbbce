//! How long to wait before the next attempt: exponential, capped, with full jitter.
//!
//! Full jitter (a uniform draw between zero and the cap of this step) spreads clients that failed at the same
//! moment; source: Brooker, *Exponential Backoff And Jitter*, AWS Architecture Blog, 2015.

use std::time::Duration;

/// The shape of the back-off. The draw itself is a parameter, so that the shape can be tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The cap of the first wait, milliseconds; each later cap is twice the one before.
    pub base_ms: u64,
    /// No wait is longer than this, milliseconds.
    pub wait_ms_max: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            base_ms: 25,
            wait_ms_max: 1_000,
        }
    }
}

impl Backoff {
    /// The wait before retry number `retry` (from 0); `draw` is uniform in `0.0..1.0`.
    pub fn wait(&self, retry: u32, draw: f64) -> Duration {
        let cap_ms = self
            .base_ms
            .saturating_mul(1 << retry.min(20))
            .min(self.wait_ms_max);
        Duration::from_micros((cap_ms as f64 * 1_000.0 * draw.clamp(0.0, 1.0)) as u64)
    }
}

/// A uniform draw in `0.0..1.0` from the operating system's generator (the simulator's, in a simulation).
/// Should that fail, the middle: a wait without jitter is better than no call.
pub(crate) fn draw() -> f64 {
    let bits = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

/// A uniform draw in `0..len`; 0 if there is nothing to choose from.
pub(crate) fn draw_index(len: usize) -> usize {
    (draw() * len as f64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_double_up_to_the_maximum() {
        let backoff = Backoff {
            base_ms: 25,
            wait_ms_max: 1_000,
        };
        let caps: Vec<u128> = (0..8).map(|retry| backoff.wait(retry, 1.0).as_millis()).collect();
        assert_eq!(caps, [25, 50, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(backoff.wait(u32::MAX, 1.0), Duration::from_secs(1), "no overflow");
    }

    #[test]
    fn the_draw_spreads_the_wait_over_the_whole_range() {
        let backoff = Backoff::default();
        assert_eq!(backoff.wait(3, 0.0), Duration::ZERO);
        assert_eq!(backoff.wait(3, 0.5), Duration::from_millis(100));
        for _ in 0..100 {
            assert!((0.0..1.0).contains(&draw()));
        }
    }
}
