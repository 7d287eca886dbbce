//! Moving much at once: flush, ingest, checkpoint. All of it blocks, so all of it runs on blocking threads.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use holdfast_storage::engine::{Batch, EngineError, Row, Seq};
use holdfast_types::Family;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{FlushOptions, IngestExternalFileOptions, SstFileWriter};

use crate::engine::{Core, write_through};
use crate::fate::{io_error, rocks_error};
use crate::layout::Layout;
use crate::{layout, usage};

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

/// Flushes what is in memory after recovery, which is nothing: RocksDB has flushed what it recovered. So it is asked only if
/// there is something. It would first wait until compaction has made room for one table more, and on a full disk that is
/// for ever.
pub(crate) fn flush_what_recovery_left(core: &Core) -> Result<(), EngineError> {
    if usage::rows_in_memory(core)? > 0 {
        return flush(core).map(drop);
    }
    core.mark.raise(core.db.latest_sequence_number())
}

/// Loads rows by building tables beside RocksDB and linking them into it, one family after the other.
///
/// **No gap between two logs.** An ingest takes sequence numbers that are in no log. RocksDB's recovery takes the old bytes at the
/// end of a recycled log for damage, and goes on to the next log only if that begins with the very next sequence number;
/// otherwise it drops all of it, synced or not; and whatever the older log looks like, [`crate::hole`] does. So an ingest happens only
/// when every log before the current one is done with and the current one is empty: RocksDB flushes while it holds writers back
/// for an ingest, if the memory tables hold a key in its range, and [`touch`] makes sure of that. No batch may come between the touch
/// and the last family, so writers wait; what could be flushed without them has been before.
///
/// The same flush keeps the mark true. Ingested tables have a sequence number above all rows from before, so these must not be
/// in the log only: recovery would reach the number although the log was damaged, and the mark would see nothing.
///
/// **One table at a time**, and by a name of its own, so that the next start knows which it was if this one fails ([`put_back`]).
pub(crate) fn ingest(core: &Core, rows: Vec<(Family, Vec<Row>)>) -> Result<(), EngineError> {
    core.fate.check()?;
    let mut tables = Vec::new();
    for (family, rows) in &rows {
        if let Some((key, _)) = rows.first() {
            tables.push((*family, key, build_table(core, *family, rows)?));
        }
    }
    let Some((first_family, first_key, _)) = tables.first() else {
        return Ok(());
    };
    flush(core)?;

    let _alone = core.writers.write().unwrap_or_else(PoisonError::into_inner);
    touch(core, *first_family, first_key)?;
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(true);
    let entering = core.layout.entering_table();
    for (family, _, table) in &tables {
        fs::rename(table, &entering).map_err(|error| core.fate.stop(io_error("ingest", table, &error)))?;
        core.db
            .ingest_external_file_cf_opts(core.handle(*family), &options, vec![&entering])
            .map_err(|error| core.fate.stop_rocks("ingest", &error))?;
    }
    // All before is in tables, and so are the rows.
    let sequence = core.db.latest_sequence_number();
    core.mark.raise(sequence).map_err(|error| core.fate.stop(error))
}

/// Writes a row as it is, or deletes one that is not there: nothing changes, but it is in a memory table. Should another flush
/// take it out of there before the ingest, then that flush has done what it is for: nothing was written since.
fn touch(core: &Core, family: Family, key: &Bytes) -> Result<(), EngineError> {
    let value = core
        .db
        .get_cf(core.handle(family), key)
        .map_err(|error| core.fate.stop_rocks("read", &error))?;
    let mut batch = Batch::default();
    match value {
        Some(value) => batch.put(family, key.clone(), value),
        None => batch.delete(family, key.clone()),
    }
    write_through(core, &batch)
}

/// As large as the caller's rows, which are in memory.
fn build_table(core: &Core, family: Family, rows: &[Row]) -> Result<PathBuf, EngineError> {
    let fail = |error: rocksdb::Error| core.fate.stop_rocks("building a table to ingest", &error);
    let options = core.tuning.family(family);
    let number = TABLES.fetch_add(1, Ordering::Relaxed);
    let path = core
        .layout
        .ingest()
        .join(format!("{}-{number}.sst", family.name()));
    let mut writer = SstFileWriter::create(&options);
    writer.open(&path).map_err(fail)?;
    for (key, value) in rows {
        writer.put(key, value).map_err(fail)?;
    }
    // Syncs the file.
    writer.finish().map_err(fail)?;
    Ok(path)
}

/// Gives a store back the table that a failed ingest took away, if that is the one that is missing. Says whether it did.
///
/// RocksDB links a table into the store, writes it to the manifest and syncs that. Where the sync fails it takes the table out
/// again, although the manifest, as far as the system still has it, names it by now; such a store does not open. The same table is
/// where it came from, since RocksDB removes it there after success only: then it is linked twice, or not there. Should it not be
/// the missing one, RocksDB refuses it, for the manifest knows each table's identity.
pub(crate) fn put_back(layout: &Layout, missing: &Path) -> Result<bool, EngineError> {
    let entering = layout.entering_table();
    match fs::metadata(&entering) {
        Ok(table) if table.nlink() == 1 => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error("putting back a table", &entering, &error)),
    }
    move_table(&entering, missing)?;
    tracing::warn!(table = %missing.display(), "an ingest failed, and RocksDB took its table away; it is put back");
    Ok(true)
}

/// Undoes [`put_back`].
pub(crate) fn take_away(layout: &Layout, table: &Path) -> Result<(), EngineError> {
    move_table(table, &layout.entering_table())
}

fn move_table(from: &Path, to: &Path) -> Result<(), EngineError> {
    let moved = fs::rename(from, to).and_then(|()| to.parent().map_or(Ok(()), layout::sync_directory));
    moved.map_err(|error| io_error("putting back a table", to, &error))
}

/// Makes another data directory of what is stored now. Tables are hard-linked where the file system allows.
///
/// A failure leaves this engine as it was, and no target or an incomplete one, which no engine will open.
pub(crate) fn checkpoint(core: &Core, target: &Path) -> Result<(), EngineError> {
    core.fate.check()?;
    let operation = "checkpoint";
    let fail = |error: io::Error| io_error(operation, target, &error);
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
