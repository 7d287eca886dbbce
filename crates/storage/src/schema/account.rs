//! Accounts. Key: placement (2 bytes), slot (2), realm (4), account id. The slot is a keyed hash of the id.
//!
//! The record has a header in clear, which operations and sweeps need, and a body with the personal data,
//! which stays as it is until encryption comes (envelope key id 0).

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_accounts::Versioned;
use holdfast_types::{
    Account, AccountId, Attribute, AttributeValue, CanonicalIdentifier, Deletion, Family, Identifier, Millis,
    Realm, RealmNumber, Restriction, Slot, Verification,
};

use super::cursor::Cursor;
use super::{Damaged, PLACEMENT, bytes, identifier_kind, message, open};
use crate::engine::{EngineError, View};
use crate::proto;

const FAMILY: Family = Family::Account;

/// A key taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountKey {
    /// The slot.
    pub slot: Slot,
    /// The realm.
    pub realm: RealmNumber,
    /// The account.
    pub id: AccountId,
}

/// The slot of an account, which is also the home of its requests and deadlines.
pub fn slot(realm: &Realm, id: &AccountId) -> Slot {
    Slot::keyed(&realm.slot_key, id.as_str().as_bytes())
}

/// The key of an account.
pub fn key(realm: &Realm, id: &AccountId) -> Bytes {
    prefix(slot(realm, id), realm.number, id.as_str().as_bytes())
}

fn prefix(slot: Slot, realm: RealmNumber, rest: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(8 + rest.len());
    key.put_u16(PLACEMENT.0);
    key.put_u16(slot.0);
    key.put_u32(realm.0);
    key.put_slice(rest);
    key.freeze()
}

/// Takes a key apart.
pub fn decode_key(key: &[u8]) -> Result<AccountKey, Damaged> {
    let bad = || Damaged::new(FAMILY, "its key has another shape");
    let (placement, rest) = key.split_first_chunk::<2>().ok_or_else(bad)?;
    let (slot, rest) = rest.split_first_chunk::<2>().ok_or_else(bad)?;
    let (realm, id) = rest.split_first_chunk::<4>().ok_or_else(bad)?;
    if u16::from_be_bytes(*placement) != PLACEMENT.0 {
        return Err(bad());
    }
    let id = std::str::from_utf8(id).map_err(|_| bad())?;
    Ok(AccountKey {
        slot: Slot(u16::from_be_bytes(*slot)),
        realm: RealmNumber(u32::from_be_bytes(*realm)),
        id: AccountId::new(id).map_err(|_| bad())?,
    })
}

/// The record of an account.
pub fn encode(account: &Account) -> Bytes {
    let body = proto::AccountBody {
        display_name: account.display_name.clone(),
        locale: account.locale.clone(),
        time_zone: account.time_zone.clone(),
        identifiers: account.identifiers.iter().map(identifier_to_proto).collect(),
        attributes: account
            .attributes
            .iter()
            .map(|(name, attribute)| (name.clone(), attribute_to_proto(attribute)))
            .collect(),
        labels: account.labels.clone(),
    };
    bytes(&proto::Account {
        revision: account.revision,
        create_time_ms: account.create_time.0,
        update_time_ms: account.update_time.0,
        restrictions: account
            .restrictions
            .iter()
            .map(|restriction| proto::Restriction {
                code: restriction.code.clone(),
                create_time_ms: restriction.create_time.0,
            })
            .collect(),
        deletion: account.deletion.map(|deletion| proto::Deletion {
            request_time_ms: deletion.request_time.0,
            purge_time_ms: deletion.purge_time.0,
            purged: deletion.purged,
        }),
        body: bytes(&body),
    })
}

