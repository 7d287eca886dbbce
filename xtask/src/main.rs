//! `cargo xtask`: what a person or CI does with this repository, in one word each.
//!
//! * `up` and `down` run a three-node cluster on loopback from `cluster/local/`;
//! * `test` runs everything CI runs, `sim` only the simulated cluster, `bench` the benchmarks;
//! * `generate` writes accounts for imports and experiments.
//!
//! No dependencies, so that the first command a newcomer types compiles in a second or two. Everything that
//! needs a running node goes through the `holdfast` binary, as a user would.

mod bench;
mod down;
mod generate;
mod local;
mod names;
mod prerequisites;
mod random;
mod sim;
mod test;
mod up;
mod workspace;

use std::process::ExitCode;

/// What went wrong, in words for the person at the terminal.
pub(crate) type Failure = String;

const USAGE: &str = "\
cargo xtask COMMAND

  up                 build Holdfast and start three nodes on loopback (again: starts what is not running)
  down [--wipe]      stop them; --wipe removes their data too
  test [STEP ...]    everything CI runs, in order; or only the steps named
                     (fmt, clippy, deny, unit, doc-tests, sim, e2e, tour, docs)
  sim [--minutes M] [--ledger FILE]
                     simulated clusters of many seeds, one process each, on all cores (a minute, if not told)
  sim --seed N | --scenario NAME
                     one of them again, with its whole trace
  sim --shrink --seed N
                     the smallest run found that still fails
  sim --planted [BUG ...]
                     plant bugs on purpose: do the judges notice, and after how many seeds?
  sim help           what else it can do: show, pairs, regressions, ledger
  bench [FILTER]     the parts of a write, the engine, Raft, one by one (criterion)
  bench peers | days | growth | profile | figures
                     beside etcd and PostgreSQL, on bad days, with more clients and accounts, by perf; all of it but an
                     hour of soak, for the repository
  bench --help       what else it can do: keep what was measured, and compare
  generate N [--seed N] [--out FILE] [--clean]
                     N accounts as JSON Lines, collisions and mistakes included on purpose
";

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let command = if args.is_empty() {
        "help".to_owned()
    } else {
        args.remove(0)
    };
    let result = match command.as_str() {
        "up" => up::run(&args),
        "down" => down::run(&args),
        "test" => test::run(&args),
        "sim" => sim::run(&args),
        "bench" => bench::run(&args),
        "generate" => generate::run(&args),
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => Err(format!("there is no `{other}`\n\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("cargo xtask {command}: {why}");
            ExitCode::FAILURE
        }
    }
}
