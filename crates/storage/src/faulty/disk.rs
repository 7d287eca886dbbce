//! The simulated disk: what is on it, what a crash leaves of it, and which faults it has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use holdfast_types::Family;
use tokio::sync::Notify;

use super::FaultyEngine;
use super::engine::FaultyView;
use super::image::Image;
use crate::choices::SplitMix64;
use crate::engine::{Batch, EngineError, Op, Row, Seq, Stall, View};

/// The faults that a disk has at present. Start from the default, which is a healthy disk, and change them
/// while it runs with [`FaultyDisk::configure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// How long a sync, a flush, or the ingest of one family takes.
    pub sync_delay: Duration,
    /// A random part of up to this much is added to the delay.
    pub sync_jitter: Duration,
    /// Syncs that are under way or begin do not end until this is lifted.
    pub sync_stalled: bool,
    /// The next sync fails, and the flag falls. The engine that asked is finished; what was not synced is in
    /// an unknown state.
    pub fail_next_sync: bool,
    /// Reads through views fail.
    pub fail_reads: bool,
    /// The size of the file system; a write that does not fit fails and finishes the engine.
    pub capacity_bytes: Option<u64>,
    /// What [`crate::engine::Engine::stall`] reports.
    pub stall: Stall,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            sync_delay: Duration::ZERO,
            sync_jitter: Duration::ZERO,
            sync_stalled: false,
            fail_next_sync: false,
            fail_reads: false,
            capacity_bytes: None,
            stall: Stall::None,
        }
    }
}

/// A disk that outlives the engines opened on it. Clones are the same disk.
#[derive(Clone)]
pub struct FaultyDisk {
    shared: Arc<Shared>,
}

/// What a disk and the engines and views on it share.
pub(super) struct Shared {
    disk: Mutex<Disk>,
    /// Mirrors `Faults::fail_reads`, so that reading takes no lock.
    fail_reads: AtomicBool,
    /// Rung when the faults change, the power fails or another engine takes over.
    pub(super) changed: Notify,
    /// Who hears of each failure that an engine or a view is told.
    witness: OnceLock<Witness>,
}

/// Who hears of failures.
type Witness = Box<dyn Fn(&EngineError) + Send + Sync>;

/// The contents. Two pictures and the log between them:
/// `durable` + every record of `log`, in order = `current`.
pub(super) struct Disk {
    /// What survives whatever happens.
    durable: Image,
    /// Written later than `durable`, oldest first.
    log: VecDeque<Record>,
    /// How many records ever were in the log before its first.
    log_start: u64,
    /// What views see.
    pub(super) current: Image,
    /// The sequence of the last batch.
    last: Seq,
    /// The sequence that `durable` has reached.
    synced: Seq,
    /// Bytes of write-ahead log since the last flush.
    pub(super) wal_bytes: u64,
    pub(super) faults: Faults,
    /// Grows whenever an engine is opened or the power fails; an engine of an earlier generation is dead.
    pub(super) generation: u64,
    /// A sync failed: the page cache lies, so even a mere restart may lose what was not synced.
    pub(super) unsynced_undefined: bool,
    pub(super) checkpoints: BTreeMap<PathBuf, Image>,
    /// Something at or below the synced mark is not what was written.
    damaged: bool,
    /// What an engine or a view said of damage that it met.
    known_damage: Option<String>,
    /// Rows that are not what was written, which their checksums show.
    pub(super) flipped: Flipped,
    choices: Choices,
}

/// Rows in which a bit is wrong.
pub(super) type Flipped = Arc<BTreeSet<(Family, Bytes)>>;

/// A point in the log that a sync is on its way to.
pub(super) struct Mark {
    image: Image,
    pub(super) seq: Seq,
    log_end: u64,
    pub(super) wal_bytes: u64,
}

/// Where decisions come from.
type Choices = Box<dyn FnMut() -> u64 + Send>;

/// One step of the write-ahead log.
enum Record {
    /// A batch; survives a crash if it and everything before it was kept.
    Batch(Seq, Batch),
    /// Rows ingested into a family; in files of their own, so they survive always.
    Ingest(Family, Vec<Row>),
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = self.lock();
        f.debug_struct("FaultyDisk")
            .field("last", &disk.last)
            .field("synced", &disk.synced)
            .field("faults", &disk.faults)
            .finish_non_exhaustive()
    }
}

