//! `cargo xtask down`: stops the local nodes, gracefully if they can.

use std::fs;
use std::time::Duration;

use crate::Failure;
use crate::local::{self, LocalNode};

/// A graceful stop hands leadership over and drains; past this bound the node is killed, which is safe, only less
/// polite to its clients.
const GRACEFUL_LIMIT: Duration = Duration::from_secs(20);

/// Runs the command.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let wipe = match args {
        [] => false,
        [flag] if flag == "--wipe" => true,
        _ => return Err("down takes nothing but --wipe".to_owned()),
    };
    let running: Vec<LocalNode> = LocalNode::all()
        .into_iter()
        .filter(|node| node.pid().is_some())
        .collect();
    for node in &running {
        node.signal("TERM");
    }
    let stopped = local::wait_until(GRACEFUL_LIMIT, || running.iter().all(|node| node.pid().is_none()));
    if !stopped {
        for node in running.iter().filter(|node| node.pid().is_some()) {
            println!(
                "Node {} did not stop within {} s and is killed.",
                node.0,
                GRACEFUL_LIMIT.as_secs()
            );
            node.signal("KILL");
        }
        if !local::wait_until(Duration::from_secs(10), || {
            running.iter().all(|node| node.pid().is_none())
        }) {
            return Err("a node survived SIGKILL; is its disk stuck?".to_owned());
        }
    }
    for node in LocalNode::all() {
        node.forget();
    }
    match running.len() {
        0 => println!("Nothing was running."),
        1 => println!("Stopped 1 node."),
        count => println!("Stopped {count} nodes."),
    }
    if wipe {
        let home = local::home();
        if home.exists() {
            fs::remove_dir_all(&home).map_err(|why| format!("cannot remove {}: {why}", home.display()))?;
        }
        println!("Removed .holdfast/ with all data.");
    }
    Ok(())
}
