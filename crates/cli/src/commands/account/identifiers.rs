//! `holdfast account identifiers`

use clap::Args;
use holdfast_client::v1;
use v1::identifier_change::Change as OneChange;

use super::show;
use crate::args::{Change, Global};
use crate::exit::Failure;
use crate::json::kind;

/// Change the identifiers of an account, all at once or not at all. Identifiers are written KIND=VALUE, as in
/// email=ada@example.com, or external:ISSUER=SUBJECT.
#[derive(Debug, Args)]
pub(crate) struct Identifiers {
    /// The account's id.
    #[arg(value_name = "ACCOUNT")]
    account: String,
    /// Add an identifier.
    #[arg(long, value_name = "KIND=VALUE", value_parser = reference)]
    add: Vec<v1::IdentifierReference>,
    /// Remove an identifier; nobody else can have it until its quarantine ends.
    #[arg(long, value_name = "KIND=VALUE", value_parser = reference)]
    remove: Vec<v1::IdentifierReference>,
    /// Put another value in an identifier's place.
    #[arg(long, num_args = 2, value_names = ["KIND=OLD", "NEW"])]
    replace: Vec<String>,
    /// Make an identifier the primary one of its kind.
    #[arg(long, value_name = "KIND=VALUE", value_parser = reference)]
    primary: Vec<v1::IdentifierReference>,
    /// Say that control of an identifier was proved.
    #[arg(long, value_name = "KIND=VALUE", value_parser = reference)]
    verify: Vec<v1::IdentifierReference>,
    /// How it was proved, for --verify.
    #[arg(long, value_name = "METHOD", default_value = "operator")]
    method: String,
    /// Only if this is the account's etag.
    #[arg(long, value_name = "ETAG", default_value = "")]
    etag: String,
    #[command(flatten)]
    change: Change,
}

/// Runs the command.
pub(crate) async fn run(identifiers: &Identifiers, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let known = if identifiers.primary.is_empty() && identifiers.verify.is_empty() {
        Vec::new()
    } else {
        let request = v1::GetAccountRequest {
            name: global.account_name(&identifiers.account),
            consistency: None,
        };
        let found = client.get_account(request, &global.call()).await?;
        found.account.unwrap_or_default().identifiers
    };
    let changes = changes(identifiers, &known)?;
    if changes.is_empty() {
        return Err(Failure::usage(
            "nothing to change; see `holdfast account identifiers --help`",
        ));
    }
    let request = v1::ChangeIdentifiersRequest {
        name: global.account_name(&identifiers.account),
        changes: changes
            .into_iter()
            .map(|change| v1::IdentifierChange { change: Some(change) })
            .collect(),
        etag: identifiers.etag.clone(),
        request_id: identifiers.change.request_id(),
        context: identifiers.change.why.context(),
    };
    let response = client.change_identifiers(request, &global.call()).await?;
    show::account(global, response.account, &response.consistency_token)
}

/// The changes to ask for. `known` are the account's identifiers where a change must keep their spelling.
fn changes(identifiers: &Identifiers, known: &[v1::Identifier]) -> Result<Vec<OneChange>, Failure> {
    let mut changes = Vec::new();
    changes.extend(identifiers.add.iter().map(|new| OneChange::Add(identifier(new))));
    changes.extend(identifiers.remove.iter().cloned().map(OneChange::Remove));
    for pair in identifiers.replace.chunks(2) {
        let [old, new] = pair else { continue };
        let old = reference(old).map_err(Failure::usage)?;
        let new = v1::Identifier {
            value: new.clone(),
            ..identifier(&old)
        };
        changes.push(replacement(old, new));
    }
    for same in &identifiers.primary {
        changes.push(replacement(
            same.clone(),
            v1::Identifier {
                primary: Some(true),
                ..identifier(&spelled_as_stored(same, known))
            },
        ));
    }
    for same in &identifiers.verify {
        let verification = v1::Verification {
            state: v1::VerificationState::Verified.into(),
            method: identifiers.method.clone(),
            verify_time: None,
        };
        let new = v1::Identifier {
            verification: Some(verification),
            ..identifier(&spelled_as_stored(same, known))
        };
        changes.push(replacement(same.clone(), new));
    }
    Ok(changes)
}

