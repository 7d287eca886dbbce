//! What `cargo xtask bench days` measured: a table of all days, and a plot of each.

use holdfast_bench::Measurement;
use serde::Deserialize;

use crate::outcome::Outcome;
use crate::page::{PageArgs, shown};
use crate::plot::{Line, Panel, Plot};
use crate::processes::Occupied;
use crate::statistics::Trend;
use crate::table::{markdown, millis, thousands};

/// A line.
#[derive(Debug, Deserialize)]
struct DayLine {
    day: String,
    client: String,
    saturation: f64,
    events: Vec<Event>,
    samples: Vec<Sample>,
    outcome: Outcome,
}

/// A day.
#[derive(Debug)]
struct Day {
    day: String,
    /// Through what the load reached the cluster: `sdk` or `plain`.
    client: String,
    /// Operations a second of a closed loop just before.
    saturation: f64,
    events: Vec<Event>,
    /// What the nodes took, of days on which somebody looked.
    samples: Vec<Sample>,
    measurement: Measurement,
}

/// The nodes at one moment.
#[derive(Debug, Deserialize)]
struct Sample {
    /// Seconds from the beginning.
    at: f64,
    outcome: Outcome,
}

/// Something that happened.
#[derive(Debug, Deserialize)]
struct Event {
    /// Seconds from the beginning.
    at: f64,
    what: String,
}

/// Writes the table and the plots, and prints the table.
pub(crate) fn run(args: &PageArgs) -> Result<(), String> {
    let days: Vec<Day> = args.lines()?.lines().map(Day::read).collect::<Result<_, _>>()?;
    let mut text = table(&days);
    text.extend(days.iter().filter_map(Day::trends));
    text.extend(days.iter().map(Day::shown));
    args.write(page_name(&days), &text)?;
    for day in &days {
        if day.samples.is_empty() {
            args.draw(&day.file(), &day.plot())?;
        } else {
            args.draw(&day.trend_file(), &day.trend_plot())?;
        }
    }
    Ok(())
}

/// Each kind of days has a page of its own, so that none takes another's place.
fn page_name(days: &[Day]) -> &'static str {
    let only = |client: &str| days.iter().all(|day| day.client == client);
    match days {
        [one] if !one.samples.is_empty() => "soak.md",
        _ if only("plain") => "days-plain.md",
        _ => "days.md",
    }
}

/// The seconds of an hour.
const HOUR: f64 = 3_600.0;

impl Day {
    fn read(line: &str) -> Result<Day, String> {
        let line: DayLine = serde_json::from_str(line).map_err(|why| format!("a line is no day: {why}"))?;
        let Outcome::Load(load) = line.outcome else {
            return Err(format!("{} has no load", line.day));
        };
        Ok(Day {
            day: line.day,
            client: line.client,
            saturation: line.saturation,
            events: line.events,
            samples: line.samples,
            measurement: load.measurement,
        })
    }

    /// The client, with this before its name, unless it is the usual one.
    fn another_client(&self, before: &str) -> String {
        match self.client.as_str() {
            "sdk" => String::new(),
            client => format!("{before}{client}"),
        }
    }

    /// The name of its files.
    fn file(&self) -> String {
        format!("{}{}", self.day, self.another_client("-"))
    }

    fn trend_file(&self) -> String {
        format!("{}-trend", self.file())
    }

    /// Its plots, on the page.
    fn shown(&self) -> String {
        let client = self.another_client(" --client ");
        // Of a day on which somebody looked, hours of seconds are too many to see.
        let plot = if self.samples.is_empty() {
            self.file()
        } else {
            self.trend_file()
        };
        format!("\n{}", shown(&plot, &format!("days --only {}{client}", self.day)))
    }

