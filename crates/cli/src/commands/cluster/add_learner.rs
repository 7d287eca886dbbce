//! `holdfast cluster add-learner`

use clap::Args;
use holdfast_client::v1;

use super::membership::{self, Addresses, Guarded};
use crate::args::Global;
use crate::exit::Failure;

/// Add a node that receives the log but does not vote. It must be running, with this cluster's id and an empty
/// data directory.
#[derive(Debug, Args)]
pub(crate) struct AddLearner {
    /// The new node's id, which no member has or had.
    #[arg(value_name = "NODE")]
    node: u64,
    #[command(flatten)]
    addresses: Addresses,
    #[command(flatten)]
    guarded: Guarded,
}

/// Runs the command.
pub(super) async fn run(add: &AddLearner, global: &Global) -> Result<(), Failure> {
    let request = v1::AddLearnerRequest {
        node_id: add.node,
        addresses: add.addresses.message(),
        expected_membership_id: add.guarded.expected_membership_id.clone(),
        validate_only: add.guarded.validate_only,
        context: add.guarded.why.context(),
    };
    let response = global
        .client()?
        .add_learner(request, &global.newcomer_call())
        .await?;
    membership::show(global, response.membership, add.guarded.validate_only)
}
