//! The form in which identifiers are compared.
//!
//! Normalisation happens before anything is proposed, and the result is stored with [`NORMALIZER_VERSION`].
//! That keeps look-ups exact, and lets a later release with other rules find and redo old forms instead of
//! locking people out.
//!
//! Email, phone and username share one login namespace, because people type all three into the same box. Their
//! canonical forms cannot meet: an email has an `@`, a phone number is `+` and digits, a username has a letter
//! and no `@`.
//!
//! Error texts say what is wrong and what would be right, and never repeat the value: it is personal data.

mod email;
mod phone;
mod username;

use holdfast_types::{CanonicalIdentifier, IdentifierKind, RealmConfig};

use crate::limits::{IDENTIFIER_BYTES_MAX, ISSUER_BYTES_MAX};

pub use phone::is_region;

/// The version of these rules. Raise it when any accepted input gets another canonical form, updates of the
/// phone and Unicode tables included.
pub const NORMALIZER_VERSION: u32 = 1;

/// Brings an identifier into canonical form under the rules of a realm.
///
/// White space around an email address, a phone number or a username does not count; external identifiers are
/// taken exactly. The canonical text of a result is its own canonical form.
///
/// # Errors
/// A sentence for the caller: what is wrong with the identifier.
pub fn canonicalize(
    kind: IdentifierKind,
    value: &str,
    issuer: &str,
    config: &RealmConfig,
) -> Result<CanonicalIdentifier, String> {
    check_issuer(kind, issuer)?;
    if value.len() > IDENTIFIER_BYTES_MAX {
        return Err(format!("must be at most {IDENTIFIER_BYTES_MAX} bytes"));
    }
    let trimmed = value.trim();
    if trimmed.is_empty() {
        return Err("must not be empty".into());
    }
    let text = match kind {
        IdentifierKind::Email => email::canonicalize(trimmed, config.email_local_part_case_insensitive)?,
        IdentifierKind::Phone => phone::canonicalize(trimmed, &config.default_phone_region)?,
        IdentifierKind::Username => username::canonicalize(trimmed)?,
        IdentifierKind::External => external(value)?,
    };
    Ok(CanonicalIdentifier {
        kind,
        issuer: issuer.to_owned(),
        text,
        normalizer: NORMALIZER_VERSION,
    })
}

/// Whether the issuer goes with the kind: external identifiers have one, all others have none.
///
/// # Errors
/// A sentence for the caller.
pub fn check_issuer(kind: IdentifierKind, issuer: &str) -> Result<(), String> {
    match kind {
        IdentifierKind::External if issuer.is_empty() => {
            Err("an external identifier needs its issuer".into())
        }
        IdentifierKind::External if issuer.len() > ISSUER_BYTES_MAX => {
            Err(format!("must be at most {ISSUER_BYTES_MAX} bytes"))
        }
        IdentifierKind::External if issuer.chars().any(char::is_control) => {
            Err("must not contain control characters".into())
        }
        IdentifierKind::External => Ok(()),
        _ if issuer.is_empty() => Ok(()),
        _ => Err("only an external identifier has an issuer".into()),
    }
}

/// The subject at an issuer: exact, as OpenID Connect and SAML compare it.
fn external(value: &str) -> Result<String, String> {
    if value.chars().any(char::is_control) {
        return Err("must not contain control characters".into());
    }
    Ok(value.to_owned())
}
