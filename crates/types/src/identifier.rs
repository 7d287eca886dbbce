//! What names an account: email, phone, username, or a subject at an external issuer.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// The kinds of identifier. Discriminants are stored and must never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum IdentifierKind {
    /// An email address.
    Email = 1,
    /// A phone number.
    Phone = 2,
    /// A user name.
    Username = 3,
    /// A subject at an external issuer (OpenID Connect, SAML).
    External = 4,
}

impl IdentifierKind {
    /// The name used in the API and in messages.
    pub fn name(self) -> &'static str {
        match self {
            IdentifierKind::Email => "EMAIL",
            IdentifierKind::Phone => "PHONE",
            IdentifierKind::Username => "USERNAME",
            IdentifierKind::External => "EXTERNAL",
        }
    }

    /// The kind with this stored discriminant.
    pub fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(IdentifierKind::Email),
            2 => Some(IdentifierKind::Phone),
            3 => Some(IdentifierKind::Username),
            4 => Some(IdentifierKind::External),
            _ => None,
        }
    }

    /// The namespace in which identifiers of this kind are unique.
    pub fn namespace(self) -> LoginNamespace {
        match self {
            IdentifierKind::External => LoginNamespace::External,
            _ => LoginNamespace::Login,
        }
    }
}

/// A set of identifiers within which a canonical form names at most one account of the realm.
///
/// Email, phone and username share one, because people type all three into the same box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum LoginNamespace {
    /// What people type into the login box.
    Login = 1,
    /// (issuer, subject) pairs.
    External = 2,
}

/// The form in which identifiers are compared, with the version of the rules that made it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CanonicalIdentifier {
    /// Kind.
    pub kind: IdentifierKind,
    /// For external ones the issuer, exact; otherwise empty.
    pub issuer: String,
    /// The canonical text.
    pub text: String,
    /// Version of the normaliser, so that a later release can find and redo old forms.
    pub normalizer: u32,
}

impl CanonicalIdentifier {
    /// The bytes that a claim's HMAC covers: namespace, issuer and text; not the kind (one namespace for all
    /// login kinds) and not the normaliser's version (the same text must collide across versions).
    pub fn claim_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.issuer.len() + self.text.len() + 3);
        bytes.push(self.kind.namespace() as u8);
        bytes.extend_from_slice(&(self.issuer.len() as u16).to_be_bytes());
        bytes.extend_from_slice(self.issuer.as_bytes());
        bytes.extend_from_slice(self.text.as_bytes());
        bytes
    }
}

/// One identifier of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identifier {
    /// The value as its owner typed it. Personal data.
    pub value: String,
    /// Its canonical form (and kind, issuer, normaliser version).
    pub canonical: CanonicalIdentifier,
    /// The one of its kind to use by default; exactly one per kind that has any.
    pub primary: bool,
    /// Whether it may be used to log in.
    pub login_enabled: bool,
    /// Whether and how its owner proved control of it.
    pub verification: Option<Verification>,
    /// When it was added to the account.
    pub create_time: Millis,
}

/// Proof that the owner controls an identifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// How (`email_link`, `sms_code`, `import`), `[a-z][a-z0-9_]{0,62}`.
    pub method: String,
    /// When.
    pub time: Millis,
}
