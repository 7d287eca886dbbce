//! From what the service answers to what the history keeps.

use std::collections::BTreeMap;

use holdfast_client::{ClientError, Outcome as Known, v1};
use holdfast_types::ConsistencyToken;

use super::request::signature;
use crate::history::{AccountView, Outcome, Output, Reason, State};

/// The part of a refusal's facts that only the caller knows: which identifiers stood at which place.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// The identifier to be taken.
    pub(super) add: Option<String>,
    /// The identifier to be given up.
    pub(super) remove: Option<String>,
}

/// An account as the history keeps it. None: the answer makes no sense, or it is not of one attempt.
pub(super) fn view(account: &v1::Account) -> Option<AccountView> {
    let state = match account.state() {
        v1::AccountState::Active => State::Active,
        v1::AccountState::Suspended => State::Suspended,
        v1::AccountState::PendingDeletion => State::PendingDeletion,
        v1::AccountState::Deleted => State::Deleted,
        v1::AccountState::Unspecified | v1::AccountState::Merged => return None,
    };
    let mut identifiers: Vec<String> = account
        .identifiers
        .iter()
        .map(|identifier| identifier.canonical_value.clone())
        .collect();
    identifiers.sort();
    Some(AccountView {
        account: account.account_id.clone(),
        revision: account.revision,
        fingerprint: signature(account)?.to_owned(),
        identifiers,
        state,
        update_time_ms: account.update_time.as_ref().map_or(0, millis),
        purge_time_ms: account.purge_time.as_ref().map(millis),
    })
}

fn millis(time: &prost_types::Timestamp) -> u64 {
    time.seconds as u64 * 1_000 + time.nanos as u64 / 1_000_000
}

/// The log index in a token; none if it is none of ours.
pub(super) fn position(token: &[u8]) -> Option<u64> {
    ConsistencyToken::decode(token).ok().map(|token| token.index)
}

/// What a mutation that was not answered with an account came to. The client has put its attempts together
/// already: it says "not applied" only if no attempt can have had an effect.
pub(super) fn failed_mutation(error: &ClientError, places: &[Place]) -> Outcome {
    match error.outcome {
        Known::Unknown => Outcome::Unknown,
        Known::NotApplied => Outcome::DefinitelyNot(reason(&named(error), &error.metadata, places)),
    }
}

/// What a read that was not answered with an account came to.
pub(super) fn failed_read(error: &ClientError) -> Outcome {
    let output = match error.reason.as_str() {
        "ACCOUNT_NOT_FOUND" | "IDENTIFIER_NOT_FOUND" => Output::NotFound,
        "ACCOUNT_PURGED" => Output::Purged,
        _ => return Outcome::DefinitelyNot(Reason::Other(named(error))),
    };
    Outcome::Ok {
        output,
        position: None,
    }
}

/// The API's name of the reason, or the transport's code.
fn named(error: &ClientError) -> String {
    match error.reason.as_str() {
        "" => format!("{:?}", error.code),
        reason => reason.to_owned(),
    }
}

/// A reason by its name and its facts.
pub(super) fn reason(name: &str, facts: &BTreeMap<String, String>, places: &[Place]) -> Reason {
    let place = facts
        .get("index")
        .and_then(|index| index.parse::<usize>().ok())
        .and_then(|index| places.get(index));
    match name {
        "ACCOUNT_EXISTS" => Reason::AccountExists,
        "ACCOUNT_NOT_FOUND" => Reason::AccountNotFound,
        "ACCOUNT_PURGED" => Reason::AccountPurged,
        "STATE_FORBIDS" => Reason::StateForbids {
            state: facts.get("state").and_then(|state| match state.as_str() {
                "ACTIVE" => Some(State::Active),
                "SUSPENDED" => Some(State::Suspended),
                "PENDING_DELETION" => Some(State::PendingDeletion),
                "DELETED" => Some(State::Deleted),
                _ => None,
            }),
        },
        "IDENTIFIER_UNAVAILABLE" => Reason::IdentifierUnavailable {
            identifier: place.and_then(|place| place.add.clone()),
        },
        "IDENTIFIER_NOT_FOUND" => Reason::IdentifierNotFound {
            identifier: place.and_then(|place| place.remove.clone()),
        },
        "LIMIT_EXCEEDED" => Reason::LimitExceeded,
        "ETAG_MISMATCH" => Reason::EtagMismatch {
            current: facts.get("current_etag").and_then(|etag| etag.parse().ok()),
        },
        "REQUEST_ID_REUSED" => Reason::RequestIdReused,
        "REQUEST_ID_EXPIRED" => Reason::RequestIdExpired,
        "REQUEST_ID_FROM_FUTURE" => Reason::RequestIdFromFuture,
        other => Reason::Other(other.to_owned()),
    }
}
