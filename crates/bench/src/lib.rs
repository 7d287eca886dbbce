//! The load generator: one workload, any store.
//!
//! A driver implements [`Store`] and [`Session`]; [`Holdfast`] is ours, [`messages`] what it sends. Everything else is here
//! and the same for all, so that two stores differ in a table only because they differ:
//!
//! - `record`: accounts made from a seed and a number, so that no client has to remember any;
//! - `workload`: what clients do, and how often to which account;
//! - `plan`: the options of a run, for every driver's command line;
//! - `pace`: when operations begin, in a closed and an open loop; `alarm` wakes clients to the microsecond;
//! - `actor`: one client: does something and judges the answer. A refusal, another account, another size is an error;
//! - `tally`: what one client saw, in histograms of its own; `seconds`: latencies second by second, of all together;
//! - `run`: connects clients, lets them begin together, adds up what they saw;
//! - `measurement`: the result, as JSON and as a table.
//!
//! Clients share nothing they wait for: one counter in an open loop, one word for each account, its newest version, and the
//! counters of the seconds.
//! The generator's own processor time is part of each result; where it is near all that its threads could have, the
//! result is about the generator, and the table says so.
//!
//! This crate measures; it is no part of a simulation and reads the clock as it likes.
#![forbid(unsafe_code)]

mod actor;
mod alarm;
mod holdfast;
mod measurement;
pub mod messages;
mod pace;
mod plan;
mod record;
mod run;
mod seconds;
mod tally;
mod target;
mod workload;

pub use holdfast::{Holdfast, HoldfastSession};
pub use measurement::{Errors, Generator, Latency, Measurement, Prepared, Window};
pub use plan::{Load, Options, Plan};
pub use record::{Population, Record};
pub use run::{Progress, Stage, prepare, run};
pub use target::{Change, Class, Existing, Failure, Found, Session, Store, Updated};
pub use workload::{Distribution, Workload};
