//! The load that a child process puts on a store until it is killed, and what must be there afterwards.
//!
//! Batch `n` follows from `n` alone, so from the number of batches alone follows every row. A writer writes and syncs; beside it
//! flushes, ingests and checkpoints take turns. Everything is reported on a pipe, one line an event:
//!
//! ```text
//! begin WHAT, end WHAT      open, flush, ingest or checkpoint is under way
//! found N                   the store was opened, and holds batches up to N
//! written N, synced N       returned for batch N, or for all up to it
//! ingesting G, ingested G   began, returned for generation G
//! checkpointing NAME N      begins; N batches have been written
//! checkpointed NAME         returned
//! failed WHAT: WHY          the first failure of the writer, or of what goes on beside it
//! refused WHAT, LIED WHAT   what an engine that had failed answered, asked again
//! ```

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdfast_storage::choices::SplitMix64;
use holdfast_storage::engine::{Batch, Direction, Engine, EngineError, Op, Row, View};
use holdfast_storage_rocksdb::RocksEngine;
use holdfast_types::Family;

use super::{key, log_file, open};

/// Names the directory that a child works in: the store is `data` below it, checkpoints go to `copies`.
pub(crate) const DIRECTORY: &str = "HOLDFAST_TEST_DIRECTORY";

/// What a child exits with after its engine has failed.
pub(crate) const FATAL: i32 = 70;

/// What batches write, and what is left to ingests.
const BATCHED: [Family; 4] = [Family::Account, Family::Claim, Family::RaftLog, Family::RaftMeta];
const INGESTED: [Family; 2] = [Family::Txn, Family::Intent];

/// The row that counts batches, and how many rows an ingest brings to each family.
const COUNT: &[u8] = b"count";
const INGESTED_ROWS: u64 = 40;

/// A child that nobody kills ends after so many batches, which takes much longer than any test waits.
const BATCHES: u64 = 100_000;

/// The store below a child's directory.
pub(crate) fn data(root: &Path) -> PathBuf {
    root.join("data")
}

/// Where checkpoints go.
pub(crate) fn copies(root: &Path) -> PathBuf {
    root.join("copies")
}

/// Batch `n`, the first is 1.
pub(crate) fn batch(n: u64) -> Batch {
    let mut random = SplitMix64::new(n);
    let mut batch = Batch::default();
    batch.put(Family::RaftMeta, COUNT, key(n));
    // Now and then one that spans blocks of the log.
    let len = if n.is_multiple_of(17) {
        70_000
    } else {
        random.below(600)
    };
    batch.put(Family::RaftLog, key(n), noise(&mut random, len));
    for family in [Family::Account, Family::Claim] {
        batch.put(family, key(random.below(64)), noise(&mut random, 40));
        if n.is_multiple_of(5) {
            batch.delete(family, key(random.below(64)));
        }
    }
    if n.is_multiple_of(16) {
        batch.delete_range(Family::RaftLog, key(0), key(n.saturating_sub(40)));
    }
    batch
}

fn noise(random: &mut SplitMix64, len: u64) -> Bytes {
    let words = (0..len.div_ceil(8)).flat_map(|_| random.next_u64().to_be_bytes());
    words.take(len as usize).collect()
}

/// The rows that generation `g` ingests into each of its families.
fn generation_rows(g: u64) -> Vec<(Family, Vec<Row>)> {
    let rows = || (0..INGESTED_ROWS).map(|n| (key(n), key(g))).collect();
    INGESTED.map(|family| (family, rows())).to_vec()
}

/// What the batched families hold after so many batches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model {
    batches: u64,
    rows: BTreeMap<(Family, Bytes), Bytes>,
}

impl Model {
    /// How many batches that is.
    pub(crate) fn batches(&self) -> u64 {
        self.batches
    }

    /// Goes on to batch `n`.
    pub(crate) fn advance(&mut self, n: u64) {
        assert!(n >= self.batches, "a model only goes forward");
        for n in self.batches + 1..=n {
            for op in batch(n).ops {
                match op {
                    Op::Put(family, key, value) => drop(self.rows.insert((family, key), value)),
                    Op::Delete(family, key) => drop(self.rows.remove(&(family, key))),
                    Op::DeleteRange(family, from, to) => {
                        self.rows.retain(|(its_family, key), _| {
                            *its_family != family || *key < from || *key >= to
                        });
                    }
                }
            }
        }
        self.batches = n;
    }
}

