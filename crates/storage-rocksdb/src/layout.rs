//! The data directory: who may open it, which release wrote it, and whether it is known to be damaged.
//!
//! A directory is *laid out* once: the synced-through mark first, `FORMAT` last, so that a directory with `FORMAT`
//! is complete and one without holds nothing of value. `FORMAT` counts layouts of this crate (file names, families,
//! the mark's bytes); what rows mean is versioned in the rows.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use holdfast_storage::engine::EngineError;

use crate::examine::damaged;
use crate::fate::{io_error, refuse_known_damage};
use crate::mark::Mark;

/// The layout that this release writes and reads.
const FORMAT: u32 = 1;

/// First word of the `FORMAT` file.
const FORMAT_WORD: &str = "holdfast-data";

/// A data directory that this process has locked. The lock is released when it is dropped, so it must outlive
/// everything that touches the directory.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    _lock: File,
}

impl Layout {
    /// Locks the directory, laying it out if it is new.
    pub(crate) fn open(root: &Path) -> Result<Self, EngineError> {
        fs::create_dir_all(root).map_err(|error| io_error("creating the data directory", root, &error))?;
        let lock = lock(root)?;
        let layout = Self {
            root: root.to_owned(),
            _lock: lock,
        };
        match read_format(root)? {
            Some(FORMAT) => {}
            Some(newer) if newer > FORMAT => {
                return Err(refusal(format!(
                    "{} was written by a newer release (format {newer}, this release knows {FORMAT}); run that \
                     release or a later one: going back is not supported",
                    root.display()
                )));
            }
            Some(older) => {
                return Err(refusal(format!(
                    "{} has format {older}, which this release no longer reads (it knows {FORMAT})",
                    root.display()
                )));
            }
            None => {
                refuse_others_files(root)?;
                lay_out(root, 0)?;
            }
        }
        refuse_known_damage(&layout.damage_note())?;
        let ingest = layout.ingest();
        fs::create_dir_all(&ingest)
            .map_err(|error| io_error("creating the ingest directory", &ingest, &error))?;
        Ok(layout)
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// RocksDB's directory.
    pub(crate) fn db(&self) -> PathBuf {
        db_directory(&self.root)
    }

    /// Where tables wait to be ingested; on the same file system as `db`, so that they can be linked.
    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// The one that RocksDB is taking in.
    pub(crate) fn entering_table(&self) -> PathBuf {
        self.ingest().join("entering.sst")
    }

    /// The synced-through mark.
    pub(crate) fn mark(&self) -> PathBuf {
        mark_file(&self.root)
    }

    /// The ballast.
    pub(crate) fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    /// Where a process that met damage says so to the next one.
    pub(crate) fn damage_note(&self) -> PathBuf {
        self.root.join("DAMAGED")
    }

    /// Tables left here by a crash are no part of the store, once it is open.
    pub(crate) fn empty_ingest_directory(&self) -> Result<(), EngineError> {
        let path = self.ingest();
        let operation = "emptying the ingest directory";
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(operation, &path, &error));
            }
            _ => {}
        }
        fs::create_dir(&path).map_err(|error| io_error(operation, &path, &error))
    }
}

/// RocksDB's directory below a data directory.
pub(crate) fn db_directory(root: &Path) -> PathBuf {
    root.join("db")
}

fn mark_file(root: &Path) -> PathBuf {
    root.join("synced")
}

