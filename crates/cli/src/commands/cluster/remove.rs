//! `holdfast cluster remove`

use clap::Args;
use holdfast_client::v1;

use super::membership::{self, Guarded};
use crate::args::Global;
use crate::exit::Failure;

/// Take a member out, for ever: its node id is not used again.
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The member's id.
    #[arg(value_name = "NODE")]
    node: u64,
    #[command(flatten)]
    guarded: Guarded,
}

/// Runs the command.
pub(super) async fn run(remove: &Remove, global: &Global) -> Result<(), Failure> {
    let request = v1::RemoveMemberRequest {
        node_id: remove.node,
        expected_membership_id: remove.guarded.expected_membership_id.clone(),
        validate_only: remove.guarded.validate_only,
        context: remove.guarded.why.context(),
    };
    let response = global
        .client()?
        .remove_member(request, &global.long_call())
        .await?;
    membership::show(global, response.membership, remove.guarded.validate_only)
}