/// Reads the record of the account with this id.
pub fn decode(id: AccountId, record: Bytes) -> Result<Account, Damaged> {
    let header: proto::Account = message(FAMILY, record)?;
    let body: proto::AccountBody = message(FAMILY, header.body)?;
    Ok(Account {
        id,
        revision: header.revision,
        display_name: body.display_name,
        locale: body.locale,
        time_zone: body.time_zone,
        identifiers: body
            .identifiers
            .into_iter()
            .map(identifier_from_proto)
            .collect::<Result<_, _>>()?,
        attributes: body
            .attributes
            .into_iter()
            .map(|(name, attribute)| Ok((name, attribute_from_proto(attribute)?)))
            .collect::<Result<BTreeMap<_, _>, Damaged>>()?,
        labels: body.labels,
        restrictions: header
            .restrictions
            .into_iter()
            .map(|restriction| Restriction {
                code: restriction.code,
                create_time: Millis(restriction.create_time_ms),
            })
            .collect(),
        deletion: header.deletion.map(|deletion| Deletion {
            request_time: Millis(deletion.request_time_ms),
            purge_time: Millis(deletion.purge_time_ms),
            purged: deletion.purged,
        }),
        create_time: Millis(header.create_time_ms),
        update_time: Millis(header.update_time_ms),
    })
}

/// Reads a stored value.
pub(super) fn read(id: AccountId, value: &Bytes) -> Result<Versioned<Account>, Damaged> {
    open(FAMILY, value, |record| decode(id, record))
}

/// The realm's accounts in key order (slot, then id), tombstones included, from the first one after `after`.
///
/// The order is the same in every view, so the last id of a page says where the next page begins, even when
/// that account is gone by then.
pub fn accounts_after<'v>(
    view: &'v dyn View,
    realm: &Realm,
    after: Option<&AccountId>,
) -> impl Iterator<Item = Result<Versioned<Account>, EngineError>> + Send + use<'v> {
    let number = realm.number;
    let from = match after {
        Some(id) => Bound::Excluded(key(realm, id)),
        None => Bound::Included(prefix(Slot(0), number, b"")),
    };
    let end = Bound::Excluded(Bytes::copy_from_slice(&(PLACEMENT.0 + 1).to_be_bytes()));
    let mut rows = Cursor::new(view, FAMILY, from, end);
    std::iter::from_fn(move || {
        loop {
            match step(number, &mut rows) {
                Ok(Step::Found(account)) => return Some(Ok(*account)),
                Ok(Step::Stranger) => {}
                Ok(Step::End) => return None,
                Err(error) => {
                    rows.finish();
                    return Some(Err(error));
                }
            }
        }
    })
}

enum Step {
    Found(Box<Versioned<Account>>),
    Stranger,
    End,
}

/// Reads one row; past a row of another realm it jumps to where this realm's next row can be.
fn step(realm: RealmNumber, rows: &mut Cursor<'_>) -> Result<Step, EngineError> {
    let Some((key, value)) = rows.next().transpose()? else {
        return Ok(Step::End);
    };
    let key = decode_key(&key)?;
    if key.realm == realm {
        return Ok(Step::Found(Box::new(read(key.id, &value)?)));
    }
    if key.realm < realm {
        rows.seek(&prefix(key.slot, realm, b""));
    } else {
        match key.slot.0.checked_add(1) {
            Some(slot) => rows.seek(&prefix(Slot(slot), realm, b"")),
            None => return Ok(Step::End),
        }
    }
    Ok(Step::Stranger)
}

fn identifier_to_proto(identifier: &Identifier) -> proto::Identifier {
    let canonical = &identifier.canonical;
    proto::Identifier {
        value: identifier.value.clone(),
        kind: canonical.kind as i32,
        issuer: canonical.issuer.clone(),
        canonical: canonical.text.clone(),
        normalizer: canonical.normalizer,
        primary: identifier.primary,
        login_enabled: identifier.login_enabled,
        verification: identifier
            .verification
            .as_ref()
            .map(|verification| proto::Verification {
                method: verification.method.clone(),
                time_ms: verification.time.0,
            }),
        create_time_ms: identifier.create_time.0,
    }
}

