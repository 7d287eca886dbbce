//! What `cargo xtask bench growth` measured: tables and plots of how Holdfast grows with its clients and its accounts.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use holdfast_bench::{Measurement, Window};
use serde::Deserialize;

use crate::outcome::{FilledOutcome, LoadOutcome, Outcome, RestOutcome};
use crate::plot::{Line, Panel, Plot};
use crate::processes::Occupied;
use crate::statistics::Spread;
use crate::table::{markdown, mib, millis, thousands};

/// What to read and where to write.
#[derive(Debug, Args)]
pub(crate) struct GrowthArgs {
    /// The file of lines.
    #[arg(long)]
    results: PathBuf,
    /// The directory for `growth.md` and the plots.
    #[arg(long)]
    into: PathBuf,
}

/// A line.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Point {
    Measured(Measured),
    NodeStart(NodeStart),
    ClusterStart(ClusterStart),
    NewNode(Box<NewNode>),
}

/// A load, or nodes at rest.
#[derive(Debug, Deserialize)]
struct Measured {
    part: Part,
    /// What the cluster was filled with.
    accounts: u64,
    outcome: Outcome,
}

/// Which question a load belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Part {
    Clients,
    Accounts,
    NewNode,
}

/// How nodes ended before they were started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum End {
    Stopped,
    Killed,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            End::Stopped => "asked to stop",
            End::Killed => "kill -9",
        }
    }
}

/// A node took part again.
#[derive(Debug, Deserialize)]
struct NodeStart {
    accounts: u64,
    end: End,
    seconds: f64,
}

/// A cluster answered again.
#[derive(Debug, Deserialize)]
struct ClusterStart {
    accounts: u64,
    end: End,
    /// Until all nodes had ended.
    down_seconds: f64,
    /// From the start of all nodes.
    read_seconds: f64,
    write_seconds: f64,
}

/// A node that began with nothing caught up. Times count from when the load was first measured.
#[derive(Debug, Deserialize)]
struct NewNode {
    accounts: u64,
    /// Operations a second of a closed loop just before.
    saturation: f64,
    started_at: f64,
    added_at: f64,
    caught_up_at: f64,
    outcome: Outcome,
}

/// All points, by what they are about.
#[derive(Default)]
struct Growth {
    clients: Vec<LoadOutcome>,
    /// With what the cluster was filled with: creates add some.
    accounts: Vec<(u64, LoadOutcome)>,
    fillings: Vec<FilledOutcome>,
    rests: Vec<RestOutcome>,
    node_starts: Vec<NodeStart>,
    cluster_starts: Vec<ClusterStart>,
    new_nodes: Vec<(NewNode, Measurement)>,
}

/// Writes the tables and the plots, and prints the tables.
pub(crate) fn run(args: &GrowthArgs) -> Result<(), String> {
    let text = fs::read_to_string(&args.results)
        .map_err(|why| format!("cannot read {}: {why}", args.results.display()))?;
    let growth = Growth::read(&text)?;
    let tables = growth.tables();
    println!("\n{tables}");
    let path = args.into.join("growth.md");
    fs::write(&path, &tables).map_err(|why| format!("cannot write {}: {why}", path.display()))?;
    for (name, plot) in growth.plots() {
        plot.draw(&args.into.join(format!("{name}.svg")))?;
    }
    Ok(())
}

impl Growth {
    fn read(text: &str) -> Result<Growth, String> {
        let mut growth = Growth::default();
        for line in text.lines() {
            match serde_json::from_str(line).map_err(|why| format!("a line is no point: {why}"))? {
                Point::NodeStart(start) => growth.node_starts.push(start),
                Point::ClusterStart(start) => growth.cluster_starts.push(start),
                Point::NewNode(new) => match &new.outcome {
                    Outcome::Load(load) => {
                        let measurement = load.measurement.clone();
                        growth.new_nodes.push((*new, measurement));
                    }
                    _ => return Err("a new node without a load".to_owned()),
                },
                Point::Measured(Measured {
                    part,
                    accounts,
                    outcome,
                }) => match (part, outcome) {
                    (Part::Clients, Outcome::Load(load)) => growth.clients.push(*load),
                    (Part::Accounts, Outcome::Load(load)) => growth.accounts.push((accounts, *load)),
                    (Part::Accounts, Outcome::Filled(filled)) => growth.fillings.push(filled),
                    (_, Outcome::Rest(rest)) => growth.rests.push(rest),
                    // What clients were filled with, and the closed loop before a new node: in the line about that.
                    _ => {}
                },
            }
        }
        Ok(growth)
    }

