//! From the lines of a results file to tables: medians over the rounds, and how far apart the rounds were.
//!
//! Latencies in the tables are medians of the rounds' percentiles. The maximum is the greatest and the worst second the
//! least of all rounds; errors are added up.

use std::fmt::{self, Write};
use std::fs;
use std::path::PathBuf;

use clap::Args;
use holdfast_bench::{Distribution, Latency, Load, Workload};
use serde::Serialize;

use crate::margins::{self, Judgement, Verdict};
use crate::outcome::{LoadOutcome, Outcome, RestOutcome};
use crate::page::preface;
use crate::statistics::Spread;
use crate::table::{markdown, mib, millis, thousands};

/// What to report.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The results file.
    #[arg(long)]
    results: PathBuf,
    /// A text that goes above the tables, such as what machine it was.
    #[arg(long)]
    preface: Option<PathBuf>,
    /// Where to write the tables.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Where to write the same for programs.
    #[arg(long)]
    json: Option<PathBuf>,
    /// End with an error if a margin is missed.
    #[arg(long)]
    check: bool,
    /// With --check: a margin that was not measured is no error.
    #[arg(long)]
    partial: bool,
}

/// A load that can be compared between stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Point {
    workload: Workload,
    clients: usize,
    distribution: Distribution,
    /// Of an open loop: percent of the closed one's rate.
    share: Option<u32>,
    accounts: u64,
}

impl Point {
    /// As fast as it is answered, all accounts alike.
    pub(crate) fn closed(workload: Workload, clients: usize, accounts: u64) -> Point {
        Point {
            workload,
            clients,
            distribution: Distribution::Uniform,
            share: None,
            accounts,
        }
    }

    fn of(outcome: &LoadOutcome) -> Point {
        let measurement = &outcome.measurement;
        Point {
            workload: measurement.workload,
            clients: measurement.clients,
            distribution: measurement.distribution,
            share: match measurement.load {
                Load::Closed => None,
                Load::Open { .. } => Some(outcome.share.unwrap_or(0)),
            },
            accounts: measurement.accounts,
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} client", self.workload.name(), self.clients)?;
        if self.clients != 1 {
            f.write_str("s")?;
        }
        if self.distribution == Distribution::Zipf {
            f.write_str(", Zipf")?;
        }
        if let Some(share) = self.share {
            write!(f, ", open loop at {share} % of saturation")?;
        }
        write!(f, ", {} accounts", thousands(self.accounts as f64))
    }
}

/// One store at one point.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LoadSummary {
    pub(crate) store: String,
    pub(crate) point: Point,
    pub(crate) throughput: Spread,
    pub(crate) p50_us: Spread,
    pub(crate) p95_us: Spread,
    pub(crate) p99_us: Spread,
    pub(crate) p999_us: Spread,
    pub(crate) max_us: f64,
    pub(crate) worst_second: Option<f64>,
    pub(crate) errors: u64,
    /// All nodes together, for each operation, microseconds.
    pub(crate) nodes_cpu_us: Spread,
    pub(crate) load_cpu_us: Spread,
    /// One node's writes for each byte of payload, for workloads that only write.
    pub(crate) written_per_byte: Option<Spread>,
}

/// One store at rest.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RestSummary {
    pub(crate) store: String,
    pub(crate) accounts: u64,
    nodes: usize,
    /// Of one node: the mean of the three, as all that follow.
    pub(crate) memory_bytes: Spread,
    pub(crate) anonymous_bytes: Spread,
    pub(crate) disk_bytes: Spread,
}

/// One store being filled.
#[derive(Debug, Clone, Serialize)]
struct FilledSummary {
    store: String,
    accounts: u64,
    per_second: Spread,
    nodes_cpu_us: Spread,
    written_per_byte: Spread,
}

/// One store whose leader was killed.
#[derive(Debug, Clone, Serialize)]
struct OutageSummary {
    store: String,
    silence_ms: Spread,
}

