//! `cargo xtask test`: everything CI runs, in the order in which a mistake is cheapest to find.
//!
//! It stops at the first step that fails. Its last line, `N passed, N failed, N skipped`, adds up the closing
//! lines of the test runners it ran. A test that cannot run on this machine (no Python, no user namespaces) says
//! why in the file named by `HOLDFAST_TEST_SKIPS`; those are listed and counted as skipped, not as passed.

mod tally;
mod tour;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::{Failure, prerequisites, sim, workspace};
use tally::Tally;

/// The steps, in order: name on the command line, and what it shows.
const STEPS: [(&str, &str); 10] = [
    ("fmt", "formatting"),
    ("clippy", "lints, warnings denied"),
    ("deny", "licences, bans, sources"),
    ("unit", "unit, property and contract tests"),
    ("doc-tests", "examples in the documentation"),
    ("sim", "the simulated cluster"),
    (
        "seeds",
        "simulated clusters: stored runs, pairs, seeds that follow from the commit, planted bugs",
    ),
    ("e2e", "end to end over real processes"),
    ("tour", "the README's tour, word for word"),
    ("docs", "documentation, warnings denied"),
];

/// The tests that only exist in a simulation, by package.
const SIMULATED_TESTS: [(&str, &[&str]); 3] = [
    ("holdfast-sim", &["one_seed", "workload"]),
    ("holdfast-rpc", &["network"]),
    ("holdfast-consensus", &["simulated"]),
];

/// How long fresh seeds are run.
const FRESH_SEEDS: Duration = Duration::from_secs(6 * 60);

/// What became of a step.
enum StepEnd {
    Passed,
    Skipped(String),
    Failed(String),
}

/// Runs the command.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    if let Some(unknown) = args.iter().find(|arg| STEPS.iter().all(|(name, _)| name != arg)) {
        let names: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "there is no step `{unknown}`; the steps are {}",
            names.join(", ")
        ));
    }
    prerequisites::ensure()?;
    let skips = workspace::target_dir()?.join("holdfast-test-skips.txt");
    if let Some(parent) = skips.parent() {
        fs::create_dir_all(parent).map_err(|why| format!("cannot create {}: {why}", parent.display()))?;
    }
    fs::write(&skips, "").map_err(|why| format!("cannot write {}: {why}", skips.display()))?;

    let began = Instant::now();
    let mut tally = Tally::default();
    let mut timings = Vec::new();
    let mut failure = None;
    for (name, what) in STEPS {
        if !args.is_empty() && !args.iter().any(|arg| arg == name) {
            continue;
        }
        println!("\n==> {name}: {what}");
        let step_began = Instant::now();
        let failed_before = tally.failed;
        let end = step(name, &skips, &mut tally)?;
        let took = step_began.elapsed();
        let word = match end {
            StepEnd::Passed => "ok".to_owned(),
            StepEnd::Skipped(why) => {
                println!("skipped: {why}");
                tally.skipped += 1;
                format!("skipped: {why}")
            }
            StepEnd::Failed(why) => {
                // A step that is no test run, or a run that died before it could count.
                if tally.failed == failed_before {
                    tally.failed += 1;
                }
                failure = Some(format!("{name}: {why}"));
                "FAILED".to_owned()
            }
        };
        timings.push((name, took, word));
        if failure.is_some() {
            break;
        }
    }
    close(&skips, tally, &timings, began.elapsed());
    failure.map_or(Ok(()), Err)
}

/// Prints the timings, the skips and the last line.
fn close(skips: &Path, mut tally: Tally, timings: &[(&str, Duration, String)], total: Duration) {
    println!("\n==> summary");
    for (name, took, word) in timings {
        println!("{name:>10} {:>8.1} s  {word}", took.as_secs_f64());
    }
    println!("{:>10} {:>8.1} s", "total", total.as_secs_f64());
    for line in fs::read_to_string(skips).unwrap_or_default().lines() {
        println!("skipped: {line}");
        // The runner saw it return without an error.
        tally.passed = tally.passed.saturating_sub(1);
        tally.skipped += 1;
    }
    println!(
        "{} passed, {} failed, {} skipped",
        tally.passed, tally.failed, tally.skipped
    );
}

