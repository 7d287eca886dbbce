//! What the change log says about a mutation: facts, not images. Names of fields and kinds of identifiers,
//! never their values.

use holdfast_types::{AccountId, Actor, IdentifierKind, RequestId};

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
