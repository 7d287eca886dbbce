//! What a failing run leaves behind: one file that tells the whole story without the program.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::config::Configuration;
use crate::history::History;
use crate::summary::Summary;

/// The most trace lines around what happened.
const LINES_MAX: usize = 400;
/// The most operations of the offending part of the history.
const OPERATIONS_MAX: usize = 200;

/// The report of a run: what was wrong, how to see it again, what was done to the cluster, what clients saw, and
/// the trace around it.
pub fn render(
    configuration: &Configuration,
    summary: &Summary,
    history: &History,
    trace: &[String],
) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_to(&mut text, configuration, summary, history, trace);
    text
}

fn write_to(
    text: &mut String,
    configuration: &Configuration,
    summary: &Summary,
    history: &History,
    trace: &[String],
) -> std::fmt::Result {
    writeln!(text, "# {summary}\n")?;
    writeln!(text, "replay: cargo xtask sim --seed {}\n", configuration.seed)?;
    for violation in &summary.violations {
        writeln!(text, "VIOLATION {}: {}", violation.judge, violation.message)?;
        writeln!(text, "          operations {:?}", violation.operations)?;
    }
    writeln!(text, "\n## What was done to the cluster\n")?;
    for fault in &configuration.faults {
        writeln!(
            text,
            "{:>7} ms, for {:>6} ms: {:?}",
            fault.at_ms, fault.for_ms, fault.fault
        )?;
    }
    writeln!(text, "ending: {:?}", configuration.ending)?;

    let named: BTreeSet<u64> = summary
        .violations
        .iter()
        .flat_map(|violation| violation.operations.iter().copied())
        .collect();
    writeln!(text, "\n## The operations that show it\n")?;
    for operation in history
        .operations
        .iter()
        .filter(|operation| named.contains(&operation.id))
        .take(OPERATIONS_MAX)
    {
        let line = serde_json::to_string(operation).unwrap_or_else(|why| why.to_string());
        writeln!(text, "{line}")?;
    }
    if named.len() > OPERATIONS_MAX {
        writeln!(text, "… {} in all", named.len())?;
    }

    writeln!(text, "\n## The trace around them\n")?;
    for line in around(history, &named, trace) {
        writeln!(text, "{line}")?;
    }
    writeln!(text, "\n## The configuration\n")?;
    match toml::to_string_pretty(configuration) {
        Ok(toml) => writeln!(text, "{toml}"),
        Err(why) => writeln!(text, "{why}"),
    }
}

/// The lines from a second before the first named operation to a second after the last; without any, the last
/// lines.
fn around<'t>(history: &History, named: &BTreeSet<u64>, trace: &'t [String]) -> &'t [String] {
    const SECOND: u64 = 1_000_000_000;
    let times: Vec<u64> = history
        .operations
        .iter()
        .filter(|operation| named.contains(&operation.id))
        .flat_map(|operation| [Some(operation.invoked), operation.returned])
        .flatten()
        .collect();
    let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else {
        return &trace[trace.len().saturating_sub(LINES_MAX)..];
    };
    let time = |line: &String| -> u64 {
        line.split_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or(0)
    };
    let from = trace.partition_point(|line| time(line) < first.saturating_sub(SECOND));
    let to = trace.partition_point(|line| time(line) <= last + SECOND);
    &trace[from..to.min(from + LINES_MAX).max(from)]
}
