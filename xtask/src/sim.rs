//! `cargo xtask sim`: the simulated cluster, built with `--cfg madsim` into a target directory of its own.
//!
//! One process a seed: parts of the runtime count process-wide, so a second seed in the same process would not
//! replay what it does alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{Failure, workspace};

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

/// Runs the command.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let mut first_seed = 1;
    let mut count = 1;
    let mut passed_on = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--seed" => first_seed = number("--seed", rest.next())?,
            "--count" => count = number("--count", rest.next())?,
            "--logs" => passed_on.extend(["--logs", rest.next().ok_or("--logs needs a level")?]),
            other => return Err(format!("sim has no `{other}`")),
        }
    }
    // Many seeds are for finding the one worth reading.
    if count > 1 {
        passed_on.push("--quiet");
    }
    let program = build()?;
    for seed in first_seed..first_seed.saturating_add(count) {
        run_seed(&program, seed, &passed_on)?;
    }
    Ok(())
}

/// Runs seeds nobody has seen before, for about this long, and returns how many. They follow from the commit, so a
/// failure can be replayed by whoever has it.
pub(crate) fn fresh_seeds(time: Duration) -> Result<u64, Failure> {
    let program = build()?;
    let first = first_fresh_seed()?;
    println!("seeds from {first} on");
    let began = Instant::now();
    let mut run = 0;
    while began.elapsed() < time {
        run_seed(&program, first + run, &["--quiet"])?;
        run += 1;
    }
    Ok(run)
}

/// The commit's first 12 hexadecimal digits.
fn first_fresh_seed() -> Result<u64, Failure> {
    let output = Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(workspace::root())
        .output()
        .map_err(|why| format!("cannot run git: {why}"))?;
    let commit = String::from_utf8_lossy(&output.stdout);
    commit
        .get(..12)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| "git names no commit to take seeds from".to_owned())
}

/// Builds the program that runs one seed, and says where it is.
fn build() -> Result<PathBuf, Failure> {
    let built = cargo()?
        .args(["build", "--package", "holdfast-sim", "--bin", "holdfast-sim"])
        .status()
        .map_err(|why| format!("cannot run cargo: {why}"))?;
    if !built.success() {
        return Err("the build failed; what cargo printed above says why".to_owned());
    }
    Ok(workspace::target_dir()?.join("sim/debug/holdfast-sim"))
}

fn run_seed(program: &Path, seed: u64, args: &[&str]) -> Result<(), Failure> {
    let status = Command::new(program)
        .args(["--seed", &seed.to_string()])
        .args(args)
        .status()
        .map_err(|why| format!("cannot run {}: {why}", program.display()))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!(
            "seed {seed} fails; replay it with `cargo xtask sim --seed {seed} --logs info`"
        ))
    }
}

fn number(flag: &str, value: Option<&String>) -> Result<u64, Failure> {
    value
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("{flag} needs a number"))
}
