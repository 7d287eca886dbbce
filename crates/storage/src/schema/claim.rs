//! Claims: which account an identifier belongs to. Key: placement (2 bytes), slot (2), realm (4), login
//! namespace (1), claim key id (1), HMAC-SHA-256 of the canonical identifier (32).
//!
//! The HMAC keeps identifiers out of keys: without the realm's claim key nobody can test a guess. Claim keys
//! rotate: a claim stays under the key that was newest when it was written, until it is written again. So a
//! reader looks under every generation, and a writer clears the older ones. The slot comes from the slot key,
//! which never rotates, so a claim never moves to another shard.

use bytes::{BufMut, Bytes, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use holdfast_accounts::{Claim, ClaimState, Versioned};
use holdfast_types::{AccountId, CanonicalIdentifier, ClaimKey, Family, Millis, Realm, Slot};
use sha2::Sha256;

use super::{Damaged, PLACEMENT, bytes, message, open};
use crate::proto;

const FAMILY: Family = Family::Claim;

/// The key generation that new claims are written under.
pub fn newest(realm: &Realm) -> &ClaimKey {
    realm
        .claim_keys
        .last()
        .expect("a realm is created with a claim key, and decoding one checks it")
}

/// Where one generation of the claim key puts an identifier's claim.
pub fn key(realm: &Realm, generation: &ClaimKey, identifier: &CanonicalIdentifier) -> Bytes {
    let claimed = identifier.claim_bytes();
    let mut hmac = Hmac::<Sha256>::new_from_slice(&generation.key).expect("HMAC takes keys of any length");
    hmac.update(&claimed);
    let mut key = BytesMut::with_capacity(42);
    key.put_u16(PLACEMENT.0);
    key.put_u16(Slot::keyed(&realm.slot_key, &claimed).0);
    key.put_u32(realm.number.0);
    key.put_u8(identifier.kind.namespace() as u8);
    key.put_u8(generation.id);
    key.put_slice(&hmac.finalize().into_bytes());
    key.freeze()
}

/// Every place where the claim may be, newest generation first.
pub fn keys(realm: &Realm, identifier: &CanonicalIdentifier) -> impl Iterator<Item = Bytes> {
    std::iter::once_with(|| key(realm, newest(realm), identifier)).chain(older_keys(realm, identifier))
}

/// The same without the newest.
pub fn older_keys(realm: &Realm, identifier: &CanonicalIdentifier) -> impl Iterator<Item = Bytes> {
    let older = realm.claim_keys.iter().rev().skip(1);
    older.map(move |generation| key(realm, generation, identifier))
}

/// The record of a claim.
pub fn encode(claim: &Claim) -> Bytes {
    use proto::claim::State;
    bytes(&proto::Claim {
        owner: claim.owner.as_str().to_owned(),
        state: Some(match claim.state {
            ClaimState::Held { verified } => State::Held(proto::Held { verified }),
            ClaimState::Quarantined { until } => State::Quarantined(proto::Quarantined { until_ms: until.0 }),
        }),
    })
}

/// Reads the record of a claim.
pub fn decode(record: Bytes) -> Result<Claim, Damaged> {
    use proto::claim::State;
    let claim: proto::Claim = message(FAMILY, record)?;
    Ok(Claim {
        owner: AccountId::new(claim.owner).map_err(|error| Damaged::new(FAMILY, error.reason))?,
        state: match claim
            .state
            .ok_or_else(|| Damaged::new(FAMILY, "its state is of an unknown kind"))?
        {
            State::Held(held) => ClaimState::Held {
                verified: held.verified,
            },
            State::Quarantined(quarantined) => ClaimState::Quarantined {
                until: Millis(quarantined.until_ms),
            },
        },
    })
}

/// Reads a stored value.
pub(super) fn read(value: &Bytes) -> Result<Versioned<Claim>, Damaged> {
    open(FAMILY, value, decode)
}

#[cfg(test)]
mod tests {
    use holdfast_types::IdentifierKind;
    use proptest::prelude::*;

    use super::*;
    use crate::schema::arbitrary::{self, canonical, claim, hex};

    proptest! {
        #[test]
        fn records_round_trip(claim in claim()) {
            prop_assert_eq!(decode(encode(&claim)), Ok(claim));
        }

        #[test]
        fn damage_never_panics(record in any::<Vec<u8>>()) {
            let _ = decode(record.into());
        }

        /// Two identifiers share a claim exactly if the rules say they are the same.
        #[test]
        fn keys_are_as_distinct_as_identifiers(a in canonical(), b in canonical()) {
            let realm = arbitrary::realm(1);
            let same = key(&realm, newest(&realm), &a) == key(&realm, newest(&realm), &b);
            prop_assert_eq!(same, a.claim_bytes() == b.claim_bytes());
        }
    }

    fn email(text: &str) -> CanonicalIdentifier {
        CanonicalIdentifier {
            kind: IdentifierKind::Email,
            issuer: String::new(),
            text: text.into(),
            normalizer: 1,
        }
    }

    #[test]
    fn generations_share_a_slot_and_differ_in_id_and_hash() {
        let mut realm = arbitrary::realm(1);
        realm.claim_keys.push(ClaimKey { id: 2, key: [8; 32] });
        let keys: Vec<Bytes> = keys(&realm, &email("a@x")).collect();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[0][..9], keys[1][..9]);
        assert_eq!((keys[0][9], keys[1][9]), (2, 1));
        assert_ne!(keys[0][10..], keys[1][10..]);
    }

    #[test]
    fn realms_do_not_share_claims() {
        let (one, mut two) = (arbitrary::realm(1), arbitrary::realm(1));
        two.slot_key = [5; 32];
        two.claim_keys[0].key = [6; 32];
        let identifier = email("a@x");
        let (a, b) = (
            key(&one, newest(&one), &identifier),
            key(&two, newest(&two), &identifier),
        );
        assert_ne!(a[2..4], b[2..4]);
        assert_ne!(a[10..], b[10..]);
    }

    #[test]
    fn golden_bytes() {
        let realm = arbitrary::realm(7);
        assert_eq!(
            hex(&key(&realm, newest(&realm), &email("a@x"))),
            concat!(
                "0000f59a",                                                         // placement, slot
                "00000007",                                                         // realm
                "0101",                                                             // namespace, key id
                "47186942bfc2df6ec26b536331acc48f447340e8cdff32c30292e312f7d30eca", // HMAC
            )
        );
        let owner = AccountId::new("ann").unwrap();
        let held = Claim {
            owner: owner.clone(),
            state: ClaimState::Held { verified: false },
        };
        assert_eq!(hex(&encode(&held)), "0a03616e6e1200");
        let quarantined = Claim {
            owner,
            state: ClaimState::Quarantined { until: Millis(5) },
        };
        assert_eq!(hex(&encode(&quarantined)), "0a03616e6e1a020805");
    }

    #[test]
    fn a_pending_claim_of_a_later_release_is_fatal() {
        assert!(decode(Bytes::from_static(&[0x0a, 3, b'a', b'n', b'n', 0x22, 0])).is_err());
    }
}
