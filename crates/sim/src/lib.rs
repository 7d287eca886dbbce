//! Whole Holdfast clusters inside madsim: the production `node::start` on the fault-injecting engine, the
//! production client, simulated time and network, one seed.
//!
//! `cluster` starts, kills and restarts nodes whose disks outlive them; `scenario` is what happens to
//! them; `trace` writes down everything in an order and with times that the seed alone decides. The
//! `holdfast-sim` program runs one seed in one process, because some sources of order (wake-up counters) are
//! process-wide. Outside a simulation (`--cfg madsim`) the crate is empty.
#![cfg(madsim)]
#![forbid(unsafe_code)]

pub mod cluster;
pub mod scenario;
pub mod trace;
