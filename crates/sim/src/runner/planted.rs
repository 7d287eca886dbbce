//! The judges are judged: each planted bug must be caught by some seed, soon.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{Failure, swarm};
use crate::planted::{PLANTED, Planted};

/// How a bug fared.
#[derive(Debug, Clone)]
pub struct Catch {
    /// Its name.
    pub name: &'static str,
    /// Within how many seeds it must be caught.
    pub within: u64,
    /// How many seeds it took; none: it escaped.
    pub seeds: Option<u64>,
    /// Who noticed, and what, in the first failing run.
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
    let swarm = swarm::run(&swarm::Plan {
        first,
        count: Some(bug.within),
        planted: Some(bug.name.to_owned()),
        reports: None::<PathBuf>,
        stop_at_failure: true,
        progress: false,
        ..swarm::Plan::default()
    })?;
    let catch = swarm.failures.first();
    let found = Catch {
        name: bug.name,
        within: bug.within,
        seeds: catch.map(|run| run.seed - first + 1),
        by: catch
            .and_then(|run| run.violations.first())
            .map_or_else(String::new, |violation| violation.judge.clone()),
    };
    println!("{}", found.line());
    Ok(found)
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
        "| planted bug | first noticed by | seeds to catch | must be within |\n|---|---|---|---|\n"
            .to_owned();
    for catch in catches {
        // Writing to a string does not fail.
        let _ = writeln!(table, "{}", catch.line());
    }
    table
}
