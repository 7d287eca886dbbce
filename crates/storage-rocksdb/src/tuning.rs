//! RocksDB's options: one set for the database, one per kind of family.
//!
//! **One log, cut everywhere at once.** `atomic_flush` flushes all families at the same sequence number, so the tables always hold a
//! prefix of all batches, and everything after it is in the log. With that, the recovered sequence number says exactly how much
//! was recovered, which is what the synced-through mark compares. Families flushed one by one would need the log to agree with each.
//!
//! **Log files are recycled.** Syncing an overwrite costs a third of syncing an append, which also changes the file's size. Recycling
//! needs point-in-time recovery and rules out writes that skip the log; both hold here. It also forbids gaps in the sequence numbers
//! between two logs, which ingests see to ([`crate::bulk`]); so a gap is a hole that something was lost from ([`crate::hole`], which reads
//! logs and relies on these options: recyclable, one queue of writers, not compressed, nothing recovered that is not flushed at once).
//!
//! **No prefix extractors.** Scans here cross prefixes, and RocksDB answers such scans wrongly unless every iterator asks for total
//! order. Point reads have whole-key filters instead.
//!
//! **Compaction gives way.** Its threads have the lowest processor priority: whoever waits for an answer waits for a flush at most.
//!
//! **One memory budget**: the block cache. Memory tables, index and filter blocks are charged to it.

use std::path::Path;
use std::thread::available_parallelism;

use holdfast_types::Family;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode,
    Env, Options, WriteBufferManager,
};

const MIB: usize = 1 << 20;

/// Below this, memory tables would be so small that RocksDB does nothing but flush.
const MEMORY_BUDGET_BYTES_MIN: usize = 64 * MIB;

/// How many tables gather in level 0 before they are merged into the next level. All families are flushed together, so a table there is
/// much smaller than a full memory table, and RocksDB's default of 4 would rewrite that level for the sake of a few MiB: with 12 compaction
/// costs a quarter. A read asks each table's filter, which is in memory.
const LEVEL_0_TABLES: i32 = 12;

/// The shared caches and the sizes derived from the memory budget.
pub(crate) struct Tuning {
    pub(crate) cache: Cache,
    buffers: WriteBufferManager,
    buffer_bytes: usize,
}

/// How a family is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Rows that stay, mostly read by whole key; some kilobytes each.
    Record,
    /// The same, but small and many.
    Index,
    /// Rows that come sorted by time and leave by range.
    Queue,
    /// Appended, read soon or never, removed by range.
    Log,
    /// A handful of rows.
    Small,
}

impl Kind {
    fn of(family: Family) -> Self {
        match family {
            Family::Account | Family::Credential => Kind::Record,
            Family::Activity | Family::Claim => Kind::Index,
            Family::Request | Family::Due | Family::Change | Family::Txn | Family::Intent => Kind::Queue,
            Family::RaftLog => Kind::Log,
            Family::Meta | Family::RaftMeta => Kind::Small,
        }
    }
}

impl Tuning {
    /// Splits a memory budget: all of it is cache, of which memory tables may take a quarter. An eighth would be full before a
    /// group flushes by itself, at entries of its own choosing.
    pub(crate) fn new(memory_budget_bytes: u64) -> Self {
        let budget = usize::try_from(memory_budget_bytes)
            .unwrap_or(usize::MAX)
            .max(MEMORY_BUDGET_BYTES_MIN);
        let cache = Cache::new_lru_cache(budget);
        let buffer_bytes = budget / 4;
        Self {
            // Never stall writers for memory: RocksDB flushes when the limit is near, and its own triggers slow writers down.
            buffers: WriteBufferManager::new_write_buffer_manager_with_cache(
                buffer_bytes,
                false,
                cache.clone(),
            ),
            cache,
            buffer_bytes,
        }
    }

    /// The database's options.
    pub(crate) fn database(&self, create: bool) -> Result<Options, rocksdb::Error> {
        let mut options = Options::default();
        // The pool is the process's, and so is its priority.
        let mut env = Env::new()?;
        env.lower_thread_pool_cpu_priority();
        options.set_env(&env);
        options.create_if_missing(create);
        // Also for a family that a later release adds.
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_recycle_log_file_num(2);
        options.set_max_total_wal_size(2 * self.buffer_bytes as u64);
        options.set_write_buffer_manager(&self.buffers);

        let cpus = available_parallelism().map_or(2, usize::from);
        options.set_max_background_jobs(i32::try_from(cpus.clamp(2, 8)).unwrap_or(8));
        // Spread the writing of big tables, so that the log's syncs do not queue behind it.
        options.set_bytes_per_sync(MIB as u64);
        options.set_avoid_unnecessary_blocking_io(true);
        // Leaves room under the usual limit of 1,024 files for connections.
        options.set_max_open_files(512);

        options.set_max_log_file_size(16 * MIB);
        options.set_keep_log_file_num(4);
        Ok(options)
    }

