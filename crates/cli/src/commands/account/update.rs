//! `holdfast account update`

use clap::Args;
use holdfast_client::v1;

use super::create::attributes;
use super::show;
use crate::args::{Change, Global, pair};
use crate::exit::Failure;

/// Change fields and attributes of an account.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// The account's id.
    #[arg(value_name = "ACCOUNT")]
    account: String,
    /// The name people see; empty clears it.
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// BCP 47 language tag; empty clears it.
    #[arg(long, value_name = "TAG")]
    locale: Option<String>,
    /// IANA time zone; empty clears it.
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// All labels the account shall have. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Remove all labels.
    #[arg(long, conflicts_with = "label")]
    clear_labels: bool,
    /// All reasons why the account may not be used. May be repeated.
    #[arg(long, value_name = "CODE")]
    restriction: Vec<String>,
    /// Remove all restrictions: the account may be used again.
    #[arg(long, conflicts_with = "restriction")]
    clear_restrictions: bool,
    /// Add or replace an attribute: the value is JSON if it is valid JSON, otherwise text. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// Remove an attribute. May be repeated.
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
    /// Only if this is the account's etag.
    #[arg(long, value_name = "ETAG", default_value = "")]
    etag: String,
    #[command(flatten)]
    change: Change,
}

/// Runs the command.
pub(crate) async fn run(update: &Update, global: &Global) -> Result<(), Failure> {
    let request = request(update, global)?;
    let response = global.client()?.update_account(request, &global.call()).await?;
    show::account(global, response.account, &response.consistency_token)
}

fn request(update: &Update, global: &Global) -> Result<v1::UpdateAccountRequest, Failure> {
    let mut paths = Vec::new();
    let mut account = v1::Account {
        name: global.account_name(&update.account),
        ..v1::Account::default()
    };
    for (path, field, value) in [
        ("display_name", &mut account.display_name, &update.display_name),
        ("locale", &mut account.locale, &update.locale),
        ("time_zone", &mut account.time_zone, &update.time_zone),
    ] {
        if let Some(value) = value {
            paths.push(path.to_owned());
            field.clone_from(value);
        }
    }
    if !update.label.is_empty() || update.clear_labels {
        paths.push("labels".to_owned());
        account.labels = update.label.iter().cloned().collect();
    }
    if !update.restriction.is_empty() || update.clear_restrictions {
        paths.push("restrictions".to_owned());
        account.restrictions = update
            .restriction
            .iter()
            .map(|code| v1::Restriction {
                code: code.clone(),
                create_time: None,
            })
            .collect();
    }
    let mut set_attributes = std::collections::BTreeMap::new();
    for (name, form) in attributes(&update.set)? {
        let attribute = form
            .into_proto()
            .map_err(|why| Failure::usage(format!("attribute {name}: {why}")))?;
        set_attributes.insert(name, attribute);
    }
    if paths.is_empty() && set_attributes.is_empty() && update.unset.is_empty() {
        return Err(Failure::usage(
            "nothing to change; see `holdfast account update --help`",
        ));
    }
    Ok(v1::UpdateAccountRequest {
        account: Some(account),
        update_mask: Some(prost_types::FieldMask { paths }),
        set_attributes,
        remove_attributes: update.unset.clone(),
        etag: update.etag.clone(),
        request_id: update.change.request_id(),
        context: update.change.why.context(),
    })
}
