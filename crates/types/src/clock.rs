//! Time as Holdfast keeps it: wall milliseconds, the log's hybrid stamp, and the port that reads a clock.

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Millis(pub u64);

impl Millis {
    /// This instant moved `ms` milliseconds into the future, saturating.
    pub fn plus(self, ms: u64) -> Self {
        Millis(self.0.saturating_add(ms))
    }

    /// This instant moved `ms` milliseconds into the past, saturating at the epoch.
    pub fn minus(self, ms: u64) -> Self {
        Millis(self.0.saturating_sub(ms))
    }
}

/// The hybrid logical time of one log entry: milliseconds in the high 48 bits, a counter in the low 16.
///
/// Unique and strictly rising within a shard. It is the version that guards compare, so that
/// delete-and-recreate cannot fool them. Source: Kulkarni et al., *Logical Physical Clocks*, 2014.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The first stamp after `self` for an entry proposed at `wall`: never earlier than either.
    pub fn next(self, wall: Millis) -> Self {
        Stamp((self.0 + 1).max(wall.0 << 16))
    }

    /// The wall-clock part.
    pub fn millis(self) -> Millis {
        Millis(self.0 >> 16)
    }
}

/// What a guard asks of a row: evaluation read it so, and apply writes nothing unless it still is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is none.
    Absent,
    /// There is one and it was last written with this stamp.
    Stamp(Stamp),
}

/// The clock port. Production reads the system clock; a simulation gives each node a skewed one.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time now. May jump both ways; nothing may rely on it being monotonic.
    fn now(&self) -> Millis;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_even_when_the_clock_goes_back() {
        let first = Stamp::default().next(Millis(1_000));
        let second = first.next(Millis(10));
        assert!(second > first);
        assert_eq!(second.millis(), Millis(1_000));
        assert_eq!(second.next(Millis(2_000)).millis(), Millis(2_000));
    }
}
