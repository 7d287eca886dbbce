//! How an account is shown.

use holdfast_client::v1;
use serde_json::json;

use crate::args::{Global, token_text};
use crate::exit::{Exit, Failure};
use crate::json::{AccountJson, AttributeForm};
use crate::output;

/// Prints the account of an answer, with the answer's token where programs read.
pub(crate) fn account(global: &Global, account: Option<v1::Account>, token: &[u8]) -> Result<(), Failure> {
    let account = account.ok_or_else(|| Failure::new(Exit::Internal, "the answer holds no account"))?;
    let account = AccountJson::from(account);
    let document = json!({ "account": account, "consistency_token": token_text(token) });
    output::result(global.output, &document, || text(&account))
}

fn text(account: &AccountJson) -> String {
    let time = |time: &Option<String>| time.clone().unwrap_or_default();
    output::fields(&[
        ("account_id", account.account_id.clone()),
        ("state", account.state.clone()),
        ("etag", account.etag.clone()),
        ("display_name", account.display_name.clone()),
        ("locale", account.locale.clone()),
        ("time_zone", account.time_zone.clone()),
        ("identifiers", identifiers(account)),
        ("attributes", attributes(account)),
        (
            "labels",
            account
                .labels
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect::<Vec<_>>()
                .join("\n"),
        ),
        (
            "restrictions",
            account
                .restrictions
                .iter()
                .map(|r| r.code.clone())
                .collect::<Vec<_>>()
                .join("\n"),
        ),
        ("created", time(&account.create_time)),
        ("updated", time(&account.update_time)),
        ("deletion", time(&account.delete_time)),
        ("purge", time(&account.purge_time)),
    ])
}

fn identifiers(account: &AccountJson) -> String {
    let lines = account.identifiers.iter().map(|identifier| {
        let mut line = format!("{} {}", identifier.kind, identifier.value);
        let mut notes = Vec::new();
        if !identifier.issuer.is_empty() {
            notes.push(format!("at {}", identifier.issuer));
        }
        if identifier.canonical_value != identifier.value && !identifier.canonical_value.is_empty() {
            notes.push(format!("as {}", identifier.canonical_value));
        }
        if identifier.primary == Some(true) {
            notes.push("primary".to_owned());
        }
        if identifier.login_enabled == Some(false) {
            notes.push("no login".to_owned());
        }
        if let Some(verification) = &identifier.verification
            && verification.state == "VERIFIED"
        {
            notes.push(format!("verified by {}", verification.method));
        }
        if !notes.is_empty() {
            line.push_str(&format!("  ({})", notes.join(", ")));
        }
        line
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn attributes(account: &AccountJson) -> String {
    let lines = account.attributes.iter().map(|(name, form)| {
        let value = match form {
            AttributeForm::Typed(typed) => typed.value_text(),
            bare => serde_json::to_string(bare).unwrap_or_default(),
        };
        format!("{name} = {value}")
    });
    lines.collect::<Vec<_>>().join("\n")
}
