//! Mutations as values: made once, sent once or many times, always the same.

use std::collections::BTreeMap;

use holdfast_accounts::limits::CLOCK_SKEW_MS_MAX;
use holdfast_client::v1;
use holdfast_types::{Millis, RequestId};

use super::convert::Place;
use super::dice::Dice;
use crate::history::{Input, restricts};

/// The label and the attribute that hold the fingerprint of the attempt that wrote them.
const SIGNED: &str = "attempt";
/// The realm that everything happens in.
pub(super) const REALM: &str = "realms/default";

/// The resource name of an account.
pub(super) fn name(account: &str) -> String {
    format!("{REALM}/accounts/{account}")
}

/// A request id born this long ago.
pub(super) fn request_id(dice: &mut Dice, age_ms: u64) -> RequestId {
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis() as u64);
    RequestId::from_parts(Millis(now_ms.saturating_sub(age_ms)), dice.entropy())
}

/// A request id that is to be born after more time than clocks may differ by.
pub(super) fn future_request_id(dice: &mut Dice, ahead_ms: u64) -> RequestId {
    let birth = request_id(dice, 0).birth();
    RequestId::from_parts(birth.plus(CLOCK_SKEW_MS_MAX + ahead_ms), dice.entropy())
}

/// An identifier as somebody types it.
#[derive(Debug, Clone)]
pub(super) struct Typed {
    pub(super) kind: v1::IdentifierKind,
    pub(super) canonical: String,
    pub(super) value: String,
}

impl Typed {
    /// The identifier with this canonical form, in that form or in another spelling of it.
    pub(super) fn new(canonical: &str, dice: &mut Dice) -> Self {
        let kind = match canonical {
            email if email.contains('@') => v1::IdentifierKind::Email,
            phone if phone.starts_with('+') => v1::IdentifierKind::Phone,
            _ => v1::IdentifierKind::Username,
        };
        let value = match (dice.below(4), kind) {
            (0, v1::IdentifierKind::Phone) => {
                let (country, rest) = canonical.split_at(3.min(canonical.len()));
                format!("{country} {rest}")
            }
            (0, _) => canonical.to_uppercase(),
            (1, _) => format!(" {canonical} "),
            _ => canonical.to_owned(),
        };
        Typed {
            kind,
            canonical: canonical.to_owned(),
            value,
        }
    }

    fn to_identifier(&self) -> v1::Identifier {
        v1::Identifier {
            kind: self.kind.into(),
            value: self.value.clone(),
            ..v1::Identifier::default()
        }
    }

    pub(super) fn to_reference(&self) -> v1::IdentifierReference {
        v1::IdentifierReference {
            kind: self.kind.into(),
            value: self.value.clone(),
            ..v1::IdentifierReference::default()
        }
    }
}

/// What an attempt leaves in an account beside identifiers: its fingerprint in every field that there is for it, so that
/// an account made of two attempts, or of half of one, shows (see [`signature`]).
fn signed(fingerprint: &str) -> v1::Account {
    let label = (SIGNED.to_owned(), fingerprint.to_owned());
    let restriction = v1::Restriction {
        code: fingerprint.replace('-', "_"),
        ..v1::Restriction::default()
    };
    v1::Account {
        display_name: fingerprint.to_owned(),
        labels: BTreeMap::from([label]),
        attributes: attributes(fingerprint),
        restrictions: restricts(fingerprint)
            .then_some(restriction)
            .into_iter()
            .collect(),
        ..v1::Account::default()
    }
}

fn attributes(fingerprint: &str) -> BTreeMap<String, v1::Attribute> {
    let attribute = v1::Attribute {
        value: Some(v1::attribute::Value::StringValue(fingerprint.to_owned())),
        ..v1::Attribute::default()
    };
    BTreeMap::from([(SIGNED.to_owned(), attribute)])
}

