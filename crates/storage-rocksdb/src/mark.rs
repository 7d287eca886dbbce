//! The synced-through mark: how far the write-ahead log was durable.
//!
//! RocksDB's point-in-time recovery stops silently at the first bad record, wherever it is: damage in the middle of
//! the log looks like a short log. For Raft that is amnesia (votes and entries are forgotten that others counted on), so
//! this file remembers a sequence number that recovery must reach. It is raised after each sync returned, to the sequence
//! read *before* that sync.
//!
//! Two slots are written in turn, each in a block of its own with a counter and a checksum, so that a torn write costs
//! one raise, never the mark. Raising is a `pwrite` into a file of fixed size: no metadata changes, no wait. The file is
//! synced in the background, at most every 50 ms ([`crate::syncer`]).
//!
//! What it proves: after the death of the process, and for a copied directory, everything that was synced. After a power
//! failure, all but what was synced in the last 50 ms or so.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use holdfast_storage::engine::EngineError;

use crate::examine::damaged;
use crate::fate::io_error;

/// The distance of the two slots: a page, at least as large as what a disk writes atomically.
const SLOT_STRIDE: u64 = 4096;

/// magic 8, counter 8, sequence 8, crc32 of these 4.
const SLOT_LEN: usize = 28;

const MAGIC: &[u8; 8] = b"hf-mark1";

/// The mark, open for raising.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
    last: Mutex<Slot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    /// How many times the mark was raised; tells the newer slot, and which one is next.
    counter: u64,
    sequence: u64,
}

impl Mark {
    /// Writes a new mark, durably, over whatever an interrupted start left.
    pub(crate) fn create(path: &Path, sequence: u64) -> Result<(), EngineError> {
        let write = || -> std::io::Result<()> {
            let file = File::create(path)?;
            for counter in [0, 1] {
                let mut block = [0; SLOT_STRIDE as usize];
                block[..SLOT_LEN].copy_from_slice(&encode(Slot { counter, sequence }));
                file.write_all_at(&block, counter * SLOT_STRIDE)?;
            }
            file.sync_all()
        };
        write().map_err(|error| io_error("creating the synced-through mark", path, &error))
    }

    /// Opens the mark. Missing or unreadable, it is damage: without it nothing vouches for the log.
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
        let file = match File::options().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(unreadable(path, "is missing"));
            }
            Err(error) => return Err(io_error("opening the synced-through mark", path, &error)),
        };
        let last = [0, 1]
            .into_iter()
            .filter_map(|slot| {
                let mut bytes = [0; SLOT_LEN];
                file.read_exact_at(&mut bytes, slot * SLOT_STRIDE).ok()?;
                decode(&bytes)
            })
            .max_by_key(|slot| slot.counter)
            .ok_or_else(|| unreadable(path, "has no valid slot"))?;
        Ok(Self {
            file,
            last: Mutex::new(last),
        })
    }

    /// The sequence up to which the log must be there.
    pub(crate) fn sequence(&self) -> u64 {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).sequence
    }

    /// Raises the mark; a lower sequence changes nothing. Not synced: see [`Mark::sync`].
    pub(crate) fn raise(&self, sequence: u64) -> Result<(), EngineError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if sequence <= last.sequence {
            return Ok(());
        }
        let next = Slot {
            counter: last.counter + 1,
            sequence,
        };
        self.file
            .write_all_at(&encode(next), next.counter % 2 * SLOT_STRIDE)
            .map_err(|error| failed("writing the synced-through mark", &error))?;
        *last = next;
        Ok(())
    }

    /// Makes the mark itself durable.
    pub(crate) fn sync(&self) -> Result<(), EngineError> {
        self.file
            .sync_data()
            .map_err(|error| failed("syncing the synced-through mark", &error))
    }
}

fn failed(operation: &'static str, error: &std::io::Error) -> EngineError {
    EngineError::Io {
        operation,
        message: error.to_string(),
    }
}

fn unreadable(path: &Path, what: &str) -> EngineError {
    damaged(
        path,
        &format!("{what}, so nothing says how much of the log must be there"),
    )
}

fn encode(slot: Slot) -> [u8; SLOT_LEN] {
    let mut bytes = [0; SLOT_LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&slot.counter.to_be_bytes());
    bytes[16..24].copy_from_slice(&slot.sequence.to_be_bytes());
    let checksum = crc32fast::hash(&bytes[..24]);
    bytes[24..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8; SLOT_LEN]) -> Option<Slot> {
    let number = |at: usize| {
        bytes[at..at + 8]
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let valid = bytes[..8] == *MAGIC && bytes[24..] == crc32fast::hash(&bytes[..24]).to_be_bytes();
    valid.then(|| Slot {
        counter: number(8),
        sequence: number(16),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_only_rises() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("synced");
        Mark::create(&path, 7).unwrap();
        let mark = Mark::open(&path).unwrap();
        assert_eq!(mark.sequence(), 7);
        for sequence in [9, 8, 12, 12] {
            mark.raise(sequence).unwrap();
        }
        mark.sync().unwrap();
        assert_eq!(Mark::open(&path).unwrap().sequence(), 12);
    }

    #[test]
    fn a_torn_write_costs_one_raise() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("synced");
        Mark::create(&path, 0).unwrap();
        let mark = Mark::open(&path).unwrap();
        mark.raise(10).unwrap(); // counter 2: slot 0
        mark.raise(20).unwrap(); // counter 3: slot 1
        mark.file.write_all_at(&[0xff; 5], SLOT_STRIDE + 17).unwrap();
        assert_eq!(Mark::open(&path).unwrap().sequence(), 10);

        mark.file.write_all_at(&[0xff; 5], 17).unwrap();
        let error = Mark::open(&path).unwrap_err();
        assert!(matches!(error, EngineError::Damaged { .. }), "{error}");
    }

    #[test]
    fn a_missing_mark_is_damage() {
        let root = tempfile::tempdir().unwrap();
        let error = Mark::open(&root.path().join("synced")).unwrap_err();
        assert!(error.to_string().contains("is missing"), "{error}");
    }

    #[test]
    fn slots_have_golden_bytes() {
        let bytes = encode(Slot {
            counter: 3,
            sequence: 0x0102,
        });
        assert_eq!(&bytes[..24], b"hf-mark1\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\x01\x02");
        assert_eq!(
            decode(&bytes),
            Some(Slot {
                counter: 3,
                sequence: 0x0102
            })
        );
    }
}
