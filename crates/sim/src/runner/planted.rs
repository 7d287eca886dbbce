//! The judges are judged: each planted bug must be caught by some seed, soon.

use std::fmt::Write as _;

use super::{Failure, child, swarm};
use crate::planted::{PLANTED, Planted};
use crate::summary::Summary;

/// How a bug fared.
#[derive(Debug, Clone)]
pub struct Catch {
    /// Its name.
    pub name: &'static str,
    /// Within how many seeds it must be caught.
    pub within: u64,
    /// How many seeds it took; none: it escaped.
    pub seeds: Option<u64>,
    /// Who noticed in the first run that fails because of it.
    pub by: String,
}

/// Plants each bug in turn, or only those named, and runs seeds until one fails.
///
/// # Errors
/// If a name is unknown, or runs cannot be started.
pub fn hunt(names: &[String], first: u64) -> Result<Vec<Catch>, Failure> {
    if let Some(unknown) = names
        .iter()
        .find(|name| PLANTED.iter().all(|bug| bug.name != **name))
    {
        return Err(format!("no bug is called {unknown}"));
    }
    PLANTED
        .iter()
        .filter(|bug| names.is_empty() || names.iter().any(|name| name == bug.name))
        .map(|bug| hunt_one(bug, first))
        .collect()
}

fn hunt_one(bug: &Planted, first: u64) -> Result<Catch, Failure> {
    let end = first.saturating_add(bug.within);
    let mut from = first;
    let mut found = None;
    while found.is_none() && from < end {
        let swarm = swarm::run(&swarm::Plan {
            first: from,
            count: Some(end - from),
            planted: Some(bug.name.to_owned()),
            stop_at_failure: true,
            progress: false,
            ..swarm::Plan::default()
        })?;
        from = swarm.next;
        for run in swarm.failures {
            // A seed that fails without the bug too says nothing about it.
            let healthy = child::run(&child::What::Seed(run.seed), &child::How::default())?;
            if healthy.violations.is_empty() {
                found = Some(run);
                break;
            }
            println!("seed {} fails without `{}` too", run.seed, bug.name);
        }
    }
    let catch = Catch {
        name: bug.name,
        within: bug.within,
        seeds: found.as_ref().map(|run| run.seed - first + 1),
        by: found.map_or_else(String::new, |run| judges(&run)),
    };
    println!("{}", catch.line());
    Ok(catch)
}

/// Who objected to a run, each once, in the order of their objections.
fn judges(run: &Summary) -> String {
    let mut names: Vec<&str> = Vec::new();
    for violation in &run.violations {
        if !names.contains(&violation.judge.as_str()) {
            names.push(&violation.judge);
        }
    }
    names.join(", ")
}

impl Catch {
    /// A line of the table.
    pub fn line(&self) -> String {
        let seeds = self
            .seeds
            .map_or_else(|| "ESCAPED".to_owned(), |seeds| seeds.to_string());
        format!("| {} | {} | {seeds} | {} |", self.name, self.by, self.within)
    }
}

/// The table as it stands in the README.
pub fn table(catches: &[Catch]) -> String {
    let mut table =
        "| planted bug | noticed by | seeds to catch | must be within |\n|---|---|---|---|\n".to_owned();
    for catch in catches {
        // Writing to a string does not fail.
        let _ = writeln!(table, "{}", catch.line());
    }
    table
}
