//! Deadlines and what happens then. Key: bucket of the subject (2 bytes), deadline (8), realm (4), subject.
//!
//! Within a bucket rows sort by deadline, so a sweep reads what is due and nothing else.

use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_accounts::{DueAction, DueKey, Versioned};
use holdfast_types::{AccountId, Bucket, Family, Millis, Realm, RealmNumber};

use super::cursor::Cursor;
use super::{Damaged, account, bytes, message, open};
use crate::engine::{EngineError, View};
use crate::proto;

const FAMILY: Family = Family::Due;

/// A row as a sweep finds it.
#[derive(Debug, Clone, PartialEq)]
pub struct DueRow {
    /// The realm of the subject.
    pub realm: RealmNumber,
    /// The row's name within the realm.
    pub key: DueKey,
    /// What happens.
    pub action: Versioned<DueAction>,
}

/// The key of a deadline.
pub fn key(realm: &Realm, due: &DueKey) -> Bytes {
    let bucket = account::slot(realm, &due.subject).bucket();
    let mut key = BytesMut::from(&start(bucket, due.deadline)[..]);
    key.put_u32(realm.number.0);
    key.put_slice(due.subject.as_str().as_bytes());
    key.freeze()
}

/// Where a bucket's rows with this deadline or a later one begin.
fn start(bucket: Bucket, deadline: Millis) -> Bytes {
    let mut key = BytesMut::with_capacity(10);
    key.put_u16(bucket.0);
    key.put_u64(deadline.0);
    key.freeze()
}

/// Takes a key apart.
pub fn decode_key(key: &[u8]) -> Result<(Bucket, RealmNumber, DueKey), Damaged> {
    let bad = || Damaged::new(FAMILY, "its key has another shape");
    let (bucket, rest) = key.split_first_chunk::<2>().ok_or_else(bad)?;
    let (deadline, rest) = rest.split_first_chunk::<8>().ok_or_else(bad)?;
    let (realm, subject) = rest.split_first_chunk::<4>().ok_or_else(bad)?;
    let subject = std::str::from_utf8(subject).map_err(|_| bad())?;
    let due = DueKey {
        deadline: Millis(u64::from_be_bytes(*deadline)),
        subject: AccountId::new(subject).map_err(|_| bad())?,
    };
    Ok((
        Bucket(u16::from_be_bytes(*bucket)),
        RealmNumber(u32::from_be_bytes(*realm)),
        due,
    ))
}

/// The record of a deadline.
pub fn encode(action: DueAction) -> Bytes {
    use proto::due::Action;
    bytes(&proto::Due {
        action: Some(match action {
            DueAction::PurgeAccount => Action::PurgeAccount(proto::PurgeAccount {}),
        }),
    })
}

/// Reads the record of a deadline.
pub fn decode(record: Bytes) -> Result<DueAction, Damaged> {
    use proto::due::Action;
    let due: proto::Due = message(FAMILY, record)?;
    match due
        .action
        .ok_or_else(|| Damaged::new(FAMILY, "its action is of an unknown kind"))?
    {
        Action::PurgeAccount(_) => Ok(DueAction::PurgeAccount),
    }
}

/// Reads a stored value.
pub(super) fn read(value: &Bytes) -> Result<Versioned<DueAction>, Damaged> {
    open(FAMILY, value, decode)
}