fn step(name: &str, skips: &Path, tally: &mut Tally) -> Result<StepEnd, Failure> {
    let nextest = workspace::installed("cargo-nextest");
    let mut command = workspace::cargo();
    match name {
        "fmt" => {
            command.args(["fmt", "--all", "--check"]);
        }
        "clippy" => {
            command.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
        }
        "deny" => {
            if !workspace::installed("cargo-deny") {
                return Ok(StepEnd::Skipped(
                    "cargo-deny is not installed (cargo install cargo-deny)".to_owned(),
                ));
            }
            // Advisories need a database from the network; they have a command of their own.
            command.args(["deny", "--workspace", "check", "bans", "licenses", "sources"]);
        }
        "unit" if nextest => {
            command.args([
                "nextest",
                "run",
                "--workspace",
                "--exclude",
                "holdfast-tests",
                "--no-tests",
                "pass",
                "--no-fail-fast",
            ]);
        }
        "unit" => {
            command.args([
                "test",
                "--workspace",
                "--exclude",
                "holdfast-tests",
                "--lib",
                "--bins",
                "--tests",
                "--no-fail-fast",
            ]);
        }
        "doc-tests" => {
            command.args(["test", "--workspace", "--doc"]);
        }
        "sim" => {
            command = sim::cargo()?;
            // One process a test, with either runner: see the sim module.
            command.args(if nextest {
                ["nextest", "run"].as_slice()
            } else {
                ["test"].as_slice()
            });
            for (package, tests) in SIMULATED_TESTS {
                command.args(["--package", package]);
                for test in tests {
                    command.args(["--test", test]);
                }
            }
            if !nextest {
                command.args(["--", "--test-threads=1"]);
            }
        }
        "seeds" => {
            return Ok(match sim::continuous_integration(FRESH_SEEDS) {
                Ok(parts) => {
                    tally.passed += parts;
                    StepEnd::Passed
                }
                Err(why) => StepEnd::Failed(why),
            });
        }
        "e2e" => {
            command.env("HOLDFAST_BIN", workspace::build_holdfast()?);
            if nextest {
                command.args(["nextest", "run", "--package", "holdfast-tests", "--no-fail-fast"]);
            } else {
                command.args([
                    "test",
                    "--package",
                    "holdfast-tests",
                    "--no-fail-fast",
                    "--",
                    "--test-threads=1",
                ]);
            }
        }
        "tour" => {
            if let Some(why) = tour::obstacle() {
                return Ok(StepEnd::Skipped(why));
            }
            let end = stream(&mut tour::command(&tour::script()?), tally);
            tour::clean_up();
            tally.passed += u64::from(matches!(end, Ok(StepEnd::Passed)));
            return end;
        }
        "docs" => {
            // Module headers point at private items too, for whoever reads the source.
            let flags = "-D warnings -A rustdoc::private_intra_doc_links";
            command
                .args(["doc", "--workspace", "--no-deps"])
                .env("RUSTDOCFLAGS", flags);
        }
        _ => return Ok(StepEnd::Failed("no such step".to_owned())),
    }
    stream(command.env("HOLDFAST_TEST_SKIPS", skips), tally)
}

/// Runs `command`, passes on what it prints and counts the runner's closing lines in it.
fn stream(command: &mut Command, tally: &mut Tally) -> Result<StepEnd, Failure> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|why| format!("cannot start it: {why}"))?;
    let (lines, received) = mpsc::channel();
    let out = child.stdout.take().map(|pipe| read_lines(pipe, lines.clone()));
    let err = child.stderr.take().map(|pipe| read_lines(pipe, lines));
    for line in received {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
        tally.read(&String::from_utf8_lossy(&line));
    }
    for reader in [out, err].into_iter().flatten() {
        let _ = reader.join();
    }
    let status = child.wait().map_err(|why| format!("cannot wait for it: {why}"))?;
    Ok(if status.success() {
        StepEnd::Passed
    } else {
        StepEnd::Failed(format!("it ended with {status}"))
    })
}

fn read_lines(pipe: impl Read + Send + 'static, lines: mpsc::Sender<Vec<u8>>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if lines.send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    })
}
