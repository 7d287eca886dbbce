//! What a run found, for programs (JSON) and for people (a table).

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::plan::Load;
use crate::target::Class;
use crate::workload::{Distribution, Workload};

/// One run. Its JSON is what `--output json` prints, and what the comparison with other stores reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Which store.
    pub store: String,
    /// How it was reached, as its driver says.
    pub settings: BTreeMap<String, String>,
    /// What clients did.
    pub workload: Workload,
    /// When they began.
    pub load: Load,
    /// How many there were.
    pub clients: usize,
    /// Which accounts they asked for.
    pub distribution: Distribution,
    /// Of how many.
    pub accounts: u64,
    /// The length of a payload, bytes.
    pub record_bytes: usize,
    /// Of the population.
    pub seed: u32,
    /// The number of the first account that the run created, if it did.
    pub first_new: u64,
    /// How long the load ran before it was measured.
    pub warm_up_seconds: f64,
    /// How long it was measured.
    pub seconds: f64,
    /// Successful operations a second that ended within the measured time; accounts, of an import; sign-ups, of a
    /// sign-up storm.
    pub throughput: f64,
    /// The same second by second.
    pub windows: Vec<Window>,
    /// The least that was done in a whole second; none if the measured time was shorter than one.
    pub worst_window: Option<u64>,
    /// Of each whole minute: 99 of 100 that ended in it were quicker, microseconds, to 3 %.
    #[serde(default)]
    pub minutes_p99_us: Vec<u64>,
    /// Latencies of whole operations, successful or not.
    pub all: Latency,
    /// Latencies by operation; a sign-up's parts are listed beside it.
    pub operations: BTreeMap<String, Latency>,
    /// Operations without success.
    pub errors: u64,
    /// The same by class.
    pub errors_by_class: BTreeMap<Class, Errors>,
    /// Updates that found another version and were made again, within one operation.
    pub conflicts: u64,
    /// Operations that were due in an open loop, and still waited for a free client at the end.
    pub never_begun: u64,
    /// The longest time without a successful read, milliseconds; none if there was no read.
    pub longest_without_read_ms: Option<u64>,
    /// The longest time without a successful write, milliseconds; none if there was no write.
    pub longest_without_write_ms: Option<u64>,
    /// What the generator itself cost.
    pub generator: Generator,
}

/// One second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Successful operations that ended in it (of an import: accounts).
    pub done: u64,
    /// Others that did.
    pub errors: u64,
    /// The longest of all these, microseconds.
    pub slowest_us: u64,
    /// 99 of 100 of these were quicker, microseconds, to 3 %.
    #[serde(default)]
    pub p99_us: u64,
}

/// A distribution of latencies, exact to 0.1 %.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// Their mean, microseconds.
    pub mean_us: f64,
    /// Half were quicker, microseconds.
    pub p50_us: u64,
    /// 95 of 100 were.
    pub p95_us: u64,
    /// 99 of 100 were.
    pub p99_us: u64,
    /// 999 of 1000 were.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// Failures of one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// How many.
    pub count: u64,
    /// What one of them said.
    pub first: String,
}

/// What the generator itself cost, to judge whether it was in the way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Processor time of this process in the measured time, seconds: generator, client library and its share of the
    /// network stack.
    pub cpu_seconds: f64,
    /// The same for each successful operation (of an import: account), microseconds.
    pub cpu_us_per_operation: f64,
    /// Threads that ran the clients. Where the processor time comes near them times the seconds, the result is about the
    /// generator and not about the store.
    pub threads: usize,
    /// How late operations of an open loop began though a client was free; they count from when they were due.
    pub late: Option<Latency>,
}

/// A filled store.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Prepared {
    /// Accounts that are there now.
    pub prepared: u64,
    /// How long it took.
    pub seconds: f64,
}

/// A generator as busy as this has operations waiting for it.
const BUSY_MAX: f64 = 0.9;

impl Measurement {
    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let load = match self.load {
            Load::Closed => "as fast as they are answered".to_owned(),
            Load::Open { per_second } => format!("{per_second} a second"),
        };
        let which = match self.distribution {
            Distribution::Uniform => "uniform",
            Distribution::Zipf => "Zipf 0.99",
        };
        let mut line = |entry: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = text.write_fmt(entry);
            text.push('\n');
        };
        line(format_args!(
            "{}: {}, {} clients, {load}; {} accounts of {} bytes, {which}; {} s after {} s of warm-up",
            self.store,
            self.workload.name(),
            self.clients,
            self.accounts,
            self.record_bytes,
            self.seconds,
            self.warm_up_seconds,
        ));
        let worst = self
            .worst_window
            .map_or_else(String::new, |worst| format!(" (worst second {worst})"));
        line(format_args!(
            "{:.0} a second{worst}, {} errors, {} conflicts, {} never begun",
            self.throughput, self.errors, self.conflicts, self.never_begun
        ));
        let busy = self.generator.cpu_seconds / (self.seconds * self.generator.threads as f64);
        line(format_args!(
            "generator: {:.1} us of processor an operation, {:.0} % of its {} threads{}",
            self.generator.cpu_us_per_operation,
            100.0 * busy,
            self.generator.threads,
            if busy > BUSY_MAX {
                ": it was the limit, give it more"
            } else {
                ""
            }
        ));
        for (what, silence) in [
            ("read", self.longest_without_read_ms),
            ("write", self.longest_without_write_ms),
        ] {
            if let Some(silence) = silence {
                line(format_args!("longest time without a {what}: {silence} ms"));
            }
        }
        line(format_args!(""));
        line(format_args!(
            "{:<14}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "us", "count", "mean", "p50", "p95", "p99", "p99.9", "max"
        ));
        let late = self.generator.late.map(|late| ("begun late".to_owned(), late));
        let operations = self
            .operations
            .iter()
            .map(|(name, latency)| (name.clone(), *latency));
        for (name, latency) in operations.chain([("all".to_owned(), self.all)]).chain(late) {
            line(format_args!(
                "{name:<14}{:>10}{:>10.0}{:>10}{:>10}{:>10}{:>10}{:>10}",
                latency.count,
                latency.mean_us,
                latency.p50_us,
                latency.p95_us,
                latency.p99_us,
                latency.p999_us,
                latency.max_us
            ));
        }
        for (class, errors) in &self.errors_by_class {
            line(format_args!(
                "error: {} x {class}, as in: {}",
                errors.count, errors.first
            ));
        }
        text
    }
}
