//! Outcomes for tests of what is made of them.

use std::collections::BTreeMap;

use holdfast_bench::{Distribution, Generator, Latency, Load, Measurement, Workload};

use crate::outcome::{LoadOutcome, OutageOutcome, Outcome, RestOutcome};
use crate::processes::{Occupied, Used};
use crate::report::Results;

/// What these outcomes add up to.
pub(crate) fn results(outcomes: impl IntoIterator<Item = Outcome>) -> Results {
    Results::of(outcomes)
}

/// A run without windows and errors.
pub(crate) fn measurement(
    store: &str,
    workload: Workload,
    clients: usize,
    throughput: f64,
    p99_us: u64,
) -> Measurement {
    Measurement {
        store: store.to_owned(),
        settings: BTreeMap::new(),
        workload,
        load: Load::Closed,
        clients,
        distribution: Distribution::Uniform,
        accounts: 20_000,
        record_bytes: 1_024,
        seed: 1,
        first_new: 1,
        warm_up_seconds: 1.0,
        seconds: 2.0,
        throughput,
        windows: Vec::new(),
        worst_window: Some((throughput / 2.0) as u64),
        minutes_p99_us: Vec::new(),
        all: Latency {
            p99_us,
            ..Latency::default()
        },
        operations: BTreeMap::new(),
        errors: 0,
        errors_by_class: BTreeMap::new(),
        conflicts: 0,
        never_begun: 0,
        longest_without_read_ms: None,
        longest_without_write_ms: None,
        generator: Generator {
            cpu_seconds: 1.0,
            cpu_us_per_operation: 10.0,
            threads: 1,
            late: None,
        },
    }
}

/// A load on 20,000 accounts, uniform.
pub(crate) fn load(store: &str, workload: Workload, clients: usize, throughput: f64, p99_us: u64) -> Outcome {
    Outcome::Load(Box::new(LoadOutcome {
        round: 1,
        share: None,
        nodes: 3,
        used: Used {
            cpu_seconds: 2.0,
            written_bytes: 6_144,
        },
        measurement: measurement(store, workload, clients, throughput, p99_us),
    }))
}

/// A time without a write.
pub(crate) fn outage(store: &str, silence_ms: u64) -> Outcome {
    let mut measurement = measurement(store, Workload::Create, 16, 100.0, 10);
    measurement.longest_without_write_ms = Some(silence_ms);
    Outcome::Outage(Box::new(OutageOutcome {
        round: 1,
        measurement,
    }))
}

/// Two nodes at rest, one a little larger.
pub(crate) fn rest(store: &str, accounts: u64, memory_bytes: u64, disk_bytes: u64) -> Outcome {
    let node = |more| Occupied {
        memory_bytes: memory_bytes + more,
        anonymous_bytes: 0,
        disk_bytes: disk_bytes + more,
    };
    Outcome::Rest(RestOutcome {
        round: 1,
        store: store.to_owned(),
        accounts,
        nodes: vec![node(0), node(0), node(1)],
    })
}
