//! Random histories, compared with plain maps; on several stores at once also with each other.
//!
//! The keys are few and short, so that steps collide: overwrites, deletes of what a range delete just took, ingests over both.
//! Views taken on the way are kept and read again later, checkpoints are opened and read. After a crash the store must equal the
//! model as it was after *some* batch at or above the synced one.
//!
//! A history is a list of [`Turn`]s, each drawn on its own: one that fails can be shrunk by leaving turns out.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_types::Family;

use super::Subject;
use super::duties::{ingest, scan, write};
use crate::choices::SplitMix64;
use crate::engine::{Batch, Direction, Engine, Op, Row, View};

/// Enough to see families mixed up, and at least one of each use that engines tell apart: rows that stay, queues, logs, single
/// rows.
const FAMILIES: [Family; 5] = [
    Family::Account,
    Family::Claim,
    Family::Due,
    Family::RaftLog,
    Family::RaftMeta,
];

/// So many views are kept at once.
const PINNED_MAX: usize = 8;

type Model = BTreeMap<(Family, Bytes), Bytes>;

/// What is done to a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A batch is written.
    Write(Batch),
    /// All is synced.
    Sync,
    /// All is flushed.
    Flush,
    /// Sorted rows are ingested, for some families.
    Ingest(Vec<(Family, Vec<Row>)>),
    /// A view is taken and kept; the oldest is dropped if there are many.
    Pin,
    /// One of the kept views is read.
    Look(usize),
    /// A checkpoint is taken, opened and read.
    Checkpoint,
    /// The store is closed and opened again.
    Reopen,
    /// The power fails. Where several stores are compared all is synced before, or each would keep a prefix of its own.
    Crash,
}

/// What is read after a step: everything, and these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reads {
    /// Where.
    pub family: Family,
    /// One by one, and all at once.
    pub keys: Vec<Bytes>,
    /// Where scans of both directions begin.
    pub from: Bound<Bytes>,
    /// Where they end.
    pub to: Bound<Bytes>,
    /// After so many rows a second pair of scans is left.
    pub enough: usize,
}

/// A step and what is read after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// What is done.
    pub step: Step,
    /// What is read.
    pub reads: Reads,
}

impl Turn {
    /// The next turn of a stream of choices.
    pub fn draw(random: &mut SplitMix64) -> Self {
        let step = match random.below(100) {
            0..58 => Step::Write(batch(random)),
            58..68 => Step::Sync,
            68..72 => Step::Flush,
            72..78 => Step::Ingest(rows(random)),
            78..86 => Step::Pin,
            86..90 => Step::Look(random.below(PINNED_MAX as u64) as usize),
            90..92 => Step::Checkpoint,
            92..96 => Step::Reopen,
            _ => Step::Crash,
        };
        let reads = Reads {
            family: family(random),
            keys: (0..4).map(|_| key(random)).collect(),
            from: bound(random),
            to: bound(random),
            enough: random.below(4) as usize,
        };
        Turn { step, reads }
    }
}

/// Plays `steps` random turns from `seed` on an empty store.
///
/// # Panics
///
/// If the store and the model differ.
pub async fn run<S: Subject>(mut subject: S, seed: u64, steps: usize) {
    let mut random = SplitMix64::new(seed);
    let turns: Vec<Turn> = (0..steps).map(|_| Turn::draw(&mut random)).collect();
    play(&mut [&mut subject], &turns, &format!("seed {seed}")).await;
}

/// Plays turns on empty stores side by side.
///
/// # Panics
///
/// If a store and the model, and so two stores, differ; with `context`, and which turn it was.
pub async fn play(subjects: &mut [&mut dyn Subject], turns: &[Turn], context: &str) {
    let alone = subjects.len() == 1;
    let mut histories: Vec<History> = subjects.iter().map(|_| History::default()).collect();
    for (number, turn) in turns.iter().enumerate() {
        for (at, (subject, history)) in subjects.iter_mut().zip(&mut histories).enumerate() {
            let context = format!("{context}, store {at}, turn {number}, {:?}", turn.step);
            if turn.step == Step::Crash && !alone {
                history.sync(&*subject.engine()).await;
            }
            history.play(*subject, turn, &context).await;
        }
    }
}

