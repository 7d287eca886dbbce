//! What operators do to a running cluster, and how a lost node is replaced, as the runbook says.
//!
//! Everything goes through the production client from a machine of its own. An operator who gets no clear answer
//! looks and tries again; what could not be finished in time is finished by [`heal`].

use std::time::Duration;

use holdfast_client::{CallOptions, Client};
use holdfast_types::NodeId;
use holdfast_wire::v1;
use tokio::time::{Instant, sleep, sleep_until};

use super::Run;
use crate::cluster::{Cluster, admin_address, member_addresses};
use crate::config::Target;
use crate::trace;

/// The most voters that operators make.
const VOTERS_MAX: usize = 7;
/// The fewest that they leave.
const VOTERS_MIN: usize = 3;
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// How long [`heal`] tries.
const HEAL: Duration = Duration::from_secs(120);

/// A new node joins as a learner and becomes a voter.
pub(super) async fn add_node(run: &Run, lasting: Duration) -> bool {
    if run.cluster.voters().len() >= VOTERS_MAX {
        return false;
    }
    let until = Instant::now() + lasting;
    let id = run.cluster.add_joiner();
    run.cluster.change().joining.insert(id);
    let cluster = run.cluster.clone();
    in_office(run, async move { admit(&cluster, id, until).await }).await;
    sleep_until(until).await;
    !run.cluster.change().joining.contains(&id)
}

/// A voter leaves for good; its machine is switched off later. Two operators ask for it at once, both by what they
/// have seen; and one tries to take the node in again afterwards.
pub(super) async fn remove_node(run: &Run, target: Target, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    if !run.cluster.may_leave(id, VOTERS_MIN) {
        return false;
    }
    let until = Instant::now() + lasting;
    let expected = run.cluster.membership_id();
    let remove = |client: Client| {
        let request = v1::RemoveMemberRequest {
            node_id: id,
            expected_membership_id: expected.clone(),
            ..v1::RemoveMemberRequest::default()
        };
        in_office(run, async move {
            client
                .remove_member(request, &CallOptions::deadline(ATTEMPT))
                .await
        })
    };
    let (one, other) = futures::join!(
        remove(run.cluster.operators_client()),
        remove(run.cluster.operators_client())
    );
    let removed = one.is_ok() || other.is_ok();
    for result in [one, other] {
        say(
            "remove",
            id,
            &result.map(|_| ()).map_err(|error| error.to_string()),
        );
    }
    if removed {
        let back = take_in(run, id, member_addresses(id)).await;
        assert!(
            !back,
            "node {id} was removed, and became a member again under its old id"
        );
    }
    sleep_until(until).await;
    if removed {
        run.cluster.retire(id);
    }
    removed
}

/// Asks once for a learner that may not become one. Whether it did.
pub(super) async fn take_in(run: &Run, id: NodeId, addresses: v1::MemberAddresses) -> bool {
    let client = run.cluster.operators_client();
    let request = v1::AddLearnerRequest {
        node_id: id,
        addresses: Some(addresses),
        ..v1::AddLearnerRequest::default()
    };
    let taken = in_office(run, async move {
        client.add_learner(request, &CallOptions::deadline(ATTEMPT)).await
    })
    .await;
    say(
        "take_in",
        id,
        &taken.as_ref().map(|_| ()).map_err(ToString::to_string),
    );
    taken.is_ok()
}

/// A healthy voter is replaced by a new node.
pub(super) async fn replace_node(run: &Run, target: Target, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    if !run.cluster.may_lose(id) {
        return false;
    }
    put_in_place_of(run, id, lasting).await;
    !run.cluster.change().replacing.contains_key(&id)
}

/// Sets up a new machine and has it take the place of a member.
pub(super) async fn put_in_place_of(run: &Run, old: NodeId, lasting: Duration) {
    let until = Instant::now() + lasting;
    let new = run.cluster.add_joiner();
    run.cluster.change().replacing.insert(old, new);
    let cluster = run.cluster.clone();
    in_office(run, async move { replace(&cluster, old, new, until).await }).await;
    sleep_until(until).await;
}

