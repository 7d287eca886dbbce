//! User names: PRECIS UsernameCaseMapped (RFC 8265, 3.3) in a single script.
//!
//! PRECIS folds width and case, composes, checks bidirectional text and refuses spaces, symbols and invisible
//! characters. The single script (UTS #39) stops the look-alikes that matter most: a Cyrillic `а` among Latin
//! letters. A name needs a letter and may have no `@`, so that it can never be taken for a phone number or an
//! email address.

use precis_profiles::UsernameCaseMapped;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use unicode_security::MixedScript;

const CHARS_MAX: usize = 64;

pub(super) fn canonicalize(value: &str) -> Result<String, String> {
    let name = if is_plain(value) {
        value.to_ascii_lowercase()
    } else {
        enforce_to_rest(value)?
    };
    let length = name.chars().count();
    if length == 0 || length > CHARS_MAX {
        return Err(format!("a username has 1 to {CHARS_MAX} characters"));
    }
    if name.contains('@') {
        return Err("a username must not contain @: it could be taken for an email address".into());
    }
    if name.starts_with('+') || !name.chars().any(char::is_alphabetic) {
        return Err(
            "a username needs a letter and must not start with +: it could be taken for a phone number"
                .into(),
        );
    }
    if !name.is_ascii() && !name.is_single_script() {
        return Err("a username must not mix scripts, such as Latin and Cyrillic letters".into());
    }
    Ok(name)
}

/// Printable ASCII without the space: the profile has nothing to do but to fold its case.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The profile is not idempotent for every input (RFC 8264, 7); an identifier's form has to be.
fn enforce_to_rest(value: &str) -> Result<String, String> {
    let once = enforce(value)?;
    let name = enforce(&once)?;
    if enforce(&name)? != name {
        return Err(NOT_ALLOWED.into());
    }
    Ok(name)
}

const NOT_ALLOWED: &str =
    "a username has letters, digits and ASCII punctuation; no spaces, symbols or invisible characters";

fn enforce(value: &str) -> Result<String, String> {
    UsernameCaseMapped::enforce(value.to_owned())
        .map(|name| name.into_owned())
        .map_err(|_| NOT_ALLOWED.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_short_way_leads_where_the_profile_leads(value in "[!-~]{1,70}") {
            prop_assert!(is_plain(&value));
            prop_assert_eq!(enforce_to_rest(&value), Ok(value.to_ascii_lowercase()));
        }
    }
}
