//! No quorum, and damage on a disk: an answer inside the deadline, or a node that stops with one clear message while
//! the others go on.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_tests::api;
use holdfast_tests::cluster::{Cluster, Options};
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

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The first of the store's files whose name is like that.
fn store_file(data: &Path, like: impl Fn(&str) -> bool) -> PathBuf {
    let mut files: Vec<PathBuf> = fs::read_dir(data.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| like(path.file_name().unwrap().to_str().unwrap()))
        .collect();
    files.sort();
    files.remove(0)
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// The one line with which a node of exit code 9 says why it ended.
fn why(status: std::process::ExitStatus, said: &str) -> String {
    assert_eq!(status.code(), Some(9), "{said}");
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "not one message:\n{said}");
    errors[0].to_owned()
}

/// Each way in which a directory can be found damaged at the start ends the process with exit code 9 and one message:
/// which file, what is wrong, what to do. And none of them is a start from a guess: the directory as it was still works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_directory_ends_the_process_with_one_message() {
    type Damage = fn(&Path);
    let table: [(&str, Damage, &str); 8] = [
        (
            "FORMAT lost",
            |data| fs::remove_file(data.join("FORMAT")).unwrap(),
            "/FORMAT is missing",
        ),
        (
            "FORMAT is no text",
            |data| fs::write(data.join("FORMAT"), [0xff, 0xfe]).unwrap(),
            "/FORMAT does not say a format",
        ),
        (
            "mark lost",
            |data| fs::remove_file(data.join("synced")).unwrap(),
            "/synced is missing",
        ),
        (
            "store lost",
            |data| fs::remove_dir_all(data.join("db")).unwrap(),
            "/db is missing",
        ),
        (
            "CURRENT lost",
            |data| fs::remove_file(data.join("db/CURRENT")).unwrap(),
            "/db/CURRENT is missing",
        ),
        (
            "manifest lost",
            |data| fs::remove_file(store_file(data, |name| name.starts_with("MANIFEST-"))).unwrap(),
            " is missing",
        ),
        (
            "manifest damaged",
            |data| flip(&store_file(data, |name| name.starts_with("MANIFEST-")), 20),
            " is damaged (RocksDB: Corruption",
        ),
        (
            "table lost",
            |data| fs::remove_file(store_file(data, |name| name.ends_with(".sst"))).unwrap(),
            ".sst is missing",
        ),
    ];
    let mut cluster = filled().await;
    cluster.terminate(1, Duration::from_secs(30));
    let data = cluster.data_dir(1);
    let whole = cluster.path().join("whole");
    copy(&data, &whole);
    for (name, damage, words) in table {
        fs::remove_dir_all(&data).unwrap();
        copy(&whole, &data);
        damage(&data);
        let (status, said) = cluster.expect_refusal(1);
        let why = why(status, &said);
        for words in [words, "Nothing was changed", "`holdfast cluster replace`"] {
            assert!(why.contains(words), "{name}: {why}");
        }
    }
    fs::remove_dir_all(&data).unwrap();
    copy(&whole, &data);
    cluster.spawn(1);
    cluster.leader().await;
    read_kept(&cluster).await.unwrap();
}

/// One node with an account in its tables.
async fn filled() -> Cluster {
    let mut cluster = Cluster::start_with(Options {
        nodes: 1,
        ..Options::default()
    })
    .await;
    let create = api::create("kept", "kept@example.com", &api::request_id());
    let options = holdfast_client::CallOptions::deadline(Duration::from_secs(30));
    cluster.client().create_account(create, &options).await.unwrap();
    // Tables are written at the start, of what the log held.
    cluster.terminate(1, Duration::from_secs(30));
    cluster.spawn(1);
    cluster.leader().await;
    cluster
}

async fn read_kept(cluster: &Cluster) -> Result<(), holdfast_client::ClientError> {
    let options = holdfast_client::CallOptions::deadline(Duration::from_secs(5));
    let read = cluster.client().get_account(api::get("kept"), &options).await?;
    assert_eq!(read.account.unwrap().account_id, "kept");
    Ok(())
}

/// A bit flips in the tables. Whether it is found at the start or by a read, the node ends, does not answer from what it
/// cannot read, and does not start again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_table_ends_the_process_when_it_is_read() {
    let mut cluster = filled().await;
    cluster.terminate(1, Duration::from_secs(30));
    for entry in fs::read_dir(cluster.data_dir(1).join("db")).unwrap().flatten() {
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "sst")
        {
            // Tables begin with their rows.
            flip(&entry.path(), 20);
        }
    }
    let before = cluster.log(1).len();
    cluster.spawn(1);
    let end = Instant::now() + Duration::from_secs(60);
    let status = loop {
        assert!(read_kept(&cluster).await.is_err(), "a damaged table was read");
        if let Some(status) = cluster.wait_stopped(1, Duration::from_millis(200)) {
            break status;
        }
        assert!(
            Instant::now() < end,
            "the node goes on:\n{}",
            &cluster.log(1)[before..]
        );
    };
    let met = why(status, &cluster.log(1)[before..]);
    for words in ["Corruption", ".sst", "`holdfast cluster replace`"] {
        assert!(met.contains(words), "{met}");
    }
    // Whoever starts it again is told before it votes or leads.
    let (status, said) = cluster.expect_refusal(1);
    let refused = why(status, &said);
    for words in ["/DAMAGED, written by an earlier process, says: ", ".sst"] {
        assert!(refused.contains(words), "{refused}");
    }
}