/// How many batches are there. All their rows must be, and nothing else: a prefix of what was written.
pub(crate) fn batches(engine: &RocksEngine, base: &Model) -> u64 {
    let view = engine.view();
    let n = count(&*view);
    assert!(
        n >= base.batches,
        "{n} batches are there, {} were safe",
        base.batches
    );
    let mut model = base.clone();
    model.advance(n);
    let mut rows = BTreeMap::new();
    for family in BATCHED {
        rows.extend(
            scan(&*view, family)
                .into_iter()
                .map(|(key, value)| ((family, key), value)),
        );
    }
    assert!(
        rows == model.rows,
        "the rows are not those of the first {n} batches"
    );
    n
}

/// Which generation was ingested last into each family, 0 for none. A family must hold all its rows or none.
pub(crate) fn generations(engine: &RocksEngine) -> Vec<u64> {
    let view = engine.view();
    INGESTED
        .map(|family| {
            let rows = scan(&*view, family);
            let g = rows.first().map_or(0, |(_, value)| number(value));
            let whole: Vec<Row> = (0..INGESTED_ROWS).map(|n| (key(n), key(g))).collect();
            assert!(g == 0 || rows == whole, "{family:?} holds part of generation {g}");
            g
        })
        .to_vec()
}

fn count(view: &dyn View) -> u64 {
    let count = view.get(Family::RaftMeta, COUNT).unwrap();
    count.map_or(0, |count| number(&count))
}

fn number(bytes: &Bytes) -> u64 {
    u64::from_be_bytes(bytes[..].try_into().unwrap())
}

fn scan(view: &dyn View, family: Family) -> Vec<Row> {
    view.scan(family, Bound::Unbounded, Bound::Unbounded, Direction::Forward)
        .map(Result::unwrap)
        .collect()
}

/// One line in one call, so that a kill cannot leave half of it.
fn say(line: String) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// The child. Does nothing where no directory is named: then this is just a test that passes.
pub(crate) fn child() {
    run(async |root| match start(root) {
        Ok((engine, found, generation)) => load(root, engine, found, generation).await,
        Err(_) => FATAL,
    });
}

/// A child that writes beside ingests, but not until the log has changed: as a writer that just then has nothing to say.
pub(crate) fn child_that_ingests() {
    run(async |root| match start(root) {
        Ok((engine, found, generation)) => {
            match write_around_ingests(root, &engine, found, generation).await {
                Ok(()) => 0,
                Err(error) => {
                    say(format!("failed {error}"));
                    FATAL
                }
            }
        }
        Err(_) => FATAL,
    });
}

fn run(body: impl AsyncFnOnce(&Path) -> i32) {
    let Some(root) = std::env::var_os(DIRECTORY) else {
        return;
    };
    // The test harness leaves its line open.
    say(String::new());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    std::process::exit(runtime.block_on(body(Path::new(&root))));
}

/// Opens the store; how many batches and which generation it holds.
fn start(root: &Path) -> Result<(Arc<RocksEngine>, u64, u64), EngineError> {
    say("begin open".into());
    let engine = open(&data(root)).inspect_err(|error| say(format!("failed open: {error}")))?;
    let found = count(&*engine.view());
    let generation = generations(&engine).into_iter().max().unwrap_or(0);
    say("end open".into());
    say(format!("found {found}"));
    Ok((Arc::new(engine), found, generation))
}

