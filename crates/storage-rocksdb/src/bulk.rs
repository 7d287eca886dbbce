//! Moving much at once: flush, ingest, checkpoint. All of it blocks, so all of it runs on blocking threads.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_storage::engine::{EngineError, Row, Seq};
use holdfast_types::Family;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{FlushOptions, IngestExternalFileOptions, SstFileWriter};

use crate::engine::Core;
use crate::fate::{io_error, rocks_error};
use crate::layout;

/// Where a table to ingest is cut: a usual size for tables, so that compaction can pick them one by one.
const TABLE_BYTES: usize = 64 << 20;

/// Tells apart the tables of ingests that run at the same time.
static TABLES: AtomicU64 = AtomicU64::new(0);

/// Flushes all families at one sequence number.
pub(crate) fn flush(core: &Core) -> Result<Seq, EngineError> {
    core.fate.check()?;
    let sequence = core.db.latest_sequence_number();
    let handles: Vec<_> = Family::ALL
        .into_iter()
        .map(|family| core.handle(family))
        .collect();
    let mut options = FlushOptions::default();
    options.set_wait(true);
    core.db
        .flush_cfs_opt(&handles.iter().collect::<Vec<_>>(), &options)
        .map_err(|error| core.fate.stop_rocks("flush", &error))?;
    core.mark.raise(sequence).map_err(|error| core.fate.stop(error))?;
    Ok(Seq(sequence))
}

/// Loads rows by building tables beside RocksDB and linking them into it, one family after the other.
pub(crate) fn ingest(core: &Core, rows: Vec<(Family, Vec<Row>)>) -> Result<(), EngineError> {
    core.fate.check()?;
    for (family, rows) in rows {
        let tables = build_tables(core, family, &rows)?;
        if tables.is_empty() {
            continue;
        }
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        core.db
            .ingest_external_file_cf_opts(core.handle(family), &options, tables)
            .map_err(|error| core.fate.stop_rocks("ingest", &error))?;
    }
    // Ingested tables carry a sequence number above that of rows which are only in the log. Without this, recovery
    // could reach it although the log below it is damaged, and the synced-through mark would see nothing.
    flush(core)?;
    Ok(())
}

fn build_tables(core: &Core, family: Family, rows: &[Row]) -> Result<Vec<PathBuf>, EngineError> {
    let fail = |error: rocksdb::Error| core.fate.stop_rocks("building a table to ingest", &error);
    let options = core.tuning.family(family);
    let mut tables = Vec::new();
    let mut left = rows.iter().peekable();
    while left.peek().is_some() {
        let number = TABLES.fetch_add(1, Ordering::Relaxed);
        let path = core
            .layout
            .ingest()
            .join(format!("{}-{number}.sst", family.name()));
        let mut writer = SstFileWriter::create(&options);
        writer.open(&path).map_err(fail)?;
        let mut bytes = 0;
        while bytes < TABLE_BYTES
            && let Some((key, value)) = left.next()
        {
            bytes += key.len() + value.len();
            writer.put(key, value).map_err(fail)?;
        }
        // Syncs the file.
        writer.finish().map_err(fail)?;
        tables.push(path);
    }
    Ok(tables)
}

/// Makes another data directory of what is stored now. Tables are hard-linked where the file system allows.
///
/// A failure leaves this engine as it was, and no target or an incomplete one, which no engine will open.
pub(crate) fn checkpoint(core: &Core, target: &Path) -> Result<(), EngineError> {
    core.fate.check()?;
    let operation = "checkpoint";
    let fail = |error: std::io::Error| io_error(operation, target, &error);
    fs::create_dir_all(target).map_err(fail)?;
    if fs::read_dir(target).map_err(fail)?.next().is_some() {
        return Err(EngineError::Io {
            operation,
            message: format!("{} is not empty", target.display()),
        });
    }
    let sequence = core.db.latest_sequence_number();
    Checkpoint::new(&core.db)
        .and_then(|checkpoint| checkpoint.create_checkpoint(layout::db_directory(target)))
        .map_err(|error| {
            // RocksDB has tidied up after itself, and what is left, an empty directory, would open as a new store.
            let _ = fs::remove_dir(target);
            rocks_error(operation, &error)
        })?;
    layout::lay_out(target, sequence)
}
