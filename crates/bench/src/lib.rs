//! The load generator: one workload, any store.
//!
//! A driver implements [`Store`] and [`Session`]; everything else, keys, arrivals, clocks, judgement, histograms, is
//! here and the same for all, so that two stores differ in a table only because they differ.
#![forbid(unsafe_code)]

mod record;
mod target;

pub use record::{Population, Record};
pub use target::{Change, Class, Existing, Failure, Found, Session, Store, Updated};
