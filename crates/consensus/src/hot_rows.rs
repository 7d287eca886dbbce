//! Rows that were read lately, in memory: accounts and claims, read by whole key.
//!
//! Views are numbered by *generation*: each batch that is applied begins another one. A row is kept with the generation of the view it
//! was read in, and before a batch is written the keys in it are marked with the generation that it begins. So a row that is
//! kept is that of a view if it was read in the same generation or an earlier one, and its key has not been marked since. Nothing
//! depends on when a row is put in or taken out: a late one is put in with the generation of its view, and is not valid.
//!
//! Marks are kept for the hashes of keys, so a key now and then loses its row to a write of another.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use holdfast_markers::{planted, reached};
use holdfast_storage::engine::{Batch, Direction, EngineError, Op, Row, View};
use holdfast_types::Family;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use xxhash_rust::xxh3::{Xxh3Builder, xxh3_64};

/// How many marks there are; a power of two, 8 bytes each.
const MARKS: usize = 1 << 16;
/// A row with less is not expected, when the tables of the cache are made.
const ROW_BYTES: u64 = 512;
/// What a row takes beside its key and value: both headers, the tables' entry.
const OVERHEAD_BYTES: u64 = 128;

#[derive(Clone)]
struct Hot {
    generation: u64,
    value: Bytes,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Bytes, Hot> for Weight {
    fn weight(&self, key: &Bytes, hot: &Hot) -> u64 {
        key.len() as u64 + hot.value.len() as u64 + OVERHEAD_BYTES
    }
}

type Rows = Cache<Bytes, Hot, Weight, Xxh3Builder>;

/// The rows of all views.
pub(crate) struct HotRows {
    accounts: Rows,
    claims: Rows,
    marks: Box<[AtomicU64]>,
    /// Rows read in earlier generations are not valid.
    floor: AtomicU64,
}

impl HotRows {
    /// Keeps about this much, of which accounts may take nine tenths.
    pub(crate) fn new(bytes: usize) -> Self {
        let rows = |bytes: u64| {
            let expected = usize::try_from(bytes / ROW_BYTES).unwrap_or(usize::MAX);
            let hasher = Xxh3Builder::new();
            Cache::with(expected, bytes, Weight, hasher, DefaultLifecycle::default())
        };
        let bytes = bytes as u64;
        HotRows {
            accounts: rows(bytes - bytes / 10),
            claims: rows(bytes / 10),
            marks: (0..MARKS).map(|_| AtomicU64::new(0)).collect(),
            floor: AtomicU64::new(0),
        }
    }

    fn rows(&self, family: Family) -> Option<&Rows> {
        match family {
            Family::Account => Some(&self.accounts),
            Family::Claim => Some(&self.claims),
            _ => None,
        }
    }

    fn mark(&self, key: &[u8]) -> &AtomicU64 {
        let at = usize::try_from(xxh3_64(key) % MARKS as u64).unwrap_or_default();
        &self.marks[at]
    }

    /// A batch will be written that begins this generation. Views of it are taken afterwards.
    pub(crate) fn writing(&self, batch: &Batch, generation: u64) {
        if planted!("hot-row-outlives-its-write") {
            return;
        }
        for op in &batch.ops {
            match op {
                Op::Put(family, key, _) | Op::Delete(family, key) => {
                    if let Some(rows) = self.rows(*family) {
                        self.mark(key).store(generation, Ordering::Release);
                        // Not for the views' sake, but so that what is erased does not stay in memory.
                        rows.remove(&key[..]);
                    }
                }
                Op::DeleteRange(family, ..) => {
                    if self.rows(*family).is_some() {
                        self.forget_all(generation);
                    }
                }
            }
        }
    }

    /// All rows were replaced; views of this generation are taken afterwards.
    pub(crate) fn forget_all(&self, generation: u64) {
        self.floor.store(generation, Ordering::Release);
        self.accounts.clear();
        self.claims.clear();
    }

