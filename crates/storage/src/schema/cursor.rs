//! A forward scan that can jump: listings step over runs of rows that are not theirs without reading them.

use std::ops::Bound;

use bytes::Bytes;
use holdfast_types::Family;

use crate::engine::{Direction, EngineError, Row, View};

/// A position in a family, up to an exclusive end.
pub(super) struct Cursor<'v> {
    view: &'v dyn View,
    family: Family,
    end: Bound<Bytes>,
    rows: Box<dyn Iterator<Item = Result<Row, EngineError>> + Send + 'v>,
}

impl<'v> Cursor<'v> {
    /// At the first row within the bounds.
    pub(super) fn new(view: &'v dyn View, family: Family, from: Bound<Bytes>, end: Bound<Bytes>) -> Self {
        let rows = view.scan(family, as_slice(&from), as_slice(&end), Direction::Forward);
        Cursor {
            view,
            family,
            end,
            rows,
        }
    }

    /// Jumps to the first row at or after `key`.
    pub(super) fn seek(&mut self, key: &[u8]) {
        let from = Bound::Included(key);
        self.rows = self
            .view
            .scan(self.family, from, as_slice(&self.end), Direction::Forward);
    }

    /// Yields nothing from here on.
    pub(super) fn finish(&mut self) {
        self.rows = Box::new(std::iter::empty());
    }
}

impl Iterator for Cursor<'_> {
    type Item = Result<Row, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rows.next()
    }
}

fn as_slice(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &key[..])
}
