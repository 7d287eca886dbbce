//! `holdfast cluster replace`

use clap::Args;
use holdfast_client::v1;

use super::membership::{self, Addresses, Guarded};
use crate::args::Global;
use crate::exit::Failure;

/// Put a new node in the place of one that is lost or worn out: it is added as a learner, catches up, and then
/// the votes are swapped in one step. If the time-out passes first, run the same command again.
#[derive(Debug, Args)]
pub(crate) struct Replace {
    /// The member to take out.
    #[arg(value_name = "OLD")]
    old: u64,
    /// The new node's id, which no member has or had.
    #[arg(value_name = "NEW")]
    new: u64,
    #[command(flatten)]
    addresses: Addresses,
    #[command(flatten)]
    guarded: Guarded,
}

/// Runs the command.
pub(super) async fn run(replace: &Replace, global: &Global) -> Result<(), Failure> {
    let request = v1::ReplaceMemberRequest {
        old_node_id: replace.old,
        new_node_id: replace.new,
        addresses: replace.addresses.message(),
        expected_membership_id: replace.guarded.expected_membership_id.clone(),
        validate_only: replace.guarded.validate_only,
        context: replace.guarded.why.context(),
    };
    let response = global
        .client()?
        .replace_member(request, &global.newcomer_call())
        .await?;
    membership::show(global, response.membership, replace.guarded.validate_only)
}
