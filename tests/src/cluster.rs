//! Nodes in processes of their own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use holdfast_client::{Client, ClientConfig};
use holdfast_wire::v1;
use rustix::process::{Pid, Signal, kill_process};

use crate::{api, pause};

/// How long a cluster may take to elect a leader that answers: elections take a second or two, the rest is for a
/// machine that compiles something else meanwhile.
pub const LEADER_LIMIT: Duration = Duration::from_secs(40);

/// What a cluster looks like.
#[derive(Clone)]
pub struct Options {
    /// How many nodes form it, numbered from 1.
    pub nodes: u64,
    /// TOML that goes into every node's configuration.
    pub extra: String,
    /// The cluster's id; drawn if none is given.
    pub cluster_id: Option<uuid::Uuid>,
    /// An address to share with another cluster's (whose nodes must have other numbers).
    pub address: Option<Ipv4Addr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            extra: String::new(),
            cluster_id: None,
            address: None,
        }
    }
}

/// A cluster of real processes. Dropping it kills them; when the test panics, the ends of their logs are printed.
pub struct Cluster {
    directory: Option<tempfile::TempDir>,
    /// The loopback address all its nodes listen on.
    pub address: Ipv4Addr,
    /// The id in the nodes' configurations.
    pub cluster_id: uuid::Uuid,
    options: Options,
    children: BTreeMap<u64, Child>,
}

impl Cluster {
    /// Three nodes with a leader that answers.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Nodes as `options` say, with a leader that answers.
    pub async fn start_with(options: Options) -> Self {
        let mut cluster = Self::lay_out(options);
        for id in cluster.founders() {
            cluster.spawn(id);
        }
        cluster.leader().await;
        cluster
    }

