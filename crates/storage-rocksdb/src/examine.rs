//! What is wrong with a store, in words that name the file.
//!
//! RocksDB finds damage, but says so in its own way: a missing manifest is an I/O error, a missing table a corruption
//! that quotes an I/O error. So the few files that everything hangs on are looked at before RocksDB is asked, and
//! what RocksDB says is searched for the file it is about.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_storage::engine::EngineError;
use rocksdb::ErrorKind;

use crate::engine::Db;
use crate::fate::{REPLACE_THE_NODE, found_by_reader, io_error};

/// Whether there is a store in `db`, as far as that can be told before RocksDB opens it.
///
/// One that has synced something cannot be gone, nor can the files be by which it is found.
pub(crate) fn store_exists(db: &Path, synced_through: u64) -> Result<bool, EngineError> {
    let current = db.join("CURRENT");
    let text = match fs::read(&current) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && synced_through == 0 => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let missing = if db.exists() { &current } else { db };
            return Err(damaged(missing, "is missing"));
        }
        Err(error) => return Err(io_error("reading", &current, &error)),
    };
    let manifest = std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.strip_suffix('\n'))
        .filter(|name| name.starts_with("MANIFEST-") && is_number(&name["MANIFEST-".len()..]));
    let Some(manifest) = manifest else {
        return Err(damaged(&current, "does not name a manifest"));
    };
    let manifest = db.join(manifest);
    match fs::metadata(&manifest) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(damaged(&manifest, "is missing")),
        Err(error) => Err(io_error("reading", &manifest, &error)),
    }
}

/// What RocksDB says when it cannot open a store that is there.
pub(crate) fn not_opened(db: &Path, error: &rocksdb::Error) -> EngineError {
    let said = error.as_ref();
    let gone = is_gone(said);
    if error.kind() != ErrorKind::Corruption && !gone {
        return EngineError::Io {
            operation: "opening the store",
            message: format!("{}: {}", subject(db, said).display(), without_repetition(said)),
        };
    }
    let file = subject(db, said);
    if gone {
        damaged(&file, "is missing")
    } else {
        damaged(
            &file,
            &format!("is damaged (RocksDB: {})", without_repetition(said)),
        )
    }
}

/// Why a store was not opened.
pub(crate) struct Refusal {
    pub(crate) why: EngineError,
    /// The table that is not there, if that is why.
    pub(crate) missing_table: Option<PathBuf>,
}

impl Refusal {
    /// RocksDB did not.
    pub(crate) fn of_rocks(db: &Path, error: &rocksdb::Error) -> Self {
        let file = subject(db, error.as_ref());
        let is_table = file.extension().is_some_and(|is| is == "sst");
        Refusal {
            why: not_opened(db, error),
            missing_table: (is_table && is_gone(error.as_ref())).then_some(file),
        }
    }
}

impl From<EngineError> for Refusal {
    fn from(why: EngineError) -> Self {
        Refusal {
            why,
            missing_table: None,
        }
    }
}

/// Looks whether all tables are there, as long as they should be: RocksDB looks at some, and meets the others when somebody reads.
pub(crate) fn look_for_tables(path: &Path, db: &Db) -> Result<(), Refusal> {
    let tables = || db.live_files().map_err(|error| Refusal::of_rocks(path, &error));
    for table in tables()? {
        let file = path.join(table.name.trim_start_matches('/'));
        let found = match fs::metadata(&file) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Or it has been merged into others meanwhile.
                if !tables()?.iter().any(|still| still.name == table.name) {
                    continue;
                }
                return Err(Refusal {
                    why: found_by_reader(&format!("{} is missing", file.display())),
                    missing_table: Some(file),
                });
            }
            Err(error) => return Err(io_error("reading", &file, &error).into()),
        };
        if found != table.size as u64 {
            let (file, length) = (file.display(), table.size);
            let why = format!("{file} has {found} bytes, not the {length} that were written");
            return Err(found_by_reader(&why).into());
        }
    }
    Ok(())
}

fn is_gone(said: &str) -> bool {
    said.contains("No such file") || said.contains("missing in")
}

/// Damage that was found before anything was written.
pub(crate) fn damaged(path: &Path, what: &str) -> EngineError {
    EngineError::Damaged {
        message: format!(
            "{} {what}. Nothing was changed; {REPLACE_THE_NODE}",
            path.display()
        ),
    }
}

/// Less of the log is there than was synced.
pub(crate) fn log_is_short(db: &Path, synced_through: u64, readable_through: u64) -> EngineError {
    EngineError::Damaged {
        message: format!(
            "the log in {} was durable up to sequence {synced_through}, but could be read only up to {readable_through}, so it \
             was cut or damaged. Nothing of it was used; {REPLACE_THE_NODE}",
            db.display(),
        ),
    }
}

/// The file that a message of RocksDB's is about, or the whole store.
fn subject(db: &Path, said: &str) -> PathBuf {
    said.split(|c: char| c.is_whitespace() || ":;,#".contains(c))
        .filter_map(|word| word.rsplit('/').next())
        .find(|name| is_store_file(name))
        .map_or_else(|| db.to_owned(), |name| db.join(name))
}

fn is_store_file(name: &str) -> bool {
    let numbered = ["sst", "log"].iter().any(|extension| {
        name.strip_suffix(extension)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(is_number)
    });
    let named = ["MANIFEST-", "OPTIONS-"]
        .iter()
        .any(|word| name.strip_prefix(word).is_some_and(is_number));
    numbered || named || name == "CURRENT"
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// RocksDB wraps a failure in others and then repeats the first one's words; each is said once. What it adds about the
/// manifest, whichever file was damaged, is left out.
pub(crate) fn without_repetition(said: &str) -> String {
    let said = said.split("  The file ").next().unwrap_or(said);
    let mut parts: Vec<&str> = Vec::new();
    for part in said.split(": ").map(str::trim) {
        if !part.is_empty() && !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_in_what_rocksdb_says() {
        let db = Path::new("/data/db");
        for (said, file) in [
            (
                "Corruption: Can't access /000012.sst: IO error: No such file or directory",
                "/data/db/000012.sst",
            ),
            (
                "IO error: No such file or directory: While opening a file: /data/db/MANIFEST-000005: No such file or \
                 directory",
                "/data/db/MANIFEST-000005",
            ),
            (
                "Corruption: block checksum mismatch: stored = 1, computed = 2  in /x/000007.sst offset 0",
                "/data/db/000007.sst",
            ),
            ("Corruption: no idea", "/data/db"),
        ] {
            assert_eq!(subject(db, said), Path::new(file), "{said}");
        }
    }

    #[test]
    fn a_cause_is_said_once() {
        let said = "Corruption: IO error: No such file: While open: /x/000010.sst: No such file  The file \
                    /x/MANIFEST-000005 may be corrupted.";
        assert_eq!(
            without_repetition(said),
            "Corruption: IO error: No such file: While open: /x/000010.sst"
        );
    }
}
