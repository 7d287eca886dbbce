//! Random histories, compared with plain maps.
//!
//! The keys are few and short, so that steps collide: overwrites, deletes of what a range delete just took,
//! ingests over both. Views taken on the way are kept and checked again later. After a crash the store must
//! equal the model as it was after *some* batch at or above the synced one.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use holdfast_types::Family;

use super::Subject;
use super::duties::{ingest, scan, write};
use crate::choices::SplitMix64;
use crate::engine::{Batch, Direction, Op, Row, View};

/// Three are enough to see families mixed up.
const FAMILIES: [Family; 3] = [Family::Account, Family::Claim, Family::RaftLog];

type Model = BTreeMap<(Family, Bytes), Bytes>;

/// Runs `steps` random steps from `seed` on an empty store.
///
/// # Panics
///
/// If the store and the model differ.
pub async fn run<S: Subject>(mut subject: S, seed: u64, steps: usize) {
    let mut random = SplitMix64::new(seed);
    let mut model = Model::new();
    // The model after each batch since the last durable point, that point first.
    let mut history = vec![model.clone()];
    let mut pinned: Vec<(Box<dyn View>, Model)> = Vec::new();
    for step in 0..steps {
        let engine = subject.engine();
        match random.below(100) {
            0..60 => {
                let batch = batch(&mut random);
                apply(&mut model, &batch);
                write(&*engine, batch);
                history.push(model.clone());
            }
            60..72 => {
                engine.sync().await.expect("a healthy engine syncs");
                history = vec![model.clone()];
            }
            72..76 => {
                engine.flush().await.expect("a healthy engine flushes");
                history = vec![model.clone()];
            }
            76..82 => {
                // Synced first: an ingest is durable at once but does not wait for earlier batches.
                engine.sync().await.expect("a healthy engine syncs");
                let rows = rows(&mut random);
                for (family, rows) in &rows {
                    model.extend(
                        rows.iter()
                            .map(|(key, value)| ((*family, key.clone()), value.clone())),
                    );
                }
                ingest(&*engine, rows).await;
                history = vec![model.clone()];
            }
            82..92 => pinned.push((engine.view(), model.clone())),
            92..96 => {
                check_pinned(&mut pinned, &mut random, seed, step);
                drop(engine);
                subject.reopen().await;
                history = vec![model.clone()];
            }
            _ => {
                check_pinned(&mut pinned, &mut random, seed, step);
                drop(engine);
                if subject.crash().await {
                    let found = contents(&*subject.engine().view());
                    let survived = history.iter().rev().find(|model| **model == found);
                    model = survived.cloned().unwrap_or_else(|| {
                        panic!("seed {seed}, step {step}: what survived the crash was never there")
                    });
                    history = vec![model.clone()];
                }
            }
        }
        check(&*subject.engine().view(), &model, &mut random, seed, step);
    }
    check_pinned(&mut pinned, &mut random, seed, steps);
}

/// Compares all rows, some lookups and some scans.
fn check(view: &dyn View, model: &Model, random: &mut SplitMix64, seed: u64, step: usize) {
    assert!(
        contents(view) == *model,
        "seed {seed}, step {step}: the rows differ from the model"
    );
    let family = family(random);
    let keys: Vec<Bytes> = (0..4).map(|_| key(random)).collect();
    let slices: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let found = view.multi_get(family, &slices).expect("a healthy engine reads");
    for (key, found) in keys.iter().zip(found) {
        let expected = model.get(&(family, key.clone())).cloned();
        assert_eq!(found, expected, "seed {seed}, step {step}: multi_get of {key:?}");
        let alone = view.get(family, key).expect("a healthy engine reads");
        assert_eq!(alone, expected, "seed {seed}, step {step}: get of {key:?}");
    }
    let (from, to) = (bound(random), bound(random));
    let mut expected: Vec<Row> = model
        .iter()
        .filter(|((its_family, key), _)| *its_family == family && within(key, &from, &to))
        .map(|((_, key), value)| (key.clone(), value.clone()))
        .collect();
    let (lower, upper) = (as_slice(&from), as_slice(&to));
    let context = format!("seed {seed}, step {step}: scan of {family:?} from {from:?} to {to:?}");
    assert_eq!(
        scan(view, family, lower, upper, Direction::Forward),
        expected,
        "{context}"
    );
    expected.reverse();
    assert_eq!(
        scan(view, family, lower, upper, Direction::Backward),
        expected,
        "{context}"
    );
}

fn check_pinned(pinned: &mut Vec<(Box<dyn View>, Model)>, random: &mut SplitMix64, seed: u64, step: usize) {
    for (view, model) in pinned.drain(..) {
        check(&*view, &model, random, seed, step);
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

/// One of 39: one to three bytes, each one of the three that order is most likely to get wrong.
fn key(random: &mut SplitMix64) -> Bytes {
    (0..=random.below(3))
        .map(|_| [0x00, 0x7f, 0xff][random.below(3) as usize])
        .collect::<Vec<u8>>()
        .into()
}

fn value(random: &mut SplitMix64) -> Bytes {
    let length = random.below(20) as usize;
    vec![random.below(256) as u8; length].into()
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
