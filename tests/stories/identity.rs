//! Who a node is, and whose directory it opens. Each mistake of an operator's gets one clear message, and never a
//! start from a guess.

use std::fs;
use std::time::Duration;

use holdfast_tests::cluster::{Cluster, Options};
use holdfast_tests::load::{self, Load};
use holdfast_tests::{api, cli};
use tonic::Code;

/// Two processes on one data directory: the second refuses, the first goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_a_directory_refuses() {
    let cluster = Cluster::start().await;
    let (_, said) = cluster.expect_refusal(2);
    assert!(
        said.contains("lock") || said.contains("in use") || said.contains("another process"),
        "{said}"
    );
    let load = Load::start(&cluster, 2);
    load.progress(20).await;
    load::verify_everywhere(&cluster, &load.stop().await).await;
}

/// Node 2's configuration points at node 3's directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_nodes_directory_is_refused() {
    let mut cluster = Cluster::start().await;
    let load = Load::start(&cluster, 2);
    load.progress(20).await;
    cluster.kill(2);
    cluster.kill(3);
    cluster.write_config(2, true, &cluster.data_dir(3));
    let (_, said) = cluster.expect_refusal(2);
    assert!(said.contains("node 3") && said.contains("node 2"), "{said}");

    cluster.write_config(2, true, &cluster.data_dir(2));
    cluster.spawn(2);
    cluster.spawn(3);
    load.progress(20).await;
    let ledger = load.stop().await;
    cluster.converge().await;
    load::verify_everywhere(&cluster, &ledger).await;
}

/// A directory that holds a node of another cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_cluster_is_refused() {
    let mut cluster = Cluster::start().await;
    cluster.kill(2);
    let own_id = cluster.cluster_id;
    cluster.cluster_id = uuid::Uuid::now_v7();
    cluster.write_config(2, true, &cluster.data_dir(2));
    let (_, said) = cluster.expect_refusal(2);
    assert!(
        said.contains(&own_id.to_string()),
        "the refusal does not name the directory's cluster:\n{said}"
    );
}

/// What a node said last, after it ended by itself to protect its data: one message.
async fn last_words(cluster: &mut Cluster, id: u64) -> String {
    let status = cluster.wait_stopped(id, Duration::from_secs(30));
    let log = cluster.log(id);
    let status = status.unwrap_or_else(|| panic!("node {id} goes on:\n{log}"));
    assert_eq!(status.code(), Some(9), "{log}");
    let mut errors = log.lines().filter(|line| line.starts_with("error: "));
    let error = errors
        .next()
        .unwrap_or_else(|| panic!("node {id} does not say why:\n{log}"));
    assert_eq!(errors.next(), None, "node {id} says more than one thing:\n{log}");
    error.to_owned()
}

/// A machine of another cluster is set up with addresses of ours. It is told so and stops; a healthy member that it
/// spoke to refuses it, says so in its log, and goes on. Nor can it be added.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_turned_away() {
    let ours = Cluster::start().await;
    let load = Load::start(&ours, 2);
    load.progress(20).await;
    let leader = ours.leader().await;
    let term = ours.shard(leader).await.unwrap().term;

    // The stranger believes that nodes 1 and 2 of ours are its own, and it is node 4.
    let mut stranger = Cluster::lay_out(Options {
        address: Some(ours.address),
        ..Options::default()
    });
    let mut text = format!(
        "[node]\nid = 4\ndata_dir = \"{}\"\n\n[cluster]\nid = \"{}\"\ninitial_members = [\n",
        stranger.data_dir(4).display(),
        stranger.cluster_id
    );
    for id in [1, 2, 4] {
        text.push_str(&format!(
            "  {{ id = {id}, peer = \"{}\", client = \"{}\", admin = \"{}\" }},\n",
            ours.peer_address(id),
            ours.client_address(id),
            ours.admin_address(id)
        ));
    }
    text.push_str(&format!(
        "]\n\n[listen]\nclient = \"{}\"\nadmin = \"{}\"\npeer = \"{}\"\nmetrics = \"{}\"\n[disk]\nreserve_mib = 16\nballast_mib = 1\n",
        ours.client_address(4),
        ours.admin_address(4),
        ours.peer_address(4),
        ours.metrics_address(4)
    ));
    fs::write(stranger.config_path(4), text).unwrap();
    stranger.spawn(4);
    let said = last_words(&mut stranger, 4).await;
    let data_dir = stranger.data_dir(4).display().to_string();
    for word in [
        &stranger.cluster_id.to_string(),
        &ours.cluster_id.to_string(),
        &data_dir,
        "set cluster.id",
    ] {
        assert!(said.contains(word), "{said}");
    }
    let stranger_id = stranger.cluster_id.to_string();
    let told = [1, 2].into_iter().find(|id| ours.log(*id).contains(&stranger_id));
    assert!(told.is_some(), "no member's log says that a stranger called");

    // It waits to be added, as a node without initial members does.
    fs::remove_dir_all(stranger.data_dir(4)).unwrap();
    stranger.write_config(4, false, &stranger.data_dir(4));
    stranger.spawn(4);
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while stranger.status(4).await.is_none() {
        assert!(std::time::Instant::now() < end, "{}", stranger.log(4));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let add = [
        "cluster",
        "add-learner",
        "4",
        "--peer",
        &ours.peer_address(4),
        "--client",
        &ours.client_address(4),
        "--admin",
        &ours.admin_address(4),
    ];
    let said = cli::run(&ours, &add).await;
    assert_ne!(
        said.code,
        Some(0),
        "a node of another cluster was added:\n{}",
        said.out
    );
    assert!(said.err.contains("another cluster"), "{}", said.err);

    load.progress(50).await;
    assert_eq!(
        ours.shard(leader).await.unwrap().term,
        term,
        "the stranger disturbed the leader"
    );
    load::verify_everywhere(&ours, &load.stop().await).await;
}

