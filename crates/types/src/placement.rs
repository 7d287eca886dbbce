//! Where a row lives: a keyed hash gives the slot, a contiguous range of slots of one placement is a shard.
//!
//! A split moves a boundary and copies nothing; boundaries fall on multiples of [`SLOTS_PER_BUCKET`].

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// How many slots a bucket holds. Splits fall on multiples of this.
pub const SLOTS_PER_BUCKET: u16 = 16;

/// A region in which data must live. 0 is the only one today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Placement(pub u16);

/// A hash bucket: the first 16 bits of a keyed hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Slot(pub u16);

impl Slot {
    /// The slot of something a caller may choose. `key` is the realm's secret, so nobody can aim at a slot.
    pub fn keyed(key: &[u8; 32], bytes: &[u8]) -> Self {
        let hash = blake3::keyed_hash(key, bytes);
        Slot(u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]))
    }

    /// The bucket this slot falls into.
    pub fn bucket(self) -> Bucket {
        Bucket(self.0 / SLOTS_PER_BUCKET)
    }
}

/// Sixteen neighbouring slots: the unit in which request records expire and shards split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Bucket(pub u16);

impl Bucket {
    /// How many buckets there are.
    pub const COUNT: u16 = (u16::MAX / SLOTS_PER_BUCKET) + 1;

    /// The slots of this bucket.
    pub fn slots(self) -> RangeInclusive<u16> {
        let first = self.0 * SLOTS_PER_BUCKET;
        first..=first + (SLOTS_PER_BUCKET - 1)
    }
}

/// A shard: a range of slots, served by one Raft group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ShardId(pub u32);

/// Grows whenever a shard's range or placement changes. A command of another epoch is not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ShardEpoch(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_tile_the_slots() {
        assert_eq!(Bucket::COUNT, 4096);
        assert_eq!(Slot(0).bucket(), Bucket(0));
        assert_eq!(Slot(u16::MAX).bucket(), Bucket(4095));
        assert_eq!(Bucket(4095).slots(), 65520..=65535);
    }

    #[test]
    fn slots_depend_on_the_key() {
        assert_ne!(Slot::keyed(&[1; 32], b"a"), Slot::keyed(&[2; 32], b"a"));
    }
}
