//! `cargo xtask bench growth`: how Holdfast grows, with its clients and with the accounts that it holds.
//!
//! Five parts, each with its own line of JSON a point; `benches/peers` makes the tables and the plots of them:
//!
//! * `clients`: closed loops of 1 to 1,024 clients on few accounts;
//! * `accounts`: clusters that hold ten thousand accounts and more: what a node takes, how long one needs to take part
//!   again after a stop and after `kill -9`, and what clients see. Each size begins with empty directories, so that no
//!   point depends on what was measured before it;
//! * `new-node`: at the largest size, under half of what the cluster can do, a fourth node begins with nothing;
//! * `restart`: at the largest size all three nodes are stopped, or killed, and started, until a read and a write succeed;
//! * `restore`: at the largest size everything is exported, and imported into an empty cluster.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::calls::{append, begin, ended, finished, per_second, report_of, taken};
use super::cluster::{self, Cluster};
use super::install::{self, Programs, Tools};
use super::peers::{named, number};
use super::points::FEW_ACCOUNTS;
use super::results::Results;
use super::store::Store;
use crate::Failure;

const USAGE: &str = "\
cargo xtask bench growth [OPTION ...]

  --only PART        only this one (again: and this one): clients, accounts, new-node, restart,
                     restore
  --accounts-max N   the most accounts a cluster is filled with [default: 1000000; there is a size of 3000000]
  --seconds S        how long each point is measured [default: 10]
  --debug-build      build Holdfast as `cargo xtask up` does: to try this, not for figures
  --programs DIR     build nothing: take holdfast and holdfast-bench-peers from there
";

/// How many clients.
const CLIENTS: [u32; 6] = [1, 4, 16, 64, 256, 1_024];
/// And what they do. Updates need accounts that nobody has changed yet, so each of their points has its own.
const CLIENTS_DO: [&str; 3] = ["get", "update", "create"];
/// What they do with many accounts. Creates come last, as they add accounts.
const MANY_DO: [&str; 3] = ["get", "update", "create"];
/// Clients where the accounts grow.
const MANY_CLIENTS: u32 = 64;
/// How many accounts; those above the option's number are left out, and that number is added.
const SIZES: [u64; 4] = [10_000, 100_000, 1_000_000, 3_000_000];

/// Seeds of accounts made for one point.
const FIRST_FRESH_SEED: u32 = 1_000;
/// How long nodes may tidy up before what they take is looked at.
const SETTLE: Duration = Duration::from_secs(15);
/// How long a node is away that is ended and started: its leader has noticed.
const AWAY: Duration = Duration::from_secs(2);
/// How long anything may take: a node that starts, or catches up.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// Clients of an open loop: enough for all that are due to be under way.
const OPEN_CLIENTS: u32 = 512;
/// How long the load runs before a new node begins.
const BEFORE_NEWCOMER: Duration = Duration::from_secs(4);
/// What clients do while a node catches up.
const MEANWHILE: &str = "mix";

/// A part of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Clients,
    Accounts,
    NewNode,
    Restart,
    Restore,
}

impl Part {
    const ALL: [Part; 5] = [
        Part::Clients,
        Part::Accounts,
        Part::NewNode,
        Part::Restart,
        Part::Restore,
    ];

    fn name(self) -> &'static str {
        match self {
            Part::Clients => "clients",
            Part::Accounts => "accounts",
            Part::NewNode => "new-node",
            Part::Restart => "restart",
            Part::Restore => "restore",
        }
    }
}

/// How nodes end.
#[derive(Debug, Clone, Copy)]
enum End {
    /// They are asked to.
    Stopped,
    /// `kill -9`.
    Killed,
}

impl End {
    const ALL: [End; 2] = [End::Stopped, End::Killed];

