//! A full disk stops the engine with a clear message and loses nothing that was synced; the ballast lets it start again, and is
//! back when there is room again.
//!
//! The disk is a small tmpfs in a user namespace of its own; where the machine refuses those, the test says so and passes.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

mod support;

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use holdfast_storage::engine::{Batch, Engine, EngineError};
use holdfast_storage_rocksdb::{OpenOptions, RocksEngine};
use holdfast_types::Family;
use support::{count_rows, key, skip};

const MIB: u64 = 1 << 20;

fn open(directory: &Path) -> Result<RocksEngine, EngineError> {
    RocksEngine::open(OpenOptions {
        memory_budget_bytes: 64 * MIB,
        ballast_bytes: 32 * MIB,
        ..OpenOptions::new(directory)
    })
}

#[test]
fn a_full_disk() {
    let root = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c"])
        .arg(r#"mount -t tmpfs -o size=160m tmpfs "$0" || exit 77; exec "$1" --exact inside --nocapture"#)
        .arg(root.path())
        .arg(std::env::current_exe().unwrap())
        .env("HOLDFAST_TEST_SMALL_DISK", root.path())
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) if output.status.code() == Some(101) => {
            panic!("{}", String::from_utf8_lossy(&output.stderr));
        }
        other => skip(
            "a_full_disk",
            &format!("no small file system to be had here: {other:?}"),
        ),
    }
}

/// The other half of the test above, in its namespace.
#[test]
fn inside() {
    let Some(disk) = std::env::var_os("HOLDFAST_TEST_SMALL_DISK") else {
        return;
    };
    let disk = Path::new(&disk);
    // The second time on what the first has left.
    for _ in 0..2 {
        writes_until_it_is_full(disk);
        resize(disk, 384);
        recovers(disk);
        resize(disk, 160);
    }
    for work in ["flush", "ingest", "checkpoint"] {
        work_without_room(disk, work);
    }
}

fn writes_until_it_is_full(disk: &Path) {
    let directory = disk.join("data");
    let engine = open(&directory).unwrap();
    assert!(directory.join("ballast").exists());
    let mut synced = 0;
    let error = runtime().block_on(async {
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
    assert_stopped(engine.write(Batch::default()).map(drop));
    drop(engine);

    // Somebody else takes what a failed flush may have given back.
    take_all(disk);
    let engine = open(&directory).unwrap();
    assert!(
        !directory.join("ballast").exists(),
        "nothing was given up to make this start possible"
    );
    let kept = count_rows(&engine);
    assert!(kept >= synced, "{kept} of {synced} synced rows");
    drop(engine);
    fs::remove_file(disk.join("greedy")).unwrap();
    assert_eq!(
        count_rows(&open(&directory).unwrap()),
        kept,
        "lost after the start"
    );
}

/// With room again, life goes on, and the ballast is back.
fn recovers(disk: &Path) {
    let directory = disk.join("data");
    let engine = open(&directory).unwrap();
    let ballast = fs::metadata(directory.join("ballast")).unwrap();
    assert_eq!(ballast.len(), 32 * MIB);
    let kept = count_rows(&engine);
    write_row(&engine, kept).unwrap();
    runtime().block_on(engine.sync()).unwrap();
    drop(engine);

    let engine = open(&directory).unwrap();
    assert_eq!(count_rows(&engine), kept + 1);
    let mut batch = Batch::default();
    for family in [Family::RaftLog, Family::Account] {
        batch.delete_range(family, key(0), key(u64::MAX));
    }
    engine.write(batch).unwrap();
    runtime().block_on(engine.flush()).unwrap();
    assert_eq!(count_rows(&engine), 0);
    drop(engine);
    // Tables that hold nothing any more go when they are compacted; a new directory is quicker.
    fs::remove_dir_all(directory).unwrap();
}

/// The disk is full when work that needs room begins: sooner or later it fails, and what was synced is there afterwards.
fn work_without_room(disk: &Path, work: &str) {
    let directory = disk.join("data");
    let engine = open(&directory).unwrap();
    engine.release_ballast().unwrap();
    let (mut written, mut synced) = (0, 0);
    let failed: Result<Infallible, EngineError> = runtime().block_on(async {
        loop {
            for _ in 0..40 {
                write_row(&engine, written)?;
                written += 1;
            }
            engine.sync().await?;
            synced = written;
            take_all(disk);
            // RocksDB gives back a little that it had reserved, so this may go well once or twice.
            match work {
                "flush" => drop(engine.flush().await?),
                "ingest" => {
                    let rows = (0..20).map(|n| (key(n), Bytes::from(noise(n)))).collect();
                    engine.ingest(vec![(Family::Txn, rows)]).await?;
                }
                _ => engine.checkpoint(&disk.join(format!("copy-{written}"))).await?,
            }
        }
    });
    let Err(error) = failed;
    assert!(error.to_string().contains("No space left"), "{work}: {error}");
    drop(engine);

    fs::remove_file(disk.join("greedy")).unwrap();
    let kept = count_rows(&open(&directory).unwrap());
    assert!(
        (synced..=written + 1).contains(&kept),
        "{work}: {kept} rows, {synced} synced"
    );
    for entry in fs::read_dir(disk).unwrap() {
        let path = entry.unwrap().path();
        let copied = path.file_name().unwrap().to_str().unwrap().strip_prefix("copy-");
        // A checkpoint that failed is not there, or does not open.
        if let (Some(copied), Ok(copy)) = (copied, open(&path)) {
            assert_eq!(count_rows(&copy).to_string(), copied);
        }
        fs::remove_dir_all(path).unwrap();
    }
}

fn assert_stopped(result: Result<(), EngineError>) {
    assert!(matches!(result, Err(EngineError::Stopped { .. })), "{result:?}");
}

/// Somebody else uses up the disk.
fn take_all(disk: &Path) {
    let mut greedy = File::create(disk.join("greedy")).unwrap();
    while greedy.write_all(&[1; 4096]).is_ok() {}
}

fn resize(disk: &Path, mib: u64) {
    let status = Command::new("mount")
        .args(["-o", &format!("remount,size={mib}m")])
        .arg(disk)
        .status();
    assert!(status.unwrap().success());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// As the other tests' rows, but the account's is large and does not compress.
fn write_row(engine: &RocksEngine, n: u64) -> Result<(), EngineError> {
    let mut batch = Batch::default();
    batch.put(Family::RaftLog, key(n), vec![n as u8; 100]);
    batch.put(Family::Account, key(n), noise(n));
    engine.write(batch).map(drop)
}

fn noise(n: u64) -> Vec<u8> {
    let mut random = holdfast_storage::choices::SplitMix64::new(n);
    (0..4096).flat_map(|_| random.next_u64().to_be_bytes()).collect()
}
