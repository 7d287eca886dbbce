//! Request records: what a request id did. Key: bucket of the account (2 bytes), request id (16), realm (4),
//! keyed hash of the caller (8).
//!
//! A request id begins with its birth, so within a bucket records sort by age and one range delete expires
//! them. Realm and caller scope the id; the caller's name is hashed because it has no bounded length.

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_accounts::{Outcome, RequestKey, RequestRecord, Versioned};
use holdfast_types::{AccountId, AccountState, Caller, Family, Realm, Refusal};

use super::{Damaged, account, array, bytes, identifier_kind, message, open};
use crate::proto;

const FAMILY: Family = Family::Request;

/// The key of a request record.
pub fn key(realm: &Realm, request: &RequestKey) -> Bytes {
    let mut key = BytesMut::with_capacity(30);
    key.put_u16(account::slot(realm, &request.home).bucket().0);
    key.put_slice(request.request.as_bytes());
    key.put_u32(realm.number.0);
    key.put_slice(&caller_hash(realm, &request.caller));
    key.freeze()
}

/// 64 bits are enough: a collision needs the same request id as well, which its caller draws at random.
pub(super) fn caller_hash(realm: &Realm, caller: &Caller) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new_keyed(&realm.slot_key);
    hasher.update(b"caller");
    hasher.update(caller.as_str().as_bytes());
    let mut hash = [0; 8];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    hash
}

/// The record of a request.
pub fn encode(record: &RequestRecord) -> Bytes {
    use proto::request_record::Outcome as Kind;
    bytes(&proto::RequestRecord {
        digest: Bytes::copy_from_slice(&record.digest),
        outcome: Some(match &record.outcome {
            Outcome::Done { account, revision } => Kind::Done(proto::Done {
                account: account.as_str().to_owned(),
                revision: *revision,
            }),
            Outcome::Refused { account, refusal } => Kind::Refused(proto::Refused {
                account: account.as_str().to_owned(),
                refusal: Some(refusal_to_proto(refusal)),
            }),
        }),
    })
}

/// Reads the record of a request.
pub fn decode(record: Bytes) -> Result<RequestRecord, Damaged> {
    use proto::request_record::Outcome as Kind;
    let record: proto::RequestRecord = message(FAMILY, record)?;
    let outcome = record
        .outcome
        .ok_or_else(|| Damaged::new(FAMILY, "its outcome is of an unknown kind"))?;
    Ok(RequestRecord {
        digest: array(FAMILY, "the digest", &record.digest)?,
        outcome: match outcome {
            Kind::Done(done) => Outcome::Done {
                account: account_id(done.account)?,
                revision: done.revision,
            },
            Kind::Refused(refused) => Outcome::Refused {
                account: account_id(refused.account)?,
                refusal: refusal_from_proto(refused.refusal)?,
            },
        },
    })
}

/// Reads a stored value.
pub(super) fn read(value: &Bytes) -> Result<Versioned<RequestRecord>, Damaged> {
    open(FAMILY, value, decode)
}

fn account_id(id: String) -> Result<AccountId, Damaged> {
    AccountId::new(id).map_err(|error| Damaged::new(FAMILY, error.reason))
}

fn refusal_to_proto(refusal: &Refusal) -> proto::refused::Refusal {
    use proto::refused::Refusal as Kind;
    match refusal {
        Refusal::AccountExists => Kind::AccountExists(proto::AccountExists {}),
        Refusal::AccountNotFound => Kind::AccountNotFound(proto::AccountNotFound {}),
        Refusal::AccountPurged => Kind::AccountPurged(proto::AccountPurged {}),
        Refusal::StateForbids { state } => Kind::StateForbids(proto::StateForbids {
            state: state_to_proto(*state).into(),
        }),
        Refusal::IdentifierUnavailable { kind, index } => {
            Kind::IdentifierUnavailable(proto::IdentifierUnavailable {
                kind: *kind as i32,
                index: *index,
            })
        }
        Refusal::IdentifierNotFound { index } => {
            Kind::IdentifierNotFound(proto::IdentifierNotFound { index: *index })
        }
        Refusal::LimitExceeded { what, limit, actual } => Kind::LimitExceeded(proto::LimitExceeded {
            what: what.clone(),
            limit: *limit,
            actual: *actual,
        }),
    }
}

fn refusal_from_proto(refusal: Option<proto::refused::Refusal>) -> Result<Refusal, Damaged> {
    use proto::refused::Refusal as Kind;
    let refusal = refusal.ok_or_else(|| Damaged::new(FAMILY, "its refusal is of an unknown kind"))?;
    Ok(match refusal {
        Kind::AccountExists(_) => Refusal::AccountExists,
        Kind::AccountNotFound(_) => Refusal::AccountNotFound,
        Kind::AccountPurged(_) => Refusal::AccountPurged,
        Kind::StateForbids(forbids) => Refusal::StateForbids {
            state: state_from_proto(forbids.state)?,
        },
        Kind::IdentifierUnavailable(taken) => Refusal::IdentifierUnavailable {
            kind: identifier_kind(FAMILY, taken.kind)?,
            index: taken.index,
        },
        Kind::IdentifierNotFound(missing) => Refusal::IdentifierNotFound { index: missing.index },
        Kind::LimitExceeded(exceeded) => Refusal::LimitExceeded {
            what: exceeded.what,
            limit: exceeded.limit,
            actual: exceeded.actual,
        },
    })
}

