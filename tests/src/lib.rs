//! Support for end-to-end tests: real nodes in real processes, and what can happen to them.
//!
//! * [`cluster`]: nodes of the `holdfast` binary in a temporary directory; killed, frozen, thawed, wiped.
//! * [`api`]: one account, said in one line; plain gRPC clients to one chosen node.
//! * [`load`]: writers that remember what was acknowledged, and the check that all of it is still there.
//! * [`cli`]: the command line, as a script uses it.
//!
//! Every cluster gets a loopback address of its own in 127.0.0.0/8 with fixed ports, so tests run side by side, and
//! a node that is restarted finds its port free: an outgoing connection never borrows it.
//!
//! A test that this machine cannot run calls [`skip`] with the reason and returns.

#![allow(
    clippy::unwrap_used,
    reason = "this crate is all tests; a panic is how a test says no"
)]

pub mod api;
pub mod cli;
pub mod cluster;
pub mod load;

use std::io::Write;
use std::time::Duration;

/// Says that the calling test cannot run here, and why. `cargo xtask test` counts it as skipped.
pub fn skip(test: &str, why: &str) {
    println!("skipped: {test}: {why}");
    let Some(path) = std::env::var_os("HOLDFAST_TEST_SKIPS") else {
        return;
    };
    if let Ok(mut file) = std::fs::File::options().create(true).append(true).open(path) {
        let _ = writeln!(file, "{test}: {why}");
    }
}

/// A short pause between attempts.
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
