//! A frozen process (SIGSTOP: a stalled virtual machine, a swapping host) is worse than a dead one: its connections
//! stay open, and when it is thawed it believes that no time has passed.

use std::time::Duration;

use holdfast_tests::api;
use holdfast_tests::cluster::Cluster;
use holdfast_tests::load::{self, Load};

/// Longer than any election takes with the default timeouts.
const FROZEN: Duration = Duration::from_secs(5);

/// The thawed old leader must not answer from what it knew: between its thaw and the news of a new term, a
/// linearizable read through it either shows the newest write or fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_leader_is_replaced_and_does_not_answer_from_the_past() {
    let cluster = Cluster::start().await;
    let load = Load::start(&cluster, 4);
    load.progress(50).await;

    let old = cluster.leader().await;
    let mut at_old = api::accounts(&cluster.client_address(old)).await.unwrap();
    let create = api::create("frozen", "frozen@example.com", &api::request_id());
    at_old
        .create_account(api::request(create, api::CALL_LIMIT))
        .await
        .unwrap();

    cluster.freeze(old);
    let new = cluster.leader_other_than(old).await;
    let mut at_new = api::accounts(&cluster.client_address(new)).await.unwrap();
    let update = api::set_counter("frozen", 7, &api::request_id());
    at_new
        .update_account(api::request(update, api::CALL_LIMIT))
        .await
        .unwrap();
    tokio::time::sleep(FROZEN).await;
    load.progress(50).await;

    cluster.thaw(old);
    for _ in 0..20 {
        let answer = at_old
            .get_account(api::request(api::get("frozen"), Duration::from_secs(1)))
            .await;
        if let Ok(answer) = answer {
            let account = answer.into_inner().account.unwrap();
            assert_eq!(
                api::counter(&account),
                7,
                "the thawed node answered from the past"
            );
        }
    }
    load.progress(50).await;

    let ledger = load.stop().await;
    cluster.converge().await;
    load::verify_everywhere(&cluster, &ledger).await;
}

/// Nobody waits for a frozen follower, and it neither disturbs the leader nor misses anything when it thaws.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_follower_holds_nobody_up_and_catches_up() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    let load = Load::start(&cluster, 4);
    load.progress(50).await;

    cluster.freeze(follower);
    tokio::time::sleep(FROZEN).await;
    load.progress(100).await;
    let term = cluster.shard(leader).await.unwrap().term;

    cluster.thaw(follower);
    load.progress(100).await;
    // Pre-vote: the thawed node's election timeout has long passed, and still the term stays.
    assert_eq!(
        cluster.shard(leader).await.unwrap().term,
        term,
        "the thawed follower forced an election"
    );

    let ledger = load.stop().await;
    cluster.converge().await;
    load::verify_everywhere(&cluster, &ledger).await;
}
