//! `holdfast cluster transfer`

use clap::Args;
use holdfast_client::v1;
use serde_json::json;

use crate::args::{Global, Why};
use crate::exit::Failure;
use crate::output;

/// Hand leadership over.
#[derive(Debug, Args)]
pub(crate) struct Transfer {
    /// The voter that shall lead; if not given, the one furthest ahead of those that answer and are not drained.
    #[arg(value_name = "NODE")]
    node: Option<u64>,
    #[command(flatten)]
    why: Why,
}

/// Runs the command.
pub(super) async fn run(transfer: &Transfer, global: &Global) -> Result<(), Failure> {
    let request = v1::TransferLeadershipRequest {
        node_id: transfer.node.unwrap_or_default(),
        context: transfer.why.context(),
    };
    let response = global
        .client()?
        .transfer_leadership(request, &global.call())
        .await?;
    let document = json!({ "leader_node_id": response.leader_node_id, "term": response.term });
    output::result(global.output, &document, || {
        format!(
            "node {} leads, in term {}",
            response.leader_node_id, response.term
        )
    })
}
