//! What `cargo xtask bench days` measured: a table of all days, and a plot of each.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use holdfast_bench::Measurement;
use plotters::prelude::*;
use serde::Deserialize;

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

/// A day.
#[derive(Debug, Deserialize)]
struct Day {
    day: String,
    /// Operations a second of a closed loop just before.
    saturation: f64,
    events: Vec<Event>,
    measurement: Measurement,
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
const MARK: RGBColor = RGBColor(0x77, 0x77, 0x77);

/// Writes the table and the plots, and prints the table.
pub(crate) fn run(args: &DaysArgs) -> Result<(), String> {
    let text = fs::read_to_string(&args.results)
        .map_err(|why| format!("cannot read {}: {why}", args.results.display()))?;
    let days: Vec<Day> = text
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|why| format!("a line is no day: {why}")))
        .collect::<Result<_, _>>()?;
    let table = table(&days);
    println!("\n{table}");
    let path = args.into.join("days.md");
    fs::write(&path, &table).map_err(|why| format!("cannot write {}: {why}", path.display()))?;
    for day in &days {
        let path = args.into.join(format!("{}.svg", day.day));
        plot(day, &path).map_err(|why| format!("cannot draw {}: {why}", path.display()))?;
    }
    Ok(())
}

fn table(days: &[Day]) -> String {
    let head = [
        "day",
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
        "{}: {} of {} a second are due, {} is the most",
        day.day,
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
            chart.draw_series([Text::new(
                event.what.clone(),
                (event.at + 0.1, height),
                ("sans-serif", 11).into_font().color(&MARK),
            )])?;
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

    #[test]
    fn a_day_becomes_a_row_and_a_plot() {
        let mut measurement = testing::measurement("holdfast", Workload::Mix, 64, 100.0, 10);
        measurement.windows = vec![Window::default(); 3];
        let day = Day {
            day: "leader-killed".to_owned(),
            saturation: 200.0,
            events: vec![Event {
                at: 1.2,
                what: "kill -9 of node 2".to_owned(),
            }],
            measurement,
        };
        let table = table(std::slice::from_ref(&day));
        assert!(table.contains("| leader-killed |"), "{table}");
        let directory = std::env::temp_dir().join(format!("holdfast-days-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("leader-killed.svg");
        plot(&day, &path).unwrap();
        let svg = fs::read_to_string(&path).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert!(svg.contains("<svg") && svg.contains("kill -9 of node 2"), "{svg}");
        assert!(svg.contains("<polyline"));
    }
}
