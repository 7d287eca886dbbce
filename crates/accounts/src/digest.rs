//! The digest that tells a retry from another request under the same id.
//!
//! It covers what the caller asked for: realm, account, operation and its content as typed. It leaves out the
//! request id and the caller (they name the record) and the actor, reason and trace id (a retry may carry
//! another trace). Maps and sets are sorted by type; lists count in their order. Each text is preceded by its
//! length and each choice by a tag, so no two requests have the same bytes. The key is the realm's, so that
//! records of short contents cannot be guessed by whoever sees the digests.
//!
//! Digests are stored: tags and order are for ever, for one request window at least.

use std::collections::BTreeMap;

use holdfast_types::{AttributeValue, IdentifierKind, Millis, Realm};

use crate::{
    IdentifierChange, IdentifierRef, ImportMode, NewAccount, NewAttribute, NewIdentifier, NewVerification,
    Operation, Request, Update,
};

/// The digest of a request's content.
pub fn digest(realm: &Realm, request: &Request) -> [u8; 32] {
    let mut hash = Hash(blake3::Hasher::new_keyed(&realm.slot_key));
    hash.text("holdfast request digest 1");
    hash.number(u64::from(request.realm.0));
    hash.text(request.account.as_str());
    hash.operation(&request.operation);
    *hash.0.finalize().as_bytes()
}

struct Hash(blake3::Hasher);

impl Hash {
    fn operation(&mut self, operation: &Operation) {
        match operation {
            Operation::Create(account) => {
                self.tag(1);
                self.account(account);
            }
            Operation::Import { mode, account } => {
                self.tag(2);
                self.tag(match mode {
                    ImportMode::Create => 1,
                    ImportMode::Upsert => 2,
                    ImportMode::Skip => 3,
                });
                self.account(account);
            }
            Operation::Update(update) => {
                self.tag(3);
                self.update(update);
            }
            Operation::ChangeIdentifiers(change) => {
                self.tag(4);
                self.option(change.etag.as_deref(), Self::text);
                self.list(&change.changes, Self::change);
            }
            Operation::Delete { etag } => {
                self.tag(5);
                self.option(etag.as_deref(), Self::text);
            }
            Operation::Undelete { etag } => {
                self.tag(6);
                self.option(etag.as_deref(), Self::text);
            }
            Operation::Purge { deadline } => {
                self.tag(7);
                self.number(deadline.0);
            }
        }
    }

    fn account(&mut self, account: &NewAccount) {
        self.text(&account.display_name);
        self.text(&account.locale);
        self.text(&account.time_zone);
        self.list(&account.identifiers, Self::identifier);
        self.attributes(&account.attributes);
        self.labels(&account.labels);
        self.list(&account.restrictions, |hash, code| hash.text(code));
    }

    fn update(&mut self, update: &Update) {
        self.option(update.etag.as_deref(), Self::text);
        self.option(update.display_name.as_deref(), Self::text);
        self.option(update.locale.as_deref(), Self::text);
        self.option(update.time_zone.as_deref(), Self::text);
        self.option(update.labels.as_ref(), Self::labels);
        self.option(update.restrictions.as_ref(), |hash, codes| {
            hash.list(codes, |hash, code| hash.text(code));
        });
        self.attributes(&update.set_attributes);
        self.list(&update.remove_attributes, |hash, name| hash.text(name));
    }

    fn change(&mut self, change: &IdentifierChange) {
        match change {
            IdentifierChange::Add(new) => {
                self.tag(1);
                self.identifier(new);
            }
            IdentifierChange::Remove(old) => {
                self.tag(2);
                self.reference(old);
            }
            IdentifierChange::Replace { old, new } => {
                self.tag(3);
                self.reference(old);
                self.identifier(new);
            }
        }
    }

