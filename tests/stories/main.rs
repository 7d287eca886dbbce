//! Stories about real clusters, one file each. What is asserted is what a caller was promised: nothing acknowledged
//! is lost, nothing happens twice, nothing hangs.

#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod bad_days;
mod bad_input;
mod bench;
mod command_line;
mod disk_full;
mod exactly_once;
mod freeze;
mod identity;
mod import;
mod kill_restart;
mod overload;
mod python;
mod reflection;
mod replace;
mod tls;
mod tokens;
mod transfer;
mod uniqueness;
