//! `holdfast account create`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use holdfast_client::v1;

use super::show;
use crate::args::{Change, Global, pair};
use crate::exit::Failure;
use crate::json::{AccountJson, AttributeForm, IdentifierJson, RestrictionJson, VerificationJson};

/// Create an account.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The id the account shall have; derived from the request if not given.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The name people see.
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// BCP 47 language tag, as in de-CH.
    #[arg(long, value_name = "TAG")]
    locale: Option<String>,
    /// IANA time zone, as in Europe/Zurich.
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// An email address; the first becomes primary. May be repeated, like all that follow.
    #[arg(long, value_name = "ADDRESS")]
    email: Vec<String>,
    /// A phone number.
    #[arg(long, value_name = "NUMBER")]
    phone: Vec<String>,
    /// A user name.
    #[arg(long, value_name = "NAME")]
    username: Vec<String>,
    /// A subject at an external issuer.
    #[arg(long, value_name = "ISSUER=SUBJECT", value_parser = pair)]
    external: Vec<(String, String)>,
    /// Say that the identifiers are verified, and how, as in import.
    #[arg(long, value_name = "METHOD")]
    verified: Option<String>,
    /// An attribute: the value is JSON if it is valid JSON, otherwise text.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    attribute: Vec<(String, String)>,
    /// A label. No personal data.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// A reason why the account may not be used yet.
    #[arg(long, value_name = "CODE")]
    restriction: Vec<String>,
    /// Take the account from this file (`-`: standard input), one JSON document as in an import; the other
    /// options override it or add to it.
    #[arg(long, value_name = "FILE")]
    from_json: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
}

/// Runs the command.
pub(crate) async fn run(create: &Create, global: &Global) -> Result<(), Failure> {
    let mut json = match &create.from_json {
        None => AccountJson::default(),
        Some(path) => read_json(path)?,
    };
    for (field, value) in [
        (&mut json.account_id, &create.id),
        (&mut json.display_name, &create.display_name),
        (&mut json.locale, &create.locale),
        (&mut json.time_zone, &create.time_zone),
    ] {
        if let Some(value) = value {
            field.clone_from(value);
        }
    }
    json.identifiers.extend(identifiers(create));
    json.attributes.extend(attributes(&create.attribute)?);
    json.labels.extend(create.label.iter().cloned());
    json.restrictions
        .extend(create.restriction.iter().map(|code| RestrictionJson {
            code: code.clone(),
            create_time: None,
        }));
    let request = v1::CreateAccountRequest {
        parent: global.realm_name(),
        account_id: std::mem::take(&mut json.account_id),
        account: Some(json.into_account().map_err(Failure::usage)?),
        request_id: create.change.request_id(),
        context: create.change.why.context(),
    };
    let response = global.client()?.create_account(request, &global.call()).await?;
    show::account(global, response.account, &response.consistency_token)
}

fn identifiers(create: &Create) -> Vec<IdentifierJson> {
    let simple = [
        ("EMAIL", &create.email),
        ("PHONE", &create.phone),
        ("USERNAME", &create.username),
    ];
    let simple = simple.into_iter().flat_map(|(kind, values)| {
        values
            .iter()
            .map(move |value| (kind, String::new(), value.clone()))
    });
    let external = create
        .external
        .iter()
        .map(|(issuer, value)| ("EXTERNAL", issuer.clone(), value.clone()));
    let verification = create.verified.as_ref().map(|method| VerificationJson {
        state: "VERIFIED".to_owned(),
        method: method.clone(),
        verify_time: None,
    });
    simple
        .chain(external)
        .map(|(kind, issuer, value)| IdentifierJson {
            kind: kind.to_owned(),
            issuer,
            value,
            verification: verification.clone(),
            ..IdentifierJson::default()
        })
        .collect()
}

/// Attributes as the command line has them: JSON where it is JSON, otherwise text.
pub(super) fn attributes(pairs: &[(String, String)]) -> Result<BTreeMap<String, AttributeForm>, Failure> {
    let mut attributes = BTreeMap::new();
    for (name, text) in pairs {
        let form = match serde_json::from_str::<serde_json::Value>(text) {
            Ok(value) => AttributeForm::try_from(value)
                .map_err(|why| Failure::usage(format!("attribute {name}: {why}")))?,
            Err(_) => AttributeForm::String(text.clone()),
        };
        attributes.insert(name.clone(), form);
    }
    Ok(attributes)
}

fn read_json(path: &PathBuf) -> Result<AccountJson, Failure> {
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| Failure::io(path.display(), &error))?;
    serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}
