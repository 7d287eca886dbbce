//! One run in a process of its own.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Failure;
use crate::judges::Violation;
use crate::summary::Summary;

/// After this long a run is taken to hang, and says what it was at. A run takes seconds.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How long it has for that.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Debug, Clone)]
pub enum What<'a> {
    /// What the swarm draws from a seed.
    Seed(u64),
    /// A stored configuration.
    Stored(&'a Path),
}

impl What<'_> {
    /// The command that runs it again.
    pub fn replay(&self, planted: Option<&str>) -> String {
        let mut replay = match self {
            What::Seed(seed) => format!("cargo xtask sim --seed {seed}"),
            What::Stored(path) => match super::regressions::name_of(path) {
                Some(name) => format!("cargo xtask sim --scenario {name}"),
                None => format!("cargo xtask sim --configuration {}", path.display()),
            },
        };
        if let Some(bug) = planted {
            replay.push_str(" --planted ");
            replay.push_str(bug);
        }
        replay
    }
}

/// How to run it.
#[derive(Debug, Clone, Default)]
pub struct How<'a> {
    /// The bug to plant.
    pub planted: Option<&'a str>,
    /// Where a failing run writes its report.
    pub reports: Option<&'a Path>,
}

/// The command of a run.
///
/// # Errors
/// If this program does not know where it is.
pub fn command(what: &What<'_>, how: &How<'_>) -> Result<Command, Failure> {
    let program = std::env::current_exe().map_err(|why| format!("cannot find this program: {why}"))?;
    let mut command = Command::new(program);
    command.arg("run");
    match what {
        What::Seed(seed) => command.args(["--seed", &seed.to_string()]),
        What::Stored(path) => command.arg("--configuration").arg(path),
    };
    if let Some(bug) = how.planted {
        command.args(["--planted", bug]);
    }
    if let Some(directory) = how.reports {
        command.arg("--reports").arg(directory);
    }
    Ok(command)
}

/// Runs it, quietly. A process that ends without a summary, or does not end, is a violation too.
///
/// # Errors
/// If it cannot be started.
pub fn run(what: &What<'_>, how: &How<'_>) -> Result<Summary, Failure> {
    let mut child = command(what, how)?
        .arg("--quiet")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|why| format!("cannot start a run: {why}"))?;
    let out = child.stdout.take().map(read_all);
    let err = child.stderr.take().map(read_all);
    let began = Instant::now();
    let mut ended = None;
    let mut memory_mib = 0;
    while began.elapsed() < PATIENCE + LAST_WORDS && ended.is_none() {
        ended = child
            .try_wait()
            .map_err(|why| format!("cannot wait for a run: {why}"))?;
        if ended.is_none() {
            // It is gone once the process has ended.
            memory_mib = most_memory_mib(&child.id().to_string()).unwrap_or(memory_mib);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    if ended.is_none() {
        // It may just have ended by itself; then there is nothing to kill.
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = |reader: Option<std::thread::JoinHandle<String>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    let (out, err) = (text(out), text(err));
    let mut summary = Summary::find(&out).unwrap_or_else(|| {
        let how_it_ended = ended.map_or_else(
            || format!("did not end within {} s", (PATIENCE + LAST_WORDS).as_secs()),
            |status| format!("ended with {status} and no result"),
        );
        let last_words: Vec<&str> = err.lines().rev().take(12).collect();
        let last_words: Vec<&str> = last_words.into_iter().rev().collect();
        let seed = match what {
            What::Seed(seed) => *seed,
            What::Stored(_) => 0,
        };
        Summary {
            seed,
            replay: what.replay(how.planted),
            violations: vec![violation(
                "process",
                format!("the run {how_it_ended}; {}", last_words.join(" | ")),
            )],
            ..Summary::default()
        }
    });
    summary.most_memory_mib = memory_mib;
    Ok(summary)
}

fn violation(judge: &str, message: String) -> Violation {
    Violation {
        judge: judge.into(),
        message,
        operations: Vec::new(),
    }
}

/// The most memory that a process has had so far, mebibytes; none if the system does not say.
pub fn most_memory_mib(process: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

fn read_all(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What could be read until the pipe broke is what there is.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
