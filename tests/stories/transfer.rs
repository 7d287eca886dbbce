//! Leadership handed over on purpose: asked for by an operator, and before a graceful stop.

use std::time::{Duration, Instant};

use holdfast_tests::api;
use holdfast_tests::cluster::Cluster;
use holdfast_tests::load::{self, Load};
use holdfast_wire::v1;

/// Round the cluster twice while clients write; nobody is told no.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_round_under_load() {
    let cluster = Cluster::start().await;
    let load = Load::start(&cluster, 8);
    load.progress(50).await;

    for _ in 0..2 {
        for target in cluster.founders() {
            let leader = cluster.leader().await;
            if leader == target {
                continue;
            }
            let mut admin = api::cluster_service(&cluster.admin_address(leader))
                .await
                .unwrap();
            let transfer = v1::TransferLeadershipRequest {
                node_id: target,
                context: None,
            };
            let answer = admin
                .transfer_leadership(api::request(transfer, api::CALL_LIMIT))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(answer.leader_node_id, target);
            assert_eq!(cluster.leader().await, target);
            load.progress(50).await;
        }
    }

    let ledger = load.stop().await;
    assert!(
        ledger.values().all(|entry| entry.acknowledged.is_some()),
        "a write was given up during a handover"
    );
    cluster.converge().await;
    load::verify_everywhere(&cluster, &ledger).await;
}

/// SIGTERM to the leader: it hands leadership over first, so the others need not wait for an election timeout, and
/// it ends with exit code 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_stop_hands_over_first() {
    let mut cluster = Cluster::start().await;
    let load = Load::start(&cluster, 4);
    load.progress(50).await;

    let leader = cluster.leader().await;
    let began = Instant::now();
    let status = cluster.terminate(leader, Duration::from_secs(20));
    assert!(
        status.success(),
        "a graceful stop ends with {status}\n{}",
        cluster.log(leader)
    );
    let new = cluster.leader_other_than(leader).await;
    println!("stopped and replaced within {:?}", began.elapsed());
    load.progress(50).await;

    cluster.spawn(leader);
    cluster.converge().await;
    assert_eq!(
        cluster.leader().await,
        new,
        "the restarted node took leadership back"
    );
    let ledger = load.stop().await;
    cluster.converge().await;
    load::verify_everywhere(&cluster, &ledger).await;
}
