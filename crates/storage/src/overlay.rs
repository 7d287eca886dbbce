//! Rows on their way into one atomic batch.
//!
//! Apply runs many commands before it writes: each must see what the earlier ones staged, over a view of what
//! is stored already. [`Staged`] is that picture. It drains into the net effect (one operation a key), not the
//! history.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bytes::Bytes;
use holdfast_machine::Tables;
use holdfast_types::Family;

use crate::engine::{Batch, EngineError, View};

/// Staged writes over a frozen view.
pub struct Staged<'v> {
    view: &'v dyn View,
    families: BTreeMap<Family, FamilyStage>,
}

/// One family's staged writes. Invariant: a row in `rows` is newer than any range that covers it, because a
/// range delete drops the rows it covers. So a read asks `rows`, then `ranges`, then what was fetched, then the view.
#[derive(Default)]
struct FamilyStage {
    /// What was read ahead of the view.
    fetched: HashMap<Bytes, Option<Bytes>>,
    /// `None`: deleted. In no order, which nobody sees: they are sorted on their way out.
    rows: HashMap<Bytes, Option<Bytes>>,
    /// Deleted ranges, start to end (exclusive); disjoint and not touching.
    ranges: BTreeMap<Bytes, Bytes>,
}

impl<'v> Staged<'v> {
    /// Nothing staged yet.
    pub fn new(view: &'v dyn View) -> Self {
        Staged {
            view,
            families: BTreeMap::new(),
        }
    }

    /// Reads rows of the view that commands will ask for one by one: at once, and each only once.
    pub fn fetch(&mut self, rows: impl IntoIterator<Item = (Family, Bytes)>) -> Result<(), EngineError> {
        let mut wanted: BTreeMap<Family, Vec<Bytes>> = BTreeMap::new();
        for (family, key) in rows {
            wanted.entry(family).or_default().push(key);
        }
        for (family, mut keys) in wanted {
            keys.sort_unstable();
            keys.dedup();
            let borrowed: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
            let values = self.view.multi_get(family, &borrowed)?;
            let stage = self.families.entry(family).or_default();
            stage.fetched.extend(keys.into_iter().zip(values));
        }
        Ok(())
    }

    /// Whether nothing has been staged.
    pub fn is_empty(&self) -> bool {
        self.families
            .values()
            .all(|stage| stage.rows.is_empty() && stage.ranges.is_empty())
    }

    /// Adds the net effect to `batch`.
    pub fn drain(self, batch: &mut Batch) {
        for (family, stage) in self.families {
            // Ranges first: every row in `rows` is newer than they are.
            for (from, to) in stage.ranges {
                batch.delete_range(family, from, to);
            }
            // Neighbours next to each other, which is how the engine takes them in fastest.
            let mut rows: Vec<_> = stage.rows.into_iter().collect();
            rows.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            for (key, value) in rows {
                match value {
                    Some(value) => batch.put(family, key, value),
                    None => batch.delete(family, key),
                }
            }
        }
    }

    /// The net effect alone.
    pub fn into_batch(self) -> Batch {
        let mut batch = Batch::default();
        self.drain(&mut batch);
        batch
    }
}

impl FamilyStage {
    fn range_covers(&self, key: &[u8]) -> bool {
        let below = self
            .ranges
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back();
        below.is_some_and(|(_, to)| key < &to[..])
    }

    fn delete_range(&mut self, from: Bytes, to: Bytes) {
        if from >= to {
            return;
        }
        self.rows.retain(|key, _| *key < from || *key >= to);
        // Merge with every range that overlaps or touches the new one; they are disjoint, so those lie
        // next to each other below its end.
        let (mut from, mut to) = (from, to);
        while let Some((first, last)) = self.ranges.range(..=to.clone()).next_back() {
            if *last < from {
                break;
            }
            let (first, last) = (first.clone(), last.clone());
            self.ranges.remove(&first);
            from = from.min(first);
            to = to.max(last);
        }
        self.ranges.insert(from, to);
    }
}

impl Tables for Staged<'_> {
    type Error = EngineError;

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        if let Some(stage) = self.families.get(&family) {
            if let Some(staged) = stage.rows.get(key) {
                return Ok(staged.clone());
            }
            if stage.range_covers(key) {
                return Ok(None);
            }
            if let Some(fetched) = stage.fetched.get(key) {
                return Ok(fetched.clone());
            }
        }
        self.view.get(family, key)
    }

    fn put(&mut self, family: Family, key: Bytes, value: Bytes) {
        self.families
            .entry(family)
            .or_default()
            .rows
            .insert(key, Some(value));
    }

    fn delete(&mut self, family: Family, key: Bytes) {
        self.families.entry(family).or_default().rows.insert(key, None);
    }

    fn delete_range(&mut self, family: Family, from: Bytes, to: Bytes) {
        self.families.entry(family).or_default().delete_range(from, to);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::engine::{Direction, Op, Row};

    type Model = BTreeMap<Bytes, Bytes>;

    /// A view of a plain map, whatever the family.
    struct MapView(Model);

    impl View for MapView {
        fn get(&self, _: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
            Ok(self.0.get(key).cloned())
        }

        fn scan<'v>(
            &'v self,
            _: Family,
            _: Bound<&[u8]>,
            _: Bound<&[u8]>,
            _: Direction,
        ) -> Box<dyn Iterator<Item = Result<Row, EngineError>> + Send + 'v> {
            Box::new(self.0.iter().map(|(key, value)| Ok((key.clone(), value.clone()))))
        }
    }

    fn key() -> impl Strategy<Value = Bytes> {
        vec(0..3_u8, 1..3).prop_map(Bytes::from)
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (key(), any::<u8>()).prop_map(|(key, value)| Op::Put(
                Family::Account,
                key,
                Bytes::from(vec![value])
            )),
            key().prop_map(|key| Op::Delete(Family::Account, key)),
            (key(), key()).prop_map(|(from, to)| Op::DeleteRange(Family::Account, from, to)),
        ]
    }

    fn apply(model: &mut Model, op: Op) {
        match op {
            Op::Put(_, key, value) => {
                model.insert(key, value);
            }
            Op::Delete(_, key) => {
                model.remove(&key);
            }
            Op::DeleteRange(_, from, to) => model.retain(|key, _| !(from <= *key && *key < to)),
        }
    }

    proptest! {
        /// Whatever is staged over whatever is stored: reads see it, and the batch leads to the same rows.
        #[test]
        fn agrees_with_a_map(
            stored in vec(op(), 0..20),
            staged in vec(op(), 0..30),
            probes in vec(key(), 10),
            fetched in vec(key(), 0..4),
        ) {
            let mut model = Model::new();
            for op in stored {
                apply(&mut model, op);
            }
            let view = MapView(model.clone());
            let mut tables = Staged::new(&view);
            tables.fetch(fetched.into_iter().map(|key| (Family::Account, key))).unwrap();
            for op in staged {
                apply(&mut model, op.clone());
                match op {
                    Op::Put(family, key, value) => tables.put(family, key, value),
                    Op::Delete(family, key) => tables.delete(family, key),
                    Op::DeleteRange(family, from, to) => tables.delete_range(family, from, to),
                }
                for probe in &probes {
                    prop_assert_eq!(tables.get(Family::Account, probe).unwrap(), model.get(probe).cloned());
                }
                prop_assert_eq!(tables.get(Family::Claim, b"elsewhere").unwrap(), None);
            }
            let mut drained = view.0.clone();
            for op in tables.into_batch().ops {
                apply(&mut drained, op);
            }
            prop_assert_eq!(drained, model);
        }
    }
}
