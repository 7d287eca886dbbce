//! `holdfast account lookup`

use clap::Args;
use holdfast_client::v1;

use super::show;
use crate::args::{Freshness, Global};
use crate::exit::Failure;
use crate::json::kind;

/// Show the account that an identifier belongs to.
#[derive(Debug, Args)]
pub(crate) struct Lookup {
    /// email, phone, username or external.
    #[arg(value_name = "KIND", value_parser = kind)]
    kind: v1::IdentifierKind,
    /// The identifier, in any spelling.
    #[arg(value_name = "VALUE")]
    value: String,
    /// The issuer of an external one.
    #[arg(long, value_name = "ISSUER", default_value = "")]
    issuer: String,
    #[command(flatten)]
    freshness: Freshness,
}

/// Runs the command.
pub(crate) async fn run(lookup: &Lookup, global: &Global) -> Result<(), Failure> {
    let identifier = v1::IdentifierReference {
        kind: lookup.kind.into(),
        issuer: lookup.issuer.clone(),
        value: lookup.value.clone(),
    };
    let request = v1::LookupAccountRequest {
        parent: global.realm_name(),
        identifier: Some(identifier),
        consistency: lookup.freshness.consistency()?,
    };
    let response = global.client()?.lookup_account(request, &global.call()).await?;
    show::account(global, response.account, &response.consistency_token)
}