    fn tables(&self) -> String {
        let parts = [
            ("More clients", self.clients_table()),
            ("More accounts", self.accounts_table()),
            ("One node at rest", self.rest_table()),
            ("A node that starts", self.node_start_table()),
            ("A cluster that starts", self.cluster_start_table()),
            ("A new node", self.new_node_table()),
        ];
        let parts = parts
            .into_iter()
            .filter_map(|(title, table)| Some((title, table?)));
        parts
            .map(|(title, table)| format!("## {title}\n\n{table}\n"))
            .collect()
    }

    fn clients_table(&self) -> Option<String> {
        let head = [
            "operation",
            "clients",
            "a second",
            "p50 ms",
            "p99 ms",
            "max ms",
            "worst second",
            "errors",
            "generator busy",
        ];
        let rows = self.clients.iter().map(|load| {
            let measured = &load.measurement;
            vec![
                measured.workload.name().to_owned(),
                thousands(measured.clients as f64),
                thousands(measured.throughput),
                millis(measured.all.p50_us as f64),
                millis(measured.all.p99_us as f64),
                millis(measured.all.max_us as f64),
                maybe(measured.worst_window),
                thousands(measured.errors as f64),
                busy(measured),
            ]
        });
        table(&head, rows)
    }

    fn accounts_table(&self) -> Option<String> {
        let head = [
            "operation",
            "accounts",
            "a second",
            "p50 ms",
            "p99 ms",
            "max ms",
            "worst second",
            "no write ms",
            "written",
            "errors",
        ];
        let rows = self.accounts.iter().map(|(accounts, load)| {
            let measured = &load.measurement;
            vec![
                measured.workload.name().to_owned(),
                thousands(*accounts as f64),
                thousands(measured.throughput),
                millis(measured.all.p50_us as f64),
                millis(measured.all.p99_us as f64),
                millis(measured.all.max_us as f64),
                maybe(measured.worst_window),
                maybe(measured.longest_without_write_ms),
                load.written_per_byte()
                    .map_or_else(|| "-".to_owned(), |written| format!("{written:.1}")),
                thousands(measured.errors as f64),
            ]
        });
        let rest = "\nNo write: the longest time without one, as when compaction stalls. Written: bytes that one node had written \
                    to its disk for each byte of payload.\n";
        Some(table(&head, rows)? + rest)
    }

    fn rest_table(&self) -> Option<String> {
        let head = [
            "accounts",
            "memory, MiB",
            "anonymous, MiB",
            "disk, MiB",
            "memory, bytes/account",
            "disk, bytes/account",
            "filled a second",
            "written",
        ];
        let rows = self.rests.iter().map(|rest| {
            let each = |bytes: f64| thousands(bytes / rest.accounts.max(1) as f64);
            let filled = self
                .fillings
                .iter()
                .find(|filled| filled.prepared.prepared == rest.accounts);
            let (memory, disk) = (
                mean(rest, |node| node.memory_bytes),
                mean(rest, |node| node.disk_bytes),
            );
            vec![
                thousands(rest.accounts as f64),
                mib(memory),
                mib(mean(rest, |node| node.anonymous_bytes)),
                mib(disk),
                each(memory),
                each(disk),
                filled.map_or_else(String::new, |filled| {
                    thousands(filled.prepared.prepared as f64 / filled.prepared.seconds)
                }),
                filled.map_or_else(String::new, |filled| format!("{:.1}", filled.written_per_byte())),
            ]
        });
        table(&head, rows)
    }

    fn node_start_table(&self) -> Option<String> {
        let rows = self.node_starts.iter().map(|start| {
            vec![
                start.end.name().to_owned(),
                thousands(start.accounts as f64),
                format!("{:.2}", start.seconds),
            ]
        });
        let rest = "\nUntil it serves and has received and applied what is committed, seconds.\n";
        Some(table(&["it ended by", "accounts", "back after s"], rows)? + rest)
    }

