//! Node ids that are or were members'. Key: shard 0 (4 bytes), `n`, node id (8), in the meta family.
//!
//! A node id is never reused: a node that lost its log and votes again under its old id can undo what a quorum
//! agreed on. Raft's membership forgets who left, so these rows remember.

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_accounts::Versioned;
use holdfast_machine::{Expect, Guard, Mutation, Write};
use holdfast_types::{Family, NodeId};

use super::{Damaged, bytes, message, open};
use crate::engine::{EngineError, View};
use crate::proto;

const FAMILY: Family = Family::Meta;
/// Shard 0 and the tag that keeps members apart from the shard's other rows.
const PREFIX: [u8; 5] = [0, 0, 0, 0, b'n'];

/// What is remembered of a node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Member {
    /// It has held a part of the log: a node that comes with this id and no data has lost it.
    pub joined: bool,
    /// It was removed, for ever.
    pub retired: bool,
}

/// The key of a node id.
pub fn key(node: NodeId) -> Bytes {
    let mut key = BytesMut::with_capacity(13);
    key.put_slice(&PREFIX);
    key.put_u64(node);
    key.freeze()
}

/// What is remembered of a node id, if it was ever a member's.
pub fn read(view: &dyn View, node: NodeId) -> Result<Option<Versioned<Member>>, EngineError> {
    let value = view.get(FAMILY, &key(node))?;
    Ok(value.map(|value| open(FAMILY, &value, decode)).transpose()?)
}

/// What to propose to remember a node id: `expect` says what must be there so far.
pub fn mutation(node: NodeId, member: Member, expect: Expect) -> Mutation {
    let key = key(node);
    Mutation {
        guards: vec![Guard {
            family: FAMILY,
            key: key.clone(),
            expect,
        }],
        writes: vec![Write::Put {
            family: FAMILY,
            key,
            key_id: 0,
            body: encode(member),
        }],
        ..Mutation::default()
    }
}

/// The record of a node id.
pub fn encode(member: Member) -> Bytes {
    bytes(&proto::Member {
        joined: member.joined,
        retired: member.retired,
    })
}

/// Reads the record of a node id.
pub fn decode(record: Bytes) -> Result<Member, Damaged> {
    let member: proto::Member = message(FAMILY, record)?;
    Ok(Member {
        joined: member.joined,
        retired: member.retired,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        assert_eq!(&key(258)[..], &[0, 0, 0, 0, b'n', 0, 0, 0, 0, 0, 0, 1, 2]);
        for (member, golden) in [
            (
                Member {
                    joined: true,
                    retired: true,
                },
                &[8, 1, 16, 1][..],
            ),
            (
                Member {
                    joined: true,
                    retired: false,
                },
                &[8, 1],
            ),
            (Member::default(), &[]),
        ] {
            assert_eq!(&encode(member)[..], golden);
            assert_eq!(decode(encode(member)), Ok(member));
        }
        assert!(decode(Bytes::from_static(&[8])).is_err());
    }
}