/// A store's past, as far as it matters.
#[derive(Default)]
struct History {
    model: Model,
    /// The model after each batch since the last durable point, without the last.
    earlier: Vec<Model>,
    pinned: Vec<(Box<dyn View>, Model)>,
}

impl History {
    async fn play(&mut self, subject: &mut dyn Subject, turn: &Turn, context: &str) {
        let engine = subject.engine();
        match &turn.step {
            Step::Write(batch) => {
                self.earlier.push(self.model.clone());
                apply(&mut self.model, batch);
                write(&*engine, batch.clone());
            }
            Step::Sync => self.sync(&*engine).await,
            Step::Flush => {
                engine.flush().await.expect("a healthy engine flushes");
                self.earlier.clear();
            }
            Step::Ingest(rows) => {
                // Synced first: an ingest is durable at once but does not wait for earlier batches.
                self.sync(&*engine).await;
                for (family, rows) in rows {
                    let rows = rows.iter().cloned();
                    self.model
                        .extend(rows.map(|(key, value)| ((*family, key), value)));
                }
                ingest(&*engine, rows.clone()).await;
            }
            Step::Pin => {
                if self.pinned.len() == PINNED_MAX {
                    self.pinned.remove(0);
                }
                self.pinned.push((engine.view(), self.model.clone()));
            }
            Step::Look(which) => {
                if let Some((view, model)) = self.pinned.get(*which) {
                    check(&**view, model, &turn.reads, &format!("{context}, kept view"));
                }
            }
            Step::Checkpoint => self.checkpoint(subject, &engine, turn, context).await,
            Step::Reopen => {
                self.unpin(turn, context);
                drop(engine);
                subject.reopen().await;
                self.earlier.clear();
            }
            Step::Crash => {
                self.unpin(turn, context);
                drop(engine);
                if subject.crash().await {
                    self.survive(contents(&*subject.engine().view()), context);
                }
            }
        }
        check(&*subject.engine().view(), &self.model, &turn.reads, context);
    }

    async fn sync(&mut self, engine: &dyn Engine) {
        engine.sync().await.expect("a healthy engine syncs");
        self.earlier.clear();
    }

    async fn checkpoint(&self, subject: &dyn Subject, engine: &Arc<dyn Engine>, turn: &Turn, context: &str) {
        let Some(directory) = subject.checkpoint_directory() else {
            return;
        };
        let taken = engine.checkpoint(&directory).await;
        taken.expect("a healthy engine takes checkpoints");
        let copy = subject.open_checkpoint(&directory).await;
        let copy = copy.expect("checkpoints can be opened here");
        check(
            &*copy.view(),
            &self.model,
            &turn.reads,
            &format!("{context}, its copy"),
        );
    }

    /// Reads all kept views a last time.
    fn unpin(&mut self, turn: &Turn, context: &str) {
        for (view, model) in self.pinned.drain(..) {
            check(&*view, &model, &turn.reads, &format!("{context}, kept view"));
        }
    }

    /// Goes on from what a crash has left.
    fn survive(&mut self, found: Model, context: &str) {
        let known = self.model == found || self.earlier.contains(&found);
        assert!(known, "{context}: what survived the crash was never there");
        self.model = found;
        self.earlier.clear();
    }
}

