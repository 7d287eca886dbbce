//! Many runs: each in a process of its own, as many at a time as there are cores.
//!
//! Everything here runs outside the simulation, in real time. A run is this same program with `run` as its
//! first argument (see [`child`]); its last line is a [`Summary`](crate::summary::Summary).

pub mod child;
pub mod coverage;
pub mod ledger;
pub mod pairs;
pub mod planted;
pub mod regressions;
pub mod shrink;
pub mod swarm;
mod totals;

pub use totals::Totals;

/// What went wrong, in words for whoever started it.
pub type Failure = String;
