//! Holes: what a power failure took from the middle of what was written and not synced, without a trace that RocksDB sees.
//!
//! While a flush begins there are two logs, and the older one is not synced to its end. The images here are of that moment: the
//! directory as it was before the flush, and the newer log beside it. The older log ends between two batches, cut there or with
//! zeros from there on, or is lost; new and recycled logs. The same within one log, where a block's end is zeros. RocksDB alone takes all
//! of these for whole and reads on.
//!
//! - A hole above the synced-through mark: the store opens with the batches before the hole, and stays so.
//! - A hole below it: the store refuses to open, and nothing is touched.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_storage::engine::{Batch, Engine, EngineError};
use holdfast_storage_rocksdb::RocksEngine;
use holdfast_types::Family;
use support::load::{self, Model};
use support::wal::{Damage, Log};
use support::{copy, key, log_file, memory_directory, open};

/// Batches in each stretch: flushed so that logs are recycled, synced, written before the flush, written into each later log.
/// Every 17th batch spans blocks.
const FLUSHED: u64 = 17 * 3;
const FLUSHES: u64 = 4;
const SYNCED: u64 = 9;
const WRITTEN: u64 = 9;
const LATER: u64 = 5;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// A directory with an unfinished flush, or two of them.
struct Stored {
    root: tempfile::TempDir,
    /// What is in tables, and so in no log that counts.
    flushed: Model,
    /// How many batches of the oldest log were synced, and how many it holds.
    synced: u64,
    written: u64,
    oldest: PathBuf,
    bytes: Vec<u8>,
    /// Where each of its batches ends, and where the first one begins.
    ends: Vec<u64>,
    /// The later logs, the older first.
    later: Vec<PathBuf>,
}

fn stored(recycled: bool, synced: u64, later_logs: usize) -> Stored {
    let live = memory_directory();
    let root = memory_directory();
    let engine = open(live.path()).unwrap();
    let mut n = 0;
    let mut write = |batches: u64| {
        for _ in 0..batches {
            n += 1;
            engine.write(load::batch(n)).unwrap();
        }
        n
    };
    let mut flushed = Model::default();
    let mut oldest = PathBuf::new();
    let mut later = Vec::new();
    let mut written = 0;
    runtime().block_on(async {
        for _ in 0..if recycled { FLUSHES } else { 0 } {
            flushed.advance(write(FLUSHED));
            engine.flush().await.unwrap();
        }
        written = write(synced) - flushed.batches();
        if synced > 0 {
            engine.sync().await.unwrap();
        }
        written = write(WRITTEN) - flushed.batches();
        copy(live.path(), root.path());
        oldest = log_file(root.path());
        for _ in 0..later_logs {
            engine.flush().await.unwrap();
            write(LATER);
            let log = log_file(live.path());
            let target = root.path().join("db").join(log.file_name().unwrap());
            fs::copy(log, &target).unwrap();
            later.push(target);
        }
    });
    let log = Log::read(&oldest);
    let bytes = fs::read(&oldest).unwrap();
    assert_eq!(log.records.len() as u64, written, "the log was read wrongly");
    assert_eq!(
        bytes.len() as u64 > log.end(),
        recycled,
        "recycled or not, and should be otherwise"
    );
    assert!(later.iter().all(|log| *log > oldest), "no flush has begun");
    let ends = log.records.iter().map(|record| record.end());
    Stored {
        flushed,
        synced,
        written,
        oldest: relative(&oldest, root.path()),
        bytes,
        ends: [0].into_iter().chain(ends).collect(),
        later: later.iter().map(|log| relative(log, root.path())).collect(),
        root,
    }
}

fn relative(path: &Path, root: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap().to_owned()
}

