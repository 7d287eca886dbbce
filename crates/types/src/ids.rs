//! Names and numbers that identify things. Each is checked where it is made, so that the rest of the code
//! can rely on its shape.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A Raft node. Chosen once, never reused: a wiped machine comes back under a new one.
pub type NodeId = u64;

/// Identifies a cluster for ever; drawn when it is initialised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub Uuid);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a name was not accepted. `reason` is a sentence for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvalidName {
    /// What is wrong with it, in words a caller can act on.
    pub reason: String,
}

fn invalid(reason: impl Into<String>) -> InvalidName {
    InvalidName {
        reason: reason.into(),
    }
}

/// The name of a realm: lower-case letters, digits and hyphens, 1 to 63 bytes, starts with a letter (AIP-122).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RealmId(String);

impl RealmId {
    /// Checks and wraps a realm name.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
        let name = name.into();
        let ok = (1..=63).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && !name.ends_with('-')
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if ok {
            Ok(RealmId(name))
        } else {
            Err(invalid(
                "a realm is 1 to 63 lower-case letters, digits or hyphens, starting with a letter",
            ))
        }
    }

    /// The realm that exists from the start.
    pub fn default_realm() -> Self {
        RealmId("default".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RealmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number that stands for a realm in keys. The default realm is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RealmNumber(pub u32);

/// The id of an account within its realm: printable ASCII without `/`, `%` and space, 1 to 63 bytes.
///
/// Chosen by the caller (a UUID, or any opaque string of that form) or derived from the request. Never
/// reused: a purged account leaves a tombstone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountId(String);

impl AccountId {
    /// The longest id, in bytes.
    pub const MAX_LEN: usize = 63;

    /// Checks and wraps an account id.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidName> {
        let id = id.into();
        if id.is_empty() || id.len() > Self::MAX_LEN {
            return Err(invalid(format!(
                "an account id is 1 to {} bytes, this one has {}",
                Self::MAX_LEN,
                id.len()
            )));
        }
        match id
            .bytes()
            .find(|b| !b.is_ascii_graphic() || matches!(b, b'/' | b'%' | b'?' | b'#'))
        {
            Some(_) => Err(invalid(
                "an account id is printable ASCII without space, '/', '%', '?' and '#'",
            )),
            None if id == "-" || id == "." || id == ".." => Err(invalid("this account id is reserved")),
            None => Ok(AccountId(id)),
        }
    }

    /// The id a create without one gets: the same for every retry of the same request, so that each retry
    /// finds the same home. 128 bits of a keyed hash, written as a version-8 UUID (RFC 9562).
    pub fn derive(key: &[u8; 32], realm: RealmNumber, caller: &Caller, request: RequestId) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(b"account-id");
        hasher.update(&realm.0.to_be_bytes());
        hasher.update(request.as_bytes());
        hasher.update(caller.as_str().as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        AccountId(uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string())
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The caller's idempotency key: a UUIDv7, scoped by realm and caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(Uuid);

impl RequestId {
    /// Parses the textual form; anything but a version-7 UUID is refused.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let id =
            Uuid::parse_str(text).map_err(|_| invalid("a request id is a UUID, version 7 (RFC 9562)"))?;
        Self::from_uuid(id)
    }

    /// Wraps a version-7 UUID.
    pub fn from_uuid(id: Uuid) -> Result<Self, InvalidName> {
        if id.get_version_num() == 7 {
            Ok(RequestId(id))
        } else {
            Err(invalid(
                "a request id is a UUID of version 7, because its age decides whether it may still run",
            ))
        }
    }

    /// A request id born at `birth` with 74 bits of `entropy` (the rest is ignored).
    pub fn from_parts(birth: crate::Millis, entropy: [u8; 10]) -> Self {
        RequestId(uuid::Builder::from_unix_timestamp_millis(birth.0, &entropy).into_uuid())
    }

    /// When the caller made it, from its first 48 bits.
    pub fn birth(self) -> crate::Millis {
        let bytes = self.0.as_bytes();
        let mut wide = [0; 8];
        wide[2..].copy_from_slice(&bytes[..6]);
        crate::Millis(u64::from_be_bytes(wide))
    }

    /// The sixteen bytes; they sort by birth.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who sent a request, as the transport authenticated it (certificate name), or `anonymous`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Caller(String);

impl Caller {
    /// Wraps an authenticated name.
    pub fn new(name: impl Into<String>) -> Self {
        Caller(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// On whose behalf and why a mutation is made. Goes to the change log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Actor {
    /// Opaque id of the person or service behind the call, at most 256 bytes.
    pub actor: String,
    /// Why, at most 1,024 bytes.
    pub reason: String,
    /// W3C trace id, 32 hex digits, or empty.
    pub trace_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Millis;

    #[test]
    fn account_ids_are_checked() {
        assert!(AccountId::new("user-1@x").is_ok());
        for bad in ["", "a/b", "a b", "é", "-", "..", &"x".repeat(64)] {
            assert!(AccountId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn request_ids_carry_their_birth() {
        let id = RequestId::from_parts(Millis(1_700_000_000_123), [7; 10]);
        assert_eq!(id.birth(), Millis(1_700_000_000_123));
        assert_eq!(RequestId::parse(&id.to_string()), Ok(id));
        assert!(RequestId::parse("67e55044-10b1-426f-9247-bb680e5fe0c8").is_err());
    }

    #[test]
    fn derived_ids_depend_on_everything() {
        let id = RequestId::from_parts(Millis(5), [0; 10]);
        let a = AccountId::derive(&[1; 32], RealmNumber(1), &Caller::new("x"), id);
        assert_eq!(
            a,
            AccountId::derive(&[1; 32], RealmNumber(1), &Caller::new("x"), id)
        );
        assert_ne!(
            a,
            AccountId::derive(&[1; 32], RealmNumber(2), &Caller::new("x"), id)
        );
        assert_ne!(
            a,
            AccountId::derive(&[1; 32], RealmNumber(1), &Caller::new("y"), id)
        );
        assert!(AccountId::new(a.as_str()).is_ok());
    }
}
