//! What recovery reads is a prefix of what was written: no hole in the log.
//!
//! RocksDB's point-in-time recovery stops at what it takes for damage. But a log that ends between two batches it takes for whole, and
//! zeros between two batches for padding; it goes on with the next log, or the next block, whatever is there. What was not synced
//! can come out so after a power failure. Most of all while a flush begins: for some milliseconds there are two logs, and the older
//! one is not synced to its end. If its last batches are lost and the newer log's are not, the node would go on with a state that
//! never was: the newer batches say how far the log has been applied, and the lost ones never come again.
//!
//! So the logs are read before RocksDB opens. **The rule**: sequence numbers above those in tables follow one on another, from batch
//! to batch and from log to log.
//!
//! - All up to one number is in tables: families are flushed together, and a flush keeps the newest row, so its number is in the manifest.
//! - Nothing takes a number that is neither in a log nor in a table. An ingest does while no log holds anything
//!   ([`crate::bulk`]), and its numbers are in the manifest before the next batch comes.
//! - Logs that the manifest says are done with are not looked at, as RocksDB does not.
//!
//! Where a number is missing, **all behind it is dropped**, durably, before RocksDB sees it. Nothing of that was ever durable by
//! promise: a sync covers all logs from the oldest on and returns when all are synced, so had one covered what is behind the hole,
//! there would be no hole, or the disk has lost what it had synced. In that case the hole is below the synced-through mark, and
//! **nothing is touched, the store does not open**.
//!
//! Why not by RocksDB's own means: `track_and_verify_wals` makes a log name its predecessor's size, which is not its file's size
//! where logs are recycled; and syncing the older log before the newer one is used would need all flushes, RocksDB's own included, to
//! be begun here, and would still believe a disk that lost what it had synced.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use holdfast_storage::engine::EngineError;
use rocksdb::{DB, InfoLogger, LogLevel, Options, properties};

use crate::examine;
use crate::fate::io_error;
use crate::layout::sync_directory;
use crate::wal::Batches;

/// A log file.
#[derive(Debug)]
struct Log {
    number: u64,
    path: PathBuf,
}

/// The first missing sequence number, and what is behind it.
#[derive(Debug)]
struct Hole {
    missing: u64,
    /// The number that is there instead.
    found: u64,
    /// In which of the logs that one is, and how much of the log is before the hole.
    log: usize,
    keep_bytes: u64,
}

/// Drops what is behind a hole in the log; refuses if what was synced is behind it or in it. `no_logs` is a directory without logs.
pub(crate) fn close(db: &Path, no_logs: &Path, synced_through: u64) -> Result<(), EngineError> {
    let (in_tables, first_log) = in_manifest(db, no_logs).map_err(|error| examine::not_opened(db, &error))?;
    let logs = logs_from(db, first_log)?;
    let Some(hole) = find(&logs, in_tables + 1)? else {
        return Ok(());
    };
    let kept_through = hole.missing - 1;
    if kept_through < synced_through {
        return Err(examine::log_is_short(db, synced_through, kept_through));
    }
    tracing::warn!(
        log = %logs[hole.log].path.display(),
        kept_through,
        synced_through,
        dropped_from = hole.found,
        "the log has a hole, as after a power failure; what is behind it is dropped. It was never acknowledged: no sync covered it"
    );
    drop_behind(db, &logs, &hole)
}

/// The highest sequence number in tables, and the first log that still counts. RocksDB reads its manifest for this, as one that looks on
/// while another has the store open: it changes nothing, opens one family, which is empty, and is told that logs are where none is.
/// (To open read-only and without logs is not possible: RocksDB crashes if the manifest names synced ones.)
fn in_manifest(db: &Path, no_logs: &Path) -> Result<(u64, u64), rocksdb::Error> {
    let mut options = Options::default();
    options.set_wal_dir(no_logs);
    // What it has to say it says again when it opens the store, and then in its own file.
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
    let db = DB::open_as_secondary(&options, db, no_logs)?;
    let first_log = db.property_int_value(properties::MIN_LOG_NUMBER_TO_KEEP)?;
    Ok((db.latest_sequence_number(), first_log.unwrap_or(0)))
}

/// The logs from a number on, the oldest first.
fn logs_from(db: &Path, first: u64) -> Result<Vec<Log>, EngineError> {
    let fail = |error: io::Error| io_error("reading", db, &error);
    let mut logs = Vec::new();
    for entry in fs::read_dir(db).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".log")?.parse().ok());
        if let Some(number) = number.filter(|number| *number >= first) {
            logs.push(Log { number, path });
        }
    }
    logs.sort_by_key(|log| log.number);
    Ok(logs)
}

/// The first hole. Where a log is damaged RocksDB stops, and takes up the next log only if it goes on with the very next number.
fn find(logs: &[Log], mut next: u64) -> Result<Option<Hole>, EngineError> {
    for (log, Log { number, path }) in logs.iter().enumerate() {
        let fail = |error: io::Error| io_error("reading", path, &error);
        let mut batches = Batches::open(path, *number).map_err(fail)?;
        let mut keep_bytes = 0;
        while let Some(batch) = batches.next().map_err(fail)? {
            if batch.first > next {
                return Ok(Some(Hole {
                    missing: next,
                    found: batch.first,
                    log,
                    keep_bytes,
                }));
            }
            next = next.max(batch.first.saturating_add(batch.count.into()));
            keep_bytes = batch.end;
        }
    }
    Ok(None)
}

/// Newest first, the log with the hole last: whatever a crash leaves of this still has the hole, and the next start goes on.
fn drop_behind(db: &Path, logs: &[Log], hole: &Hole) -> Result<(), EngineError> {
    let operation = "dropping what is behind a hole in the log";
    for log in logs[hole.log + 1..].iter().rev() {
        fs::remove_file(&log.path).map_err(|error| io_error(operation, &log.path, &error))?;
    }
    let path = &logs[hole.log].path;
    let cut = || -> io::Result<()> {
        if hole.keep_bytes == 0 {
            return fs::remove_file(path);
        }
        let file = File::options().write(true).open(path)?;
        file.set_len(hole.keep_bytes)?;
        file.sync_all()
    };
    cut()
        .and_then(|()| sync_directory(db))
        .map_err(|error| io_error(operation, path, &error))
}
