//! Damage: a node whose log lost something that it had synced must not start; anything that was not synced may be lost,
//! from the end.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use holdfast_storage::engine::{Engine, EngineError};
use proptest::prelude::*;
use support::{copy, count_rows, log_file, log_len, open, write_rows};

/// Rows that were synced, and all that were written.
const SYNCED: u64 = 200;
const WRITTEN: u64 = 300;

/// A directory as the death of its process left it, and how long its log was when it was synced.
struct Crashed {
    root: tempfile::TempDir,
    synced_len: u64,
    written_len: u64,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Rows written, synced, then more written. With `flushes`, the log is a recycled one: it has an older log's bytes at its end.
fn crash(flushes: bool) -> Crashed {
    let live = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    let engine = open(live.path()).unwrap();
    let mut lens = (0, 0);
    runtime().block_on(async {
        if flushes {
            for round in 0..6 {
                write_rows(&engine, 0..100 + round);
                engine.sync().await.unwrap();
                engine.flush().await.unwrap();
            }
        }
        write_rows(&engine, 0..SYNCED);
        engine.sync().await.unwrap();
        lens.0 = log_len(live.path());
        write_rows(&engine, SYNCED..WRITTEN);
        lens.1 = log_len(live.path());
    });
    copy(live.path(), root.path());
    Crashed {
        root,
        synced_len: lens.0,
        written_len: lens.1,
    }
}

fn damage(root: &Path, work: impl FnOnce(&File)) {
    work(
        &File::options()
            .read(true)
            .write(true)
            .open(log_file(root))
            .unwrap(),
    );
}

fn flip(root: &Path, offset: u64) {
    damage(root, |log| {
        let mut byte = [0];
        log.read_exact_at(&mut byte, offset).unwrap();
        log.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
    });
}

fn assert_refused(root: &Path) {
    for attempt in 0..2 {
        match open(root) {
            Err(EngineError::Damaged { message }) => {
                assert!(
                    message.contains("start a new node with a new id"),
                    "attempt {attempt}: {message}"
                );
            }
            Ok(engine) => panic!("attempt {attempt}: opened with {} rows", count_rows(&engine)),
            Err(other) => panic!("attempt {attempt}: {other}"),
        }
    }
}

#[test]
fn a_crash_keeps_what_was_written() {
    for flushes in [false, true] {
        let crashed = crash(flushes);
        assert_eq!(count_rows(&open(crashed.root.path()).unwrap()), WRITTEN);
    }
}

#[test]
fn a_log_cut_below_the_synced_mark_is_refused() {
    let crashed = crash(false);
    damage(crashed.root.path(), |log| {
        log.set_len(crashed.synced_len - 1).unwrap()
    });
    assert_refused(crashed.root.path());
}

#[test]
fn a_log_cut_at_the_synced_mark_is_fine() {
    let crashed = crash(false);
    damage(crashed.root.path(), |log| {
        log.set_len(crashed.synced_len).unwrap()
    });
    let engine = open(crashed.root.path()).unwrap();
    assert_eq!(count_rows(&engine), SYNCED);
    // And life goes on from there.
    write_rows(&engine, SYNCED..SYNCED + 10);
    runtime().block_on(engine.sync()).unwrap();
    drop(engine);
    assert_eq!(count_rows(&open(crashed.root.path()).unwrap()), SYNCED + 10);
}

#[test]
fn a_lost_log_is_refused() {
    let crashed = crash(false);
    fs::remove_file(log_file(crashed.root.path())).unwrap();
    assert_refused(crashed.root.path());
}

#[test]
fn a_log_as_it_was_earlier_is_refused() {
    // A disk that said "synced" and forgot; with a recycled log the file even keeps its length.
    for flushes in [false, true] {
        let live = tempfile::tempdir().unwrap();
        let earlier = tempfile::tempdir().unwrap();
        let later = tempfile::tempdir().unwrap();
        let engine = open(live.path()).unwrap();
        runtime().block_on(async {
            if flushes {
                for _ in 0..4 {
                    write_rows(&engine, 0..500);
                    engine.sync().await.unwrap();
                    engine.flush().await.unwrap();
                }
            }
            write_rows(&engine, 0..50);
            engine.sync().await.unwrap();
            copy(live.path(), earlier.path());
            write_rows(&engine, 50..60);
            engine.sync().await.unwrap();
            copy(live.path(), later.path());
        });
        fs::copy(log_file(earlier.path()), log_file(later.path())).unwrap();
        assert_refused(later.path());
    }
}

#[test]
fn a_lost_table_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let engine = open(root.path()).unwrap();
    write_rows(&engine, 0..10);
    runtime().block_on(engine.flush()).unwrap();
    drop(engine);
    let table = fs::read_dir(root.path().join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .unwrap();
    fs::remove_file(table).unwrap();
    assert_refused(root.path());
}

#[test]
fn a_lost_store_is_refused() {
    let crashed = crash(false);
    fs::remove_dir_all(crashed.root.path().join("db")).unwrap();
    assert_refused(crashed.root.path());

    let crashed = crash(false);
    fs::remove_file(crashed.root.path().join("synced")).unwrap();
    assert_refused(crashed.root.path());
}

#[test]
fn a_damaged_table_stops_the_engine_when_it_is_read() {
    let root = tempfile::tempdir().unwrap();
    let engine = open(root.path()).unwrap();
    write_rows(&engine, 0..1000);
    runtime().block_on(engine.flush()).unwrap();
    drop(engine);
    for entry in fs::read_dir(root.path().join("db")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            let table = File::options().read(true).write(true).open(path).unwrap();
            table.write_all_at(&[0x55; 64], 200).unwrap();
        }
    }
    let engine = open(root.path()).unwrap();
    let view = engine.view();
    let error = view
        .get(holdfast_types::Family::Account, &support::key(1))
        .unwrap_err();
    assert!(matches!(error, EngineError::Damaged { .. }), "{error}");
    let error = engine.write(Default::default()).unwrap_err();
    assert!(matches!(error, EngineError::Stopped { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// One flipped bit anywhere in the log: below the synced length the engine refuses, above it keeps at least what
    /// was synced.
    #[test]
    fn one_flipped_bit(at in 0.0..1.0f64) {
        let crashed = crash(false);
        let offset = (at * crashed.written_len as f64) as u64;
        flip(crashed.root.path(), offset);
        if offset < crashed.synced_len {
            assert_refused(crashed.root.path());
        } else {
            let rows = count_rows(&open(crashed.root.path()).unwrap());
            prop_assert!((SYNCED..WRITTEN).contains(&rows), "{rows}");
        }
    }

    /// The log cut anywhere.
    #[test]
    fn one_cut(at in 0.0..1.0f64) {
        let crashed = crash(false);
        let len = (at * crashed.written_len as f64) as u64;
        damage(crashed.root.path(), |log| log.set_len(len).unwrap());
        if len < crashed.synced_len {
            assert_refused(crashed.root.path());
        } else {
            let rows = count_rows(&open(crashed.root.path()).unwrap());
            prop_assert!((SYNCED..=WRITTEN).contains(&rows), "{rows}");
        }
    }
}