    fn cluster_start_table(&self) -> Option<String> {
        let head = [
            "they ended by",
            "accounts",
            "all down after s",
            "a read after s",
            "a write after s",
        ];
        let rows = self.cluster_starts.iter().map(|start| {
            vec![
                start.end.name().to_owned(),
                thousands(start.accounts as f64),
                format!("{:.2}", start.down_seconds),
                format!("{:.2}", start.read_seconds),
                format!("{:.2}", start.write_seconds),
            ]
        });
        table(&head, rows)
    }

    fn new_node_table(&self) -> Option<String> {
        let head = [
            "accounts",
            "caught up after s",
            "due /s",
            "of it done",
            "worst second",
            "p99 ms, median second",
            "p99 ms, worst second",
            "max ms",
            "errors",
        ];
        let rows = self.new_nodes.iter().map(|(new, measured)| {
            let windows = new.meanwhile(measured);
            let done: u64 = windows.iter().map(|window| window.done).sum();
            let due = new.due() * windows.len() as f64;
            let p99 = Spread::of(windows.iter().map(|window| window.p99_us as f64));
            vec![
                thousands(new.accounts as f64),
                format!("{:.1}", new.caught_up_at - new.started_at),
                thousands(new.due()),
                format!("{:.1} %", done as f64 * 100.0 / due.max(1.0)),
                maybe(windows.iter().map(|window| window.done).min()),
                p99.map_or_else(String::new, |p99| millis(p99.median)),
                p99.map_or_else(String::new, |p99| millis(p99.greatest)),
                millis(windows.iter().map(|window| window.slowest_us).max().unwrap_or(0) as f64),
                thousands(windows.iter().map(|window| window.errors).sum::<u64>() as f64),
            ]
        });
        let mut text = table(&head, rows)?;
        text += "\nClients: of the seconds from the start of its process until it has received and applied what is committed.\n";
        for (new, measured) in &self.new_nodes {
            if new.caught_up_at > measured.seconds {
                text += &format!(
                    "With {} accounts the load ended after {:.0} s, before it had caught up.\n",
                    thousands(new.accounts as f64),
                    measured.seconds
                );
            }
        }
        Some(text)
    }

    fn plots(&self) -> Vec<(&'static str, Plot)> {
        let clients: Vec<(f64, &Measurement)> = self
            .clients
            .iter()
            .map(|load| (load.measurement.clients as f64, &load.measurement))
            .collect();
        let accounts: Vec<(f64, &Measurement)> = self
            .accounts
            .iter()
            .map(|(accounts, load)| (*accounts as f64, &load.measurement))
            .collect();
        let of_rest = |value: fn(&Occupied) -> u64, unit: u32| -> Vec<(f64, f64)> {
            let mib = |rest: &RestOutcome| mean(rest, value) / f64::from(unit);
            let points = self.rests.iter().map(|rest| (rest.accounts as f64, mib(rest)));
            points.collect()
        };
        let starts = |end: End| Line {
            name: end.name().to_owned(),
            points: self
                .node_starts
                .iter()
                .filter(|start| start.end == end)
                .map(|start| (start.accounts as f64, start.seconds))
                .collect(),
        };
        let line = |name: &str, points| Line {
            name: name.to_owned(),
            points,
        };
        let mut plots = vec![
            (
                "growth-clients",
                Plot {
                    title: "Holdfast, three nodes: each client begins when its last operation has ended"
                        .to_owned(),
                    axis: "clients",
                    factor: Some(4.0),
                    panels: load_panels(&clients),
                    marks: Vec::new(),
                },
            ),
            (
                "growth-accounts",
                Plot {
                    title: format!(
                        "Holdfast, three nodes: {} clients, by what the cluster holds",
                        clients_of(&accounts)
                    ),
                    axis: "accounts",
                    factor: Some(10.0),
                    panels: load_panels(&accounts),
                    marks: Vec::new(),
                },
            ),
            (
                "growth-nodes",
                Plot {
                    title: "Holdfast: what one node takes at rest, by what the cluster holds".to_owned(),
                    axis: "accounts",
                    factor: Some(10.0),
                    panels: vec![
                        Panel {
                            name: "memory, MiB",
                            factors: false,
                            lines: vec![
                                line("PSS", of_rest(|node| node.memory_bytes, 1 << 20)),
                                line("of it anonymous", of_rest(|node| node.anonymous_bytes, 1 << 20)),
                            ],
                        },
                        Panel {
                            name: "disk, MiB",
                            factors: true,
                            lines: vec![line("allocated", of_rest(|node| node.disk_bytes, 1 << 20))],
                        },
                    ],
                    marks: Vec::new(),
                },
            ),
            (
                "growth-start",
                Plot {
                    title: "Holdfast: how long a node that starts needs until it takes part again".to_owned(),
                    axis: "accounts",
                    factor: Some(10.0),
                    panels: vec![Panel {
                        name: "seconds",
                        factors: false,
                        lines: vec![starts(End::Stopped), starts(End::Killed)],
                    }],
                    marks: Vec::new(),
                },
            ),
        ];
        let newest = self.new_nodes.last();
        plots.extend(newest.map(|(new, measured)| ("growth-new-node", new.plot(measured))));
        plots
    }
}

