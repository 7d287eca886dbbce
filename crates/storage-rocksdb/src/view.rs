//! Views: RocksDB snapshots that own the database they look at.
//!
//! A snapshot borrows its database, a view must not borrow its engine; `self_cell` ties the two together, so the database stays open
//! until the last view is gone.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_storage::engine::{Direction, EngineError, Row, View};
use holdfast_types::Family;
use rocksdb::{DBRawIteratorWithThreadMode, ReadOptions, SnapshotWithThreadMode};
use self_cell::self_cell;

use crate::engine::{Core, Db};
use crate::fate::Fate;

/// A snapshot, and how to read in it, which is made once for all reads.
struct Frozen<'a> {
    snapshot: SnapshotWithThreadMode<'a, Db>,
    options: ReadOptions,
}

impl<'a> Frozen<'a> {
    fn new(core: &'a Core) -> Self {
        let snapshot = core.db.snapshot();
        let mut options = ReadOptions::default();
        options.set_snapshot(&snapshot);
        Frozen { snapshot, options }
    }
}

self_cell! {
    struct Pinned {
        owner: Arc<Core>,
        #[covariant]
        dependent: Frozen,
    }
}

/// A frozen picture of the store.
pub(crate) struct RocksView {
    pinned: Pinned,
}

impl RocksView {
    /// Pins what is written now.
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            pinned: Pinned::new(core, |core| Frozen::new(core)),
        }
    }

    fn core(&self) -> &Core {
        self.pinned.borrow_owner()
    }

    fn frozen(&self) -> &Frozen<'_> {
        self.pinned.borrow_dependent()
    }
}

impl View for RocksView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let core = self.core();
        core.fate.check()?;
        core.db
            .get_pinned_cf_opt(core.handle(family), key, &self.frozen().options)
            .map(|value| value.map(|value| Bytes::copy_from_slice(&value)))
            .map_err(|error| core.fate.stop_rocks("reading a row", &error))
    }

    fn multi_get(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        let core = self.core();
        core.fate.check()?;
        core.db
            .batched_multi_get_cf_opt(
                core.handle(family),
                keys.iter().copied(),
                false,
                &self.frozen().options,
            )
            .into_iter()
            .map(|value| {
                value
                    .map(|value| value.map(|value| Bytes::copy_from_slice(&value)))
                    .map_err(|error| core.fate.stop_rocks("reading rows", &error))
            })
            .collect()
    }

    fn scan<'v>(
        &'v self,
        family: Family,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row, EngineError>> + Send + 'v> {
        let core = self.core();
        if let Err(error) = core.fate.check() {
            return Box::new(std::iter::once(Err(error)));
        }
        let lower = match from {
            Bound::Included(key) => Some(key.to_vec()),
            Bound::Excluded(key) => Some(successor(key)),
            Bound::Unbounded => None,
        };
        let upper = match to {
            Bound::Included(key) => Some(successor(key)),
            Bound::Excluded(key) => Some(key.to_vec()),
            Bound::Unbounded => None,
        };
        if let (Some(lower), Some(upper)) = (&lower, &upper)
            && lower >= upper
        {
            return Box::new(std::iter::empty());
        }
        let mut options = ReadOptions::default();
        if let Some(lower) = lower {
            options.set_iterate_lower_bound(lower);
        }
        if let Some(upper) = upper {
            options.set_iterate_upper_bound(upper);
        }
        Box::new(Scan {
            rows: self
                .frozen()
                .snapshot
                .raw_iterator_cf_opt(core.handle(family), options),
            direction,
            progress: Progress::Fresh,
            fate: &core.fate,
        })
    }
}

/// The smallest key above this one.
fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

enum Progress {
    Fresh,
    Within,
    Done,
}

struct Scan<'v> {
    rows: DBRawIteratorWithThreadMode<'v, Db>,
    direction: Direction,
    progress: Progress,
    fate: &'v Fate,
}

impl Iterator for Scan<'_> {
    type Item = Result<Row, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        match (&self.progress, self.direction) {
            (Progress::Done, _) => return None,
            (Progress::Fresh, Direction::Forward) => self.rows.seek_to_first(),
            (Progress::Fresh, Direction::Backward) => self.rows.seek_to_last(),
            (Progress::Within, Direction::Forward) => self.rows.next(),
            (Progress::Within, Direction::Backward) => self.rows.prev(),
        }
        if let Some((key, value)) = self.rows.item() {
            self.progress = Progress::Within;
            return Some(Ok((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))));
        }
        self.progress = Progress::Done;
        // The end of the rows and a failure look the same until asked.
        let error = self.rows.status().err()?;
        Some(Err(self.fate.stop_rocks("scanning rows", &error)))
    }
}
