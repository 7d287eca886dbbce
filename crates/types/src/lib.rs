//! The words every other room of Holdfast uses.
//!
//! Nothing here does I/O, reads a clock or draws a random number. [`account`] says what an account is,
//! [`identifier`] what names it, [`realm`] which rules it lives under, [`refusal`] how a request can be
//! turned down, [`placement`] how a name becomes a slot and a slot a shard, [`token`] what a client carries
//! from one answer to the next request, and [`family`] in which table a row lives.
#![forbid(unsafe_code)]

pub mod account;
pub mod clock;
pub mod family;
pub mod identifier;
pub mod ids;
pub mod placement;
pub mod realm;
pub mod refusal;
pub mod token;

pub use account::{Account, AccountState, Attribute, AttributeValue, Deletion, Restriction};
pub use clock::{Clock, Expect, Millis, Stamp};
pub use family::Family;
pub use identifier::{CanonicalIdentifier, Identifier, IdentifierKind, LoginNamespace, Verification};
pub use ids::{AccountId, Actor, Caller, ClusterId, NodeId, RealmId, RealmNumber, RequestId};
pub use placement::{Bucket, Placement, ShardEpoch, ShardId, Slot};
pub use realm::{ClaimKey, Realm, RealmConfig, UnverifiedPolicy};
pub use refusal::{FieldViolation, Refusal, Rejection};
pub use token::ConsistencyToken;
