//! A day under way: the load runs, and what the day is about happens.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::calls::{begin, ended, finished, per_second, taken};
use super::cluster::Cluster;
use super::compactions;
use super::days::{Client, Day};
use super::points::FEW_ACCOUNTS;
use super::store::Store;
use crate::Failure;

/// How long the closed loop runs that says what the cluster can do.
const SATURATION_SECONDS: &str = "5";
/// Clients of an open loop: enough for all that are due to be under way.
const OPEN_CLIENTS: &str = "512";
/// Until the load is even, on a busy machine too.
const WARM_UP: Duration = Duration::from_secs(5);
/// Between two nodes of a rolling restart: the time a careful operator gives a node to take part again.
const BETWEEN_RESTARTS: Duration = Duration::from_secs(2);
/// How long a sync of a slow disk takes, milliseconds.
const SLOW_SYNC_MS: u32 = 200;
/// How long a node that joins may take to catch up.
const JOIN_LIMIT: Duration = Duration::from_secs(600);
/// Accounts that expire, and their seed.
const EXPIRING: &str = "5000";
const EXPIRING_SEED: &str = "2";
/// The shortest window that request records can have, and the tenth that they are kept longer. Deletions are given as long.
const REQUEST_WINDOW: &str = "1m";
const EXPIRES_AFTER: Duration = Duration::from_secs(66);
/// Accounts that are there to be merged, and their seed.
const MERGED: &str = "200000";
const MERGED_SEED: &str = "3";
/// Flushes after which a node merges for certain, however few tables it had: as many as `LEVEL_0_TABLES` of storage-rocksdb.
const FLUSHES: usize = 12;
const BETWEEN_FLUSHES: Duration = Duration::from_millis(300);
/// Between two looks at what nodes take.
const SAMPLE: Duration = Duration::from_secs(10);

/// A day under way.
pub(super) struct Live<'a> {
    pub(super) day: Day,
    /// How long it is.
    pub(super) seconds: f64,
    pub(super) client: Client,
    pub(super) workload: &'a str,
    pub(super) cluster: Cluster<'a>,
    /// `holdfast-bench-peers`.
    pub(super) peers: &'a Path,
    /// Where one call's results go before they are in the day's line.
    pub(super) scratch: PathBuf,
    /// When what happened, seconds from the beginning of what is measured.
    events: Vec<(f64, String)>,
    /// When the nodes were looked at, and what was seen.
    samples: Vec<(f64, String)>,
    began: Instant,
}