/// One of three founders has the wrong cluster id, and starts first, when nobody is there to tell it. It stops once
/// the others are; they wait for it, and with its id corrected the three found the cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_with_a_wrong_cluster_id_stops_and_the_others_wait_for_it() {
    let mut cluster = Cluster::lay_out(Options::default());
    let own_id = cluster.cluster_id;
    let wrong_id = uuid::Uuid::now_v7();
    cluster.cluster_id = wrong_id;
    cluster.write_config(3, true, &cluster.data_dir(3));
    cluster.cluster_id = own_id;
    cluster.spawn(3);
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.spawn(1);
    cluster.spawn(2);
    let said = last_words(&mut cluster, 3).await;
    for word in [wrong_id.to_string(), own_id.to_string()] {
        assert!(said.contains(&word), "{said}");
    }
    for id in [1, 2] {
        let shard = cluster.shard(id).await.unwrap();
        assert_eq!(shard.term, 0, "node {id} has founded a cluster without node 3");
    }

    cluster.wipe(3);
    cluster.write_config(3, true, &cluster.data_dir(3));
    cluster.spawn(3);
    let load = Load::start(&cluster, 2);
    load.progress(20).await;
    let ledger = load.stop().await;
    cluster.converge().await;
    load::verify_everywhere(&cluster, &ledger).await;
}

/// A member was removed while its machine was down. When it comes back it is told, with its data and without, and
/// does not wait for a leader for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_that_comes_back_is_told_and_stops() {
    let mut cluster = Cluster::start().await;
    let gone = cluster.follower().await;
    cluster.kill(gone);
    let said = cli::run(
        &cluster,
        &["cluster", "remove", &gone.to_string(), "--timeout", "30s"],
    )
    .await;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let leader = cluster.leader().await;
    let membership = cluster.shard(leader).await.unwrap().membership.unwrap();

    for wipe in [false, true] {
        if wipe {
            cluster.wipe(gone);
        }
        let (status, said) = cluster.expect_refusal(gone);
        assert_eq!(status.code(), Some(9), "{said}");
        let words = format!(
            "was removed from its cluster, by membership {}",
            membership.membership_id
        );
        let told: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(told.len(), 1, "{said}");
        assert!(
            told[0].contains(&words) && told[0].contains("holdfast cluster add-learner"),
            "{said}"
        );
    }
    cluster.converge().await;
}

/// A wiped machine comes back under its old number. It forgot votes and entries that others counted on, so the
/// cluster must not take it for the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_under_its_old_number_does_not_rejoin() {
    let mut cluster = Cluster::start().await;
    let load = Load::start(&cluster, 4);
    load.progress(100).await;
    let wiped = cluster.follower().await;
    cluster.kill(wiped);
    cluster.wipe(wiped);
    let (_, said) = cluster.expect_refusal(wiped);
    assert!(
        said.contains("replace") || said.contains("new node id"),
        "the refusal does not say what to do:\n{said}"
    );
    load.progress(50).await;
    load::verify_everywhere(&cluster, &load.stop().await).await;
}

/// The number of a member that was removed is never given out again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_number_is_not_given_out_again() {
    let mut cluster = Cluster::start().await;
    let gone = cluster.follower().await;
    cluster.kill(gone);
    cluster.wipe(gone);
    let said = cli::run(
        &cluster,
        &["cluster", "remove", &gone.to_string(), "--timeout", "30s"],
    )
    .await;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);

    let leader = cluster.leader().await;
    let mut admin = api::cluster_service(&cluster.admin_address(leader))
        .await
        .unwrap();
    let add = holdfast_wire::v1::AddLearnerRequest {
        node_id: gone,
        addresses: Some(holdfast_wire::v1::MemberAddresses {
            peer: cluster.peer_address(gone),
            client: cluster.client_address(gone),
            admin: cluster.admin_address(gone),
        }),
        ..Default::default()
    };
    let answer = admin.add_learner(api::request(add, api::CALL_LIMIT)).await;
    api::assert_status(answer, Code::AlreadyExists, "MEMBER_EXISTS");
}

/// A directory written by a later release.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_format_on_disk_is_refused() {
    let mut cluster = Cluster::start().await;
    cluster.kill(3);
    let format = cluster.data_dir(3).join("FORMAT");
    let text = fs::read_to_string(&format).unwrap();
    let newer: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '9' } else { c })
        .collect();
    assert_ne!(text, newer, "{text}");
    fs::write(&format, newer).unwrap();
    let (_, said) = cluster.expect_refusal(3);
    assert!(said.contains("newer release"), "{said}");

    fs::write(&format, text).unwrap();
    cluster.spawn(3);
    cluster.converge().await;
}