    /// A line for each node.
    fn nodes(&self, value: fn(&Occupied) -> u64) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        for sample in &self.samples {
            let Outcome::Rest(rest) = &sample.outcome else {
                continue;
            };
            for (node, place) in rest.nodes.iter().zip(0..) {
                if lines.len() == place {
                    lines.push(Line {
                        name: format!("node {}", place + 1),
                        points: Vec::new(),
                    });
                }
                let mib = value(node) as f64 / f64::from(1 << 20);
                lines[place].points.push((sample.at, mib));
            }
        }
        lines
    }

    /// The 99th percentile of each minute, milliseconds.
    fn minutes(&self) -> Line {
        let at = (0..).map(|minute| f64::from(minute) * 60.0 + 30.0);
        let p99 = self.measurement.minutes_p99_us.iter().map(|us| *us as f64 / 1e3);
        Line {
            name: "p99 of a minute".to_owned(),
            points: at.zip(p99).collect(),
        }
    }

    /// Whether memory and latencies stay what they are, of a day on which somebody looked.
    fn trends(&self) -> Option<String> {
        if self.samples.is_empty() {
            return None;
        }
        let memory = self.nodes(|node| node.memory_bytes).into_iter();
        let memory = memory.map(|line| (format!("memory of {}, MiB", line.name), line));
        let disk = self.nodes(|node| node.disk_bytes).into_iter();
        let disk = disk.map(|line| (format!("disk of {}, MiB", line.name), line));
        let latency = [("p99 of a minute, ms".to_owned(), self.minutes())];
        let first = self.measurement.seconds / 4.0;
        let rows: Vec<Vec<String>> = memory
            .chain(disk)
            .chain(latency)
            .map(|(name, line)| {
                let later: Vec<(f64, f64)> = line
                    .points
                    .iter()
                    .filter(|(at, _)| *at >= first)
                    .map(|(at, value)| (at / HOUR, *value))
                    .collect();
                match Trend::of(&later) {
                    None => vec![name, "-".into(), "-".into(), "-".into(), "too short".into()],
                    Some(trend) => vec![
                        name,
                        format!("{:.1}", trend.mean),
                        format!("{:+.2}", trend.slope),
                        format!("{:.2}", trend.error),
                        trend.verdict().to_owned(),
                    ],
                }
            })
            .collect();
        let head = ["what", "mean", "an hour", "standard error", "verdict"];
        Some(format!(
            "\n## {}: {:.0} minutes\n\n{}\nWithout the first quarter, in which caches fill. Flat: surely less than 5 % of the mean \
             an hour; no trend seen: less than twice its standard error.\n",
            self.file(),
            self.measurement.seconds / 60.0,
            markdown(&head, &rows)
        ))
    }

    /// How much was done in each second of the day, and the slowest answer; and what happened.
    fn plot(&self) -> Plot {
        let measured = &self.measurement;
        let panel = |name, value| Panel::of_seconds(name, &measured.windows, value);
        let client = self.another_client(", client: ");
        let seconds = measured.windows.len() as f64;
        let events = self.events.iter().filter(|event| event.at < seconds);
        Plot {
            title: format!(
                "{}{client}: {} of {} a second are due; 64 clients in a closed loop did {}",
                self.day,
                thousands(due(measured)),
                measured.workload.name(),
                thousands(self.saturation)
            ),
            axis: "seconds",
            factor: None,
            panels: vec![
                panel("done in a second", |window| window.done as f64),
                panel("slowest, ms", |window| window.slowest_us as f64 / 1_000.0),
            ],
            marks: events.map(|event| (event.at, event.what.clone())).collect(),
        }
    }

    fn trend_plot(&self) -> Plot {
        Plot {
            title: format!(
                "Holdfast, {}: {} of {} a second without a pause",
                self.day,
                thousands(due(&self.measurement)),
                self.measurement.workload.name()
            ),
            axis: "seconds",
            factor: None,
            panels: vec![
                Panel::linear("memory (PSS), MiB", self.nodes(|node| node.memory_bytes)),
                Panel::linear("disk, MiB", self.nodes(|node| node.disk_bytes)),
                Panel::linear("p99 of a minute, ms", vec![self.minutes()]),
            ],
            marks: Vec::new(),
        }
    }
}

fn table(days: &[Day]) -> String {
    let head = [
        "day",
        "client",
        "due /s",
        "done /s",
        "of it",
        "worst s",
        "errors",
        "p50 ms",
        "p99 ms",
        "max ms",
        "no write ms",
        "no read ms",
    ];
    let silence = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| thousands(ms as f64));
    let rows: Vec<Vec<String>> = days
        .iter()
        .map(|day| {
            let measured = &day.measurement;
            let due = due(measured);
            vec![
                day.day.clone(),
                day.client.clone(),
                thousands(due),
                thousands(measured.throughput),
                format!("{:.1} %", measured.throughput * 100.0 / due.max(1.0)),
                silence(measured.worst_window),
                thousands((measured.errors + measured.never_begun) as f64),
                millis(measured.all.p50_us as f64),
                millis(measured.all.p99_us as f64),
                millis(measured.all.max_us as f64),
                silence(measured.longest_without_write_ms),
                silence(measured.longest_without_read_ms),
            ]
        })
        .collect();
    let mut text = markdown(&head, &rows);
    text.push_str(
        "\nDone: operations a second that ended, some of them due in the warm-up, and the share of what was due. Worst s: those of the \
         worst second; an operation belongs to the second in which it ended. Errors: operations without success, and those that were due \
         and never begun. No write, no read: the longest time without one that succeeded.\n",
    );
    for day in days {
        for (class, errors) in &day.measurement.errors_by_class {
            text.push_str(&format!(
                "\n- {}: {} x {class}, as in: {}",
                day.day, errors.count, errors.first
            ));
        }
    }
    text.push('\n');
    text
}