    fn name(self) -> &'static str {
        match self {
            End::Stopped => "stopped",
            End::Killed => "killed",
        }
    }

    /// Ends these nodes so.
    fn of(self, cluster: &mut Cluster<'_>, places: &[usize]) -> Result<(), Failure> {
        match self {
            End::Stopped => cluster.terminate_all(places),
            End::Killed => places.iter().try_for_each(|place| cluster.kill(*place)),
        }
    }
}

/// What was asked for.
#[derive(Debug, PartialEq)]
struct Request {
    parts: Vec<Part>,
    accounts_max: u64,
    seconds: f64,
    programs: Programs,
}

impl Request {
    fn parse(args: &[String]) -> Result<Request, Failure> {
        let mut request = Request {
            parts: Vec::new(),
            accounts_max: 1_000_000,
            seconds: 10.0,
            programs: Programs::Release,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || {
                let value = args.next();
                value.ok_or_else(|| format!("{arg} needs a value\n\n{USAGE}"))
            };
            match arg.as_str() {
                "--debug-build" => request.programs = Programs::Debug,
                "--programs" => request.programs = Programs::In(value()?.into()),
                "--seconds" => request.seconds = number(arg, value()?)?,
                "--accounts-max" => request.accounts_max = number(arg, value()?)?,
                "--only" => {
                    let part = named("part", &Part::ALL, Part::name, value()?);
                    request
                        .parts
                        .push(part.map_err(|why| format!("{why}\n\n{USAGE}"))?);
                }
                _ => return Err(format!("there is no `{arg}`\n\n{USAGE}")),
            }
        }
        if request.parts.is_empty() {
            request.parts = Part::ALL.to_vec();
        }
        if request.accounts_max == 0 || !(0.1..=3_600.0).contains(&request.seconds) {
            return Err("at least one account, and points of 0.1 to 3600 seconds".to_owned());
        }
        Ok(request)
    }

