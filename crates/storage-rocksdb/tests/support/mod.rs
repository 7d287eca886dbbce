//! What the tests of the RocksDB engine share.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod child;
pub(crate) mod load;
pub(crate) mod subject;
pub(crate) mod wal;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use holdfast_storage::engine::{Batch, Engine, EngineError};
use holdfast_storage_rocksdb::{OpenOptions, RocksEngine};
use holdfast_types::Family;

/// Opens with little memory and no ballast.
pub(crate) fn open(directory: &Path) -> Result<RocksEngine, EngineError> {
    RocksEngine::open(OpenOptions {
        memory_budget_bytes: 64 << 20,
        ballast_bytes: 0,
        ..OpenOptions::new(directory)
    })
}

/// Key of the `n`-th numbered row.
pub(crate) fn key(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

/// Writes numbered rows, one batch each, into two families, as the log and the state are.
pub(crate) fn write_rows(engine: &RocksEngine, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let mut batch = Batch::default();
        batch.put(Family::RaftLog, key(n), vec![n as u8; 100]);
        batch.put(Family::Account, key(n), vec![n as u8; 50]);
        engine.write(batch).unwrap();
    }
}

/// How many numbered rows are there. They must be a prefix, the same in both families.
pub(crate) fn count_rows(engine: &RocksEngine) -> u64 {
    let view = engine.view();
    let mut n = 0;
    loop {
        let log = view.get(Family::RaftLog, &key(n)).unwrap();
        let state = view.get(Family::Account, &key(n)).unwrap();
        assert_eq!(log.is_some(), state.is_some(), "half a batch was kept: {n}");
        let Some(log) = log else { break };
        assert_eq!(log, vec![n as u8; 100]);
        n += 1;
    }
    for later in n..n + 1000 {
        assert!(
            view.get(Family::RaftLog, &key(later)).unwrap().is_none(),
            "a hole at {n}, {later} is there"
        );
    }
    n
}

/// The tables of a store, the oldest first.
pub(crate) fn tables(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join("db")).unwrap();
    let mut tables: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|is| is == "sst"))
        .collect();
    tables.sort();
    tables
}

/// Damages the first rows of every table file of a directory that nobody has open.
pub(crate) fn damage_tables(root: &Path) {
    for path in tables(root) {
        let table = File::options().write(true).open(path).unwrap();
        table.write_all_at(&[0x55; 16], 0).unwrap();
    }
}

/// A copy of a data directory as a crash of its process would leave it. RocksDB may compact and delete files meanwhile, so
/// the copy is made again until nothing has moved.
pub(crate) fn copy(from: &Path, to: &Path) {
    loop {
        let before = files(from);
        let _ = fs::remove_dir_all(to);
        let copied = before.iter().all(|(path, _)| {
            let target = to.join(path.strip_prefix(from).unwrap());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(path, target).is_ok()
        });
        if copied && files(from) == before {
            return;
        }
    }
}

/// A directory in memory, where no sync takes time; on a disk where there is too little room for that.
pub(crate) fn memory_directory() -> tempfile::TempDir {
    let memory = "/dev/shm";
    let roomy = rustix::fs::statvfs(memory).is_ok_and(|stat| stat.f_bavail * stat.f_frsize >= 2 << 30);
    if roomy {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// All files below a directory with their sizes.
pub(crate) fn files(directory: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => found.extend(files(&path)),
            Ok(metadata) => drop(found.insert(path, metadata.len())),
            Err(_) => {}
        }
    }
    found
}

/// The newest log file of a data directory.
pub(crate) fn log_file(directory: &Path) -> PathBuf {
    let mut logs: Vec<_> = fs::read_dir(directory.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    logs.pop().expect("RocksDB keeps a log")
}

/// The newest log file's size.
pub(crate) fn log_len(directory: &Path) -> u64 {
    fs::metadata(log_file(directory)).unwrap().len()
}

/// Says that the calling test cannot run here, and why. `cargo xtask test` counts it as skipped.
pub(crate) fn skip(test: &str, why: &str) {
    use std::io::Write;
    println!("skipped: {test}: {why}");
    let Some(path) = std::env::var_os("HOLDFAST_TEST_SKIPS") else {
        return;
    };
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    writeln!(file, "{test}: {why}").unwrap();
}
