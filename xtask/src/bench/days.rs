//! `cargo xtask bench days`: what clients see on bad days, at half of what the cluster can do.
//!
//! Each day begins with a new cluster, is put under an open loop (arrivals do not wait for answers, and latency counts from
//! when an operation was due), and something happens in the midst of it: a leader dies, nodes are restarted one after the
//! other, an export runs. One line of JSON a day goes to a file; `benches/peers` makes the table and the plots of it.
//!
//! The soak is a day too, of an hour in which nothing happens, to see whether memory and latencies stay what they are.

use super::calls::{append, report_of};
use super::cluster::{self, Cluster};
use super::install::{self, Programs};
use super::live::Live;
use super::peers::{named, number};
use super::results::Results;
use super::slow_syncs;
use super::store::Store;
use crate::Failure;

const USAGE: &str = "\
cargo xtask bench days [OPTION ...]

  --only DAY         only this one (again: and this one): calm, leader-killed, leadership-transferred, rolling-restart,
                     follower-away, slow-follower, node-joins, snapshot-and-export, compaction, expirations,
                     twice-the-load; and soak, which comes only if it is asked for
  --seconds S        how long a day is [default: 24; soak: 3600]; some need more and take it
  --workload NAME    what clients do: get, lookup, update, create, mix (95 gets, 5 updates), login-storm, sign-up-storm
                     [default: mix]
  --client NAME      by which client: sdk, or plain, which knows gRPC and the service config only [default: sdk]
  --debug-build      build Holdfast as `cargo xtask up` does: to try this, not for figures
  --programs DIR     build nothing: take holdfast and holdfast-bench-peers from there
";

/// What clients can do all day.
const WORKLOADS: [&str; 7] = [
    "mix",
    "get",
    "lookup",
    "update",
    "create",
    "login-storm",
    "sign-up-storm",
];

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Day {
    Calm,
    LeaderKilled,
    LeadershipTransferred,
    RollingRestart,
    FollowerAway,
    SlowFollower,
    NodeJoins,
    SnapshotAndExport,
    Compaction,
    Expirations,
    TwiceTheLoad,
    Soak,
}

impl Day {
    const ALL: [Day; 12] = [
        Day::Calm,
        Day::LeaderKilled,
        Day::LeadershipTransferred,
        Day::RollingRestart,
        Day::FollowerAway,
        Day::SlowFollower,
        Day::NodeJoins,
        Day::SnapshotAndExport,
        Day::Compaction,
        Day::Expirations,
        Day::TwiceTheLoad,
        Day::Soak,
    ];

    /// Those that come if none is asked for.
    fn usual() -> Vec<Day> {
        Day::ALL.into_iter().filter(|day| *day != Day::Soak).collect()
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Day::Calm => "calm",
            Day::LeaderKilled => "leader-killed",
            Day::LeadershipTransferred => "leadership-transferred",
            Day::RollingRestart => "rolling-restart",
            Day::FollowerAway => "follower-away",
            Day::SlowFollower => "slow-follower",
            Day::NodeJoins => "node-joins",
            Day::SnapshotAndExport => "snapshot-and-export",
            Day::Compaction => "compaction",
            Day::Expirations => "expirations",
            Day::TwiceTheLoad => "twice-the-load",
            Day::Soak => "soak",
        }
    }

    /// How long it is, seconds, if nobody says.
    fn seconds_usual(self) -> f64 {
        if self == Day::Soak { 3_600.0 } else { 24.0 }
    }

    /// How long it must be at least, seconds, so that everything happens within it.
    fn seconds_min(self) -> f64 {
        match self {
            Day::RollingRestart => 26.0,
            // A dozen flushes, and what they lead to.
            Day::Compaction => 36.0,
            // A thousand purges in one sweep, and a sixteenth of the request records every four seconds.
            Day::Expirations => 48.0,
            // Two minutes to compare.
            Day::Soak => 120.0,
            _ => 0.0,
        }
    }

    /// How much is asked for, as a part of what the cluster can do.
    pub(super) fn share(self) -> f64 {
        if self == Day::TwiceTheLoad { 2.0 } else { 0.5 }
    }
}

/// Through what the load reaches the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    Sdk,
    Plain,
}

impl Client {
    const ALL: [Client; 2] = [Client::Sdk, Client::Plain];