    fn wants(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// How many accounts clusters are filled with, one after the other. Only the largest where only that is asked for.
    fn sizes(&self) -> Vec<u64> {
        let most = self.accounts_max;
        let mut sizes = Vec::new();
        if self.wants(Part::Accounts) {
            sizes.extend(SIZES.into_iter().filter(|size| *size < most));
        }
        if self.parts.iter().any(|part| *part != Part::Clients) {
            sizes.push(most);
        }
        sizes
    }
}

/// Runs the command. Returns what it measured, unless help was asked for.
pub(super) fn run(args: &[String]) -> Result<Option<Results>, Failure> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{USAGE}");
        return Ok(None);
    }
    let request = Request::parse(args)?;
    let tools = install::tools(&[Store::Holdfast], &request.programs)?;
    let home = cluster::home()?;
    let run = Run {
        results: Results::create(&home, "Growth", "growth", args, &request.programs)?,
        data: home.join("data"),
        request,
        tools,
    };
    let began = Instant::now();
    run.measure()?;
    println!("\nMeasured in {:.0} s.", began.elapsed().as_secs_f64());
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
        if self.request.wants(Part::Clients) {
            println!("\n==> clients");
            let cluster = self.cluster()?;
            self.clients(&cluster)?;
            cluster.stop()?;
        }
        for accounts in self.request.sizes() {
            println!("\n==> {accounts} accounts");
            let mut cluster = self.cluster()?;
            let filling = self.fill(&cluster, Part::Accounts, accounts, 1)?;
            if self.request.wants(Part::Accounts) {
                self.many(&mut cluster, accounts)?;
            }
            if accounts == self.request.accounts_max {
                // Restarts first: three nodes are what was asked about.
                if self.request.wants(Part::Restart) {
                    End::ALL
                        .into_iter()
                        .try_for_each(|end| self.restart(&mut cluster, accounts, end))?;
                }
                if self.request.wants(Part::NewNode) {
                    self.newcomer(&mut cluster, accounts, filling)?;
                }
                if self.request.wants(Part::Restore) {
                    self.restore(cluster)?;
                    continue;
                }
            }
            cluster.stop()?;
        }
        Ok(())
    }

    fn cluster(&self) -> Result<Cluster<'_>, Failure> {
        Cluster::start(Store::Holdfast, &self.tools, &self.data)
    }

    /// From one client to many.
    fn clients(&self, cluster: &Cluster<'_>) -> Result<(), Failure> {
        self.fill(cluster, Part::Clients, FEW_ACCOUNTS, 1)?;
        let mut fresh_seed = FIRST_FRESH_SEED;
        for workload in CLIENTS_DO {
            for clients in CLIENTS {
                let mut seed = 1;
                if workload == "update" {
                    seed = fresh_seed;
                    fresh_seed += 1;
                    self.fill(cluster, Part::Clients, FEW_ACCOUNTS, seed)?;
                }
                let mut load = self.load(cluster, workload, clients, FEW_ACCOUNTS)?;
                load.args(["--seed", &seed.to_string()]);
                self.point(
                    Part::Clients,
                    FEW_ACCOUNTS,
                    &format!("{workload}, {clients} clients"),
                    load,
                )?;
            }
        }
        Ok(())
    }

    /// What a cluster is like that holds so many accounts.
    fn many(&self, cluster: &mut Cluster<'_>, accounts: u64) -> Result<(), Failure> {
        cluster.settle(SETTLE);
        let mut rest = Command::new(&self.tools.peers);
        rest.args(["rest", "--store", cluster.store.name()]);
        rest.args(["--accounts", &accounts.to_string()]);
        for (pid, place) in cluster.pids().iter().zip(cluster.store.places()) {
            rest.args(["--node-pid", pid]);
            rest.arg("--node-dir").arg(cluster.data(place));
        }
        self.measured(Part::Accounts, accounts, "at rest", rest)?;
        for end in End::ALL {
            self.node_starts(cluster, accounts, end)?;
        }
        for workload in MANY_DO {
            let load = self.load(cluster, workload, MANY_CLIENTS, accounts)?;
            self.point(
                Part::Accounts,
                accounts,
                &format!("{workload}, {MANY_CLIENTS} clients"),
                load,
            )?;
        }
        Ok(())
    }

    /// How long a follower that ended needs until it takes part again.
    fn node_starts(&self, cluster: &mut Cluster<'_>, accounts: u64, end: End) -> Result<(), Failure> {
        let follower = cluster.leader()? % 3 + 1;
        end.of(cluster, &[follower])?;
        std::thread::sleep(AWAY);
        let began = Instant::now();
        cluster.start_node(follower)?;
        cluster.wait_for_member(follower, "voter", PATIENCE)?;
        let seconds = began.elapsed().as_secs_f64();
        println!("    a node that was {}: back in {seconds:.2} s", end.name());
        self.keep(&format!(
            "{{\"node_start\":{{\"accounts\":{accounts},\"end\":\"{}\",\"seconds\":{seconds:.3}}}}}",
            end.name()
        ))
    }

    /// How long a cluster that ended needs until it answers.
    fn restart(&self, cluster: &mut Cluster<'_>, accounts: u64, end: End) -> Result<(), Failure> {
        let places: Vec<usize> = cluster.store.places().collect();
        let began = Instant::now();
        end.of(cluster, &places)?;
        let down = began.elapsed().as_secs_f64();
        let began = Instant::now();
        for place in places {
            cluster.start_node(place)?;
        }
        let mut seconds = [0.0; 2];
        for (what, seconds) in ["read", "write"].into_iter().zip(&mut seconds) {
            let mut answers = cluster.peers("answers");
            answers.args(["--to", what, "--limit", &PATIENCE.as_secs().to_string()]);
            finished("the cluster that was started", answers.output())?;
            *seconds = began.elapsed().as_secs_f64();
        }
        let [read, write] = seconds;
        println!(
            "    a cluster that was {}: down in {down:.2} s, a read after {read:.2} s, a write after {write:.2} s",
            end.name()
        );
        self.keep(&format!(
            "{{\"cluster_start\":{{\"accounts\":{accounts},\"end\":\"{}\",\"down_seconds\":{down:.3},\
             \"read_seconds\":{read:.3},\"write_seconds\":{write:.3}}}}}",
            end.name()
        ))
    }

    /// How long it takes to write down everything that a cluster holds, as a backup, and to put it into an empty one.
    fn restore(&self, cluster: Cluster<'_>) -> Result<(), Failure> {
        let backup = self.results.file("backup.jsonl");
        let file = backup.display().to_string();
        let took = |what: &str, cluster: &Cluster<'_>, subcommand: &str| {
            let began = Instant::now();
            finished(
                what,
                cluster.holdfast(&[subcommand, "--no-progress", &file]).output(),
            )?;
            Ok::<_, Failure>(began.elapsed().as_secs_f64())
        };
        let export = took("the export", &cluster, "export")?;
        cluster.stop()?;
        let (accounts, bytes) = counted(&backup)?;
        println!("    {accounts} accounts exported in {export:.1} s, {bytes} bytes");
        let empty = self.cluster()?;
        let import = took("the import", &empty, "import")?;
        empty.stop()?;
        println!("    imported into an empty cluster in {import:.1} s");
        fs::remove_file(&backup).map_err(|why| format!("cannot remove {file}: {why}"))?;
        self.keep(&format!(
            "{{\"restore\":{{\"accounts\":{accounts},\"bytes\":{bytes},\"export_seconds\":{export:.3},\
             \"import_seconds\":{import:.3}}}}}"
        ))
    }

    /// How long a node needs that begins with nothing, and what clients see meanwhile. The load runs longer than filling
    /// the cluster took, and the report looks at the seconds in which the node caught up.
    fn newcomer(&self, cluster: &mut Cluster<'_>, accounts: u64, filling: Duration) -> Result<(), Failure> {
        let closed = self.load(cluster, MEANWHILE, MANY_CLIENTS, accounts)?;
        let saturation = self.point(
            Part::NewNode,
            accounts,
            &format!("{MEANWHILE}, as much as it can do"),
            closed,
        )?;
        let rate = (saturation / 2.0).max(1.0);
        let mut load = self.load(cluster, MEANWHILE, OPEN_CLIENTS, accounts)?;
        let seconds =
            (filling.as_secs_f64() * 1.5).clamp(20.0, 1_800.0).ceil() + BEFORE_NEWCOMER.as_secs_f64();
        load.args(["--rate", &rate.to_string(), "--share", "50"])
            .args(["--seconds", &seconds.to_string()]);
        load.arg("--out").arg(self.scratch());
        let load = begin(load, Stdio::null())?;
        let began = load.began;
        std::thread::sleep(BEFORE_NEWCOMER);
        let joined = began.elapsed().as_secs_f64();
        let place = cluster.start_newcomer()?;
        finished("add-learner", cluster.add_learner(place).output())?;
        let added = began.elapsed().as_secs_f64();
        cluster.wait_for_member(place, "learner", PATIENCE)?;
        let caught_up = began.elapsed().as_secs_f64();
        println!(
            "    a new node, beside {rate:.0} a second: caught up in {:.1} s",
            caught_up - joined
        );
        ended(load)?;
        let line = taken(&self.scratch())?.pop();
        let line = line.ok_or("the load measured nothing")?;
        self.keep(&format!(
            "{{\"new_node\":{{\"accounts\":{accounts},\"saturation\":{saturation:.1},\"started_at\":{joined:.3},\
             \"added_at\":{added:.3},\"caught_up_at\":{caught_up:.3},\"outcome\":{line}}}}}"
        ))
    }

    /// Makes sure that these accounts are there, and returns how long it took.
    fn fill(&self, cluster: &Cluster<'_>, part: Part, accounts: u64, seed: u32) -> Result<Duration, Failure> {
        let mut fill = cluster.load()?;
        fill.args(["--prepare", &accounts.to_string(), "--seed", &seed.to_string()]);
        let began = Instant::now();
        let what = format!("{accounts} accounts");
        self.measured(part, accounts, &what, fill)?;
        Ok(began.elapsed())
    }

    /// A load on these accounts.
    fn load(
        &self,
        cluster: &Cluster<'_>,
        workload: &str,
        clients: u32,
        accounts: u64,
    ) -> Result<Command, Failure> {
        let mut load = cluster.load()?;
        load.args(["--workload", workload, "--clients", &clients.to_string()])
            .args(["--accounts", &accounts.to_string(), "--warm-up", "1"]);
        Ok(load)
    }

    /// Calls the load, or looks at the nodes, and keeps what was measured. Returns what it printed.
    fn measured(&self, part: Part, accounts: u64, what: &str, mut call: Command) -> Result<String, Failure> {
        call.arg("--out").arg(self.scratch());
        let said = finished(what, call.output())?;
        println!("    {what}: {}", said.trim().replace('\n', "; "));
        for line in taken(&self.scratch())? {
            self.keep(&format!(
                "{{\"measured\":{{\"part\":\"{}\",\"accounts\":{accounts},\"outcome\":{line}}}}}",
                part.name()
            ))?;
        }
        Ok(said)
    }

    /// The same of a load, for as long as a point is measured; operations a second.
    fn point(&self, part: Part, accounts: u64, what: &str, mut load: Command) -> Result<f64, Failure> {
        load.args(["--seconds", &self.request.seconds.to_string()]);
        per_second(&self.measured(part, accounts, what, load)?)
    }

    fn scratch(&self) -> PathBuf {
        self.results.file("one.jsonl")
    }

    fn lines(&self) -> PathBuf {
        self.results.file("growth.jsonl")
    }

    fn keep(&self, line: &str) -> Result<(), Failure> {
        append(&self.lines(), line)
    }

    fn report(&self) -> Result<(), Failure> {
        report_of(
            &self.tools.peers,
            "growth",
            &self.lines(),
            &self.results,
            "growth.md, the plots, growth.jsonl",
        )
    }
}

