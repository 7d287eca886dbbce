//! The plots. Each has a title that says all that is needed where it stands alone.

use holdfast_bench::Measurement;

use super::{End, Growth, NewNode, mean};
use crate::outcome::RestOutcome;
use crate::plot::{Line, Panel, Plot};
use crate::processes::Occupied;
use crate::table::thousands;

impl Growth {
    /// With the names of their files. Those of which nothing was measured draw nothing.
    pub(super) fn plots(&self) -> Vec<(&'static str, Plot)> {
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
                        Panel::linear(
                            "memory, MiB",
                            vec![
                                line("PSS", of_rest(|node| node.memory_bytes, 1 << 20)),
                                line("of it anonymous", of_rest(|node| node.anonymous_bytes, 1 << 20)),
                            ],
                        ),
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
                    panels: vec![Panel::linear(
                        "seconds",
                        vec![starts(End::Stopped), starts(End::Killed)],
                    )],
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
    fn plot(&self, measured: &Measurement) -> Plot {
        let panel = |name, value| Panel::of_seconds(name, &measured.windows, value);
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
                panel("done in a second", |window| window.done as f64),
                panel("p99, ms", |window| window.p99_us as f64 / 1e3),
                panel("slowest, ms", |window| window.slowest_us as f64 / 1e3),
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
        Panel::linear("operations a second", lines(|measured| measured.throughput)),
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
