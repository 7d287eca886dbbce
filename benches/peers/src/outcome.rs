//! One line of a results file: what one process measured.

use std::path::Path;

use holdfast_bench::{Measurement, Prepared, Workload};
use serde::{Deserialize, Serialize};

use crate::processes::{Occupied, Used};

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// A load.
    Load(Box<LoadOutcome>),
    /// The leader was killed under a load.
    Outage(Box<OutageOutcome>),
    /// A store was filled.
    Filled(FilledOutcome),
    /// Nothing happened.
    Rest(RestOutcome),
}

/// A load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadOutcome {
    /// Which of the rounds, from 1.
    pub(crate) round: u32,
    /// Of an open loop: the rate, as a percentage of what the closed one reached.
    pub(crate) share: Option<u32>,
    /// How many nodes were watched.
    pub(crate) nodes: usize,
    /// What they used in the measured time, together.
    pub(crate) used: Used,
    /// What the clients saw.
    pub(crate) measurement: Measurement,
}

/// A load around a failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OutageOutcome {
    /// Which of the rounds, from 1.
    pub(crate) round: u32,
    /// What the clients saw.
    pub(crate) measurement: Measurement,
}

/// The filling of a store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FilledOutcome {
    /// Which of the rounds, from 1.
    pub(crate) round: u32,
    /// Of what.
    pub(crate) store: String,
    /// Length of a payload, bytes.
    pub(crate) record_bytes: u32,
    /// How many nodes were watched.
    pub(crate) nodes: usize,
    /// What they used, together.
    pub(crate) used: Used,
    /// With what, and how quickly.
    pub(crate) prepared: Prepared,
}

/// Nodes at rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RestOutcome {
    /// Which of the rounds, from 1.
    pub(crate) round: u32,
    /// Of which store.
    pub(crate) store: String,
    /// About how many accounts it holds.
    pub(crate) accounts: u64,
    /// Each node.
    pub(crate) nodes: Vec<Occupied>,
}

impl LoadOutcome {
    /// One node's writes for each byte of payload; none of a workload that also reads, or if no node was watched.
    pub(crate) fn written_per_byte(&self) -> Option<f64> {
        let measurement = &self.measurement;
        let writes_only = matches!(
            measurement.workload,
            Workload::Create | Workload::Update | Workload::Import
        );
        let done = (measurement.throughput * measurement.seconds).max(1.0);
        let stored = done * measurement.record_bytes as f64;
        (writes_only && self.nodes > 0).then(|| self.used.written_bytes as f64 / self.nodes as f64 / stored)
    }
}

impl FilledOutcome {
    /// One node's writes for each byte of payload.
    pub(crate) fn written_per_byte(&self) -> f64 {
        let stored = self.prepared.prepared as f64 * f64::from(self.record_bytes);
        self.used.written_bytes as f64 / self.nodes.max(1) as f64 / stored
    }
}

impl Outcome {
    /// As one line.
    pub(crate) fn line(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|why| format!("cannot be written as JSON: {why}"))
    }

    /// All lines of a file.
    pub(crate) fn read(path: &Path) -> Result<Vec<Outcome>, String> {
        let text =
            std::fs::read_to_string(path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
        text.lines()
            .enumerate()
            .map(|(number, line)| {
                serde_json::from_str(line)
                    .map_err(|why| format!("{}, line {}: {why}", path.display(), number + 1))
            })
            .collect()
    }
}