async fn write_around_ingests(
    root: &Path,
    engine: &Arc<RocksEngine>,
    mut n: u64,
    mut generation: u64,
) -> Result<(), EngineError> {
    let end = n + BATCHES;
    let mut write_and_sync = async |some: u64| {
        for _ in 0..some {
            n += 1;
            engine.write(batch(n))?;
            say(format!("written {n}"));
        }
        engine.sync().await?;
        say(format!("synced {n}"));
        Ok::<_, EngineError>(n)
    };
    while write_and_sync(5).await? < end {
        let log = log_file(&data(root));
        generation += 1;
        say("begin ingest".into());
        say(format!("ingesting {generation}"));
        let ingest = tokio::spawn({
            let engine = engine.clone();
            async move { engine.ingest(generation_rows(generation)).await }
        });
        while log_file(&data(root)) == log && !ingest.is_finished() {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        write_and_sync(5).await?;
        ingest.await.unwrap()?;
        say("end ingest".into());
        say(format!("ingested {generation}"));
    }
    Ok(())
}

async fn load(root: &Path, engine: Arc<RocksEngine>, found: u64, generation: u64) -> i32 {
    let written = Arc::new(AtomicU64::new(found));
    let done = Arc::new(AtomicBool::new(false));
    let beside = {
        let (engine, written, done, root) = (engine.clone(), written.clone(), done.clone(), root.to_owned());
        tokio::spawn(async move { move_much(&engine, &written, &done, &root, generation).await })
    };
    let wrote = write_much(&engine, &written).await;
    done.store(true, Ordering::SeqCst);
    let moved = beside.await.unwrap();
    for result in [&wrote, &moved] {
        if let Err(error) = result {
            say(format!("failed {error}"));
        }
    }
    if wrote.is_ok() && moved.is_ok() {
        return 0;
    }
    insist(&engine, written.load(Ordering::SeqCst)).await;
    FATAL
}

async fn write_much(engine: &RocksEngine, written: &AtomicU64) -> Result<(), EngineError> {
    let mut n = written.load(Ordering::SeqCst);
    let end = n + BATCHES;
    let mut random = SplitMix64::new(n);
    let mut write = |some: u64| {
        for _ in 0..some {
            n += 1;
            engine.write(batch(n))?;
            written.store(n, Ordering::SeqCst);
            say(format!("written {n}"));
        }
        Ok::<_, EngineError>(n)
    };
    loop {
        let before = write(1 + random.below(4))?;
        // More is written while the sync runs; the sync says nothing about that.
        let (synced, more) = tokio::join!(engine.sync(), async { write(random.below(3)) });
        synced?;
        say(format!("synced {before}"));
        if more? >= end {
            return Ok(());
        }
    }
}

async fn move_much(
    engine: &RocksEngine,
    written: &AtomicU64,
    done: &AtomicBool,
    root: &Path,
    mut generation: u64,
) -> Result<(), EngineError> {
    // The first flush shall have something to do.
    let found = written.load(Ordering::SeqCst);
    while written.load(Ordering::SeqCst) == found && !done.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while !done.load(Ordering::SeqCst) {
        let before = written.load(Ordering::SeqCst);
        say("begin flush".into());
        engine.flush().await?;
        say("end flush".into());
        say(format!("synced {before}"));

        generation += 1;
        say("begin ingest".into());
        say(format!("ingesting {generation}"));
        engine.ingest(generation_rows(generation)).await?;
        say("end ingest".into());
        say(format!("ingested {generation}"));

        let name = format!("{}-{generation}", std::process::id());
        let before = written.load(Ordering::SeqCst);
        say("begin checkpoint".into());
        say(format!("checkpointing {name} {before}"));
        engine.checkpoint(&copies(root).join(&name)).await?;
        say("end checkpoint".into());
        say(format!("checkpointed {name}"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Asks an engine that has failed for everything, twice. None of it may succeed any more.
async fn insist(engine: &RocksEngine, written: u64) {
    let answer = |what: &str, result: Result<(), EngineError>| match result {
        Err(EngineError::Stopped { .. }) => say(format!("refused {what}")),
        Err(other) => say(format!("LIED {what}: {other}")),
        Ok(()) => say(format!("LIED {what}: success")),
    };
    for round in 1..=2 {
        answer("sync", engine.sync().await.map(drop));
        answer("write", engine.write(batch(written + round)).map(drop));
        answer("flush", engine.flush().await.map(drop));
        answer("ingest", engine.ingest(generation_rows(1)).await);
        answer("checkpoint", engine.checkpoint(Path::new("/nowhere")).await);
        answer("read", engine.view().get(Family::RaftMeta, COUNT).map(drop));
    }
}
