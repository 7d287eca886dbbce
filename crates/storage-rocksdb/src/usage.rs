//! What the engine uses, as numbers: for callers ([`Usage`]) and as gauges.

use std::fs;
use std::path::Path;

use holdfast_storage::engine::{EngineError, Stall, Usage};
use holdfast_types::Family;
use metrics::gauge;
use rocksdb::properties::{self, PropName};

use crate::engine::Core;
use crate::fate::{io_error, rocks_error};

/// Measures. Failures are not terminal: a number that cannot be had says nothing about the rows.
pub(crate) fn measure(core: &Core) -> Result<Usage, EngineError> {
    let mut families = Vec::with_capacity(Family::ALL.len());
    let mut disk_bytes = 0;
    for family in Family::ALL {
        let tables = family_property(core, family, properties::LIVE_SST_FILES_SIZE)?;
        let memory = family_property(core, family, properties::CUR_SIZE_ALL_MEM_TABLES)?;
        disk_bytes += tables;
        families.push((family, tables + memory));
    }
    let disk = disk(core)?;
    Ok(Usage {
        families,
        disk_bytes,
        wal_bytes: wal_bytes(core)?,
        // Memory tables, indexes and filters are charged to the cache.
        memory_bytes: core.tuning.cache.get_usage() as u64,
        disk_free_bytes: Some(disk.free_bytes),
        disk_total_bytes: Some(disk.total_bytes),
    })
}

/// How hard RocksDB pushes back.
pub(crate) fn stall(core: &Core) -> Stall {
    if database_property(core, properties::IS_WRITE_STOPPED) > 0 {
        Stall::Stopped
    } else if database_property(core, properties::ACTUAL_DELAYED_WRITE_RATE) > 0 {
        Stall::Slow
    } else {
        Stall::None
    }
}

/// How many flushes and compactions have failed since the start.
pub(crate) fn background_errors(core: &Core) -> u64 {
    database_property(core, properties::BACKGROUND_ERRORS)
}

/// The file system below the data directory.
pub(crate) struct Disk {
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
}

/// Asks the file system.
pub(crate) fn disk(core: &Core) -> Result<Disk, EngineError> {
    disk_at(core.layout.root())
}

/// Asks the file system that holds a path.
pub(crate) fn disk_at(path: &Path) -> Result<Disk, EngineError> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|error| io_error("asking the file system for its size", path, &error.into()))?;
    Ok(Disk {
        // What an ordinary user may still use, without the superuser's reserve.
        free_bytes: stat.f_bavail * stat.f_frsize,
        total_bytes: stat.f_blocks * stat.f_frsize,
    })
}

/// Sets the gauges.
pub(crate) fn record(core: &Core) -> Result<Usage, EngineError> {
    let usage = measure(core)?;
    for (family, bytes) in &usage.families {
        gauge!("holdfast_rocksdb_family_bytes", "family" => family.name()).set(*bytes as f64);
    }
    gauge!("holdfast_rocksdb_disk_bytes").set(usage.disk_bytes as f64);
    gauge!("holdfast_rocksdb_wal_bytes").set(usage.wal_bytes as f64);
    gauge!("holdfast_rocksdb_memory_bytes").set(usage.memory_bytes as f64);
    if let (Some(free), Some(total)) = (usage.disk_free_bytes, usage.disk_total_bytes) {
        gauge!("holdfast_rocksdb_disk_free_bytes").set(free as f64);
        gauge!("holdfast_rocksdb_disk_total_bytes").set(total as f64);
    }
    gauge!("holdfast_rocksdb_stall").set(match stall(core) {
        Stall::None => 0.0,
        Stall::Slow => 1.0,
        Stall::Stopped => 2.0,
    });

    let mut pending_bytes = 0;
    for family in Family::ALL {
        pending_bytes += family_property(core, family, properties::ESTIMATE_PENDING_COMPACTION_BYTES)?;
    }
    gauge!("holdfast_rocksdb_pending_compaction_bytes").set(pending_bytes as f64);
    for (name, property) in [
        ("holdfast_rocksdb_views", properties::NUM_SNAPSHOTS),
        (
            "holdfast_rocksdb_background_errors",
            properties::BACKGROUND_ERRORS,
        ),
        (
            "holdfast_rocksdb_running_flushes",
            properties::NUM_RUNNING_FLUSHES,
        ),
        (
            "holdfast_rocksdb_running_compactions",
            properties::NUM_RUNNING_COMPACTIONS,
        ),
    ] {
        gauge!(name).set(database_property(core, property) as f64);
    }
    Ok(usage)
}

/// How many rows, and deletions of rows, are in memory tables.
pub(crate) fn rows_in_memory(core: &Core) -> Result<u64, EngineError> {
    let mut rows = 0;
    for family in Family::ALL {
        for property in [
            properties::NUM_ENTRIES_ACTIVE_MEM_TABLE,
            properties::NUM_ENTRIES_IMM_MEM_TABLES,
        ] {
            rows += family_property(core, family, property)?;
        }
    }
    Ok(rows)
}

/// Absent properties read as 0.
fn database_property(core: &Core, property: &PropName) -> u64 {
    core.db.property_int_value(property).ok().flatten().unwrap_or(0)
}

fn family_property(core: &Core, family: Family, property: &PropName) -> Result<u64, EngineError> {
    core.db
        .property_int_value_cf(core.handle(family), property)
        .map(|value| value.unwrap_or(0))
        .map_err(|error| rocks_error("reading RocksDB's properties", &error))
}

/// The log files' sizes, those kept for recycling included: they occupy the disk all the same.
fn wal_bytes(core: &Core) -> Result<u64, EngineError> {
    let directory = core.layout.db();
    let entries =
        fs::read_dir(&directory).map_err(|error| io_error("listing the log", &directory, &error))?;
    Ok(entries
        .filter_map(Result::ok)
        .filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "log")
        })
        // A file may be deleted between being listed and being asked.
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum())
}
