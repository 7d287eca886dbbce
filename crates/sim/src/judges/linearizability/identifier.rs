//! One identifier as the search sees it: who has it.

use std::collections::BTreeSet;

use super::super::evidence::{Evidence, Fate, NEVER, Request, Seen, Track};
use super::super::search::{Model, Timed};
use super::{Classes, purge, seen};
use crate::history::{AccountView, Consistency, ImportAction, Input, Outcome, Output, Reason};

/// A call about one identifier. Accounts are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum IdentifierCall {
    /// The account takes it; nobody may hold it.
    Take(usize),
    /// The account gives it up; it must hold it.
    Leave(usize),
    /// The account has it afterwards, whether or not it had it before.
    Keep(usize),
    /// The account does not have it afterwards.
    Drop(usize),
    /// The account held it.
    Held(usize),
    /// The account did not hold it.
    NotHeld(usize),
    /// Nobody held it.
    Unheld,
    /// The account could not have it: it was held, or left by another.
    Refused(usize),
}

/// Who has an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    Nobody,
    Held(usize),
    Left(usize),
}

pub(super) struct IdentifierModel;

impl Model for IdentifierModel {
    type State = Owner;
    type Call = IdentifierCall;

    fn initial(&self) -> Owner {
        Owner::Nobody
    }

    fn step(&self, owner: &Owner, call: &IdentifierCall) -> Option<Owner> {
        use IdentifierCall::{Drop, Held, Keep, Leave, NotHeld, Refused, Take, Unheld};
        let free = !matches!(owner, Owner::Held(_));
        let (may, next) = match *call {
            Take(account) => (free, Owner::Held(account)),
            Leave(account) => (*owner == Owner::Held(account), Owner::Left(account)),
            Keep(account) => (free || *owner == Owner::Held(account), Owner::Held(account)),
            Drop(account) if *owner == Owner::Held(account) => (true, Owner::Left(account)),
            Drop(_) => (true, *owner),
            Held(account) => (*owner == Owner::Held(account), *owner),
            NotHeld(account) => (*owner != Owner::Held(account), *owner),
            Unheld => (free, *owner),
            Refused(account) => (*owner != Owner::Nobody && *owner != Owner::Left(account), *owner),
        };
        may.then_some(next)
    }

    fn is_read(&self, call: &IdentifierCall) -> bool {
        use IdentifierCall::{Held, NotHeld, Refused, Unheld};
        matches!(call, Held(_) | NotHeld(_) | Unheld | Refused(_))
    }
}

/// The calls about one identifier.
pub(super) fn calls(
    evidence: &Evidence<'_>,
    identifier: &str,
    accounts: &BTreeSet<&str>,
) -> Vec<Timed<IdentifierCall>> {
    let mut calls = Vec::new();
    let mut classes = Classes::default();
    let tracks = accounts.iter().filter_map(|account| evidence.tracks.get(account));
    for (number, track) in tracks.enumerate() {
        for at in &track.requests {
            let request = &evidence.requests[*at];
            if let Some((call, sure)) = call(request, identifier, number) {
                let bounds = Bounds::of(*at, track, request);
                calls.push(Timed {
                    id: request.calls[0].id,
                    invoked: bounds.after,
                    returned: bounds.before.filter(|_| sure || bounds.made),
                    class: (!sure && !bounds.made).then(|| classes.of(format!("{call:?}"))),
                    call,
                });
            }
        }
        for sight in track.sights.iter().filter(|sight| sight.is_linearizable()) {
            let call = match sight.seen {
                Seen::View(view) if lists(view, identifier) => IdentifierCall::Held(number),
                Seen::View(_) | Seen::NotFound | Seen::Purged | Seen::Gone => IdentifierCall::NotHeld(number),
            };
            calls.push(seen(sight, call));
        }
        let purge = purge(evidence, track, |certain| match certain {
            true => IdentifierCall::Drop(number),
            false => IdentifierCall::Leave(number),
        });
        calls.extend(purge);
    }
    for operation in &evidence.history.operations {
        let (
            Input::Lookup {
                identifier: asked,
                consistency: Consistency::Linearizable,
            },
            Outcome::Ok { output, .. },
        ) = (&operation.input, &operation.outcome)
        else {
            continue;
        };
        if asked == identifier && *output == Output::NotFound {
            calls.push(Timed {
                id: operation.id,
                invoked: operation.invoked,
                returned: Some(operation.returned.unwrap_or(u64::MAX)),
                class: None,
                call: IdentifierCall::Unheld,
            });
        }
    }
    calls
}

