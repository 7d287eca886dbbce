//! Fail-stop: the first failure that makes the disk or its contents doubtful decides the engine's fate.
//!
//! After a failed sync the page cache may say that pages are clean which never reached the disk (Rebello et al.,
//! *Can Applications Recover from fsync Failures?*, ATC'20), so nothing is tried again, and nothing is served from
//! what may be a lie.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use holdfast_storage::engine::EngineError;
use rocksdb::ErrorKind;

use crate::examine::without_repetition;

/// What to do about damage; part of every message about it.
pub(crate) const REPLACE_THE_NODE: &str = "do not start this node again under its id: it may have forgotten votes and \
     entries that it promised to keep. Keep the directory aside for analysis, start a new node with a new id and an \
     empty data directory, and put it in this one's place with `holdfast cluster replace`";

/// Whether the engine still works; the first terminal failure is kept.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    stopped: OnceLock<String>,
}

impl Fate {
    /// Fails if an earlier failure stopped the engine.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        match self.stopped.get() {
            None => Ok(()),
            Some(message) => Err(EngineError::Stopped {
                message: message.clone(),
            }),
        }
    }

    /// Stops the engine for ever and hands the failure back. The first failure wins.
    pub(crate) fn stop(&self, error: EngineError) -> EngineError {
        if self.stopped.set(error.to_string()).is_ok() {
            tracing::error!(%error, "the storage engine stops");
        }
        error
    }

    /// Stops the engine because RocksDB failed.
    pub(crate) fn stop_rocks(&self, operation: &'static str, error: &rocksdb::Error) -> EngineError {
        self.stop(rocks_error(operation, error))
    }
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
        let fate = Fate::default();
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
    }
}