/// The fingerprint of the attempt that wrote an account; none if its fields are not of one attempt. A tombstone has the
/// empty one.
pub(super) fn signature(account: &v1::Account) -> Option<&str> {
    let fingerprint = account.display_name.as_str();
    let expected = if fingerprint.is_empty() {
        v1::Account::default()
    } else {
        signed(fingerprint)
    };
    let codes = |account: &v1::Account| -> Vec<String> {
        let codes = account.restrictions.iter();
        codes.map(|restriction| restriction.code.clone()).collect()
    };
    let values = |account: &v1::Account| -> Vec<_> {
        let attributes = account.attributes.iter();
        attributes
            .map(|(name, attribute)| (name.clone(), attribute.value.clone()))
            .collect()
    };
    let same = account.labels == expected.labels
        && codes(account) == codes(&expected)
        && values(account) == values(&expected);
    same.then_some(fingerprint)
}

/// An account to be.
pub(super) fn account(fingerprint: &str, identifiers: &[Typed]) -> v1::Account {
    v1::Account {
        identifiers: identifiers.iter().map(Typed::to_identifier).collect(),
        ..signed(fingerprint)
    }
}

/// The canonical forms, as the history lists them.
pub(super) fn canonical(identifiers: &[Typed]) -> Vec<String> {
    identifiers.iter().map(|typed| typed.canonical.clone()).collect()
}

/// One step of a change of identifiers.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Add(Typed),
    Remove(Typed),
    Replace { old: Typed, new: Typed },
}

/// A mutation.
#[derive(Debug, Clone)]
pub(super) struct Mutation {
    pub(super) request_id: RequestId,
    pub(super) account: String,
    /// As the history keeps it.
    pub(super) input: Input,
    /// The identifiers at the places that a refusal may name.
    pub(super) places: Vec<Place>,
    pub(super) message: Message,
}

/// As it is sent.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Create(v1::CreateAccountRequest),
    Update(v1::UpdateAccountRequest),
    Change(v1::ChangeIdentifiersRequest),
    Delete(v1::DeleteAccountRequest),
    Undelete(v1::UndeleteAccountRequest),
}

impl Mutation {
    pub(super) fn create(id: RequestId, account: String, fingerprint: String, identifiers: &[Typed]) -> Self {
        let message = v1::CreateAccountRequest {
            parent: REALM.into(),
            account_id: account.clone(),
            account: Some(self::account(&fingerprint, identifiers)),
            request_id: id.to_string(),
            context: None,
        };
        let place = |typed: &Typed| Place {
            add: Some(typed.canonical.clone()),
            remove: None,
        };
        Mutation {
            request_id: id,
            input: Input::Create {
                account: account.clone(),
                fingerprint,
                identifiers: canonical(identifiers),
            },
            account,
            places: identifiers.iter().map(place).collect(),
            message: Message::Create(message),
        }
    }

    pub(super) fn update(id: RequestId, account: String, fingerprint: String, if_etag: Option<u64>) -> Self {
        let message = v1::UpdateAccountRequest {
            account: Some(v1::Account {
                name: name(&account),
                attributes: BTreeMap::new(),
                ..signed(&fingerprint)
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: ["display_name", "labels", "restrictions"].map(Into::into).into(),
            }),
            set_attributes: attributes(&fingerprint),
            etag: etag(if_etag),
            request_id: id.to_string(),
            ..v1::UpdateAccountRequest::default()
        };
        Mutation {
            request_id: id,
            input: Input::Update {
                account: account.clone(),
                if_etag,
                fingerprint,
            },
            account,
            places: Vec::new(),
            message: Message::Update(message),
        }
    }