/// Lines and bytes of a file.
fn counted(path: &Path) -> Result<(u64, u64), Failure> {
    let problem = |why: std::io::Error| format!("cannot read {}: {why}", path.display());
    let mut file = BufReader::new(fs::File::open(path).map_err(problem)?);
    let (mut lines, mut bytes) = (0, 0);
    loop {
        let block = file.fill_buf().map_err(problem)?;
        if block.is_empty() {
            return Ok((lines, bytes));
        }
        let read = block.len();
        lines += block.iter().filter(|byte| **byte == b'\n').count() as u64;
        bytes += read as u64;
        file.consume(read);
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
    fn what_is_asked_for() {
        let all = parse("").expect("no option is needed");
        assert_eq!((all.parts.len(), all.seconds), (5, 10.0));
        assert_eq!(all.sizes(), [10_000, 100_000, 1_000_000]);
        let more = parse("--accounts-max 3000000").expect("an option");
        assert_eq!(more.sizes(), SIZES);
        let odd = parse("--only accounts --accounts-max 25000 --seconds 2").expect("these are options");
        assert_eq!((odd.sizes(), odd.seconds), (vec![10_000, 25_000], 2.0));
    }

    #[test]
    fn nothing_is_filled_that_nobody_asked_about() {
        let sizes = |args| parse(args).map(|request| request.sizes());
        assert_eq!(sizes("--only clients"), Ok(vec![]));
        assert_eq!(sizes("--only restart --only new-node"), Ok(vec![1_000_000]));
        assert_eq!(sizes("--only accounts --accounts-max 10000"), Ok(vec![10_000]));
    }

    #[test]
    fn nonsense_is_refused() {
        for args in [
            "--only sunday",
            "--seconds 0",
            "--seconds",
            "--accounts-max 0",
            "--accounts-max many",
            "--fast",
        ] {
            assert!(parse(args).is_err(), "{args}");
        }
    }
}