impl FaultyDisk {
    /// An empty healthy disk, whose choices follow from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut stream = SplitMix64::new(seed);
        Self::with_choices(move || stream.next_u64())
    }

    /// An empty healthy disk, whose choices come from `choices`.
    pub fn with_choices(choices: impl FnMut() -> u64 + Send + 'static) -> Self {
        Self::holding(Image::new(), Box::new(choices))
    }

    fn holding(image: Image, choices: Choices) -> Self {
        let disk = Disk {
            durable: image.clone(),
            log: VecDeque::new(),
            log_start: 0,
            current: image,
            last: Seq(0),
            synced: Seq(0),
            wal_bytes: 0,
            faults: Faults::default(),
            generation: 0,
            unsynced_undefined: false,
            checkpoints: BTreeMap::new(),
            damaged: false,
            known_damage: None,
            flipped: Flipped::default(),
            choices,
        };
        FaultyDisk {
            shared: Arc::new(Shared {
                disk: Mutex::new(disk),
                fail_reads: AtomicBool::new(false),
                changed: Notify::new(),
                witness: OnceLock::new(),
            }),
        }
    }

    /// Opens the disk, taking it away from whoever had it open. After a mere restart of the node everything
    /// written is there; what is there when this returns is durable, as it is after RocksDB's recovery.
    pub fn open(&self) -> Result<FaultyEngine, EngineError> {
        let generation = {
            let mut disk = self.lock();
            if let Some(damage) = &disk.known_damage {
                let message = format!("an earlier process met damage: {damage}");
                return Err(EngineError::Damaged { message });
            }
            if disk.unsynced_undefined {
                let keep = disk.choose_survivor();
                disk.lose_power(keep);
            }
            if disk.damaged {
                return Err(EngineError::Damaged {
                    message: format!(
                        "what was synced up to sequence {} is not all there",
                        disk.synced.0
                    ),
                });
            }
            disk.generation += 1;
            disk.settle();
            disk.generation
        };
        self.shared.changed.notify_waiters();
        Ok(FaultyEngine::new(Arc::clone(&self.shared), generation))
    }

    /// Cuts the power: of what was not synced some prefix of the batches stays, chosen at random. The engine
    /// that was open is dead. Returns the last sequence that survived.
    pub fn crash(&self) -> Seq {
        let keep = self.lock().choose_survivor();
        self.crash_keeping(keep)
    }

    /// Cuts the power such that batches up to `keep` survive: at least the synced ones, at most all.
    pub fn crash_keeping(&self, keep: Seq) -> Seq {
        let kept = self.lock().lose_power(keep);
        self.shared.changed.notify_waiters();
        kept
    }

    /// Flips a bit somewhere at or below the synced mark. Found when the disk is opened next.
    pub fn flip_bit(&self) {
        self.lock().damaged = true;
    }

    /// Flips a bit in a durable row of `family`, chosen at random. Found when the row is read, until it is written
    /// again. `false` if there is no row.
    pub fn flip_bit_in(&self, family: Family) -> bool {
        let mut disk = self.lock();
        let rows = disk.durable.table(family).rows.size() as u64;
        if rows == 0 {
            return false;
        }
        let chosen = disk.below(rows) as usize;
        let row = disk.durable.table(family).rows.keys().nth(chosen).cloned();
        if let Some(key) = row {
            Arc::make_mut(&mut disk.flipped).insert((family, key));
        }
        true
    }

    /// What an operator does who knows that the damage that was met is none, or gone.
    pub fn forget_damage(&self) {
        self.lock().known_damage = None;
    }

    /// Who hears of each failure in the moment an engine or a view of this disk is told of it. For judges; there can be
    /// one, and who comes later is not heard.
    pub fn witness(&self, witness: impl Fn(&EngineError) + Send + Sync + 'static) {
        let _ = self.shared.witness.set(Box::new(witness));
    }

    /// Flips a bit in this durable row. Found like the others. `false` if there is no such row.
    pub fn flip_bit_at(&self, family: Family, key: &[u8]) -> bool {
        let mut disk = self.lock();
        let row = disk.durable.table(family).rows.get_key_value(key);
        let Some(key) = row.map(|(key, _)| key.clone()) else {
            return false;
        };
        Arc::make_mut(&mut disk.flipped).insert((family, key));
        true
    }

    /// Changes the faults.
    pub fn configure(&self, change: impl FnOnce(&mut Faults)) {
        {
            let mut disk = self.lock();
            change(&mut disk.faults);
            self.shared
                .fail_reads
                .store(disk.faults.fail_reads, Ordering::SeqCst);
        }
        self.shared.changed.notify_waiters();
    }

    /// The sequence up to which everything is durable.
    pub fn synced(&self) -> Seq {
        self.lock().synced
    }

    /// The sequence of the last batch written.
    pub fn last(&self) -> Seq {
        self.lock().last
    }

    /// How many bytes of it are used.
    pub fn used_bytes(&self) -> u64 {
        self.lock().current.bytes()
    }

    /// What a power cut at this moment is sure to leave, whatever faults the disk has. For judges.
    pub fn durable(&self) -> Box<dyn View> {
        Box::new(FaultyView::from_outside(self.lock().durable.clone()))
    }

    /// What a mere restart of the node would find, whatever faults the disk has. For judges.
    pub fn written(&self) -> Box<dyn View> {
        Box::new(FaultyView::from_outside(self.lock().current.clone()))
    }

    /// A new disk with the contents of a checkpoint that was taken to `directory`, if there is one.
    pub fn restore_checkpoint(&self, directory: &Path, seed: u64) -> Option<FaultyDisk> {
        let image = self.lock().checkpoints.get(directory)?.clone();
        let mut stream = SplitMix64::new(seed);
        Some(Self::holding(image, Box::new(move || stream.next_u64())))
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.shared.lock()
    }
}

