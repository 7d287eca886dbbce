//! The workload on clusters that nothing happens to: enough is done, every kind of action succeeds, nobody hangs,
//! and no judge has anything to say.
#![cfg(madsim)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Instant;

use holdfast_sim::config::{Action, Configuration, Ending};
use holdfast_sim::draw::draw;
use holdfast_sim::runner::regressions::Stored;

/// Together these seeds draw every action.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=8;
const SAFETY_MS: u64 = 20_000;

/// What the seed draws, without its faults.
fn calm(seed: u64) -> Configuration {
    Configuration {
        scenario: "calm".into(),
        safety_ms: SAFETY_MS,
        faults: Vec::new(),
        founding: None,
        ending: Ending::Healed,
        ..draw(seed)
    }
}

/// Runs a configuration in a process of its own, as all runs are.
fn run(configuration: &Configuration) -> Output {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("calm-{}.toml", configuration.seed));
    let stored = Stored {
        story: "Nothing happens.".into(),
        configuration: configuration.clone(),
    };
    std::fs::write(&file, toml::to_string(&stored).unwrap()).unwrap();
    Command::new(env!("CARGO_BIN_EXE_holdfast-sim"))
        .args(["run", "--logs", "error", "--configuration"])
        .arg(&file)
        .output()
        .expect("the simulation's program starts")
}

/// The events of this name: when, and their facts by key.
fn events<'t>(trace: &'t str, name: &str) -> Vec<(u64, BTreeMap<&'t str, &'t str>)> {
    let event = |line: &'t str| {
        let mut words = line.split_whitespace();
        let at = words.next()?.parse().ok()?;
        (words.next()? == name).then(|| (at, words.filter_map(|word| word.split_once('=')).collect()))
    };
    trace.lines().filter_map(event).collect()
}

#[test]
fn a_healthy_cluster_is_kept_busy_with_everything() {
    let mut succeeded: BTreeMap<Action, u64> = BTreeMap::new();
    for seed in SEEDS {
        let configuration = calm(seed);
        let began = Instant::now();
        let output = run(&configuration);
        let wall = began.elapsed();
        let trace = String::from_utf8_lossy(&output.stdout);
        let tail: Vec<_> = trace.lines().rev().take(20).collect();
        assert!(
            output.status.success(),
            "seed {seed}: {}\n{}",
            tail.into_iter().rev().collect::<Vec<_>>().join("\n"),
            String::from_utf8_lossy(&output.stderr)
        );
        let prepared = events(&trace, "prepared")[0].0;
        let until = prepared + SAFETY_MS * 1_000_000;
        let calls = events(&trace, "call");
        let in_time = calls
            .iter()
            .filter(|(at, _)| (prepared..until).contains(at))
            .count();
        println!(
            "seed {seed}: {in_time} calls in {SAFETY_MS} ms, {} in all, {} ms of wall time",
            calls.len(),
            wall.as_millis()
        );
        assert!(
            in_time as u64 * 1_000 >= 30 * SAFETY_MS,
            "seed {seed}: {in_time} calls only: {:?}",
            configuration.workload
        );
        for (_, facts) in events(&trace, "action") {
            let action: Action = serde_json::from_str(facts["kind"]).unwrap();
            *succeeded.entry(action).or_default() += facts["done"].parse::<u64>().unwrap();
        }
    }
    println!("{succeeded:?}");
    assert!(
        succeeded.len() == 17 && succeeded.values().all(|times| *times > 0),
        "{succeeded:?}"
    );
}