impl<'a> Live<'a> {
    /// The morning of a day.
    pub(super) fn new(
        (day, seconds): (Day, f64),
        (client, workload): (Client, &'a str),
        cluster: Cluster<'a>,
        peers: &'a Path,
        scratch: PathBuf,
    ) -> Self {
        Live {
            day,
            seconds,
            client,
            workload,
            cluster,
            peers,
            scratch,
            events: Vec::new(),
            samples: Vec::new(),
            began: Instant::now(),
        }
    }

    /// From the morning to the evening; what is written down of it.
    pub(super) fn through(&mut self) -> Result<String, Failure> {
        self.fill(&FEW_ACCOUNTS.to_string(), "1")?;
        let expiring = match self.day {
            Day::Expirations => Some(self.set_to_expire()?),
            Day::Soak => {
                // With the usual hour, the hour of the soak would be all beginning: none of its request records would go.
                self.operate(
                    "the realm's rules",
                    &["realm", "update", "--request-window", REQUEST_WINDOW],
                )?;
                None
            }
            Day::Compaction => {
                self.fill(MERGED, MERGED_SEED)?;
                None
            }
            _ => None,
        };
        let mut closed = self.load()?;
        closed.args(["--clients", "64", "--seconds", SATURATION_SECONDS]);
        let saturation = per_second(&finished("the closed loop", closed.output())?)?;
        taken(&self.scratch)?;
        let rate = (saturation * self.day.share()).max(1.0);
        println!("    {saturation:.0} a second at most; {rate:.0} a second are due");
        if let Some(at) = expiring {
            // The load is there before.
            let lead = WARM_UP + Duration::from_secs_f64(self.seconds / 4.0);
            std::thread::sleep((at - lead).saturating_duration_since(Instant::now()));
        }
        let mut open = self.load()?;
        open.args(["--clients", OPEN_CLIENTS, "--rate", &rate.to_string()]);
        open.args(["--seconds", &self.seconds.to_string()]);
        let load = begin(open, Stdio::null())?;
        self.began = load.began;
        let happened = self.happens();
        ended(load)?;
        happened?;
        self.afterwards()?;
        let outcome = taken(&self.scratch)?.pop();
        let outcome = outcome.ok_or("the load measured nothing")?;
        let events = self
            .events
            .iter()
            .map(|(at, what)| format!("{{\"at\":{at:.3},\"what\":{what:?}}}"));
        let samples = self
            .samples
            .iter()
            .map(|(at, seen)| format!("{{\"at\":{at:.3},\"outcome\":{seen}}}"));
        Ok(format!(
            "{{\"day\":\"{}\",\"client\":\"{}\",\"saturation\":{saturation:.1},\"events\":[{}],\"samples\":[{}],\
             \"outcome\":{outcome}}}",
            self.day.name(),
            self.client.name(),
            events.collect::<Vec<_>>().join(","),
            samples.collect::<Vec<_>>().join(","),
        ))
    }

    fn happens(&mut self) -> Result<(), Failure> {
        if self.day == Day::Soak {
            return self.watch();
        }
        self.sleep_until(self.seconds / 4.0);
        let half = self.seconds / 2.0;
        match self.day {
            Day::Calm | Day::TwiceTheLoad | Day::Soak => {}
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
                self.operate("the hand-over", &["cluster", "transfer"])?;
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
                let follower = self.follower()?;
                self.note(&format!("kill -9 of node {follower}, which follows"));
                self.cluster.kill(follower)?;
                self.sleep_until(half);
                self.note(&format!("node {follower} is started again"));
                self.cluster.restart(follower)?;
            }
            Day::SlowFollower => {
                let follower = self.follower()?;
                self.note(&format!(
                    "syncs of node {follower}, which follows, take {SLOW_SYNC_MS} ms"
                ));
                self.cluster.delay_syncs(follower, SLOW_SYNC_MS)?;
                self.sleep_until(self.seconds * 0.75);
                self.note("they are quick again");
                self.cluster.delay_syncs(follower, 0)?;
            }
            Day::NodeJoins => {
                self.note("a fourth node is started");
                let place = self.cluster.start_newcomer()?;
                finished("add-learner", self.cluster.add_learner(place).output())?;
                self.note("it is added");
                self.cluster.wait_for_member(place, "learner", JOIN_LIMIT)?;
                self.note("it has caught up");
                self.operate("the promotion", &["cluster", "promote", &place.to_string()])?;
                self.note("it votes");
                self.sleep_until(self.seconds * 0.75);
                self.operate("the removal", &["cluster", "remove", &place.to_string()])?;
                self.note("it is removed");
            }
            Day::Compaction => {
                self.note("nodes are asked to flush a dozen times");
                for _ in 0..FLUSHES {
                    for place in self.cluster.store.places() {
                        self.operate("a flush", &["cluster", "snapshot", &place.to_string()])?;
                    }
                    std::thread::sleep(BETWEEN_FLUSHES);
                }
            }
            Day::Expirations => {
                self.note(&format!(
                    "{EXPIRING} deleted accounts can be purged, and request records begin to expire"
                ));
            }
            Day::SnapshotAndExport => {
                for place in 1..=3 {
                    self.note(&format!("snapshot of node {place}"));
                    self.operate("a snapshot", &["cluster", "snapshot", &place.to_string()])?;
                }
                self.note("export of everything");
                let exported = self
                    .cluster
                    .holdfast(&["export", "--no-progress"])
                    .stdout(Stdio::null())
                    .output();
                finished("the export", exported)?;
                self.note("the export has ended");
            }
        }
        Ok(())
    }

    /// What is asked once the load has ended.
    fn afterwards(&mut self) -> Result<(), Failure> {
        match self.day {
            Day::Expirations => self.count_purged(),
            Day::Compaction => self.read_compactions(),
            _ => Ok(()),
        }
    }

    fn count_purged(&mut self) -> Result<(), Failure> {
        let mut count = self.deletions();
        count.arg("--count-purged");
        let purged = finished("counting", count.output())?;
        // In the last moment of the day, for the plot.
        let what = format!("{} of {EXPIRING} are purged", purged.trim());
        println!("    at the end: {what}");
        self.events.push((self.seconds - 0.01, what));
        Ok(())
    }

