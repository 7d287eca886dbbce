//! The few key shapes that applying itself must know; all others are the storage schema's business.

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_types::{Bucket, Millis, ShardId};

/// A change event: shard, log index, sequence within the entry.
pub fn change_key(shard: ShardId, index: u64, sequence: u32) -> Bytes {
    let mut key = BytesMut::with_capacity(16);
    key.put_u32(shard.0);
    key.put_u64(index);
    key.put_u32(sequence);
    key.freeze()
}

/// Splits a change event's key.
pub fn decode_change_key(key: &[u8]) -> Option<(ShardId, u64, u32)> {
    let (shard, rest) = key.split_first_chunk::<4>()?;
    let (index, rest) = rest.split_first_chunk::<8>()?;
    let sequence: [u8; 4] = rest.try_into().ok()?;
    Some((
        ShardId(u32::from_be_bytes(*shard)),
        u64::from_be_bytes(*index),
        u32::from_be_bytes(sequence),
    ))
}

/// The first key of a bucket's request records born at `birth` or later. Request keys start with the bucket
/// and the UUIDv7, whose first 48 bits are its birth.
pub fn request_birth_key(bucket: Bucket, birth: Millis) -> Bytes {
    let mut key = BytesMut::with_capacity(8);
    key.put_u16(bucket.0);
    key.put_slice(&birth.0.to_be_bytes()[2..]);
    key.freeze()
}

/// The row that holds the machine's own state for a shard, in the meta family.
pub fn state_key(shard: ShardId) -> Bytes {
    let mut key = BytesMut::with_capacity(5);
    key.put_u32(shard.0);
    key.put_u8(b's');
    key.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_keys_round_trip_and_sort() {
        let key = change_key(ShardId(1), 2, 3);
        assert_eq!(decode_change_key(&key), Some((ShardId(1), 2, 3)));
        assert!(change_key(ShardId(1), 2, 4) > key);
        assert!(change_key(ShardId(1), 3, 0) > change_key(ShardId(1), 2, u32::MAX));
        assert_eq!(decode_change_key(b"short"), None);
    }
}
