//! Whole Holdfast clusters inside madsim: the production `node::start` on the fault-injecting engine, the
//! production client, simulated time and network, one seed.
//!
//! `cluster` starts, kills and restarts nodes whose disks outlive them; `scenario` is what happens to
//! them; `trace` writes down everything in an order and with times that the seed alone decides. The
//! `holdfast-sim` program runs one seed in one process, because some sources of order (wake-up counters) are
//! process-wide.
//!
//! `history` is what clients saw, and `judges` say whether that may be. They need no simulator, so a normal build
//! tests them; everything else exists in a simulation (`--cfg madsim`) only.
#![forbid(unsafe_code)]

pub mod history;
pub mod judges;

#[cfg(madsim)]
pub mod cluster;
#[cfg(madsim)]
pub mod config;
#[cfg(madsim)]
pub mod scenario;
#[cfg(madsim)]
pub mod trace;
