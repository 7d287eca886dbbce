//! A machine is lost with its disk. A wiped log must not come back under the old number, so a new node takes the
//! place: learner, snapshot, promotion, and the old number is gone for ever.

use std::time::Duration;

use holdfast_tests::cli;
use holdfast_tests::cluster::{Cluster, Options};
use holdfast_tests::load::{self, Load};
use holdfast_wire::v1;

/// So little history that the new node cannot be served from the log.
const SHORT_HISTORY: &str = "[history]\nlog_entries = 1000\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_machine_is_replaced_through_a_snapshot_under_load() {
    let options = Options {
        extra: SHORT_HISTORY.to_owned(),
        ..Options::default()
    };
    let mut cluster = Cluster::start_with(options).await;
    let load = Load::start(&cluster, 8);
    load.progress(1500).await;

    let lost = cluster.follower().await;
    cluster.kill(lost);
    cluster.wipe(lost);
    load.progress(1500).await;
    let said = cli::run(&cluster, &["cluster", "snapshot"]).await;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let leader = cluster.leader().await;
    let purged = cluster.shard(leader).await.unwrap().purged_index;
    assert!(
        purged > 0,
        "the log still begins at its beginning; this would not need a snapshot"
    );

    let new = 4;
    cluster.write_config(new, false, &cluster.data_dir(new));
    cluster.spawn(new);
    let said = cli::run(
        &cluster,
        &[
            "cluster",
            "replace",
            &lost.to_string(),
            &new.to_string(),
            "--peer",
            &cluster.peer_address(new),
            "--client",
            &cluster.client_address(new),
            "--admin",
            &cluster.admin_address(new),
            "--timeout",
            "60s",
        ],
    )
    .await;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);

    let leader = cluster.leader().await;
    let members = cluster.shard(leader).await.unwrap().membership.unwrap().members;
    let voters: Vec<u64> = members
        .iter()
        .filter(|member| member.role() == v1::MemberRole::Voter)
        .map(|member| member.node_id)
        .collect();
    assert!(voters.contains(&new) && !voters.contains(&lost), "{members:?}");
    load.progress(100).await;
    let ledger = load.stop().await;
    cluster.converge().await;
    load::verify_everywhere(&cluster, &ledger).await;

    // The new node counts: with another one down, it is half of the quorum.
    let other = cluster
        .running()
        .into_iter()
        .find(|id| *id != leader && *id != new)
        .unwrap();
    cluster.kill(other);
    let load = Load::start_on(&cluster.client(), 4);
    load.progress(100).await;
    let more = load.stop().await;
    cluster.converge().await;
    load::verify(&cluster, new, &more).await;
    load::verify(&cluster, new, &ledger).await;

    // Its snapshot is on its disk: it comes back with it.
    cluster.kill(new);
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.spawn(new);
    cluster.leader().await;
    cluster.converge().await;
    load::verify(&cluster, new, &ledger).await;
}
