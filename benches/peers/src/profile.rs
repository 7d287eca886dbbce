//! What `cargo xtask bench profile` sampled: what nodes spend their processor time on.
//!
//! `perf` looks some hundred times a second at which functions called which. Each sample goes to the first of [`PARTS`] that knows
//! its thread or one of its functions; what none knows is "the rest", so that a function that got another name shows there.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::outcome::{LoadOutcome, Outcome};
use crate::page::PageArgs;
use crate::table::{markdown, thousands};

/// A line: one workload.
#[derive(Debug, Deserialize)]
struct ProfileLine {
    /// The leader's process.
    leader: u32,
    /// What `perf script` printed: a file.
    stacks: PathBuf,
    outcome: Outcome,
}

/// One part of the work, and how its samples are known: by their thread's name and their functions, innermost first.
struct Part {
    name: &'static str,
    has: fn(thread: &str, stack: &Stack) -> bool,
}

/// The functions of one sample, a line each.
struct Stack(String);

impl Stack {
    fn mentions(&self, function: &str) -> bool {
        self.0.contains(function)
    }

    fn mentions_any(&self, functions: &[&str]) -> bool {
        functions.iter().any(|function| self.mentions(function))
    }
}

/// In the order in which they are asked: inner work before the handler that waits for it.
const PARTS: &[Part] = &[
    Part {
        name: "compaction",
        has: |thread, _| thread.starts_with("rocksdb:low"),
    },
    Part {
        name: "flushes",
        has: |thread, _| thread.starts_with("rocksdb:high"),
    },
    Part {
        name: "applying: RocksDB's log and memory tables",
        has: |_, stack| stack.mentions("apply_batch") && stack.mentions("write_through"),
    },
    Part {
        name: "applying: guards, staging, digest",
        has: |_, stack| stack.mentions("apply_batch"),
    },
    Part {
        name: "the log writer and its syncs",
        has: |_, stack| stack.mentions_any(&["log_writer", "SyncWAL", "FlushWAL"]),
    },
    Part {
        name: "evaluation: reading rows",
        has: |_, stack| stack.mentions("driver::evaluate") && stack.mentions_any(&["rocksdb", "hot_rows"]),
    },
    Part {
        name: "evaluation: the rules",
        has: |_, stack| stack.mentions("driver::evaluate"),
    },
    Part {
        name: "latches, encoding the plan, proposing",
        has: |_, stack| stack.mentions_any(&["driver::attempts", "driver::run", "driver::propose"]),
    },
    Part {
        name: "Raft: the rounds for readers",
        has: |_, stack| {
            stack.mentions_any(&[
                "barrier::",
                "leader_rounds::",
                "consensus::lane",
                "confirm_leader",
                "answer_read_index",
            ])
        },
    },
    Part {
        name: "handler: reading rows",
        has: |_, stack| stack.mentions("AccountService") && stack.mentions_any(&["rocksdb", "hot_rows"]),
    },
    Part {
        name: "handler: decode, convert, encode",
        has: |_, stack| stack.mentions("AccountService"),
    },
    Part {
        name: "Raft: replication, elections",
        has: |_, stack| {
            stack.mentions_any(&[
                "RaftCore",
                "openraft::",
                "peer_service",
                "PeerService",
                "consensus::network",
            ])
        },
    },
    Part {
        name: "HTTP/2 and gRPC",
        has: |_, stack| stack.mentions_any(&["h2::", "hyper", "tonic::", "gathered"]),
    },
    Part {
        name: "waiting for work",
        has: |_, stack| stack.mentions_any(&["Parker::park", "Context::park", "epoll_wait", "futex_wait"]),
    },
];

/// What no part knows.
const REST: &str = "the rest";
/// With more of it something is wrong.
const REST_MAX: f64 = 0.3;

/// Samples of one part.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Samples {
    all: u64,
    /// Of these, the leader's.
    leader: u64,
}

/// Writes the tables, and prints them.
pub(crate) fn run(args: &PageArgs) -> Result<(), String> {
    let mut text = String::new();
    for line in args.lines()?.lines() {
        let line: ProfileLine =
            serde_json::from_str(line).map_err(|why| format!("a line is no profile: {why}"))?;
        let Outcome::Load(load) = &line.outcome else {
            return Err("a profile has no load".to_owned());
        };
        let samples = sampled(&line.stacks, line.leader)?;
        text.push_str(&table(load, &samples)?);
    }
    text.push_str(
        "Both percentages are of all that the three nodes did. perf's own work, which copies stacks, is in it: an operation costs \
         less when nobody looks.\n",
    );
    args.write("profile.md", &text)
}

fn sampled(path: &Path, leader: u32) -> Result<BTreeMap<&'static str, Samples>, String> {
    let problem = |why: std::io::Error| format!("cannot read {}: {why}", path.display());
    count(BufReader::new(fs::File::open(path).map_err(problem)?), leader).map_err(problem)
}

