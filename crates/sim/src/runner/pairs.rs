//! One seed is one run: two processes in different surroundings print the same bytes.

use std::path::Path;
use std::process::Output;

use super::{Failure, child};

/// Runs a seed twice and compares every byte of its trace.
///
/// # Errors
/// If they differ (and where), or one cannot be run.
pub fn check(seed: u64) -> Result<(), Failure> {
    let here = std::env::current_dir().map_err(|why| why.to_string())?;
    let first = run(seed, &here, "one")?;
    let second = run(seed, &std::env::temp_dir(), "another, much longer than the first")?;
    if first.stdout == second.stdout {
        return Ok(());
    }
    let lines = |output: &Output| -> Vec<String> {
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect()
    };
    let (first, second) = (lines(&first), lines(&second));
    let at = first.iter().zip(&second).take_while(|(a, b)| a == b).count();
    let end = "the end".to_owned();
    Err(format!(
        "seed {seed} gave two traces; they part at line {}:\n  {}\n  {}",
        at + 1,
        first.get(at).unwrap_or(&end),
        second.get(at).unwrap_or(&end)
    ))
}

fn run(seed: u64, directory: &Path, surroundings: &str) -> Result<Output, Failure> {
    child::command(&child::What::Seed(seed), &child::How::default())?
        .args(["--logs", "info"])
        .current_dir(directory)
        .env("HOLDFAST_SIM_SURROUNDINGS", surroundings)
        .output()
        .map_err(|why| format!("cannot start a run: {why}"))
}