impl NewNode {
    /// Operations a second that were due.
    fn due(&self) -> f64 {
        self.saturation / 2.0
    }

    /// The seconds in which it caught up.
    fn meanwhile<'a>(&self, measured: &'a Measurement) -> &'a [Window] {
        let end = (self.caught_up_at.ceil() as usize).min(measured.windows.len());
        let begin = (self.started_at as usize).min(end);
        &measured.windows[begin..end]
    }

    fn plot(&self, measured: &Measurement) -> Plot {
        let points = |value: fn(&Window) -> f64| -> Vec<(f64, f64)> {
            let at = (0..).map(|second| f64::from(second) + 0.5);
            at.zip(measured.windows.iter().map(value)).collect()
        };
        let panel = |name, points| Panel {
            name,
            factors: false,
            lines: vec![Line {
                name: name.to_owned(),
                points,
            }],
        };
        let marks = [
            (self.started_at, "a fourth node is started on an empty directory"),
            (self.added_at, "it is added"),
            (self.caught_up_at, "it has caught up"),
        ];
        let marks = marks.into_iter().filter(|(at, _)| *at < measured.seconds);
        Plot {
            title: format!(
                "Holdfast, {} accounts: a new node catches up; {} of {} a second are due, {} is the most",
                thousands(self.accounts as f64),
                thousands(self.due()),
                measured.workload.name(),
                thousands(self.saturation)
            ),
            axis: "seconds",
            factor: None,
            panels: vec![
                panel("done in a second", points(|window| window.done as f64)),
                panel("p99, ms", points(|window| window.p99_us as f64 / 1e3)),
                panel("slowest, ms", points(|window| window.slowest_us as f64 / 1e3)),
            ],
            marks: marks.map(|(at, what)| (at, what.to_owned())).collect(),
        }
    }
}

/// Throughput and the 99th percentile, a line for each workload.
fn load_panels(points: &[(f64, &Measurement)]) -> Vec<Panel> {
    let mut names: Vec<&str> = Vec::new();
    for (_, measured) in points {
        let name = measured.workload.name();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let lines = |value: fn(&Measurement) -> f64| -> Vec<Line> {
        let of = |name: &&str| Line {
            name: (*name).to_owned(),
            points: points
                .iter()
                .filter(|(_, measured)| measured.workload.name() == *name)
                .map(|(at, measured)| (*at, value(measured)))
                .collect(),
        };
        names.iter().map(of).collect()
    };
    vec![
        Panel {
            name: "operations a second",
            factors: false,
            lines: lines(|measured| measured.throughput),
        },
        Panel {
            name: "p99, ms",
            factors: true,
            lines: lines(|measured| measured.all.p99_us as f64 / 1e3),
        },
    ]
}

/// How many clients these loads had.
fn clients_of(points: &[(f64, &Measurement)]) -> String {
    let most = points.iter().map(|(_, measured)| measured.clients).max();
    thousands(most.unwrap_or(0) as f64)
}

/// Of the nodes.
fn mean(rest: &RestOutcome, value: fn(&Occupied) -> u64) -> f64 {
    let sum: u64 = rest.nodes.iter().map(value).sum();
    sum as f64 / rest.nodes.len().max(1) as f64
}

/// How much of the time of its threads the generator needed: near all of it, the result is about the generator.
fn busy(measured: &Measurement) -> String {
    let whole = measured.seconds * measured.generator.threads as f64;
    format!("{:.0} %", measured.generator.cpu_seconds * 100.0 / whole)
}

fn maybe(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| thousands(value as f64))
}