/// All that was measured, by store and point, in the order in which it first was.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    loads: Vec<LoadSummary>,
    fillings: Vec<FilledSummary>,
    outages: Vec<OutageSummary>,
    rests: Vec<RestSummary>,
}

impl Results {
    /// Of these lines.
    pub(crate) fn of(outcomes: impl IntoIterator<Item = Outcome>) -> Results {
        let mut loads: Vec<((String, Point), Vec<LoadOutcome>)> = Vec::new();
        let mut fillings: Vec<((String, u64), Vec<_>)> = Vec::new();
        let mut outages: Vec<(String, Vec<f64>)> = Vec::new();
        let mut rests: Vec<((String, u64), Vec<RestOutcome>)> = Vec::new();
        for outcome in outcomes {
            match outcome {
                Outcome::Load(load) => {
                    let key = (load.measurement.store.clone(), Point::of(&load));
                    group(&mut loads, key).push(*load);
                }
                Outcome::Filled(filled) => {
                    let key = (filled.store.clone(), filled.prepared.prepared);
                    group(&mut fillings, key).push(filled);
                }
                Outcome::Outage(outage) => {
                    // Nothing was written at all: that is as long as it was measured.
                    let measurement = outage.measurement;
                    let silence_ms = measurement
                        .longest_without_write_ms
                        .map_or(measurement.seconds * 1e3, |silence| silence as f64);
                    group(&mut outages, measurement.store).push(silence_ms);
                }
                Outcome::Rest(rest) => {
                    group(&mut rests, (rest.store.clone(), rest.accounts)).push(rest);
                }
            }
        }
        Results {
            loads: loads
                .into_iter()
                .filter_map(|((store, point), rounds)| LoadSummary::of(store, point, &rounds))
                .collect(),
            fillings: fillings
                .into_iter()
                .filter_map(|((store, accounts), rounds)| {
                    let each = |value: fn(&crate::outcome::FilledOutcome) -> f64| {
                        Spread::of(rounds.iter().map(value))
                    };
                    Some(FilledSummary {
                        store,
                        accounts,
                        per_second: each(|one| one.prepared.prepared as f64 / one.prepared.seconds)?,
                        nodes_cpu_us: each(|one| one.used.cpu_seconds * 1e6 / one.prepared.prepared as f64)?,
                        written_per_byte: each(crate::outcome::FilledOutcome::written_per_byte)?,
                    })
                })
                .collect(),
            outages: outages
                .into_iter()
                .filter_map(|(store, silences)| {
                    let silence_ms = Spread::of(silences)?;
                    Some(OutageSummary { store, silence_ms })
                })
                .collect(),
            rests: rests
                .into_iter()
                .filter_map(|((store, accounts), rounds)| RestSummary::of(store, accounts, &rounds))
                .collect(),
        }
    }

    /// What this store did at this point.
    pub(crate) fn load(&self, store: &str, point: &Point) -> Option<&LoadSummary> {
        self.loads
            .iter()
            .find(|load| load.store == store && load.point == *point)
    }

    /// The longest times without a write.
    pub(crate) fn outage(&self, store: &str) -> Option<Spread> {
        let found = self.outages.iter().find(|outage| outage.store == store);
        found.map(|outage| outage.silence_ms)
    }

    /// What the nodes of this store take with so many accounts.
    pub(crate) fn rest(&self, store: &str, accounts: u64) -> Option<&RestSummary> {
        let mut rests = self.rests.iter();
        rests.find(|rest| rest.store == store && rest.accounts == accounts)
    }

    /// The numbers of accounts that were measured with.
    pub(crate) fn levels(&self) -> Vec<u64> {
        let mut levels: Vec<u64> = self.loads.iter().map(|load| load.point.accounts).collect();
        levels.sort_unstable();
        levels.dedup();
        levels
    }

