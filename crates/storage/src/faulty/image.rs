//! What a disk holds: one sorted table a family.

use std::ops::Bound;

use bytes::Bytes;
use holdfast_types::Family;
use rpds::RedBlackTreeMapSync;

use crate::engine::{Batch, Op, Row};

/// Rows of all families. Cloning costs a few reference counts: tables are persistent trees that share
/// whatever has not changed since.
#[derive(Clone)]
pub(super) struct Image {
    tables: [Table; Family::ALL.len()],
}

/// One family.
#[derive(Clone)]
pub(super) struct Table {
    pub(super) rows: RedBlackTreeMapSync<Bytes, Bytes>,
    /// Bytes of keys and values.
    pub(super) bytes: u64,
}

impl Image {
    pub(super) fn new() -> Self {
        Image {
            tables: std::array::from_fn(|_| Table {
                rows: RedBlackTreeMapSync::new_sync(),
                bytes: 0,
            }),
        }
    }

    pub(super) fn table(&self, family: Family) -> &Table {
        &self.tables[INDEX[family as usize] as usize]
    }

    fn table_mut(&mut self, family: Family) -> &mut Table {
        &mut self.tables[INDEX[family as usize] as usize]
    }

    pub(super) fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes).sum()
    }

    pub(super) fn apply(&mut self, batch: &Batch) {
        for op in &batch.ops {
            match op {
                Op::Put(family, key, value) => self.table_mut(*family).put(key.clone(), value.clone()),
                Op::Delete(family, key) => self.table_mut(*family).delete(key),
                Op::DeleteRange(family, from, to) => self.table_mut(*family).delete_range(from, to),
            }
        }
    }

    pub(super) fn ingest(&mut self, family: Family, rows: &[Row]) {
        let table = self.table_mut(family);
        for (key, value) in rows {
            table.put(key.clone(), value.clone());
        }
    }
}

impl Table {
    fn put(&mut self, key: Bytes, value: Bytes) {
        if let Some(old) = self.rows.get(&key) {
            self.bytes -= (key.len() + old.len()) as u64;
        }
        self.bytes += (key.len() + value.len()) as u64;
        self.rows.insert_mut(key, value);
    }

    fn delete(&mut self, key: &Bytes) {
        if let Some(value) = self.rows.get(key) {
            self.bytes -= (key.len() + value.len()) as u64;
            self.rows.remove_mut(key);
        }
    }

    fn delete_range(&mut self, from: &Bytes, to: &Bytes) {
        if from >= to {
            return;
        }
        let range = (Bound::Included(from.clone()), Bound::Excluded(to.clone()));
        let dead: Vec<Bytes> = self
            .rows
            .range::<Bytes, _>(range)
            .map(|(key, _)| key.clone())
            .collect();
        for key in dead {
            self.delete(&key);
        }
    }
}

/// Discriminant of a family to its place in [`Family::ALL`].
const INDEX: [u8; 64] = {
    let mut index = [0; 64];
    let mut at = 0;
    while at < Family::ALL.len() {
        index[Family::ALL[at] as usize] = at as u8;
        at += 1;
    }
    index
};
