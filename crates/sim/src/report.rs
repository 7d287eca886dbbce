//! What a failing run leaves behind: one file that tells the whole story without the program.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::config::Configuration;
use crate::history::History;
use crate::summary::Summary;

/// The most lines of the trace, and of the messages, around what happened.
const LINES_MAX: usize = 600;
/// The most operations of the offending part of the history.
const OPERATIONS_MAX: usize = 200;
/// The longest time around a moment that is shown, nanoseconds.
const AROUND_MAX: u64 = 1_000_000_000;
/// The shortest.
const AROUND_MIN: u64 = 1_000_000;

/// Lines of the trace that say what was done to the cluster, and how it took it.
const TIMELINE: [&str; 26] = [
    "machine",
    "prepared",
    "fault",
    "target",
    "fault_over",
    "cut",
    "mended",
    "reset",
    "stranger",
    "kill",
    "cut_power",
    "disk_fails",
    "disk_failed",
    "stop",
    "stopped",
    "pause",
    "resume",
    "wipe",
    "restart",
    "start_failed",
    "fatal",
    "operator",
    "retire",
    "leads",
    "heal",
    "violation",
];

/// The report of a run: what was wrong, how to see it again, what was done to the cluster, what clients saw, and
/// the trace and the messages around it.
pub fn render(
    configuration: &Configuration,
    summary: &Summary,
    history: &History,
    trace: &[String],
    messages: &[String],
) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_to(&mut text, configuration, summary, history, trace, messages);
    text
}

fn write_to(
    text: &mut String,
    configuration: &Configuration,
    summary: &Summary,
    history: &History,
    trace: &[String],
    messages: &[String],
) -> std::fmt::Result {
    writeln!(text, "# {summary}\n")?;
    writeln!(text, "replay: {}\n", summary.replay)?;
    for violation in &summary.violations {
        writeln!(text, "VIOLATION {}: {}", violation.judge, violation.message)?;
        writeln!(text, "          operations {:?}", violation.operations)?;
    }
    writeln!(text, "\n## What was planned\n")?;
    for fault in &configuration.faults {
        writeln!(
            text,
            "{:>7} ms, for {:>6} ms: {:?}",
            fault.at_ms, fault.for_ms, fault.fault
        )?;
    }
    if let Some(crash) = &configuration.founding {
        writeln!(text, "while the cluster is founded: {crash:?}")?;
    }
    writeln!(text, "ending: {:?}", configuration.ending)?;
    writeln!(
        text,
        "\n## What was done to the cluster (simulated nanoseconds)\n"
    )?;
    for line in trace.iter().filter(|line| TIMELINE.contains(&event(line))) {
        writeln!(text, "{line}")?;
    }

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

    let moments = moments(history, &named, trace);
    writeln!(text, "\n## The trace around it\n")?;
    around(text, &moments, trace)?;
    writeln!(
        text,
        "\n## The messages around it (machines by the simulator's numbers)\n"
    )?;
    around(text, &moments, messages)?;
    writeln!(text, "\n## The configuration\n")?;
    match toml::to_string_pretty(configuration) {
        Ok(toml) => writeln!(text, "{toml}"),
        Err(why) => writeln!(text, "{why}"),
    }
}

/// When a line was written.
fn time(line: &str) -> u64 {
    let first = line.split_whitespace().next();
    first.and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// What a line is about.
fn event(line: &str) -> &str {
    line.split_whitespace().nth(1).unwrap_or_default()
}

/// When it happened: when the named operations began and ended, and when a judge objected. Without any, the end.
fn moments(history: &History, named: &BTreeSet<u64>, trace: &[String]) -> BTreeSet<u64> {
    let named = history
        .operations
        .iter()
        .filter(|operation| named.contains(&operation.id));
    let mut moments: BTreeSet<u64> = named
        .flat_map(|operation| [Some(operation.invoked), operation.returned])
        .flatten()
        .collect();
    let objections = trace.iter().filter(|line| event(line) == "violation");
    moments.extend(objections.map(|line| time(line)));
    if moments.is_empty() {
        moments.extend(trace.last().map(|line| time(line)));
    }
    moments
}

/// The lines around the moments: a second before and after each, or less, so that there are not too many.
fn around(text: &mut String, moments: &BTreeSet<u64>, lines: &[String]) -> std::fmt::Result {
    let mut within = AROUND_MAX;
    let near = |line: &&String, within: u64| {
        let at = time(line);
        let range = at.saturating_sub(within)..=at.saturating_add(within);
        moments.range(range).next().is_some()
    };
    let count = |within: u64| lines.iter().filter(|line| near(line, within)).count();
    while within > AROUND_MIN && count(within) > LINES_MAX {
        within /= 2;
    }
    writeln!(text, "({} ms before and after each moment)", within / 1_000_000)?;
    let shown = lines.iter().filter(|line| near(line, within));
    for line in shown.take(LINES_MAX) {
        writeln!(text, "{line}")?;
    }
    let more = count(within).saturating_sub(LINES_MAX);
    if more > 0 {
        writeln!(text, "… and {more} lines more")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Consistency, Input, Operation, Outcome};

    fn operation(id: u64, invoked: u64) -> Operation {
        Operation {
            id,
            client: 1,
            invoked,
            returned: Some(invoked + 5_000_000),
            request_id: None,
            input: Input::Get {
                account: "a".into(),
                consistency: Consistency::Linearizable,
            },
            outcome: Outcome::Unknown,
        }
    }

    #[test]
    fn what_is_shown_is_near_to_what_happened_however_much_there_is() {
        let history = History {
            operations: vec![operation(1, 4_000_000_000), operation(2, 9_000_000_000)],
        };
        let trace: Vec<String> = (0..20_000_u64)
            .map(|n| format!("{:>14} call n={n}", n * 1_000_000))
            .collect();
        let named = BTreeSet::from([1, 2]);
        let moments = moments(&history, &named, &trace);
        let mut text = String::new();
        around(&mut text, &moments, &trace).unwrap();
        assert!(text.lines().count() <= LINES_MAX + 2);
        assert!(
            text.contains("n=4000\n") && text.contains("n=9005\n"),
            "both are there"
        );
        assert!(!text.contains("n=6000\n"), "what lies between them is not");
    }

    #[test]
    fn without_operations_the_objection_says_where_to_look() {
        let trace = ["    1000 call x".to_owned(), "    2000 violation y".to_owned()];
        let found = moments(&History::default(), &BTreeSet::new(), &trace);
        assert_eq!(found, BTreeSet::from([2000]));
    }
}
