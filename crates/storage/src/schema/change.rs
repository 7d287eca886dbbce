//! The change log. Key: shard (4 bytes), log index (8), sequence within the entry (4); its shape is
//! [`holdfast_machine::layout::change_key`], because applying an entry makes the key.

use std::ops::Bound;

use bytes::Bytes;
use holdfast_accounts::{ChangeEvent, ChangeKind, Versioned};
use holdfast_machine::layout;
use holdfast_types::{AccountId, Actor, Family, RealmNumber, RequestId, ShardId};
use uuid::Uuid;

use super::cursor::Cursor;
use super::{Damaged, array, bytes, identifier_kind, message, open};
use crate::engine::{EngineError, Row, View};
use crate::proto;

const FAMILY: Family = Family::Change;

/// A change as a reader of the log finds it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeRow {
    /// The log index of the entry that made it.
    pub index: u64,
    /// Its place within the entry, from 0.
    pub sequence: u32,
    /// The account's realm.
    pub realm: RealmNumber,
    /// What happened; the stamp says when.
    pub event: Versioned<ChangeEvent>,
}

/// The record of a change.
pub fn encode(realm: RealmNumber, event: &ChangeEvent) -> Bytes {
    bytes(&proto::ChangeEvent {
        realm: realm.0,
        kind: kind_to_proto(event.kind).into(),
        account: event.account.as_str().to_owned(),
        revision: event.revision,
        fields: event.fields.clone(),
        identifier_kinds: event.identifier_kinds.iter().map(|kind| *kind as i32).collect(),
        actor: Some(proto::Actor {
            actor: event.actor.actor.clone(),
            reason: event.actor.reason.clone(),
            trace_id: event.actor.trace_id.clone(),
        }),
        request_id: event
            .request_id
            .map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes())),
    })
}

/// Reads the record of a change.
pub fn decode(record: Bytes) -> Result<(RealmNumber, ChangeEvent), Damaged> {
    let event: proto::ChangeEvent = message(FAMILY, record)?;
    let kinds = event
        .identifier_kinds
        .into_iter()
        .map(|kind| identifier_kind(FAMILY, kind));
    let actor = event.actor.unwrap_or_default();
    let decoded = ChangeEvent {
        kind: kind_from_proto(event.kind)?,
        account: AccountId::new(event.account).map_err(|error| Damaged::new(FAMILY, error.reason))?,
        revision: event.revision,
        fields: event.fields,
        identifier_kinds: kinds.collect::<Result<_, _>>()?,
        actor: Actor {
            actor: actor.actor,
            reason: actor.reason,
            trace_id: actor.trace_id,
        },
        request_id: request_id(&event.request_id)?,
    };
    Ok((RealmNumber(event.realm), decoded))
}

fn request_id(id: &[u8]) -> Result<Option<RequestId>, Damaged> {
    if id.is_empty() {
        return Ok(None);
    }
    let id = Uuid::from_bytes(array(FAMILY, "the request id", id)?);
    RequestId::from_uuid(id)
        .map(Some)
        .map_err(|error| Damaged::new(FAMILY, error.reason))
}

fn kind_to_proto(kind: ChangeKind) -> proto::ChangeKind {
    match kind {
        ChangeKind::Created => proto::ChangeKind::Created,
        ChangeKind::Updated => proto::ChangeKind::Updated,
        ChangeKind::IdentifiersChanged => proto::ChangeKind::IdentifiersChanged,
        ChangeKind::DeletionRequested => proto::ChangeKind::DeletionRequested,
        ChangeKind::Undeleted => proto::ChangeKind::Undeleted,
        ChangeKind::Purged => proto::ChangeKind::Purged,
    }
}

fn kind_from_proto(number: i32) -> Result<ChangeKind, Damaged> {
    match proto::ChangeKind::try_from(number) {
        Ok(proto::ChangeKind::Created) => Ok(ChangeKind::Created),
        Ok(proto::ChangeKind::Updated) => Ok(ChangeKind::Updated),
        Ok(proto::ChangeKind::IdentifiersChanged) => Ok(ChangeKind::IdentifiersChanged),
        Ok(proto::ChangeKind::DeletionRequested) => Ok(ChangeKind::DeletionRequested),
        Ok(proto::ChangeKind::Undeleted) => Ok(ChangeKind::Undeleted),
        Ok(proto::ChangeKind::Purged) => Ok(ChangeKind::Purged),
        Ok(proto::ChangeKind::Unspecified) | Err(_) => {
            Err(Damaged::new(FAMILY, format!("{number} is no kind of change")))
        }
    }
}

