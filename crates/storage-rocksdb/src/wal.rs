//! RocksDB's write-ahead log, read from outside: which batches are in a file, and where.
//!
//! The format is LevelDB's, documented in RocksDB's wiki as "Write Ahead Log File Format": blocks of 32 KiB, in them fragments with a
//! checksum of 4 bytes, a length of 2 and a type of 1. Logs that may be recycled add the low 4 bytes of their number, so that what the
//! file held before is not taken for their own; with [`crate::tuning`] all logs are of that kind. A batch is one fragment or more, and
//! begins with its first sequence number and how many it takes.
//!
//! [`Batches`] reads what RocksDB's point-in-time recovery would read, **its blind spot included**: a header of zeros is no damage to
//! it, the rest of the block is passed over. What to make of that is for [`crate::hole`] to say.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crc32c::crc32c;

const BLOCK_LEN: usize = 32 * 1024;

/// checksum 4, length 2, type 1.
const SHORT_HEADER_LEN: usize = 7;

/// The same, and the log's number 4.
const HEADER_LEN: usize = 11;

/// sequence 8, count 4.
const BATCH_HEADER_LEN: usize = 12;

/// One batch that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Its first sequence number.
    pub(crate) first: u64,
    /// How many it takes; RocksDB writes one of 0 when it goes on after damage.
    pub(crate) count: u32,
    /// Where it ends in the file.
    pub(crate) end: u64,
}

/// A log's batches, up to its end or to where RocksDB would stop.
#[derive(Debug)]
pub(crate) struct Batches {
    file: File,
    number: u32,
    block: Vec<u8>,
    /// Where the block lies in the file, and how far it has been read.
    block_start: u64,
    at: usize,
}

/// What a fragment is of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Middle,
    Last,
    /// No fragment, but zeros that RocksDB passes over.
    Zeros,
}

impl Batches {
    /// Opens the log with that number.
    pub(crate) fn open(path: &Path, number: u64) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            // The low bytes are all that fragments tell.
            number: number as u32,
            block: Vec::with_capacity(BLOCK_LEN),
            block_start: 0,
            at: 0,
        })
    }

    /// The next batch.
    pub(crate) fn next(&mut self) -> io::Result<Option<Batch>> {
        let mut header = Vec::with_capacity(BATCH_HEADER_LEN);
        let mut begun = false;
        while let Some((part, content)) = self.fragment()? {
            match part {
                Part::Zeros if !begun => continue,
                Part::Whole | Part::First if !begun => begun = true,
                Part::Middle | Part::Last if begun => {}
                // Out of order: damage, to RocksDB too.
                _ => return Ok(None),
            }
            let missing = BATCH_HEADER_LEN - header.len();
            header.extend_from_slice(&content[..content.len().min(missing)]);
            if matches!(part, Part::Whole | Part::Last) {
                let end = self.block_start + self.at as u64;
                return Ok(decode(&header).map(|(first, count)| Batch { first, count, end }));
            }
        }
        Ok(None)
    }

    /// The next fragment, if there is one that is sound and this log's own.
    fn fragment(&mut self) -> io::Result<Option<(Part, &[u8])>> {
        loop {
            let left = &self.block[self.at..];
            // Too short for a header: a block's last bytes, or the file's.
            if left.len() < SHORT_HEADER_LEN {
                if !self.next_block()? {
                    return Ok(None);
                }
                continue;
            }
            let len = usize::from(u16::from_le_bytes([left[4], left[5]]));
            let part = match left[6] {
                0 if len == 0 => {
                    self.at = self.block.len();
                    return Ok(Some((Part::Zeros, &[])));
                }
                5 => Part::Whole,
                6 => Part::First,
                7 => Part::Middle,
                8 => Part::Last,
                // Not in a log of ours.
                _ => return Ok(None),
            };
            let start = self.at;
            let Some(fragment) = left.get(..HEADER_LEN + len) else {
                return Ok(None);
            };
            let own = fragment[7..HEADER_LEN] == self.number.to_le_bytes();
            if !own || fragment[..4] != checksum(&fragment[6..]) {
                return Ok(None);
            }
            self.at += fragment.len();
            return Ok(Some((part, &self.block[start + HEADER_LEN..self.at])));
        }
    }

    /// Goes on to the next block; the last one may be shorter. False at the end of the file.
    fn next_block(&mut self) -> io::Result<bool> {
        self.block_start += self.block.len() as u64;
        self.at = 0;
        self.block.clear();
        let mut limited = (&self.file).take(BLOCK_LEN as u64);
        limited.read_to_end(&mut self.block)?;
        Ok(!self.block.is_empty())
    }
}

fn decode(header: &[u8]) -> Option<(u64, u32)> {
    let (first, count) = header.split_first_chunk::<8>()?;
    let count = count.first_chunk::<4>()?;
    Some((u64::from_le_bytes(*first), u32::from_le_bytes(*count)))
}

/// CRC-32C as RocksDB stores it: turned and shifted, so that checksums of checksums do no harm.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
        .to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rocksdb::{DB, Options, WriteBatch};

    #[test]
    fn the_checksum_is_crc_32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b""), 0);
    }

    /// Every length of the last fragment in a block, batches that span blocks, and the old bytes behind a recycled log's own.
    #[test]
    fn what_rocksdb_writes_is_read() {
        let root = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_recycle_log_file_num(2);
        let db = DB::open(&options, root.path()).unwrap();
        for round in 0..5_u64 {
            let begin = db.latest_sequence_number() + 1;
            let mut written = Vec::new();
            for n in 0..600 - 100 * round {
                let mut batch = WriteBatch::default();
                for op in 0..=n % 3 {
                    let len = if n.is_multiple_of(50) { 70_000 } else { 500 + n };
                    batch.put([op as u8], vec![7; len as usize]);
                }
                written.push(batch.len() as u32);
                db.write(batch).unwrap();
            }
            let (number, log) = std::fs::read_dir(root.path())
                .unwrap()
                .filter_map(|entry| {
                    let path = entry.unwrap().path();
                    let number = path.file_name()?.to_str()?.strip_suffix(".log")?.parse::<u64>();
                    Some((number.ok()?, path))
                })
                .max()
                .unwrap();
            let mut batches = Batches::open(&log, number).unwrap();
            let mut next = begin;
            let mut end = 0;
            for count in written {
                let batch = batches.next().unwrap().expect("a batch is missing");
                assert_eq!((batch.first, batch.count), (next, count));
                assert!(batch.end > end);
                next += u64::from(count);
                end = batch.end;
            }
            assert_eq!(batches.next().unwrap(), None);
            assert_eq!(next, db.latest_sequence_number() + 1);
            let recycled = std::fs::metadata(&log).unwrap().len() > end;
            assert_eq!(
                recycled,
                round > 1,
                "round {round}: recycled or not, and should be otherwise"
            );
            db.flush().unwrap();
        }
    }
}
