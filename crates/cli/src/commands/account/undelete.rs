//! `holdfast account undelete`

use clap::Args;
use holdfast_client::v1;

use super::show;
use crate::args::{Change, Global};
use crate::exit::Failure;

/// Take a deletion back, while the account is not purged.
#[derive(Debug, Args)]
pub(crate) struct Undelete {
    /// The account's id.
    #[arg(value_name = "ACCOUNT")]
    account: String,
    /// Only if this is the account's etag.
    #[arg(long, value_name = "ETAG", default_value = "")]
    etag: String,
    #[command(flatten)]
    change: Change,
}

/// Runs the command.
pub(crate) async fn run(undelete: &Undelete, global: &Global) -> Result<(), Failure> {
    let request = v1::UndeleteAccountRequest {
        name: global.account_name(&undelete.account),
        etag: undelete.etag.clone(),
        request_id: undelete.change.request_id(),
        context: undelete.change.why.context(),
    };
    let response = global.client()?.undelete_account(request, &global.call()).await?;
    show::account(global, response.account, &response.consistency_token)
}
