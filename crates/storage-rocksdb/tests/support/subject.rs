//! RocksDB as the contract suite wants it, power failures included.
//!
//! A power failure is played on a copy of the directory: the log is cut anywhere at or above the place up to which it had been
//! written when it was last synced. Table files and the manifest need no such treatment, RocksDB syncs them before it names
//! them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use holdfast_storage::choices::SplitMix64;
use holdfast_storage::contract::{Factory, Subject};
use holdfast_storage::engine::{Batch, Engine, EngineError, Row, Seq, Stall, Usage, View};
use holdfast_storage_rocksdb::RocksEngine;
use holdfast_types::Family;

use super::wal::Log;
use super::{copy, damage_tables, log_file, memory_directory, open};

/// Passes everything on, and remembers how far the log had been written at the last sync.
#[derive(Debug)]
struct Watched {
    engine: RocksEngine,
    directory: PathBuf,
    synced: Mutex<(PathBuf, u64)>,
}

impl Watched {
    fn open(directory: &Path) -> Result<Arc<Self>, EngineError> {
        let engine = open(directory)?;
        Ok(Arc::new(Self {
            engine,
            directory: directory.to_owned(),
            synced: Mutex::new(log_end(directory)),
        }))
    }

    fn note_synced(&self) {
        *self.synced.lock().unwrap() = log_end(&self.directory);
    }
}

/// The newest log file, and how far it is written.
fn log_end(directory: &Path) -> (PathBuf, u64) {
    let file = log_file(directory);
    let end = Log::read(&file).end();
    (file, end)
}

#[async_trait]
impl Engine for Watched {
    fn write(&self, batch: Batch) -> Result<Seq, EngineError> {
        self.engine.write(batch)
    }

    async fn sync(&self) -> Result<Seq, EngineError> {
        let synced = self.engine.sync().await?;
        self.note_synced();
        Ok(synced)
    }

    async fn flush(&self) -> Result<Seq, EngineError> {
        self.engine.flush().await
    }

    fn view(&self) -> Box<dyn View> {
        self.engine.view()
    }

    async fn ingest(&self, rows: Vec<(Family, Vec<Row>)>) -> Result<(), EngineError> {
        self.engine.ingest(rows).await
    }

    async fn checkpoint(&self, directory: &Path) -> Result<(), EngineError> {
        self.engine.checkpoint(directory).await
    }

    fn condemn(&self, message: String) -> EngineError {
        self.engine.condemn(message)
    }

    fn usage(&self) -> Result<Usage, EngineError> {
        self.engine.usage()
    }

    fn stall(&self) -> Stall {
        self.engine.stall()
    }
}

/// Makes empty stores.
#[derive(Default)]
pub(crate) struct Stores {
    made: AtomicU64,
}

/// A store in a directory of its own.
pub(crate) struct Store {
    root: tempfile::TempDir,
    /// Counts crashes: each goes on in a directory of its own.
    generation: u64,
    engine: Option<Arc<Watched>>,
    random: SplitMix64,
    checkpoints: AtomicU64,
}

impl Store {
    fn directory(&self) -> PathBuf {
        self.root.path().join(self.generation.to_string())
    }
}

#[async_trait]
impl Factory for Stores {
    type Subject = Store;

    async fn fresh(&self) -> Store {
        let root = memory_directory();
        let engine = Watched::open(&root.path().join("0")).unwrap();
        Store {
            root,
            generation: 0,
            engine: Some(engine),
            random: SplitMix64::new(self.made.fetch_add(1, Ordering::SeqCst)),
            checkpoints: AtomicU64::new(0),
        }
    }
}

#[async_trait]
impl Subject for Store {
    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone().expect("open between calls")
    }

    async fn try_reopen(&mut self) -> Result<(), EngineError> {
        self.engine = None;
        self.engine = Some(Watched::open(&self.directory())?);
        Ok(())
    }

    /// Every table is damaged in its first block, which holds rows.
    async fn damage(&mut self, _: Family, _: &[u8]) -> bool {
        self.engine = None;
        damage_tables(&self.directory());
        self.reopen().await;
        true
    }

    async fn crash(&mut self) -> bool {
        let engine = self.engine.take().expect("open between calls");
        let before = self.directory();
        self.generation += 1;
        let after = self.directory();
        copy(&before, &after);

        let (synced_file, synced_len) = engine.synced.lock().unwrap().clone();
        let (file, written_len) = log_end(&before);
        // A younger log than the synced one: all before it was flushed, nothing in it was synced.
        let synced_len = if file == synced_file { synced_len } else { 0 };
        let cut = synced_len + self.random.below(written_len - synced_len + 1);
        let log = std::fs::File::options()
            .write(true)
            .open(log_file(&after))
            .unwrap();
        log.set_len(cut).unwrap();
        drop(engine);
        self.engine = Some(Watched::open(&after).unwrap());
        true
    }

    fn checkpoint_directory(&self) -> Option<PathBuf> {
        let number = self.checkpoints.fetch_add(1, Ordering::SeqCst);
        Some(self.root.path().join(format!("checkpoint-{number}")))
    }

    async fn open_checkpoint(&self, directory: &Path) -> Option<Arc<dyn Engine>> {
        Some(Arc::new(open(directory).unwrap()))
    }
}
