//! `holdfast cluster snapshot`

use clap::Args;
use holdfast_client::v1;
use serde_json::json;

use super::nodes;
use crate::args::{Global, Why};
use crate::exit::{Exit, Failure};
use crate::output;

/// Make nodes flush their state, as they do by themselves from time to time, and wait until that is done; the log that
/// it covers is purged soon afterwards, as far as no member needs it. Without a node: all that can be reached.
#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    /// The node's id, or its admin address.
    #[arg(value_name = "NODE")]
    node: Option<String>,
    #[command(flatten)]
    why: Why,
}

/// Runs the command.
pub(super) async fn run(snapshot: &Snapshot, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let mut failed = None;
    let mut addresses = Vec::new();
    if let Some(node) = &snapshot.node {
        addresses.push(nodes::address_of(&client, global, node).await?);
    } else {
        for found in nodes::all(&client, global).await? {
            match found.status {
                Ok(_) => addresses.push(found.address),
                Err(error) => eprintln!("{} was not reached and is left out: {error}", found.address),
            }
        }
    }
    if addresses.is_empty() {
        return Err(Failure::new(Exit::Unavailable, "no node was reached"));
    }
    for address in addresses {
        let node = client
            .node(&address)
            .map_err(|error| Failure::usage(error.to_string()))?;
        let request = v1::TriggerSnapshotRequest {
            context: snapshot.why.context(),
        };
        match node.trigger_snapshot(request, &global.long_call()).await {
            Ok(response) => {
                let (snapshot_index, purged_index) = (response.snapshot_index, response.purged_index);
                let document = json!({
                    "node": address, "snapshot_index": snapshot_index, "purged_index": purged_index,
                });
                output::result(global.output, &document, || {
                    format!(
                        "{address}: state flushed up to {snapshot_index}, log purged up to {purged_index}"
                    )
                })?;
            }
            Err(error) => {
                eprintln!("{address}: {error}");
                failed = Some(nodes::unanswered(error, &address));
            }
        }
    }
    failed.map_or(Ok(()), Err)
}
