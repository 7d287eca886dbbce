//! `holdfast cluster promote`

use clap::Args;
use holdfast_client::v1;

use super::membership::{self, Guarded};
use crate::args::Global;
use crate::exit::Failure;

/// Give a learner its vote, once it has caught up.
#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// The learner's id.
    #[arg(value_name = "NODE")]
    node: u64,
    #[command(flatten)]
    guarded: Guarded,
}

/// Runs the command.
pub(super) async fn run(promote: &Promote, global: &Global) -> Result<(), Failure> {
    let request = v1::PromoteMemberRequest {
        node_id: promote.node,
        expected_membership_id: promote.guarded.expected_membership_id.clone(),
        validate_only: promote.guarded.validate_only,
        context: promote.guarded.why.context(),
    };
    let response = global
        .client()?
        .promote_member(request, &global.long_call())
        .await?;
    membership::show(global, response.membership, promote.guarded.validate_only)
}
