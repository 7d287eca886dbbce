//! The faults are what they say. That the engine is otherwise a good one, the contract suite shows.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_types::Family;

use super::*;
use crate::engine::{Batch, Direction, Engine, EngineError, Seq};

fn put(key: u64, value: &'static str) -> Batch {
    let mut batch = Batch::default();
    batch.put(Family::Account, key.to_be_bytes().to_vec(), value);
    batch
}

fn get(engine: &FaultyEngine, key: u64) -> Option<Bytes> {
    engine.view().get(Family::Account, &key.to_be_bytes()).unwrap()
}

#[tokio::test]
async fn every_prefix_of_unsynced_batches_is_possible() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let disk = FaultyDisk::new(seed);
        let engine = disk.open().unwrap();
        for key in 0..4 {
            engine.write(put(key, "x")).unwrap();
        }
        engine.sync().await.unwrap();
        for key in 4..8 {
            engine.write(put(key, "x")).unwrap();
        }
        seen.insert(disk.crash());
        // The old engine is dead, the new one goes on.
        assert!(matches!(
            engine.write(put(9, "x")),
            Err(EngineError::Stopped { .. })
        ));
        assert!(engine.view().get(Family::Account, b"").is_err());
        disk.open().unwrap().write(put(9, "x")).unwrap();
    }
    assert_eq!(seen, (4..=8).map(Seq).collect());
}

#[tokio::test]
async fn the_same_seed_gives_the_same_disk() {
    let survivors = |seed| {
        let disk = FaultyDisk::new(seed);
        let mut all = Vec::new();
        for _ in 0..50 {
            let engine = disk.open().unwrap();
            for key in 0..10 {
                engine.write(put(key, "x")).unwrap();
            }
            all.push(disk.crash());
        }
        all
    };
    assert_eq!(survivors(1), survivors(1));
    assert_ne!(survivors(1), survivors(2));
}

#[tokio::test]
async fn a_failed_sync_is_the_end() {
    let mut lost = 0;
    for seed in 0..20 {
        let disk = FaultyDisk::new(seed);
        let engine = disk.open().unwrap();
        engine.write(put(1, "synced")).unwrap();
        engine.sync().await.unwrap();
        engine.write(put(2, "unsynced")).unwrap();
        disk.configure(|faults| faults.fail_next_sync = true);
        assert!(matches!(
            engine.sync().await,
            Err(EngineError::Io {
                operation: "sync",
                ..
            })
        ));
        // Trying again never helps, although the disk is well again.
        assert!(matches!(engine.sync().await, Err(EngineError::Stopped { .. })));
        assert!(matches!(
            engine.write(put(3, "x")),
            Err(EngineError::Stopped { .. })
        ));
        drop(engine);
        // Even a restart without power failure may find it gone.
        let engine = disk.open().unwrap();
        assert_eq!(get(&engine, 1), Some(Bytes::from("synced")));
        lost += u32::from(get(&engine, 2).is_none());
    }
    assert!((1..20).contains(&lost), "lost {lost} times of 20");
}

#[tokio::test]
async fn a_crash_may_split_an_ingest_between_families() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let disk = FaultyDisk::new(seed);
        disk.configure(|faults| faults.sync_delay = Duration::from_millis(2));
        let engine = Arc::new(disk.open().unwrap());
        let rows = || vec![(Bytes::from("k"), Bytes::from("v"))];
        let ingest = engine.ingest(vec![(Family::Account, rows()), (Family::Claim, rows())]);
        // Given up at a random moment, as by a killed node.
        let _ = tokio::time::timeout(Duration::from_millis(seed % 7), ingest).await;
        disk.crash();
        let view = disk.open().unwrap().view();
        let has = |family| view.get(family, b"k").unwrap().is_some();
        seen.insert((has(Family::Account), has(Family::Claim)));
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[tokio::test]
async fn a_flipped_bit_is_found_at_open() {
    let disk = FaultyDisk::new(0);
    let engine = disk.open().unwrap();
    engine.write(put(1, "x")).unwrap();
    engine.sync().await.unwrap();
    disk.flip_bit();
    drop(engine);
    assert!(matches!(disk.open(), Err(EngineError::Damaged { .. })));
    assert!(matches!(disk.open(), Err(EngineError::Damaged { .. })));
}

