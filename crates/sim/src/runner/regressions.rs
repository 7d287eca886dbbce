//! Bugs that were found: each is a file in `regressions/` with its story and the whole configuration of a run that
//! failed before the fix.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Failure;
use crate::config::Configuration;

/// A stored run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// What was wrong, how it was seen, what fixed it.
    pub story: String,
    /// The run.
    pub configuration: Configuration,
}

impl Stored {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or is no stored run.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text =
            fs::read_to_string(path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
        toml::from_str(&text).map_err(|why| format!("{} is no stored run: {why}", path.display()))
    }

    /// Writes a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = toml::to_string_pretty(self).map_err(|why| why.to_string())?;
        fs::write(path, text).map_err(|why| format!("cannot write {}: {why}", path.display()))
    }
}

/// All of them, by name.
///
/// # Errors
/// If the directory cannot be read.
pub fn all() -> Result<Vec<PathBuf>, Failure> {
    let directory = directory();
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .map_err(|why| format!("cannot read {}: {why}", directory.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    Ok(files)
}

/// The file of the run with this name.
pub fn named(name: &str) -> PathBuf {
    directory().join(format!("{name}.toml"))
}

/// The name of the run in this file, if it is one of them.
pub fn name_of(path: &Path) -> Option<String> {
    let name = path.file_stem()?.to_str()?;
    (path.parent()? == directory()).then(|| name.to_owned())
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")
}