    fn identifier(&mut self, new: &NewIdentifier) {
        self.named(new.kind, &new.issuer, &new.value);
        self.option(new.primary, Self::flag);
        self.option(new.login_enabled, Self::flag);
        self.option(
            new.verification.as_ref(),
            |hash, verification| match verification {
                NewVerification::Unverified => hash.tag(1),
                NewVerification::Verified { method, time } => {
                    hash.tag(2);
                    hash.text(method);
                    hash.option(*time, |hash, Millis(time)| hash.number(time));
                }
            },
        );
    }

    fn reference(&mut self, old: &IdentifierRef) {
        self.named(old.kind, &old.issuer, &old.value);
    }

    fn named(&mut self, kind: IdentifierKind, issuer: &str, value: &str) {
        self.tag(kind as u8);
        self.text(issuer);
        self.text(value);
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>) {
        self.list(labels, |hash, (name, value)| {
            hash.text(name);
            hash.text(value);
        });
    }

    fn attributes(&mut self, attributes: &BTreeMap<String, NewAttribute>) {
        self.list(attributes, |hash, (name, attribute)| {
            hash.text(name);
            hash.text(&attribute.source);
            hash.value(&attribute.value);
        });
    }

    fn value(&mut self, value: &AttributeValue) {
        match value {
            AttributeValue::String(text) => {
                self.tag(1);
                self.text(text);
            }
            AttributeValue::Int64(number) => {
                self.tag(2);
                self.number(*number as u64);
            }
            AttributeValue::Double(number) => {
                self.tag(3);
                self.number(number.to_bits());
            }
            AttributeValue::Bool(flag) => {
                self.tag(4);
                self.flag(*flag);
            }
            AttributeValue::Bytes(bytes) => {
                self.tag(5);
                self.bytes(bytes);
            }
            AttributeValue::Timestamp(seconds, nanos) => {
                self.tag(6);
                self.number(*seconds as u64);
                self.number(*nanos as u64);
            }
            AttributeValue::Strings(texts) => {
                self.tag(7);
                self.list(texts, |hash, text| hash.text(text));
            }
        }
    }

    fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        let items = items.into_iter();
        self.number(items.len() as u64);
        for item in items {
            each(self, item);
        }
    }

    fn option<T>(&mut self, value: Option<T>, some: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.tag(0),
            Some(value) => {
                self.tag(1);
                some(self, value);
            }
        }
    }

    fn tag(&mut self, tag: u8) {
        self.0.update(&[tag]);
    }

    fn flag(&mut self, flag: bool) {
        self.tag(u8::from(flag));
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use holdfast_types::{AccountId, Actor, Caller, RealmConfig, RealmId, RealmNumber};

    use super::*;
    use crate::ChangeIdentifiers;

    fn realm(slot_key: [u8; 32]) -> Realm {
        Realm {
            id: RealmId::default_realm(),
            number: RealmNumber(1),
            slot_key,
            claim_keys: vec![],
            config: RealmConfig::default(),
            revision: 1,
        }
    }

    fn request(operation: Operation) -> Request {
        Request {
            realm: RealmNumber(1),
            caller: Caller::new("web"),
            actor: Actor::default(),
            request_id: None,
            account: AccountId::new("ann").unwrap(),
            operation,
        }
    }

    /// One request with something in every place.
    fn full() -> NewAccount {
        let value = |value| NewAttribute {
            value,
            source: "crm".into(),
        };
        NewAccount {
            display_name: "Ann".into(),
            locale: "de".into(),
            time_zone: "Europe/Zurich".into(),
            identifiers: vec![NewIdentifier {
                kind: IdentifierKind::External,
                issuer: "https://idp.example".into(),
                value: "7".into(),
                primary: Some(true),
                login_enabled: Some(false),
                verification: Some(NewVerification::Verified {
                    method: "link".into(),
                    time: Some(Millis(5)),
                }),
            }],
            attributes: BTreeMap::from([
                ("a".into(), value(AttributeValue::String("x".into()))),
                ("b".into(), value(AttributeValue::Int64(-1))),
                ("c".into(), value(AttributeValue::Double(1.5))),
                ("d".into(), value(AttributeValue::Bool(true))),
                ("e".into(), value(AttributeValue::Bytes(vec![1, 2]))),
                ("f".into(), value(AttributeValue::Timestamp(3, 4))),
                (
                    "g".into(),
                    value(AttributeValue::Strings(vec!["p".into(), "q".into()])),
                ),
            ]),
            labels: BTreeMap::from([("tier".into(), "gold".into())]),
            restrictions: BTreeSet::from(["fraud".into()]),
        }
    }

    /// The digest outlives a release: after an upgrade a retry must still be recognised.
    #[test]
    fn golden_digest() {
        let digest = digest(&realm([7; 32]), &request(Operation::Create(full())));
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "5110bcfa39fa8b33a100fa1d31c59f6cd80b2cfad819c857f6573de7c8776b65"
        );
    }

    #[test]
    fn digests_tell_requests_apart() {
        let reference = IdentifierRef {
            kind: IdentifierKind::Email,
            issuer: String::new(),
            value: "a@example.com".into(),
        };
        let import = |mode| Operation::Import {
            mode,
            account: full(),
        };
        let update = |update: Update| Operation::Update(update);
        let name = |name: &str| Some(name.to_owned());
        let all = [
            Operation::Create(full()),
            Operation::Create(NewAccount {
                display_name: "An".into(),
                locale: "nde".into(),
                ..full()
            }),
            Operation::Create(NewAccount {
                restrictions: BTreeSet::new(),
                ..full()
            }),
            import(ImportMode::Create),
            import(ImportMode::Upsert),
            import(ImportMode::Skip),
            update(Update::default()),
            update(Update {
                etag: name("1"),
                ..Update::default()
            }),
            update(Update {
                display_name: name("1"),
                ..Update::default()
            }),
            update(Update {
                locale: name("1"),
                ..Update::default()
            }),
            update(Update {
                labels: Some(BTreeMap::new()),
                ..Update::default()
            }),
            update(Update {
                restrictions: Some(BTreeSet::new()),
                ..Update::default()
            }),
            update(Update {
                remove_attributes: BTreeSet::from(["1".into()]),
                ..Update::default()
            }),
            Operation::ChangeIdentifiers(ChangeIdentifiers::default()),
            Operation::ChangeIdentifiers(ChangeIdentifiers {
                etag: None,
                changes: vec![IdentifierChange::Remove(reference.clone())],
            }),
            Operation::ChangeIdentifiers(ChangeIdentifiers {
                etag: None,
                changes: vec![IdentifierChange::Remove(IdentifierRef {
                    kind: IdentifierKind::Username,
                    ..reference
                })],
            }),
            Operation::Delete { etag: None },
            Operation::Delete { etag: name("") },
            Operation::Undelete { etag: None },
            Operation::Purge { deadline: Millis(1) },
        ];
        let digests: BTreeSet<_> = all
            .iter()
            .map(|operation| digest(&realm([7; 32]), &request(operation.clone())))
            .collect();
        assert_eq!(digests.len(), all.len());

        let delete = request(Operation::Delete { etag: None });
        let other_account = Request {
            account: AccountId::new("bob").unwrap(),
            ..delete.clone()
        };
        assert_ne!(
            digest(&realm([7; 32]), &delete),
            digest(&realm([7; 32]), &other_account)
        );
        assert_ne!(
            digest(&realm([7; 32]), &delete),
            digest(&realm([8; 32]), &delete),
            "the digest is keyed"
        );
        let traced = Actor {
            trace_id: "0".repeat(32),
            ..Actor::default()
        };
        let traced = Request {
            actor: traced,
            caller: Caller::new("app"),
            ..delete.clone()
        };
        assert_eq!(digest(&realm([7; 32]), &delete), digest(&realm([7; 32]), &traced));
    }
}
