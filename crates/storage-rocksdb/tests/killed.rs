//! Processes killed under write load, for real: SIGKILL at random moments, at named places, and at one call after another.
//!
//! The child reports on a pipe (`support/load.rs`). After its death the parent opens copies of the directory, one as it was left
//! and others as a power failure at that moment would have left it (`support/child.rs`), and compares with the model: all that
//! was reported is there, and what is there is a prefix of what was written. The next child goes on in the same directory.
#![cfg(all(target_os = "linux", not(madsim)))]
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_storage::choices::SplitMix64;
use support::child::{FaultyLibc, Stored, was_killed};

/// The process of all tests below; on its own it does nothing.
#[test]
fn child() {
    support::load::child();
}

/// The process of `in_the_flush_around_an_ingest`.
#[test]
fn child_that_ingests() {
    support::load::child_that_ingests();
}

/// A new seed for each run, or the one in `HOLDFAST_TEST_SEED`; shown when a test fails.
fn seed() -> u64 {
    let given = std::env::var("HOLDFAST_TEST_SEED").map(|seed| seed.parse().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = given.unwrap_or(now.as_nanos() as u64);
    println!("HOLDFAST_TEST_SEED={seed}");
    seed
}

#[test]
fn at_random_moments() {
    let libc = FaultyLibc::build();
    let seed = seed();
    let mut random = SplitMix64::new(seed);
    for _ in 0..3 {
        let mut stored = Stored::on_disk();
        stored.note(format!("HOLDFAST_TEST_SEED={seed}"));
        for round in 0..8 {
            let mut child = stored.start(&libc, None);
            let patience = Duration::from_millis(random.below(300));
            // Every other one maybe before it has opened the store, the others at work.
            let (status, reported) = if round % 2 == 0 {
                std::thread::sleep(patience);
                child.kill().unwrap();
                stored.wait(child)
            } else {
                let mut found = None;
                stored.listen(child, |child, reported| {
                    if reported.found.is_some()
                        && found.get_or_insert_with(Instant::now).elapsed() >= patience
                    {
                        child.kill().unwrap();
                    }
                })
            };
            assert!(was_killed(status), "round {round}: {status}, {reported:?}");
            stored.check();
            stored.lose_power(random.next_u64());
            stored.check_checkpoints(&reported);
        }
        assert!(stored.safe_batches() > 0, "no load at all");
    }
}

/// Places where a kill would hurt most, as faults (see `faulty_libc.c`), and how often each comes by before the kill.
const PLACES: [(&str, &str, &[u64]); 16] = [
    (
        "a batch is half written to the log",
        "write */data/db/*.log N tear",
        &[7, 60],
    ),
    ("written, not synced", "sync */data/db/*.log N kill", &[2, 25]),
    (
        "synced, the mark not written",
        "write */data/synced N kill",
        &[5, 30],
    ),
    ("the mark is half written", "write */data/synced N tear", &[5, 30]),
    (
        "the mark is written, not synced",
        "sync */data/synced N kill",
        &[3],
    ),
    (
        "flush: a table is half written",
        "write */data/db/*.sst N tear",
        &[1, 3],
    ),
    (
        "flush: a table is not synced",
        "sync */data/db/*.sst N kill",
        &[1, 3],
    ),
    (
        "the manifest is half written",
        "write */data/db/MANIFEST-* N tear",
        &[40, 60],
    ),
    (
        "the manifest is not synced",
        "sync */data/db/MANIFEST-* N kill",
        &[20, 30],
    ),
    (
        "ingest: a table is half written",
        "write */data/ingest/*.sst N tear",
        &[1, 4],
    ),
    (
        "ingest: the tables are not linked",
        "name */data/ingest/*.sst N kill",
        &[1, 2, 5],
    ),
    (
        "ingest: a table is linked",
        "name */data/ingest/*.sst N kill-after",
        &[2, 3, 5],
    ),
    ("checkpoint: begun", "any */copies/* N kill", &[1, 4]),
    ("checkpoint: nearly done", "any */copies/* N kill", &[12, 20]),
    ("checkpoint: laid out", "name */copies/*/FORMAT* N kill", &[1, 3]),
    (
        "checkpoint: done, not returned",
        "name */copies/*/FORMAT* N kill-after",
        &[1, 2],
    ),
];

#[test]
fn at_named_places() {
    let libc = FaultyLibc::build();
    let seed = seed();
    for (place, fault, numbers) in PLACES {
        for number in numbers {
            let mut stored = Stored::in_memory();
            stored.note(format!("HOLDFAST_TEST_SEED={seed}, {place}"));
            let fault = fault.replace(" N ", &format!(" {number} "));
            let (status, reported) = stored.wait(stored.start(&libc, Some(&fault)));
            assert!(
                was_killed(status),
                "{place}: {fault} was not reached: {reported:?}"
            );
            if let Some((doing, _)) = place.split_once(':') {
                assert!(
                    reported.doing.contains(doing),
                    "{place}: {fault} hit {:?}",
                    reported.doing
                );
            }
            println!(
                "{place}: {fault}, {} synced, {:?}",
                reported.synced, reported.doing
            );
            stored.check();
            for at in 0..3 {
                stored.lose_power(seed + at);
            }
            stored.check_checkpoints(&reported);
        }
    }
}

/// An ingest takes sequence numbers that are in no log. RocksDB reads a recycled log up to the old bytes behind its own, takes
/// those for damage, and goes on to the next log only if that follows without a gap: so between two logs that both still
/// count there may be none, or all of the later one is dropped.
///
/// The process dies in each of the flushes around the ingests, slowly, while more is written. A log that is done with is cut to its
/// length when it has been synced, before the next one's sync can return, so the death of a process costs no more than what was
/// not synced. But nobody syncs the cut: a power failure may take it back, and then what was synced would be lost.
#[test]
fn in_the_flush_around_an_ingest() {
    let libc = FaultyLibc::build();
    let mut synced = 0;
    for (calls, numbers, cut) in [
        ("sync */data/db/*.log", 13..36, true),
        ("sync */data/db/*.sst", 28..47, false),
    ] {
        for number in numbers {
            let mut stored = Stored::in_memory();
            let fault = format!("{calls} {number} late");
            let mut command = stored.command(&libc, Some(&fault));
            if !cut {
                command.env("HOLDFAST_FAULT_UNCUT", "*/data/db/*.log");
            }
            let child = stored.spawn_test("child_that_ingests", command);
            let (status, reported) = stored.wait(child);
            assert!(
                was_killed(status),
                "{fault} was not reached: {status}, {reported:?}"
            );
            stored.check();
            stored.lose_power(number);
            synced += stored.safe_batches();
        }
    }
    assert!(synced > 0, "no load at all");
}

/// From the first call that a new directory sees, through its first start, to a store at work: one by one at first, then in steps
/// that grow; in between anywhere. Every second directory is new, the others have been killed before.
#[test]
fn at_one_call_after_another() {
    let libc = FaultyLibc::build();
    let seed = seed();
    let mut random = SplitMix64::new(seed);
    let started = Instant::now();
    let mut hit: BTreeMap<String, usize> = BTreeMap::new();
    let mut next = 1;
    while started.elapsed() < Duration::from_secs(25) {
        let mut stored = Stored::in_memory();
        stored.note(format!("HOLDFAST_TEST_SEED={seed}"));
        for call in [next, 1 + random.below(3000)] {
            let action = ["kill", "kill-after", "tear", "late"][random.below(4) as usize];
            let fault = format!("any */data/* {call} {action}");
            let (status, reported) = stored.wait(stored.start(&libc, Some(&fault)));
            assert!(
                was_killed(status),
                "{fault} was not reached: {status}, {reported:?}"
            );
            let doing = reported.doing.into_iter().next();
            *hit.entry(doing.unwrap_or("nothing else".into())).or_default() += 1;
            stored.check();
            stored.lose_power(random.next_u64());
        }
        next += 1 + random.below(1 + next / 20);
    }
    println!("up to call {next}, kills during {hit:?}");
    assert!(
        hit.contains_key("open") && hit.len() > 1,
        "kills during {hit:?} only"
    );
}
