//! The opaque consistency token: what a client carries from an answer to a later read, on any node.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{Placement, RealmNumber, ShardEpoch, ShardId};

/// "I have seen at least this much of this shard."
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsistencyToken {
    /// First 8 bytes of the cluster's id: a token of another cluster is refused.
    pub cluster: [u8; 8],
    /// Realm.
    pub realm: RealmNumber,
    /// Placement.
    pub placement: Placement,
    /// Shard.
    pub shard: ShardId,
    /// The shard's epoch when the token was given out.
    pub epoch: ShardEpoch,
    /// Log index that must be applied before the read.
    pub index: u64,
}

/// The bytes are not a token of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a consistency token of this service; pass the bytes of an earlier answer unchanged")]
pub struct InvalidToken;

const FORMAT: u8 = 1;
const LEN: usize = 1 + 8 + 4 + 2 + 4 + 8 + 8 + 4;

impl ConsistencyToken {
    /// The opaque form: fixed-width big-endian fields, then a CRC-32 over them.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(LEN);
        out.put_u8(FORMAT);
        out.put_slice(&self.cluster);
        out.put_u32(self.realm.0);
        out.put_u16(self.placement.0);
        out.put_u32(self.shard.0);
        out.put_u64(self.epoch.0);
        out.put_u64(self.index);
        let crc = crc32fast::hash(&out);
        out.put_u32(crc);
        out.freeze()
    }

    /// Reads the opaque form back.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidToken> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(InvalidToken)?;
        if bytes.len() != LEN || body[0] != FORMAT || crc32fast::hash(body) != u32::from_be_bytes(*crc) {
            return Err(InvalidToken);
        }
        Ok(ConsistencyToken {
            cluster: array(&body[1..9]),
            realm: RealmNumber(u32::from_be_bytes(array(&body[9..13]))),
            placement: Placement(u16::from_be_bytes(array(&body[13..15]))),
            shard: ShardId(u32::from_be_bytes(array(&body[15..19]))),
            epoch: ShardEpoch(u64::from_be_bytes(array(&body[19..27]))),
            index: u64::from_be_bytes(array(&body[27..35])),
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
    fn round_trips_and_refuses_damage() {
        let token = ConsistencyToken {
            cluster: [9; 8],
            realm: RealmNumber(1),
            placement: Placement(0),
            shard: ShardId(3),
            epoch: ShardEpoch(4),
            index: 55,
        };
        let bytes = token.encode();
        assert_eq!(ConsistencyToken::decode(&bytes), Ok(token));
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1;
            assert!(ConsistencyToken::decode(&bad).is_err(), "flip at {at}");
        }
        assert!(ConsistencyToken::decode(b"").is_err());
    }
}