impl Stored {
    /// A copy with other bytes for its oldest log, or without it.
    fn image(&self, oldest: Option<&[u8]>) -> tempfile::TempDir {
        let image = memory_directory();
        copy(self.root.path(), image.path());
        let path = image.path().join(&self.oldest);
        match oldest {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        image
    }

    /// The store opens with so many batches of the logs, and goes on from there.
    fn assert_kept(&self, root: &Path, kept: u64, context: &str) {
        let batches = self.flushed.batches() + kept;
        for attempt in 0..2 {
            let engine = open(root).unwrap_or_else(|error| panic!("{context}, attempt {attempt}: {error}"));
            let found = load::batches(&engine, &self.flushed);
            assert_eq!(found, batches + attempt, "{context}, attempt {attempt}");
            engine.write(load::batch(found + 1)).unwrap();
            runtime().block_on(engine.sync()).unwrap();
        }
    }

    fn assert_refused(&self, root: &Path, context: &str) {
        let logs = |root: &Path| {
            let logs = self.later.iter().chain([&self.oldest]);
            logs.map(|log| fs::read(root.join(log)).ok()).collect::<Vec<_>>()
        };
        let before = logs(root);
        for attempt in 0..2 {
            assert_refused(root, &format!("{context}, attempt {attempt}"));
            assert!(logs(root) == before, "{context}: the logs were touched");
        }
    }
}

fn assert_refused(root: &Path, context: &str) {
    match open(root) {
        Err(EngineError::Damaged { message }) => assert!(
            message.contains("could be read only up to")
                && message.contains("start a new node with a new id"),
            "{context}: {message}"
        ),
        Ok(_) => panic!("{context}: opened"),
        Err(other) => panic!("{context}: {other}"),
    }
}

fn the_older_log_ends_too_early(recycled: bool, synced: u64) {
    let stored = stored(recycled, synced, 1);
    let all = stored.written + LATER;
    let mut refused = 0;
    for (batches, end) in stored.ends.iter().enumerate() {
        let batches = batches as u64;
        for damage in [Some(Damage::Cut), Some(Damage::Zeros), None] {
            if damage.is_none() && batches > 0 {
                continue;
            }
            let context = format!("{damage:?} after batch {batches} of {}", stored.written);
            let image = stored.image(
                damage
                    .map(|damage| {
                        let mut log = stored.bytes.clone();
                        damage.apply(&mut log, *end as usize);
                        log
                    })
                    .as_deref(),
            );
            if batches < stored.synced {
                stored.assert_refused(image.path(), &context);
                refused += 1;
            } else {
                let kept = if batches == stored.written { all } else { batches };
                stored.assert_kept(image.path(), kept, &context);
            }
        }
    }
    assert_eq!(refused > 0, synced > 0);
}

#[test]
fn between_a_new_log_and_a_newer_one() {
    the_older_log_ends_too_early(false, SYNCED);
}

#[test]
fn between_a_recycled_log_and_a_newer_one() {
    the_older_log_ends_too_early(true, SYNCED);
}

/// Then the first number behind the tables may be missing.
#[test]
fn between_logs_of_which_nothing_was_synced() {
    the_older_log_ends_too_early(false, 0);
    the_older_log_ends_too_early(true, 0);
}

/// Dropping logs takes several steps, the newest first, and a crash may come after each: with any of the logs behind
/// the hole gone, the next start drops the others.
#[test]
fn with_any_of_the_logs_behind_it() {
    let stored = stored(false, SYNCED, 3);
    let whole = stored.image(Some(&stored.bytes));
    stored.assert_kept(whole.path(), stored.written + 3 * LATER, "no hole");
    for kept in [SYNCED, SYNCED + 1, stored.written - 1] {
        for there in 0..1 << stored.later.len() {
            let image = stored.image(Some(&stored.bytes[..stored.ends[kept as usize] as usize]));
            for (n, log) in stored.later.iter().enumerate() {
                if there & (1 << n) == 0 {
                    fs::remove_file(image.path().join(log)).unwrap();
                }
            }
            stored.assert_kept(image.path(), kept, &format!("{kept} batches, logs {there:b}"));
        }
    }
}

const BLOCK: u64 = 32 * 1024;

/// How many rows are there, which must be the first ones.
fn count(engine: &RocksEngine, rows: u64) -> u64 {
    let view = engine.view();
    let there = |n: &u64| view.get(Family::RaftLog, &key(*n)).unwrap().is_some();
    let count = (0..rows).take_while(there).count() as u64;
    assert_eq!((count..rows).find(there), None, "a hole at {count}");
    count
}

/// A block that ends with a batch's end. If that batch, or some before it, is zeros, RocksDB takes the block for padded.
#[test]
fn within_one_log() {
    const SYNCED: u64 = 3;
    let live = memory_directory();
    let engine = open(live.path()).unwrap();
    let mut rows = 0;
    let mut write = |len: u64| {
        let mut batch = Batch::default();
        batch.put(Family::RaftLog, key(rows), vec![7; len as usize]);
        engine.write(batch).unwrap();
        rows += 1;
        Log::read(&log_file(live.path())).end()
    };
    let mut end = 0;
    for _ in 0..SYNCED {
        end = write(1000);
    }
    runtime().block_on(engine.sync()).unwrap();
    let around = end / SYNCED - 1000;
    while BLOCK - end > 2200 {
        end = write(1000);
    }
    assert_eq!(write(BLOCK - end - around), BLOCK);
    for _ in 0..5 {
        write(1000);
    }
    let log = Log::read(&log_file(live.path()));
    let bytes = fs::read(log_file(live.path())).unwrap();
    for (n, record) in log.records.iter().enumerate() {
        let (kept, from) = (n as u64, record.fragments[0].start);
        if from >= BLOCK {
            break;
        }
        let image = memory_directory();
        copy(live.path(), image.path());
        let mut damaged = bytes.clone();
        damaged[from as usize..BLOCK as usize].fill(0);
        fs::write(log_file(image.path()), damaged).unwrap();
        if kept < SYNCED {
            assert_refused(image.path(), &format!("zeros from {from}"));
        } else {
            assert_eq!(count(&open(image.path()).unwrap(), rows), kept);
            assert_eq!(count(&open(image.path()).unwrap(), rows), kept, "opened again");
        }
    }
}

/// What a flush leaves out of tables must not look like a hole behind them: rows that were overwritten, deleted, or never there.
#[test]
fn none_behind_a_flush() {
    type Fill = fn(&mut Batch);
    let table: [(&str, Fill); 6] = [
        ("overwritten", |batch| {
            batch.put(Family::Account, key(1), "old");
            batch.put(Family::Account, key(1), "new");
        }),
        ("deleted", |batch| {
            batch.put(Family::Account, key(1), "row");
            batch.delete(Family::Account, key(1));
        }),
        ("never there", |batch| batch.delete(Family::Account, key(1))),
        ("a range deleted", |batch| {
            batch.put(Family::Account, key(1), "row");
            batch.delete_range(Family::Account, key(0), key(9));
        }),
        ("an empty range deleted", |batch| {
            batch.delete_range(Family::Account, key(0), key(9));
        }),
        ("a range deleted twice", |batch| {
            batch.delete_range(Family::Account, key(0), key(9));
            batch.delete_range(Family::Account, key(0), key(9));
        }),
    ];
    let live = memory_directory();
    let engine = open(live.path()).unwrap();
    let row = |n: u64| {
        let mut batch = Batch::default();
        batch.put(Family::RaftLog, key(n), "row");
        batch
    };
    for (n, (name, fill)) in (0..).zip(table) {
        // The flush has nothing else to do, and then it has.
        for m in [2 * n, 2 * n + 1] {
            let mut batch = if m == 2 * n {
                Batch::default()
            } else {
                row(100 + n)
            };
            fill(&mut batch);
            engine.write(batch).unwrap();
            runtime().block_on(async {
                engine.flush().await.unwrap();
                engine.write(row(m)).unwrap();
                engine.sync().await.unwrap();
            });
            let image = memory_directory();
            copy(live.path(), image.path());
            let image = open(image.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(count(&image, 50), m + 1, "{name}");
            runtime().block_on(engine.flush()).unwrap();
        }
    }
}
