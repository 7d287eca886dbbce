//! Holdfast: the load generator has its driver. Here are its connections, and who leads.

use std::time::Duration;

use holdfast_bench::Holdfast;
use holdfast_client::{CallOptions, Client, ClientConfig, v1};

use crate::Setup;

/// How long one call may take, as with the others.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// A cluster, reached through so many SDK clients.
pub(crate) fn store(setup: &Setup) -> Result<Holdfast, String> {
    let clients = (0..setup.connections.max(1))
        .map(|_| client(setup))
        .collect::<Result<_, _>>()?;
    Ok(Holdfast::new(
        clients,
        "default",
        CallOptions::deadline(CALL_LIMIT),
    ))
}

/// One SDK client.
pub(crate) fn client(setup: &Setup) -> Result<Client, String> {
    let config = ClientConfig {
        endpoints: setup.endpoints.clone(),
        admin_endpoints: setup.admin_endpoints.clone(),
        ..ClientConfig::default()
    };
    Client::connect(config).map_err(|why| why.to_string())
}

/// The place, from 1, of the node that says that it leads.
pub(crate) async fn leader(setup: &Setup) -> Result<Option<usize>, String> {
    let client = client(setup)?;
    for (address, place) in setup.admin_endpoints.iter().zip(1..) {
        let options = CallOptions::deadline(Duration::from_secs(1));
        let Ok(status) = client.get_status_of(address, &options).await else {
            continue;
        };
        let leads = |shard: &v1::ShardStatus| shard.role() == v1::ReplicaRole::Leader;
        if status.shards.iter().any(leads) {
            return Ok(Some(place));
        }
    }
    Ok(None)
}
