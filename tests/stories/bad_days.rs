//! No quorum, and damage on a disk: an answer inside the deadline, or a node that stops with one clear message while
//! the others go on.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_tests::api;
use holdfast_tests::cluster::Cluster;
use holdfast_tests::load::{self, Load};
use holdfast_wire::status::OutcomeView;
use tonic::Code;

/// Two of three nodes are gone. The third answers every call with UNAVAILABLE before the deadline, says whether a
/// write may have happened, and works again as soon as one comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_calls_fail_inside_their_deadline() {
    let mut cluster = Cluster::start().await;
    let last = cluster.leader().await;
    let others: Vec<u64> = cluster.founders().into_iter().filter(|id| *id != last).collect();
    let mut accounts = api::accounts(&cluster.client_address(last)).await.unwrap();
    let create = api::create("kept", "kept@example.com", &api::request_id());
    accounts
        .create_account(api::request(create, api::CALL_LIMIT))
        .await
        .unwrap();
    for id in &others {
        cluster.kill(*id);
    }

    let deadline = Duration::from_secs(2);
    let write = api::set_counter("kept", 1, &api::request_id());
    for round in 0..3 {
        let began = Instant::now();
        let status = accounts
            .update_account(api::request(write.clone(), deadline))
            .await
            .expect_err("a write without a quorum was acknowledged");
        assert!(
            began.elapsed() < deadline + Duration::from_millis(500),
            "round {round} took {:?}",
            began.elapsed()
        );
        assert!(
            matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
            "{status:?}"
        );
        // The first one reached the log: nobody can say yet what becomes of it.
        if round == 0 {
            assert_eq!(api::outcome(&status), OutcomeView::Unknown, "{status:?}");
        }

        let began = Instant::now();
        let status = accounts
            .get_account(api::request(api::get("kept"), deadline))
            .await
            .expect_err("a linearizable read without a quorum was answered");
        assert!(
            began.elapsed() < deadline + Duration::from_millis(500),
            "round {round} took {:?}",
            began.elapsed()
        );
        assert!(
            matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
            "{status:?}"
        );
    }

    cluster.spawn(others[0]);
    cluster.leader().await;
    let client = cluster.client();
    let options = holdfast_client::CallOptions::deadline(Duration::from_secs(30));
    client.update_account(write, &options).await.unwrap();
    let read = client.get_account(api::get("kept"), &options).await.unwrap();
    let account = read.account.unwrap();
    assert_eq!(
        (api::counter(&account), account.revision),
        (1, 2),
        "the write ran once"
    );
}

/// The newest write-ahead log of node `id`, and how long it is.
fn newest_log(data: &Path) -> (PathBuf, u64) {
    let mut logs = Vec::new();
    let mut directories = vec![data.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                logs.push((path.clone(), entry.metadata().unwrap().len()));
            }
        }
    }
    logs.sort();
    logs.pop().expect("a data directory with a write-ahead log")
}

/// A bit flips in the middle of what was synced. RocksDB alone would silently come up with the records before it,
/// and the node would have forgotten votes and entries that the cluster counts on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_damaged_below_the_synced_mark_stops_the_node_and_only_it() {
    let mut cluster = Cluster::start().await;
    let load = Load::start(&cluster, 8);
    load.progress(300).await;
    let victim = cluster.follower().await;
    cluster.kill(victim);

    let (log, _) = newest_log(&cluster.data_dir(victim));
    let file = fs::File::options().read(true).write(true).open(&log).unwrap();
    // Preallocated files end in zeros: what was written is what is not zero.
    let written = fs::read(&log)
        .unwrap()
        .iter()
        .rposition(|byte| *byte != 0)
        .unwrap() as u64;
    let mut damage = [0; 64];
    file.read_exact_at(&mut damage, written / 2).unwrap();
    file.write_all_at(&damage.map(|byte| byte ^ 0x5a), written / 2)
        .unwrap();
    drop(file);

    let (_, said) = cluster.expect_refusal(victim);
    assert!(
        said.contains("mark") || said.contains("damage"),
        "the refusal does not say what happened:\n{said}"
    );
    assert!(
        said.contains("new id"),
        "the refusal does not say what to do:\n{said}"
    );

    load.progress(100).await;
    let ledger = load.stop().await;
    load::verify_everywhere(&cluster, &ledger).await;
}
