//! RocksDB's write-ahead log from outside: where its records lie, and what a failing disk may do to it.
//!
//! The format is that of LevelDB, documented in RocksDB's wiki as "Write Ahead Log File Format": blocks of 32 KiB, in them
//! fragments with a checksum of 4 bytes, a length of 2, a type, and in recycled logs the low 4 bytes of the log's number, so that
//! what the file held before is not taken for its own.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;

use holdfast_storage::choices::SplitMix64;

const BLOCK: usize = 32 * 1024;

/// Where one write lies in the log, all its fragments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Where each of its fragments begins, and where it ends.
    pub(crate) fragments: Vec<Range<u64>>,
}

impl Record {
    /// Where it ends.
    pub(crate) fn end(&self) -> u64 {
        self.fragments.last().expect("a record has a fragment").end
    }
}

/// A log file's contents, as far as they are its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    /// The batches, in order.
    pub(crate) records: Vec<Record>,
    /// All fragments, in order; also those in which RocksDB speaks of the log itself.
    pub(crate) fragments: Vec<Range<u64>>,
}

impl Log {
    /// Reads a log file.
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let number: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let mut log = Self::default();
        let mut open: Vec<Range<u64>> = Vec::new();
        let mut at = 0;
        loop {
            let left = BLOCK - at % BLOCK;
            let Some(header) = bytes.get(at..at + 7).filter(|_| left >= 7) else {
                if left < 7 && at + left <= bytes.len() {
                    at += left;
                    continue;
                }
                return log;
            };
            let len = usize::from(u16::from_le_bytes([header[4], header[5]]));
            let kind = header[6];
            let recyclable = matches!(kind, 5..=8 | 11 | 131);
            let header_len = if recyclable { 11 } else { 7 };
            let end = at + header_len + len;
            if kind == 0 && left < 11 {
                at += left;
                continue;
            }
            let own = !recyclable || bytes.get(at + 7..at + 11) == Some(&(number as u32).to_le_bytes()[..]);
            let sound = bytes.get(at + 6..end).map(checksum) == Some(header[..4].try_into().unwrap());
            if kind == 0 || !own || !sound {
                return log;
            }
            let fragment = at as u64..end as u64;
            log.fragments.push(fragment.clone());
            if matches!(kind, 1..=8) {
                open.push(fragment);
            }
            if matches!(kind, 1 | 4 | 5 | 8) {
                log.records.push(Record {
                    fragments: std::mem::take(&mut open),
                });
            }
            at = end;
        }
    }

    /// Where the last fragment ends.
    pub(crate) fn end(&self) -> u64 {
        self.fragments.last().map_or(0, |fragment| fragment.end)
    }

    /// Whether an offset is in a fragment; the rest of a block may be too short for one.
    pub(crate) fn means_something(&self, at: u64) -> bool {
        self.fragments.iter().any(|fragment| fragment.contains(&at))
    }
}

/// CRC-32C, as RocksDB stores it: turned and shifted, so that checksums of checksums do no harm.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let crc = !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))
        })
    });
    crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// What happens to a file from some place on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage<'a> {
    /// It ends there.
    Cut,
    /// Zeros to the end: its length reached the disk, its contents did not.
    Zeros,
    /// Anything to the end, and beyond.
    Garbage(u64),
    /// One wrong bit, the rest is well.
    Bit(u8),
    /// One sector of zeros, the rest is well: a later one reached the disk first.
    Hole,
    /// What was there at an earlier time.
    Older(&'a [u8]),
}

impl Damage<'_> {
    /// One that needs no earlier time.
    pub(crate) fn random(random: &mut SplitMix64) -> Self {
        match random.below(5) {
            0 => Damage::Cut,
            1 => Damage::Zeros,
            2 => Damage::Garbage(random.next_u64()),
            3 => Damage::Bit(random.below(8) as u8),
            _ => Damage::Hole,
        }
    }

    /// Damages a file's bytes at an offset, which may be their end.
    pub(crate) fn apply(self, bytes: &mut Vec<u8>, at: usize) {
        let len = bytes.len();
        match self {
            Damage::Cut => bytes.truncate(at),
            Damage::Zeros => bytes[at..].fill(0),
            Damage::Garbage(seed) => {
                let mut random = SplitMix64::new(seed);
                bytes.truncate(at);
                bytes.extend((at..len + 1000).map(|_| random.next_u64() as u8));
            }
            Damage::Bit(bit) => bytes[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << bit),
            Damage::Hole => bytes[at..len.min(at + 512)].fill(0),
            Damage::Older(older) => {
                bytes.truncate(at);
                bytes.extend_from_slice(older.get(at..).unwrap_or_default());
            }
        }
    }
}

impl fmt::Debug for Damage<'_> {
    /// Without the bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Damage::Cut => "a cut",
            Damage::Zeros => "zeros",
            Damage::Garbage(_) => "garbage",
            Damage::Bit(_) => "a wrong bit",
            Damage::Hole => "a hole",
            Damage::Older(_) => "older bytes",
        })
    }
}
