//! What the change log says about a mutation: facts, not images. Names of fields and kinds of identifiers,
//! never their values.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_types::{Account, AccountId, Actor, Identifier, IdentifierKind, RequestId};

/// One change of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeEvent {
    /// What happened.
    pub kind: ChangeKind,
    /// To which account.
    pub account: AccountId,
    /// The account's revision after it.
    pub revision: u64,
    /// The fields that now differ, sorted: `display_name`, `labels`, `attributes.{name}`, `identifiers` …
    pub fields: Vec<String>,
    /// The kinds of the identifiers that were added, removed or altered, sorted, each once.
    pub identifier_kinds: Vec<IdentifierKind>,
    /// On whose behalf, why, and in which trace.
    pub actor: Actor,
    /// The request behind it; none for what Holdfast does by itself.
    pub request_id: Option<RequestId>,
}

/// What happened to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// It came to be.
    Created,
    /// Fields other than identifiers changed, or (an import's upsert) the whole record was replaced.
    Updated,
    /// Its identifiers changed.
    IdentifiersChanged,
    /// Its deletion was asked for.
    DeletionRequested,
    /// The deletion was taken back.
    Undeleted,
    /// Its personal data is gone; a tombstone remains.
    Purged,
}

/// The fields in which two states of an account differ, by the names that [`ChangeEvent::fields`] uses.
pub(crate) fn changed_fields(before: Option<&Account>, after: &Account) -> Vec<String> {
    let nothing = nothing_yet(after);
    let before = before.unwrap_or(&nothing);
    let fixed = [
        ("deletion", before.deletion != after.deletion),
        ("display_name", before.display_name != after.display_name),
        ("identifiers", before.identifiers != after.identifiers),
        ("labels", before.labels != after.labels),
        ("locale", before.locale != after.locale),
        ("restrictions", before.restrictions != after.restrictions),
        ("time_zone", before.time_zone != after.time_zone),
    ];
    let fixed = fixed
        .into_iter()
        .filter(|(_, changed)| *changed)
        .map(|(name, _)| name.to_owned());
    let names: BTreeSet<&String> = before.attributes.keys().chain(after.attributes.keys()).collect();
    let attributes = names
        .into_iter()
        .filter(|name| before.attributes.get(*name) != after.attributes.get(*name))
        .map(|name| format!("attributes.{name}"));
    let mut fields: Vec<String> = fixed.chain(attributes).collect();
    fields.sort();
    fields
}

/// The kinds of the identifiers in which two states of an account differ.
pub(crate) fn changed_kinds(before: Option<&Account>, after: &Account) -> Vec<IdentifierKind> {
    let before = before.map_or(&[][..], |before| &before.identifiers);
    let only = |here: &[Identifier], there: &[Identifier]| -> BTreeSet<IdentifierKind> {
        let differing = here.iter().filter(|identifier| !there.contains(identifier));
        differing.map(|identifier| identifier.canonical.kind).collect()
    };
    let kinds = &only(before, &after.identifiers) | &only(&after.identifiers, before);
    kinds.into_iter().collect()
}

/// The account before it came to be.
fn nothing_yet(account: &Account) -> Account {
    Account {
        id: account.id.clone(),
        revision: 0,
        display_name: String::new(),
        locale: String::new(),
        time_zone: String::new(),
        identifiers: Vec::new(),
        attributes: BTreeMap::new(),
        labels: BTreeMap::new(),
        restrictions: Vec::new(),
        deletion: None,
        create_time: account.create_time,
        update_time: account.update_time,
    }
}
