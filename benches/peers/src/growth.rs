//! What `cargo xtask bench growth` measured: tables and plots of how Holdfast grows with its clients and its accounts.

mod plots;
mod tables;

use holdfast_bench::{Measurement, Window};
use serde::Deserialize;

use crate::outcome::{FilledOutcome, LoadOutcome, Outcome, RestOutcome};
use crate::page::PageArgs;
use crate::processes::Occupied;

/// A line.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Point {
    Measured(Measured),
    NodeStart(NodeStart),
    ClusterStart(ClusterStart),
    Restore(Restore),
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

/// Everything was written down, and put into an empty cluster.
#[derive(Debug, Deserialize)]
struct Restore {
    accounts: u64,
    /// Of the file between.
    bytes: u64,
    export_seconds: f64,
    import_seconds: f64,
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
    restores: Vec<Restore>,
    new_nodes: Vec<(NewNode, Measurement)>,
}

/// Writes the tables and the plots, and prints the tables.
pub(crate) fn run(args: &PageArgs) -> Result<(), String> {
    let growth = Growth::read(&args.lines()?)?;
    args.write("growth.md", &growth.tables())?;
    for (name, plot) in growth.plots() {
        args.draw(name, &plot)?;
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
                Point::Restore(restore) => growth.restores.push(restore),
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
}

/// Of the nodes.
fn mean(rest: &RestOutcome, value: fn(&Occupied) -> u64) -> f64 {
    let sum: u64 = rest.nodes.iter().map(value).sum();
    sum as f64 / rest.nodes.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use std::fs;

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
            r#"{"restore":{"accounts":10000,"bytes":20971520,"export_seconds":2.0,"import_seconds":4.0}}"#.to_owned(),
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
            "`cargo xtask bench growth --only accounts --accounts-max 10000`",
            "`cargo xtask bench growth --only clients`",
            "| asked to stop |   10,000 |         0.50 |",
            "| kill -9       |   10,000 |             0.10 |           1.25 |            1.30 |",
            "| 10,000   |              2.0 |        20 |              4.0 |             2,500 |",
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