/// Samples by part, from what `perf script --fields comm,pid,ip,sym` prints: for each sample a line with its thread's name and
/// process, then a line for each function with its address, then an empty one. A function that nobody called is on the first
/// line.
fn count(text: impl BufRead, leader: u32) -> std::io::Result<BTreeMap<&'static str, Samples>> {
    let mut counts = BTreeMap::<&'static str, Samples>::new();
    let mut head: Option<(String, bool)> = None;
    let mut stack = Stack(String::new());
    // One empty line more ends the last sample.
    for line in text.lines().chain([Ok(String::new())]) {
        let line = line?;
        let line = line.trim();
        match (&head, line.is_empty()) {
            (None, true) => {}
            (None, false) => {
                let (thread, process, function) = first_line(line);
                head = Some((thread, process == Some(leader)));
                stack.0.push_str(&function);
                stack.0.push('\n');
            }
            (Some(_), false) => {
                let function = line.split_once(' ').map_or(line, |(_, function)| function);
                stack.0.push_str(function);
                stack.0.push('\n');
            }
            (Some((thread, leads)), true) => {
                let part = PARTS.iter().find(|part| (part.has)(thread, &stack));
                let samples = counts.entry(part.map_or(REST, |part| part.name)).or_default();
                samples.all += 1;
                samples.leader += u64::from(*leads);
                head = None;
                stack.0.clear();
            }
        }
    }
    Ok(counts)
}

/// Thread, process and what follows.
fn first_line(line: &str) -> (String, Option<u32>, String) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let place = words.iter().skip(1).position(|word| word.parse::<u32>().is_ok());
    match place {
        Some(place) => {
            let place = place + 1;
            (
                words[..place].join(" "),
                words[place].parse().ok(),
                words[place + 1..].join(" "),
            )
        }
        None => (line.to_owned(), None, String::new()),
    }
}

fn table(load: &LoadOutcome, samples: &BTreeMap<&'static str, Samples>) -> Result<String, String> {
    let measurement = &load.measurement;
    let workload = measurement.workload.name();
    let total: u64 = samples.values().map(|samples| samples.all).sum();
    if total == 0 {
        return Err(format!("perf saw nothing of {workload}"));
    }
    let done = (measurement.throughput * measurement.seconds).max(1.0);
    let cost_us = load.used.cpu_seconds * 1e6 / done;
    let share = |samples: u64| samples as f64 / total as f64;
    let mut parts: Vec<_> = samples.iter().collect();
    parts.sort_by_key(|(name, samples)| (**name == REST, std::cmp::Reverse(samples.all)));
    let row = |name: &str, samples: Samples| {
        vec![
            name.to_owned(),
            format!("{:.1}", share(samples.all) * 100.0),
            format!("{:.1}", share(samples.leader) * 100.0),
            format!("{:.1}", share(samples.all) * cost_us),
        ]
    };
    let mut rows: Vec<_> = parts.iter().map(|(name, samples)| row(name, **samples)).collect();
    rows.push(row(
        "together",
        Samples {
            all: total,
            leader: samples.values().map(|samples| samples.leader).sum(),
        },
    ));
    let rest = samples.get(REST).copied().unwrap_or_default();
    let doubt = if share(rest.all) > REST_MAX {
        "No part is known of much of it: does the program have its functions' names?\n\n"
    } else {
        ""
    };
    Ok(format!(
        "## {workload}, {} clients\n\n{} a second while perf looked, {} samples.\n\n{doubt}{}\n",
        measurement.clients,
        thousands(measurement.throughput),
        thousands(total as f64),
        markdown(&["part", "%", "in the leader, %", "us an operation"], &rows)
    ))
}

#[cfg(test)]
mod tests {
    use holdfast_bench::Workload;

    use super::*;
    use crate::testing;

    const SAMPLES: &str = "\
rocksdb:low 12
\t  aa rocksdb::CompactionJob::Run
\t  ab start_thread

holdfast 12
\t  10 memcpy (inlined)
\t  11 holdfast_storage_rocksdb::engine::write_through
\t  12 holdfast_consensus::apply::Machine::apply_batch

holdfast 13
\t  20 h2::proto::connection::Connection<T,P,B>::poll
\t  21 <holdfast_api::AccountServiceServer<T> as tower_service::Service>::call

holdfast 13   30 something new

rocksdb:high 12
\t  40 start_thread
";

    #[test]
    fn samples_go_to_the_part_that_knows_them() {
        let counts = count(SAMPLES.as_bytes(), 12).expect("it is text");
        let found = |name| counts.get(name).map(|samples| (samples.all, samples.leader));
        assert_eq!(found("compaction"), Some((1, 1)));
        assert_eq!(found("applying: RocksDB's log and memory tables"), Some((1, 1)));
        assert_eq!(found("handler: decode, convert, encode"), Some((1, 0)));
        assert_eq!(found("flushes"), Some((1, 1)));
        assert_eq!(found(REST), Some((1, 0)));
        assert_eq!(counts.len(), 5);
    }

    #[test]
    fn shares_add_up_to_what_an_operation_costs() {
        let counts = count(SAMPLES.as_bytes(), 12).expect("it is text");
        let Outcome::Load(load) = testing::load("holdfast", Workload::Create, 64, 5_000.0, 1) else {
            panic!("not a load")
        };
        let text = table(&load, &counts).expect("there are samples");
        assert!(text.starts_with("## create, 64 clients\n\n5,000 a second while perf looked, 5 samples."));
        // Two seconds of processor time for 10,000 operations.
        let last = text.lines().rfind(|line| line.starts_with('|')).expect("a table");
        let cells: Vec<_> = last.split('|').map(str::trim).collect();
        assert_eq!(cells[1..5], ["together", "100.0", "60.0", "200.0"]);
        assert!(table(&load, &BTreeMap::new()).is_err());
    }
}