    pub(super) fn change(id: RequestId, account: String, changes: &[Change], if_etag: Option<u64>) -> Self {
        use v1::identifier_change::Change as Wire;
        let (mut add, mut remove) = (Vec::new(), Vec::new());
        let (mut places, mut wire) = (Vec::new(), Vec::new());
        for change in changes {
            let (place, change) = match change {
                Change::Add(new) => (
                    Place {
                        add: Some(new.canonical.clone()),
                        remove: None,
                    },
                    Wire::Add(new.to_identifier()),
                ),
                Change::Remove(old) => (
                    Place {
                        add: None,
                        remove: Some(old.canonical.clone()),
                    },
                    Wire::Remove(old.to_reference()),
                ),
                Change::Replace { old, new } => (
                    Place {
                        add: Some(new.canonical.clone()),
                        remove: Some(old.canonical.clone()),
                    },
                    Wire::Replace(v1::IdentifierReplacement {
                        old_identifier: Some(old.to_reference()),
                        new_identifier: Some(new.to_identifier()),
                    }),
                ),
            };
            add.extend(place.add.clone());
            remove.extend(place.remove.clone());
            places.push(place);
            wire.push(v1::IdentifierChange { change: Some(change) });
        }
        let message = v1::ChangeIdentifiersRequest {
            name: name(&account),
            changes: wire,
            etag: etag(if_etag),
            request_id: id.to_string(),
            context: None,
        };
        Mutation {
            request_id: id,
            input: Input::ChangeIdentifiers {
                account: account.clone(),
                if_etag,
                add,
                remove,
            },
            account,
            places,
            message: Message::Change(message),
        }
    }

    pub(super) fn delete(id: RequestId, account: String, if_etag: Option<u64>) -> Self {
        let message = v1::DeleteAccountRequest {
            name: name(&account),
            etag: etag(if_etag),
            request_id: id.to_string(),
            context: None,
        };
        Mutation {
            request_id: id,
            input: Input::Delete {
                account: account.clone(),
                if_etag,
            },
            account,
            places: Vec::new(),
            message: Message::Delete(message),
        }
    }

    pub(super) fn undelete(id: RequestId, account: String, if_etag: Option<u64>) -> Self {
        let message = v1::UndeleteAccountRequest {
            name: name(&account),
            etag: etag(if_etag),
            request_id: id.to_string(),
            context: None,
        };
        Mutation {
            request_id: id,
            input: Input::Undelete {
                account: account.clone(),
                if_etag,
            },
            account,
            places: Vec::new(),
            message: Message::Undelete(message),
        }
    }
}

/// An etag is the revision, in decimal.
fn etag(revision: Option<u64>) -> String {
    revision.map(|revision| revision.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use holdfast_accounts::normalize::canonicalize;
    use holdfast_types::{IdentifierKind, RealmConfig};

    use super::*;
    use crate::workload::world::contested;

    #[test]
    fn an_account_of_two_attempts_has_no_signature() {
        for fingerprint in ["c1-7", "c1-9-r"] {
            let whole = account(fingerprint, &[]);
            assert_eq!(signature(&whole), Some(fingerprint));
            let half = v1::Account {
                display_name: "c2-8".into(),
                ..whole.clone()
            };
            assert_eq!(signature(&half), None);
            let stale = v1::Account {
                attributes: attributes("c2-8"),
                ..whole.clone()
            };
            assert_eq!(signature(&stale), None);
            let mut free = whole;
            free.restrictions.clear();
            assert_eq!(signature(&free).is_none(), restricts(fingerprint));
        }
        let mut tombstone = v1::Account::default();
        assert_eq!(signature(&tombstone), Some(""));
        tombstone.attributes = attributes("c1-7");
        assert_eq!(
            signature(&tombstone),
            None,
            "personal data that outlived its erasure"
        );
    }

    #[test]
    fn every_spelling_has_the_canonical_form_that_the_history_keeps() {
        let mut dice = Dice::new(1, 1);
        let mut spellings = std::collections::BTreeSet::new();
        let own = ["h0.1@example.org".to_owned(), "t150.12@example.org".to_owned()];
        for canonical in (0..20).map(contested).chain(own) {
            for _ in 0..20 {
                let typed = Typed::new(&canonical, &mut dice);
                let kind = IdentifierKind::from_u8(typed.kind as u8).unwrap();
                let found = canonicalize(kind, &typed.value, "", &RealmConfig::default());
                assert_eq!(found.map(|found| found.text), Ok(canonical.clone()), "{typed:?}");
                spellings.insert(typed.value);
            }
        }
        assert!(spellings.len() > 2 * 22, "{spellings:?}");
    }
}
