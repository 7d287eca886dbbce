//! Gathers what is wrong with a request, and reads the parts that many requests share.

use holdfast_types::{AccountId, Actor, FieldViolation, RealmId, Rejection, RequestId};

use crate::v1;

/// Everything found wrong so far.
#[derive(Debug, Default)]
pub struct Check {
    violations: Vec<FieldViolation>,
}

impl Check {
    /// Nothing found yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `field` is wrong.
    pub fn wrong(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.violations.push(FieldViolation::new(field, description));
    }

    /// What was read, if nothing is wrong with any of it. `value` is `None` only if something is.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Rejection> {
        match value {
            Some(value) if self.violations.is_empty() => Ok(value),
            _ => Err(Rejection::Invalid(self.violations)),
        }
    }

    /// The value of a required message field.
    pub fn required<T>(&mut self, field: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.wrong(field, "is required");
        }
        value
    }

    /// A text of at most `max` bytes.
    pub fn short(&mut self, field: &str, text: String, max: usize) -> String {
        if text.len() > max {
            self.wrong(
                field,
                format!("has {} bytes; at most {max} are allowed", text.len()),
            );
        }
        text
    }

    /// `realms/{realm}`.
    pub fn realm_name(&mut self, field: &str, name: &str) -> Option<RealmId> {
        let Some(realm) = name.strip_prefix("realms/") else {
            self.wrong(field, "must have the form `realms/{realm}`");
            return None;
        };
        self.realm_id(field, realm)
    }

    /// `realms/{realm}/accounts/{account}`.
    pub fn account_name(&mut self, field: &str, name: &str) -> Option<(RealmId, AccountId)> {
        let parts = name
            .strip_prefix("realms/")
            .and_then(|rest| rest.split_once("/accounts/"));
        let Some((realm, account)) = parts else {
            self.wrong(field, "must have the form `realms/{realm}/accounts/{account}`");
            return None;
        };
        let realm = self.realm_id(field, realm);
        let account = self.account_id(field, account);
        realm.zip(account)
    }

    fn realm_id(&mut self, field: &str, realm: &str) -> Option<RealmId> {
        RealmId::new(realm)
            .map_err(|error| self.wrong(field, error.reason))
            .ok()
    }

    /// An account id that must be there.
    pub fn account_id(&mut self, field: &str, id: &str) -> Option<AccountId> {
        AccountId::new(id)
            .map_err(|error| self.wrong(field, error.reason))
            .ok()
    }

    /// An account id that may be left out. The outer `None` means that it is wrong.
    pub fn optional_account_id(&mut self, field: &str, id: &str) -> Option<Option<AccountId>> {
        if id.is_empty() {
            Some(None)
        } else {
            self.account_id(field, id).map(Some)
        }
    }

    /// The idempotency key, which every mutation needs.
    pub fn request_id(&mut self, field: &str, id: &str) -> Option<RequestId> {
        if id.is_empty() {
            self.wrong(
                field,
                "is required: a UUIDv7 that stays the same when the request is sent again",
            );
            return None;
        }
        RequestId::parse(id)
            .map_err(|error| self.wrong(field, error.reason))
            .ok()
    }

    /// On whose behalf and why; nothing if that is not said.
    pub fn actor(&mut self, context: Option<v1::RequestContext>) -> Actor {
        let Some(context) = context else {
            return Actor::default();
        };
        let trace_id = context.trace_id;
        let is_trace_id = trace_id.len() == 32
            && trace_id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            && trace_id.bytes().any(|b| b != b'0');
        if !trace_id.is_empty() && !is_trace_id {
            self.wrong(
                "context.trace_id",
                "must be 32 lower-case hexadecimal digits, not all zero",
            );
        }
        Actor {
            actor: self.short("context.actor", context.actor, 256),
            reason: self.short("context.reason", context.reason, 1_024),
            trace_id,
        }
    }
}

/// An etag, or none if it is empty.
pub fn etag(etag: String) -> Option<String> {
    (!etag.is_empty()).then_some(etag)
}

/// A caller's text as it may stand in a path or a description: short, and without control characters.
pub fn shown(text: &str) -> String {
    const MAX: usize = 64;
    let shown: String = text.chars().take(MAX).flat_map(char::escape_debug).collect();
    if text.chars().count() > MAX {
        format!("{shown}…")
    } else {
        shown
    }
}

/// The path of a map's entry.
pub fn entry(map: &str, key: &str) -> String {
    format!("{map}[\"{}\"]", shown(key))
}
