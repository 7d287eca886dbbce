//! `holdfast account get`

use clap::Args;
use holdfast_client::v1;

use super::show;
use crate::args::{Freshness, Global};
use crate::exit::Failure;

/// Show an account.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The account's id.
    #[arg(value_name = "ACCOUNT")]
    account: String,
    #[command(flatten)]
    freshness: Freshness,
}

/// Runs the command.
pub(crate) async fn run(get: &Get, global: &Global) -> Result<(), Failure> {
    let request = v1::GetAccountRequest {
        name: global.account_name(&get.account),
        consistency: get.freshness.consistency()?,
    };
    let response = global.client()?.get_account(request, &global.call()).await?;
    show::account(global, response.account, &response.consistency_token)
}
