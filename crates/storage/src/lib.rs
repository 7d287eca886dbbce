//! Storage: everything between typed rows and bytes on a disk, except the disk.
//!
//! [`engine`] is the port: an ordered key-value store with one write-ahead log. [`schema`] says where each
//! typed row lives and how it is written. [`overlay`] stages what applying commands writes, until it enters the
//! engine as one batch. [`command`] is the stored form of what the Raft log carries. [`faulty`] is the engine
//! that fails on purpose, and [`contract`] the suite that it and every other engine must pass.
//!
//! Nothing here awaits anything but an engine, and nothing names RocksDB, openraft or a file system.
#![forbid(unsafe_code)]

pub mod choices;
pub mod command;
pub mod contract;
pub mod engine;
pub mod faulty;
pub mod overlay;
mod proto;
pub mod schema;