fn lists(view: &AccountView, identifier: &str) -> bool {
    view.identifiers.iter().any(|one| one == identifier)
}

/// When a request can have had its effect, by what all answers say about its account. The narrower, the fewer ways
/// there are to try; that the account is linearizable is judged by itself.
struct Bounds {
    after: u64,
    before: Option<u64>,
    /// It made a revision that is known.
    made: bool,
}

impl Bounds {
    fn of(at: usize, track: &Track<'_>, request: &Request<'_>) -> Self {
        let made = track
            .makers
            .iter()
            .find(|(_, maker)| **maker == at)
            .map(|(revision, _)| *revision);
        if let Some(revision) = made {
            let seen = track.since(revision).map(|(since, _)| since);
            return Bounds {
                after: request.invoked.max(track.until(revision - 1)),
                before: Some(seen.unwrap_or(NEVER).min(request.settled)),
                made: true,
            };
        }
        let after = match request.fate {
            // If it had an effect, then at a revision that nobody else has made.
            Fate::Unknown => {
                let free = (1..)
                    .find(|revision| !track.makers.contains_key(revision))
                    .unwrap_or(1);
                request.invoked.max(track.until(free - 1))
            }
            _ => request.invoked,
        };
        Bounds {
            after,
            before: (request.fate != Fate::Unknown).then_some(request.settled),
            made: false,
        }
    }
}

/// What a request means for an identifier, and whether that is sure.
fn call(request: &Request<'_>, identifier: &str, account: usize) -> Option<(IdentifierCall, bool)> {
    use IdentifierCall::{Drop, Held, Keep, Leave, NotHeld, Refused, Take};
    let adds = request.input.adds().iter().any(|one| one == identifier);
    let effect = match request.input {
        // In its own place.
        Input::ChangeIdentifiers { remove, .. } if adds && remove.iter().any(|one| one == identifier) => {
            Some(Keep(account))
        }
        Input::Create { .. } | Input::ChangeIdentifiers { .. } if adds => Some(Take(account)),
        Input::ChangeIdentifiers { remove, .. } if remove.iter().any(|one| one == identifier) => {
            Some(Leave(account))
        }
        Input::ImportItem { .. } if adds => Some(Keep(account)),
        Input::ImportItem { .. } => Some(Drop(account)),
        _ => None,
    };
    match &request.fate {
        Fate::Unknown => effect.map(|effect| (effect, false)),
        Fate::Done {
            action: Some(ImportAction::Skipped),
            ..
        } => None,
        Fate::Done { view, .. } => match (effect, view) {
            // It may have found the account as it is.
            (Some(effect), _) => Some((effect, request.made().is_some())),
            (None, Some(view)) if lists(view, identifier) => Some((Held(account), true)),
            (None, Some(_)) => Some((NotHeld(account), true)),
            (None, None) => None,
        },
        Fate::Refused(Reason::IdentifierUnavailable { identifier: named }) => {
            let this = match named {
                Some(named) => named == identifier,
                None => adds && request.input.adds().len() == 1,
            };
            this.then_some((Refused(account), true))
        }
        Fate::Refused(Reason::IdentifierNotFound {
            identifier: Some(named),
        }) if named == identifier => Some((NotHeld(account), true)),
        Fate::Refused(_) | Fate::Nothing => None,
    }
}
