//! The simulated test that every change must pass: power cuts and a cut link under writes, judged at the end;
//! and the same seed gives the same trace twice, in two fresh processes with different surroundings.
#![cfg(madsim)]

use std::path::Path;
use std::process::{Command, Output};

fn run(seed: u64, directory: &Path, surroundings: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdfast-sim"))
        .args(["--seed", &seed.to_string(), "--logs", "info"])
        .current_dir(directory)
        .env("HOLDFAST_SIM_SURROUNDINGS", surroundings)
        .output()
        .expect("the simulation's program starts")
}

#[test]
fn acknowledged_writes_survive_and_one_seed_is_one_trace() {
    let here = std::env::current_dir().unwrap();
    for seed in [1, 2] {
        let first = run(seed, &here, "one");
        let text = String::from_utf8_lossy(&first.stdout);
        let tail: Vec<_> = text.lines().rev().take(30).collect();
        assert!(
            first.status.success(),
            "seed {seed} failed; replay with `cargo xtask sim --seed {seed}`\n{}\n{}",
            tail.into_iter().rev().collect::<Vec<_>>().join("\n"),
            String::from_utf8_lossy(&first.stderr)
        );
        let second = run(seed, &std::env::temp_dir(), "another, much longer than the first");
        let differs = first
            .stdout
            .split(|b| *b == b'\n')
            .zip(second.stdout.split(|b| *b == b'\n'))
            .find(|(a, b)| a != b);
        assert!(
            differs.is_none() && first.stdout == second.stdout,
            "seed {seed} gave two traces; they part at\n{:?}",
            differs.map(|(a, b)| (
                String::from_utf8_lossy(a).into_owned(),
                String::from_utf8_lossy(b).into_owned()
            ))
        );
        assert!(text.contains("cut_power") && text.contains("cut_link") && text.contains("restart"));
    }
}
