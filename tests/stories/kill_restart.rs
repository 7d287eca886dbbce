//! kill -9 and restart, of each role, while clients write. A process death loses what the process had not written,
//! never what it had acknowledged.

use std::time::Duration;

use holdfast_tests::cluster::Cluster;
use holdfast_tests::load::{self, Load};

/// The other two go on without a follower; it catches up from the log when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_dies_under_load_and_catches_up() {
    let mut cluster = Cluster::start().await;
    let load = Load::start(&cluster, 8);
    load.progress(100).await;

    let follower = cluster.follower().await;
    cluster.kill(follower);
    load.progress(200).await;
    cluster.spawn(follower);
    load.progress(100).await;

    let ledger = load.stop().await;
    cluster.converge().await;
    load::verify_everywhere(&cluster, &ledger).await;
}

/// A new leader is elected, and nothing the old one acknowledged is missing from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies_under_load_twice() {
    let mut cluster = Cluster::start().await;
    let load = Load::start(&cluster, 8);
    load.progress(100).await;

    for _ in 0..2 {
        let leader = cluster.leader().await;
        cluster.kill(leader);
        cluster.leader_other_than(leader).await;
        load.progress(100).await;
        cluster.spawn(leader);
        cluster.converge().await;
    }

    let ledger = load.stop().await;
    cluster.converge().await;
    load::verify_everywhere(&cluster, &ledger).await;
}

/// No process survives: only what is on the three disks comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_die_at_once_under_load() {
    let mut cluster = Cluster::start().await;
    let load = Load::start(&cluster, 8);
    for _ in 0..2 {
        load.progress(150).await;
        cluster.kill_all();
        tokio::time::sleep(Duration::from_millis(300)).await;
        for id in cluster.founders() {
            cluster.spawn(id);
        }
        cluster.leader().await;
    }
    load.progress(50).await;

    let ledger = load.stop().await;
    cluster.converge().await;
    load::verify_everywhere(&cluster, &ledger).await;
}
