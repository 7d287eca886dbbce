//! The account rules: a request, a view and the time give a plan, or a reason why not.
//!
//! The leader of a shard calls [`evaluate`] on applied state. What comes out is data: a [`Plan`] names every
//! row that was read (absences included) and every row to write. The plan is proposed to the log; applying it
//! checks the guards and writes all or nothing, so the rules here run once, on one node, and may change
//! between releases without replicas drifting apart.
//!
//! ```text
//! Request ──► has this request id run? ──► is the request well formed? ──► operation (one file each)
//!                 │ yes                        │ no                          │            │
//!                 ▼                            ▼                             ▼            ▼
//!             Replay(record)           Rejected: nothing written      Plan: effect   Plan: refusal
//!                                                                     + record       + record
//! ```
//!
//! Two kinds of "no" (see [`holdfast_types::Refusal`] and [`holdfast_types::Rejection`]): a refusal depends on
//! committed state, so it is proposed and recorded under the request id like an effect; a rejection does not,
//! or only asks the caller to read again, and leaves no trace.
//!
//! The rules in one place:
//! - An account id is never reused: a purge leaves a tombstone.
//! - At any instant a canonical identifier belongs to at most one account of the realm. The [`Claim`] row says
//!   which; it is written in the same plan as the account. A removed identifier's claim is quarantined: for a
//!   while only the account that gave it up may have it back.
//! - Of each kind of identifier that an account has, exactly one is primary.
//! - Every accepted mutation raises the revision by one; the revision is the etag.
//! - A request id has at most one effect; a second request with the same id gets the recorded outcome.
//!
//! Nothing here awaits, reads a clock, draws a random number or knows how rows are stored.
#![forbid(unsafe_code)]

mod check;
mod digest;
mod draft;
mod evaluate;
mod event;
mod identifiers;
mod latch;
pub mod limits;
mod lookup;
pub mod normalize;
mod operation;
mod plan;
mod realm;
mod record;
mod request;
mod size;
#[cfg(feature = "testing")]
pub mod testing;
mod view;

pub use digest::digest;
pub use evaluate::evaluate;
pub use event::{ChangeEvent, ChangeKind};
pub use latch::latch_keys;
pub use lookup::lookup_accepts;
pub use normalize::canonicalize;
pub use plan::{Context, EvaluateError, Evaluation, Plan};
pub use realm::{check_config, renames_claims};
pub use record::{Claim, ClaimState, DueAction, Outcome, RequestRecord};
pub use request::{
    ChangeIdentifiers, IdentifierChange, IdentifierRef, ImportMode, NewAccount, NewAttribute, NewIdentifier,
    NewVerification, Operation, Request, Update,
};
pub use size::record_bytes;
pub use view::{DueKey, RequestKey, Row, RowKey, Versioned, View};