    /// Whether the row, if it was kept in that generation, is that of the newest view.
    fn is_valid(&self, key: &[u8], kept: u64) -> bool {
        self.floor.load(Ordering::Acquire) <= kept && self.mark(key).load(Ordering::Acquire) <= kept
    }
}

/// A view whose hot rows are read from memory.
pub(crate) struct HotView {
    pub(crate) view: Box<dyn View>,
    pub(crate) hot: Arc<HotRows>,
    /// Of the newest batch that the view certainly has.
    pub(crate) generation: u64,
}

impl View for HotView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let Some(rows) = self.hot.rows(family) else {
            return self.view.get(family, key);
        };
        if let Some(hot) = rows.get(key)
            && hot.generation <= self.generation
            && self.hot.is_valid(key, hot.generation)
        {
            reached!("hot.row-was-kept");
            return Ok(Some(hot.value));
        }
        let value = self.view.get(family, key)?;
        if let Some(value) = &value
            && self.hot.is_valid(key, self.generation)
        {
            let hot = Hot {
                generation: self.generation,
                value: value.clone(),
            };
            rows.insert(Bytes::copy_from_slice(key), hot);
        }
        Ok(value)
    }

    fn multi_get(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.view.multi_get(family, keys)
    }

    fn scan<'v>(
        &'v self,
        family: Family,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row, EngineError>> + Send + 'v> {
        self.view.scan(family, from, to, direction)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_storage::engine::Engine;
    use holdfast_storage::faulty::FaultyDisk;

    use super::*;

    /// An engine whose views are numbered.
    struct Store {
        engine: Box<dyn Engine>,
        hot: Arc<HotRows>,
        generation: u64,
    }

    impl Store {
        fn new() -> Self {
            Store {
                engine: Box::new(FaultyDisk::new(1).open().unwrap()),
                hot: Arc::new(HotRows::new(1 << 20)),
                generation: 0,
            }
        }

        fn view(&self) -> HotView {
            HotView {
                view: self.engine.view(),
                hot: self.hot.clone(),
                generation: self.generation,
            }
        }

        fn batch(value: &'static str) -> Batch {
            let mut batch = Batch::default();
            batch.put(Family::Account, "k", value);
            batch
        }

        fn write(&mut self, value: &'static str) {
            let batch = Self::batch(value);
            self.hot.writing(&batch, self.generation + 1);
            self.engine.write(batch).unwrap();
            self.generation += 1;
        }
    }

    fn read(view: &HotView) -> Bytes {
        view.get(Family::Account, b"k").unwrap().unwrap()
    }

    #[test]
    fn each_view_keeps_its_rows() {
        let mut store = Store::new();
        store.write("1");
        let first = store.view();
        assert_eq!(read(&first), "1");
        store.write("2");
        let second = store.view();
        assert_eq!(read(&second), "2");
        assert_eq!(
            read(&first),
            "1",
            "the newer row is kept, and it is not that of this view"
        );
        assert_eq!(read(&second), "2", "nor did the older one take its place");
        assert_eq!(read(&store.view()), "2");
    }

    #[test]
    fn a_row_that_is_read_late_is_not_kept() {
        let mut store = Store::new();
        store.write("1");
        let early = store.view();
        let batch = Store::batch("2");
        store.hot.writing(&batch, store.generation + 1);
        assert_eq!(read(&early), "1", "after the mark, before the write");
        store.engine.write(batch).unwrap();
        // It has the row already, and is numbered as if it had not.
        let between = store.view();
        assert_eq!(read(&between), "2");
        assert_eq!(read(&early), "1");
        store.generation += 1;
        assert_eq!(read(&store.view()), "2");
        assert_eq!(read(&early), "1");
    }

    #[test]
    fn a_kept_row_is_read_without_the_engine_until_all_is_forgotten() {
        let mut store = Store::new();
        store.write("1");
        assert_eq!(read(&store.view()), "1");
        // Behind its back.
        store.engine.write(Store::batch("2")).unwrap();
        assert_eq!(read(&store.view()), "1");
        store.generation += 1;
        store.hot.forget_all(store.generation);
        assert_eq!(read(&store.view()), "2");
    }
}
