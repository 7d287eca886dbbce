//! The records that stand beside accounts: claims, request records, deadlines. None holds personal data.

use holdfast_types::{AccountId, Millis, Refusal};

/// Which account an identifier belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The account that holds it, or held it last.
    pub owner: AccountId,
    /// How firmly.
    pub state: ClaimState,
}

/// How firmly an identifier is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimState {
    /// The owner's record lists the identifier.
    Held {
        /// Whether the owner proved control of it; always as in the owner's record.
        verified: bool,
    },
    /// The owner gave it up. Until `until` (log time) only the owner may have it back; from then on it is as
    /// free as if there were no claim.
    Quarantined {
        /// The first instant at which anyone may claim it.
        until: Millis,
    },
}

impl Claim {
    /// Whether `claimant` may take the identifier when the log clock shows `log_clock`.
    pub fn free_for(&self, claimant: &AccountId, log_clock: Millis) -> bool {
        match self.state {
            ClaimState::Held { .. } => false,
            ClaimState::Quarantined { until } => self.owner == *claimant || log_clock >= until,
        }
    }
}

/// What a request id did. Written in the same plan as the effect, so that there is one exactly if the request
/// ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// Keyed digest of the request's content; another content under the same id is the caller's mistake.
    pub digest: [u8; 32],
    /// How it ended.
    pub outcome: Outcome,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect (for an import that skipped: it found the account there).
    Done {
        /// The account.
        account: AccountId,
        /// Its revision after the request.
        revision: u64,
    },
    /// It was refused, for good: a retry with the same id is refused again.
    Refused {
        /// The account that the request was about.
        account: AccountId,
        /// Why.
        refusal: Refusal,
    },
}

/// What happens when a deadline falls due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DueAction {
    /// The subject is purged ([`crate::Operation::Purge`]).
    PurgeAccount,
}
