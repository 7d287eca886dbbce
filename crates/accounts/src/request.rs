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
    /// Whether it shall be the primary one of its kind. None: that stays or is chosen; false: only if it is
    /// the only one of its kind.
    pub primary: Option<bool>,
    /// Whether it may be used to log in. None: as before when it replaces itself, else yes.
    pub login_enabled: Option<bool>,
    /// Whether its owner proved control. None: as before when it replaces itself, else unverified.
    pub verification: Option<NewVerification>,
}

/// What the caller states about control over an identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewVerification {
    /// There is no proof.
    Unverified,
    /// There is proof.
    Verified {
        /// How: `[a-z][a-z0-9_]{0,62}`.
        method: String,
        /// When; none: now.
        time: Option<Millis>,
    },
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

/// A change of identifiers: all of it at once, or nothing. No identifier may occur twice in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeIdentifiers {
    /// If given, the revision that the caller has seen.
    pub etag: Option<String>,
    /// What to change, 1 to 64. A refusal's index is a place in this list.
    pub changes: Vec<IdentifierChange>,
}

/// One change of an account's identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentifierChange {
    /// Adds an identifier.
    Add(NewIdentifier),
    /// Gives one up. If it was primary, the oldest that is left of its kind becomes primary.
    Remove(IdentifierRef),
    /// Puts one in another's place, of the same kind; it is primary if the other was, unless it says otherwise.
    /// Both may be the same identifier: that changes its spelling, flags or verification.
    Replace {
        /// The one that the account has.
        old: IdentifierRef,
        /// What comes in its place.
        new: NewIdentifier,
    },
}