    fn markdown(&self, judgements: &[Judgement]) -> String {
        let mut text = String::from("## Margins\n\n");
        let rows: Vec<Vec<String>> = judgements
            .iter()
            .map(|judgement| {
                vec![
                    judgement.what.clone(),
                    judgement.wanted.clone(),
                    judgement
                        .ratio
                        .map_or_else(String::new, |ratio| format!("{ratio:.2}")),
                    judgement.verdict.to_string(),
                ]
            })
            .collect();
        text += &markdown(&["what", "wanted", "measured", "verdict"], &rows);
        text += "\n## Loads\n\nLatencies in milliseconds. Processor time: microseconds an operation. Written: bytes that \
                 one node had written to its disk for each byte of payload.\n";
        let mut seen: Vec<Point> = Vec::new();
        for load in &self.loads {
            if seen.contains(&load.point) {
                continue;
            }
            seen.push(load.point);
            let rows: Vec<Vec<String>> = self
                .loads
                .iter()
                .filter(|other| other.point == load.point)
                .map(LoadSummary::row)
                .collect();
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "\n### {}\n\n{}",
                load.point,
                markdown(&LoadSummary::HEAD, &rows)
            );
        }
        if !self.fillings.is_empty() {
            let head = ["store", "accounts", "a second", "spread", "cpu: nodes", "written"];
            let rows: Vec<Vec<String>> = self.fillings.iter().map(FilledSummary::row).collect();
            let _ = write!(text, "\n## Filling, in batches\n\n{}", markdown(&head, &rows));
        }
        if !self.outages.is_empty() {
            let head = ["store", "times", "median", "least", "greatest"];
            let rows: Vec<Vec<String>> = self.outages.iter().map(OutageSummary::row).collect();
            let title = "Longest time without a write after kill -9 of the leader, milliseconds";
            let _ = write!(text, "\n## {title}\n\n{}", markdown(&head, &rows));
        }
        if !self.rests.is_empty() {
            let head = [
                "store",
                "accounts",
                "memory, MiB",
                "anonymous, MiB",
                "disk, MiB",
                "memory, bytes/account",
                "disk, bytes/account",
            ];
            let rows: Vec<Vec<String>> = self.rests.iter().map(RestSummary::row).collect();
            let _ = write!(
                text,
                "\n## One node at rest\n\nWith the fewest accounts: after all loads above, which created and imported many more than those.\n\n{}",
                markdown(&head, &rows)
            );
        }
        if let Some(table) = self.cost_table() {
            let _ = write!(text, "\n## What a million accounts cost\n\n{table}");
        }
        text
    }

    /// What a million accounts, and a million operations on them, take of all nodes of each store together, by what was measured
    /// with the most accounts.
    fn cost_table(&self) -> Option<String> {
        let accounts = self.rests.iter().map(|rest| rest.accounts).max()?;
        let rests: Vec<_> = self
            .rests
            .iter()
            .filter(|rest| rest.accounts == accounts)
            .collect();
        // Of fewer, most is what an empty store takes.
        if accounts < COST_ACCOUNTS_MIN {
            return None;
        }
        let head = [
            "store",
            "disk, GiB",
            "memory, GiB",
            "gets, cpu s",
            "lookups, cpu s",
            "updates, cpu s",
            "creates, cpu s",
            "filling, cpu s",
            "written: filling",
            "updates",
            "creates",
        ];
        let rows = rests.into_iter().map(|rest| {
            let gib = |bytes: &Spread| {
                let of_a_million = bytes.median / accounts as f64 * MILLION * rest.nodes as f64;
                format!("{:.2}", of_a_million / f64::from(1 << 30))
            };
            let load = |workload| {
                let point = Point::closed(workload, COST_CLIENTS, accounts);
                self.load(&rest.store, &point)
            };
            // As many seconds for a million as microseconds for one.
            let cpu = |workload| {
                load(workload).map_or_else(String::new, |load| thousands(load.nodes_cpu_us.median))
            };
            let written = |workload| {
                let written = load(workload).and_then(|load| load.written_per_byte);
                written.map_or_else(String::new, |written| format!("{:.1}", written.median))
            };
            let filled = self
                .fillings
                .iter()
                .find(|filled| filled.store == rest.store && filled.accounts == accounts);
            vec![
                rest.store.clone(),
                gib(&rest.disk_bytes),
                gib(&rest.memory_bytes),
                cpu(Workload::Get),
                cpu(Workload::Lookup),
                cpu(Workload::Update),
                cpu(Workload::Create),
                filled.map_or_else(String::new, |filled| thousands(filled.nodes_cpu_us.median)),
                filled.map_or_else(String::new, |filled| {
                    format!("{:.1}", filled.written_per_byte.median)
                }),
                written(Workload::Update),
                written(Workload::Create),
            ]
        });
        let text = format!(
            "Of all nodes together, by what was measured with {} accounts and {COST_CLIENTS} clients: disk and memory at rest, \
             processor seconds for a million operations, and bytes that one node had written for each byte of payload.\n\n",
            thousands(accounts as f64)
        );
        Some(text + &markdown(&head, &rows.collect::<Vec<_>>()))
    }
}

