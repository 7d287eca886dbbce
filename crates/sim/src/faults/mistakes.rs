//! What operators get wrong. Nothing of it may do harm: whoever is not who it says it is must be turned away.

use std::sync::Arc;
use std::time::Duration;

use holdfast_storage::faulty::FaultyDisk;
use holdfast_wire::v1;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Run, network, operators};
use crate::cluster::{SkewedClock, member_addresses};
use crate::config::{Misnamed, Target};
use crate::trace;

/// How long a stranger hears nobody at its start. One that is told at once that it is a stranger does not start; this
/// one does, and stands for election among the members of this cluster before it is told.
const DEAF: Duration = Duration::from_millis(1_700);

/// The node restarts with the wrong cluster or the wrong node id in its configuration; with the right ones at the end.
pub(super) async fn misname(run: &Run, target: Target, what: Misnamed, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    let cluster = &run.cluster;
    cluster.misname(id, Some(what));
    cluster.kill(id);
    cluster.restart(id);
    sleep(lasting).await;
    cluster.misname(id, None);
    cluster.kill(id);
    cluster.try_again(id);
    true
}

/// A machine of another cluster that takes members of this one for its founders, until somebody switches it off. An
/// operator of this cluster tries to take it in; and a member, under another id.
pub(super) async fn stranger(run: &Run, lasting: Duration) -> bool {
    let until = Instant::now() + lasting;
    let (machine, config) = run.cluster.stranger();
    let id = config.node.id;
    let itself = &config.cluster.initial_members[0];
    let at = v1::MemberAddresses {
        peer: itself.peer.clone(),
        client: itself.client.clone(),
        admin: itself.admin.clone(),
    };
    let seed = run.seed ^ id;
    let process = machine.spawn(async move {
        let disk = FaultyDisk::new(seed);
        let started = match disk.open() {
            Ok(engine) => {
                holdfast_node::start(config, Arc::new(engine), Arc::new(SkewedClock::default())).await
            }
            Err(error) => return trace::event("stranger", &format!("has no disk: {error}")),
        };
        match started {
            Ok(node) => {
                let reason = node.wait_fatal().await;
                trace::event("stranger", &format!("stopped: {reason}"));
            }
            Err(error) => trace::event("stranger", &format!("refused: {error}")),
        }
    });
    network::alone(run, machine.id(), DEAF).await;
    let taken_in = operators::take_in(run, id, at).await;
    assert!(!taken_in, "a node of another cluster became a member");
    let renamed = operators::take_in(run, id, member_addresses(1)).await;
    assert!(!renamed, "node 1 became a member once more, under the id {id}");
    sleep_until(until).await;
    process.abort();
    run.cluster.switch_off(&machine);
    true
}