    /// Every column family, RocksDB's own `default` included, which stays empty.
    pub(crate) fn families(&self) -> Vec<ColumnFamilyDescriptor> {
        let mut families = vec![ColumnFamilyDescriptor::new(
            rocksdb::DEFAULT_COLUMN_FAMILY_NAME,
            self.kind(Kind::Small),
        )];
        families.extend(
            Family::ALL
                .into_iter()
                .map(|family| ColumnFamilyDescriptor::new(family.name(), self.family(family))),
        );
        families
    }

    /// One family's options; also what tables to ingest are built with.
    pub(crate) fn family(&self, family: Family) -> Options {
        self.kind(Kind::of(family))
    }

    fn kind(&self, kind: Kind) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);

        let mut options = Options::default();
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(self.write_buffer_bytes(kind));
        match kind {
            Kind::Record | Kind::Index => {
                table.set_block_size(8 * 1024);
                table.set_bloom_filter(10.0, false);
                // Partitioned, so that the index of hundreds of millions of rows need not be resident.
                table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
                // The filter of a table of small rows would be a megabyte, too much to read for one of them. In parts it costs a
                // search more, for each table that is asked.
                table.set_partition_filters(kind == Kind::Index);
                table.set_optimize_filters_for_memory(true);
                filter_memory_tables(&mut options);
                options.set_bottommost_compression_type(DBCompressionType::Zstd);
                // zstd's level 1. Its default, 3, costs twice as much and gains a few percent on such rows.
                options.set_bottommost_compression_options(-14, 1, 0, 0, true);
            }
            Kind::Queue => {
                table.set_block_size(16 * 1024);
                table.set_bloom_filter(10.0, false);
                filter_memory_tables(&mut options);
                // Half of a thousand neighbours deleted: compact, or scans walk over tombstones.
                options.add_compact_on_deletion_collector_factory(1024, 512, 0.5);
            }
            Kind::Log => {
                table.set_block_size(32 * 1024);
                // Entries are gone before compression or compaction could earn anything.
                options.set_compression_type(DBCompressionType::None);
                options.set_level_zero_file_num_compaction_trigger(8);
            }
            Kind::Small => {}
        }
        if matches!(kind, Kind::Record | Kind::Index | Kind::Queue) {
            options.set_level_zero_file_num_compaction_trigger(LEVEL_0_TABLES);
        }
        options.set_block_based_table_factory(&table);
        options
    }

    fn write_buffer_bytes(&self, kind: Kind) -> usize {
        match kind {
            Kind::Record | Kind::Index | Kind::Queue | Kind::Log => (self.buffer_bytes / 2).min(64 * MIB),
            Kind::Small => (self.buffer_bytes / 16).min(4 * MIB),
        }
    }
}

/// Filters in memory tables too: most point reads are for rows that must not be there yet.
fn filter_memory_tables(options: &mut Options) {
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(0.02);
}

/// Families that this release does not know.
pub(crate) fn unknown_families(db: &Path) -> Result<Vec<String>, rocksdb::Error> {
    let names = rocksdb::DB::list_cf(&Options::default(), db)?;
    Ok(names
        .into_iter()
        .filter(|name| {
            name != rocksdb::DEFAULT_COLUMN_FAMILY_NAME
                && !Family::ALL.iter().any(|family| family.name() == name)
        })
        .collect())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;

    use super::*;

    /// The priorities of this process's threads with a name like this, as `nice` counts them.
    fn nice_of(threads: &str) -> Vec<i32> {
        let tasks = fs::read_dir("/proc/self/task").expect("Linux has it");
        let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
        let found = stats.filter_map(|stat| {
            // The name is in parentheses, and what follows it is counted from the third field on.
            let (name, fields) = stat.split_once('(')?.1.rsplit_once(')')?;
            let nice = fields.split_ascii_whitespace().nth(16)?.parse().ok()?;
            name.starts_with(threads).then_some(nice)
        });
        found.collect()
    }

    #[test]
    fn compaction_gives_way_and_flushes_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let tuning = Tuning::new(0);
        let options = tuning.database(true).unwrap();
        let db = rocksdb::DB::open_cf_descriptors(&options, directory.path(), tuning.families()).unwrap();
        for round in 0..2_u32 {
            for key in 0..100_u32 {
                db.put(key.to_be_bytes(), round.to_be_bytes()).unwrap();
            }
            db.flush().unwrap();
        }
        db.compact_range(None::<&[u8]>, None::<&[u8]>);
        let compactions = nice_of("rocksdb:low");
        assert!(compactions.contains(&19), "{compactions:?}");
        let flushes = nice_of("rocksdb:high");
        assert!(
            !flushes.is_empty() && flushes.iter().all(|nice| *nice == nice_of("")[0]),
            "{flushes:?}"
        );
    }
}
