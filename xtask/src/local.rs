//! The three local nodes: their files, and whether they run.
//!
//! Everything they write lies under `.holdfast/` in the repository root: `nodeN/` (data), `nodeN.log`, `nodeN.pid`
//! and `bin/holdfast`, a link to the binary last built.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Failure, workspace};

/// The nodes of `cluster/local/`.
pub(crate) const NODES: [u64; 3] = [1, 2, 3];

/// Where their data, logs and pid files are.
pub(crate) fn home() -> PathBuf {
    workspace::root().join(".holdfast")
}

/// One local node.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct LocalNode(pub(crate) u64);

impl LocalNode {
    /// All of them.
    pub(crate) fn all() -> [LocalNode; 3] {
        NODES.map(LocalNode)
    }

    /// Its configuration, relative to the repository root.
    pub(crate) fn config(self) -> String {
        format!("cluster/local/node{}.toml", self.0)
    }

    /// Its log.
    pub(crate) fn log(self) -> PathBuf {
        home().join(format!("node{}.log", self.0))
    }

    fn pid_file(self) -> PathBuf {
        home().join(format!("node{}.pid", self.0))
    }

    /// The process that runs this node, if one does. A pid file left behind by a crash is not believed: the
    /// process must be a `holdfast` serving this very configuration.
    pub(crate) fn pid(self) -> Option<u32> {
        let pid: u32 = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = command_line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let is_ours = words.next()?.ends_with("holdfast") && words.any(|word| word == self.config());
        is_ours.then_some(pid)
    }

    /// Starts the node in a process group of its own, so that Ctrl-C at the terminal does not reach it.
    pub(crate) fn start(self, binary: &Path) -> Result<(), Failure> {
        let problem = |what: &str, why: std::io::Error| format!("node {}: {what}: {why}", self.0);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(|why| problem("cannot open its log", why))?;
        let errors = log
            .try_clone()
            .map_err(|why| problem("cannot share its log", why))?;
        let child = Command::new(binary)
            .args(["serve", "--config", &self.config()])
            .current_dir(workspace::root())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|why| problem("cannot start it", why))?;
        fs::write(self.pid_file(), format!("{}\n", child.id()))
            .map_err(|why| problem("cannot write its pid file", why))
    }

    /// Forgets the pid once the process is gone.
    pub(crate) fn forget(self) {
        let _ = fs::remove_file(self.pid_file());
    }

    /// Sends `signal` to the node's process. `kill` is a shell built-in everywhere; procps is not.
    pub(crate) fn signal(self, signal: &str) {
        if let Some(pid) = self.pid() {
            let _ = Command::new("sh")
                .args(["-c", &format!("kill -{signal} {pid}")])
                .stderr(Stdio::null())
                .status();
        }
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// Calls `done` until it answers true; false when `limit` has passed first.
pub(crate) fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
