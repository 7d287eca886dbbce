//! Snapshots between nodes in one process: for whoever is behind the purged log, from whoever can read its state.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic, too")]

#[allow(dead_code, reason = "other tests use the rest of it")]
mod support;

use std::time::Duration;

use holdfast_consensus::ConsensusConfig;
use holdfast_types::{Family, NodeId};
use support::{Cluster, soon};
use tokio::time::Instant;

fn short_log(config: &mut ConsensusConfig) {
    config.log_entries_kept = 20;
    config.log_entries_kept_max = 40;
}

/// A cluster one follower of which is down and behind what everybody else still has in the log: (the cluster, the
/// leader, the follower).
async fn behind_the_purged_log() -> (Cluster, NodeId, NodeId) {
    let mut cluster = Cluster::found(short_log).await;
    let (leader, _) = cluster.leader().await;
    let follower = leader % 3 + 1;
    cluster.write("old", "value").await;
    cluster.crash(follower).await;
    for n in 0..200 {
        cluster.write(&format!("k{n}"), &"x".repeat(10_000)).await;
    }
    let until = soon();
    for id in (1..=3).filter(|id| *id != follower) {
        while cluster
            .group(id)
            .status()
            .purged
            .is_none_or(|purged| purged.index < 100)
        {
            assert!(Instant::now() < until, "node {id} does not purge its log");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    (cluster, leader, follower)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_behind_the_purged_log_gets_a_snapshot() {
    let (mut cluster, _, follower) = behind_the_purged_log().await;
    cluster.start(follower).await;
    assert_eq!(
        cluster.read(follower, "k199").await.map(|value| value.len()),
        Some(10_000)
    );
    // The status follows a moment after the state.
    let until = soon();
    while cluster
        .group(follower)
        .status()
        .snapshot
        .is_none_or(|snapshot| snapshot.index < 100)
    {
        assert!(Instant::now() < until, "no snapshot is told of");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.assert_equal().await;

    // What was installed survives, and so does what came after it.
    cluster.write("later", "value").await;
    cluster.crash(follower).await;
    cluster.start(follower).await;
    assert_eq!(cluster.read(follower, "later").await.as_deref(), Some("value"));
    assert_eq!(
        cluster.read(follower, "k0").await.map(|value| value.len()),
        Some(10_000)
    );
    cluster.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_cannot_read_its_state_makes_room_for_one_that_can() {
    let (mut cluster, leader, follower) = behind_the_purged_log().await;
    assert!(cluster.nodes[&leader].disk.flip_bit_in(Family::Account));
    cluster.start(follower).await;
    let fatal = cluster.nodes[&leader].fatal().clone();
    let reason = tokio::time::timeout(Duration::from_secs(20), fatal.wait())
        .await
        .unwrap();
    assert!(
        reason.contains("cannot be read to send it to node") && reason.contains("damaged"),
        "{reason}"
    );
    assert_eq!(
        cluster.read(follower, "k199").await.map(|value| value.len()),
        Some(10_000)
    );
    assert_ne!(cluster.group(follower).leadership().borrow().leader, Some(leader));
}
