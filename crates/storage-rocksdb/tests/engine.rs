//! What RocksDB adds to the contract every engine keeps: one process, fail-stop, checkpoints, numbers, the ballast.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

mod support;

use std::ops::Bound;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use holdfast_storage::engine::{Batch, Direction, Engine, EngineError, Stall};
use holdfast_storage_rocksdb::{OpenOptions, RocksEngine};
use holdfast_types::Family;
use support::{count_rows, key, open, write_rows};

#[tokio::test]
async fn two_engines_on_one_directory() {
    let root = tempfile::tempdir().unwrap();
    let first = open(root.path()).unwrap();
    let message = open(root.path()).unwrap_err().to_string();
    assert!(message.contains("is in use by"), "{message}");
    let view = first.view();
    drop(first);
    assert!(open(root.path()).is_err(), "a view keeps the database open");
    drop(view);
    open(root.path()).unwrap();
}

/// The other process of the next test: opens the directory named in the environment, and says what happened.
#[test]
fn other_process() {
    let Ok(directory) = std::env::var("HOLDFAST_TEST_DIRECTORY") else {
        return;
    };
    match open(directory.as_ref()) {
        Ok(_) => println!("opened"),
        Err(error) => println!("{error}"),
    }
}

#[tokio::test]
async fn two_processes_on_one_directory() {
    let root = tempfile::tempdir().unwrap();
    let _first = open(root.path()).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "other_process", "--nocapture"])
        .env("HOLDFAST_TEST_DIRECTORY", root.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let holder = format!("is in use by process {}", std::process::id());
    assert!(text.contains(&holder) && text.contains("stop that one"), "{text}");
}