impl Shared {
    /// The contents; a panic elsewhere does not make them unreadable, since every change is made in one go.
    pub(super) fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A failure that somebody is told of; damage is remembered. The contents are not locked meanwhile.
    pub(super) fn told(&self, error: EngineError) -> EngineError {
        if let EngineError::Damaged { message } = &error {
            self.lock().known_damage.get_or_insert_with(|| message.clone());
        }
        if let Some(witness) = self.witness.get() {
            witness(&error);
        }
        error
    }

    pub(super) fn fail_reads(&self) -> bool {
        self.fail_reads.load(Ordering::SeqCst)
    }
}

impl Disk {
    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        (self.choices)() % bound
    }

    /// How long the next sync takes.
    pub(super) fn draw_sync_delay(&mut self) -> Duration {
        let jitter_us = u64::try_from(self.faults.sync_jitter.as_micros()).unwrap_or(u64::MAX - 1);
        if jitter_us == 0 {
            return self.faults.sync_delay;
        }
        self.faults.sync_delay + Duration::from_micros(self.below(jitter_us + 1))
    }

    /// What there is to make durable now.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            image: self.current.clone(),
            seq: self.last,
            log_end: self.log_start + self.log.len() as u64,
            wal_bytes: self.wal_bytes,
        }
    }

    /// Everything up to `mark` is on the platter.
    pub(super) fn reach(&mut self, mark: Mark) {
        if mark.log_end <= self.log_start {
            // A sync that began later ended earlier.
            return;
        }
        self.log.drain(..(mark.log_end - self.log_start) as usize);
        self.log_start = mark.log_end;
        self.durable = mark.image;
        self.synced = mark.seq;
    }

    /// Writes a batch, if there is room.
    pub(super) fn write(&mut self, batch: Batch) -> Result<Seq, EngineError> {
        let bytes = batch.byte_len() as u64;
        if let Some(capacity) = self.faults.capacity_bytes
            && self.current.bytes().saturating_add(bytes) > capacity
        {
            return Err(EngineError::Io {
                operation: "write",
                message: "no space left on device".into(),
            });
        }
        self.last.0 += 1;
        self.wal_bytes += bytes;
        self.write_over_flipped(&batch);
        self.current.apply(&batch);
        self.log.push_back(Record::Batch(self.last, batch));
        Ok(self.last)
    }

    /// What is written anew is well again.
    fn write_over_flipped(&mut self, batch: &Batch) {
        if self.flipped.is_empty() {
            return;
        }
        let flipped = Arc::make_mut(&mut self.flipped);
        for op in &batch.ops {
            match op {
                Op::Put(family, key, _) | Op::Delete(family, key) => {
                    flipped.remove(&(*family, key.clone()));
                }
                Op::DeleteRange(family, from, to) => {
                    flipped.retain(|(other, key)| other != family || key < from || key >= to);
                }
            }
        }
    }

    /// Loads rows into one family.
    pub(super) fn ingest(&mut self, family: Family, rows: Vec<Row>) {
        self.current.ingest(family, &rows);
        self.log.push_back(Record::Ingest(family, rows));
    }

    fn choose_survivor(&mut self) -> Seq {
        let unsynced = self.last.0 - self.synced.0;
        Seq(self.synced.0 + self.below(unsynced + 1))
    }

    fn lose_power(&mut self, keep: Seq) -> Seq {
        let keep = keep.clamp(self.synced, self.last);
        self.log_start += self.log.len() as u64;
        for record in std::mem::take(&mut self.log) {
            match record {
                Record::Batch(seq, batch) if seq <= keep => self.durable.apply(&batch),
                Record::Batch(..) => {}
                Record::Ingest(family, rows) => self.durable.ingest(family, &rows),
            }
        }
        self.current = self.durable.clone();
        self.last = keep;
        self.synced = keep;
        self.wal_bytes = 0;
        self.unsynced_undefined = false;
        self.generation += 1;
        keep
    }

    /// Everything written becomes durable.
    fn settle(&mut self) {
        let mark = self.mark();
        self.reach(mark);
        self.wal_bytes = 0;
    }
}
