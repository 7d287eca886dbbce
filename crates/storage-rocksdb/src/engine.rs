//! The engine: opening a data directory, writing, and what the port's methods come down to.
//!
//! Opening, in this order: lock, format and what is known of damage ([`crate::layout`]), the ballast if the disk is full, the synced-through mark, the search for holes
//! in the log ([`crate::hole`]), RocksDB and its recovery, then the comparison with the mark. Only after that may anybody believe what is stored.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use holdfast_storage::engine::{Batch, Engine, EngineError, Op, Row, Seq, Stall, Usage, View};
use holdfast_types::Family;
use metrics::histogram;
use rocksdb::{ColumnFamily, DBWithThreadMode, ErrorKind, SingleThreaded, WriteBatch, WriteOptions};

use crate::ballast::Ballast;
use crate::examine;
use crate::fate::{Fate, found_by_reader};
use crate::hole;
use crate::housekeeping::{self, Housekeeping};
use crate::layout::Layout;
use crate::mark::Mark;
use crate::syncer::Syncer;
use crate::tuning::{Tuning, unknown_families};
use crate::view::RocksView;
use crate::{bulk, usage};

/// Families are fixed at start, so looking one up needs no lock.
pub(crate) type Db = DBWithThreadMode<SingleThreaded>;

/// How often a stopped writer looks whether it may go on.
const STALL_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How to open an engine.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The data directory; made if absent.
    pub directory: PathBuf,
    /// Memory for the block cache, memory tables, indexes and filters together. At least 64 MiB are taken.
    pub memory_budget_bytes: u64,
    /// Disk space kept back for when the disk is full; 0 keeps none. Half of the memory budget is right: before recovery
    /// can let go of the log, it writes down what the memory tables held, up to a quarter of the budget.
    pub ballast_bytes: u64,
}

impl OpenOptions {
    /// A directory with the defaults: 512 MiB of memory, 256 MiB of ballast.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            memory_budget_bytes: 512 << 20,
            ballast_bytes: 256 << 20,
        }
    }
}

/// What the engine, its threads and its views share.
pub(crate) struct Core {
    pub(crate) db: Db,
    pub(crate) tuning: Tuning,
    pub(crate) fate: Fate,
    /// Shared by writers; an ingest, which no batch may come into, holds it alone.
    pub(crate) writers: RwLock<()>,
    pub(crate) mark: Mark,
    pub(crate) ballast: Ballast,
    /// Last, so that the directory is unlocked after RocksDB has let go of it.
    pub(crate) layout: Layout,
}

impl Core {
    /// A family's handle.
    pub(crate) fn handle(&self, family: Family) -> &ColumnFamily {
        self.db
            .cf_handle(family.name())
            .expect("every family is opened at start")
    }
}

/// RocksDB behind the [`Engine`] port. See the crate's documentation.
///
/// Dropping it waits for the sync in progress; views keep the database open, and the directory locked, until they are
/// dropped too.
pub struct RocksEngine {
    syncer: Syncer,
    _housekeeping: Housekeeping,
    core: Arc<Core>,
}

impl RocksEngine {
    /// Opens a data directory, laying it out if it is new. Blocks for as long as recovery takes.
    ///
    /// Fails with [`EngineError::Damaged`] if less of the log was recovered than had been synced, or if an earlier process
    /// met damage: the node must then be replaced under a new id.
    pub fn open(options: OpenOptions) -> Result<Self, EngineError> {
        check_processor()?;
        let layout = Layout::open(&options.directory)?;
        let ballast = Ballast::new(layout.ballast(), options.ballast_bytes);
        tend_ballast_at_start(&ballast, layout.root())?;
        let mark = Mark::open(&layout.mark())?;
        let tuning = Tuning::new(options.memory_budget_bytes);
        let db = open_rocks(&layout, &tuning, mark.sequence())?;
        layout.empty_ingest_directory()?;

        let recovered = db.latest_sequence_number();
        if recovered < mark.sequence() {
            return Err(examine::log_is_short(&layout.db(), mark.sequence(), recovered));
        }
        let core = Arc::new(Core {
            db,
            tuning,
            fate: Fate::new(layout.damage_note()),
            writers: RwLock::default(),
            mark,
            ballast,
            layout,
        });
        // What is found here is taken for durable by whoever reads it, so it must be, even where a process died before it
        // synced.
        bulk::flush_what_recovery_left(&core)?;
        core.mark.sync()?;
        tracing::info!(directory = %options.directory.display(), sequence = recovered, "the storage engine is open");
        Ok(Self {
            syncer: Syncer::start(&core)?,
            _housekeeping: Housekeeping::start(&core)?,
            core,
        })
    }

