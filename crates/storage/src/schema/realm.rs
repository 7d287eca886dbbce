//! Realms: rules and keys. Key: shard 0 (4 bytes), `r`, realm (4), in the meta family.
//!
//! A realm has no realm above it that could place it, so its row lives in shard 0 and is proposed there with
//! [`mutation`] or [`change`] rather than through a plan.

use std::ops::Bound;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_accounts::{Versioned, renames_claims};
use holdfast_machine::{Expect, Guard, Mutation, Write, envelope};
use holdfast_types::{ClaimKey, Family, Realm, RealmConfig, RealmId, RealmNumber, UnverifiedPolicy};

use super::cursor::Cursor;
use super::{Damaged, array, bytes, inhabited, message, open};
use crate::engine::{EngineError, View};
use crate::proto;

const FAMILY: Family = Family::Meta;
/// Shard 0 and the tag that keeps realms apart from the shard's other rows.
const PREFIX: [u8; 5] = [0, 0, 0, 0, b'r'];

/// The key of a realm.
pub fn key(realm: RealmNumber) -> Bytes {
    let mut key = BytesMut::with_capacity(9);
    key.put_slice(&PREFIX);
    key.put_u32(realm.0);
    key.freeze()
}

/// What to propose to store a realm: `expect` says what must be there so far.
pub fn mutation(realm: &Realm, expect: Expect) -> Mutation {
    let key = key(realm.number);
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
            body: encode(realm),
        }],
        ..Mutation::default()
    }
}

/// What to propose to change the realm that was read. Where the change would give claims other names, it takes
/// effect only while the realm has had no account.
pub fn change(before: &Versioned<Realm>, after: &Realm) -> Mutation {
    let mut mutation = mutation(after, Expect::Stamp(before.stamp));
    if renames_claims(&before.value.config, &after.config) {
        mutation.guards.push(inhabited::none_yet(after.number));
    }
    mutation
}

/// Holds while the realm is as it was read: whatever was evaluated under its rules and keys relies on them.
pub fn guard(realm: &Versioned<Realm>) -> Guard {
    Guard {
        family: FAMILY,
        key: key(realm.value.number),
        expect: Expect::Stamp(realm.stamp),
    }
}

/// The realm with this number.
pub fn read(view: &dyn View, realm: RealmNumber) -> Result<Option<Versioned<Realm>>, EngineError> {
    let value = view.get(FAMILY, &key(realm))?;
    Ok(value.map(|value| open(FAMILY, &value, decode)).transpose()?)
}

/// The realm with this number: `known`, if the view holds just that, and else what is decoded anew.
pub fn read_again(
    view: &dyn View,
    realm: RealmNumber,
    known: Option<&Arc<Versioned<Realm>>>,
) -> Result<Option<Arc<Versioned<Realm>>>, EngineError> {
    let Some(value) = view.get(FAMILY, &key(realm))? else {
        return Ok(None);
    };
    let stamp = envelope::decode(&value).map(|envelope| envelope.stamp).ok();
    if let Some(known) = known
        && known.value.number == realm
        && stamp == Some(known.stamp)
    {
        return Ok(Some(known.clone()));
    }
    Ok(Some(Arc::new(open(FAMILY, &value, decode)?)))
}

/// All realms, by number.
pub fn all(view: &dyn View) -> impl Iterator<Item = Result<Versioned<Realm>, EngineError>> + Send {
    let from = Bound::Included(Bytes::from_static(&PREFIX));
    let end = Bound::Included(key(RealmNumber(u32::MAX)));
    Cursor::new(view, FAMILY, from, end).map(|row| Ok(open(FAMILY, &row?.1, decode)?))
}

/// The record of a realm.
pub fn encode(realm: &Realm) -> Bytes {
    let config = &realm.config;
    bytes(&proto::Realm {
        id: realm.id.as_str().to_owned(),
        number: realm.number.0,
        slot_key: Bytes::copy_from_slice(&realm.slot_key),
        claim_keys: realm
            .claim_keys
            .iter()
            .map(|key| proto::ClaimKey {
                id: key.id.into(),
                key: Bytes::copy_from_slice(&key.key),
            })
            .collect(),
        config: Some(proto::RealmConfig {
            quarantine_ms: config.quarantine_ms,
            deletion_grace_ms: config.deletion_grace_ms,
            request_window_ms: config.request_window_ms,
            max_record_bytes: config.max_record_bytes,
            unverified: match config.unverified {
                UnverifiedPolicy::LookupAndHold => proto::UnverifiedPolicy::LookupAndHold,
                UnverifiedPolicy::HoldOnly => proto::UnverifiedPolicy::HoldOnly,
            }
            .into(),
            email_local_part_case_insensitive: config.email_local_part_case_insensitive,
            default_phone_region: config.default_phone_region.clone(),
        }),
        revision: realm.revision,
    })
}

