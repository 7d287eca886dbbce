//! The command line, as a script uses it.

use std::process::{Command, Output, Stdio};

use crate::cluster::{Cluster, binary};

/// What a command printed and how it ended.
pub struct Said {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }
}

impl Said {
    /// Expects success, and the last line of output as JSON.
    pub fn json(&self) -> serde_json::Value {
        self.json_with_code(0)
    }

    /// Expects this exit code, and the last line of output as JSON.
    pub fn json_with_code(&self, code: i32) -> serde_json::Value {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        let line = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|why| panic!("{why} in {}", self.out))
    }
}

/// `holdfast ARGS`, pointed at all nodes of `cluster`.
pub fn command(cluster: &Cluster, args: &[&str]) -> Command {
    let nodes = cluster.founders();
    let join =
        |address: &dyn Fn(u64) -> String| nodes.iter().map(|id| address(*id)).collect::<Vec<_>>().join(",");
    let mut command = Command::new(binary());
    command
        .args(args)
        .env("HOLDFAST_ENDPOINTS", join(&|id| cluster.client_address(id)))
        .env("HOLDFAST_ADMIN_ENDPOINTS", join(&|id| cluster.admin_address(id)))
        .stdin(Stdio::null());
    command
}

/// Runs `holdfast ARGS` against `cluster`, without blocking the test's other tasks.
pub async fn run(cluster: &Cluster, args: &[&str]) -> Said {
    let mut command = command(cluster, args);
    tokio::task::spawn_blocking(move || Said::from(command.output().unwrap()))
        .await
        .unwrap()
}