fn identifier_from_proto(identifier: proto::Identifier) -> Result<Identifier, Damaged> {
    Ok(Identifier {
        value: identifier.value,
        canonical: CanonicalIdentifier {
            kind: identifier_kind(FAMILY, identifier.kind)?,
            issuer: identifier.issuer,
            text: identifier.canonical,
            normalizer: identifier.normalizer,
        },
        primary: identifier.primary,
        login_enabled: identifier.login_enabled,
        verification: identifier.verification.map(|verification| Verification {
            method: verification.method,
            time: Millis(verification.time_ms),
        }),
        create_time: Millis(identifier.create_time_ms),
    })
}

fn attribute_to_proto(attribute: &Attribute) -> proto::Attribute {
    use proto::attribute::Value;
    proto::Attribute {
        value: Some(match &attribute.value {
            AttributeValue::String(text) => Value::StringValue(text.clone()),
            AttributeValue::Int64(number) => Value::Int64Value(*number),
            AttributeValue::Double(number) => Value::DoubleValue(*number),
            AttributeValue::Bool(truth) => Value::BoolValue(*truth),
            AttributeValue::Bytes(bytes) => Value::BytesValue(Bytes::copy_from_slice(bytes)),
            AttributeValue::Timestamp(seconds, nanos) => Value::TimestampValue(proto::Timestamp {
                seconds: *seconds,
                nanos: *nanos,
            }),
            AttributeValue::Strings(values) => Value::StringsValue(proto::Strings {
                values: values.clone(),
            }),
        }),
        source: attribute.source.clone(),
        update_time_ms: attribute.update_time.0,
    }
}

fn attribute_from_proto(attribute: proto::Attribute) -> Result<Attribute, Damaged> {
    use proto::attribute::Value;
    let value = attribute
        .value
        .ok_or_else(|| Damaged::new(FAMILY, "an attribute is of an unknown type"))?;
    Ok(Attribute {
        value: match value {
            Value::StringValue(text) => AttributeValue::String(text),
            Value::Int64Value(number) => AttributeValue::Int64(number),
            Value::DoubleValue(number) => AttributeValue::Double(number),
            Value::BoolValue(truth) => AttributeValue::Bool(truth),
            Value::BytesValue(bytes) => AttributeValue::Bytes(bytes.into()),
            Value::TimestampValue(instant) => AttributeValue::Timestamp(instant.seconds, instant.nanos),
            Value::StringsValue(strings) => AttributeValue::Strings(strings.values),
        },
        source: attribute.source,
        update_time: Millis(attribute.update_time_ms),
    })
}

#[cfg(test)]
mod tests {
    use holdfast_machine::envelope;
    use holdfast_types::{IdentifierKind, Stamp};
    use proptest::prelude::*;

    use super::*;
    use crate::engine::{Batch, Engine};
    use crate::faulty::FaultyDisk;
    use crate::schema::arbitrary::{self, account, account_id, hex};

    proptest! {
        #[test]
        fn records_round_trip(account in account()) {
            prop_assert_eq!(decode(account.id.clone(), encode(&account)), Ok(account));
        }

        #[test]
        fn keys_round_trip(id in account_id()) {
            let realm = arbitrary::realm(1);
            let parts = AccountKey { slot: slot(&realm, &id), realm: realm.number, id: id.clone() };
            prop_assert_eq!(decode_key(&key(&realm, &id)), Ok(parts));
        }

        #[test]
        fn keys_sort_by_slot_realm_id(
            a in (0..3_u16, 0..3_u32, account_id()),
            b in (0..3_u16, 0..3_u32, account_id()),
        ) {
            let key = |(slot, realm, id): &(u16, u32, AccountId)| {
                prefix(Slot(*slot), RealmNumber(*realm), id.as_str().as_bytes())
            };
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        }

        #[test]
        fn damage_never_panics(key in any::<Vec<u8>>(), record in any::<Vec<u8>>()) {
            let _ = decode_key(&key);
            let _ = decode(AccountId::new("a").unwrap(), record.into());
        }
    }

