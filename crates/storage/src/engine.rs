//! The Engine port: the one seam to the disk. RocksDB stands behind it in production, the fault-injecting
//! engine in simulation, and both pass [the contract suite](crate::contract).
//!
//! Duties that the traits cannot express are written on the methods; each has a test in the suite.

use std::fmt;
use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_types::Family;

/// An engine's write sequence number: grows with each batch. A batch is durable once a sync returned a
/// sequence at or above its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

/// The disk or its contents cannot be relied on any more. Always fatal for the node: no retry, no vote, no
/// acknowledgement after it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The operating system refused an operation. After a failed sync the page cache lies (Rebello et al.,
    /// *Can Applications Recover from fsync Failures?*, ATC'20), so it is never tried again.
    #[error("{operation} failed: {message}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The system's words, with the file where known.
        message: String,
    },
    /// What is stored is not what was written.
    #[error("the data directory is damaged: {message}")]
    Damaged {
        /// What was found and what to do.
        message: String,
    },
    /// An earlier failure already stopped this engine.
    #[error("the storage engine stopped after an earlier failure: {message}")]
    Stopped {
        /// The earlier failure.
        message: String,
    },
}

/// One step of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Store a value.
    Put(Family, Bytes, Bytes),
    /// Remove a row; absent is fine.
    Delete(Family, Bytes),
    /// Remove rows from the first key (inclusive) to the second (exclusive).
    DeleteRange(Family, Bytes, Bytes),
}

/// Steps that become visible and durable together, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The steps.
    pub ops: Vec<Op>,
}

impl Batch {
    /// Adds a put.
    pub fn put(&mut self, family: Family, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push(Op::Put(family, key.into(), value.into()));
    }

    /// Adds a delete.
    pub fn delete(&mut self, family: Family, key: impl Into<Bytes>) {
        self.ops.push(Op::Delete(family, key.into()));
    }

    /// Adds a range delete, end exclusive.
    pub fn delete_range(&mut self, family: Family, from: impl Into<Bytes>, to: impl Into<Bytes>) {
        self.ops.push(Op::DeleteRange(family, from.into(), to.into()));
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Key and value bytes, a measure of the batch's size.
    pub fn byte_len(&self) -> usize {
        self.ops
            .iter()
            .map(|op| match op {
                Op::Put(_, key, value) => key.len() + value.len(),
                Op::Delete(_, key) => key.len(),
                Op::DeleteRange(_, from, to) => from.len() + to.len(),
            })
            .sum()
    }
}

/// A row as a scan yields it.
pub type Row = (Bytes, Bytes);

/// Which way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Backward,
}

/// Disk and memory in use, bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes per family, files and memory tables, approximate.
    pub families: Vec<(Family, u64)>,
    /// Bytes of live files.
    pub disk_bytes: u64,
    /// Bytes of write-ahead log.
    pub wal_bytes: u64,
    /// Memory tables, block cache and indexes.
    pub memory_bytes: u64,
    /// Free bytes on the file system; `None`: the engine has no file system.
    pub disk_free_bytes: Option<u64>,
    /// Size of that file system.
    pub disk_total_bytes: Option<u64>,
}

/// How hard the engine is pushing back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stall {
    /// Not at all.
    None,
    /// Writes are being delayed.
    Slow,
    /// Writes are stopped until compaction catches up.
    Stopped,
}

/// An ordered, transactional key-value store with one write-ahead log for all families.
///
/// Blocking threads, if any, live behind it. Reads and writes are quick and may be called from a task.
#[async_trait]
pub trait Engine: Send + Sync + fmt::Debug + 'static {
    /// Applies a batch: atomically, in the order of the calls, visible to views taken after it returned.
    ///
    /// Not durable yet: a crash keeps *some prefix* of all batches in call order, at least up to the last
    /// returned [`sync`](Engine::sync). A crash never keeps part of a batch.
    fn write(&self, batch: Batch) -> Result<Seq, EngineError>;

    /// Makes everything written before the call durable, and returns the sequence reached.
    ///
    /// A failure is terminal: every later call fails with [`EngineError::Stopped`].
    async fn sync(&self) -> Result<Seq, EngineError>;

    /// Moves memory tables into files, so that the write-ahead log before them can go. Durable on return.
    async fn flush(&self) -> Result<Seq, EngineError>;

    /// A frozen picture of everything written so far. Cheap; dropping it releases what it pins.
    fn view(&self) -> Box<dyn View>;

    /// Loads rows into families in bulk, replacing rows of the same key. Rows of each family arrive in
    /// ascending key order, each key once.
    ///
    /// *Not atomic* between families and not ordered with concurrent writes: a crash may keep any subset of
    /// the families. Durable on return.
    async fn ingest(&self, rows: Vec<(Family, Vec<Row>)>) -> Result<(), EngineError>;

    /// Writes a consistent copy of the whole store to an empty or absent directory.
    async fn checkpoint(&self, directory: &std::path::Path) -> Result<(), EngineError>;

    /// Whoever reads bytes that are certainly not what was written, because they have a checksum of their own, says so here.
    /// It is as if the engine had found the damage itself: it is remembered, and every later call fails with
    /// [`EngineError::Stopped`]. The answer is that damage.
    fn condemn(&self, message: String) -> EngineError;

    /// What is in use.
    fn usage(&self) -> Result<Usage, EngineError>;

    /// Whether writes are being held back.
    fn stall(&self) -> Stall;
}

/// A frozen picture of the store.
pub trait View: Send + Sync {
    /// The value of a key.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// The values of many keys, in the order of the keys.
    fn multi_get(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        keys.iter().map(|key| self.get(family, key)).collect()
    }

    /// Rows between two bounds, one way or the other. Reading stops at the bounds, never beyond.
    fn scan<'v>(
        &'v self,
        family: Family,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row, EngineError>> + Send + 'v>;
}
