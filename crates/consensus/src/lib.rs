//! Consensus: one Raft group per shard, as a [`Group`] that proposes, reads and changes members.
//!
//! This is the only crate that names openraft. What the rest of the house sees is [`Group`], its errors, which
//! say what the caller may conclude, and its status.
//!
//! A proposal's way through: [`Group::propose`] hands the encoded command to Raft, pinned to the term it was
//! evaluated in; `log_store` keeps it in memory and queues it for `log_writer`, the node's one writer, which
//! gathers what is waiting into one batch and one sync; `network` streams it to the followers, whose
//! `peer_service` hands it to their Raft and so to their logs; once a quorum has synced it, `apply` runs it
//! through the machine's rules in one atomic batch, and the proposer gets the reply.
//!
//! Reading: `barrier` shares one quorum round (`leader_rounds`) among all readers that wait;
//! `hot_rows` keeps what was read lately. `snapshot` streams state to members whose log is too far behind. `membership` and `maintenance` keep the group in shape. `codec`, `entry` and
//! `keys` say what the bytes on disk look like; `identity` whose they are, and `acknowledged` what others know them to hold. `runtime` is the seam at which the
//! simulator takes the place of tokio. `trace` finds a request again in the logs of all members.

mod acknowledged;
mod apply;
mod backoff;
mod barrier;
mod codec;
mod config;
mod convert;
mod entry;
mod error;
mod fail_stop;
mod fatal;
mod group;
mod hot_rows;
mod identity;
mod keys;
mod lane;
mod leader_rounds;
mod log_store;
mod log_writer;
mod maintenance;
mod membership;
mod network;
mod peer_service;
mod peers;
mod runtime;
mod snapshot;
mod status;
mod trace;
mod type_config;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use config::{ConsensusConfig, Directory, PeerAddresses, PeerTls};
pub use error::{
    BarrierError, FlushError, InitializeError, MembershipError, ProposeError, StartError, Timeout,
};
pub use fail_stop::FailStop;
pub use fatal::FatalSink;
pub use group::{Group, PeerServer};
pub use log_writer::LogWriter;
pub use peer_service::PeerService;
pub use status::{
    Committed, GroupStatus, Leadership, LogPosition, MemberRole, MemberStatus, ReadPoint, Role,
};
pub use trace::traced;
pub use type_config::EncodedCommand;
