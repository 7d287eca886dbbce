//! What clients do to a cluster, and what they saw of it.
//!
//! [`draw()`] chooses a mix from the seed; [`prepare()`] sets the realm's rules; [`run`] lets the clients work for
//! the time that the configuration says; [`probe`] asks whether the cluster does its duty again; [`final_reads`]
//! asks every node for everything once all is well. What they see becomes a [`crate::history`], which the
//! [`Recorder`] collects.
//!
//! Clients collide on purpose. Few accounts get most of the traffic, a small pool of email addresses, user names
//! and phone numbers is wanted by all, in different spellings; identifiers move from account to account after
//! their quarantine, accounts are deleted and come back under the next id. Every display name that is written is
//! unique to its request, so what a read returns says which write it saw.
//!
//! Most calls go through the production client with all its retries. Where the point is *which* node is asked,
//! or the same request several times, calls go through a bare stub (`call` has both ways, and records them).
//! Choices come from a stream of numbers for each client, never from the simulator's own generator.

mod brief;
mod call;
mod convert;
mod dice;
mod draw;
mod finale;
mod identifiers;
mod imports;
mod lists;
mod mutations;
mod prepare;
mod reads;
mod record;
mod repeats;
mod request;
mod worker;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{self, Cluster};
use crate::config::{Action, Configuration, Node};
use crate::trace;
use worker::Worker;
use world::World;

pub use draw::draw;
pub use finale::{final_reads, probe};
pub use prepare::prepare;
pub use record::Recorder;
pub use world::Tally;

/// How many machines the clients work on. They do not share their links to the nodes.
const PLACES: u32 = 3;
/// How many look at accounts when the clients make too few calls.
const LOOKERS: u32 = 16;

/// A node as clients reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    node: Node,
    /// Its client port, `host:port`.
    client: String,
}

/// The nodes that can be asked now, whether or not they live: some join and some leave during a run.
fn nodes(cluster: &Cluster) -> Vec<Endpoint> {
    let ids = cluster.ids().into_iter().filter(|id| !cluster.is_gone(*id));
    ids.map(endpoint).collect()
}

fn endpoint(node: Node) -> Endpoint {
    Endpoint {
        node,
        client: cluster::member_addresses(node).client,
    }
}

/// Lets the clients work for the safety phase, and returns once the last has its last answer: how often each
/// action was tried, and how often it succeeded.
///
/// It ends at most some seconds and one deadline after the phase, whatever the cluster does: a client that takes
/// longer is reported as a violation by the recorder.
pub async fn run(
    cluster: &Arc<Cluster>,
    configuration: &Configuration,
    recorder: &Recorder,
) -> BTreeMap<Action, Tally> {
    let workload = &configuration.workload;
    let world = World::new(
        workload.hot_accounts,
        workload.tail_accounts,
        workload.identifiers,
    );
    let until = Instant::now() + Duration::from_millis(configuration.safety_ms);
    let places: Vec<_> = (1..=PLACES)
        .map(|place| cluster.outside(&format!("clients-{place}")))
        .collect();
    let mut clients = Vec::new();
    let lookers = workload.calls_per_second_min.map_or(0, |_| LOOKERS);
    for number in 1..=workload.clients + lookers {
        match Worker::new(number, configuration, cluster, recorder, &world) {
            Ok(worker) => {
                let place = &places[number as usize % places.len()];
                clients.push(if number <= workload.clients {
                    place.spawn(worker.run(until))
                } else {
                    place.spawn(worker.look_when_others_wait(until))
                });
            }
            Err(why) => recorder.violation(format!("client {number} could not be made: {why}")),
        }
    }
    for client in clients {
        match client.await {
            Ok(late) => recorder.repeat_later(late),
            Err(error) => recorder.violation(format!("a client ended by itself: {error}")),
        }
    }
    let tallies = world.tallies();
    for (action, Tally { tried, done }) in &tallies {
        let kind = serde_json::to_string(action).unwrap_or_default();
        trace::event("action", &format!("kind={kind} tried={tried} done={done}"));
    }
    tallies
}
