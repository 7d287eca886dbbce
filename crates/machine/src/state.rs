//! What the machine itself remembers about a shard, besides the rows.

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_types::{Millis, ShardEpoch, ShardId, Stamp};

/// A shard's state of its own. Kept in memory by whoever applies, saved in every applied batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The shard.
    pub shard: ShardId,
    /// The stamp of the last command: the log clock.
    pub stamp: Stamp,
    /// The shard's epoch.
    pub epoch: ShardEpoch,
    /// The feature level all replicas have.
    pub feature_level: u32,
    /// Requests born before this are refused; their records may be gone.
    pub request_floor: Millis,
    /// Change events of entries before this index may be gone.
    pub change_floor: u64,
    /// A chain over everything applied (XXH3, 128 bits): equal on two replicas that applied the same entries alike.
    pub digest: [u8; 16],
}

/// The saved state cannot be read. Fatal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shard's saved state is damaged or from a newer release")]
pub struct CorruptState;

const FORMAT: u8 = 1;
const LEN: usize = 1 + 4 + 8 + 8 + 4 + 8 + 8 + 16;

impl State {
    /// The state of a shard to which nothing has been applied.
    pub fn new(shard: ShardId) -> Self {
        State {
            shard,
            stamp: Stamp::default(),
            epoch: ShardEpoch(1),
            feature_level: 1,
            request_floor: Millis(0),
            change_floor: 0,
            digest: [0; 16],
        }
    }

    /// The stored form: format byte, then fixed-width big-endian fields.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(LEN);
        out.put_u8(FORMAT);
        out.put_u32(self.shard.0);
        out.put_u64(self.stamp.0);
        out.put_u64(self.epoch.0);
        out.put_u32(self.feature_level);
        out.put_u64(self.request_floor.0);
        out.put_u64(self.change_floor);
        out.put_slice(&self.digest);
        out.freeze()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, CorruptState> {
        if bytes.len() != LEN || bytes[0] != FORMAT {
            return Err(CorruptState);
        }
        Ok(State {
            shard: ShardId(u32::from_be_bytes(array(&bytes[1..5]))),
            stamp: Stamp(u64::from_be_bytes(array(&bytes[5..13]))),
            epoch: ShardEpoch(u64::from_be_bytes(array(&bytes[13..21]))),
            feature_level: u32::from_be_bytes(array(&bytes[21..25])),
            request_floor: Millis(u64::from_be_bytes(array(&bytes[25..33]))),
            change_floor: u64::from_be_bytes(array(&bytes[33..41])),
            digest: array(&bytes[41..57]),
        })
    }
}

fn array<const N: usize>(slice: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(slice);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let state = State {
            stamp: Stamp(7),
            digest: [3; 16],
            change_floor: 9,
            ..State::new(ShardId(2))
        };
        assert_eq!(State::decode(&state.encode()), Ok(state.clone()));
        assert_eq!(State::decode(&state.encode()[1..]), Err(CorruptState));
    }
}
