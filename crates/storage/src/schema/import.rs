//! How far an import has come. Key: shard 0 (4 bytes), `i`, realm (4), import id (16), keyed hash of the caller
//! (8), in the meta family.
//!
//! Items have request records of their own; this row says which of them need not be sent again, and with which
//! birth their request ids are derived, so that an import may take longer than the request window.

use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_accounts::{ImportMode, Versioned};
use holdfast_machine::{Expect, Guard, Mutation, Write};
use holdfast_types::{Caller, Family, Millis, Realm, RequestId};

use super::cursor::Cursor;
use super::{Damaged, bytes, message, open, request};
use crate::engine::{EngineError, View};
use crate::proto;

const FAMILY: Family = Family::Meta;
/// Shard 0 and the tag that keeps imports apart from the shard's other rows.
const PREFIX: [u8; 5] = [0, 0, 0, 0, b'i'];
/// The tag after it: no import's key sorts at or above.
const END: [u8; 5] = [0, 0, 0, 0, b'i' + 1];

/// How far an import has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportProgress {
    /// Every item up to this index has its final result.
    pub resume_after_index: u64,
    /// Items above this index have not been tried. Between the two lie those that may have run.
    pub reserved_through_index: u64,
    /// In order of `from_index`, at least one.
    pub segments: Vec<ImportSegment>,
    /// When it last moved.
    pub update_time: Millis,
    /// What it does about accounts that exist; none: not recorded.
    pub mode: Option<ImportMode>,
}

/// A run of items whose request ids have the same birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportSegment {
    /// The first item of the segment; it ends where the next one begins.
    pub from_index: u64,
    /// Birth of the items' request ids.
    pub birth: Millis,
}

/// The key of an import.
pub fn key(realm: &Realm, import: RequestId, caller: &Caller) -> Bytes {
    let mut key = BytesMut::with_capacity(33);
    key.put_slice(&PREFIX);
    key.put_u32(realm.number.0);
    key.put_slice(import.as_bytes());
    key.put_slice(&request::caller_hash(realm, caller));
    key.freeze()
}

/// The progress of an import, if it was ever begun.
pub fn read(
    view: &dyn View,
    realm: &Realm,
    import: RequestId,
    caller: &Caller,
) -> Result<Option<Versioned<ImportProgress>>, EngineError> {
    let value = view.get(FAMILY, &key(realm, import, caller))?;
    Ok(value.map(|value| open(FAMILY, &value, decode)).transpose()?)
}

/// What to propose to store an import's progress: `expect` says what must be there so far.
pub fn mutation(
    realm: &Realm,
    import: RequestId,
    caller: &Caller,
    progress: &ImportProgress,
    expect: Expect,
) -> Mutation {
    let key = key(realm, import, caller);
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
            body: encode(progress),
        }],
        ..Mutation::default()
    }
}

/// What to propose to forget up to `limit` imports that have not moved since `before`; none: nothing to forget.
pub fn forget(view: &dyn View, before: Millis, limit: usize) -> Result<Option<Mutation>, EngineError> {
    let from = Bound::Included(Bytes::from_static(&PREFIX));
    let end = Bound::Excluded(Bytes::from_static(&END));
    let mut mutation = Mutation::default();
    for row in Cursor::new(view, FAMILY, from, end) {
        let (key, value) = row?;
        let progress = open(FAMILY, &value, decode)?;
        if progress.value.update_time < before {
            let expect = Expect::Stamp(progress.stamp);
            mutation.guards.push(Guard {
                family: FAMILY,
                key: key.clone(),
                expect,
            });
            mutation.writes.push(Write::Delete { family: FAMILY, key });
        }
        if mutation.writes.len() >= limit {
            break;
        }
    }
    Ok((!mutation.writes.is_empty()).then_some(mutation))
}

/// The record of an import.
pub fn encode(progress: &ImportProgress) -> Bytes {
    bytes(&proto::ImportProgress {
        resume_after_index: progress.resume_after_index,
        reserved_through_index: progress.reserved_through_index,
        segments: progress
            .segments
            .iter()
            .map(|segment| proto::ImportSegment {
                from_index: segment.from_index,
                birth_ms: segment.birth.0,
            })
            .collect(),
        update_time_ms: progress.update_time.0,
        mode: match progress.mode {
            None => proto::ImportMode::Unspecified,
            Some(ImportMode::Create) => proto::ImportMode::Create,
            Some(ImportMode::Upsert) => proto::ImportMode::Upsert,
            Some(ImportMode::Skip) => proto::ImportMode::Skip,
        }
        .into(),
    })
}

