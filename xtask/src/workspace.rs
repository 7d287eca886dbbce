//! Where things are, and how cargo is called.
//!
//! Every build of the repository goes through [`cargo`], so that `up`, `test` and a plain `cargo build` share one
//! target directory and one profile: RocksDB's C++ takes ten minutes and more for each.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

/// The directory that holds the workspace's `Cargo.toml`. What `cargo run` says counts: with a shared target
/// directory the program may have been built from another clone.
pub(crate) fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&package)
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// `cargo` in the workspace root, with ccache in front of the C++ compiler where it is installed.
///
/// ccache comes in through `PATH`, not through `CC`: cargo rebuilds RocksDB whenever `CC` differs from the last
/// build's, and a plain `cargo build` would not have it.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    if let Some(wrappers) = ccache_wrappers() {
        let old = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(wrappers).chain(std::env::split_paths(&old));
        if let Ok(joined) = std::env::join_paths(paths) {
            command.env("PATH", joined);
        }
    }
    // Set by `cargo run` for xtask itself; inherited, they would make cargo rebuild what depends on them.
    for name in [
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_PKG_NAME",
        "CARGO_PKG_VERSION",
    ] {
        command.env_remove(name);
    }
    command
}

/// The directory of compiler names that lead to ccache, in distributions that ship one.
fn ccache_wrappers() -> Option<PathBuf> {
    ["/usr/lib/ccache", "/usr/lib64/ccache"]
        .into_iter()
        .map(PathBuf::from)
        .find(|dir| dir.join("c++").exists())
}

/// Cargo's target directory, wherever the environment or a configuration file puts it.
pub(crate) fn target_dir() -> Result<PathBuf, Failure> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .output()
        .map_err(|why| format!("cannot run cargo: {why}"))?;
    if !output.status.success() {
        return Err(format!(
            "`cargo metadata` failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let marker = "\"target_directory\":\"";
    let start = text
        .find(marker)
        .ok_or("`cargo metadata` names no target directory")?
        + marker.len();
    let length = text[start..].find('"').ok_or("`cargo metadata` is cut short")?;
    Ok(PathBuf::from(&text[start..start + length]))
}

/// True when `name` can be run from here.
pub(crate) fn installed(name: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(name).is_file())
}

/// Builds the `holdfast` binary and says where it is.
pub(crate) fn build_holdfast() -> Result<PathBuf, Failure> {
    let target = target_dir()?;
    if !rocksdb_is_built(&target.join("debug")) {
        eprintln!(
            "First build: RocksDB is compiled from source, 10 to 15 minutes on two cores{}. Later builds take seconds.",
            if ccache_wrappers().is_some() {
                " (less when ccache has seen it)"
            } else {
                ""
            }
        );
    }
    let status = cargo()
        .args(["build", "--package", "holdfast-cli", "--bin", "holdfast"])
        .status()
        .map_err(|why| format!("cannot run cargo: {why}"))?;
    if !status.success() {
        return Err("the build failed; what cargo printed above says why".to_owned());
    }
    Ok(target.join("debug/holdfast"))
}

/// Runs the benchmarks; `args` go to criterion.
pub(crate) fn bench(args: &[String]) -> Result<(), Failure> {
    let status = cargo()
        .args(["bench", "--package", "holdfast-benches", "--"])
        .args(args)
        .status()
        .map_err(|why| format!("cannot run cargo: {why}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the benchmarks ended with {status}"))
    }
}

/// True when a finished RocksDB library lies in a profile's part of the target directory.
pub(crate) fn rocksdb_is_built(profile: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(profile.join("build")) else {
        return false;
    };
    entries.flatten().any(|entry| {
        entry.file_name().to_string_lossy().starts_with("librocksdb-sys-")
            && entry.path().join("out/librocksdb.a").exists()
    })
}
