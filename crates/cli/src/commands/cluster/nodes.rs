//! Finding the nodes: those whose admin ports were given, and the members that these name.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_client::{CallOptions, Client, ClientError, v1};

use crate::args::Global;
use crate::exit::{Exit, Failure};

/// One node as it was found, or not.
pub(super) struct Found {
    /// Its admin address.
    pub(super) address: String,
    /// Its id, from itself or from the membership.
    pub(super) node_id: Option<u64>,
    /// What it said.
    pub(super) status: Result<v1::GetStatusResponse, ClientError>,
}

/// Asks every node for its status: first those given, then members that were not among them.
pub(super) async fn all(client: &Client, global: &Global) -> Result<Vec<Found>, Failure> {
    let mut found = ask(client, global, &global.admin_endpoints).await?;
    let mut known: BTreeMap<u64, String> = BTreeMap::new();
    for status in found.iter().filter_map(|found| found.status.as_ref().ok()) {
        for member in status
            .shards
            .iter()
            .filter_map(|shard| shard.membership.as_ref())
            .flat_map(|m| &m.members)
        {
            if let Some(addresses) = &member.addresses {
                known.insert(member.node_id, addresses.admin.clone());
            }
        }
    }
    for (node_id, address) in &known {
        for silent in found
            .iter_mut()
            .filter(|found| found.node_id.is_none() && found.address == *address)
        {
            silent.node_id = Some(*node_id);
        }
    }
    let others: Vec<String> = known
        .iter()
        .filter(|(node_id, _)| !found.iter().any(|found| found.node_id == Some(**node_id)))
        .map(|(_, address)| address.clone())
        .collect();
    for mut other in ask(client, global, &others).await? {
        let named = known
            .iter()
            .find(|(_, address)| **address == other.address)
            .map(|(node_id, _)| *node_id);
        other.node_id = other.node_id.or(named);
        found.push(other);
    }
    found.sort_by_key(|found| (found.node_id.is_none(), found.node_id));
    // Two addresses of one node are one node.
    found.dedup_by(|a, b| {
        a.node_id.is_some() && a.node_id == b.node_id && a.status.is_ok() && b.status.is_ok()
    });
    Ok(found)
}

/// The admin address of a node: `node` is its id, or the address itself.
pub(super) async fn address_of(client: &Client, global: &Global, node: &str) -> Result<String, Failure> {
    let Ok(node_id) = node.parse::<u64>() else {
        return address(node).map(str::to_owned);
    };
    let found = all(client, global).await?;
    found
        .iter()
        .find(|found| found.node_id == Some(node_id))
        .map(|found| found.address.clone())
        .ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("no node {node_id} was found"))
                .hint("give its admin address, HOST:PORT, instead of its id")
        })
}

/// The admin address that is given in the place of a node's id.
fn address(node: &str) -> Result<&str, Failure> {
    let port = node.trim_end_matches('/').rsplit_once(':').map(|(_, port)| port);
    if port.is_some_and(|port| port.parse::<u16>().is_ok()) {
        return Ok(node);
    }
    Err(Failure::usage(format!("{node:?} is not a node"))
        .hint("name it by its id, as `holdfast cluster status` shows it, or by its admin address, HOST:PORT"))
}

/// Why a node that was named on the command line did not do what it was asked to.
pub(super) fn unanswered(error: ClientError, address: &str) -> Failure {
    let silent = error.reason.is_empty();
    let mut failure = Failure::from(error);
    if silent && failure.exit == Exit::Unavailable {
        failure.hint = Some(format!(
            "is the node running, and is {address} its admin address (`holdfast cluster status` knows the ids)?"
        ));
    }
    failure
}

async fn ask(client: &Client, global: &Global, addresses: &[String]) -> Result<Vec<Found>, Failure> {
    // One that is dead or frozen must not keep the others from being shown.
    let limit = global.timeout.unwrap_or(Duration::from_secs(2));
    let options = CallOptions {
        attempts_max: Some(1),
        ..CallOptions::deadline(limit)
    };
    let asking = addresses.iter().map(|address| {
        let options = options.clone();
        async move {
            let node = client
                .node(address)
                .map_err(|error| Failure::usage(error.to_string()))?;
            let status = node.get_status(&options).await;
            let node_id = status
                .as_ref()
                .ok()
                .and_then(|status| status.node.as_ref())
                .map(|node| node.node_id);
            Ok(Found {
                address: address.clone(),
                node_id,
                status,
            })
        }
    });
    futures::future::join_all(asking).await.into_iter().collect()
}