/// None without rows.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Option<String> {
    let rows: Vec<Vec<String>> = rows.collect();
    (!rows.is_empty()).then(|| markdown(head, &rows))
}

#[cfg(test)]
mod tests {
    use holdfast_bench::Workload;

    use super::*;
    use crate::testing;

    /// Lines as the command writes them.
    fn lines() -> String {
        let load = |workload, clients| {
            let outcome = testing::load("holdfast", workload, clients, 1_000.0, 2_000);
            outcome.line().unwrap()
        };
        let mut with_windows = testing::measurement("holdfast", Workload::Mix, 512, 50.0, 10);
        with_windows.seconds = 4.0;
        with_windows.windows = [100, 40, 60, 100]
            .into_iter()
            .map(|done| Window {
                done,
                p99_us: 1_000 * done,
                ..Window::default()
            })
            .collect();
        let meanwhile = Outcome::Load(Box::new(LoadOutcome {
            round: 1,
            share: Some(50),
            nodes: 3,
            used: Default::default(),
            measurement: with_windows,
        }));
        let rest = testing::rest("holdfast", 10_000, 90 << 20, 30 << 20);
        [
            format!(
                r#"{{"measured":{{"part":"clients","accounts":20000,"outcome":{}}}}}"#,
                load(Workload::Get, 1)
            ),
            format!(
                r#"{{"measured":{{"part":"clients","accounts":20000,"outcome":{}}}}}"#,
                load(Workload::Get, 64)
            ),
            format!(
                r#"{{"measured":{{"part":"accounts","accounts":10000,"outcome":{}}}}}"#,
                load(Workload::Create, 64)
            ),
            format!(
                r#"{{"measured":{{"part":"accounts","accounts":10000,"outcome":{}}}}}"#,
                rest.line().unwrap()
            ),
            r#"{"node_start":{"accounts":10000,"end":"stopped","seconds":0.5}}"#.to_owned(),
            r#"{"cluster_start":{"accounts":10000,"end":"killed","down_seconds":0.1,"read_seconds":1.25,"write_seconds":1.3}}"#
                .to_owned(),
            format!(
                r#"{{"new_node":{{"accounts":10000,"saturation":200.0,"started_at":1.5,"added_at":1.8,"caught_up_at":2.7,"outcome":{}}}}}"#,
                meanwhile.line().unwrap()
            ),
        ]
        .join("\n")
    }

    #[test]
    fn every_part_has_its_table() {
        let tables = Growth::read(&lines()).unwrap().tables();
        for line in [
            "| get       |       1 |    1,000 |",
            "| create    |   10,000 |    1,000 |",
            "| 10,000   |          90 |",
            "| asked to stop |   10,000 |         0.50 |",
            "| kill -9       |   10,000 |             0.10 |           1.25 |            1.30 |",
            "| 10,000   |               1.2 |    100 |     50.0 % |           40 |                  50.0 |                 60.0 |",
        ] {
            assert!(tables.contains(line), "{line}\nis not in\n{tables}");
        }
        assert!(Growth::read("").unwrap().tables().is_empty());
    }

    #[test]
    fn every_part_has_its_plot() {
        let directory = std::env::temp_dir().join(format!("holdfast-growth-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for (name, plot) in Growth::read(&lines()).unwrap().plots() {
            let path = directory.join(format!("{name}.svg"));
            assert_eq!(plot.draw(&path), Ok(true), "{name}");
            assert!(fs::read_to_string(&path).unwrap().contains("Holdfast"), "{name}");
        }
        for (name, plot) in Growth::read("").unwrap().plots() {
            assert_eq!(plot.draw(&directory.join("none.svg")), Ok(false), "{name}");
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
