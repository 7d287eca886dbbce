//! A full disk stops the engine with a clear message and loses nothing that was synced; the ballast lets it start again.
//!
//! The disk is a small tmpfs in a user namespace of its own; where the machine refuses those, the test says so and passes.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

mod support;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use holdfast_storage::engine::{Batch, Engine, EngineError};
use holdfast_storage_rocksdb::{OpenOptions, RocksEngine};
use holdfast_types::Family;
use support::{count_rows, key};

const MIB: u64 = 1 << 20;

fn open(directory: &Path) -> Result<RocksEngine, EngineError> {
    RocksEngine::open(OpenOptions {
        memory_budget_bytes: 64 * MIB,
        ballast_bytes: 16 * MIB,
        ..OpenOptions::new(directory)
    })
}

#[test]
fn a_full_disk() {
    let root = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c"])
        .arg(r#"mount -t tmpfs -o size=96m tmpfs "$0" || exit 77; exec "$1" --exact inside --nocapture"#)
        .arg(root.path())
        .arg(std::env::current_exe().unwrap())
        .env("HOLDFAST_TEST_SMALL_DISK", root.path())
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) if output.status.code() == Some(101) => {
            panic!("{}", String::from_utf8_lossy(&output.stderr));
        }
        other => println!("skipped: no small file system to be had here: {other:?}"),
    }
}

/// The other half of the test above, in its namespace.
#[test]
fn inside() {
    let Some(disk) = std::env::var_os("HOLDFAST_TEST_SMALL_DISK") else {
        return;
    };
    let directory = Path::new(&disk).join("data");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let engine = open(&directory).unwrap();
    let mut synced = 0;
    let error = runtime.block_on(async {
        for n in 0.. {
            if let Err(error) = write_row(&engine, n) {
                return error;
            }
            if n % 10 == 0 {
                match engine.sync().await {
                    Ok(_) => synced = n + 1,
                    Err(error) => return error,
                }
            }
        }
        unreachable!("a small disk ends")
    });
    let message = error.to_string();
    assert!(
        message.contains("No space left") || message.contains("the disk is full"),
        "{message}"
    );
    let stopped = engine.write(Batch::default()).unwrap_err();
    assert!(matches!(stopped, EngineError::Stopped { .. }), "{stopped}");
    drop(engine);

    // Somebody else takes what a failed flush may have given back.
    let mut greedy = File::create(Path::new(&disk).join("greedy")).unwrap();
    while greedy.write_all(&[1; 4096]).is_ok() {}

    let engine = open(&directory).unwrap();
    assert!(
        !directory.join("ballast").exists(),
        "nothing was given up to make this start possible"
    );
    let kept = count_rows(&engine);
    assert!(kept >= synced, "{kept} of {synced} synced rows");

    drop(engine);

    // With room again, life goes on.
    let status = Command::new("mount")
        .args(["-o", "remount,size=256m"])
        .arg(&disk)
        .status();
    assert!(status.unwrap().success());
    let engine = open(&directory).unwrap();
    assert_eq!(count_rows(&engine), kept);
    let mut batch = Batch::default();
    for family in [Family::RaftLog, Family::Account] {
        batch.delete_range(family, key(0), key(u64::MAX));
    }
    engine.write(batch).unwrap();
    runtime.block_on(engine.flush()).unwrap();
    assert_eq!(count_rows(&engine), 0);
}

/// As the other tests' rows, but the account's is large and does not compress.
fn write_row(engine: &RocksEngine, n: u64) -> Result<(), EngineError> {
    let mut random = holdfast_storage::choices::SplitMix64::new(n);
    let noise: Vec<u8> = (0..4096).flat_map(|_| random.next_u64().to_be_bytes()).collect();
    let mut batch = Batch::default();
    batch.put(Family::RaftLog, key(n), vec![n as u8; 100]);
    batch.put(Family::Account, key(n), noise);
    engine.write(batch).map(drop)
}