const MILLION: f64 = 1e6;
/// The fewest accounts whose costs are worth multiplying.
const COST_ACCOUNTS_MIN: u64 = 100_000;
/// Clients of the loads that costs are told of.
const COST_CLIENTS: usize = 64;

/// The group of this key, new at the end if there is none.
fn group<K: PartialEq, V>(groups: &mut Vec<(K, Vec<V>)>, key: K) -> &mut Vec<V> {
    let place = match groups.iter().position(|(other, _)| *other == key) {
        Some(place) => place,
        None => {
            groups.push((key, Vec::new()));
            groups.len() - 1
        }
    };
    &mut groups[place].1
}

impl LoadSummary {
    const HEAD: [&'static str; 13] = [
        "store",
        "ops/s",
        "spread",
        "p50",
        "p95",
        "p99",
        "p99.9",
        "max",
        "worst second",
        "errors",
        "cpu: nodes",
        "cpu: load",
        "written",
    ];

    fn of(store: String, point: Point, rounds: &[LoadOutcome]) -> Option<LoadSummary> {
        let each = |value: &dyn Fn(&LoadOutcome) -> f64| Spread::of(rounds.iter().map(value));
        let latency = |value: fn(&Latency) -> u64| each(&|one| value(&one.measurement.all) as f64);
        let done = |one: &LoadOutcome| (one.measurement.throughput * one.measurement.seconds).max(1.0);
        let written: Option<Vec<f64>> = rounds.iter().map(LoadOutcome::written_per_byte).collect();
        Some(LoadSummary {
            store,
            point,
            throughput: each(&|one| one.measurement.throughput)?,
            p50_us: latency(|all| all.p50_us)?,
            p95_us: latency(|all| all.p95_us)?,
            p99_us: latency(|all| all.p99_us)?,
            p999_us: latency(|all| all.p999_us)?,
            max_us: latency(|all| all.max_us)?.greatest,
            worst_second: Spread::of(
                rounds
                    .iter()
                    .filter_map(|one| one.measurement.worst_window)
                    .map(|worst| worst as f64),
            )
            .map(|spread| spread.least),
            errors: rounds.iter().map(|one| one.measurement.errors).sum(),
            nodes_cpu_us: each(&|one| one.used.cpu_seconds * 1e6 / done(one))?,
            load_cpu_us: each(&|one| one.measurement.generator.cpu_us_per_operation)?,
            written_per_byte: written.and_then(Spread::of),
        })
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.store.clone(),
            thousands(self.throughput.median),
            spread(&self.throughput),
            millis(self.p50_us.median),
            millis(self.p95_us.median),
            millis(self.p99_us.median),
            millis(self.p999_us.median),
            millis(self.max_us),
            self.worst_second.map_or_else(String::new, thousands),
            self.errors.to_string(),
            format!("{:.0}", self.nodes_cpu_us.median),
            format!("{:.0}", self.load_cpu_us.median),
            self.written_per_byte
                .map_or_else(String::new, |written| format!("{:.1}", written.median)),
        ]
    }
}

