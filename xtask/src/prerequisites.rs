//! What a build needs besides Rust: a C++ compiler for RocksDB, libclang with its headers for the bindings, and make for
//! jemalloc.
//!
//! On Debian and its relatives what is missing is installed, each command printed before it runs. Elsewhere the
//! packages are named and the command stops.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Failure, workspace};

/// Makes sure that RocksDB can be built, or says what to do.
pub(crate) fn ensure() -> Result<(), Failure> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    for (package, why) in &missing {
        println!("Missing: {package} ({why}).");
    }
    let packages: Vec<&str> = missing.iter().map(|(package, _)| *package).collect();
    let by_hand = format!(
        "install a C++ compiler, libclang with its headers and make, then run this again\n  \
         Debian, Ubuntu:  apt-get install {}\n  Fedora:          dnf install gcc-c++ clang-devel make\n  \
         Arch:            pacman -S gcc clang make\n  libclang elsewhere: set LIBCLANG_PATH to its directory",
        packages.join(" ")
    );
    install(&packages, &by_hand)?;
    if !self::missing().is_empty() {
        return Err(format!(
            "{} installed, but a C++ compiler, libclang or make is still not found",
            packages.join(", ")
        ));
    }
    Ok(())
}

/// The packages, as Debian calls them, that are not here, each with what it is for.
fn missing() -> Vec<(&'static str, &'static str)> {
    let mut missing = Vec::new();
    if !runs("c++") || !runs("cc") {
        missing.push(("g++", "RocksDB is written in C++"));
    }
    if !libclang_present() {
        missing.push((
            "libclang-dev",
            "RocksDB's Rust bindings are generated with libclang",
        ));
    }
    if !runs("make") {
        missing.push(("make", "jemalloc is built with it"));
    }
    missing
}

/// Installs packages where Debian's package manager can, or fails with `by_hand`.
pub(crate) fn install(packages: &[&str], by_hand: &str) -> Result<(), Failure> {
    if !Path::new("/etc/debian_version").exists() || !workspace::installed("apt-get") {
        return Err(by_hand.to_owned());
    }
    let prefix: &[&str] = if is_root() {
        &[]
    } else if workspace::installed("sudo") {
        &["sudo"]
    } else {
        return Err(by_hand.to_owned());
    };
    let mut install: Vec<&str> = vec!["apt-get", "install", "-y", "--no-install-recommends"];
    install.extend(packages);
    for step in [vec!["apt-get", "update"], install] {
        let line: Vec<&str> = prefix.iter().copied().chain(step).collect();
        println!("Running: {}", line.join(" "));
        let status = Command::new(line[0])
            .args(&line[1..])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status()
            .map_err(|why| format!("cannot run {}: {why}", line[0]))?;
        if !status.success() {
            return Err(format!("`{}` failed; {by_hand}", line.join(" ")));
        }
    }
    Ok(())
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
    })
}

fn runs(tool: &str) -> bool {
    Command::new(tool)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// libclang as bindgen looks for it, and the compiler headers (`stddef.h`) that come with it: the bare library
/// package lets the build start and then fail.
fn libclang_present() -> bool {
    let mut directories: Vec<PathBuf> = std::env::var_os("LIBCLANG_PATH")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    for fixed in [
        "/usr/lib",
        "/usr/lib64",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/local/lib",
    ] {
        directories.push(fixed.into());
    }
    let versions = children(Path::new("/usr/lib"))
        .into_iter()
        .filter(|dir| file_name(dir).starts_with("llvm"));
    directories.extend(versions.map(|dir| dir.join("lib")));
    let library = directories.iter().flat_map(|dir| children(dir)).any(|file| {
        let name = file_name(&file);
        // libclang-cpp is another library, with other symbols; some images have it alone.
        let versioned = name.starts_with("libclang-") && !name.starts_with("libclang-cpp");
        name.starts_with("libclang.so") || (versioned && name.contains(".so"))
    });
    let headers = directories
        .iter()
        .flat_map(|dir| children(&dir.join("clang")))
        .any(|version| version.join("include/stddef.h").exists());
    library && headers
}

fn children(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