#[tokio::test]
async fn a_bit_flipped_in_a_row_is_found_where_it_is_read() {
    let disk = FaultyDisk::new(0);
    let engine = disk.open().unwrap();
    assert!(!disk.flip_bit_in(Family::Account));
    engine.write(put(1, "x")).unwrap();
    engine.sync().await.unwrap();
    engine.write(put(2, "not yet durable, so not chosen")).unwrap();
    assert!(disk.flip_bit_in(Family::Account));
    let damaged = |row: Result<Option<Bytes>, EngineError>| matches!(row, Err(EngineError::Damaged { .. }));
    let read = |key: u64| engine.view().get(Family::Account, &key.to_be_bytes());
    assert!(damaged(read(1)) && !damaged(read(2)));
    let all = |direction| {
        let view = engine.view();
        let rows = view.scan(Family::Account, Bound::Unbounded, Bound::Unbounded, direction);
        rows.map(|row| row.is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(all(Direction::Forward), [false, true]);
    assert_eq!(all(Direction::Backward), [true, false]);
    // It stays where it is when the power fails, and nobody opens the disk who does not know better.
    disk.crash();
    assert!(matches!(disk.open(), Err(EngineError::Damaged { .. })));
    disk.forget_damage();
    let engine = disk.open().unwrap();
    assert!(damaged(engine.view().get(Family::Account, &1_u64.to_be_bytes())));
    // It goes when the row is written anew.
    engine.write(put(1, "y")).unwrap();
    assert_eq!(get(&engine, 1), Some(Bytes::from("y")));
}

#[tokio::test]
async fn a_full_disk_shows_before_it_fails() {
    let disk = FaultyDisk::new(0);
    let engine = disk.open().unwrap();
    disk.configure(|faults| faults.capacity_bytes = Some(100));
    engine.write(put(1, "0123456789")).unwrap();
    let usage = engine.usage().unwrap();
    assert_eq!(
        (usage.disk_free_bytes, usage.disk_total_bytes),
        (Some(82), Some(100))
    );
    let mut batch = Batch::default();
    batch.put(Family::Account, "large", vec![0; 100]);
    assert!(matches!(
        engine.write(batch),
        Err(EngineError::Io {
            operation: "write",
            ..
        })
    ));
    assert!(matches!(
        engine.write(put(2, "")),
        Err(EngineError::Stopped { .. })
    ));
    drop(engine);
    let engine = disk.open().unwrap();
    assert_eq!(get(&engine, 1), Some(Bytes::from("0123456789")));
}

#[tokio::test]
async fn a_stalled_sync_goes_on_when_the_stall_is_lifted() {
    let disk = FaultyDisk::new(0);
    disk.configure(|faults| faults.sync_stalled = true);
    let engine = Arc::new(disk.open().unwrap());
    engine.write(put(1, "x")).unwrap();
    let syncing = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.sync().await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!syncing.is_finished());
    assert_eq!(disk.synced(), Seq(0));
    disk.configure(|faults| faults.sync_stalled = false);
    assert_eq!(syncing.await.unwrap().unwrap(), Seq(1));
    assert_eq!(disk.synced(), Seq(1));
}

#[tokio::test]
async fn a_sync_covers_what_was_written_before_it_began() {
    let disk = FaultyDisk::new(0);
    disk.configure(|faults| faults.sync_delay = Duration::from_millis(5));
    let engine = disk.open().unwrap();
    engine.write(put(1, "x")).unwrap();
    let (synced, ()) = tokio::join!(engine.sync(), async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        engine.write(put(2, "x")).unwrap();
    });
    assert_eq!(synced.unwrap(), Seq(1));
    assert_eq!((disk.synced(), disk.last()), (Seq(1), Seq(2)));
}

#[tokio::test]
async fn reads_fail_while_told_to() {
    let disk = FaultyDisk::new(0);
    let engine = disk.open().unwrap();
    engine.write(put(1, "x")).unwrap();
    let view = engine.view();
    disk.configure(|faults| faults.fail_reads = true);
    assert!(view.get(Family::Account, &1_u64.to_be_bytes()).is_err());
    disk.configure(|faults| faults.fail_reads = false);
    assert!(view.get(Family::Account, &1_u64.to_be_bytes()).unwrap().is_some());
}

/// Views must not cost what the store holds: with a copy a view this would take minutes.
#[tokio::test]
async fn views_of_a_large_store_are_cheap() {
    let disk = FaultyDisk::new(0);
    let engine = disk.open().unwrap();
    let mut pinned = Vec::new();
    for key in 0..100_000 {
        engine.write(put(key, "some value of a few bytes")).unwrap();
        let view = engine.view();
        if key % 1_000 == 0 {
            engine.sync().await.unwrap();
            pinned.push(view);
        }
    }
    assert_eq!(pinned.len(), 100);
    assert!(get(&engine, 99_999).is_some());
}
