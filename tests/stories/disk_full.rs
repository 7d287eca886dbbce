//! A disk runs full. What adds data is refused before the log is at risk; what reads or frees goes on; and it clears
//! by itself. The disk is a small tmpfs in a mount namespace of the node's own, so no privileges are needed.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use holdfast_tests::cluster::{Cluster, Options, binary};
use holdfast_tests::{api, skip};
use holdfast_wire::v1;
use tonic::{Code, Status};

const RESERVE: &str = "[disk]\nreserve_mib = 48\nballast_mib = 8\n";

/// Whether this machine lets us make a mount namespace with a tmpfs in it.
fn namespaces_refused() -> Option<String> {
    let probe = Command::new("unshare")
        .args(["-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"])
        .output();
    match probe {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(why) => Some(format!("unshare: {why}")),
    }
}

/// Fills `disk` until less than `leave` bytes are free.
fn fill(disk: &Path, leave: u64) -> PathBuf {
    let path = disk.join("filler");
    let mut file = File::create(&path).unwrap();
    let block = vec![1_u8; 1 << 20];
    while free_bytes(disk) > leave {
        file.write_all(&block).unwrap();
    }
    path
}

fn free_bytes(disk: &Path) -> u64 {
    let stat = rustix::fs::statvfs(disk).unwrap();
    stat.f_bavail * stat.f_frsize
}

/// Repeats `call` until it succeeds, or fails as `expected`.
async fn until<T>(
    what: &str,
    mut call: impl AsyncFnMut() -> Result<T, Status>,
    wanted: impl Fn(&Result<T, Status>) -> bool,
) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = call().await;
        if wanted(&answer) {
            return;
        }
        assert!(
            Instant::now() < end,
            "{what}: still {:?} after 30 s",
            answer.err()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nearly_full_disk_refuses_what_adds_and_clears_by_itself() {
    if let Some(why) = namespaces_refused() {
        skip(
            "a_nearly_full_disk_refuses_what_adds_and_clears_by_itself",
            &format!("no mount namespace here: {why}"),
        );
        return;
    }
    let options = Options {
        nodes: 1,
        extra: RESERVE.to_owned(),
        ..Options::default()
    };
    let mut cluster = Cluster::lay_out(options);
    fs::create_dir(cluster.data_dir(1)).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=256m tmpfs '{}' && exec '{}' serve --config '{}'",
        cluster.data_dir(1).display(),
        binary().display(),
        cluster.config_path(1).display()
    );
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script]);
    cluster.log_output(1, &mut command);
    cluster.spawn_command(1, command);
    cluster.leader().await;
    // The disk as the node sees it, from out here.
    let disk = PathBuf::from(format!(
        "/proc/{}/root{}",
        cluster.pid(1),
        cluster.data_dir(1).display()
    ));

    let mut accounts = api::accounts(&cluster.client_address(1)).await.unwrap();
    let create = |id: &str| {
        let create = api::create(id, &format!("{id}@example.com"), &api::request_id());
        api::request(create, api::CALL_LIMIT)
    };
    for id in ["first", "second"] {
        accounts.create_account(create(id)).await.unwrap();
    }

    let filler = fill(&disk, 24 << 20);
    let mut number = 0;
    until(
        "a create on a nearly full disk",
        async || {
            number += 1;
            accounts
                .create_account(create(&format!("squeezed-{number}")))
                .await
        },
        |answer| {
            answer
                .as_ref()
                .is_err_and(|s| s.code() == Code::ResourceExhausted && api::reason(s) == "DISK_FULL")
        },
    )
    .await;
    accounts
        .get_account(api::request(api::get("first"), api::CALL_LIMIT))
        .await
        .unwrap();
    let delete = v1::DeleteAccountRequest {
        name: api::account_name("second"),
        request_id: api::request_id(),
        ..Default::default()
    };
    accounts
        .delete_account(api::request(delete, api::CALL_LIMIT))
        .await
        .unwrap();
    let status = cluster.status(1).await.unwrap().node.unwrap();
    assert!(
        status
            .alarms
            .iter()
            .any(|alarm| alarm.kind() == v1::AlarmKind::DiskFull),
        "{:?}",
        status.alarms
    );

    fs::remove_file(filler).unwrap();
    until(
        "a create once there is room again",
        async || {
            number += 1;
            accounts.create_account(create(&format!("roomy-{number}"))).await
        },
        Result::is_ok,
    )
    .await;
}