    #[test]
    fn golden_bytes() {
        let realm = arbitrary::realm(7);
        let account = Account {
            id: AccountId::new("ann").unwrap(),
            revision: 2,
            display_name: "Ann".into(),
            locale: "en".into(),
            time_zone: "UTC".into(),
            identifiers: vec![Identifier {
                value: "A@x".into(),
                canonical: CanonicalIdentifier {
                    kind: IdentifierKind::Email,
                    issuer: String::new(),
                    text: "a@x".into(),
                    normalizer: 1,
                },
                primary: true,
                login_enabled: true,
                verification: Some(Verification {
                    method: "m".into(),
                    time: Millis(3),
                }),
                create_time: Millis(4),
            }],
            attributes: BTreeMap::from([(
                "n".into(),
                Attribute {
                    value: AttributeValue::Int64(-1),
                    source: "s".into(),
                    update_time: Millis(5),
                },
            )]),
            labels: BTreeMap::from([("k".into(), "v".into())]),
            restrictions: vec![Restriction {
                code: "fraud".into(),
                create_time: Millis(6),
            }],
            deletion: Some(Deletion {
                request_time: Millis(7),
                purge_time: Millis(8),
                purged: false,
            }),
            create_time: Millis(9),
            update_time: Millis(10),
        };
        assert_eq!(hex(&key(&realm, &account.id)), "0000be5a00000007616e6e");
        assert_eq!(
            hex(&encode(&account)),
            concat!(
                "08021009180a",                             // revision, times
                "22090a0566726175641006",                   // restriction
                "2a0408071008",                             // deletion
                "3243",                                     // body
                "0a03416e6e1202656e1a03555443",             // name, locale, time zone
                "221b0a0341407810012203614078280130013801", // identifier
                "42050a016d10034804",                       // its verification and time
                "2a0e0a016e1209100182010173880105",         // attribute
                "32060a016b120176",                         // label
            )
        );
    }

    #[test]
    fn a_listing_sees_its_realm_only_and_goes_on_after_any_id() {
        let disk = FaultyDisk::new(0);
        let engine = disk.open().unwrap();
        let realms = [1, 2, 3].map(arbitrary::realm);
        let mut batch = Batch::default();
        for realm in &realms {
            for number in 0..200 {
                let account = arbitrary::plain_account(&format!("{}-{number}", realm.number.0));
                let value = envelope::encode(0, Stamp(1), &encode(&account));
                batch.put(FAMILY, key(realm, &account.id), value);
            }
        }
        engine.write(batch).unwrap();
        let view = engine.view();
        for realm in &realms {
            let mut all: Vec<AccountId> = Vec::new();
            loop {
                let page: Vec<AccountId> = accounts_after(&*view, realm, all.last())
                    .take(7)
                    .map(|account| account.unwrap().value.id)
                    .collect();
                if page.is_empty() {
                    break;
                }
                all.extend(page);
            }
            assert_eq!(all.len(), 200);
            assert!(all.is_sorted_by_key(|id| (slot(realm, id), id.clone())));
            assert!(
                all.iter()
                    .all(|id| id.as_str().starts_with(&format!("{}-", realm.number.0)))
            );
        }
        // A position need not exist.
        let gone = AccountId::new("gone").unwrap();
        let rest = accounts_after(&*view, &realms[0], Some(&gone)).count();
        let before = 200 - rest;
        let last = accounts_after(&*view, &realms[0], None)
            .nth(before - 1)
            .unwrap()
            .unwrap();
        assert!(key(&realms[0], &last.value.id) < key(&realms[0], &gone));
    }

    #[test]
    fn a_listing_ends_at_damage() {
        let disk = FaultyDisk::new(0);
        let engine = disk.open().unwrap();
        let realm = arbitrary::realm(1);
        let mut batch = Batch::default();
        for number in 0..3 {
            batch.put(
                FAMILY,
                key(&realm, &AccountId::new(format!("{number}")).unwrap()),
                "damage",
            );
        }
        engine.write(batch).unwrap();
        let found: Vec<_> = accounts_after(&*engine.view(), &realm, None).collect();
        assert_eq!(found.len(), 1);
        assert!(matches!(found[0], Err(EngineError::Damaged { .. })));
    }
}
