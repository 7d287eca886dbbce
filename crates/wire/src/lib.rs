//! What goes over the wire, and how it becomes the vocabulary of the other rooms.
//!
//! `proto/` is the truth; build.rs compiles it into [`v1`], the public API, and [`internal`], what the nodes of
//! one cluster say to each other. Services take messages apart with [`convert`] and put answers together with it;
//! they turn everything that can go wrong into a gRPC status with [`status`], and clients read it back with
//! [`status::ErrorView`]. No other crate builds or reads a public message's details by hand.
//!
//! - [`convert`] finds everything wrong with a request's *shape* (names, enums, masks, what must be set) and
//!   reports all of it at once, each with the path of its field. Whether the values obey the account rules is the
//!   accounts crate's business, and it answers with paths of the same form.
//! - [`status`] is the one place that decides which code, reason, outcome and retry hint a failure has.
//!
//! Nothing here does I/O, reads a clock or draws a random number. The same code serves both runtimes: the
//! simulator's tonic has the real one's `Status`.
#![forbid(unsafe_code)]

pub mod convert;
mod generated;
pub mod status;

pub use generated::holdfast::{internal::v1 as internal, v1};

/// The public API as an encoded `FileDescriptorSet`, with comments, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public.bin"));
