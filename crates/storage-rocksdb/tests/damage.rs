//! Damage: a node whose log lost something that it had synced must not start, nor one that has met a damaged row; anything
//! that was not synced may be lost, from the end.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

mod support;

use std::fs::{self, File};
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::Path;

use holdfast_storage::engine::{Batch, Direction, Engine, EngineError};
use holdfast_types::Family;
use proptest::prelude::*;
use support::{copy, count_rows, damage_tables, key, log_file, log_len, open, tables, write_rows};

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

/// What a failed ingest leaves may be the missing table (`failing_disk.rs` shows that), and may be another.
#[test]
fn what_a_failed_ingest_left_is_not_taken_for_another_table() {
    let crashed = crash(true);
    let entering = crashed.root.path().join("ingest/entering.sst");
    let tables = tables(crashed.root.path());
    let (first, last) = (tables.first().unwrap(), tables.last().unwrap());
    assert_ne!(first, last);
    let kept = crashed.root.path().with_extension("sst");
    fs::rename(first, &kept).unwrap();
    fs::create_dir_all(entering.parent().unwrap()).unwrap();
    fs::copy(last, &entering).unwrap();
    assert_refused(crashed.root.path());
    assert!(entering.exists() && !first.exists());

    fs::rename(&kept, first).unwrap();
    assert_eq!(count_rows(&open(crashed.root.path()).unwrap()), WRITTEN);
    assert!(!entering.exists());
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

/// Whichever it is: RocksDB looks at sixteen when it opens a store.
#[test]
fn a_lost_table_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let engine = open(root.path()).unwrap();
    for round in 0..6 {
        let mut batch = Batch::default();
        for family in Family::ALL {
            batch.put(family, key(round), key(round));
        }
        engine.write(batch).unwrap();
        runtime().block_on(engine.flush()).unwrap();
    }
    drop(engine);
    let tables = tables(root.path());
    assert!(tables.len() > 48, "{tables:?}");
    let kept = root.path().with_extension("sst");
    for table in tables.iter().step_by(7) {
        fs::rename(table, &kept).unwrap();
        assert_refused(root.path());
        fs::rename(&kept, table).unwrap();
        drop(open(root.path()).unwrap());
    }
    let file = File::options().append(true).open(&tables[0]).unwrap();
    file.set_len(file.metadata().unwrap().len() + 1).unwrap();
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
    damage_tables(root.path());
    let note = root.path().join("DAMAGED");
    for _ in 0..2 {
        let engine = open(root.path()).unwrap();
        assert!(!note.exists(), "nobody has met the damage yet");
        let error = engine.view().get(Family::Account, &key(1)).unwrap_err();
        assert!(matches!(error, EngineError::Damaged { .. }), "{error}");
        let error = engine.write(Default::default()).unwrap_err();
        assert!(matches!(error, EngineError::Stopped { .. }), "{error}");
        drop(engine);

        // The next process is told before it can vote or lead with what it has.
        assert_refused(root.path());
        let refused = open(root.path()).unwrap_err().to_string();
        let words = [
            "/DAMAGED, written by an earlier process, says: reading a row: Corruption: ",
            ".sst",
        ];
        for word in words {
            assert!(refused.contains(word), "{refused}");
        }
        assert!(
            refused.contains(&format!("delete {}: ", note.display())),
            "{refused}"
        );
        // Whoever knows better may try again, and meets it again.
        fs::remove_file(&note).unwrap();
    }
}

/// A name in `db` that begins or ends so.
fn in_db(root: &Path, is: impl Fn(&str) -> bool) -> std::path::PathBuf {
    fs::read_dir(root.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| is(path.file_name().unwrap().to_str().unwrap()))
        .unwrap()
}

fn table_of(root: &Path) -> std::path::PathBuf {
    in_db(root, |name| name.ends_with(".sst"))
}

fn manifest_of(root: &Path) -> std::path::PathBuf {
    in_db(root, |name| name.starts_with("MANIFEST-"))
}

