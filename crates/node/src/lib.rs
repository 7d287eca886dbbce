//! One Holdfast node, put together.
#![forbid(unsafe_code)]

pub mod config;

pub use config::Config;
