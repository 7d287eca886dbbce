//! Whole Holdfast clusters inside madsim: the production `node::start` on the fault-injecting engine, the
//! production client, simulated time and network, one seed.
//!
//! `cluster` starts, kills and restarts nodes whose disks outlive them; `workload` is what clients do, `faults` what
//! goes wrong; `one_run` puts them together and asks the judges; `trace` writes down everything in an order and with
//! times that the seed alone decides. The `holdfast-sim` program runs one seed in one process, because some sources of order (wake-up counters) are
//! process-wide.
//!
//! `config` is all that a run is, `history` what clients saw, `judges` say whether that may be, and `runner` starts
//! many runs and adds them up. They need no simulator, so a normal build tests them; everything else exists in a
//! simulation (`--cfg madsim`) only.
#![forbid(unsafe_code)]

pub mod config;
pub mod history;
pub mod judges;
pub mod planted;
pub mod report;
pub mod runner;
pub mod summary;

#[cfg(madsim)]
pub mod cluster;
#[cfg(madsim)]
pub mod command_line;
#[cfg(madsim)]
pub mod draw;
#[cfg(madsim)]
pub mod end_state;
#[cfg(madsim)]
pub mod fail_stop;
#[cfg(madsim)]
pub mod faults;
#[cfg(madsim)]
mod leaving;
#[cfg(madsim)]
pub mod monitor;
#[cfg(madsim)]
pub mod one_run;
#[cfg(madsim)]
mod overheard;
#[cfg(madsim)]
pub mod trace;
#[cfg(madsim)]
pub mod workload;
