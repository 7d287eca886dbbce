//! The replicated state machine: what every replica of a shard does with one committed command.
//!
//! It knows no account rules. The leader evaluated those already and put the outcome into the log: *guards*
//! (what it read, absences included), *writes* and *change events*. [`apply`] checks the guards, writes all
//! or nothing, and stamps. It never awaits, never reads a clock, never draws a random number, never allocates
//! an id: two replicas that apply the same commands to the same tables hold the same bytes.
//! (CockroachDB calls this proposer-evaluated KV.)
//!
//! A row's value is an [`envelope`]: format byte, key id, stamp, body. Guards compare stamps, so
//! delete-and-recreate cannot fool them.
#![forbid(unsafe_code)]

mod apply;
mod command;
pub mod envelope;
pub mod layout;
mod state;
mod tables;

pub use apply::{ApplyError, Reply, apply};
pub use command::{Body, Command, Expect, FEATURE_LEVEL, Guard, Mutation, Write};
pub use state::{CorruptState, State};
pub use tables::Tables;