/// The same identifier in the spelling its owner chose, so that marking it does not rewrite it. What cannot be
/// recognised here stays as it was typed, and the server says what it makes of it.
fn spelled_as_stored(typed: &v1::IdentifierReference, known: &[v1::Identifier]) -> v1::IdentifierReference {
    let plain = |text: &str| -> String {
        let separators = |c: &char| !matches!(c, ' ' | '-' | '.' | '(' | ')');
        match typed.kind() {
            v1::IdentifierKind::External => text.to_owned(),
            v1::IdentifierKind::Phone => text.chars().filter(separators).collect(),
            _ => text.to_lowercase(),
        }
    };
    let wanted = plain(&typed.value);
    let stored = known.iter().find(|known| {
        known.kind == typed.kind
            && known.issuer == typed.issuer
            && [&known.value, &known.canonical_value]
                .iter()
                .any(|text| plain(text) == wanted)
    });
    v1::IdentifierReference {
        value: stored.map_or(&typed.value, |known| &known.value).clone(),
        ..typed.clone()
    }
}

fn replacement(old: v1::IdentifierReference, new: v1::Identifier) -> OneChange {
    OneChange::Replace(v1::IdentifierReplacement {
        old_identifier: Some(old),
        new_identifier: Some(new),
    })
}

fn identifier(reference: &v1::IdentifierReference) -> v1::Identifier {
    v1::Identifier {
        kind: reference.kind,
        issuer: reference.issuer.clone(),
        value: reference.value.clone(),
        ..v1::Identifier::default()
    }
}

/// `email=ada@example.com`, `external:https://id.example=42`
fn reference(text: &str) -> Result<v1::IdentifierReference, String> {
    let wrong = || format!("`{text}` is not KIND=VALUE, as in email=ada@example.com");
    let (head, value) = text.split_once('=').ok_or_else(wrong)?;
    let (kind_text, issuer) = head.split_once(':').unwrap_or((head, ""));
    let kind = kind(kind_text)?;
    if value.is_empty() || (kind == v1::IdentifierKind::External) == issuer.is_empty() {
        return Err(format!("{}; an external one is external:ISSUER=SUBJECT", wrong()));
    }
    Ok(v1::IdentifierReference {
        kind: kind.into(),
        issuer: issuer.to_owned(),
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_written_kind_and_value() {
        let email = reference("email=ada@example.com").unwrap();
        assert_eq!(
            (email.kind(), email.value.as_str()),
            (v1::IdentifierKind::Email, "ada@example.com")
        );
        let external = reference("external:https://id.example=a=b").unwrap();
        assert_eq!(
            (external.issuer.as_str(), external.value.as_str()),
            ("https://id.example", "a=b")
        );
        for bad in ["email", "email=", "fax=1", "external=1", "email:x=1"] {
            assert!(reference(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn marking_an_identifier_keeps_its_spelling() {
        let known = |kind: v1::IdentifierKind, value: &str, canonical: &str| v1::Identifier {
            kind: kind.into(),
            value: value.into(),
            canonical_value: canonical.into(),
            ..v1::Identifier::default()
        };
        let known = [
            known(v1::IdentifierKind::Email, "Ada@Example.org", "ada@example.org"),
            known(v1::IdentifierKind::Phone, "+1 202 555 0143", "+12025550143"),
        ];
        for (typed, stored) in [
            ("email=ADA@EXAMPLE.ORG", "Ada@Example.org"),
            ("phone=+12025550143", "+1 202 555 0143"),
            ("phone=+1 (202) 555-0143", "+1 202 555 0143"),
            ("username=ada", "ada"),
        ] {
            assert_eq!(
                spelled_as_stored(&reference(typed).unwrap(), &known).value,
                stored,
                "{typed}"
            );
        }
    }
}
