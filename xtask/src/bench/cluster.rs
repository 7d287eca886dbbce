//! The nodes of one store: laid out, started, killed, stopped and wiped.
//!
//! All on loopback and one disk, each with a directory of its own. They stay in the terminal's process group, so Ctrl-C
//! ends them too, and a failure of the command kills what it started.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use super::install::Tools;
use super::store::{Store, loopback};
use super::{etcd, holdfast, postgres};
use crate::{Failure, local, prerequisites, workspace};

/// How long a node may take to end once it is told to.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How long a node is given until it listens.
const START_LIMIT: Duration = Duration::from_secs(120);

/// How long a node that was away is given to catch up with what little it missed.
const REJOIN: Duration = Duration::from_secs(3);

/// Bytes of a payload.
pub(crate) const RECORD_BYTES: &str = "1024";

/// A store that runs.
pub(crate) struct Cluster<'a> {
    pub(crate) store: Store,
    tools: &'a Tools,
    home: PathBuf,
    /// What nodes are started with, and can be told to have slow syncs by.
    slow_syncs: Option<PathBuf>,
    /// By place; `None`: it was killed.
    children: Vec<Option<Child>>,
}

impl<'a> Cluster<'a> {
    /// A new, empty one, once it answers.
    pub(crate) fn start(store: Store, tools: &'a Tools, home: &Path) -> Result<Self, Failure> {
        Cluster::start_with(store, tools, home, None)
    }

    /// The same with nodes whose syncs can be made slow, if a library for it is given.
    pub(crate) fn start_with(
        store: Store,
        tools: &'a Tools,
        home: &Path,
        slow_syncs: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let mut cluster = Cluster {
            store,
            tools,
            home: home.join(store.name()),
            slow_syncs,
            children: Vec::new(),
        };
        cluster.wipe()?;
        for place in store.places() {
            let data = cluster.data(place);
            fs::create_dir_all(&data).map_err(|why| format!("cannot create {}: {why}", data.display()))?;
            cluster.lay_out(place)?;
            let child = cluster.spawn(place)?;
            cluster.children.push(Some(child));
            if store.is_postgres() {
                postgres::wait_for(&tools.postgres, store, place)
                    .map_err(|why| cluster.explain(place, why))?;
            }
        }
        cluster.wait_until_it_answers()?;
        Ok(cluster)
    }