    /// Test seam for fail-stop: the next sync fails as if the operating system had refused it.
    pub fn fail_next_sync(&self) {
        self.syncer.fail_next();
    }

    /// Deletes the ballast, for an operator who needs the room now. It comes back when there is plenty again.
    /// Returns the bytes freed.
    pub fn release_ballast(&self) -> Result<u64, EngineError> {
        match self.core.ballast.release() {
            Ok(crate::ballast::Tended::Released(bytes)) => Ok(bytes),
            Ok(_) => Ok(0),
            Err(error) => Err(EngineError::Io {
                operation: "releasing the ballast",
                message: error.to_string(),
            }),
        }
    }

    /// Runs blocking work beside the runtime. It is finished even if the caller goes away.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Core) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let core = self.core.clone();
        match tokio::task::spawn_blocking(move || work(&core)).await {
            Ok(result) => result,
            Err(error) => Err(self.core.fate.stop(EngineError::Io {
                operation,
                message: error.to_string(),
            })),
        }
    }
}

/// RocksDB is compiled for processors that compute CRC-32C themselves (`.cargo/config.toml`). On another one it would die of
/// an illegal instruction.
fn check_processor() -> Result<(), EngineError> {
    #[cfg(target_arch = "x86_64")]
    if !std::is_x86_feature_detected!("sse4.2") || !std::is_x86_feature_detected!("pclmulqdq") {
        return Err(EngineError::Io {
            operation: "starting the store",
            message: "this processor has no SSE4.2 or no PCLMULQDQ, which this build of RocksDB uses; run on a newer one, or \
                      build without CXXFLAGS in .cargo/config.toml"
                .into(),
        });
    }
    Ok(())
}

/// A full disk must not keep a node from starting, or nobody could make room in it.
fn tend_ballast_at_start(ballast: &Ballast, root: &Path) -> Result<(), EngineError> {
    let free_bytes = usage::disk_at(root)?.free_bytes;
    match ballast.tend(free_bytes) {
        Ok(tended) => housekeeping::report(tended, free_bytes),
        Err(error) => tracing::warn!(%error, "the ballast could not be tended"),
    }
    Ok(())
}

fn open_rocks(layout: &Layout, tuning: &Tuning, synced_through: u64) -> Result<Db, EngineError> {
    let path = layout.db();
    let exists = examine::store_exists(&path, synced_through)?;
    if exists {
        let unknown = unknown_families(&path).map_err(|error| examine::not_opened(&path, &error))?;
        if !unknown.is_empty() {
            return Err(EngineError::Io {
                operation: "opening the store",
                message: format!(
                    "{} holds families that this release does not know ({}); run the release that wrote them",
                    path.display(),
                    unknown.join(", ")
                ),
            });
        }
        // No log is ever in that directory.
        hole::close(&path, &layout.ingest(), synced_through)?;
    }
    let open = || {
        let db = tuning
            .database(!exists)
            .and_then(|options| Db::open_cf_descriptors(&options, &path, tuning.families()))
            .map_err(|error| examine::Refusal::of_rocks(&path, &error))?;
        examine::look_for_tables(&path, &db)?;
        Ok(db)
    };
    let refusal: examine::Refusal = match open() {
        Ok(db) => return Ok(db),
        Err(refusal) => refusal,
    };
    if let Some(table) = &refusal.missing_table
        && bulk::put_back(layout, table)?
    {
        match open() {
            Ok(db) => return Ok(db),
            Err(_) => bulk::take_away(layout, table)?,
        }
    }
    Err(refusal.why)
}