/// What is due at `now` in any realm: bucket by bucket, within one by deadline. Later deadlines are stepped
/// over, so the cost is that of what is due and of the buckets that have rows.
pub fn dues_until<'v>(
    view: &'v dyn View,
    now: Millis,
) -> impl Iterator<Item = Result<DueRow, EngineError>> + Send + use<'v> {
    let mut rows = Cursor::new(view, FAMILY, Bound::Unbounded, Bound::Unbounded);
    std::iter::from_fn(move || {
        loop {
            match step(now, &mut rows) {
                Ok(Step::Found(row)) => return Some(Ok(row)),
                Ok(Step::Later) => {}
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
    Found(DueRow),
    Later,
    End,
}

fn step(now: Millis, rows: &mut Cursor<'_>) -> Result<Step, EngineError> {
    let Some((key, value)) = rows.next().transpose()? else {
        return Ok(Step::End);
    };
    let (bucket, realm, key) = decode_key(&key)?;
    if key.deadline <= now {
        return Ok(Step::Found(DueRow {
            realm,
            key,
            action: read(&value)?,
        }));
    }
    match bucket.0.checked_add(1) {
        Some(next) => rows.seek(&start(Bucket(next), Millis(0))),
        None => return Ok(Step::End),
    }
    Ok(Step::Later)
}

#[cfg(test)]
mod tests {
    use holdfast_machine::envelope;
    use holdfast_types::Stamp;
    use proptest::prelude::*;

    use super::*;
    use crate::engine::{Batch, Engine};
    use crate::faulty::FaultyDisk;
    use crate::schema::arbitrary::{self, account_id, hex};

    proptest! {
        #[test]
        fn keys_round_trip_and_sort_by_deadline(subject in account_id(), a: u64, b: u64) {
            let realm = arbitrary::realm(1);
            let due = |deadline| DueKey { deadline: Millis(deadline), subject: subject.clone() };
            let bucket = account::slot(&realm, &subject).bucket();
            prop_assert_eq!(decode_key(&key(&realm, &due(a))), Ok((bucket, realm.number, due(a))));
            prop_assert_eq!(key(&realm, &due(a)).cmp(&key(&realm, &due(b))), a.cmp(&b));
        }

        #[test]
        fn damage_never_panics(key in any::<Vec<u8>>(), record in any::<Vec<u8>>()) {
            let _ = decode_key(&key);
            let _ = decode(record.into());
        }
    }

    #[test]
    fn golden_bytes() {
        let due = DueKey {
            deadline: Millis(5),
            subject: AccountId::new("ann").unwrap(),
        };
        assert_eq!(
            hex(&key(&arbitrary::realm(7), &due)),
            "0be5000000000000000500000007616e6e"
        );
        assert_eq!(hex(&encode(DueAction::PurgeAccount)), "0a00");
        assert_eq!(
            decode(encode(DueAction::PurgeAccount)),
            Ok(DueAction::PurgeAccount)
        );
        assert!(decode(Bytes::new()).is_err());
    }

    #[test]
    fn a_sweep_finds_what_is_due_in_every_bucket_and_realm() {
        let engine = FaultyDisk::new(0).open().unwrap();
        let realms = [1, 2].map(arbitrary::realm);
        let mut batch = Batch::default();
        for number in 0..300_u64 {
            let due = DueKey {
                deadline: Millis(number),
                subject: AccountId::new(format!("a{number}")).unwrap(),
            };
            let value = envelope::encode(0, Stamp(number), &encode(DueAction::PurgeAccount));
            batch.put(FAMILY, key(&realms[number as usize % 2], &due), value);
        }
        engine.write(batch).unwrap();
        for now in [0, 150, 299, 1_000] {
            let mut found: Vec<DueRow> = dues_until(&*engine.view(), Millis(now))
                .collect::<Result<_, _>>()
                .unwrap();
            found.sort_by_key(|row| row.key.deadline);
            let expected: Vec<u64> = (0..=now.min(299)).collect();
            assert_eq!(
                found.iter().map(|row| row.key.deadline.0).collect::<Vec<_>>(),
                expected
            );
            for row in found {
                assert_eq!(row.realm.0, 1 + (row.key.deadline.0 % 2) as u32);
                assert_eq!(row.key.subject.as_str(), format!("a{}", row.key.deadline.0));
                assert_eq!(row.action.stamp, Stamp(row.key.deadline.0));
            }
        }
    }
}
