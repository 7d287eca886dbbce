//! A node whose disk is slow: a library that is preloaded into it delays its syncs.
//!
//! What it cannot do is what a slow disk does besides: writes that wait for the device when memory for dirty pages runs out, and
//! reads. An engine that waits for its syncs, as this one does, meets the delay where it hurts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

/// From the repository.
const SOURCE: &str = include_str!("../../../benches/peers/slow_syncs.c");

/// Compiles the library into this directory.
pub(super) fn library(directory: &Path) -> Result<PathBuf, Failure> {
    let source = directory.join("slow_syncs.c");
    let library = directory.join("slow_syncs.so");
    fs::write(&source, SOURCE).map_err(|why| format!("cannot write {}: {why}", source.display()))?;
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(&source)
        .status()
        .map_err(|why| format!("cannot run the C compiler, cc: {why}"))?;
    if status.success() {
        Ok(library)
    } else {
        Err(format!("{} does not compile", source.display()))
    }
}
