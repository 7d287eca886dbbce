//! Makes a failing run smaller: takes away faults, kinds of operation, clients, calls and time, as long as the same judge
//! still objects (delta debugging; Zeller and Hildebrandt, *Simplifying and Isolating Failure-Inducing Input*,
//! 2002, without its last percent).

use std::path::{Path, PathBuf};

use super::regressions::Stored;
use super::{Failure, child};
use crate::config::{Configuration, Ending};

/// More calls than clients make in any run.
const CALLS_MAX: u64 = 16_384;

/// Shrinks, writing the smallest configuration found to `path` each time it gets smaller; what is tried is beside it
/// meanwhile. Returns the smallest.
///
/// # Errors
/// If the run does not fail to begin with, or a run cannot be started.
pub fn shrink(configuration: Configuration, path: &Path) -> Result<Configuration, Failure> {
    let mut work = Shrinker {
        path,
        trial: path.with_extension("trial"),
        judge: String::new(),
        runs: 0,
    };
    let Some(judge) = work.objection(&configuration)? else {
        return Err("the run does not fail, so there is nothing to shrink".to_owned());
    };
    println!("the judge `{judge}` objects; taking things away while it still does");
    work.judge = judge;
    let mut smallest = configuration;
    loop {
        let before = smallest.clone();
        smallest = work.fewer_faults(smallest)?;
        smallest = work.less_work(smallest)?;
        if smallest == before {
            work.store(&smallest, path)?;
            // It is of no use any more, and no harm.
            let _ = std::fs::remove_file(&work.trial);
            println!(
                "{} faults, {} kinds of operation, {} clients, at most {} calls, {} s after {} runs",
                smallest.faults.len(),
                smallest.workload.weights.len(),
                smallest.workload.clients,
                smallest.workload.calls_max.unwrap_or(CALLS_MAX),
                smallest.safety_ms / 1000,
                work.runs
            );
            return Ok(smallest);
        }
    }
}

struct Shrinker<'a> {
    path: &'a Path,
    /// Where what is tried is kept while it runs.
    trial: PathBuf,
    judge: String,
    runs: u32,
}

impl Shrinker<'_> {
    /// Halves of the faults first, then quarters, down to single ones.
    fn fewer_faults(&mut self, mut smallest: Configuration) -> Result<Configuration, Failure> {
        let mut chunk = smallest.faults.len().div_ceil(2);
        while chunk > 0 && !smallest.faults.is_empty() {
            let mut from = 0;
            while from < smallest.faults.len() {
                let mut smaller = smallest.clone();
                smaller
                    .faults
                    .drain(from..(from + chunk).min(smallest.faults.len()));
                if self.still_fails(&smaller)? {
                    smallest = smaller;
                } else {
                    from += chunk;
                }
            }
            chunk /= 2;
        }
        Ok(smallest)
    }

    fn less_work(&mut self, mut smallest: Configuration) -> Result<Configuration, Failure> {
        for action in smallest.workload.weights.keys().copied().collect::<Vec<_>>() {
            let mut smaller = smallest.clone();
            smaller.workload.weights.remove(&action);
            if !smaller.workload.weights.is_empty() && self.still_fails(&smaller)? {
                smallest = smaller;
            }
        }
        let simpler: [fn(&mut Configuration); 8] = [
            |smaller| smaller.founding = None,
            |smaller| smaller.ending = Ending::Healed,
            |smaller| smaller.workload.clients = (smaller.workload.clients / 2).max(1),
            |smaller| smaller.safety_ms = (smaller.safety_ms / 2).max(1_000),
            |smaller| smaller.workload.hot_accounts = (smaller.workload.hot_accounts / 2).max(1),
            |smaller| smaller.workload.tail_accounts = (smaller.workload.tail_accounts / 2).max(1),
            |smaller| smaller.network.loss = 0.0,
            |smaller| smaller.network.silent = 0.0,
        ];
        for simplify in simpler {
            let mut smaller = smallest.clone();
            simplify(&mut smaller);
            if smaller != smallest && self.still_fails(&smaller)? {
                smallest = smaller;
            }
        }
        self.fewer_calls(smallest)
    }

    /// The fewest calls, by halves: the first so many of those that clients made.
    fn fewer_calls(&mut self, mut smallest: Configuration) -> Result<Configuration, Failure> {
        let (mut least, mut most) = (0, smallest.workload.calls_max.unwrap_or(CALLS_MAX));
        while most - least > 1 + most / 16 {
            let middle = least + (most - least) / 2;
            let mut smaller = smallest.clone();
            smaller.workload.calls_max = Some(middle);
            if self.still_fails(&smaller)? {
                (smallest, most) = (smaller, middle);
            } else {
                least = middle;
            }
        }
        Ok(smallest)
    }

    fn still_fails(&mut self, configuration: &Configuration) -> Result<bool, Failure> {
        let fails = self
            .objection(configuration)?
            .is_some_and(|judge| judge == self.judge);
        if fails {
            self.store(configuration, self.path)?;
        }
        Ok(fails)
    }

    /// The first judge that objects to the run.
    fn objection(&mut self, configuration: &Configuration) -> Result<Option<String>, Failure> {
        self.runs += 1;
        self.store(configuration, &self.trial)?;
        let summary = child::run(&child::What::Stored(&self.trial), &child::How::default())?;
        Ok(summary
            .violations
            .into_iter()
            .next()
            .map(|violation| violation.judge))
    }

    fn store(&self, configuration: &Configuration, path: &Path) -> Result<(), Failure> {
        Stored {
            story: "Not told yet.".to_owned(),
            configuration: configuration.clone(),
        }
        .write(path)
    }
}
