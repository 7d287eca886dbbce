//! A realm: a namespace of accounts with rules and keys of its own. Replicated, never a node's file.

use serde::{Deserialize, Serialize};

use crate::{RealmId, RealmNumber};

/// A realm's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Realm {
    /// Its name.
    pub id: RealmId,
    /// The number that stands for it in keys.
    pub number: RealmNumber,
    /// Keys the hash that gives an account its slot, the derived ids and the request digests. Never rotates:
    /// it says where rows are.
    pub slot_key: [u8; 32],
    /// Keys of the claim HMAC, oldest first; the last one is used for new claims.
    pub claim_keys: Vec<ClaimKey>,
    /// The rules.
    pub config: RealmConfig,
    /// Grows by one with each change of the rules.
    pub revision: u64,
}

/// One generation of the claim HMAC key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimKey {
    /// Stored in each claim's key; from 1.
    pub id: u8,
    /// 256 random bits.
    pub key: [u8; 32],
}

/// The rules of a realm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealmConfig {
    /// How long an identifier that was removed cannot be claimed by another account, milliseconds.
    pub quarantine_ms: u64,
    /// How long a deletion can be undone, milliseconds.
    pub deletion_grace_ms: u64,
    /// How old a request id may be, milliseconds of log time. A later duplicate is refused.
    pub request_window_ms: u64,
    /// The largest account record, bytes in its canonical encoding.
    pub max_record_bytes: u32,
    /// What an identifier that nobody has verified may do.
    pub unverified: UnverifiedPolicy,
    /// Whether the local part of an email address is compared without regard to case.
    pub email_local_part_case_insensitive: bool,
    /// The region (ISO 3166-1 alpha-2) used for phone numbers without `+`; empty: such numbers are refused.
    pub default_phone_region: String,
}

impl Default for RealmConfig {
    fn default() -> Self {
        const DAY_MS: u64 = 86_400_000;
        RealmConfig {
            quarantine_ms: 30 * DAY_MS,
            deletion_grace_ms: 30 * DAY_MS,
            request_window_ms: 3_600_000,
            max_record_bytes: 256 * 1024,
            unverified: UnverifiedPolicy::LookupAndHold,
            email_local_part_case_insensitive: true,
            default_phone_region: String::new(),
        }
    }
}

/// What an unverified identifier may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnverifiedPolicy {
    /// It is reserved for its account and lookups find it.
    LookupAndHold,
    /// It is reserved for its account, but lookups do not find it until it is verified.
    HoldOnly,
}