fn flip_middle(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// Each kind of damage that is found when a directory is opened: one message that names the file, says what is wrong
/// with it, and what to do.
#[test]
fn damage_found_at_the_start_is_told_in_one_message() {
    type Damage = fn(&Path);
    let table: [(&str, Damage, &[&str]); 11] = [
        (
            "FORMAT lost",
            |root| fs::remove_file(root.join("FORMAT")).unwrap(),
            &["/FORMAT is missing, but there is a store beside it"],
        ),
        (
            "FORMAT is no text",
            |root| fs::write(root.join("FORMAT"), [0xff, 0xfe]).unwrap(),
            &["/FORMAT does not say a format"],
        ),
        (
            "FORMAT is a directory",
            |root| {
                fs::remove_file(root.join("FORMAT")).unwrap();
                fs::create_dir(root.join("FORMAT")).unwrap();
            },
            &["/FORMAT is a directory"],
        ),
        (
            "mark lost",
            |root| fs::remove_file(root.join("synced")).unwrap(),
            &["/synced is missing"],
        ),
        (
            "mark overwritten",
            |root| fs::write(root.join("synced"), [0; 8192]).unwrap(),
            &["/synced has no valid slot"],
        ),
        (
            "store lost",
            |root| fs::remove_dir_all(root.join("db")).unwrap(),
            &["/db is missing"],
        ),
        (
            "CURRENT lost",
            |root| fs::remove_file(root.join("db/CURRENT")).unwrap(),
            &["/db/CURRENT is missing"],
        ),
        (
            "CURRENT overwritten",
            |root| fs::write(root.join("db/CURRENT"), "\0\0\0").unwrap(),
            &["/db/CURRENT does not name a manifest"],
        ),
        (
            "manifest lost",
            |root| fs::remove_file(manifest_of(root)).unwrap(),
            &["/db/MANIFEST-", " is missing"],
        ),
        (
            "manifest damaged",
            |root| flip_middle(&manifest_of(root)),
            &["/db", " is damaged (RocksDB: Corruption: "],
        ),
        (
            "table lost",
            |root| fs::remove_file(table_of(root)).unwrap(),
            &["/db/", ".sst is missing"],
        ),
    ];
    let whole = tempfile::tempdir().unwrap();
    let engine = open(whole.path()).unwrap();
    write_rows(&engine, 0..100);
    runtime().block_on(engine.flush()).unwrap();
    write_rows(&engine, 100..200);
    runtime().block_on(engine.sync()).unwrap();
    drop(engine);
    for (name, damage, words) in table {
        let root = tempfile::tempdir().unwrap();
        copy(whole.path(), root.path());
        damage(root.path());
        let Err(EngineError::Damaged { message }) = open(root.path()) else {
            panic!("{name}: not refused as damage");
        };
        eprintln!("{name}: {message}");
        for word in words {
            assert!(message.contains(word), "{name}: {message}");
        }
        for word in ["Nothing was changed", "new id", "`holdfast cluster replace`"] {
            assert!(message.contains(word), "{name}: {message}");
        }
        assert_eq!(
            message.matches("No such file").count().max(1),
            1,
            "{name}: {message}"
        );
        // And it stays so: looking at it has not made it openable.
        assert!(open(root.path()).is_err(), "{name}");
    }
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

    /// One flipped bit anywhere in a table: whoever opens or reads it hears of it, or it changed nothing.
    #[test]
    fn one_flipped_bit_in_a_table(at in 0.0..1.0f64, bit in 0..8u8) {
        let root = tempfile::tempdir().unwrap();
        let engine = open(root.path()).unwrap();
        write_rows(&engine, 0..WRITTEN);
        runtime().block_on(engine.flush()).unwrap();
        drop(engine);
        let tables = tables(root.path());
        let total: u64 = tables.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        let mut offset = (at * total as f64) as usize;
        for path in tables {
            let mut bytes = fs::read(&path).unwrap();
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 1 << bit;
                fs::write(&path, bytes).unwrap();
                break;
            }
            offset -= bytes.len();
        }
        match open(root.path()) {
            Err(error) => prop_assert!(matches!(error, EngineError::Damaged { .. }), "{error}"),
            Ok(engine) => {
                let view = engine.view();
                for family in [Family::Account, Family::RaftLog] {
                    let rows: Result<Vec<_>, _> = view
                        .scan(family, Bound::Unbounded, Bound::Unbounded, Direction::Forward)
                        .collect();
                    match rows {
                        Err(error) => {
                            prop_assert!(matches!(error, EngineError::Damaged { .. }), "{error}");
                            drop(view);
                            drop(engine);
                            assert_refused(root.path());
                            return Ok(());
                        }
                        Ok(rows) => prop_assert!(rows.len() as u64 == WRITTEN, "{}", rows.len()),
                    }
                }
                prop_assert_eq!(count_rows(&engine), WRITTEN);
            }
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
