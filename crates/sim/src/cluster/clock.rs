//! A machine's clock. The simulator gives every machine the same time.

use std::sync::{Mutex, PoisonError};

use holdfast_types::{Clock, Millis};

/// A clock that can be put off, and that can run too fast or too slow.
#[derive(Debug, Default)]
pub struct SkewedClock {
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    /// How far it was from true time at `since_ms`.
    offset_ms: i64,
    /// Parts per million that it runs too fast.
    drift_ppm: i64,
    /// True time at which the two were set.
    since_ms: u64,
}

impl SkewedClock {
    /// Puts the clock this far from true simulated time; negative: behind.
    pub fn set_offset_ms(&self, offset_ms: i64) {
        let mut state = self.lock();
        *state = State {
            offset_ms,
            since_ms: true_ms(),
            ..*state
        };
    }

    /// Makes the clock run this much too fast from now on; negative: too slow.
    pub fn set_drift_ppm(&self, drift_ppm: i64) {
        let mut state = self.lock();
        let now = true_ms();
        *state = State {
            offset_ms: state.offset_at(now),
            drift_ppm,
            since_ms: now,
        };
    }

    /// How far the clock is from true time now.
    pub fn offset_ms(&self) -> i64 {
        self.lock().offset_at(true_ms())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn offset_at(&self, now_ms: u64) -> i64 {
        let passed = now_ms.saturating_sub(self.since_ms) as i64;
        self.offset_ms + passed * self.drift_ppm / 1_000_000
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Millis {
        let now = true_ms();
        Millis(now.saturating_add_signed(self.lock().offset_at(now)))
    }
}

/// Simulated time since 1970.
fn true_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis() as u64)
}
