//! `holdfast account delete`

use clap::Args;
use holdfast_client::v1;

use super::show;
use crate::args::{Change, Global};
use crate::exit::Failure;

/// Ask for an account's deletion. Until it is purged, `undelete` brings it back.
#[derive(Debug, Args)]
pub(crate) struct Delete {
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
pub(crate) async fn run(delete: &Delete, global: &Global) -> Result<(), Failure> {
    let request = v1::DeleteAccountRequest {
        name: global.account_name(&delete.account),
        etag: delete.etag.clone(),
        request_id: delete.change.request_id(),
        context: delete.change.why.context(),
    };
    let response = global.client()?.delete_account(request, &global.call()).await?;
    show::account(global, response.account, &response.consistency_token)
}
