//! One account as the search sees it.

use std::collections::{BTreeSet, HashMap};

use super::super::evidence::{Evidence, Fate, Request, Seen, Track};
use super::super::model::{self, Account};
use super::super::search::{Model, Timed};
use super::{Classes, purge, seen, timed};
use crate::history::{AccountView, Input, Outcome, Reason, restricts};

/// A call about one account.
#[derive(Debug, Clone)]
pub(super) enum AccountCall<'h> {
    Mutation(&'h Input, Fate<'h>),
    /// A mutation that was turned away without being recorded.
    TurnedAway(&'h Input, &'h Reason),
    Sees(Seen<'h>),
    /// What the service does by itself when a grace period is over.
    Purge,
}

/// One account, with what all answers together say about its revisions.
pub(super) struct AccountModel<'h> {
    /// Revisions that some request was told it made.
    claimed: BTreeSet<u64>,
    views: HashMap<u64, &'h AccountView>,
    /// Fingerprints that some answer shows.
    shown: BTreeSet<&'h str>,
}

/// Stands for every fingerprint that no answer shows: it does not matter which one it was, only whether it restricts, which
/// a refusal may tell.
fn never_shown(fingerprint: &str) -> &'static str {
    if restricts(fingerprint) {
        "(never shown)-r"
    } else {
        "(never shown)"
    }
}

impl<'h> AccountModel<'h> {
    pub(super) fn new(evidence: &Evidence<'h>, track: &Track<'h>) -> Self {
        let claims = track
            .requests
            .iter()
            .filter_map(|at| evidence.requests[*at].made());
        let views = || track.views.iter().map(|(revision, (view, _))| (*revision, *view));
        AccountModel {
            claimed: claims.collect(),
            views: views().collect(),
            shown: views().map(|(_, view)| view.fingerprint.as_str()).collect(),
        }
    }

    fn mutate(&self, state: &Account, input: &Input, fate: &Fate<'_>) -> Option<Account> {
        let mut next = model::after(state, input, fate)?;
        if let Account::Present(present) = &mut next {
            if *fate == Fate::Unknown && self.claimed.contains(&present.revision) {
                return None;
            }
            let view = self.views.get(&present.revision);
            if view.is_some_and(|view| !present.is(view)) {
                return None;
            }
            if !self.shown.contains(present.fingerprint.as_str()) {
                present.fingerprint = never_shown(&present.fingerprint).to_owned();
            }
        }
        Some(next)
    }
}

impl<'h> Model for AccountModel<'h> {
    type State = Account;
    type Call = AccountCall<'h>;

    fn initial(&self) -> Account {
        Account::Absent
    }

    fn step(&self, state: &Account, call: &AccountCall<'h>) -> Option<Account> {
        match call {
            AccountCall::Mutation(input, fate) => self.mutate(state, input, fate),
            AccountCall::TurnedAway(input, reason) => {
                let verdict = model::decide(state, input);
                model::refused(state, input, &verdict, reason).then(|| state.clone())
            }
            AccountCall::Sees(seen) => state.shows(seen).then(|| state.clone()),
            AccountCall::Purge => model::purged(state),
        }
    }

    fn is_read(&self, call: &AccountCall<'h>) -> bool {
        match call {
            AccountCall::Mutation(_, fate) => matches!(fate, Fate::Refused(_)),
            AccountCall::TurnedAway(..) | AccountCall::Sees(_) => true,
            AccountCall::Purge => false,
        }
    }
}

/// The calls about one account.
pub(super) fn calls<'h>(evidence: &Evidence<'h>, track: &Track<'h>) -> Vec<Timed<AccountCall<'h>>> {
    let mut calls = Vec::new();
    let mut classes = Classes::default();
    for request in track.requests.iter().map(|at| &evidence.requests[*at]) {
        if request.fate != Fate::Nothing {
            let shown = |fingerprint: &str| {
                track
                    .views
                    .values()
                    .any(|(view, _)| view.fingerprint == fingerprint)
            };
            let class = (request.fate == Fate::Unknown).then(|| {
                let mut input = request.input.clone();
                match &mut input {
                    Input::Create { fingerprint, .. }
                    | Input::Update { fingerprint, .. }
                    | Input::ImportItem { fingerprint, .. }
                        if !shown(fingerprint.as_str()) =>
                    {
                        *fingerprint = never_shown(fingerprint).to_owned();
                    }
                    _ => {}
                }
                classes.of(format!("{input:?}"))
            });
            let call = AccountCall::Mutation(request.input, request.fate.clone());
            calls.push(timed(request, class, call));
        }
        calls.extend(turned_away(request));
    }
    for sight in track.sights.iter().filter(|sight| sight.is_linearizable()) {
        calls.push(seen(sight, AccountCall::Sees(sight.seen)));
    }
    calls.extend(purge(evidence, track, |_| AccountCall::Purge));
    calls
}

/// The calls of a request that found a stale etag: each has looked at the account.
fn turned_away<'h>(request: &Request<'h>) -> impl Iterator<Item = Timed<AccountCall<'h>>> {
    request.calls.iter().filter_map(|call| match &call.outcome {
        Outcome::DefinitelyNot(reason @ Reason::EtagMismatch { .. }) => Some(Timed {
            id: call.id,
            invoked: call.invoked,
            returned: Some(call.returned.unwrap_or(u64::MAX)),
            class: None,
            call: AccountCall::TurnedAway(&call.input, reason),
        }),
        _ => None,
    })
}
