//! RocksDB behind the [`Engine`](holdfast_storage::engine::Engine) port. The only crate that links RocksDB.
//!
//! One data directory belongs to one node and one process:
//!
//! ```text
//! LOCK      who has the directory open: exclusive lock, process id          layout.rs
//! FORMAT    which release of the layout wrote it                           layout.rs
//! DAMAGED   only if a process met damage: what it met; no process opens the directory then   fate.rs
//! synced    the synced-through mark: how far the log was durable           mark.rs
//! ballast   bytes that mean nothing, given up when the disk is full        ballast.rs
//! ingest/   tables on their way into RocksDB; emptied once it is open      bulk.rs
//! db/       RocksDB's own files, one column family per `types::Family`     tuning.rs
//! ```
//!
//! A write is one unsynced RocksDB batch. Durability is a separate step: [`sync`](RocksEngine) runs on a thread of
//! its own (`syncer.rs`), raises the mark, then answers everybody who waited when it began. Views are RocksDB
//! snapshots that own their database (`view.rs`).
//!
//! Every failure that makes the disk or its contents doubtful is *terminal*: the first one is remembered in the
//! engine's `Fate`, and every later call fails with `Stopped`. Nothing is tried again. Damage is remembered in the directory
//! too, and the next process refuses it.
//!
//! What RocksDB is trusted for, and what not: it finds damage in table files (checksums), and in the middle of the
//! log it silently stops (point-in-time recovery). The mark turns the latter into a refusal to start. And where a log
//! ends cleanly but too early it reads on in the next one; what is behind such a hole is dropped before it looks (`hole.rs`).
#![cfg(not(madsim))]

mod ballast;
mod bulk;
mod engine;
mod examine;
mod fate;
mod hole;
mod housekeeping;
mod layout;
mod mark;
mod syncer;
mod tuning;
mod usage;
mod view;
mod wal;

pub use engine::{OpenOptions, RocksEngine};