/// Leadership is handed over to whoever is furthest ahead.
pub(super) async fn transfer_leadership(run: &Run, lasting: Duration) -> bool {
    let until = Instant::now() + lasting;
    let client = run.cluster.operators_client();
    let result = in_office(run, async move {
        let request = v1::TransferLeadershipRequest::default();
        client
            .transfer_leadership(request, &CallOptions::deadline(ATTEMPT))
            .await
    })
    .await;
    let transferred = result.is_ok();
    say(
        "transfer",
        0,
        &result.map(|_| ()).map_err(|error| error.to_string()),
    );
    sleep_until(until).await;
    transferred
}

/// The node gives up what it leads and takes nothing until the end.
pub(super) async fn drain(run: &Run, target: Target, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    let until = Instant::now() + lasting;
    let drained = set_drained(run, id, false).await;
    sleep_until(until).await;
    set_drained(run, id, true).await;
    drained
}

/// Whether the node did it.
async fn set_drained(run: &Run, id: NodeId, undo: bool) -> bool {
    let client = run.cluster.operators_client();
    let result = in_office(run, async move {
        let node = client
            .node(&admin_address(id))
            .map_err(|error| error.to_string())?;
        let request = v1::DrainRequest {
            undo,
            ..v1::DrainRequest::default()
        };
        let drained = node.drain(request, &CallOptions::deadline(ATTEMPT)).await;
        drained.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    say(if undo { "undrain" } else { "drain" }, id, &result);
    result.is_ok()
}

/// A snapshot now, and the log purged behind it.
pub(super) async fn trigger_snapshot(run: &Run, target: Target, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    let until = Instant::now() + lasting;
    let client = run.cluster.operators_client();
    let result = in_office(run, async move {
        let node = client
            .node(&admin_address(id))
            .map_err(|error| error.to_string())?;
        let request = v1::TriggerSnapshotRequest::default();
        let taken = node
            .trigger_snapshot(request, &CallOptions::deadline(ATTEMPT))
            .await;
        taken.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    say("snapshot", id, &result);
    sleep_until(until).await;
    result.is_ok()
}

/// The node restarts with other timings and limits; with its old ones again at the end.
pub(super) async fn reconfigure(run: &Run, target: Target, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    let cluster = &run.cluster;
    let mut before = None;
    cluster.reconfigure(id, |config| {
        before = Some(config.clone());
        config.raft.heartbeat_ms = 60;
        config.raft.election_timeout_ms_min = 250;
        config.raft.election_timeout_ms_max = 480;
        config.limits.max_in_flight_writes = 16;
        config.limits.max_in_flight_reads = 32;
        config.limits.import_window = 8;
        config.history.change_entries = 1_000;
    });
    cluster.kill(id);
    cluster.restart(id);
    sleep(lasting).await;
    if let Some(before) = before {
        cluster.reconfigure(id, |config| *config = before);
    }
    cluster.kill(id);
    cluster.restart(id);
    true
}

/// Finishes what operators have begun and takes away what is no member.
pub(super) async fn heal(cluster: &std::sync::Arc<Cluster>) {
    let until = Instant::now() + HEAL;
    let cluster = cluster.clone();
    let office = cluster.office().clone();
    let work = office.spawn(async move {
        for id in cluster.ids() {
            if cluster.is_gone(id) {
                continue;
            }
            if let Ok(node) = cluster.operators_client().node(&admin_address(id)) {
                let undo = v1::DrainRequest {
                    undo: true,
                    ..v1::DrainRequest::default()
                };
                // A node that is down or beyond help is not drained either.
                let _ = node.drain(undo, &CallOptions::deadline(PAUSE * 4)).await;
            }
        }
        let replacing = cluster.change().replacing.clone();
        for (old, new) in replacing {
            replace(&cluster, old, new, until).await;
        }
        let joining = cluster.change().joining.clone();
        for id in joining {
            admit(&cluster, id, until).await;
        }
        // What was left half done the leader finishes by itself.
        while !cluster.settled() && Instant::now() < until {
            sleep(PAUSE).await;
        }
        // Whoever is no member by now never will be: it was removed, or its replacement was given up.
        if let Some(members) = members(&cluster, until).await {
            for id in cluster.ids() {
                if !members.iter().any(|member| member.node_id == id) && !cluster.is_gone(id) {
                    cluster.retire(id);
                }
            }
        }
    });
    // A task that panicked has ended the process.
    let _ = work.await;
}

/// Has `new` take the place of `old`, however often it takes.
async fn replace(cluster: &Cluster, old: NodeId, new: NodeId, until: Instant) {
    while Instant::now() < until {
        let request = v1::ReplaceMemberRequest {
            old_node_id: old,
            new_node_id: new,
            addresses: Some(member_addresses(new)),
            ..v1::ReplaceMemberRequest::default()
        };
        let deadline = ATTEMPT.min(until.saturating_duration_since(Instant::now()));
        let client = cluster.operators_client();
        let result = client
            .replace_member(request, &CallOptions::deadline(deadline))
            .await;
        say(
            "replace",
            old,
            &result.map(|_| ()).map_err(|error| error.to_string()),
        );
        if let Some(members) = members(cluster, until).await {
            let voter = members
                .iter()
                .any(|member| member.node_id == new && member.role() == v1::MemberRole::Voter);
            if voter && !members.iter().any(|member| member.node_id == old) {
                let mut change = cluster.change();
                change.replacing.remove(&old);
                change.lost.remove(&old);
                drop(change);
                cluster.retire(old);
                return;
            }
            // Somebody else was faster, with another machine: this one will not be needed.
            if !members.iter().any(|member| [old, new].contains(&member.node_id)) {
                cluster.change().replacing.remove(&old);
                return;
            }
        }
        sleep(PAUSE).await;
    }
}

/// Makes a new node a learner and then a voter, however often it takes.
async fn admit(cluster: &Cluster, id: NodeId, until: Instant) {
    while Instant::now() < until {
        let role = members(cluster, until)
            .await
            .and_then(|members| members.into_iter().find(|member| member.node_id == id))
            .map(|member| member.role());
        let deadline = ATTEMPT.min(until.saturating_duration_since(Instant::now()));
        let options = CallOptions::deadline(deadline);
        let client = cluster.operators_client();
        let result = match role {
            Some(v1::MemberRole::Voter) => {
                cluster.change().joining.remove(&id);
                return;
            }
            Some(_) => {
                let request = v1::PromoteMemberRequest {
                    node_id: id,
                    ..v1::PromoteMemberRequest::default()
                };
                client.promote_member(request, &options).await.map(|_| ())
            }
            None => {
                let request = v1::AddLearnerRequest {
                    node_id: id,
                    addresses: Some(member_addresses(id)),
                    ..v1::AddLearnerRequest::default()
                };
                client.add_learner(request, &options).await.map(|_| ())
            }
        };
        say("admit", id, &result.map_err(|error| error.to_string()));
        sleep(PAUSE).await;
    }
}

/// The members, as the leader knows them.
async fn members(cluster: &Cluster, until: Instant) -> Option<Vec<v1::Member>> {
    while Instant::now() < until {
        let status = cluster
            .operators_client()
            .get_status(&CallOptions::deadline(PAUSE * 4))
            .await;
        let leads = |shard: &v1::ShardStatus| shard.role() == v1::ReplicaRole::Leader;
        if let Ok(status) = status
            && let Some(shard) = status.shards.into_iter().find(leads)
            && let Some(membership) = shard.membership
        {
            return Some(membership.members);
        }
        sleep(PAUSE).await;
    }
    None
}

/// Does it on the operators' machine.
async fn in_office<T: Send + 'static>(run: &Run, work: impl Future<Output = T> + Send + 'static) -> T {
    run.office
        .spawn(work)
        .await
        .expect("the operators' machine is never switched off")
}

fn say(what: &str, id: NodeId, result: &Result<(), String>) {
    let outcome = match result {
        Ok(()) => "done",
        Err(message) => message.as_str(),
    };
    trace::event("operator", &format!("{what} node={id} {outcome}"));
}
