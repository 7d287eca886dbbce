//! The simulated test that every change must pass: power cuts and a cut link under writes, judged at the end;
//! and the same run gives the same trace twice, in two fresh processes with different surroundings.
#![cfg(madsim)]

use std::path::Path;
use std::process::{Command, Output};

/// The stored run that has been there from the first day.
const SCENARIO: &str = "power-cuts-under-writes";

fn run(directory: &Path, surroundings: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdfast-sim"))
        .args(["run", "--scenario", SCENARIO, "--logs", "info"])
        .current_dir(directory)
        .env("HOLDFAST_SIM_SURROUNDINGS", surroundings)
        .output()
        .expect("the simulation's program starts")
}

#[test]
fn acknowledged_writes_survive_and_one_seed_is_one_trace() {
    let first = run(&std::env::current_dir().unwrap(), "one");
    let text = String::from_utf8_lossy(&first.stdout);
    let tail: Vec<_> = text.lines().rev().take(30).collect();
    assert!(
        first.status.success(),
        "the run failed; replay it with `cargo xtask sim --scenario {SCENARIO}`\n{}\n{}",
        tail.into_iter().rev().collect::<Vec<_>>().join("\n"),
        String::from_utf8_lossy(&first.stderr)
    );
    let second = run(&std::env::temp_dir(), "another, much longer than the first");
    let second = String::from_utf8_lossy(&second.stdout);
    let parted = text.lines().zip(second.lines()).find(|(one, other)| one != other);
    assert!(
        parted.is_none() && text == second,
        "one run gave two traces; they part at\n{parted:?}"
    );
    for fault in ["cut-power", "partition", "blackout"] {
        assert!(
            text.contains(&format!("kind={fault}")),
            "the run had no {fault}: nothing was tested"
        );
    }
}
