//! What one run came to: the last line that its process prints, which whoever started it adds up.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::judges::Violation;

/// Marks the line.
pub const PREFIX: &str = "RESULT ";

/// One run in numbers, and what was wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// Where its configuration came from.
    pub scenario: String,
    /// A hash of the configuration: two runs with the same one are the same run.
    pub configuration: String,
    /// The command that runs it again.
    #[serde(default)]
    pub replay: String,
    /// Simulated time, milliseconds.
    pub simulated_ms: u64,
    /// How long clients worked while faults happened, simulated milliseconds.
    #[serde(default)]
    pub safety_ms: u64,
    /// Operations that clients began in that time.
    #[serde(default)]
    pub safety_operations: u64,
    /// Operations of clients, by outcome: `ok`, `not`, `unknown`.
    pub operations: BTreeMap<String, u64>,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<String, u64>,
    /// How many terms had a leader.
    pub elections: u64,
    /// Questions that the judges answered.
    pub checked: u64,
    /// Questions that they gave up.
    pub undecided: u64,
    /// Marked branches and crash points, and how often each was passed.
    pub reached: BTreeMap<String, u64>,
    /// The most tasks alive at once.
    pub most_tasks: u64,
    /// The longest queue of one node.
    #[serde(default)]
    pub longest_queue: u64,
    /// The most memory that the process had at once, mebibytes; whoever started it looked. Not part of what must be
    /// the same in every run of a seed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub most_memory_mib: u64,
    /// What must not be. Empty: the run passed.
    pub violations: Vec<Violation>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Summary {
    /// The line, without its end.
    ///
    /// # Errors
    /// Never, as far as is known: everything in it has a form in JSON.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        Ok(format!("{PREFIX}{}", serde_json::to_string(self)?))
    }

    /// Finds the line in what a run printed.
    pub fn find(output: &str) -> Option<Summary> {
        let line = output.lines().rev().find_map(|line| line.strip_prefix(PREFIX))?;
        serde_json::from_str(line).ok()
    }

    /// All operations.
    pub fn operation_count(&self) -> u64 {
        self.operations.values().sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} operations, {} faults, {} elections in {} simulated s; {} checks, {} undecided, {} violations",
            self.seed,
            self.operation_count(),
            self.faults.values().sum::<u64>(),
            self.elections,
            self.simulated_ms / 1000,
            self.checked,
            self.undecided,
            self.violations.len()
        )
    }
}
