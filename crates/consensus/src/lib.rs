//! Raft: log store, apply, snapshots, network, read barriers.

mod config;
mod error;
mod fatal;
mod group;
mod status;

pub use config::{ConsensusConfig, PeerAddresses, PeerTls};
pub use error::{BarrierError, InitializeError, MembershipError, ProposeError, StartError, Timeout};
pub use fatal::FatalSink;
pub use group::{EncodedCommand, Group};
pub use status::{
    Committed, GroupStatus, Leadership, LogPosition, MemberRole, MemberStatus, ReadPoint, Role,
};
