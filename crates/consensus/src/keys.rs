//! The rows that consensus itself keeps.
//!
//! | family | key | value |
//! |---|---|---|
//! | raft_log | shard (4), index (8) | entry |
//! | raft_meta | shard (4), `v` | vote |
//! | raft_meta | shard (4), `p` | the last purged log id |
//! | raft_meta | shard (4), `i` | the snapshot being installed |
//! | raft_meta | shard (4), `k`, node (8) | the last committed index that a member certainly has, 8 bytes |
//! | raft_meta | shard (4), `s`, family (1), key | a staged snapshot row |
//! | raft_meta | `ff ff ff ff`, `n` | the directory's identity |
//! | raft_meta | `ff ff ff ff`, `d`, node (8) | the directory another node was first seen with |
//! | raft_meta | `ff ff ff ff`, `f`, node (8) | the directory of one who founded the cluster |
//! | meta | shard (4), `a` | the last applied log id |
//! | meta | shard (4), `m` | the membership as of that entry |
//!
//! The machine's own state is beside the last two, under `s`. Numbers are big-endian.

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_types::{Family, NodeId, ShardId};

/// The row of a log entry.
pub(crate) fn log(shard: ShardId, index: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(12);
    key.put_u32(shard.0);
    key.put_u64(index);
    key.freeze()
}

/// The index in a log row's key.
pub(crate) fn log_index(key: &[u8]) -> Option<u64> {
    let (_, index) = key.split_first_chunk::<4>()?;
    Some(u64::from_be_bytes(index.try_into().ok()?))
}

fn tagged(shard: ShardId, tag: u8) -> Bytes {
    let mut key = BytesMut::with_capacity(5);
    key.put_u32(shard.0);
    key.put_u8(tag);
    key.freeze()
}

fn of_node(shard: ShardId, tag: u8, node: NodeId) -> Bytes {
    let mut key = BytesMut::with_capacity(13);
    key.put_u32(shard.0);
    key.put_u8(tag);
    key.put_u64(node);
    key.freeze()
}

/// The node in the key of a row about one.
pub(crate) fn node(key: &[u8]) -> Option<NodeId> {
    Some(u64::from_be_bytes(key.get(5..)?.try_into().ok()?))
}

pub(crate) fn vote(shard: ShardId) -> Bytes {
    tagged(shard, b'v')
}

pub(crate) fn purged(shard: ShardId) -> Bytes {
    tagged(shard, b'p')
}

pub(crate) fn installing(shard: ShardId) -> Bytes {
    tagged(shard, b'i')
}

/// The row about how much of the log a member holds.
pub(crate) fn held(shard: ShardId, node: NodeId) -> Bytes {
    of_node(shard, b'k', node)
}

/// The first key of a shard's staged rows, and the first key after them.
pub(crate) fn staged_range(shard: ShardId) -> (Bytes, Bytes) {
    (tagged(shard, b's'), tagged(shard, b's' + 1))
}

/// Where a snapshot's row waits until the snapshot is complete.
pub(crate) fn staged(shard: ShardId, family: Family, key: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(6 + key.len());
    out.put_u32(shard.0);
    out.put_u8(b's');
    out.put_u8(family as u8);
    out.put_slice(key);
    out.freeze()
}

/// Takes a staged row's key apart.
pub(crate) fn unstage(key: &Bytes) -> Option<(Family, Bytes)> {
    Some((Family::from_u8(*key.get(5)?)?, key.slice(6..)))
}

pub(crate) fn identity() -> Bytes {
    tagged(ShardId(u32::MAX), b'n')
}

/// The row that pins another node's directory.
pub(crate) fn peer_directory(node: NodeId) -> Bytes {
    of_node(ShardId(u32::MAX), b'd', node)
}

/// The data directory of a founder.
pub(crate) fn founder(node: NodeId) -> Bytes {
    of_node(ShardId(u32::MAX), b'f', node)
}

pub(crate) fn applied(shard: ShardId) -> Bytes {
    tagged(shard, b'a')
}

pub(crate) fn membership(shard: ShardId) -> Bytes {
    tagged(shard, b'm')
}

/// A key above every row of every family: no row's key is that long and all ones.
pub(crate) fn above_all() -> Bytes {
    Bytes::from_static(&[0xff; 64])
}