    pub(super) fn name(self) -> &'static str {
        match self {
            Client::Sdk => "sdk",
            Client::Plain => "plain",
        }
    }

    /// The load generator's name for it.
    pub(super) fn driver(self) -> &'static str {
        match self {
            Client::Sdk => "holdfast",
            Client::Plain => "holdfast-plain",
        }
    }
}

struct Request {
    days: Vec<Day>,
    seconds: Option<f64>,
    workload: &'static str,
    client: Client,
    programs: Programs,
}

impl Request {
    fn parse(args: &[String]) -> Result<Request, Failure> {
        let mut request = Request {
            days: Vec::new(),
            seconds: None,
            workload: WORKLOADS[0],
            client: Client::Sdk,
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
                "--programs" => request.programs = Programs::In(value()?.into()),
                "--seconds" => request.seconds = Some(number(arg, value()?)?),
                "--workload" => {
                    let workload = named("workload", &WORKLOADS, |name| name, value()?);
                    request.workload = workload.map_err(|why| format!("{why}\n\n{USAGE}"))?;
                }
                "--client" => {
                    let client = named("client", &Client::ALL, Client::name, value()?);
                    request.client = client.map_err(|why| format!("{why}\n\n{USAGE}"))?;
                }
                "--only" => {
                    let day = named("day", &Day::ALL, Day::name, value()?);
                    request.days.push(day.map_err(|why| format!("{why}\n\n{USAGE}"))?);
                }
                _ => return Err(format!("there is no `{arg}`\n\n{USAGE}")),
            }
        }
        if request.days.is_empty() {
            request.days = Day::usual();
        }
        let allowed = 8.0..=86_400.0;
        if request.seconds.is_some_and(|seconds| !allowed.contains(&seconds)) {
            return Err("a day has 8 to 86400 seconds".to_owned());
        }
        Ok(request)
    }

    /// What the page is called.
    fn title(&self) -> &'static str {
        match (self.days.as_slice(), self.client) {
            ([Day::Soak], _) => "An hour without a pause",
            (_, Client::Sdk) => "Bad days",
            (_, Client::Plain) => "Bad days, by a client that knows gRPC and the service config only",
        }
    }

    /// How long this day is.
    fn length(&self, day: Day) -> f64 {
        let asked = self.seconds.unwrap_or(day.seconds_usual());
        asked.max(day.seconds_min())
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
    let results = Results::create(&home, request.title(), "days", args, &request.programs)?;
    let lines = results.file("days.jsonl");
    for &day in &request.days {
        println!("==> {}", day.name());
        let slow_syncs = match day {
            Day::SlowFollower => Some(slow_syncs::library(&home)?),
            _ => None,
        };
        let cluster = Cluster::start_with(Store::Holdfast, &tools, &home.join("data"), slow_syncs)?;
        let mut live = Live::new(
            (day, request.length(day)),
            (request.client, request.workload),
            cluster,
            &tools.peers,
            results.file("one.jsonl"),
        );
        let line = live.through()?;
        live.cluster.stop()?;
        append(&lines, &line)?;
    }
    report_of(
        &tools.peers,
        "days",
        &lines,
        &results,
        "one page, one plot a day, days.jsonl",
    )?;
    Ok(Some(results))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let parse =
            |args: &str| Request::parse(&args.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let all = parse("").expect("no option is needed");
        assert_eq!((all.days.len(), all.client), (Day::ALL.len() - 1, Client::Sdk));
        assert!(!all.days.contains(&Day::Soak));
        assert_eq!(
            (all.length(Day::Calm), all.length(Day::RollingRestart)),
            (24.0, 26.0)
        );
        let one =
            parse("--only calm --seconds 10 --workload update --client plain").expect("these are options");
        assert_eq!(
            (one.days.as_slice(), one.workload),
            ([Day::Calm].as_slice(), "update")
        );
        assert_eq!((one.length(Day::Calm), one.client), (10.0, Client::Plain));
        let soak = parse("--only soak").expect("it is a day");
        assert_eq!(
            (soak.days.as_slice(), soak.length(Day::Soak)),
            ([Day::Soak].as_slice(), 3_600.0)
        );
        for nonsense in [
            "--only sunday",
            "--seconds 1",
            "--seconds",
            "--client telnet",
            "--fast",
        ] {
            assert!(parse(nonsense).is_err(), "{nonsense}");
        }
    }
}