#[tokio::test]
async fn a_failed_sync_stops_everything() {
    let root = tempfile::tempdir().unwrap();
    let engine = open(root.path()).unwrap();
    write_rows(&engine, 0..10);
    let view = engine.view();
    engine.fail_next_sync();
    let error = engine.sync().await.unwrap_err();
    assert!(
        matches!(
            error,
            EngineError::Io {
                operation: "sync",
                ..
            }
        ),
        "{error}"
    );

    let stopped =
        |result: Result<(), EngineError>| assert!(matches!(result, Err(EngineError::Stopped { .. })));
    stopped(engine.sync().await.map(drop));
    stopped(engine.flush().await.map(drop));
    stopped(engine.write(Batch::default()).map(drop));
    stopped(engine.ingest(vec![]).await);
    stopped(view.get(Family::Account, &key(0)).map(drop));
    stopped(view.multi_get(Family::Account, &[&key(0)]).map(drop));
    let mut rows = view.scan(
        Family::Account,
        Bound::Unbounded,
        Bound::Unbounded,
        Direction::Forward,
    );
    stopped(rows.next().unwrap().map(drop));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn syncs_are_shared_and_cover_what_was_written_before() {
    let root = tempfile::tempdir().unwrap();
    let engine = std::sync::Arc::new(open(root.path()).unwrap());
    let tasks: Vec<_> = (0..32u64)
        .map(|n| {
            let engine = engine.clone();
            tokio::spawn(async move {
                for round in 0..20 {
                    let mut batch = Batch::default();
                    batch.put(Family::RaftLog, key(n * 1000 + round), "entry");
                    let written = engine.write(batch).unwrap();
                    assert!(engine.sync().await.unwrap() >= written);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_checkpoint_is_a_data_directory() {
    let root = tempfile::tempdir().unwrap();
    let engine = open(root.path()).unwrap();
    write_rows(&engine, 0..100);
    let target = root.path().join("copies").join("monday");
    engine.checkpoint(&target).await.unwrap();
    write_rows(&engine, 100..120);

    let copy = open(&target).unwrap();
    assert_eq!(count_rows(&copy), 100);
    write_rows(&copy, 100..101);
    copy.sync().await.unwrap();
    assert_eq!(count_rows(&engine), 120);

    let error = engine.checkpoint(&target).await.unwrap_err();
    assert!(error.to_string().contains("is not empty"), "{error}");
    engine.sync().await.expect("a failed checkpoint is not terminal");
}

#[tokio::test]
async fn ingested_rows_replace_and_survive_a_crash() {
    let root = tempfile::tempdir().unwrap();
    let engine = open(root.path()).unwrap();
    write_rows(&engine, 0..100);
    let rows = |value: &'static str| {
        (0..50u64)
            .map(|n| (key(n), Bytes::from_static(value.as_bytes())))
            .collect()
    };
    engine
        .ingest(vec![
            (Family::Account, rows("a")),
            (Family::Due, rows("d")),
            (Family::Txn, vec![]),
        ])
        .await
        .unwrap();
    engine.ingest(vec![(Family::Account, rows("b"))]).await.unwrap();
    let mut batch = Batch::default();
    batch.put(Family::Account, key(7), "c");
    engine.write(batch).unwrap();

    let crashed = tempfile::tempdir().unwrap();
    support::copy(root.path(), crashed.path());
    for engine in [engine, open(crashed.path()).unwrap()] {
        let view = engine.view();
        assert_eq!(view.get(Family::Account, &key(6)).unwrap().unwrap(), "b");
        assert_eq!(view.get(Family::Account, &key(7)).unwrap().unwrap(), "c");
        assert_eq!(
            view.get(Family::Account, &key(60)).unwrap().unwrap(),
            vec![60; 50]
        );
        assert_eq!(view.get(Family::Due, &key(49)).unwrap().unwrap(), "d");
    }
}

#[tokio::test]
async fn scans_keep_to_their_bounds() {
    let root = tempfile::tempdir().unwrap();
    let engine = open(root.path()).unwrap();
    write_rows(&engine, 0..10);
    engine.flush().await.unwrap();
    let mut batch = Batch::default();
    batch.delete_range(Family::RaftLog, key(3), key(5));
    batch.delete_range(Family::RaftLog, key(9), key(2));
    engine.write(batch).unwrap();

    let view = engine.view();
    let scan = |from: Bound<u64>, to: Bound<u64>, direction| -> Vec<u64> {
        let (from, to) = (from.map(key), to.map(key));
        let from = from.as_ref().map(|key| key.as_ref());
        let to = to.as_ref().map(|key| key.as_ref());
        view.scan(Family::RaftLog, from, to, direction)
            .map(|row| u64::from_be_bytes(row.unwrap().0.as_ref().try_into().unwrap()))
            .collect()
    };
    use Bound::{Excluded, Included, Unbounded};
    assert_eq!(
        scan(Unbounded, Unbounded, Direction::Forward),
        [0, 1, 2, 5, 6, 7, 8, 9]
    );
    assert_eq!(scan(Included(2), Excluded(6), Direction::Forward), [2, 5]);
    assert_eq!(scan(Excluded(2), Included(6), Direction::Backward), [6, 5]);
    assert_eq!(scan(Included(8), Unbounded, Direction::Backward), [9, 8]);
    assert_eq!(scan(Included(6), Included(2), Direction::Forward), [0u64; 0]);
    assert_eq!(scan(Excluded(6), Excluded(6), Direction::Backward), [0u64; 0]);
}

#[tokio::test]
async fn numbers_and_ballast() {
    let root = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(OpenOptions {
        memory_budget_bytes: 64 << 20,
        ballast_bytes: 1 << 20,
        ..OpenOptions::new(root.path())
    })
    .unwrap();
    write_rows(&engine, 0..100);
    engine.flush().await.unwrap();
    let usage = engine.usage().unwrap();
    let account = usage
        .families
        .iter()
        .find(|(family, _)| *family == Family::Account);
    assert!(account.unwrap().1 > 0);
    assert!(usage.disk_bytes > 0);
    assert!(usage.memory_bytes > 0);
    assert!(usage.disk_total_bytes.unwrap() >= usage.disk_free_bytes.unwrap());
    assert_eq!(engine.stall(), Stall::None);

    assert_eq!(engine.release_ballast().unwrap(), 1 << 20);
    assert_eq!(engine.release_ballast().unwrap(), 0);
}

#[tokio::test]
async fn the_mark_reaches_the_disk_by_itself() {
    let root = tempfile::tempdir().unwrap();
    let engine = open(root.path()).unwrap();
    write_rows(&engine, 0..10);
    let before = std::fs::read(root.path().join("synced")).unwrap();
    engine.sync().await.unwrap();
    assert_ne!(
        std::fs::read(root.path().join("synced")).unwrap(),
        before,
        "raised before the sync returns"
    );
    tokio::time::sleep(Duration::from_millis(120)).await;
    engine
        .sync()
        .await
        .expect("the background sync of the mark did not fail");
}
