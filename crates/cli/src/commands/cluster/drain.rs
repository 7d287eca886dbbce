//! `holdfast cluster drain`

use clap::Args;
use holdfast_client::v1;
use serde_json::json;

use super::nodes;
use crate::args::{Global, Why};
use crate::exit::Failure;
use crate::output;

/// Make a node hand over what it leads and turn clients away, so that it can be stopped without anybody noticing.
#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// The node's id, or its admin address.
    #[arg(value_name = "NODE")]
    node: String,
    /// Take it back: serve again.
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    why: Why,
}

/// Runs the command.
pub(super) async fn run(drain: &Drain, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let address = nodes::address_of(&client, global, &drain.node).await?;
    let node = client
        .node(&address)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let request = v1::DrainRequest {
        undo: drain.undo,
        context: drain.why.context(),
    };
    let status = node
        .drain(request, &global.call())
        .await
        .map_err(|error| nodes::unanswered(error, &address))?
        .node
        .unwrap_or_default();
    let serving = status
        .serving()
        .as_str_name()
        .trim_start_matches("SERVING_STATE_");
    let document = json!({ "node_id": status.node_id, "serving": serving });
    output::result(global.output, &document, || {
        format!("node {} is {}", status.node_id, serving.to_lowercase())
    })
}