impl RestSummary {
    fn of(store: String, accounts: u64, rounds: &[RestOutcome]) -> Option<RestSummary> {
        let mean = |value: fn(&crate::processes::Occupied) -> u64| {
            let of_round = |round: &RestOutcome| {
                let sum: u64 = round.nodes.iter().map(value).sum();
                sum as f64 / round.nodes.len().max(1) as f64
            };
            Spread::of(rounds.iter().map(of_round))
        };
        Some(RestSummary {
            store,
            accounts,
            nodes: rounds.iter().map(|round| round.nodes.len()).max().unwrap_or(0),
            memory_bytes: mean(|node| node.memory_bytes)?,
            anonymous_bytes: mean(|node| node.anonymous_bytes)?,
            disk_bytes: mean(|node| node.disk_bytes)?,
        })
    }

    fn row(&self) -> Vec<String> {
        let each = |bytes: f64| thousands(bytes / self.accounts.max(1) as f64);
        vec![
            self.store.clone(),
            thousands(self.accounts as f64),
            mib(self.memory_bytes.median),
            mib(self.anonymous_bytes.median),
            mib(self.disk_bytes.median),
            each(self.memory_bytes.median),
            each(self.disk_bytes.median),
        ]
    }
}

impl FilledSummary {
    fn row(&self) -> Vec<String> {
        vec![
            self.store.clone(),
            thousands(self.accounts as f64),
            thousands(self.per_second.median),
            spread(&self.per_second),
            format!("{:.0}", self.nodes_cpu_us.median),
            format!("{:.1}", self.written_per_byte.median),
        ]
    }
}

impl OutageSummary {
    fn row(&self) -> Vec<String> {
        vec![
            self.store.clone(),
            self.silence_ms.count.to_string(),
            thousands(self.silence_ms.median),
            thousands(self.silence_ms.least),
            thousands(self.silence_ms.greatest),
        ]
    }
}

/// Least to greatest.
fn spread(values: &Spread) -> String {
    format!("{} - {}", thousands(values.least), thousands(values.greatest))
}

/// For programs.
#[derive(Serialize)]
struct Document<'a> {
    margins: &'a [Judgement],
    #[serde(flatten)]
    results: &'a Results,
}

/// Prints and writes the tables; with `--check` an error says which margins are missed.
pub(crate) fn run(args: &ReportArgs) -> Result<(), String> {
    let results = Results::of(Outcome::read(&args.results)?);
    let judgements = margins::judge(&results);
    let preface = preface(args.preface.as_deref())?;
    let text = format!("{preface}{}", results.markdown(&judgements));
    print!("{text}");
    let write = |path: &PathBuf, text: &str| {
        fs::write(path, text).map_err(|why| format!("cannot write {}: {why}", path.display()))
    };
    if let Some(path) = &args.markdown {
        write(path, &text)?;
    }
    if let Some(path) = &args.json {
        let document = Document {
            margins: &judgements,
            results: &results,
        };
        let text = serde_json::to_string_pretty(&document)
            .map_err(|why| format!("cannot be written as JSON: {why}"))?;
        write(path, &text)?;
    }
    if args.check {
        check(&judgements, args.partial)?;
    }
    Ok(())
}

