//! What can be asked for. Values are as the caller typed them: evaluation checks and normalises them, so that
//! a request means the same on every retry, whatever the rules of the realm have become meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_types::{
    AccountId, Actor, AttributeValue, Caller, IdentifierKind, Millis, RealmNumber, RequestId,
};

/// One mutation of one account.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The realm; the same as the context's.
    pub realm: RealmNumber,
    /// Who sent it. Request ids are scoped by it.
    pub caller: Caller,
    /// On whose behalf and why.
    pub actor: Actor,
    /// The caller's idempotency key. None only for what Holdfast does by itself.
    pub request_id: Option<RequestId>,
    /// The account: named by the caller, or derived from the request ([`AccountId::derive`]).
    pub account: AccountId,
    /// What to do with it.
    pub operation: Operation,
}

/// The mutations.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Brings an account into being. Refused if the id is in use or ever was.
    Create(NewAccount),
    /// One item of an import.
    Import {
        /// What to do if the account exists.
        mode: ImportMode,
        /// The account as it shall be.
        account: NewAccount,
    },
    /// Changes fields other than identifiers.
    Update(Update),
    /// Adds, removes and replaces identifiers, all or none.
    ChangeIdentifiers(ChangeIdentifiers),
    /// Starts the grace period after which the account is purged.
    Delete {
        /// If given, the revision that the caller has seen.
        etag: Option<String>,
    },
    /// Takes a deletion back, until its purge is due.
    Undelete {
        /// If given, the revision that the caller has seen.
        etag: Option<String>,
    },
    /// Removes personal data for good and leaves a tombstone. Internal: sent when a deadline falls due, and
    /// without a request id, since the deadline's own row says whether it still has to happen.
    Purge {
        /// The deadline that fell due.
        deadline: Millis,
    },
}

/// What an import does with an account that exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImportMode {
    /// It is refused, as by [`Operation::Create`].
    Create,
    /// Fixed fields, attributes, labels, restrictions and identifiers become those of the item; what the item
    /// does not mention goes. Creation times of identifiers and restrictions that stay are kept, and so is the
    /// verification of an identifier for which the item gives none.
    Upsert,
    /// It is left as it is; the outcome is `Done` with the revision it has. A tombstone is refused.
    Skip,
}

/// An account to be.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewAccount {
    /// The name people see.
    pub display_name: String,
    /// BCP 47 language tag, or empty.
    pub locale: String,
    /// IANA time zone name, or empty.
    pub time_zone: String,
    /// Its identifiers. Of each kind the one marked primary is that, or else the first.
    pub identifiers: Vec<NewIdentifier>,
    /// Attributes by name.
    pub attributes: BTreeMap<String, NewAttribute>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Codes of restrictions that stand from the start.
    pub restrictions: BTreeSet<String>,
}

/// An attribute to be set; its time is that of the request.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAttribute {
    /// The value.
    pub value: AttributeValue,
    /// The system that supplied it, or empty.
    pub source: String,
}

/// Names an identifier that an account has, by any spelling with the same canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentifierRef {
    /// Kind.
    pub kind: IdentifierKind,
    /// Issuer, for external ones; otherwise empty.
    pub issuer: String,
    /// The value.
    pub value: String,
}

/// An identifier to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewIdentifier {
    /// Kind.
    pub kind: IdentifierKind,
    /// Issuer, for external ones; otherwise empty.
    pub issuer: String,
    /// The value as its owner typed it.
    pub value: String,
    /// Make it the primary one of its kind. False leaves that to the others; if there are none it is primary
    /// all the same.
    pub primary: bool,
    /// Whether it may be used to log in. None: as before when it replaces itself, else yes.
    pub login_enabled: Option<bool>,
    /// Proof of control. None: as before when it replaces itself, else unverified.
    pub verification: Option<NewVerification>,
}

/// Proof of control over an identifier, as the caller states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVerification {
    /// How: `[a-z][a-z0-9_]{0,62}`.
    pub method: String,
    /// When; none: now.
    pub time: Option<Millis>,
}

/// A change of fields other than identifiers. What is `None` or not named stays.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Update {
    /// If given, the revision that the caller has seen.
    pub etag: Option<String>,
    /// New display name.
    pub display_name: Option<String>,
    /// New language tag.
    pub locale: Option<String>,
    /// New time zone.
    pub time_zone: Option<String>,
    /// All labels from now on.
    pub labels: Option<BTreeMap<String, String>>,
    /// Codes of all restrictions from now on; those that stay keep their time.
    pub restrictions: Option<BTreeSet<String>>,
    /// Attributes to set.
    pub set_attributes: BTreeMap<String, NewAttribute>,
    /// Attributes to remove; one that is not there is no mistake.
    pub remove_attributes: BTreeSet<String>,
}

/// A change of identifiers: all of it or nothing.
///
/// No identifier may occur twice in it. Places in refusals count `add` first and then `replace` (for
/// identifiers that are not available), or `remove` first and then `replace` (for those not found).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeIdentifiers {
    /// If given, the revision that the caller has seen.
    pub etag: Option<String>,
    /// Identifiers to add.
    pub add: Vec<NewIdentifier>,
    /// Identifiers to give up. If the primary one goes, the oldest that remains of its kind becomes primary.
    pub remove: Vec<IdentifierRef>,
    /// Identifiers to replace.
    pub replace: Vec<Replacement>,
}

/// One identifier in place of another of the same kind. The two may be the same identifier: that changes its
/// spelling, flags or verification. The new one is primary if the old one was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The one that the account has.
    pub old: IdentifierRef,
    /// What comes in its place.
    pub new: NewIdentifier,
}
