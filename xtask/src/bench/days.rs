//! `cargo xtask bench days`: what clients see on bad days, at half of what the cluster can do.
//!
//! Each day begins with a new cluster, is put under an open loop (arrivals do not wait for answers, and latency counts from
//! when an operation was due), and something happens in the midst of it: a leader dies, nodes are restarted one after the
//! other, an export runs. One line of JSON a day goes to a file; `benches/peers` makes the table and the plots of it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::calls::{append, finished};
use super::cluster::{self, Cluster, RECORD_BYTES};
use super::install::{self, Programs};
use super::peers::{number, results_directory};
use super::points::FEW_ACCOUNTS;
use super::store::Store;
use crate::Failure;

const USAGE: &str = "\
cargo xtask bench days [OPTION ...]

  --only DAY         only this one (again: and this one): calm, leader-killed, leadership-transferred, rolling-restart,
                     follower-away, snapshot-and-export, twice-the-load
  --seconds S        how long a day is [default: 24]
  --workload NAME    what clients do [default: mix: 95 reads, 5 updates]
  --debug-build      build Holdfast as `cargo xtask up` does: to try this, not for figures
  --programs DIR     build nothing: take holdfast and holdfast-bench-peers from there
";

/// How long the closed loop runs that says what the cluster can do.
const SATURATION_SECONDS: &str = "5";
/// Clients of an open loop: enough for all that are due to be under way.
const OPEN_CLIENTS: &str = "512";
/// Until the clients are connected and the load is even.
const WARM_UP: Duration = Duration::from_secs(2);
/// Between two nodes of a rolling restart: the time a careful operator gives a node to take part again.
const BETWEEN_RESTARTS: Duration = Duration::from_secs(2);

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Day {
    Calm,
    LeaderKilled,
    LeadershipTransferred,
    RollingRestart,
    FollowerAway,
    SnapshotAndExport,
    TwiceTheLoad,
}

impl Day {
    const ALL: [Day; 7] = [
        Day::Calm,
        Day::LeaderKilled,
        Day::LeadershipTransferred,
        Day::RollingRestart,
        Day::FollowerAway,
        Day::SnapshotAndExport,
        Day::TwiceTheLoad,
    ];

    fn name(self) -> &'static str {
        match self {
            Day::Calm => "calm",
            Day::LeaderKilled => "leader-killed",
            Day::LeadershipTransferred => "leadership-transferred",
            Day::RollingRestart => "rolling-restart",
            Day::FollowerAway => "follower-away",
            Day::SnapshotAndExport => "snapshot-and-export",
            Day::TwiceTheLoad => "twice-the-load",
        }
    }

    /// How long it must be at least, seconds, so that everything happens within it.
    fn seconds_min(self) -> f64 {
        if self == Day::RollingRestart { 26.0 } else { 0.0 }
    }

    /// How much is asked for, as a part of what the cluster can do.
    fn share(self) -> f64 {
        if self == Day::TwiceTheLoad { 2.0 } else { 0.5 }
    }
}

struct Request {
    days: Vec<Day>,
    seconds: f64,
    workload: String,
    programs: Programs,
}

impl Request {
    fn parse(args: &[String]) -> Result<Request, Failure> {
        let mut request = Request {
            days: Vec::new(),
            seconds: 24.0,
            workload: "mix".to_owned(),
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
                "--seconds" => request.seconds = number(arg, value()?)?,
                "--workload" => request.workload.clone_from(value()?),
                "--only" => {
                    let name = value()?;
                    let day = Day::ALL.into_iter().find(|day| day.name() == name);
                    request
                        .days
                        .push(day.ok_or_else(|| format!("there is no day `{name}`\n\n{USAGE}"))?);
                }
                _ => return Err(format!("there is no `{arg}`\n\n{USAGE}")),
            }
        }
        if request.days.is_empty() {
            request.days = Day::ALL.to_vec();
        }
        if !(8.0..=3_600.0).contains(&request.seconds) {
            return Err("a day has 8 to 3600 seconds".to_owned());
        }
        Ok(request)
    }
}

/// Runs the command.
pub(super) fn run(args: &[String]) -> Result<(), Failure> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{USAGE}");
        return Ok(());
    }
    let request = Request::parse(args)?;
    let tools = install::tools(&[Store::Holdfast], &request.programs)?;
    let home = cluster::home()?;
    let results = results_directory(&home)?;
    let lines = results.join("days.jsonl");
    for day in &request.days {
        println!("==> {}", day.name());
        let cluster = Cluster::start(Store::Holdfast, &tools, &home.join("data"))?;
        let mut live = Live {
            day: *day,
            request: &request,
            cluster,
            events: Vec::new(),
            began: Instant::now(),
        };
        let line = live.through()?;
        live.cluster.stop()?;
        append(&lines, &line)?;
    }
    let status = Command::new(&tools.peers)
        .arg("days")
        .arg("--results")
        .arg(&lines)
        .arg("--into")
        .arg(&results)
        .status()
        .map_err(|why| format!("cannot make the report: {why}"))?;
    println!("\nIn {}: days.md, one plot a day, days.jsonl.", results.display());
    if status.success() {
        Ok(())
    } else {
        Err("see above".to_owned())
    }
}

/// A day under way.
struct Live<'a> {
    day: Day,
    request: &'a Request,
    cluster: Cluster<'a>,
    /// When what happened, seconds from the beginning of what is measured.
    events: Vec<(f64, String)>,
    began: Instant,
}

