//! The port through which a command reads and writes rows.

use bytes::Bytes;
use holdfast_types::Family;

/// Rows as they stand after all earlier commands, the current one's own writes included.
pub trait Tables {
    /// Why a read failed. Fatal: the node stops.
    type Error;

    /// The stored value (an envelope), or nothing.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Self::Error>;

    /// Stores a value.
    fn put(&mut self, family: Family, key: Bytes, value: Bytes);

    /// Removes a row.
    fn delete(&mut self, family: Family, key: Bytes);

    /// Removes rows from `from` (inclusive) to `to` (exclusive).
    fn delete_range(&mut self, family: Family, from: Bytes, to: Bytes);
}
