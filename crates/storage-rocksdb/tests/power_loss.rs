//! What a power failure or a bad disk leaves of the log, at every place where it may make a difference.
//!
//! A store is written and synced, then written further; where its log's records and their fragments lie is known
//! (`support/wal.rs`). Copies get their log damaged at the beginning and end of each, a byte before and after, and in the middle;
//! in each of six ways; on a new log and on a recycled one, which has an older log's bytes behind its own.
//!
//! - Damage from the synced length on: the store opens with exactly the batches before the damage.
//! - Damage below it: the store refuses to open, and says what to do.
//!
//! **What cannot be detected.** The synced-through mark is written before a sync returns, but the mark's own sync comes up to 50 ms
//! later and takes its time. So after a *power failure* (never after the mere death of the process) the mark may be as old as
//! that. If besides the disk broke its word, and lost or damaged what was synced since then, the store opens with less than was
//! synced, as if the rest had never been written; `the_marks_own_delay` shows it. A disk that keeps its word loses nothing in that
//! window. Nor can it be detected that the whole directory is an older copy of itself, since the mark is in it.
//!
//! Here one log is damaged, and RocksDB sees the damage or the file's end. What it does not see, and two logs at once: `holes.rs`.
//!
//! Names are taken to be durable when RocksDB and the engine have synced their directory. Table files and the manifest are
//! synced before anything depends on them; `killed.rs` cuts those, too.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_storage::engine::{Engine, EngineError};
use holdfast_storage_rocksdb::RocksEngine;
use holdfast_types::Family;
use support::load::{self, Model};
use support::wal::{Damage, Log};
use support::{copy, files, log_file, memory_directory, open};

/// Batches in each stretch: flushed, synced, written. Every 17th batch spans blocks; the latter two stretches have one each. For a
/// recycled log as many flushes come before as it takes, and each leaves a longer log than the latter two make.
const FLUSHED: u64 = 17 * 3;
const FLUSHES: u64 = 4;
const SYNCED: u64 = 20;
const WRITTEN: u64 = 16;

/// A directory as the death of its process left it.
struct Stored {
    root: tempfile::TempDir,
    /// What is in tables, and so not in the log.
    flushed: Model,
    log: Log,
    bytes: Vec<u8>,
    /// The log's bytes when it was synced, and where it ended.
    synced_bytes: Vec<u8>,
    synced_len: u64,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn write(engine: &RocksEngine, batches: std::ops::RangeInclusive<u64>) {
    for n in batches {
        engine.write(load::batch(n)).unwrap();
    }
}

fn stored(recycled: bool) -> Stored {
    let live = memory_directory();
    let root = memory_directory();
    let engine = open(live.path()).unwrap();
    let mut flushed = Model::default();
    let mut synced_bytes = Vec::new();
    let mut synced_len = 0;
    runtime().block_on(async {
        let mut n = 0;
        while recycled && n < FLUSHES * FLUSHED {
            write(&engine, n + 1..=n + FLUSHED);
            n += FLUSHED;
            engine.flush().await.unwrap();
            flushed.advance(n);
        }
        write(&engine, n + 1..=n + SYNCED);
        engine.sync().await.unwrap();
        synced_bytes = fs::read(log_file(live.path())).unwrap();
        synced_len = Log::read(&log_file(live.path())).end();
        write(&engine, n + SYNCED + 1..=n + SYNCED + WRITTEN);
    });
    copy(live.path(), root.path());
    let log = Log::read(&log_file(root.path()));
    let bytes = fs::read(log_file(root.path())).unwrap();
    assert_eq!(
        log.records.len() as u64,
        SYNCED + WRITTEN,
        "the log was read wrongly"
    );
    assert_eq!(
        bytes.len() as u64 > log.end(),
        recycled,
        "recycled or not, and should be otherwise"
    );
    Stored {
        root,
        flushed,
        log,
        bytes,
        synced_bytes,
        synced_len,
    }
}

impl Stored {
    /// The places, and what is done to the log there.
    fn images(&self, below: bool) -> Vec<(u64, Damage<'_>)> {
        let mut places = BTreeSet::new();
        for fragment in &self.log.fragments {
            let middle = (fragment.start + fragment.end) / 2;
            places.extend([fragment.start, middle, fragment.end]);
            places.extend([fragment.start, fragment.end].map(|at| at + 1));
            places.extend([fragment.start, fragment.end].map(|at| at.saturating_sub(1)));
        }
        places.retain(|at| (*at < self.synced_len) == below && *at <= self.log.end());
        let damages = |at: u64| {
            [
                Damage::Cut,
                Damage::Zeros,
                Damage::Garbage(at),
                Damage::Bit((at % 8) as u8),
                Damage::Hole,
                Damage::Older(if below { &[] } else { &self.synced_bytes }),
            ]
        };
        places
            .into_iter()
            .flat_map(|at| damages(at).map(|damage| (at, damage)))
            .collect()
    }

