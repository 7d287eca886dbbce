//! `cargo xtask bench profile`: what nodes spend their processor time on, at 64 clients.
//!
//! For each workload a new cluster is put under a closed loop while `perf` samples all nodes; `benches/peers` says which part of
//! the work a sample belongs to, and makes the table.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::calls::{append, begin, ended, finished, report_of, taken};
use super::cluster::{self, Cluster};
use super::install::{self, Programs, Tools};
use super::peers::{named, number};
use super::points::FEW_ACCOUNTS;
use super::results::Results;
use super::store::Store;
use crate::{Failure, prerequisites, workspace};

const USAGE: &str = "\
cargo xtask bench profile [OPTION ...]

  --workload NAME    only this one (again: and this one): create, update, get, lookup, mix [default: all]
  --seconds S        how long perf looks, at most 60 [default: 6]
  --debug-build      build Holdfast as `cargo xtask up` does: to try this, not for figures
  --programs DIR     build nothing: take holdfast and holdfast-bench-peers from there
";

const WORKLOADS: [&str; 5] = ["create", "update", "get", "lookup", "mix"];
const CLIENTS: &str = "64";
/// Until the load is even, seconds.
const WARM_UP: &str = "5";
/// Samples a second of each processor. Some thousand samples tell a percent from two, and take the nodes little time.
const FREQUENCY: &str = "499";
/// How frames are found: by the debug information, because RocksDB is built without frame pointers, in so many bytes of the
/// stack. In fewer, who called RocksDB from within a handler is often not seen.
const CALL_GRAPH: &str = "dwarf,32768";

const PERF_BY_HAND: &str = "install perf, then run this again\n  Debian: apt-get install linux-perf\n  \
     Ubuntu: apt-get install linux-tools-generic\n  Fedora: dnf install perf";

struct Request {
    workloads: Vec<&'static str>,
    seconds: f64,
    programs: Programs,
}

impl Request {
    fn parse(args: &[String]) -> Result<Request, Failure> {
        let mut request = Request {
            workloads: Vec::new(),
            seconds: 6.0,
            programs: Programs::Release,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || {
                args.next()
                    .ok_or_else(|| format!("{arg} needs a value\n\n{USAGE}"))
            };
            match arg.as_str() {
                "--debug-build" => request.programs = Programs::Debug,
                "--workload" => {
                    let workload = named("workload", &WORKLOADS, |name| name, value()?);
                    let workload = workload.map_err(|why| format!("{why}\n\n{USAGE}"))?;
                    // Each has one file.
                    if !request.workloads.contains(&workload) {
                        request.workloads.push(workload);
                    }
                }
                "--seconds" => request.seconds = number(arg, value()?)?,
                "--programs" => request.programs = Programs::In(value()?.into()),
                _ => return Err(format!("there is no `{arg}`\n\n{USAGE}")),
            }
        }
        if request.workloads.is_empty() {
            request.workloads = WORKLOADS.to_vec();
        }
        if !(1.0..=60.0).contains(&request.seconds) {
            return Err("perf looks for 1 to 60 seconds".to_owned());
        }
        Ok(request)
    }
}

/// Runs the command. Returns what it measured, unless help was asked for.
pub(super) fn run(args: &[String]) -> Result<Option<Results>, Failure> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{USAGE}");
        return Ok(None);
    }
    let request = Request::parse(args)?;
    if !workspace::installed("perf") {
        println!("Missing: linux-perf (it samples the nodes).");
        prerequisites::install(&["linux-perf"], PERF_BY_HAND)?;
    }
    let tools = install::tools(&[Store::Holdfast], &request.programs)?;
    let home = cluster::home()?;
    let results = Results::create(&home, "Where the time goes", "profile", args, &request.programs)?;
    let lines = results.file("profile.jsonl");
    for workload in &request.workloads {
        println!("==> {workload}");
        let line = sample(&tools, &home, results.directory(), workload, request.seconds)?;
        append(&lines, &line)?;
    }
    report_of(
        &tools.peers,
        "profile",
        &lines,
        &results,
        "profile.md, profile.jsonl, NAME.stacks",
    )?;
    Ok(Some(results))
}

/// One workload: the line for the report.
fn sample(
    tools: &Tools,
    home: &Path,
    results: &Path,
    workload: &str,
    seconds: f64,
) -> Result<String, Failure> {
    let cluster = Cluster::start(Store::Holdfast, tools, &home.join("data"))?;
    let scratch = results.join("one.jsonl");
    let accounts = FEW_ACCOUNTS.to_string();
    let mut fill = cluster.load()?;
    fill.args(["--prepare", &accounts]).arg("--out").arg(&scratch);
    finished("filling it", fill.output())?;
    taken(&scratch)?;
    let mut load = cluster.load()?;
    load.args(["--workload", workload, "--clients", CLIENTS])
        .args(["--accounts", &accounts])
        .args(["--warm-up", WARM_UP, "--seconds", &seconds.to_string()]);
    load.arg("--out").arg(&scratch);
    let leader = cluster.leader()?;
    let pid = cluster.pids().get(leader - 1).cloned().ok_or("a node ended")?;
    let load = begin(load, Stdio::inherit())?;
    let samples = record(&cluster, &results.join(format!("{workload}.perf")), seconds);
    ended(load)?;
    let samples = samples?;
    if cluster.leader()? != leader {
        return Err("another node leads now: the shares would be of two leaders; run it again".to_owned());
    }
    cluster.stop()?;
    let stacks = script(&samples)?;
    let outcome = taken(&scratch)?.pop().ok_or("the load measured nothing")?;
    Ok(format!(
        "{{\"leader\":{pid},\"stacks\":{:?},\"outcome\":{outcome}}}",
        stacks.display().to_string()
    ))
}

/// Samples all nodes.
fn record(cluster: &Cluster, into: &Path, seconds: f64) -> Result<PathBuf, Failure> {
    let mut perf = Command::new("perf");
    perf.args([
        "record",
        "--quiet",
        "--call-graph",
        CALL_GRAPH,
        "--freq",
        FREQUENCY,
    ])
    .args(["--pid", &cluster.pids().join(",")])
    .arg("--output")
    .arg(into)
    .args(["--", "sleep", &seconds.to_string()]);
    finished("perf record", perf.output())?;
    Ok(into.to_owned())
}

/// Gives the samples their functions' names.
fn script(samples: &Path) -> Result<PathBuf, Failure> {
    let stacks = samples.with_extension("stacks");
    let file =
        fs::File::create(&stacks).map_err(|why| format!("cannot write {}: {why}", stacks.display()))?;
    println!("    naming the functions of its samples, a minute or two");
    let mut perf = Command::new("perf");
    perf.args(["script", "--fields", "comm,pid,ip,sym", "--input"])
        .arg(samples)
        .stdout(Stdio::from(file));
    finished("perf script", perf.output())?;
    fs::remove_file(samples).map_err(|why| format!("cannot remove {}: {why}", samples.display()))?;
    Ok(stacks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let parse =
            |args: &str| Request::parse(&args.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let all = parse("").expect("no option is needed");
        assert_eq!((all.workloads.len(), all.seconds), (5, 6.0));
        let one = parse("--workload mix --seconds 2").expect("these are options");
        assert_eq!((one.workloads, one.seconds), (vec!["mix"], 2.0));
        for nonsense in ["--seconds 0", "--seconds", "--fast", "--workload sleep"] {
            assert!(parse(nonsense).is_err(), "{nonsense}");
        }
    }
}