/// A shard's changes in log order, from the given entry and sequence on.
pub fn changes_from<'v>(
    view: &'v dyn View,
    shard: ShardId,
    index: u64,
    sequence: u32,
) -> impl Iterator<Item = Result<ChangeRow, EngineError>> + Send + use<'v> {
    let from = Bound::Included(layout::change_key(shard, index, sequence));
    let end = Bound::Included(layout::change_key(shard, u64::MAX, u32::MAX));
    Cursor::new(view, FAMILY, from, end).map(|row| read_row(&row?).map_err(EngineError::from))
}

fn read_row((key, value): &Row) -> Result<ChangeRow, Damaged> {
    let (_, index, sequence) =
        layout::decode_change_key(key).ok_or_else(|| Damaged::new(FAMILY, "its key has another shape"))?;
    let Versioned {
        value: (realm, event),
        stamp,
    } = open(FAMILY, value, decode)?;
    Ok(ChangeRow {
        index,
        sequence,
        realm,
        event: Versioned { value: event, stamp },
    })
}

#[cfg(test)]
mod tests {
    use holdfast_machine::envelope;
    use holdfast_types::{IdentifierKind, Millis, Stamp};
    use proptest::prelude::*;

    use super::*;
    use crate::engine::{Batch, Engine};
    use crate::faulty::FaultyDisk;
    use crate::schema::arbitrary::{change_event, hex};

    proptest! {
        #[test]
        fn records_round_trip(realm: u32, event in change_event()) {
            let realm = RealmNumber(realm);
            prop_assert_eq!(decode(encode(realm, &event)), Ok((realm, event)));
        }

        #[test]
        fn damage_never_panics(record in any::<Vec<u8>>()) {
            let _ = decode(record.into());
        }
    }

    fn event() -> ChangeEvent {
        ChangeEvent {
            kind: ChangeKind::IdentifiersChanged,
            account: AccountId::new("ann").unwrap(),
            revision: 2,
            fields: vec!["identifiers".into()],
            identifier_kinds: vec![IdentifierKind::Email, IdentifierKind::Phone],
            actor: Actor {
                actor: "op".into(),
                reason: "why".into(),
                trace_id: String::new(),
            },
            request_id: Some(RequestId::from_parts(Millis(5), [0xaa; 10])),
        }
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(
            hex(&encode(RealmNumber(7), &event())),
            concat!(
                "08071003",                             // realm, kind
                "1a03616e6e2002",                       // account, revision
                "2a0b6964656e7469666965727332020102",   // fields, kinds
                "3a090a026f701203776879",               // actor
                "42100000000000057aaaaaaaaaaaaaaaaaaa", // request id
            )
        );
    }

    #[test]
    fn the_log_is_read_from_any_place_and_one_shard_at_a_time() {
        let engine = FaultyDisk::new(0).open().unwrap();
        let mut batch = Batch::default();
        for (shard, index, sequence) in [(0, 1, 0), (0, 2, 0), (0, 2, 1), (0, 9, 0), (1, 1, 0)] {
            let value = envelope::encode(0, Stamp(index), &encode(RealmNumber(1), &event()));
            batch.put(FAMILY, layout::change_key(ShardId(shard), index, sequence), value);
        }
        engine.write(batch).unwrap();
        let view = engine.view();
        let places = |index, sequence| -> Vec<(u64, u32)> {
            let rows = changes_from(&*view, ShardId(0), index, sequence).map(Result::unwrap);
            rows.map(|row| (row.index, row.sequence)).collect()
        };
        assert_eq!(places(0, 0), [(1, 0), (2, 0), (2, 1), (9, 0)]);
        assert_eq!(places(2, 1), [(2, 1), (9, 0)]);
        assert_eq!(places(10, 0), []);
        let first = changes_from(&*view, ShardId(1), 0, 0).next().unwrap().unwrap();
        assert_eq!(
            first.event,
            Versioned {
                value: event(),
                stamp: Stamp(1)
            }
        );
    }
}
