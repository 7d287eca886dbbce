//! The key schema: where each typed row lives and how it is written. One family, one file; each holds the
//! shape of the key, the record's conversion to and from protobuf (`proto/holdfast/storage/v1`), and how the
//! family is scanned.
//!
//! | family | key | record |
//! |---|---|---|
//! | account | placement, slot, realm, account id | [`account`]: header in clear, body |
//! | claim | placement, slot, realm, login namespace, key id, HMAC | [`claim`]: owner, held or quarantined |
//! | request | bucket, request id, realm, caller's hash | [`request`]: digest and outcome |
//! | due | bucket, deadline, realm, subject | [`due`]: what happens then |
//! | change | shard, log index, sequence | [`change`]: facts |
//! | meta | shard 0, `r`, realm | [`realm`]: rules and keys |
//! | meta | shard 0, `a`, realm | [`inhabited`]: it has had an account |
//! | meta | shard 0, `i`, realm, import id, caller's hash | [`import`]: how far it has come |
//! | meta | shard 0, `n`, node id | [`member`]: node ids are never reused |
//!
//! Numbers are big-endian and of fixed width, so keys sort as their parts do. `placement` is 0 today. Nothing
//! that a caller may choose is hashed without a key: slots come from BLAKE3 keyed with the realm's slot key,
//! claims are HMACs under its claim keys, so no identifier is ever part of a key.
//!
//! A value is the record's bytes inside [`holdfast_machine::envelope`]. Applying a command adds the envelope;
//! reading takes it off here. A record that cannot be read is [`Damaged`], and always fatal.

pub mod account;
#[cfg(test)]
mod arbitrary;
pub mod change;
pub mod claim;
mod cursor;
pub mod due;
pub mod import;
pub mod inhabited;
pub mod member;
mod plan;
pub mod realm;
pub mod request;
mod row_view;

use bytes::{Buf, Bytes};
use holdfast_accounts::{Row, RowKey, Versioned};
use holdfast_machine::envelope;
use holdfast_types::{Family, IdentifierKind, Placement, Realm};

use crate::engine::EngineError;

pub use plan::encode_plan;
pub use row_view::RowView;

/// Where all data lives until there are regions.
const PLACEMENT: Placement = Placement(0);

/// A stored row is not what this build can have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a row of the {} family cannot be read: {what}", family.name())]
pub struct Damaged {
    /// The row's family.
    pub family: Family,
    /// What is wrong with it. No personal data.
    pub what: String,
}

impl Damaged {
    fn new(family: Family, what: impl Into<String>) -> Self {
        Damaged {
            family,
            what: what.into(),
        }
    }
}

impl From<Damaged> for EngineError {
    fn from(damaged: Damaged) -> Self {
        EngineError::Damaged {
            message: damaged.to_string(),
        }
    }
}

/// Where a row lives. A claim's place is the one that the newest claim key gives it; [`claim::keys`] has all.
pub fn key(realm: &Realm, row: &RowKey) -> (Family, Bytes) {
    match row {
        RowKey::Account(id) => (Family::Account, account::key(realm, id)),
        RowKey::Claim(identifier) => (Family::Claim, claim::key(realm, claim::newest(realm), identifier)),
        RowKey::Request(key) => (Family::Request, request::key(realm, key)),
        RowKey::Due(key) => (Family::Due, due::key(realm, key)),
        RowKey::Realm(number) => (Family::Meta, realm::key(*number)),
    }
}

/// A row's record, as it goes into a write.
pub fn encode(row: &Row) -> Bytes {
    match row {
        Row::Account(account) => account::encode(account),
        Row::Claim(claim) => claim::encode(claim),
        Row::Request(record) => request::encode(record),
        Row::Due(action) => due::encode(*action),
        Row::Realm(realm) => realm::encode(realm),
    }
}

/// Takes the envelope off a stored value and reads the record in it.
fn open<T>(
    family: Family,
    value: &Bytes,
    decode: impl FnOnce(Bytes) -> Result<T, Damaged>,
) -> Result<Versioned<T>, Damaged> {
    let envelope = envelope::decode(value).map_err(|error| Damaged::new(family, error.to_string()))?;
    if envelope.key_id != 0 {
        let what = format!(
            "it is encrypted under key {}, which this build does not know",
            envelope.key_id
        );
        return Err(Damaged::new(family, what));
    }
    Ok(Versioned {
        value: decode(envelope.body)?,
        stamp: envelope.stamp,
    })
}

/// Reads a record's protobuf form.
fn message<M: prost::Message + Default>(family: Family, body: impl Buf) -> Result<M, Damaged> {
    M::decode(body).map_err(|error| Damaged::new(family, error.to_string()))
}

/// The bytes of a record's protobuf form.
fn bytes(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

/// A stored kind of identifier.
fn identifier_kind(family: Family, number: i32) -> Result<IdentifierKind, Damaged> {
    u8::try_from(number)
        .ok()
        .and_then(IdentifierKind::from_u8)
        .ok_or_else(|| Damaged::new(family, format!("{number} is no kind of identifier")))
}

/// Bytes that must have one length.
fn array<const N: usize>(family: Family, what: &str, bytes: &[u8]) -> Result<[u8; N], Damaged> {
    bytes
        .try_into()
        .map_err(|_| Damaged::new(family, format!("{what} has {} bytes instead of {N}", bytes.len())))
}
