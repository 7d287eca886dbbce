//! Sums over runs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::summary::Summary;

/// What many runs came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Runs.
    pub runs: u64,
    /// Real time, milliseconds; runs side by side count once.
    pub wall_ms: u64,
    /// Simulated time, milliseconds.
    pub simulated_ms: u64,
    /// Simulated time in which clients worked while faults happened, milliseconds.
    #[serde(default)]
    pub safety_ms: u64,
    /// Operations that clients began in that time.
    #[serde(default)]
    pub safety_operations: u64,
    /// The run in which they began the fewest a simulated second: its seed, and how many.
    #[serde(default)]
    pub idlest: Option<(u64, f64)>,
    /// The most memory that one run had, mebibytes.
    #[serde(default)]
    pub most_memory_mib: u64,
    /// The most tasks that were alive at once in one run.
    #[serde(default)]
    pub most_tasks: u64,
    /// The longest queue of one node in one run.
    #[serde(default)]
    pub longest_queue: u64,
    /// Operations by outcome.
    pub operations: BTreeMap<String, u64>,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Terms that had a leader.
    pub elections: u64,
    /// Questions answered by judges.
    pub checked: u64,
    /// Questions given up.
    pub undecided: u64,
    /// Marked branches and crash points.
    pub reached: BTreeMap<String, u64>,
    /// Runs with a violation.
    pub failed: Vec<u64>,
}

impl Totals {
    /// Adds a run.
    pub fn add(&mut self, run: &Summary) {
        self.runs += 1;
        self.simulated_ms += run.simulated_ms;
        self.safety_ms += run.safety_ms;
        self.safety_operations += run.safety_operations;
        if run.safety_ms > 0 {
            self.is_idler(run.seed, per_second(run.safety_operations, run.safety_ms));
        }
        self.most_memory_mib = self.most_memory_mib.max(run.most_memory_mib);
        self.most_tasks = self.most_tasks.max(run.most_tasks);
        self.longest_queue = self.longest_queue.max(run.longest_queue);
        self.elections += run.elections;
        self.checked += run.checked;
        self.undecided += run.undecided;
        add_counts(&mut self.operations, &run.operations);
        add_counts(&mut self.faults, &run.faults);
        add_counts(&mut self.reached, &run.reached);
        if !run.violations.is_empty() {
            self.failed.push(run.seed);
        }
    }

    /// Adds other sums.
    pub fn merge(&mut self, other: &Totals) {
        self.runs += other.runs;
        self.wall_ms += other.wall_ms;
        self.simulated_ms += other.simulated_ms;
        self.safety_ms += other.safety_ms;
        self.safety_operations += other.safety_operations;
        if let Some((seed, rate)) = other.idlest {
            self.is_idler(seed, rate);
        }
        self.most_memory_mib = self.most_memory_mib.max(other.most_memory_mib);
        self.most_tasks = self.most_tasks.max(other.most_tasks);
        self.longest_queue = self.longest_queue.max(other.longest_queue);
        self.elections += other.elections;
        self.checked += other.checked;
        self.undecided += other.undecided;
        add_counts(&mut self.operations, &other.operations);
        add_counts(&mut self.faults, &other.faults);
        add_counts(&mut self.reached, &other.reached);
        self.failed.extend(&other.failed);
    }

    fn is_idler(&mut self, seed: u64, rate: f64) {
        if self.idlest.is_none_or(|(_, least)| rate < least) {
            self.idlest = Some((seed, rate));
        }
    }

    /// Operations that clients began a simulated second of the safety phases.
    pub fn operations_per_second(&self) -> f64 {
        per_second(self.safety_operations, self.safety_ms)
    }

    /// Which part of what judges were asked they could not decide.
    pub fn undecided_share(&self) -> f64 {
        self.undecided as f64 / (self.checked + self.undecided).max(1) as f64
    }

    fn per_wall_minute(&self, count: u64) -> f64 {
        let minutes = Duration::from_millis(self.wall_ms).as_secs_f64() / 60.0;
        if minutes > 0.0 {
            count as f64 / minutes
        } else {
            0.0
        }
    }
}

fn per_second(count: u64, ms: u64) -> f64 {
    count as f64 * 1_000.0 / ms.max(1) as f64
}

fn add_counts(to: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>) {
    for (name, count) in from {
        *to.entry(name.clone()).or_default() += count;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations: u64 = self.operations.values().sum();
        let faults: u64 = self.faults.values().sum();
        let mut row = |name: &str, value: String| writeln!(f, "{name:>24}  {value}");
        row("runs", self.runs.to_string())?;
        row("wall minutes", format!("{:.1}", self.wall_ms as f64 / 60_000.0))?;
        row(
            "simulated hours",
            format!("{:.2}", self.simulated_ms as f64 / 3_600_000.0),
        )?;
        for (name, count) in [
            ("operations", operations),
            ("faults", faults),
            ("elections", self.elections),
        ] {
            row(
                name,
                format!("{count}, {:.0} a wall minute", self.per_wall_minute(count)),
            )?;
        }
        let (idlest, least) = self.idlest.unwrap_or_default();
        row(
            "operations a second",
            format!(
                "{:.0} in the safety phases; the fewest, {least:.0}, in seed {idlest}",
                self.operations_per_second()
            ),
        )?;
        row(
            "at most in one run",
            format!(
                "{} MiB, {} tasks, {} in a queue",
                self.most_memory_mib, self.most_tasks, self.longest_queue
            ),
        )?;
        for (outcome, count) in &self.operations {
            row(&format!("operations {outcome}"), count.to_string())?;
        }
        let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
        for (variety, count) in &self.faults {
            let kind = variety.split(' ').next().unwrap_or(variety);
            *kinds.entry(kind).or_default() += count;
        }
        for (kind, count) in kinds {
            row(&format!("fault {kind}"), count.to_string())?;
        }
        row("checks", self.checked.to_string())?;
        row(
            "undecided",
            format!("{} ({:.4} %)", self.undecided, self.undecided_share() * 100.0),
        )?;
        row("failed", format!("{} {:?}", self.failed.len(), self.failed))
    }
}
