//! `cargo xtask up`: from a fresh clone to a cluster that has kept its first account.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::local::{self, LocalNode};
use crate::{Failure, prerequisites, workspace};

/// How long three nodes may take to elect a leader and answer. Elections take about a second; the rest is for
/// slow disks and busy machines.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// How long the node that was started last may take to join the others, or to end because they do not take it.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// The account that shows that the cluster keeps accounts.
const FIRST_ACCOUNT: &str = "first-account";

/// Runs the command.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    if let Some(unknown) = args.first() {
        return Err(format!("up takes no argument, not `{unknown}`"));
    }
    let running = LocalNode::all()
        .into_iter()
        .filter(|node| node.pid().is_some())
        .count();
    if running == local::NODES.len() {
        println!("Already running: three nodes, logs in .holdfast/. `cargo xtask down` stops them.");
        return Ok(());
    }
    prerequisites::ensure()?;
    let binary = workspace::build_holdfast()?;
    let holdfast = link_binary(&binary)?;
    for node in LocalNode::all() {
        if node.pid().is_none() {
            node.start(&binary)?;
            println!("Started node {}.", node.0);
        }
    }
    wait_for_answer(&holdfast)?;
    settle(&holdfast)?;
    greet(&holdfast)
}

/// `.holdfast/bin/holdfast`, the same path wherever cargo's target directory is.
fn link_binary(binary: &Path) -> Result<std::path::PathBuf, Failure> {
    let directory = local::home().join("bin");
    let link = directory.join("holdfast");
    fs::create_dir_all(&directory).map_err(|why| format!("cannot create {}: {why}", directory.display()))?;
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(binary, &link)
        .map_err(|why| format!("cannot link {}: {why}", link.display()))?;
    Ok(link)
}

fn holdfast(binary: &Path, args: &[&str]) -> Result<Output, Failure> {
    Command::new(binary)
        .args(args)
        .current_dir(workspace::root())
        .output()
        .map_err(|why| format!("cannot run {}: {why}", binary.display()))
}

/// Waits until a read of the first account is answered: by a linearizable yes or no, which takes a leader that
/// has passed a barrier. Creates the account when the answer is no.
fn wait_for_answer(binary: &Path) -> Result<(), Failure> {
    println!("Waiting for the cluster to answer ...");
    let mut last = String::new();
    let answered = wait_beside_nodes(ANSWER_LIMIT, || match first_account(binary) {
        Ok(()) => true,
        Err(why) => {
            last = why;
            false
        }
    })?;
    if !answered {
        return Err(format!(
            "no answer within {} s: {last}\nThe nodes' logs are in .holdfast/.",
            ANSWER_LIMIT.as_secs()
        ));
    }
    Ok(())
}

/// Waits until all nodes have joined: two of three answer for the cluster, also when the third is not taken. An alarm that
/// stays is shown with the status.
fn settle(binary: &Path) -> Result<(), Failure> {
    wait_beside_nodes(SETTLE_LIMIT, || {
        holdfast(binary, &["cluster", "status"])
            .is_ok_and(|status| !String::from_utf8_lossy(&status.stdout).contains("ALARM"))
    })?;
    Ok(())
}

/// Calls `done` until it answers true; false when `limit` has passed first. Fails once a node has ended.
fn wait_beside_nodes(limit: Duration, mut done: impl FnMut() -> bool) -> Result<bool, Failure> {
    // Seen twice: in the first instant of a process the system does not show its command line yet.
    let (mut missing, mut stopped) = (None, None);
    let was_done = local::wait_until(limit, || {
        let before = missing;
        missing = LocalNode::all().into_iter().find(|node| node.pid().is_none());
        stopped = missing.filter(|node| Some(*node) == before);
        stopped.is_some() || done()
    });
    match stopped {
        Some(node) => Err(format!(
            "node {} stopped. The end of {}:\n\n{}",
            node.0,
            node.log().display(),
            node.log_tail()
        )),
        None => Ok(was_done),
    }
}

fn first_account(binary: &Path) -> Result<(), Failure> {
    let read = holdfast(binary, &["account", "get", FIRST_ACCOUNT])?;
    if read.status.success() {
        return Ok(());
    }
    let create = holdfast(
        binary,
        &[
            "account",
            "create",
            "--id",
            FIRST_ACCOUNT,
            "--display-name",
            "Ada Lovelace",
            "--email",
            "ada@example.com",
        ],
    )?;
    if create.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&create.stderr).trim().to_owned())
    }
}

/// Shows the account, read back, and what to try next.
fn greet(binary: &Path) -> Result<(), Failure> {
    for args in [vec!["cluster", "status"], vec!["account", "get", FIRST_ACCOUNT]] {
        let output = holdfast(binary, &args)?;
        println!(
            "\n$ holdfast {}\n{}",
            args.join(" "),
            String::from_utf8_lossy(&output.stdout).trim_end()
        );
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    println!(
        "\nThree nodes keep accounts on this machine: clients 127.0.0.1:7101 to 7103, operators 7201 to 7203, \
         metrics http://127.0.0.1:7401/metrics.\n\nNext:\n  \
         export PATH=\"$PWD/.holdfast/bin:$PATH\"\n  \
         holdfast account lookup email ada@example.com\n  \
         cargo xtask generate 100000 --out accounts.jsonl\n  \
         holdfast import accounts.jsonl --rejects rejected.jsonl\n  \
         kill -9 $(cat .holdfast/node1.pid); holdfast cluster status; cargo xtask up\n  \
         cargo xtask down"
    );
    Ok(())
}