impl Live<'_> {
    /// From the morning to the evening; what is written down of it.
    fn through(&mut self) -> Result<String, Failure> {
        let accounts = FEW_ACCOUNTS.to_string();
        finished(
            "filling it",
            self.holdfast(&["bench", "--prepare", &accounts]).output(),
        )?;
        let closed = self
            .bench(&["--clients", "64", "--seconds", SATURATION_SECONDS])
            .output();
        let saturation = throughput(&finished("the closed loop", closed)?)?;
        let rate = (saturation * self.day.share()).max(1.0);
        println!("    {saturation:.0} a second at most; {rate:.0} a second are due");
        let seconds = self.request.seconds.max(self.day.seconds_min());
        let (rate, whole) = (rate.to_string(), seconds.to_string());
        self.began = Instant::now() + WARM_UP;
        let load = self
            .bench(&["--clients", OPEN_CLIENTS, "--rate", &rate, "--seconds", &whole])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|why| format!("cannot start the load: {why}"))?;
        self.sleep_until(self.request.seconds / 4.0);
        let happened = self.happens();
        let measured = ended(load)?;
        happened?;
        let events: Vec<String> = self
            .events
            .iter()
            .map(|(at, what)| format!("{{\"at\":{at:.3},\"what\":{what:?}}}"))
            .collect();
        Ok(format!(
            "{{\"day\":\"{}\",\"saturation\":{saturation:.1},\"events\":[{}],\"measurement\":{}}}",
            self.day.name(),
            events.join(","),
            measured.trim()
        ))
    }

    fn happens(&mut self) -> Result<(), Failure> {
        let half = self.request.seconds / 2.0;
        match self.day {
            Day::Calm | Day::TwiceTheLoad => {}
            Day::LeaderKilled => {
                let leader = self.cluster.leader()?;
                self.note(&format!("kill -9 of node {leader}, which leads"));
                self.cluster.kill(leader)?;
                self.sleep_until(half);
                self.note(&format!("node {leader} is started again"));
                self.cluster.restart(leader)?;
            }
            Day::LeadershipTransferred => {
                self.note("leadership is handed over");
                finished("the hand-over", self.holdfast(&["cluster", "transfer"]).output())?;
            }
            Day::RollingRestart => {
                for place in Store::Holdfast.places() {
                    self.note(&format!("node {place} is asked to stop"));
                    self.cluster.terminate(place)?;
                    self.note(&format!("node {place} is started"));
                    self.cluster.restart(place)?;
                    std::thread::sleep(BETWEEN_RESTARTS);
                }
            }
            Day::FollowerAway => {
                let leader = self.cluster.leader()?;
                let follower = leader % 3 + 1;
                self.note(&format!("kill -9 of node {follower}, which follows"));
                self.cluster.kill(follower)?;
                self.sleep_until(half);
                self.note(&format!("node {follower} is started again"));
                self.cluster.restart(follower)?;
            }
            Day::SnapshotAndExport => {
                for place in 1..=3 {
                    self.note(&format!("snapshot of node {place}"));
                    let taken = self
                        .holdfast(&["cluster", "snapshot", &place.to_string()])
                        .output();
                    finished("a snapshot", taken)?;
                }
                self.note("export of everything");
                let exported = self
                    .holdfast(&["export", "--no-progress"])
                    .stdout(Stdio::null())
                    .output();
                finished("the export", exported)?;
                self.note("the export has ended");
            }
        }
        Ok(())
    }

    fn note(&mut self, what: &str) {
        let at = self.began.elapsed().as_secs_f64();
        println!("    {at:>6.1} s: {what}");
        self.events.push((at, what.to_owned()));
    }

    fn sleep_until(&self, second: f64) {
        let until = self.began + Duration::from_secs_f64(second);
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }

    /// A load of this day's kind.
    fn bench(&self, more: &[&str]) -> Command {
        let accounts = FEW_ACCOUNTS.to_string();
        let mut command = self.holdfast(&["bench", "--workload", &self.request.workload]);
        command
            .args(["--accounts", &accounts])
            .args(["--warm-up", &WARM_UP.as_secs().to_string()])
            .args(more);
        command
    }

    /// `holdfast`, as an operator of this cluster calls it.
    fn holdfast(&self, args: &[&str]) -> Command {
        let mut command = self.cluster.holdfast(args);
        if args.first() == Some(&"bench") {
            command.args(["--no-progress", "--record-bytes", RECORD_BYTES]);
        }
        command
    }
}

/// What the load measured. It ends with a failure if operations were no success, which is what some days are about.
fn ended(load: Child) -> Result<String, Failure> {
    let output = load
        .wait_with_output()
        .map_err(|why| format!("cannot wait for the load: {why}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.contains("\"throughput\"") {
        return Ok(one_line(&text));
    }
    Err(format!("the load measured nothing: {}", output.status))
}

/// JSON in one line: strings hold no line breaks of their own.
fn one_line(json: &str) -> String {
    json.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn throughput(json: &str) -> Result<f64, Failure> {
    let found = json.split("\"throughput\":").nth(1);
    let number = found.and_then(|rest| rest.split([',', '}']).next());
    number
        .and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| "the load did not say how much it did".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let parse =
            |args: &str| Request::parse(&args.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let all = parse("").expect("no option is needed");
        assert_eq!((all.days.len(), all.seconds), (Day::ALL.len(), 24.0));
        let one = parse("--only calm --seconds 10 --workload update").expect("these are options");
        assert_eq!((one.days, one.workload.as_str()), (vec![Day::Calm], "update"));
        for nonsense in ["--only sunday", "--seconds 1", "--seconds", "--fast"] {
            assert!(parse(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_throughput_is_found_however_it_is_printed() {
        assert_eq!(throughput("{\n  \"throughput\": 12.5,\n  \"x\": 1}"), Ok(12.5));
        assert_eq!(throughput("{\"throughput\":7}"), Ok(7.0));
        assert!(throughput("{}").is_err());
    }
}