/// Reads the record of an import.
pub fn decode(record: Bytes) -> Result<ImportProgress, Damaged> {
    let progress: proto::ImportProgress = message(FAMILY, record)?;
    let mode = match proto::ImportMode::try_from(progress.mode) {
        Ok(proto::ImportMode::Unspecified) => None,
        Ok(proto::ImportMode::Create) => Some(ImportMode::Create),
        Ok(proto::ImportMode::Upsert) => Some(ImportMode::Upsert),
        Ok(proto::ImportMode::Skip) => Some(ImportMode::Skip),
        Err(_) => return Err(Damaged::new(FAMILY, "an import's mode is unknown")),
    };
    let segments: Vec<ImportSegment> = progress
        .segments
        .into_iter()
        .map(|segment| ImportSegment {
            from_index: segment.from_index,
            birth: Millis(segment.birth_ms),
        })
        .collect();
    if segments.is_empty() || !segments.is_sorted_by(|a, b| a.from_index < b.from_index) {
        return Err(Damaged::new(
            FAMILY,
            "an import's segments are missing or out of order",
        ));
    }
    Ok(ImportProgress {
        resume_after_index: progress.resume_after_index,
        reserved_through_index: progress.reserved_through_index,
        segments,
        update_time: Millis(progress.update_time_ms),
        mode,
    })
}

#[cfg(test)]
mod tests {
    use holdfast_machine::envelope;
    use holdfast_types::Stamp;
    use proptest::prelude::*;

    use super::*;
    use crate::engine::{Batch, Engine};
    use crate::faulty::FaultyDisk;
    use crate::schema::arbitrary;

    fn progress(resume_after_index: u64, update_time: u64) -> ImportProgress {
        ImportProgress {
            resume_after_index,
            reserved_through_index: 6,
            segments: vec![
                ImportSegment {
                    from_index: 1,
                    birth: Millis(7),
                },
                ImportSegment {
                    from_index: 4,
                    birth: Millis(9),
                },
            ],
            update_time: Millis(update_time),
            mode: Some(ImportMode::Upsert),
        }
    }

    proptest! {
        #[test]
        fn round_trips(index: u64, time: u64) {
            prop_assert_eq!(decode(encode(&progress(index, time))), Ok(progress(index, time)));
        }

        #[test]
        fn damage_never_panics(record in any::<Vec<u8>>()) {
            let _ = decode(record.into());
        }
    }

    #[test]
    fn golden_bytes() {
        let golden: &[u8] = &[8, 3, 16, 6, 26, 4, 8, 1, 16, 7, 26, 4, 8, 4, 16, 9, 32, 5, 40, 2];
        assert_eq!(&encode(&progress(3, 5))[..], golden);
        let import = RequestId::from_parts(Millis(1), [0; 10]);
        let key = key(&arbitrary::realm(7), import, &Caller::new("importer"));
        assert_eq!(&key[..9], &[0, 0, 0, 0, b'i', 0, 0, 0, 7]);
        assert_eq!(&key[9..25], import.as_bytes());
        assert_eq!(key.len(), 33);
        assert!(
            decode(Bytes::new()).is_err(),
            "an import has at least one segment"
        );
    }

    #[test]
    fn only_imports_at_rest_are_forgotten() {
        let engine = FaultyDisk::new(0).open().unwrap();
        let realm = arbitrary::realm(1);
        let mut batch = Batch::default();
        for number in 0..10_u64 {
            let import = RequestId::from_parts(Millis(number), [0; 10]);
            let value = envelope::encode(0, Stamp(number), &encode(&progress(1, number)));
            batch.put(FAMILY, key(&realm, import, &Caller::new("a")), value);
        }
        engine.write(batch).unwrap();
        let writes = |before, limit| {
            let found = forget(&*engine.view(), Millis(before), limit).unwrap();
            found.map_or(0, |mutation| mutation.writes.len())
        };
        assert_eq!([writes(0, 99), writes(4, 99), writes(99, 3)], [0, 4, 3]);
    }
}