    /// Stops the nodes, and adds when they merged their tables to what happened. Each begins with what filling left unmerged, so one may
    /// merge earlier and more than another.
    fn read_compactions(&mut self) -> Result<(), Failure> {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|why| format!("the clock is wrong: {why}"))?;
        let began = (since_epoch - self.began.elapsed()).as_secs_f64();
        let places: Vec<usize> = self.cluster.store.places().collect();
        self.cluster.terminate_all(&places)?;
        for place in places {
            let Some(merged) = compactions::of_node(&self.cluster.data(place), began)? else {
                println!("    node {place} merged nothing large");
                continue;
            };
            let (from, to) = (merged.from - began, merged.to - began);
            self.add_event(from, format!("node {place} begins to merge"));
            let mb = merged.input_bytes / 1e6;
            self.add_event(
                to,
                format!("node {place} has merged {mb:.0} MB in {:.1} s", to - from),
            );
        }
        Ok(())
    }

    /// Something that is known of only now.
    fn add_event(&mut self, at: f64, what: String) {
        println!("    it was at {at:>6.1} s: {what}");
        let later = self.events.partition_point(|(other, _)| *other <= at);
        self.events.insert(later, (at, what));
    }

    /// Deletes accounts so that their grace periods end together, at about the time at which the request records of
    /// everything until then expire. Returns when that is.
    fn set_to_expire(&mut self) -> Result<Instant, Failure> {
        let grace = format!("{}s", EXPIRES_AFTER.as_secs());
        self.operate(
            "the realm's rules",
            &[
                "realm",
                "update",
                "--deletion-grace",
                &grace,
                "--request-window",
                REQUEST_WINDOW,
            ],
        )?;
        self.fill(EXPIRING, EXPIRING_SEED)?;
        let began = Instant::now();
        finished("the deletions", self.deletions().output())?;
        println!(
            "    {EXPIRING} accounts deleted in {:.1} s",
            began.elapsed().as_secs_f64()
        );
        Ok(began + EXPIRES_AFTER)
    }

    fn deletions(&self) -> Command {
        let mut command = self.cluster.peers("delete");
        command.args(["--accounts", EXPIRING, "--seed", EXPIRING_SEED]);
        command
    }

    /// Looks at the nodes until the evening.
    fn watch(&mut self) -> Result<(), Failure> {
        let mut next = 0.0;
        while next < self.seconds {
            self.sleep_until(next);
            self.sample()?;
            next += SAMPLE.as_secs_f64();
        }
        Ok(())
    }

    /// Looks at what each node takes.
    fn sample(&mut self) -> Result<(), Failure> {
        let at = self.began.elapsed().as_secs_f64();
        let mut rest = Command::new(self.peers);
        rest.args(["rest", "--store", self.cluster.store.name()]);
        rest.args(["--accounts", &FEW_ACCOUNTS.to_string()]);
        for (pid, place) in self.cluster.pids().iter().zip(self.cluster.store.places()) {
            rest.args(["--node-pid", pid]);
            rest.arg("--node-dir").arg(self.cluster.data(place));
        }
        // Not where the load will write.
        let beside = self.scratch.with_extension("sample");
        rest.arg("--out").arg(&beside);
        finished("a look at the nodes", rest.output())?;
        let seen = taken(&beside)?.pop().ok_or("nothing was seen of the nodes")?;
        self.samples.push((at, seen));
        Ok(())
    }

    /// A node that does not lead.
    fn follower(&self) -> Result<usize, Failure> {
        Ok(self.cluster.leader()? % 3 + 1)
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

    fn operate(&self, what: &str, args: &[&str]) -> Result<(), Failure> {
        finished(what, self.cluster.holdfast(args).output()).map(drop)
    }

    /// Makes sure that these accounts are there.
    fn fill(&self, accounts: &str, seed: &str) -> Result<(), Failure> {
        let mut fill = self.cluster.load()?;
        fill.args(["--prepare", accounts, "--seed", seed]);
        fill.arg("--out").arg(&self.scratch);
        finished("filling it", fill.output())?;
        taken(&self.scratch).map(drop)
    }

    /// A load of this day's kind.
    fn load(&self) -> Result<Command, Failure> {
        let mut load = self.cluster.load_by(self.client.driver())?;
        load.args(["--workload", self.workload])
            .args(["--accounts", &FEW_ACCOUNTS.to_string()])
            .args(["--warm-up", &WARM_UP.as_secs().to_string()]);
        load.arg("--out").arg(&self.scratch);
        Ok(load)
    }
}
