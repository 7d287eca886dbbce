//! RocksDB passes the contract suite that every engine must pass, power failures included.
//!
//! A power failure is played on a copy of the directory: the log is cut anywhere at or above the length it had when it was
//! last synced. Table files and the manifest need no such treatment, RocksDB syncs them before it names them.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use holdfast_storage::choices::SplitMix64;
use holdfast_storage::contract::{self, Factory, Subject};
use holdfast_storage::engine::{Batch, Engine, EngineError, Row, Seq, Stall, Usage, View};
use holdfast_storage_rocksdb::RocksEngine;
use holdfast_types::Family;
use support::{copy, log_file, log_len, open};

/// Passes everything on, and remembers how long the log was at the last sync.
#[derive(Debug)]
struct Watched {
    engine: RocksEngine,
    directory: PathBuf,
    synced: Mutex<(PathBuf, u64)>,
}

impl Watched {
    fn open(directory: &Path) -> Arc<Self> {
        let engine = open(directory).unwrap();
        let synced = Mutex::new((log_file(directory), log_len(directory)));
        Arc::new(Self {
            engine,
            directory: directory.to_owned(),
            synced,
        })
    }

    fn note_synced(&self) {
        *self.synced.lock().unwrap() = (log_file(&self.directory), log_len(&self.directory));
    }
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

    fn usage(&self) -> Result<Usage, EngineError> {
        self.engine.usage()
    }

    fn stall(&self) -> Stall {
        self.engine.stall()
    }
}

struct Stores {
    made: AtomicU64,
}

struct Store {
    root: tempfile::TempDir,
    /// Counts crashes: each goes on in a directory of its own.
    generation: u64,
    engine: Option<Arc<Watched>>,
    random: SplitMix64,
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
        let root = tempfile::tempdir().unwrap();
        let engine = Watched::open(&root.path().join("0"));
        Store {
            root,
            generation: 0,
            engine: Some(engine),
            random: SplitMix64::new(self.made.fetch_add(1, Ordering::SeqCst)),
        }
    }
}

#[async_trait]
impl Subject for Store {
    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone().expect("open between calls")
    }

    async fn reopen(&mut self) {
        self.engine = None;
        self.engine = Some(Watched::open(&self.directory()));
    }

    async fn crash(&mut self) -> bool {
        let engine = self.engine.take().expect("open between calls");
        let before = self.directory();
        self.generation += 1;
        let after = self.directory();
        copy(&before, &after);

        let (file, len) = engine.synced.lock().unwrap().clone();
        // A younger log than the synced one: all before it was flushed, nothing in it was synced.
        let synced_len = if file == log_file(&before) { len } else { 0 };
        let written_len = log_len(&after);
        let cut = synced_len + self.random.below(written_len - synced_len + 1);
        let log = std::fs::File::options()
            .write(true)
            .open(log_file(&after))
            .unwrap();
        log.set_len(cut).unwrap();
        drop(engine);
        self.engine = Some(Watched::open(&after));
        true
    }

    fn checkpoint_directory(&self) -> Option<PathBuf> {
        Some(self.root.path().join("checkpoint"))
    }

    async fn open_checkpoint(&self, directory: &Path) -> Option<Arc<dyn Engine>> {
        Some(Arc::new(open(directory).unwrap()))
    }
}

#[tokio::test]
async fn passes_the_contract_suite() {
    contract::run_all(&Stores {
        made: AtomicU64::new(0),
    })
    .await;
}
