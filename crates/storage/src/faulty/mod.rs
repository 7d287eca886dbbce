//! The fault-injecting engine: the other side of the disk seam, for simulation and for tests that need a disk
//! to fail on purpose.
//!
//! A [`FaultyDisk`] is the hardware: it outlives the nodes whose engines are opened on it, has [`Faults`], and
//! loses what was not synced when its power is cut. [`FaultyEngine`] is what a node holds. Rows live in
//! persistent trees, so a view costs a few reference counts whatever the store's size.
//!
//! It is harsher than a disk, never kinder:
//!
//! - [`FaultyDisk::crash`] keeps *any* prefix of the batches written since the last sync, never part of one (a torn
//!   last record shows by its checksum and is as good as lost);
//! - an [`ingest`](crate::engine::Engine::ingest) reaches the families one after the other in random order, so
//!   a crash in its midst leaves any subset of them;
//! - after a failed sync the engine is finished, and even a mere restart may lose what was not synced;
//! - a bit flipped at or below the synced mark is found at open, as [`EngineError::Damaged`]; one in a row is found
//!   when that row is read, and the disk cannot be opened again after that;
//! - dropping an engine writes and syncs nothing.
//!
//! Its only entropy is the seed, its only clock the runtime's; the same calls give the same disk.
//!
//! [`EngineError::Damaged`]: crate::engine::EngineError::Damaged

mod disk;
mod engine;
mod image;
#[cfg(test)]
mod tests;

pub use disk::{Faults, FaultyDisk};
pub use engine::FaultyEngine;