/// Operations a second that were due.
fn due(measured: &Measurement) -> f64 {
    match measured.load {
        holdfast_bench::Load::Open { per_second } => per_second,
        holdfast_bench::Load::Closed => measured.throughput,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use holdfast_bench::{Window, Workload};

    use super::*;
    use crate::testing;

    fn day() -> Day {
        let mut measurement = testing::measurement("holdfast", Workload::Mix, 64, 100.0, 10);
        measurement.windows = vec![Window::default(); 3];
        Day {
            day: "leader-killed".to_owned(),
            client: "sdk".to_owned(),
            saturation: 200.0,
            events: vec![Event {
                at: 1.2,
                what: "kill -9 of node 2".to_owned(),
            }],
            samples: Vec::new(),
            measurement,
        }
    }

    #[test]
    fn a_day_becomes_a_row_and_a_plot() {
        let mut day = day();
        let table = table(std::slice::from_ref(&day));
        assert!(table.contains("| leader-killed |"), "{table}");
        assert_eq!(day.trends(), None);
        let directory = std::env::temp_dir().join(format!("holdfast-days-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("leader-killed.svg");
        assert!(day.plot().draw(&path).unwrap());
        let svg = fs::read_to_string(&path).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert!(svg.contains("<svg") && svg.contains("kill -9 of node 2"), "{svg}");
        assert!(svg.contains("<polyline"));
        assert_eq!(day.file(), "leader-killed");
        assert_eq!(page_name(std::slice::from_ref(&day)), "days.md");
        assert!(day.shown().contains("](leader-killed.svg)"), "{}", day.shown());
        day.client = "plain".to_owned();
        assert_eq!(day.file(), "leader-killed-plain");
        assert_eq!(page_name(std::slice::from_ref(&day)), "days-plain.md");
        assert!(
            day.shown()
                .ends_with("`cargo xtask bench days --only leader-killed --client plain`\n")
        );
    }

    #[test]
    fn a_line_is_read_as_the_command_writes_it() {
        let load = testing::load("holdfast", Workload::Mix, 64, 100.0, 10);
        let rest = testing::rest("holdfast", 20_000, 1 << 30, 1 << 20);
        let line = format!(
            r#"{{"day":"soak","client":"sdk","saturation":7.5,"events":[{{"at":1.5,"what":"it"}}],
                "samples":[{{"at":0.1,"outcome":{}}}],"outcome":{}}}"#,
            rest.line().unwrap(),
            load.line().unwrap()
        );
        let day = Day::read(&line).unwrap();
        assert_eq!(
            (
                day.saturation,
                day.samples.len(),
                day.nodes(|node| node.disk_bytes).len()
            ),
            (7.5, 1, 3)
        );
    }

    #[test]
    fn a_soak_says_whether_it_is_flat() {
        let mut day = day();
        day.measurement.seconds = 600.0;
        day.measurement.minutes_p99_us = vec![
            9_000, 5_000, 5_001, 5_002, 5_001, 5_000, 5_001, 5_001, 5_002, 5_000,
        ];
        day.samples = (0..60)
            .map(|number: u32| Sample {
                at: f64::from(number) * 10.0,
                outcome: testing::rest(
                    "holdfast",
                    20_000,
                    (1 << 30) + u64::from(number) * (1 << 22),
                    1 << 30,
                ),
            })
            .collect();
        let text = day.trends().unwrap();
        let verdict = |what: &str| {
            let row = text.lines().find(|line| line.contains(what)).unwrap_or_default();
            row.trim_end_matches([' ', '|'])
                .rsplit('|')
                .next()
                .unwrap()
                .trim()
                .to_owned()
        };
        assert_eq!(verdict("memory of node 2"), "RISES", "{text}");
        assert_eq!(verdict("disk of node 3"), "flat", "{text}");
        assert_eq!(verdict("p99 of a minute"), "flat", "{text}");
        assert_eq!(day.trend_plot().panels[0].lines.len(), 3);
        assert_eq!(page_name(std::slice::from_ref(&day)), "soak.md");
        assert!(day.shown().contains("](leader-killed-trend.svg)"));
    }
}