/// Reads the record of a realm.
pub fn decode(record: Bytes) -> Result<Realm, Damaged> {
    let realm: proto::Realm = message(FAMILY, record)?;
    let config = realm
        .config
        .ok_or_else(|| Damaged::new(FAMILY, "a realm has no rules"))?;
    if realm.claim_keys.is_empty() {
        return Err(Damaged::new(FAMILY, "a realm has no claim key"));
    }
    Ok(Realm {
        id: RealmId::new(realm.id).map_err(|error| Damaged::new(FAMILY, error.reason))?,
        number: RealmNumber(realm.number),
        slot_key: array(FAMILY, "a slot key", &realm.slot_key)?,
        claim_keys: realm.claim_keys.iter().map(claim_key).collect::<Result<_, _>>()?,
        config: RealmConfig {
            quarantine_ms: config.quarantine_ms,
            deletion_grace_ms: config.deletion_grace_ms,
            request_window_ms: config.request_window_ms,
            max_record_bytes: config.max_record_bytes,
            unverified: unverified(config.unverified)?,
            email_local_part_case_insensitive: config.email_local_part_case_insensitive,
            default_phone_region: config.default_phone_region,
        },
        revision: realm.revision,
    })
}

fn claim_key(key: &proto::ClaimKey) -> Result<ClaimKey, Damaged> {
    Ok(ClaimKey {
        id: u8::try_from(key.id)
            .map_err(|_| Damaged::new(FAMILY, format!("{} is no claim key id", key.id)))?,
        key: array(FAMILY, "a claim key", &key.key)?,
    })
}

fn unverified(number: i32) -> Result<UnverifiedPolicy, Damaged> {
    match proto::UnverifiedPolicy::try_from(number) {
        Ok(proto::UnverifiedPolicy::LookupAndHold) => Ok(UnverifiedPolicy::LookupAndHold),
        Ok(proto::UnverifiedPolicy::HoldOnly) => Ok(UnverifiedPolicy::HoldOnly),
        Ok(proto::UnverifiedPolicy::Unspecified) | Err(_) => Err(Damaged::new(
            FAMILY,
            format!("{number} is no policy for unverified identifiers"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_types::Stamp;
    use proptest::prelude::*;

    use super::*;
    use crate::engine::{Batch, Engine};
    use crate::faulty::FaultyDisk;
    use crate::schema::arbitrary::{self, any_realm, hex};

    proptest! {
        #[test]
        fn records_round_trip(realm in any_realm()) {
            prop_assert_eq!(decode(encode(&realm)), Ok(realm));
        }

        #[test]
        fn keys_sort_by_number(a: u32, b: u32) {
            prop_assert_eq!(key(RealmNumber(a)).cmp(&key(RealmNumber(b))), a.cmp(&b));
        }

        #[test]
        fn damage_never_panics(record in any::<Vec<u8>>()) {
            let _ = decode(record.into());
        }
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(hex(&key(RealmNumber(7))), "000000007200000007");
        assert_eq!(
            hex(&encode(&arbitrary::realm(7))),
            concat!(
                "0a0272371007",                                                                 // name, number
                "1a200707070707070707070707070707070707070707070707070707070707070707",         // slot key
                "222408011220c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7", // claim key
                "2a100801100218032004280230013a024348",                                         // rules
                "3001",                                                                         // revision
            )
        );
    }

    #[test]
    fn a_known_realm_is_decoded_again_only_if_it_changed() {
        let engine = FaultyDisk::new(0).open().unwrap();
        let store = |stamp, realm: &Realm| {
            let mut batch = Batch::default();
            batch.put(
                FAMILY,
                key(realm.number),
                envelope::encode(0, stamp, &encode(realm)),
            );
            engine.write(batch).unwrap();
        };
        let again = |known: Option<&Arc<Versioned<Realm>>>| {
            read_again(&*engine.view(), RealmNumber(1), known)
                .unwrap()
                .unwrap()
        };
        store(Stamp(9), &arbitrary::realm(1));
        let first = again(None);
        assert!(Arc::ptr_eq(&first, &again(Some(&first))));
        let mut changed = arbitrary::realm(1);
        changed.revision = 2;
        store(Stamp(10), &changed);
        assert_eq!(again(Some(&first)).value, changed);
        let other = Arc::new(Versioned {
            value: arbitrary::realm(2),
            stamp: Stamp(10),
        });
        assert_eq!(
            again(Some(&other)).value,
            changed,
            "another realm of the same stamp"
        );
        assert_eq!(read_again(&*engine.view(), RealmNumber(4), None).unwrap(), None);
    }

    #[test]
    fn realms_are_found_by_number_and_listed() {
        let engine = FaultyDisk::new(0).open().unwrap();
        let mut batch = Batch::default();
        for number in [3, 1, 2] {
            for write in mutation(&arbitrary::realm(number), Expect::Absent).writes {
                let Write::Put {
                    family, key, body, ..
                } = write
                else {
                    panic!("a realm is stored")
                };
                batch.put(family, key, envelope::encode(0, Stamp(9), &body));
            }
        }
        // Neighbours: the shard's own state, and another shard's rows.
        batch.put(FAMILY, [&PREFIX[..4], b"s"].concat(), "state");
        batch.put(FAMILY, [0, 0, 0, 1, b'r', 0, 0, 0, 1].to_vec(), "elsewhere");
        engine.write(batch).unwrap();
        let view = engine.view();
        let found = read(&*view, RealmNumber(2)).unwrap().unwrap();
        assert_eq!(
            found,
            Versioned {
                value: arbitrary::realm(2),
                stamp: Stamp(9)
            }
        );
        assert_eq!(read(&*view, RealmNumber(4)).unwrap(), None);
        let numbers: Vec<u32> = all(&*view).map(|realm| realm.unwrap().value.number.0).collect();
        assert_eq!(numbers, [1, 2, 3]);
    }
}