    /// Directories and configurations; no process yet.
    pub fn lay_out(options: Options) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("holdfast-e2e-")
            .tempdir()
            .unwrap();
        let cluster = Self {
            directory: Some(directory),
            address: options.address.unwrap_or_else(fresh_address),
            cluster_id: options.cluster_id.unwrap_or_else(uuid::Uuid::now_v7),
            options,
            children: BTreeMap::new(),
        };
        for id in cluster.founders() {
            cluster.write_config(id, true, &cluster.data_dir(id));
        }
        cluster
    }

    /// The nodes the cluster began with.
    pub fn founders(&self) -> Vec<u64> {
        (1..=self.options.nodes).collect()
    }

    /// The directory that holds everything of this cluster.
    pub fn path(&self) -> &Path {
        self.directory.as_ref().unwrap().path()
    }

    /// Where node `id` keeps its records.
    pub fn data_dir(&self, id: u64) -> PathBuf {
        self.path().join(format!("node{id}"))
    }

    /// The configuration file of node `id`.
    pub fn config_path(&self, id: u64) -> PathBuf {
        self.path().join(format!("node{id}.toml"))
    }

    /// What node `id` printed, over all its lives.
    pub fn log(&self, id: u64) -> String {
        fs::read_to_string(self.path().join(format!("node{id}.log"))).unwrap_or_default()
    }

    /// `host:port` of a node's client port.
    pub fn client_address(&self, id: u64) -> String {
        format!("{}:{}", self.address, 7100 + id)
    }

    /// `host:port` of a node's admin port.
    pub fn admin_address(&self, id: u64) -> String {
        format!("{}:{}", self.address, 7200 + id)
    }

    /// `host:port` of a node's peer port.
    pub fn peer_address(&self, id: u64) -> String {
        format!("{}:{}", self.address, 7300 + id)
    }

    /// `host:port` of a node's metrics port.
    pub fn metrics_address(&self, id: u64) -> String {
        format!("{}:{}", self.address, 7400 + id)
    }

    /// Writes the configuration of node `id`, which keeps its records in `data`. A founder's lists the initial
    /// members; a node that joins later has no list.
    pub fn write_config(&self, id: u64, founder: bool, data: &Path) {
        let mut text = format!(
            "[node]\nid = {id}\ndata_dir = \"{}\"\n\n[cluster]\nid = \"{}\"\n",
            data.display(),
            self.cluster_id
        );
        if founder {
            text.push_str("initial_members = [\n");
            for member in self.founders() {
                let (peer, client, admin) = (
                    self.peer_address(member),
                    self.client_address(member),
                    self.admin_address(member),
                );
                writeln!(
                    text,
                    "  {{ id = {member}, peer = \"{peer}\", client = \"{client}\", admin = \"{admin}\" }},"
                )
                .unwrap();
            }
            text.push_str("]\n");
        }
        write!(
            text,
            "\n[listen]\nclient = \"{}\"\nadmin = \"{}\"\npeer = \"{}\"\nmetrics = \"{}\"\n",
            self.client_address(id),
            self.admin_address(id),
            self.peer_address(id),
            self.metrics_address(id)
        )
        .unwrap();
        // A test machine's disk is not a server's: these two would refuse creates on a nearly full one.
        if !self.options.extra.contains("[disk]") {
            text.push_str("\n[disk]\nreserve_mib = 16\nballast_mib = 1\n");
        }
        if !self.options.extra.contains("[limits]") {
            text.push_str("\n[limits]\nmemory_budget_mib = 256\n");
        }
        writeln!(text, "\n{}", self.options.extra).unwrap();
        fs::write(self.config_path(id), text).unwrap();
    }

    /// The command that serves node `id`, with its output going to its log.
    pub fn serve_command(&self, id: u64) -> Command {
        let mut command = Command::new(binary());
        command.arg("serve").arg("--config").arg(self.config_path(id));
        self.log_output(id, &mut command);
        command
    }

    /// Sends what `command` prints to the log of node `id`.
    pub fn log_output(&self, id: u64, command: &mut Command) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path().join(format!("node{id}.log")))
            .unwrap();
        let errors = log.try_clone().unwrap();
        command
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
    }

    /// Starts the process of node `id`.
    pub fn spawn(&mut self, id: u64) {
        let command = self.serve_command(id);
        self.spawn_command(id, command);
    }

    /// Starts `command` as the process of node `id`.
    pub fn spawn_command(&mut self, id: u64, mut command: Command) {
        assert!(!self.children.contains_key(&id), "node {id} is running already");
        let child = command
            .spawn()
            .unwrap_or_else(|why| panic!("cannot start {command:?}: {why}"));
        self.children.insert(id, child);
    }

    /// Tries to serve node `id` and expects it to refuse: its exit status and everything it printed this time.
    pub fn expect_refusal(&self, id: u64) -> (ExitStatus, String) {
        let before = self.log(id).len();
        let mut child = self.serve_command(id).spawn().unwrap();
        let status = wait_exit(&mut child, Duration::from_secs(30)).unwrap_or_else(|| {
            panic!(
                "node {id} should have refused to start:\n{}",
                &self.log(id)[before..]
            )
        });
        let said = self.log(id)[before..].to_owned();
        assert!(!status.success(), "node {id} ended without an error:\n{said}");
        (status, said)
    }

    fn signal(&self, id: u64, signal: Signal) {
        let child = self
            .children
            .get(&id)
            .unwrap_or_else(|| panic!("node {id} is not running"));
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// The process id of node `id`.
    pub fn pid(&self, id: u64) -> u32 {
        self.children[&id].id()
    }

    /// The nodes that have a process.
    pub fn running(&self) -> Vec<u64> {
        self.children.keys().copied().collect()
    }

    /// kill -9, and waits until the process is gone.
    pub fn kill(&mut self, id: u64) {
        self.signal(id, Signal::KILL);
        self.children.remove(&id).unwrap().wait().unwrap();
    }

    /// kill -9 to all nodes at once.
    pub fn kill_all(&mut self) {
        for child in self.children.values() {
            let _ = kill_process(Pid::from_child(child), Signal::KILL);
        }
        for (_, mut child) in std::mem::take(&mut self.children) {
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and waits for the graceful stop.
    pub fn terminate(&mut self, id: u64, limit: Duration) -> ExitStatus {
        self.signal(id, Signal::TERM);
        let mut child = self.children.remove(&id).unwrap();
        wait_exit(&mut child, limit).unwrap_or_else(|| {
            let _ = child.kill();
            let _ = child.wait();
            panic!("node {id} did not stop within {limit:?} of SIGTERM");
        })
    }

    /// SIGSTOP: the process stays, and does nothing.
    pub fn freeze(&self, id: u64) {
        self.signal(id, Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self, id: u64) {
        self.signal(id, Signal::CONT);
    }

    /// Waits until the process of node `id` ends by itself.
    pub fn wait_stopped(&mut self, id: u64, limit: Duration) -> Option<ExitStatus> {
        let status = wait_exit(self.children.get_mut(&id)?, limit)?;
        self.children.remove(&id);
        Some(status)
    }

    /// Removes all records of node `id`.
    pub fn wipe(&self, id: u64) {
        assert!(!self.children.contains_key(&id), "node {id} is running");
        fs::remove_dir_all(self.data_dir(id)).unwrap();
    }

    /// A client that knows all running nodes.
    pub fn client(&self) -> Client {
        self.client_of(&self.running())
    }

    /// A client that knows only `nodes`.
    pub fn client_of(&self, nodes: &[u64]) -> Client {
        Client::connect(ClientConfig {
            endpoints: nodes.iter().map(|id| self.client_address(*id)).collect(),
            admin_endpoints: nodes.iter().map(|id| self.admin_address(*id)).collect(),
            caller: "stories".to_owned(),
            ..ClientConfig::default()
        })
        .unwrap()
    }

    /// The status as node `id` sees it; none if it does not answer.
    pub async fn status(&self, id: u64) -> Option<v1::GetStatusResponse> {
        let mut client = api::cluster_service(&self.admin_address(id)).await.ok()?;
        let request = client.get_status(v1::GetStatusRequest {});
        Some(
            tokio::time::timeout(Duration::from_secs(2), request)
                .await
                .ok()?
                .ok()?
                .into_inner(),
        )
    }

    /// Shard 0 as node `id` sees it.
    pub async fn shard(&self, id: u64) -> Option<v1::ShardStatus> {
        self.status(id).await?.shards.into_iter().next()
    }

    /// Waits for a leader that answers a linearizable read, and says which node it is.
    pub async fn leader(&self) -> u64 {
        self.leader_other_than(0).await
    }

    /// Waits for a leader that is not `old`.
    pub async fn leader_other_than(&self, old: u64) -> u64 {
        let end = Instant::now() + LEADER_LIMIT;
        loop {
            for id in self.running().into_iter().filter(|id| *id != old) {
                let Some(shard) = self.shard(id).await else {
                    continue;
                };
                if shard.role() == v1::ReplicaRole::Leader && api::answers(&self.client_address(id)).await {
                    return id;
                }
            }
            assert!(Instant::now() < end, "no leader within {LEADER_LIMIT:?}");
            pause().await;
        }
    }

    /// A running node that is not the leader.
    pub async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        self.running().into_iter().find(|id| *id != leader).unwrap()
    }

    /// Waits until all running nodes have applied as much as the leader had committed when this was called.
    pub async fn converge(&self) {
        let leader = self.leader().await;
        let goal = self.shard(leader).await.map_or(0, |shard| shard.committed_index);
        for id in self.running() {
            self.applied(id, goal).await;
        }
    }

    /// Waits until node `id` has applied log index `goal`.
    pub async fn applied(&self, id: u64, goal: u64) {
        let end = Instant::now() + LEADER_LIMIT;
        loop {
            let applied = self.shard(id).await.map_or(0, |shard| shard.applied_index);
            if applied >= goal {
                return;
            }
            assert!(
                Instant::now() < end,
                "node {id} applied {applied}, not {goal}, within {LEADER_LIMIT:?}"
            );
            pause().await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_all();
        if !std::thread::panicking() {
            return;
        }
        if let Some(directory) = self.directory.take() {
            let path = directory.keep();
            eprintln!("\nkept for inspection: {}", path.display());
            for id in 1..10 {
                let log = fs::read_to_string(path.join(format!("node{id}.log"))).unwrap_or_default();
                if !log.is_empty() {
                    let lines: Vec<&str> = log.lines().collect();
                    let tail = &lines[lines.len().saturating_sub(25)..];
                    eprintln!(
                        "\n--- node{id}.log, last {} lines\n{}",
                        tail.len(),
                        tail.join("\n")
                    );
                }
            }
        }
    }
}

/// The binary under test: `HOLDFAST_BIN`, or the one in the target directory this test was built into.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HOLDFAST_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    // target/debug/deps/stories-0123456789abcdef
    let path = test.parent().and_then(Path::parent).unwrap().join("holdfast");
    assert!(
        path.exists(),
        "build the binary first: cargo build --package holdfast-cli ({} is missing)",
        path.display()
    );
    path
}

/// A loopback address no other test that runs now has: process id and a counter, spread over 127.16.0.0 and up.
pub fn fresh_address() -> Ipv4Addr {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let pid = std::process::id();
    let round = COUNTER.fetch_add(1, Ordering::Relaxed) % 200;
    Ipv4Addr::new(127, 16 + round as u8, (pid >> 8) as u8, pid as u8)
}

/// Waits until `child` ends, for at most `limit`.
pub fn wait_exit(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