fn state_to_proto(state: AccountState) -> proto::AccountState {
    match state {
        AccountState::Active => proto::AccountState::Active,
        AccountState::Suspended => proto::AccountState::Suspended,
        AccountState::PendingDeletion => proto::AccountState::PendingDeletion,
        AccountState::Deleted => proto::AccountState::Deleted,
        AccountState::Merged => proto::AccountState::Merged,
    }
}

fn state_from_proto(number: i32) -> Result<AccountState, Damaged> {
    match proto::AccountState::try_from(number) {
        Ok(proto::AccountState::Active) => Ok(AccountState::Active),
        Ok(proto::AccountState::Suspended) => Ok(AccountState::Suspended),
        Ok(proto::AccountState::PendingDeletion) => Ok(AccountState::PendingDeletion),
        Ok(proto::AccountState::Deleted) => Ok(AccountState::Deleted),
        Ok(proto::AccountState::Merged) => Ok(AccountState::Merged),
        Ok(proto::AccountState::Unspecified) | Err(_) => {
            Err(Damaged::new(FAMILY, format!("{number} is no account state")))
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_machine::layout;
    use holdfast_types::{Bucket, IdentifierKind, Millis, RequestId};
    use proptest::prelude::*;

    use super::*;
    use crate::schema::arbitrary::{self, account_id, hex, request_record};

    proptest! {
        #[test]
        fn records_round_trip(record in request_record()) {
            prop_assert_eq!(decode(encode(&record)), Ok(record));
        }

        #[test]
        fn damage_never_panics(record in any::<Vec<u8>>()) {
            let _ = decode(record.into());
        }

        /// What the state machine's range delete takes is what was born before its bound.
        #[test]
        fn keys_sort_by_bucket_and_birth(
            home in account_id(),
            birth in 0..1_u64 << 48,
            bound in 0..1_u64 << 48,
            entropy: [u8; 10],
        ) {
            let realm = arbitrary::realm(1);
            let request = RequestId::from_parts(Millis(birth), entropy);
            let bucket = account::slot(&realm, &home).bucket();
            let key = key(&realm, &RequestKey { home, request, caller: Caller::new("c") });
            prop_assert!(key >= layout::request_birth_key(bucket, Millis(0)));
            prop_assert_eq!(key < layout::request_birth_key(bucket, Millis(bound)), birth < bound);
            if bucket.0 + 1 < Bucket::COUNT {
                prop_assert!(key < layout::request_birth_key(Bucket(bucket.0 + 1), Millis(0)));
            }
        }
    }

    #[test]
    fn callers_and_realms_scope_the_id() {
        let (one, two) = (arbitrary::realm(1), arbitrary::realm(2));
        let request = |caller: &str| RequestKey {
            home: AccountId::new("ann").unwrap(),
            request: RequestId::from_parts(Millis(5), [1; 10]),
            caller: Caller::new(caller),
        };
        assert_eq!(key(&one, &request("a")), key(&one, &request("a")));
        assert_ne!(key(&one, &request("a")), key(&one, &request("b")));
        assert_ne!(key(&one, &request("a")), key(&two, &request("a")));
    }

    #[test]
    fn golden_bytes() {
        let realm = arbitrary::realm(7);
        let account = AccountId::new("ann").unwrap();
        let request = RequestKey {
            home: account.clone(),
            request: RequestId::from_parts(Millis(0x0102_0304_0506), [0xaa; 10]),
            caller: Caller::new("c"),
        };
        assert_eq!(
            hex(&key(&realm, &request)),
            concat!(
                "0be5",                             // bucket
                "0102030405067aaaaaaaaaaaaaaaaaaa", // request id
                "00000007",                         // realm
                "217e0196675281d4",                 // caller
            )
        );
        let digest = [1; 32];
        let prefix = format!("0a20{}", "01".repeat(32));
        let done = Outcome::Done {
            account: account.clone(),
            revision: 3,
        };
        let record = RequestRecord {
            digest,
            outcome: done,
        };
        assert_eq!(hex(&encode(&record)), format!("{prefix}12070a03616e6e1003"));
        let refusals = [
            (Refusal::AccountExists, "1200"),
            (Refusal::AccountNotFound, "1a00"),
            (Refusal::AccountPurged, "2200"),
            (
                Refusal::StateForbids {
                    state: AccountState::PendingDeletion,
                },
                "2a020803",
            ),
            (
                Refusal::IdentifierUnavailable {
                    kind: IdentifierKind::Phone,
                    index: 2,
                },
                "320408021002",
            ),
            (Refusal::IdentifierNotFound { index: 2 }, "3a020802"),
            (
                Refusal::LimitExceeded {
                    what: "x".into(),
                    limit: 1,
                    actual: 2,
                },
                "42070a017810011802",
            ),
        ];
        for (refusal, expected) in refusals {
            let outcome = Outcome::Refused {
                account: account.clone(),
                refusal,
            };
            let length = 5 + expected.len() / 2;
            let expected = format!("{prefix}1a{length:02x}0a03616e6e{expected}");
            assert_eq!(hex(&encode(&RequestRecord { digest, outcome })), expected);
        }
    }
}
