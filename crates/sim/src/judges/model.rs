//! The rules of one account, once more and much smaller: what a request does in a state, and which answers a
//! state allows.
//!
//! Written from the API's documentation and not from the service's code. It leaves out time and other accounts'
//! identifiers: whether an identifier is free, and whether a purge is due, is a question for those who know.

use std::collections::BTreeSet;

use super::evidence::{Fate, Seen};
use crate::history::{AccountView, ImportAction, ImportMode, Input, Reason, State, restricts};

/// An account as the rules see it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Account {
    /// Never created.
    Absent,
    /// There, perhaps waiting for its purge.
    Present(Present),
    /// A tombstone.
    Purged,
}

/// The record of an account that is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Present {
    pub(crate) revision: u64,
    pub(crate) fingerprint: String,
    pub(crate) identifiers: BTreeSet<String>,
    /// Its deletion was asked for.
    pub(crate) pending: bool,
}

/// What a request comes to in a state, if no identifier and no clock stands against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The account becomes this.
    Becomes(Account),
    /// The account stays as it is, and that is what was asked for.
    Stays,
    /// No.
    No(No),
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum No {
    Exists,
    NotFound,
    Purged,
    Forbidden,
    Etag,
    /// Some of the identifiers to add are the account's own, or some of those to remove are not.
    Identifiers,
}

impl Account {
    /// The revision; 0 before the account was created. A tombstone's is not known.
    pub(crate) fn revision(&self) -> Option<u64> {
        match self {
            Account::Absent => Some(0),
            Account::Present(present) => Some(present.revision),
            Account::Purged => None,
        }
    }

    /// Whether the account holds this identifier.
    pub(crate) fn holds(&self, identifier: &str) -> bool {
        match self {
            Account::Present(present) => present.identifiers.contains(identifier),
            Account::Absent | Account::Purged => false,
        }
    }

    /// Whether somebody who sees this state may see this.
    pub(crate) fn shows(&self, seen: &Seen<'_>) -> bool {
        match (self, seen) {
            (Account::Present(present), Seen::View(view)) => present.is(view),
            (Account::Absent, Seen::NotFound | Seen::Gone) => true,
            (Account::Purged, Seen::Purged | Seen::Gone) => true,
            (Account::Purged, Seen::View(view)) => view.state == State::Deleted,
            _ => false,
        }
    }
}

impl Present {
    /// The account in an answer; none for a tombstone.
    pub(crate) fn of(view: &AccountView) -> Option<Self> {
        let pending = match view.state {
            State::Active | State::Suspended => false,
            State::PendingDeletion => true,
            State::Deleted => return None,
        };
        Some(Present {
            revision: view.revision,
            fingerprint: view.fingerprint.clone(),
            identifiers: view.identifiers.iter().cloned().collect(),
            pending,
        })
    }

    /// Whether an answer shows exactly this.
    pub(crate) fn is(&self, view: &AccountView) -> bool {
        self.revision == view.revision
            && self.state() == view.state
            && self.fingerprint == view.fingerprint
            && self.identifiers.len() == view.identifiers.len()
            && view.identifiers.iter().all(|one| self.identifiers.contains(one))
    }

    /// What its pending deletion and its restrictions come to.
    pub(crate) fn state(&self) -> State {
        match (self.pending, restricts(&self.fingerprint)) {
            (true, _) => State::PendingDeletion,
            (false, true) => State::Suspended,
            (false, false) => State::Active,
        }
    }

    fn next(&self) -> Self {
        Present {
            revision: self.revision + 1,
            ..self.clone()
        }
    }
}

/// What a mutation comes to.
pub(crate) fn decide(state: &Account, input: &Input) -> Verdict {
    let present = match (state, input) {
        (
            Account::Absent,
            Input::Create {
                fingerprint,
                identifiers,
                ..
            }
            | Input::ImportItem {
                fingerprint,
                identifiers,
                ..
            },
        ) => {
            return Verdict::Becomes(Account::Present(Present {
                revision: 1,
                fingerprint: fingerprint.clone(),
                identifiers: identifiers.iter().cloned().collect(),
                pending: false,
            }));
        }
        (Account::Absent, _) => return Verdict::No(No::NotFound),
        (
            _,
            Input::Create { .. }
            | Input::ImportItem {
                mode: ImportMode::Create,
                ..
            },
        ) => {
            return Verdict::No(No::Exists);
        }
        (Account::Purged, _) => return Verdict::No(No::Purged),
        (
            _,
            Input::ImportItem {
                mode: ImportMode::Skip,
                ..
            },
        ) => return Verdict::Stays,
        (Account::Present(present), _) => present,
    };
    let undelete = matches!(input, Input::Undelete { .. });
    if present.pending != undelete {
        return Verdict::No(No::Forbidden);
    }
    if input.if_etag().is_some_and(|etag| etag != present.revision) {
        return Verdict::No(No::Etag);
    }
    let mut next = present.next();
    match input {
        Input::Update { fingerprint, .. } => next.fingerprint.clone_from(fingerprint),
        Input::ImportItem {
            fingerprint,
            identifiers,
            ..
        } => {
            next.fingerprint.clone_from(fingerprint);
            next.identifiers = identifiers.iter().cloned().collect();
        }
        Input::ChangeIdentifiers { add, remove, .. } => {
            let removed = remove.iter().all(|one| next.identifiers.remove(one));
            let added = add.iter().all(|one| next.identifiers.insert(one.clone()));
            if !removed || !added {
                return Verdict::No(No::Identifiers);
            }
        }
        Input::Delete { .. } => next.pending = true,
        Input::Undelete { .. } => next.pending = false,
        Input::Create { .. }
        | Input::Get { .. }
        | Input::BatchGet { .. }
        | Input::Lookup { .. }
        | Input::List { .. }
        | Input::Export { .. } => return Verdict::Stays,
    }
    Verdict::Becomes(Account::Present(next))
}

