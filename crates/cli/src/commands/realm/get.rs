//! `holdfast realm get`

use clap::Args;
use holdfast_client::v1;

use super::show;
use crate::args::{Freshness, Global};
use crate::exit::Failure;

/// Show the rules.
#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    freshness: Freshness,
}

/// Runs the command.
pub(super) async fn run(get: &Get, global: &Global) -> Result<(), Failure> {
    let request = v1::GetRealmRequest {
        name: global.realm_name(),
        consistency: get.freshness.consistency()?,
    };
    let response = global.client()?.get_realm(request, &global.call()).await?;
    show::realm(global, response.realm, &response.consistency_token, false)
}
