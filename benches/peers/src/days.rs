//! What `cargo xtask bench days` measured: a table of all days, and a plot of each.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use holdfast_bench::Measurement;
use plotters::prelude::*;
use serde::Deserialize;

use crate::outcome::Outcome;
use crate::plot::{Line, MARK, Panel, Plot, beside};
use crate::processes::Occupied;
use crate::statistics::Trend;
use crate::table::{markdown, millis, thousands};

/// What to read and where to write.
#[derive(Debug, Args)]
pub(crate) struct DaysArgs {
    /// The file of lines.
    #[arg(long)]
    results: PathBuf,
    /// The directory for `days.md` and the plots.
    #[arg(long)]
    into: PathBuf,
}

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

const SIZE: (u32, u32) = (900, 520);
const DONE: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const SLOWEST: RGBColor = RGBColor(0xd6, 0x27, 0x28);

/// Writes the table and the plots, and prints the table.
pub(crate) fn run(args: &DaysArgs) -> Result<(), String> {
    let text = fs::read_to_string(&args.results)
        .map_err(|why| format!("cannot read {}: {why}", args.results.display()))?;
    let days: Vec<Day> = text.lines().map(Day::read).collect::<Result<_, _>>()?;
    let mut text = table(&days);
    text.extend(days.iter().filter_map(Day::trends));
    println!("\n{text}");
    let path = args.into.join("days.md");
    fs::write(&path, &text).map_err(|why| format!("cannot write {}: {why}", path.display()))?;
    for day in &days {
        let path = args.into.join(format!("{}.svg", day.file()));
        plot(day, &path).map_err(|why| format!("cannot draw {}: {why}", path.display()))?;
        if !day.samples.is_empty() {
            day.trend_plot()
                .draw(&args.into.join(format!("{}-trend.svg", day.file())))?;
        }
    }
    Ok(())
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

    /// The name of its files.
    fn file(&self) -> String {
        match self.client.as_str() {
            "sdk" => self.day.clone(),
            client => format!("{}-{client}", self.day),
        }
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

    fn trend_plot(&self) -> Plot {
        let panel = |name, lines| Panel {
            name,
            factors: false,
            lines,
        };
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
                panel("memory (PSS), MiB", self.nodes(|node| node.memory_bytes)),
                panel("disk, MiB", self.nodes(|node| node.disk_bytes)),
                panel("p99 of a minute, ms", vec![self.minutes()]),
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
    text.push_str("\nErrors: operations without success, and those that were due and never begun.\n");
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

/// Two panels over the seconds of the day: how much was done, and the slowest answer. Grey lines: something happened.
fn plot(day: &Day, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let measured = &day.measurement;
    let seconds = measured.windows.len() as f64;
    let points = |value: fn(&holdfast_bench::Window) -> f64| -> Vec<(f64, f64)> {
        let at = (0..).map(|second| f64::from(second) + 0.5);
        at.zip(measured.windows.iter().map(value)).collect()
    };
    let done = points(|window| window.done as f64);
    let slowest = points(|window| window.slowest_us as f64 / 1_000.0);
    let most = |points: &[(f64, f64)]| points.iter().map(|(_, value)| *value).fold(1.0, f64::max);
    let due = due(measured);

    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!(
        "{}{}: {} of {} a second are due, {} is the most",
        day.day,
        match day.client.as_str() {
            "sdk" => String::new(),
            client => format!(", {client} client"),
        },
        thousands(due),
        measured.workload.name(),
        thousands(day.saturation)
    );
    let root = root.titled(&title, ("sans-serif", 18))?;
    let (upper, lower) = root.split_vertically(SIZE.1 / 2 - 20);
    let panels = [
        (upper, done, due, DONE, "done in a second"),
        (lower, slowest, 1.0, SLOWEST, "slowest, ms"),
    ];
    for (area, points, least_top, colour, name) in panels {
        let top = most(&points).max(least_top) * 1.1;
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..seconds.max(1.0), 0.0..top)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("seconds")
            .y_desc(name)
            .draw()?;
        let events = day.events.iter().filter(|event| event.at < seconds);
        for (number, event) in events.enumerate() {
            chart.draw_series(LineSeries::new([(event.at, 0.0), (event.at, top)], MARK))?;
            // One below the other, or those of a rolling restart would cover each other.
            let height = top * (0.97 - 0.09 * (number % 8) as f64);
            let text = format!(" {} ", event.what);
            chart.draw_series([Text::new(text, (event.at, height), beside(event.at, seconds))])?;
        }
        chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
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
        plot(&day, &path).unwrap();
        let svg = fs::read_to_string(&path).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert!(svg.contains("<svg") && svg.contains("kill -9 of node 2"), "{svg}");
        assert!(svg.contains("<polyline"));
        assert_eq!(day.file(), "leader-killed");
        day.client = "plain".to_owned();
        assert_eq!(day.file(), "leader-killed-plain");
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
    }
}
