//! The commands, one file each.

pub(crate) mod account;
pub(crate) mod bench;
pub(crate) mod cluster;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod realm;
pub(crate) mod serve;