    fn wait_until_it_answers(&self) -> Result<(), Failure> {
        match self.peers("ready").status() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(self.explain(1, format!("{} does not answer", self.store.name()))),
        }
    }

    /// Its data directory.
    pub(crate) fn data(&self, place: usize) -> PathBuf {
        self.home.join(format!("node{place}"))
    }

    fn log(&self, place: usize) -> PathBuf {
        self.home.join(format!("node{place}.log"))
    }

    fn configuration(&self, place: usize) -> PathBuf {
        self.home.join(format!("node{place}.conf"))
    }

    fn sync_delay(&self, place: usize) -> PathBuf {
        self.home.join(format!("node{place}.sync-delay-ms"))
    }

    /// From now on each sync of a node takes longer by so many milliseconds.
    pub(crate) fn delay_syncs(&self, place: usize, ms: u32) -> Result<(), Failure> {
        let path = self.sync_delay(place);
        fs::write(&path, format!("{ms}\n")).map_err(|why| format!("cannot write {}: {why}", path.display()))
    }

    fn lay_out(&self, place: usize) -> Result<(), Failure> {
        let data = self.data(place);
        let configuration = match self.store {
            Store::Echo => return Ok(()),
            Store::PostgresBare | Store::PostgresEquivalent => {
                postgres::own(&data)?;
                return if place == 1 {
                    postgres::lay_out_primary(&self.tools.postgres, &data)
                } else {
                    postgres::lay_out_standby(&self.tools.postgres, &data, self.store)
                };
            }
            Store::Etcd => etcd::configuration(place, &data),
            Store::Holdfast if place > self.store.nodes() => holdfast::newcomer(place, &data),
            Store::Holdfast => holdfast::configuration(place, &data),
        };
        let path = self.configuration(place);
        fs::write(&path, configuration).map_err(|why| format!("cannot write {}: {why}", path.display()))
    }

    fn spawn(&self, place: usize) -> Result<Child, Failure> {
        let mut command = match self.store {
            Store::Holdfast => {
                let mut command = Command::new(&self.tools.holdfast);
                command
                    .arg("serve")
                    .arg("--config")
                    .arg(self.configuration(place));
                command
            }
            Store::Etcd => {
                let mut command = Command::new(&self.tools.etcd);
                command.arg("--config-file").arg(self.configuration(place));
                command
            }
            Store::PostgresBare | Store::PostgresEquivalent => {
                postgres::server(&self.tools.postgres, &self.data(place), self.store, place)
            }
            Store::Echo => {
                let mut command = Command::new(&self.tools.peers);
                command
                    .args(["echo-server", "--record-bytes", RECORD_BYTES, "--listen"])
                    .arg(loopback(self.store.client_port(place)));
                command
            }
        };
        if let Some(library) = &self.slow_syncs {
            command
                .env("LD_PRELOAD", library)
                .env("HOLDFAST_SLOW_SYNCS", self.sync_delay(place));
        }
        let problem = |why: std::io::Error| format!("node {place} of {}: {why}", self.store.name());
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(place))
            .map_err(problem)?;
        let errors = log.try_clone().map_err(problem)?;
        command
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(problem)
    }

    /// A call of the program that speaks to the store, with its addresses.
    pub(crate) fn peers(&self, subcommand: &str) -> Command {
        self.peers_at(subcommand, self.store.name(), self.store.places())
    }

    fn peers_at(&self, subcommand: &str, target: &str, places: impl IntoIterator<Item = usize>) -> Command {
        let mut command = Command::new(&self.tools.peers);
        command
            .arg(subcommand)
            .args(["--target", target])
            .stdin(Stdio::null());
        for place in places {
            // Standbys serve no load.
            if self.store.is_postgres() && place > 1 {
                continue;
            }
            command.args(["--endpoint", &loopback(self.store.client_port(place))]);
            if self.store == Store::Holdfast {
                command.args(["--admin-endpoint", &loopback(self.store.admin_port(place))]);
            }
        }
        command
    }

    /// A load, with the nodes' processes for it to watch. etcd is given its leader alone, which is what it does best
    /// with; Holdfast's SDK finds the leader among all.
    pub(crate) fn load(&self) -> Result<Command, Failure> {
        self.load_by(self.store.name())
    }

    /// The same by one of the drivers that the store has.
    pub(crate) fn load_by(&self, driver: &str) -> Result<Command, Failure> {
        let mut command = match self.store {
            Store::Etcd => self.peers_at("load", driver, [self.leader()?]),
            _ => self.peers_at("load", driver, self.store.places()),
        };
        command.args(["--record-bytes", RECORD_BYTES]);
        for pid in self.pids() {
            command.args(["--node-pid", &pid]);
        }
        Ok(command)
    }

    /// The processes of its nodes.
    pub(crate) fn pids(&self) -> Vec<String> {
        let living = self.children.iter().flatten();
        living.map(|child| child.id().to_string()).collect()
    }

    /// The place of the node that leads.
    pub(crate) fn leader(&self) -> Result<usize, Failure> {
        let mut last = None;
        local::wait_until(Duration::from_secs(10), || {
            let output = self.peers("leader").output();
            last = output.ok().and_then(|output| place_in(&output));
            last.is_some()
        });
        last.ok_or_else(|| format!("no node of {} leads", self.store.name()))
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, place: usize) -> Result<(), Failure> {
        let child = self.children.get_mut(place - 1).and_then(Option::take);
        let mut child = child.ok_or_else(|| format!("node {place} does not run"))?;
        child
            .kill()
            .and_then(|()| child.wait())
            .map_err(|why| format!("node {place} cannot be killed: {why}"))?;
        Ok(())
    }

    /// Asks a node to stop, and waits until it has.
    pub(crate) fn terminate(&mut self, place: usize) -> Result<(), Failure> {
        self.terminate_all(&[place])
    }

    /// Asks these nodes to stop, all at once, and waits until they have.
    pub(crate) fn terminate_all(&mut self, places: &[usize]) -> Result<(), Failure> {
        let mut stopping = Vec::new();
        for &place in places {
            let child = self.children.get_mut(place - 1).and_then(Option::take);
            let child = child.ok_or_else(|| format!("node {place} does not run"))?;
            // `kill` is a shell built-in everywhere; procps is not.
            let _ = Command::new("sh")
                .args(["-c", &format!("kill -TERM {}", child.id())])
                .status();
            stopping.push((place, child));
        }
        let mut late = Vec::new();
        for (place, mut child) in stopping {
            let ended = || child.try_wait().is_ok_and(|status| status.is_some());
            if !local::wait_until(STOP_LIMIT, ended) {
                let _ = child.kill();
                let _ = child.wait();
                late.push(place.to_string());
            }
        }
        if late.is_empty() {
            return Ok(());
        }
        Err(format!(
            "node {} did not stop within {} s",
            late.join(" and node "),
            STOP_LIMIT.as_secs()
        ))
    }

    /// Where clients reach its nodes, as a list for the command line.
    pub(crate) fn client_addresses(&self) -> String {
        let ports = self.store.places().map(|place| self.store.client_port(place));
        ports.map(loopback).collect::<Vec<_>>().join(",")
    }

    /// Where operators do.
    pub(crate) fn admin_addresses(&self) -> String {
        let ports = self.store.places().map(|place| self.store.admin_port(place));
        ports.map(loopback).collect::<Vec<_>>().join(",")
    }

    /// `holdfast`, as an operator of this cluster calls it.
    pub(crate) fn holdfast(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.tools.holdfast);
        command
            .args(args)
            .args(["--output", "json"])
            .env("HOLDFAST_ENDPOINTS", self.client_addresses())
            .env("HOLDFAST_ADMIN_ENDPOINTS", self.admin_addresses())
            .stdin(Stdio::null());
        command
    }

    /// Starts a node that does not run, with the data it has, and waits for nothing.
    pub(crate) fn start_node(&mut self, place: usize) -> Result<(), Failure> {
        self.children[place - 1] = Some(self.spawn(place)?);
        Ok(())
    }

    /// Starts one node more, on an empty directory. It waits to be added; returns its place.
    pub(crate) fn start_newcomer(&mut self) -> Result<usize, Failure> {
        let place = self.children.len() + 1;
        let data = self.data(place);
        fs::create_dir_all(&data).map_err(|why| format!("cannot create {}: {why}", data.display()))?;
        self.lay_out(place)?;
        let child = self.spawn(place)?;
        self.children.push(Some(child));
        Ok(place)
    }

    /// `holdfast cluster add-learner` for a newcomer.
    pub(crate) fn add_learner(&self, place: usize) -> Command {
        let [peer, client, admin] = [
            self.store.peer_port(place),
            self.store.client_port(place),
            self.store.admin_port(place),
        ]
        .map(loopback);
        let place = place.to_string();
        self.holdfast(&[
            "cluster",
            "add-learner",
            &place,
            "--peer",
            &peer,
            "--client",
            &client,
            "--admin",
            &admin,
        ])
    }

    /// Waits until the leader says that a node has what is committed, and the node that it serves. With a poll every few
    /// milliseconds, so that how long it took can be measured.
    pub(crate) fn wait_for_member(&self, place: usize, role: &str, limit: Duration) -> Result<(), Failure> {
        let mut command = self.peers("member");
        command.args(["--node", &place.to_string(), "--role", role]);
        command.args(["--admin-of-node", &loopback(self.store.admin_port(place))]);
        command.args(["--limit", &limit.as_secs().to_string()]);
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(self.explain(place, format!("node {place} did not catch up"))),
        }
    }

    /// Starts a node that was killed, with the data it had, and gives it time to take part again.
    pub(crate) fn restart(&mut self, place: usize) -> Result<(), Failure> {
        self.start_node(place)?;
        // etcd reads its whole log before it listens.
        let address = loopback(self.store.client_port(place));
        if !local::wait_until(START_LIMIT, || TcpStream::connect(&address).is_ok()) {
            return Err(self.explain(place, format!("node {place} does not listen")));
        }
        std::thread::sleep(REJOIN);
        self.wait_until_it_answers()
    }

    /// Lets the store write out what it has in memory, where it can be asked to, and then gives it some time to tidy up.
    pub(crate) fn settle(&self, time: Duration) {
        if self.store.is_postgres() {
            postgres::checkpoint(&self.tools.postgres, self.store);
        }
        std::thread::sleep(time);
    }

    /// Stops it and removes its data.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        self.end();
        self.wipe()?;
        // What this store left to be written is not the next one's to wait for.
        let _ = Command::new("sync").status();
        Ok(())
    }

    /// Ends all processes. The data is not needed any more, so politeness is only for PostgreSQL, whose processes would
    /// outlive the first of them for a while.
    fn end(&mut self) {
        for child in self.children.iter_mut().flatten() {
            if self.store.is_postgres() {
                // Immediate shutdown. `kill` is a shell built-in everywhere; procps is not.
                let signalled = Command::new("sh")
                    .args(["-c", &format!("kill -QUIT {}", child.id())])
                    .stderr(Stdio::null())
                    .status();
                let ended = || child.try_wait().is_ok_and(|status| status.is_some());
                if signalled.is_ok_and(|status| status.success()) && local::wait_until(STOP_LIMIT, ended) {
                    continue;
                }
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        self.children.clear();
    }

    fn wipe(&self) -> Result<(), Failure> {
        match fs::remove_dir_all(&self.home) {
            Err(why) if why.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {why}", self.home.display()))
            }
            _ => Ok(()),
        }
    }

    /// A failure with the end of the node's log.
    fn explain(&self, place: usize, why: Failure) -> Failure {
        let text = fs::read_to_string(self.log(place)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n");
        format!("{why}. The end of {}:\n\n{tail}", self.log(place).display())
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

fn place_in(output: &Output) -> Option<usize> {
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

/// Where all stores keep their data: in the target directory, unless `postgres` cannot reach it there; then all go
/// elsewhere, since the comparison is of stores and not of disks.
pub(crate) fn home() -> Result<PathBuf, Failure> {
    let usual = workspace::target_dir()?.join("bench-peers");
    fs::create_dir_all(&usual).map_err(|why| format!("cannot create {}: {why}", usual.display()))?;
    let home = if prerequisites::is_root() && !everybody_may_enter(&usual) {
        PathBuf::from("/var/tmp/holdfast-bench-peers")
    } else {
        usual
    };
    let data = home.join("data");
    fs::create_dir_all(&data).map_err(|why| format!("cannot create {}: {why}", data.display()))?;
    Ok(home)
}

fn everybody_may_enter(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.ancestors()
        .all(|dir| fs::metadata(dir).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0))
}
