//! Storage.
pub mod engine;
