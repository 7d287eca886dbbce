//! What an account is: the record behind one person's or one service's login.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{AccountId, Identifier, Millis};

/// One account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Its id within the realm.
    pub id: AccountId,
    /// Grows by one with each change, from 1. The etag is its decimal form in quotes-free text.
    pub revision: u64,
    /// The name people see. Personal data; at most 256 bytes.
    pub display_name: String,
    /// BCP 47 language tag, or empty.
    pub locale: String,
    /// IANA time zone name, or empty.
    pub time_zone: String,
    /// What names this account, at most 32; sorted by (kind, issuer, canonical).
    pub identifiers: Vec<Identifier>,
    /// Typed attributes by name; at most 256, names `[a-z][a-z0-9_.]{0,62}`.
    pub attributes: BTreeMap<String, Attribute>,
    /// At most 32 labels for operators; never personal data (they may appear in logs).
    pub labels: BTreeMap<String, String>,
    /// Reasons why the account may not be used; empty: it may.
    pub restrictions: Vec<Restriction>,
    /// Set while the account waits for its purge, and for ever once purged.
    pub deletion: Option<Deletion>,
    /// When it was created.
    pub create_time: Millis,
    /// When it last changed.
    pub update_time: Millis,
}

impl Account {
    /// The state, derived: deletion wins over restrictions.
    pub fn state(&self) -> AccountState {
        match &self.deletion {
            Some(deletion) if deletion.purged => AccountState::Deleted,
            Some(_) => AccountState::PendingDeletion,
            None if self.restrictions.is_empty() => AccountState::Active,
            None => AccountState::Suspended,
        }
    }

    /// The etag: changes with each revision and only then.
    pub fn etag(&self) -> String {
        self.revision.to_string()
    }
}

/// Where an account is in its life. Stored nowhere: it follows from restrictions and deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AccountState {
    /// May be used.
    Active,
    /// At least one restriction stands.
    Suspended,
    /// Deletion was asked for; it can be undone until the purge.
    PendingDeletion,
    /// Purged: only a tombstone remains, so that the id is never reused.
    Deleted,
    /// Folded into another account. Reserved.
    Merged,
}

impl AccountState {
    /// The name used in the API and in messages.
    pub fn name(self) -> &'static str {
        match self {
            AccountState::Active => "ACTIVE",
            AccountState::Suspended => "SUSPENDED",
            AccountState::PendingDeletion => "PENDING_DELETION",
            AccountState::Deleted => "DELETED",
            AccountState::Merged => "MERGED",
        }
    }
}

/// A reason why an account may not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restriction {
    /// Short code, `[a-z][a-z0-9_]{0,62}`, unique within the account (`fraud`, `payment_overdue`).
    pub code: String,
    /// When it was placed.
    pub create_time: Millis,
}

/// A deletion under way or done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// When it was asked for.
    pub request_time: Millis,
    /// When the purge is due (log time).
    pub purge_time: Millis,
    /// The purge has happened; the record is a tombstone without personal data.
    pub purged: bool,
}

/// One attribute and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// The value.
    pub value: AttributeValue,
    /// The system that supplied it, at most 128 bytes, or empty.
    pub source: String,
    /// When it was set.
    pub update_time: Millis,
}

/// A typed value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum AttributeValue {
    /// UTF-8 text.
    String(String),
    /// A 64-bit signed integer.
    Int64(i64),
    /// A finite 64-bit float.
    Double(f64),
    /// True or false.
    Bool(bool),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// An instant: seconds since the Unix epoch and nanoseconds 0..=999,999,999 (protobuf's Timestamp).
    Timestamp(i64, i32),
    /// A list of texts.
    Strings(Vec<String>),
}
