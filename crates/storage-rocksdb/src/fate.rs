//! Fail-stop: the first failure that makes the disk or its contents doubtful decides the engine's fate.
//!
//! After a failed sync the page cache may say that pages are clean which never reached the disk (Rebello et al.,
//! *Can Applications Recover from fsync Failures?*, ATC'20), so nothing is tried again, and nothing is served from
//! what may be a lie.
//!
//! *Damage* outlives the process: it is written down in the data directory, and while it says so there the directory does
//! not open. Otherwise a node that is started again each time it stops can keep its cluster from ever having a leader: its
//! log may be the newest of all by the entries that it wrote in its own last moments, so it is elected, reads the damaged
//! row, stops, and is elected again. A failure of the operating system is not written down, since the same disk may be
//! well the next time; nor is a row that arrives intact and cannot be understood, which is rather this release's fault.
//! Intact is what RocksDB's checksums say, and for log entries their own.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use holdfast_storage::engine::EngineError;
use rocksdb::ErrorKind;

use crate::examine::without_repetition;
use crate::layout::sync_directory;

/// Damage that a reader found in bytes with a checksum of their own.
pub(crate) fn found_by_reader(message: &str) -> EngineError {
    EngineError::Damaged {
        message: format!("{message}; {REPLACE_THE_NODE}"),
    }
}

/// What to do about damage; part of every message about it.
pub(crate) const REPLACE_THE_NODE: &str = "do not start this node again under its id: it may have forgotten votes and \
     entries that it promised to keep. Keep the directory aside for analysis, start a new node with a new id and an \
     empty data directory, and put it in this one's place with `holdfast cluster replace`";

/// Whether the engine still works; the first terminal failure is kept.
#[derive(Debug)]
pub(crate) struct Fate {
    stopped: OnceLock<String>,
    /// Where damage is written down.
    damage_note: PathBuf,
    /// Set once that was done.
    noted: OnceLock<()>,
}

impl Fate {
    /// Nothing has failed yet. Damage will be written down in `damage_note`.
    pub(crate) fn new(damage_note: PathBuf) -> Self {
        Fate {
            stopped: OnceLock::new(),
            damage_note,
            noted: OnceLock::new(),
        }
    }

    /// Fails if an earlier failure stopped the engine.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        match self.stopped.get() {
            None => Ok(()),
            Some(message) => Err(EngineError::Stopped {
                message: message.clone(),
            }),
        }
    }

    /// Stops the engine for ever and hands the failure back. The first failure wins. Damage is written down before anybody
    /// hears of it, also where another failure came first.
    pub(crate) fn stop(&self, error: EngineError) -> EngineError {
        if let EngineError::Damaged { message } = &error {
            self.write_down(message);
        }
        if self.stopped.set(error.to_string()).is_ok() {
            tracing::error!(%error, "the storage engine stops");
        }
        error
    }

    /// Whoever meets damage at the same time waits until the first of it is written down.
    fn write_down(&self, damage: &str) {
        self.noted.get_or_init(|| self.write_note(damage));
    }

    fn write_note(&self, damage: &str) {
        let path = &self.damage_note;
        let write = || -> io::Result<()> {
            let mut file = File::create(path)?;
            writeln!(file, "{damage}. {}", unless_elsewhere(path))?;
            file.sync_all()?;
            path.parent().map_or(Ok(()), sync_directory)
        };
        if let Err(error) = write() {
            // The disk is worse than it said. The node stops all the same, and the next one meets it again.
            tracing::error!(path = %path.display(), %error, "the damage could not be written down");
        }
    }

    /// Stops the engine because RocksDB failed.
    pub(crate) fn stop_rocks(&self, operation: &'static str, error: &rocksdb::Error) -> EngineError {
        self.stop(rocks_error(operation, error))
    }
}

/// Fails if an earlier process met damage here.
pub(crate) fn refuse_known_damage(damage_note: &Path) -> Result<(), EngineError> {
    let damage = match fs::read(damage_note) {
        Ok(damage) => damage,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("reading what is known of damage", damage_note, &error)),
    };
    let path = damage_note.display();
    let message = match String::from_utf8_lossy(&damage).trim() {
        // Whoever wrote it came no further: the power failed, or there was no room.
        "" => format!(
            "{path} is there, so an earlier process met damage; {REPLACE_THE_NODE}. {}",
            unless_elsewhere(damage_note)
        ),
        damage => format!("{path}, written by an earlier process, says: {damage}"),
    };
    Err(EngineError::Damaged { message })
}

/// For whoever knows better than the checksums.
fn unless_elsewhere(damage_note: &Path) -> String {
    format!(
        "Should the cause have been elsewhere, such as memory that has been exchanged since, delete {}: the node starts again \
         then, and stops again where it did if the damage is still there",
        damage_note.display()
    )
}

/// RocksDB's failure in the port's words.
pub(crate) fn rocks_error(operation: &'static str, error: &rocksdb::Error) -> EngineError {
    match error.kind() {
        ErrorKind::Corruption => EngineError::Damaged {
            message: format!(
                "{operation}: {}; {REPLACE_THE_NODE}",
                without_repetition(error.as_ref())
            ),
        },
        _ => EngineError::Io {
            operation,
            message: without_repetition(error.as_ref()),
        },
    }
}

/// The operating system's refusal in the port's words.
pub(crate) fn io_error(operation: &'static str, path: &Path, error: &io::Error) -> EngineError {
    EngineError::Io {
        operation,
        message: format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let note = root.path().join("DAMAGED");
        let fate = Fate::new(note.clone());
        assert!(fate.check().is_ok());
        let io = |message: &str| EngineError::Io {
            operation: "sync",
            message: message.into(),
        };
        fate.stop(io("first"));
        fate.stop(io("second"));
        match fate.check() {
            Err(EngineError::Stopped { message }) => assert_eq!(message, "sync failed: first"),
            other => panic!("{other:?}"),
        }
        // The next process may find the disk well.
        refuse_known_damage(&note).unwrap();
    }

    #[test]
    fn damage_is_written_down() {
        let root = tempfile::tempdir().unwrap();
        let note = root.path().join("DAMAGED");
        let fate = Fate::new(note.clone());
        fate.stop(EngineError::Damaged {
            message: "a row is wrong".into(),
        });
        fate.stop(EngineError::Damaged {
            message: "another row is wrong".into(),
        });
        let refused = refuse_known_damage(&note).unwrap_err().to_string();
        assert!(
            refused.contains("says: a row is wrong. Should the cause"),
            "{refused}"
        );

        // And also where the disk had failed in another way before.
        let another = root.path().join("ANOTHER");
        let fate = Fate::new(another.clone());
        fate.stop(EngineError::Io {
            operation: "sync",
            message: "input/output error".into(),
        });
        refuse_known_damage(&another).unwrap();
        fate.stop(EngineError::Damaged {
            message: "a row is wrong".into(),
        });
        refuse_known_damage(&another).unwrap_err();

        fs::write(&note, "").unwrap();
        let refused = refuse_known_damage(&note).unwrap_err().to_string();
        assert!(refused.contains("start a new node with a new id"), "{refused}");
        assert!(refused.contains("delete "), "{refused}");
    }
}