/// The state after a request with this fate; none: the fate is impossible in this state. A request of unknown
/// fate must have an effect here.
pub(crate) fn after(state: &Account, input: &Input, fate: &Fate<'_>) -> Option<Account> {
    let verdict = decide(state, input);
    match fate {
        Fate::Unknown => match verdict {
            Verdict::Becomes(next) => Some(next),
            Verdict::Stays | Verdict::No(_) => None,
        },
        Fate::Done {
            revision,
            action,
            view,
            ..
        } => {
            let (next, done) = match verdict {
                Verdict::Becomes(next) => {
                    let done = match next.revision() {
                        Some(1) => ImportAction::Created,
                        _ => ImportAction::Updated,
                    };
                    (next, done)
                }
                Verdict::Stays => (state.clone(), ImportAction::Skipped),
                Verdict::No(_) => return None,
            };
            // When an item that found its account at revision 1 is sent again, the answer is `created`: the
            // record does not tell.
            let told = match action {
                None => true,
                Some(ImportAction::Created) if *revision == 1 => done != ImportAction::Updated,
                Some(action) => *action == done,
            };
            let shown = view.is_none_or(|view| next.shows(&Seen::View(view)));
            (told && shown && next.revision() == Some(*revision)).then_some(next)
        }
        Fate::Refused(reason) => refused(state, input, &verdict, reason).then(|| state.clone()),
        Fate::Nothing => Some(state.clone()),
    }
}

/// Whether a request may be turned down for this reason in this state.
pub(crate) fn refused(state: &Account, input: &Input, verdict: &Verdict, reason: &Reason) -> bool {
    let no = match verdict {
        Verdict::No(no) => Some(*no),
        Verdict::Becomes(_) | Verdict::Stays => None,
    };
    match reason {
        Reason::AccountExists => no == Some(No::Exists),
        Reason::AccountNotFound => no == Some(No::NotFound),
        Reason::AccountPurged => no == Some(No::Purged),
        Reason::StateForbids { state: told } => {
            let Account::Present(present) = state else {
                return false;
            };
            // An undelete is also refused once the purge is due.
            let late = present.pending && matches!(input, Input::Undelete { .. });
            (no == Some(No::Forbidden) || late) && told.is_none_or(|told| told == present.state())
        }
        Reason::EtagMismatch { current } => {
            no == Some(No::Etag) && current.is_none_or(|current| state.revision() == Some(current))
        }
        Reason::IdentifierUnavailable { identifier } => {
            let Input::ChangeIdentifiers { add, .. } = input else {
                // Somebody else's.
                return matches!(verdict, Verdict::Becomes(_)) && !input.adds().is_empty();
            };
            let own = |one: &String| state.holds(one);
            match (no, identifier) {
                (None, _) => !add.is_empty(),
                (Some(No::Identifiers), Some(identifier)) => own(identifier),
                (Some(No::Identifiers), None) => add.iter().any(own),
                _ => false,
            }
        }
        Reason::IdentifierNotFound { identifier } => {
            let Input::ChangeIdentifiers { remove, .. } = input else {
                return false;
            };
            let missing = |one: &String| !state.holds(one);
            let some = identifier.as_ref().map_or(remove.iter().any(missing), missing);
            no == Some(No::Identifiers) && some
        }
        Reason::LimitExceeded => no.is_none(),
        Reason::RequestIdReused
        | Reason::RequestIdExpired
        | Reason::RequestIdFromFuture
        | Reason::Other(_) => true,
    }
}

/// The state after a purge; none: there is nothing to purge.
pub(crate) fn purged(state: &Account) -> Option<Account> {
    match state {
        Account::Present(present) if present.pending => Some(Account::Purged),
        _ => None,
    }
}
