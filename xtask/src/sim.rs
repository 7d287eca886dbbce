//! `cargo xtask sim`: the simulated clusters, built with `--cfg madsim` into a target directory of their own.
//!
//! The program does the work (`crates/sim/src/command_line.rs`); this builds it and gives it what only a checkout
//! knows: the commit, seeds that follow from it, and where reports of failing runs go.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::{Failure, workspace};

/// How many planted bugs one run of CI looks at; another commit takes others.
const ROTATING_BUGS: usize = 3;
/// How many seeds CI runs twice, to compare every byte.
const PAIRS: u64 = 4;

/// Cargo, set up for simulated builds. A different target directory, since another `RUSTFLAGS` would rebuild
/// everything each time one switches.
pub(crate) fn cargo() -> Result<Command, Failure> {
    let mut command = workspace::cargo();
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    command
        .env("CARGO_TARGET_DIR", workspace::target_dir()?.join("sim"))
        .env("RUSTFLAGS", format!("{flags} --cfg madsim").trim_start());
    Ok(command)
}

/// Runs the command: `[SUBCOMMAND] [options]`, where the options alone say what is meant.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let (named, rest) = match args.first() {
        Some(first) if !first.starts_with("--") => (Some(first.as_str()), &args[1..]),
        _ => (None, args),
    };
    let has = |flag: &str| rest.iter().any(|arg| arg == flag);
    let without = |flag: &str| {
        let others = rest.iter().filter(|arg| *arg != flag);
        others.cloned().collect::<Vec<_>>()
    };
    let one_run = ["--seed", "--scenario", "--configuration"].into_iter().any(has);
    let bug = rest
        .windows(2)
        .any(|pair| pair[0] == "--planted" && !pair[1].starts_with("--"));
    // `--planted [BUG ...]` alone is the hunt; `--seed N --planted BUG` is a run with a bug.
    let (command, mut passed_on) = match named {
        Some(named) => (named, rest.to_vec()),
        None if has("--help") => ("help", Vec::new()),
        None if has("--shrink") => ("shrink", without("--shrink")),
        None if one_run => ("run", rest.to_vec()),
        None if has("--planted") => ("planted", without("--planted")),
        None => ("swarm", rest.to_vec()),
    };
    if has("--ledger") {
        passed_on.extend(["--commit".to_owned(), clean_commit()?]);
    }
    if ["run", "swarm", "regressions"].contains(&command) && !has("--reports") {
        passed_on.extend(["--reports".to_owned(), reports()?.display().to_string()]);
    }
    if command == "swarm" && !has("--first") {
        passed_on.extend(["--first".to_owned(), first_fresh_seed()?.to_string()]);
    }
    program(command == "planted" || bug)?.call(command, &passed_on)
}

/// What CI runs: stored runs that once failed, pairs, planted bugs, and fresh seeds for about `time`. Returns how many
/// of these four passed.
pub(crate) fn continuous_integration(time: Duration) -> Result<u64, Failure> {
    let first = first_fresh_seed()?;
    let program = program(false)?;
    let reports = ["--reports".to_owned(), reports()?.display().to_string()];
    program.call("regressions", &reports)?;
    let seeds = |count: u64| -> Vec<String> {
        ["--first", &first.to_string(), "--count", &count.to_string()]
            .map(str::to_owned)
            .into()
    };
    program.call("pairs", &seeds(PAIRS))?;
    let minutes = (time.as_secs_f64() / 60.0).to_string();
    let mut fresh = ["--first", &first.to_string(), "--minutes", &minutes]
        .map(str::to_owned)
        .to_vec();
    fresh.extend(reports);
    program.call("swarm", &fresh)?;
    let bugs = planted_bugs()?;
    let from = usize::try_from(first).unwrap_or(0);
    let chosen: Vec<String> = (0..ROTATING_BUGS.min(bugs.len()))
        .map(|number| bugs[from.wrapping_add(number) % bugs.len()].clone())
        .collect();
    self::program(true)?.call("planted", &chosen)?;
    Ok(4)
}

/// The names in the table of planted bugs.
fn planted_bugs() -> Result<Vec<String>, Failure> {
    let path = workspace::root().join("crates/sim/src/planted.rs");
    let text =
        std::fs::read_to_string(&path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
    Ok(text
        .split("name: \"")
        .skip(1)
        .filter_map(|rest| Some(rest.split('"').next()?.to_owned()))
        .collect())
}

/// The commit's first 12 hexadecimal digits: a failure can be replayed by whoever has it.
fn first_fresh_seed() -> Result<u64, Failure> {
    let commit = commit()?;
    commit
        .get(..12)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| "git names no commit to take seeds from".to_owned())
}

fn commit() -> Result<String, Failure> {
    git(&["rev-parse", "HEAD"])
}

/// The commit, if it is what is built: runs of anything else would be added up under its name.
fn clean_commit() -> Result<String, Failure> {
    let changed = git(&[
        "status",
        "--porcelain",
        "--",
        "crates",
        "proto",
        "Cargo.toml",
        "Cargo.lock",
    ])?;
    if changed.is_empty() {
        return commit();
    }
    Err(format!(
        "a ledger adds up runs of one commit, and this tree is none: commit or stash first\n{changed}"
    ))
}

fn git(args: &[&str]) -> Result<String, Failure> {
    let output = Command::new("git")
        .args(args)
        .current_dir(workspace::root())
        .output()
        .map_err(|why| format!("cannot run git: {why}"))?;
    if !output.status.success() {
        return Err(format!(
            "git {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

fn reports() -> Result<PathBuf, Failure> {
    Ok(workspace::target_dir()?.join("sim-reports"))
}

/// The built program.
struct Program(PathBuf);

/// Builds the program, with bugs that can be planted or without.
fn program(planted: bool) -> Result<Program, Failure> {
    let mut command = cargo()?;
    command.args(["build", "--package", "holdfast-sim", "--bin", "holdfast-sim"]);
    if planted {
        command.args(["--features", "planted"]);
    }
    let built = command
        .status()
        .map_err(|why| format!("cannot run cargo: {why}"))?;
    if !built.success() {
        return Err("the build failed; what cargo printed above says why".to_owned());
    }
    let built = workspace::target_dir()?.join("sim/debug/holdfast-sim");
    // Both builds have one name, and runs start the program again: each keeps its own.
    let kept = built.with_file_name(if planted {
        "holdfast-sim-planted"
    } else {
        "holdfast-sim-clean"
    });
    std::fs::copy(&built, &kept).map_err(|why| format!("cannot copy {}: {why}", built.display()))?;
    Ok(Program(kept))
}

impl Program {
    fn call(&self, command: &str, args: &[String]) -> Result<(), Failure> {
        let status = Command::new(&self.0)
            .arg(command)
            .args(args)
            .status()
            .map_err(|why| format!("cannot run {}: {why}", self.0.display()))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("`{command}` of the simulation: {status}"))
        }
    }
}
