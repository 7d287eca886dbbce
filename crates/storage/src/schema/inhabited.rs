//! Realms that have had an account. Key: shard 0 (4 bytes), `a`, realm (4), in the meta family.
//!
//! Rules that decide what a claim is called may change only before a realm's first account. The realm's own row
//! cannot tell: creates do not write it. So the first create leaves this row, in its own batch; it stays when the
//! account is purged. A change of such a rule is guarded by its absence (see [`super::realm::change`]).
//!
//! The row says all by being there; its record is empty.

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_machine::{Expect, Guard, Write};
use holdfast_types::{Family, RealmNumber};

use crate::engine::{EngineError, View};

const FAMILY: Family = Family::Meta;
/// Shard 0 and the tag that keeps these rows apart from the shard's others.
const PREFIX: [u8; 5] = [0, 0, 0, 0, b'a'];

/// The key of a realm's row.
pub fn key(realm: RealmNumber) -> Bytes {
    let mut key = BytesMut::with_capacity(9);
    key.put_slice(&PREFIX);
    key.put_u32(realm.0);
    key.freeze()
}

/// Whether the realm has had an account.
pub fn read(view: &dyn View, realm: RealmNumber) -> Result<bool, EngineError> {
    Ok(view.get(FAMILY, &key(realm))?.is_some())
}

/// What the first create writes. It needs no guard: of several first creates each writes the same.
pub(super) fn write(realm: RealmNumber) -> Write {
    Write::Put {
        family: FAMILY,
        key: key(realm),
        key_id: 0,
        body: Bytes::new(),
    }
}

/// Holds while the realm has had no account.
pub(super) fn none_yet(realm: RealmNumber) -> Guard {
    Guard {
        family: FAMILY,
        key: key(realm),
        expect: Expect::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::arbitrary::hex;

    #[test]
    fn golden_bytes() {
        assert_eq!(hex(&key(RealmNumber(7))), "000000006100000007");
        let Write::Put { key_id, body, .. } = write(RealmNumber(7)) else {
            panic!("the row is stored")
        };
        assert_eq!((key_id, &body[..]), (0, &[][..]));
    }
}
