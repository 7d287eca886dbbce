//! `cargo xtask bench --save NAME`, and `--against NAME` later: the same benchmarks then and now, as ratios.
//!
//! Criterion keeps what it measured in the target directory, one file a benchmark. Machines differ, and one machine differs
//! from itself an hour later; a ratio of medians from one machine, with how sure criterion is of either, is what can be
//! said. It fails nothing: whoever reads it knows what else the machine did.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::{Failure, workspace};

/// One benchmark, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Median {
    at: f64,
    least: f64,
    most: f64,
}

/// Measures and keeps it under a name.
pub(super) fn save(name: &str, rest: &[String]) -> Result<(), Failure> {
    let mut args = vec!["--save-baseline".to_owned(), valid(name)?.to_owned()];
    args.extend_from_slice(rest);
    workspace::bench(&args)
}

/// Measures and prints how it compares with what was kept.
pub(super) fn against(name: &str, rest: &[String]) -> Result<(), Failure> {
    let directory = workspace::target_dir()?.join("criterion");
    let before = medians(&directory, valid(name)?, SystemTime::UNIX_EPOCH)?;
    if before.is_empty() {
        return Err(format!(
            "nothing was kept as `{name}`: `cargo xtask bench --save {name}` does that"
        ));
    }
    let began = SystemTime::now();
    workspace::bench(rest)?;
    let now = medians(&directory, "new", began)?;
    println!(
        "\n{:<56} {:>12} {:>12} {:>8}  between",
        "benchmark", "then", "now", "ratio"
    );
    for (bench, then) in &before {
        let Some((_, now)) = now.iter().find(|(other, _)| other == bench) else {
            println!("{bench:<56} {:>12} {:>12}", time(then.at), "not measured");
            continue;
        };
        println!(
            "{bench:<56} {:>12} {:>12} {:>8.3}  {:.3} and {:.3}",
            time(then.at),
            time(now.at),
            now.at / then.at,
            now.least / then.most,
            now.most / then.least,
        );
    }
    let known = |bench: &String| before.iter().any(|(other, _)| other == bench);
    for (bench, now) in now.iter().filter(|(bench, _)| !known(bench)) {
        println!("{bench:<56} {:>12} {:>12}", "not kept", time(now.at));
    }
    Ok(())
}

/// Names become directories.
fn valid(name: &str) -> Result<&str, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || ["new", "base", "change", "report"].contains(&name) || !name.chars().all(plain) {
        return Err(format!(
            "`{name}` is no name for a baseline: letters, digits, - and _"
        ));
    }
    Ok(name)
}

/// The medians that were kept under a name at this time or later, by benchmark, in the order of their names.
fn medians(directory: &Path, name: &str, since: SystemTime) -> Result<Vec<(String, Median)>, Failure> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(place) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&place) else {
            continue;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if !path.is_dir() {
                continue;
            }
            let estimates = path.join("estimates.json");
            if !path.ends_with(name) || !estimates.exists() {
                waiting.push(path);
                continue;
            }
            let problem = |why: std::io::Error| format!("cannot read {}: {why}", estimates.display());
            let kept = estimates
                .metadata()
                .and_then(|of| of.modified())
                .map_err(problem)?;
            if kept < since {
                continue;
            }
            let text = fs::read_to_string(&estimates).map_err(problem)?;
            let median = median(&text).ok_or_else(|| format!("{} has no median", estimates.display()))?;
            let bench = place.strip_prefix(directory).unwrap_or(&place);
            found.push((bench.display().to_string(), median));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// The median in criterion's estimates.
fn median(json: &str) -> Option<Median> {
    let median = json.split("\"median\":").nth(1)?;
    let number = |key: &str| -> Option<f64> {
        let rest = median.split(&format!("\"{key}\":")).nth(1)?;
        rest.split([',', '}']).next()?.trim().parse().ok()
    };
    Some(Median {
        at: number("point_estimate")?,
        least: number("lower_bound")?,
        most: number("upper_bound")?,
    })
}

fn time(ns: f64) -> String {
    match ns {
        ..1e3 => format!("{ns:.1} ns"),
        ..1e6 => format!("{:.2} us", ns / 1e3),
        _ => format!("{:.2} ms", ns / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_found_among_the_estimates() {
        let json = r#"{"mean":{"confidence_interval":{"confidence_level":0.95,"lower_bound":1.0,"upper_bound":2.0},
            "point_estimate":1.5,"standard_error":0.1},"median":{"confidence_interval":{"confidence_level":0.95,
            "lower_bound":10.0,"upper_bound":12.0},"point_estimate":11.5,"standard_error":0.2}}"#;
        let expected = Median {
            at: 11.5,
            least: 10.0,
            most: 12.0,
        };
        assert_eq!(median(json), Some(expected));
        assert_eq!(median("{}"), None);
    }

    #[test]
    fn names_are_plain() {
        assert!(valid("before-the-change").is_ok());
        for name in ["", "new", "../x", "a b"] {
            assert!(valid(name).is_err(), "{name}");
        }
    }
}