/// Compares all rows, some lookups and some scans.
fn check(view: &dyn View, model: &Model, reads: &Reads, context: &str) {
    assert!(
        contents(view) == *model,
        "{context}: the rows differ from the model"
    );
    let Reads {
        family,
        keys,
        from,
        to,
        enough,
    } = reads;
    let slices: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let found = view.multi_get(*family, &slices).expect("a healthy engine reads");
    assert_eq!(found.len(), keys.len(), "{context}: multi_get");
    for (key, found) in keys.iter().zip(found) {
        let expected = model.get(&(*family, key.clone())).cloned();
        assert_eq!(found, expected, "{context}: multi_get of {key:?}");
        let alone = view.get(*family, key).expect("a healthy engine reads");
        assert_eq!(alone, expected, "{context}: get of {key:?}");
    }
    let mut expected: Vec<Row> = model
        .iter()
        .filter(|((its_family, key), _)| its_family == family && within(key, from, to))
        .map(|((_, key), value)| (key.clone(), value.clone()))
        .collect();
    let (lower, upper) = (as_slice(from), as_slice(to));
    for direction in [Direction::Forward, Direction::Backward] {
        let context = format!("{context}: scan of {family:?} from {from:?} to {to:?}, {direction:?}");
        assert_eq!(
            scan(view, *family, lower, upper, direction),
            expected,
            "{context}"
        );
        let begun: Vec<Row> = view
            .scan(*family, lower, upper, direction)
            .take(*enough)
            .map(|row| row.expect("a healthy engine reads"))
            .collect();
        assert_eq!(
            begun,
            expected[..expected.len().min(*enough)],
            "{context}, left early"
        );
        expected.reverse();
    }
}

fn contents(view: &dyn View) -> Model {
    let mut all = Model::new();
    for family in FAMILIES {
        let rows = scan(
            view,
            family,
            Bound::Unbounded,
            Bound::Unbounded,
            Direction::Forward,
        );
        all.extend(rows.into_iter().map(|(key, value)| ((family, key), value)));
    }
    all
}

fn apply(model: &mut Model, batch: &Batch) {
    for op in &batch.ops {
        match op {
            Op::Put(family, key, value) => {
                model.insert((*family, key.clone()), value.clone());
            }
            Op::Delete(family, key) => {
                model.remove(&(*family, key.clone()));
            }
            Op::DeleteRange(family, from, to) => {
                model.retain(|(its_family, key), _| its_family != family || !(from <= key && key < to));
            }
        }
    }
}

fn batch(random: &mut SplitMix64) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..random.below(6) {
        match random.below(10) {
            0..6 => batch.put(family(random), key(random), value(random)),
            6..8 => batch.delete(family(random), key(random)),
            _ => batch.delete_range(family(random), key(random), key(random)),
        }
    }
    batch
}

/// Sorted rows for some families.
fn rows(random: &mut SplitMix64) -> Vec<(Family, Vec<Row>)> {
    let mut all = Vec::new();
    for family in FAMILIES {
        if random.below(2) == 0 {
            let rows: BTreeMap<Bytes, Bytes> = (0..random.below(5))
                .map(|_| (key(random), value(random)))
                .collect();
            all.push((family, rows.into_iter().collect()));
        }
    }
    all
}

fn family(random: &mut SplitMix64) -> Family {
    FAMILIES[random.below(FAMILIES.len() as u64) as usize]
}

/// One of 39: one to three bytes, each one of the three that order is most likely to get wrong. Or one of three that share a
/// long beginning.
fn key(random: &mut SplitMix64) -> Bytes {
    let mut key = Vec::new();
    if random.below(10) == 0 {
        key.resize(40, 0x7f);
        key.push([0x00, 0x7f, 0xff][random.below(3) as usize]);
    } else {
        key.extend((0..=random.below(3)).map(|_| [0x00, 0x7f, 0xff][random.below(3) as usize]));
    }
    key.into()
}

/// A short one, maybe empty; now and then one that fills a block of a file.
fn value(random: &mut SplitMix64) -> Bytes {
    let length = if random.below(20) == 0 {
        6000
    } else {
        random.below(20)
    };
    vec![random.below(256) as u8; length as usize].into()
}

fn bound(random: &mut SplitMix64) -> Bound<Bytes> {
    match random.below(5) {
        0 => Bound::Unbounded,
        1 | 2 => Bound::Included(key(random)),
        _ => Bound::Excluded(key(random)),
    }
}

fn as_slice(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &key[..])
}

fn within(key: &Bytes, from: &Bound<Bytes>, to: &Bound<Bytes>) -> bool {
    let above = match from {
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
        Bound::Unbounded => true,
    };
    let below = match to {
        Bound::Included(to) => key <= to,
        Bound::Excluded(to) => key < to,
        Bound::Unbounded => true,
    };
    above && below
}