/// An error that names each margin that is missed, or that nothing is known about.
fn check(judgements: &[Judgement], partial: bool) -> Result<(), String> {
    let bad: Vec<&Judgement> = judgements
        .iter()
        .filter(|judgement| match judgement.verdict {
            Verdict::Held => false,
            Verdict::Missed => true,
            Verdict::NotMeasured => !partial,
        })
        .collect();
    if bad.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = bad
        .iter()
        .map(|judgement| {
            let Judgement {
                what,
                wanted,
                ratio,
                verdict,
            } = judgement;
            let seen = ratio.map_or_else(String::new, |ratio| format!(": {ratio:.2}"));
            format!("  {what}, {wanted}: {verdict}{seen}")
        })
        .collect();
    Err(format!(
        "{} margins are not held:\n{}",
        bad.len(),
        lines.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{load, outage, rest, results};

    #[test]
    fn rounds_are_put_together_and_points_kept_apart() {
        let results = results([
            load("etcd", Workload::Get, 64, 100.0, 900),
            load("holdfast", Workload::Get, 64, 250.0, 300),
            load("etcd", Workload::Get, 64, 300.0, 700),
            load("etcd", Workload::Get, 1, 7.0, 100),
            load("etcd", Workload::Get, 64, 200.0, 800),
        ]);
        let point = Point::closed(Workload::Get, 64, 20_000);
        let etcd = results.load("etcd", &point).expect("it was measured");
        assert_eq!((etcd.throughput.median, etcd.throughput.count), (200.0, 3));
        assert_eq!((etcd.p99_us.median, etcd.worst_second), (800.0, Some(50.0)));
        // Two seconds of processor time of all nodes over 2 s at 200 a second.
        assert_eq!(etcd.nodes_cpu_us.median, 5_000.0);
        assert_eq!(etcd.written_per_byte, None, "reads store nothing");
        assert!(results.load("postgres-bare", &point).is_none());
        assert_eq!(results.levels(), [20_000]);
    }

    #[test]
    fn bytes_written_are_of_one_node_for_each_byte_stored() {
        let results = results([load("etcd", Workload::Create, 64, 1.0, 1)]);
        let point = Point::closed(Workload::Create, 64, 20_000);
        let etcd = results.load("etcd", &point).expect("it was measured");
        // 6,144 bytes by three nodes for two records of 1,024.
        assert_eq!(etcd.written_per_byte.map(|spread| spread.median), Some(1.0));
    }

    #[test]
    fn the_tables() {
        let results = results([
            load("holdfast", Workload::Create, 64, 3_000.0, 10_000),
            load("etcd", Workload::Create, 64, 1_000.0, 50_000),
            outage("etcd", 1_600),
            rest("etcd", 1_000_000, 2_800_000_000, 900_000_000),
        ]);
        let text = results.markdown(&margins::judge(&results));
        for line in [
            "### create, 64 clients, 20,000 accounts",
            "| holdfast | 3,000 | 3,000 - 3,000 | 0.00 | 0.00 | 10.0 |  0.00 | 0.00 |        1,500 |      0 |        333 |        10 |     0.0 |",
            "| etcd     | 1,000 | 1,000 - 1,000 | 0.00 | 0.00 | 50.0 |  0.00 | 0.00 |          500 |      0 |       1000 |        10 |     0.0 |",
            "| etcd  |     1 |  1,600 | 1,600 |    1,600 |",
            "| etcd  | 1,000,000 |       2,670 |              0 |       858 |                 2,800 |                 900 |",
            "| etcd  |      2.51 |        7.82 |             |                |",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn a_check_names_what_is_missed() {
        let held = results([
            load("holdfast", Workload::Mix, 64, 3_000.0, 10),
            load("etcd", Workload::Mix, 64, 1_000.0, 50),
        ]);
        let judged = margins::judge(&held);
        assert_eq!(check(&judged, true), Ok(()));
        assert!(check(&judged, false).is_err(), "nearly nothing was measured");

        let missed = results([
            load("holdfast", Workload::Mix, 64, 2_999.0, 10),
            load("etcd", Workload::Mix, 64, 1_000.0, 50),
        ]);
        let error = check(&margins::judge(&missed), true).expect_err("too slow");
        assert!(
            error.contains("mix, 64 clients, 20,000 accounts, at least 3 x etcd: MISSED: 3.00"),
            "{error}"
        );
        assert!(!error.contains("p99"), "{error}");
    }
}
