//! Failed writes and syncs. One call of a child process fails, with later ones on the same file doing well: what a system does
//! after it has dropped the pages that it could not write. From then on the engine must not report success for anything, and
//! what had been reported must be there again, also if the power fails too.
//!
//! The calls fail by a library of our own (`support/faulty_libc.c`), which can name the file and the call; and once more by
//! libfiu (<https://blitiri.com.ar/p/libfiu/>), somebody else's, which fails all files' syncs at any moment. Where `fiu-run` is
//! not installed, that test says so and passes.
#![cfg(all(target_os = "linux", not(madsim)))]
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

mod support;

use std::collections::BTreeSet;
use std::process::{Command, ExitStatus};

use support::child::{FaultyLibc, Reported, Stored};
use support::load::FATAL;

/// The process of all tests below; on its own it does nothing.
#[test]
fn child() {
    support::load::child();
}

/// What fails, and what the engine says about it.
const FAULTS: [(&str, &str); 16] = [
    ("sync */data/db/*.log 1 EIO", "Input/output error"),
    ("sync */data/db/*.log 20 EIO", "Input/output error"),
    ("sync */data/db/*.log 20 ENOSPC", "No space left"),
    ("write */data/db/*.log 20 EIO", "Input/output error"),
    ("write */data/db/*.log 40 ENOSPC", "No space left"),
    ("write */data/db/*.log 40 full", "No space left"),
    ("write */data/synced 6 EIO", "writing the synced-through mark"),
    ("sync */data/synced 3 EIO", "syncing the synced-through mark"),
    ("sync */data/synced 4 EIO", "syncing the synced-through mark"),
    ("write */data/db/*.sst 2 EIO", "Input/output error"),
    ("write */data/db/*.sst 2 full", "No space left"),
    ("sync */data/db/*.sst 2 EIO", "Input/output error"),
    ("sync */data/db/MANIFEST-* 20 EIO", "Input/output error"),
    ("write */data/db/MANIFEST-* 40 ENOSPC", "No space left"),
    (
        "write */data/ingest/*.sst 1 EIO",
        "building a table to ingest failed",
    ),
    (
        "sync */data/ingest/*.sst 2 EIO",
        "building a table to ingest failed",
    ),
];

#[test]
fn a_failed_call_is_the_last() {
    let libc = FaultyLibc::build();
    for (fault, message) in FAULTS {
        let mut stored = Stored::in_memory();
        let (status, reported) = stored.wait(stored.start(&libc, Some(fault)));
        println!("{fault}: {} synced, {:?}", reported.synced, reported.failed);
        assert_stopped(fault, status, &reported);
        let says = reported.failed.iter().any(|failure| failure.contains(message));
        assert!(says, "{fault}: {:?}", reported.failed);
        check(&stored);
    }
}

/// RocksDB takes a table that it could not ingest out of the store again, although the manifest may name it by now: found by
/// `syncs_fail_under_libfiu`. Each ingest syncs the manifest once, among others who do.
#[test]
fn a_failed_ingest() {
    let libc = FaultyLibc::build();
    let mut ingests = 0;
    for n in 20..=27 {
        let fault = format!("sync */data/db/MANIFEST-* {n} EIO");
        let mut stored = Stored::in_memory();
        let (status, reported) = stored.wait(stored.start(&libc, Some(&fault)));
        assert_stopped(&fault, status, &reported);
        ingests += usize::from(
            reported
                .failed
                .iter()
                .any(|failure| failure.starts_with("ingest failed")),
        );
        check(&stored);
    }
    println!("{ingests} ingests failed");
    assert!(ingests > 0);
}

/// A start that fails has not started; the next one, on a disk that is well again, finds everything.
#[test]
fn a_start_that_fails() {
    let libc = FaultyLibc::build();
    let mut stored = Stored::in_memory();
    let (status, reported) = stored.wait(stored.start(&libc, Some("sync */data/db/*.log 30 EIO")));
    assert_stopped("the first run", status, &reported);
    for fault in [
        "sync */data/db/MANIFEST-* 1 EIO",
        "write */data/db/MANIFEST-* 1 ENOSPC",
        "sync */data/db/*.sst 1 EIO",
        "write */data/db/*.sst 1 full",
        "sync */data/db/*.log 1 EIO",
        "write */data/synced 1 EIO",
        "sync */data/synced 1 EIO",
    ] {
        let (status, reported) = stored.wait(stored.start(&libc, Some(fault)));
        println!("{fault}: {:?}", reported.failed);
        assert_eq!(status.code(), Some(FATAL), "{fault}: {reported:?}");
        check(&stored);
    }
}

/// libfiu fails every sync of the process from some moment on, which is chosen while it runs.
#[test]
fn syncs_fail_under_libfiu() {
    if Command::new("fiu-run").arg("-h").output().is_err() {
        support::skip(
            "syncs_fail_under_libfiu",
            "fiu-run is not installed (Debian: fiu-utils)",
        );
        return;
    }
    for point in ["posix/io/sync/fdatasync", "posix/io/sync/*", "posix/io/rw/pwrite"] {
        let mut stored = Stored::in_memory();
        let pipes = tempfile::tempdir().unwrap();
        let control = pipes.path().join("fiu");
        let mut command = Command::new("fiu-run");
        command.arg("-x").arg("-f").arg(&control);
        command.arg(std::env::current_exe().unwrap());
        let mut told = false;
        let (status, reported) = stored.listen(stored.spawn(command), |child, reported| {
            if reported.synced >= 100 && !told {
                let status = Command::new("fiu-ctrl")
                    .arg("-f")
                    .arg(&control)
                    .args(["-c", &format!("enable name={point},failinfo=5")])
                    .arg(child.id().to_string())
                    .status();
                assert!(status.unwrap().success());
                told = true;
            }
        });
        println!("{point}: {} synced, {:?}", reported.synced, reported.failed);
        assert_stopped(point, status, &reported);
        stored.check();
    }
}

/// The engine failed once, and everything after that; the process ended by its own decision.
fn assert_stopped(fault: &str, status: ExitStatus, reported: &Reported) {
    assert_eq!(status.code(), Some(FATAL), "{fault}: {reported:?}");
    assert_eq!(reported.lies, [""; 0], "{fault}");
    let all = ["sync", "write", "flush", "ingest", "checkpoint", "read"];
    assert_eq!(
        reported.refused,
        BTreeSet::from(all.map(str::to_owned)),
        "{fault}"
    );
}

/// On a disk that is well again, all that was reported is there.
fn check(stored: &Stored) {
    stored.check();
    for seed in 0..3 {
        stored.lose_power(seed);
    }
}
