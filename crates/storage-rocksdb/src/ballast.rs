//! The ballast: a file whose only use is to be deleted.
//!
//! A store that has run into the end of its disk cannot get out by itself: deleting rows needs log space, compaction needs
//! room for the new tables before the old ones go, and starting writes a manifest and what the memory tables held. So some
//! room is kept back while there is plenty.
//!
//! - Free space below a quarter of the ballast's size: it is deleted, with a warning in the log, at start (before RocksDB is opened) or
//!   by the housekeeping thread.
//! - Free space above four times its size: it is created again. The gap between the two keeps it from flapping.
//! - What is freed is not reserved for anything: a compaction may take it. So a node refuses new work long before, by
//!   `Usage::disk_free_bytes`.
//! - An operator may delete the file by hand at any time.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use rustix::fs::FallocateFlags;

/// The ballast's file and its size.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    bytes: u64,
}

/// What tending did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tended {
    /// Nothing was needed.
    Kept,
    /// The file was deleted, so many bytes are free again.
    Released(u64),
    /// The file is there again.
    Created,
}

impl Ballast {
    /// A ballast of this size; 0 turns it off.
    pub(crate) fn new(path: PathBuf, bytes: u64) -> Self {
        Self { path, bytes }
    }

    /// Deletes or creates the file as the free space asks for.
    pub(crate) fn tend(&self, disk_free_bytes: u64) -> io::Result<Tended> {
        let held = match fs::metadata(&self.path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        if held > 0 && (disk_free_bytes < self.bytes / 4 || self.bytes == 0) {
            return self.release();
        }
        if held < self.bytes && disk_free_bytes / 4 > self.bytes {
            self.create()?;
            return Ok(Tended::Created);
        }
        Ok(Tended::Kept)
    }

    /// Deletes the file.
    pub(crate) fn release(&self) -> io::Result<Tended> {
        let held = match fs::metadata(&self.path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Tended::Kept),
            Err(error) => return Err(error),
        };
        fs::remove_file(&self.path)?;
        Ok(Tended::Released(held))
    }

    fn create(&self) -> io::Result<()> {
        let written = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&self.path)
            .and_then(
                |file| match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.bytes) {
                    Ok(()) => Ok(()),
                    Err(rustix::io::Errno::OPNOTSUPP) => fill(&file, self.bytes),
                    Err(error) => Err(error.into()),
                },
            );
        if written.is_err() {
            // A half-made ballast holds room that was not there to spare.
            let _ = fs::remove_file(&self.path);
        }
        written
    }
}

/// For file systems that cannot allocate without writing.
fn fill(mut file: &File, bytes: u64) -> io::Result<()> {
    const CHUNK: u64 = 1 << 20;
    let zeros = vec![0; CHUNK as usize];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(CHUNK);
        file.write_all(&zeros[..now as usize])?;
        left -= now;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_while_there_is_room() {
        const MIB: u64 = 1 << 20;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("ballast");
        let ballast = Ballast::new(path.clone(), 8 * MIB);
        let held = || fs::metadata(&path).map(|metadata| metadata.len()).unwrap_or(0);

        assert_eq!(
            ballast.tend(20 * MIB).unwrap(),
            Tended::Kept,
            "not enough room to make one"
        );
        assert_eq!(ballast.tend(100 * MIB).unwrap(), Tended::Created);
        assert_eq!(held(), 8 * MIB);
        assert_eq!(ballast.tend(3 * MIB).unwrap(), Tended::Kept);
        assert_eq!(ballast.tend(MIB).unwrap(), Tended::Released(8 * MIB));
        assert_eq!(held(), 0);
        assert_eq!(ballast.tend(9 * MIB).unwrap(), Tended::Kept, "no flapping");

        ballast.tend(100 * MIB).unwrap();
        let off = Ballast::new(path.clone(), 0);
        assert_eq!(
            off.tend(100 * MIB).unwrap(),
            Tended::Released(8 * MIB),
            "turned off"
        );
    }
}