/// Writes, and waits where RocksDB holds writers back, but not for something that will never come: when compaction has given
/// up for want of room, stopped writes stay stopped, and this node must say so instead of hanging.
pub(crate) fn write_through(core: &Core, batch: &Batch) -> Result<(), EngineError> {
    let mut at_once = WriteOptions::default();
    at_once.set_no_slowdown(true);
    match core.db.write_opt(rocks_batch(core, batch), &at_once) {
        Err(error) if error.kind() == ErrorKind::Incomplete => {}
        result => return result.map_err(|error| core.fate.stop_rocks("write", &error)),
    }
    while usage::stall(core) == Stall::Stopped {
        if usage::background_errors(core) > 0 {
            return Err(core.fate.stop(EngineError::Io {
                operation: "write",
                message: "writes wait for compaction, which has failed; most likely the disk is full: make room, then \
                          start this node again (db/LOG says more)"
                    .into(),
            }));
        }
        std::thread::sleep(STALL_POLL_INTERVAL);
    }
    core.db
        .write(rocks_batch(core, batch))
        .map_err(|error| core.fate.stop_rocks("write", &error))
}

fn rocks_batch(core: &Core, batch: &Batch) -> WriteBatch {
    let mut rocks = WriteBatch::with_capacity_bytes(batch.ops.iter().map(bytes_of).sum());
    for op in &batch.ops {
        match op {
            Op::Put(family, key, value) => rocks.put_cf(core.handle(*family), key, value),
            Op::Delete(family, key) => rocks.delete_cf(core.handle(*family), key),
            // RocksDB would accept a reversed range into the log and then refuse to apply it.
            Op::DeleteRange(_, from, to) if from >= to => {}
            Op::DeleteRange(family, from, to) => rocks.delete_range_cf(core.handle(*family), from, to),
        }
    }
    rocks
}

/// About what an operation takes in a batch.
fn bytes_of(op: &Op) -> usize {
    const FRAME: usize = 16;
    FRAME
        + match op {
            Op::Put(_, key, value) => key.len() + value.len(),
            Op::Delete(_, key) => key.len(),
            Op::DeleteRange(_, from, to) => from.len() + to.len(),
        }
}

#[async_trait]
impl Engine for RocksEngine {
    fn write(&self, batch: Batch) -> Result<Seq, EngineError> {
        let core = &self.core;
        core.fate.check()?;
        let started = Instant::now();
        if !batch.is_empty() {
            let _among_writers = core.writers.read().unwrap_or_else(PoisonError::into_inner);
            write_through(core, &batch)?;
        }
        // At or above this batch's own number: another writer may have come between, which only asks for more.
        let sequence = core.db.latest_sequence_number();
        histogram!("holdfast_engine_write_seconds").record(started.elapsed());
        Ok(Seq(sequence))
    }

    async fn sync(&self) -> Result<Seq, EngineError> {
        self.syncer.sync(&self.core).await
    }

    async fn flush(&self) -> Result<Seq, EngineError> {
        self.blocking("flush", bulk::flush).await
    }

    fn view(&self) -> Box<dyn View> {
        Box::new(RocksView::new(self.core.clone()))
    }

    async fn ingest(&self, rows: Vec<(Family, Vec<Row>)>) -> Result<(), EngineError> {
        self.blocking("ingest", move |core| bulk::ingest(core, rows))
            .await
    }

    async fn checkpoint(&self, directory: &Path) -> Result<(), EngineError> {
        let directory = directory.to_owned();
        self.blocking("checkpoint", move |core| bulk::checkpoint(core, &directory))
            .await
    }

    fn condemn(&self, message: String) -> EngineError {
        self.core.fate.stop(found_by_reader(&message))
    }

    fn usage(&self) -> Result<Usage, EngineError> {
        usage::record(&self.core)
    }

    fn stall(&self) -> Stall {
        usage::stall(&self.core)
    }
}

impl fmt::Debug for RocksEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksEngine")
            .field("directory", &self.core.layout.root())
            .finish_non_exhaustive()
    }
}