/// Makes a directory a data directory whose log is durable up to a sequence. Its `db` may be there already (a
/// checkpoint's) or come later (a new node's, with sequence 0).
pub(crate) fn lay_out(root: &Path, synced_through: u64) -> Result<(), EngineError> {
    let operation = "laying out the data directory";
    Mark::create(&mark_file(root), synced_through)?;
    let path = root.join("FORMAT");
    let staged = root.join("FORMAT.new");
    let write = || -> io::Result<()> {
        let mut file = File::create(&staged)?;
        file.write_all(format!("{FORMAT_WORD} {FORMAT}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&staged, &path)?;
        sync_directory(root)
    };
    write().map_err(|error| io_error(operation, &path, &error))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn lock(root: &Path) -> Result<File, EngineError> {
    let path = root.join("LOCK");
    let fail = |error: io::Error| io_error("locking the data directory", &path, &error);
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(fail)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The file is only a courtesy to the reader of the message, so a failure to read it is no news.
            let _ = file.read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                pid if pid == std::process::id().to_string() => format!("this very process ({pid})"),
                pid => format!("process {pid}"),
            };
            return Err(refusal(format!(
                "{} is in use by {holder}; stop that one, or give this node a data directory of its own",
                root.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(fail(error)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(fail)?;
    Ok(file)
}

fn read_format(root: &Path) -> Result<Option<u32>, EngineError> {
    let path = root.join("FORMAT");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            return Err(damaged(&path, "is a directory, not a file"));
        }
        Err(error) => return Err(io_error("reading the format", &path, &error)),
    };
    std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.trim().strip_prefix(FORMAT_WORD))
        .and_then(|number| number.trim().parse().ok())
        .map(Some)
        .ok_or_else(|| damaged(&path, "does not say a format"))
}

/// A directory without `FORMAT` may hold the remains of an interrupted first start, and nothing else.
fn refuse_others_files(root: &Path) -> Result<(), EngineError> {
    if db_directory(root).exists() {
        return Err(damaged(
            &root.join("FORMAT"),
            "is missing, but there is a store beside it: the file was lost, or this is a copy that was never finished",
        ));
    }
    let mark = mark_file(root);
    // An interrupted start leaves a mark that says nothing yet, or half of one.
    if Mark::open(&mark).is_ok_and(|mark| mark.sequence() > 0) {
        return Err(damaged(
            &mark,
            "says that something was stored here, but FORMAT and the store are missing",
        ));
    }
    let fail = |error: io::Error| io_error("reading the data directory", root, &error);
    for entry in fs::read_dir(root).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        if !["LOCK", "synced", "FORMAT.new", "lost+found"]
            .iter()
            .any(|known| name == *known)
        {
            return Err(refusal(format!(
                "{} is not a data directory (it has no FORMAT file) and not empty (it holds {}); give this node an \
                 empty directory, or its own",
                root.display(),
                name.to_string_lossy()
            )));
        }
    }
    Ok(())
}

/// Not damage: the directory is fine, this process must not use it.
fn refusal(message: String) -> EngineError {
    EngineError::Io {
        operation: "opening the data directory",
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(root: &Path) -> String {
        Layout::open(root).unwrap_err().to_string()
    }

    #[test]
    fn a_directory_is_opened_by_one() {
        let root = tempfile::tempdir().unwrap();
        let first = Layout::open(root.path()).unwrap();
        let message = refused(root.path());
        assert!(
            message.contains(&format!("this very process ({})", std::process::id())),
            "{message}"
        );
        drop(first);
        Layout::open(root.path()).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused() {
        let root = tempfile::tempdir().unwrap();
        drop(Layout::open(root.path()).unwrap());
        fs::write(root.path().join("FORMAT"), "holdfast-data 2\n").unwrap();
        assert!(refused(root.path()).contains("newer release (format 2, this release knows 1)"));
        fs::write(root.path().join("FORMAT"), "holdfast-").unwrap();
        assert!(refused(root.path()).contains("does not say a format"));
    }

    #[test]
    fn a_lost_format_is_damage_where_something_was_stored() {
        let root = tempfile::tempdir().unwrap();
        drop(Layout::open(root.path()).unwrap());
        fs::remove_file(root.path().join("FORMAT")).unwrap();
        fs::remove_dir(root.path().join("ingest")).unwrap();
        Mark::open(&root.path().join("synced")).unwrap().raise(7).unwrap();
        assert!(refused(root.path()).contains("synced says that something was stored here"));
        fs::create_dir(root.path().join("db")).unwrap();
        assert!(refused(root.path()).contains("FORMAT is missing, but there is a store beside it"));
    }

    #[test]
    fn a_strangers_directory_is_refused_and_an_interrupted_start_is_redone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("FORMAT.new"), "hold").unwrap();
        drop(Layout::open(root.path()).unwrap());

        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.tex"), "").unwrap();
        assert!(refused(root.path()).contains("it holds thesis.tex"));
    }
}