    /// How many batches of this log are before its first wrong byte. Bytes between fragments mean nothing.
    fn sound(&self, damaged: &[u8]) -> u64 {
        let wrong = (0..self.bytes.len())
            .filter(|at| damaged.get(*at) != Some(&self.bytes[*at]))
            .find(|at| self.log.means_something(*at as u64))
            .map_or(u64::MAX, |at| at as u64);
        self.log
            .records
            .iter()
            .filter(|record| record.end() <= wrong)
            .count() as u64
    }

    /// A copy with other bytes for its log.
    fn image(&self, log: &[u8]) -> tempfile::TempDir {
        let image = memory_directory();
        copy(self.root.path(), image.path());
        fs::write(log_file(image.path()), log).unwrap();
        image
    }
}

fn assert_refused(root: &Path, context: &str) {
    match open(root) {
        Err(EngineError::Damaged { message }) => {
            assert!(
                message.contains("start a new node with a new id"),
                "{context}: {message}"
            );
        }
        Ok(engine) => {
            let batches = load::batches(&engine, &Model::default());
            panic!("{context}: opened with {batches} batches");
        }
        Err(other) => panic!("{context}: {other}"),
    }
}

fn above_the_synced_length(recycled: bool) {
    let stored = stored(recycled);
    let mut counts = BTreeSet::new();
    for (at, damage) in stored.images(false) {
        let mut log = stored.bytes.clone();
        damage.apply(&mut log, at as usize);
        let image = stored.image(&log);
        let engine = open(image.path()).unwrap_or_else(|error| panic!("{damage:?} at {at}: {error}"));
        let kept = load::batches(&engine, &stored.flushed) - stored.flushed.batches();
        assert_eq!(kept, stored.sound(&log), "{damage:?} at {at}");
        assert!(
            kept >= SYNCED,
            "{damage:?} at {at}: {kept} of {SYNCED} synced batches"
        );
        counts.insert(kept);
    }
    assert_eq!(
        counts,
        (SYNCED..=SYNCED + WRITTEN).collect(),
        "every outcome came about"
    );
}

fn below_the_synced_length(recycled: bool) {
    let stored = stored(recycled);
    let mut refused = 0_usize;
    for (at, damage) in stored.images(true) {
        let mut log = stored.bytes.clone();
        damage.apply(&mut log, at as usize);
        let image = stored.image(&log);
        if stored.sound(&log) < SYNCED {
            let context = format!("{damage:?} at {at}");
            assert_refused(image.path(), &context);
            if refused.is_multiple_of(10) {
                assert_refused(image.path(), &format!("{context}, again"));
            }
            refused += 1;
        } else {
            let engine = open(image.path()).unwrap_or_else(|error| panic!("{damage:?} at {at}: {error}"));
            let kept = load::batches(&engine, &stored.flushed) - stored.flushed.batches();
            assert_eq!(kept, stored.sound(&log), "{damage:?} at {at}");
        }
    }
    assert!(refused > 200, "only {refused}");
}

#[test]
fn damage_above_the_synced_length_of_a_new_log() {
    above_the_synced_length(false);
}

#[test]
fn damage_above_the_synced_length_of_a_recycled_log() {
    above_the_synced_length(true);
}

#[test]
fn damage_below_the_synced_length_of_a_new_log() {
    below_the_synced_length(false);
}

#[test]
fn damage_below_the_synced_length_of_a_recycled_log() {
    below_the_synced_length(true);
}

/// An ingest gives its rows sequences above those of batches that are only in the log. The mark compares sequences, so nothing
/// may hide behind an ingest: what was synced before it is there whatever happens to the log, or the store does not open.
#[test]
fn nothing_hides_behind_an_ingest() {
    let live = memory_directory();
    let engine = open(live.path()).unwrap();
    let rows = || vec![(Family::Txn, vec![("key".into(), "value".into())])];
    runtime().block_on(async {
        // Twice: what replaces nothing gets no sequence.
        engine.ingest(rows()).await.unwrap();
        write(&engine, 1..=10);
        engine.sync().await.unwrap();
        engine.ingest(rows()).await.unwrap();
    });
    let logs: Vec<PathBuf> = files(live.path())
        .into_keys()
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    for log in &logs {
        let bytes = fs::read(log).unwrap();
        let ends = Log::read(log).fragments.into_iter().map(|fragment| fragment.end);
        for cut in ends.chain([0]) {
            let image = memory_directory();
            copy(live.path(), image.path());
            let target = image.path().join(log.strip_prefix(live.path()).unwrap());
            fs::write(target, &bytes[..cut as usize]).unwrap();
            match open(image.path()) {
                Ok(engine) => assert_eq!(load::batches(&engine, &Model::default()), 10, "cut at {cut}"),
                Err(error) => assert!(matches!(error, EngineError::Damaged { .. }), "{error}"),
            }
        }
    }
}

/// Where detection ends, so that nobody believes more: see the head of this file.
#[test]
fn the_marks_own_delay() {
    let live = memory_directory();
    let image = memory_directory();
    let engine = open(live.path()).unwrap();
    let (mut marked_len, mut marked) = (0, Vec::new());
    runtime().block_on(async {
        write(&engine, 1..=10);
        engine.sync().await.unwrap();
        marked_len = Log::read(&log_file(live.path())).end();
        // Long enough for the mark's own sync: this is the mark that a power failure leaves at least.
        std::thread::sleep(Duration::from_millis(200));
        marked = fs::read(live.path().join("synced")).unwrap();
        write(&engine, 11..=20);
        engine.sync().await.unwrap();
    });
    copy(live.path(), image.path());
    let cut = |len: u64| {
        let log = fs::read(log_file(live.path())).unwrap();
        fs::write(log_file(image.path()), &log[..len as usize]).unwrap();
    };

    // The process died: the mark is there, and the missing end is noticed.
    cut(marked_len);
    assert_refused(image.path(), "with the newest mark");

    // The power failed before the mark's own sync. All is well if the disk has kept what it had synced,
    copy(live.path(), image.path());
    fs::write(image.path().join("synced"), &marked).unwrap();
    assert_eq!(load::batches(&open(image.path()).unwrap(), &Model::default()), 20);

    // a lie of the disk goes unnoticed,
    copy(live.path(), image.path());
    fs::write(image.path().join("synced"), &marked).unwrap();
    cut(marked_len);
    assert_eq!(load::batches(&open(image.path()).unwrap(), &Model::default()), 10);

    // but not one about what was synced before.
    copy(live.path(), image.path());
    fs::write(image.path().join("synced"), &marked).unwrap();
    cut(marked_len - 1);
    assert_refused(image.path(), "with the older mark");
}
