//! Choices from one stream of numbers.

use holdfast_storage::choices::SplitMix64;

/// A stream of choices; each client has its own, so that what one does never depends on how fast another is.
#[derive(Debug, Clone)]
pub(super) struct Dice(SplitMix64);

impl Dice {
    /// The stream of a seed and of whose it is.
    pub(super) fn new(seed: u64, whose: u64) -> Self {
        let mut seeds = SplitMix64::new(seed ^ 0x0077_6f72_6b6c_6f61);
        let mixed = seeds.next_u64() ^ whose.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Dice(SplitMix64::new(mixed))
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// A number from `least` to `most`, both included.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.0.below(most - least + 1)
    }

    /// True this often of a hundred.
    pub(super) fn percent(&mut self, often: u64) -> bool {
        self.0.below(100) < often
    }

    /// True with this probability.
    pub(super) fn share(&mut self, share: f64) -> bool {
        const STEPS: u64 = 1 << 32;
        (self.0.below(STEPS) as f64) < share * STEPS as f64
    }

    /// One of them; none of none.
    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        match from.len() as u64 {
            0 => None,
            len => from.get(self.0.below(len) as usize),
        }
    }

    /// Puts them in any order (Fisher and Yates).
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.0.below(last as u64 + 1) as usize);
        }
    }

    /// Ten random bytes, for an id.
    pub(super) fn entropy(&mut self) -> [u8; 10] {
        let (a, b) = (self.0.next_u64().to_be_bytes(), self.0.next_u64().to_be_bytes());
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&a);
        bytes[8..].copy_from_slice(&b[..2]);
        bytes
    }
}
