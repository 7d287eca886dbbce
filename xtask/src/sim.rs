//! `cargo xtask sim`: the simulated cluster, built with `--cfg madsim` into a target directory of its own.
//!
//! One process a seed: parts of the runtime count process-wide, so a second seed in the same process would not
//! replay what it does alone.

use std::process::Command;

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
    let mut first_seed = None;
    let mut count = 1;
    let mut filter: Option<&str> = None;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--seed" => first_seed = Some(number("--seed", rest.next())?),
            "--count" => count = number("--count", rest.next())?,
            flag if flag.starts_with('-') => return Err(format!("sim has no `{flag}`")),
            name => filter = Some(name),
        }
    }
    let first_seed = first_seed.unwrap_or(1);
    for seed in first_seed..first_seed.saturating_add(count) {
        println!("Seed {seed}");
        let mut command = cargo()?;
        command.args(["test", "--package", "holdfast-sim"]).args(filter);
        let status = command
            .env("MADSIM_TEST_SEED", seed.to_string())
            .status()
            .map_err(|why| format!("cannot run cargo: {why}"))?;
        if !status.success() {
            return Err(format!(
                "seed {seed} fails; replay it with `cargo xtask sim --seed {seed}`"
            ));
        }
    }
    Ok(())
}

fn number(flag: &str, value: Option<&String>) -> Result<u64, Failure> {
    value
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("{flag} needs a number"))
}
