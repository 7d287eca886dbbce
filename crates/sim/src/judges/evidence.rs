//! What a history proves, put in order once for all judges: requests with their fates, what was seen of each
//! account and when, and who made which revision.
//!
//! Everything here is black box: answers and times, no log indexes. "Certain" means that it follows from
//! answers, whatever the calls of unknown outcome did.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{self, Account, Present};
use crate::history::{
    AccountView, Consistency, History, ImportAction, Input, Operation, Outcome, Output, Reason, State,
};

/// Later than any moment of a run.
pub(crate) const NEVER: u64 = u64::MAX;

/// All calls of one mutation: those with the same request id for the same account, or for the same item.
#[derive(Debug)]
pub(crate) struct Request<'h> {
    pub(crate) account: &'h str,
    pub(crate) input: &'h Input,
    /// In the order of invocation.
    pub(crate) calls: Vec<&'h Operation>,
    pub(crate) invoked: u64,
    /// When the first answer that settles its fate came. `NEVER` if it is unknown.
    pub(crate) settled: u64,
    pub(crate) fate: Fate<'h>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate<'h> {
    /// It took effect (or found nothing to do).
    Done {
        revision: u64,
        action: Option<ImportAction>,
        /// The account with that revision.
        view: Option<&'h AccountView>,
        /// The least position of its answers: at or above that of its effect.
        position: Option<u64>,
    },
    /// It was refused for good.
    Refused(&'h Reason),
    /// None of its calls had an effect.
    Nothing,
    /// It may have taken effect, or may yet.
    Unknown,
}

impl Request<'_> {
    /// The ids of its calls.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.calls.iter().map(|call| call.id)
    }

    /// The revision that it certainly made.
    pub(crate) fn made(&self) -> Option<u64> {
        match &self.fate {
            Fate::Done {
                action: Some(ImportAction::Skipped),
                ..
            } => None,
            // Whether it made this revision or found it is not told.
            Fate::Done {
                revision: 1,
                action: Some(_),
                ..
            } if skips(self.input) => None,
            Fate::Done { revision, .. } => Some(*revision),
            Fate::Refused(_) | Fate::Nothing | Fate::Unknown => None,
        }
    }
}

fn skips(input: &Input) -> bool {
    matches!(
        input,
        Input::ImportItem {
            mode: crate::history::ImportMode::Skip,
            ..
        }
    )
}

/// What an answer says about one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen<'h> {
    View(&'h AccountView),
    NotFound,
    Purged,
    /// Not found or purged.
    Gone,
}

impl Seen<'_> {
    /// The least revision that the account has reached.
    pub(crate) fn revision_least(&self) -> u64 {
        match self {
            Seen::View(view) => view.revision,
            // Created and deleted.
            Seen::Purged => 3,
            Seen::NotFound | Seen::Gone => 0,
        }
    }
}

/// How much an answer may be trusted to be new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// It holds at some moment of the call.
    Linearizable,
    /// It held at some moment before its return: a stale read, or the answer to a repetition.
    Old,
}

/// One account in one answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight<'h> {
    pub(crate) by: &'h Operation,
    pub(crate) account: &'h str,
    pub(crate) seen: Seen<'h>,
    pub(crate) freshness: Freshness,
}

impl Sight<'_> {
    pub(crate) fn returned(&self) -> u64 {
        self.by.returned.unwrap_or(NEVER)
    }

    pub(crate) fn is_linearizable(&self) -> bool {
        self.freshness == Freshness::Linearizable
    }
}

/// What is known about one account.
#[derive(Debug, Default)]
pub(crate) struct Track<'h> {
    /// Its requests, as indexes into [`Evidence::requests`].
    pub(crate) requests: Vec<usize>,
    pub(crate) sights: Vec<Sight<'h>>,
    /// The account at each revision that any answer showed, with the call that showed it first.
    pub(crate) views: BTreeMap<u64, (&'h AccountView, u64)>,
    /// Who made a revision: those that say so, and those of unknown fate where nobody else can have.
    pub(crate) makers: BTreeMap<u64, usize>,
    /// The state at each revision where it follows.
    pub(crate) states: BTreeMap<u64, Present>,
    /// Answers that contradict each other whatever the order: message and calls.
    pub(crate) contradictions: Vec<(String, Vec<u64>)>,
    /// From when on the account had certainly reached a revision, and who saw it.
    since: BTreeMap<u64, (u64, u64)>,
    /// Until when the account had certainly not gone beyond a revision.
    until: BTreeMap<u64, u64>,
    /// When a purge was first seen.
    pub(crate) purged_since: u64,
}

impl Track<'_> {
    /// From when on the account has certainly been at this revision or a later one, and the call that proves it.
    pub(crate) fn since(&self, revision: u64) -> Option<(u64, u64)> {
        self.since.range(revision..).map(|(_, proof)| *proof).min()
    }

    /// Until when the account was certainly at this revision or an earlier one.
    pub(crate) fn until(&self, revision: u64) -> u64 {
        self.until
            .range(..=revision)
            .map(|(_, until)| *until)
            .max()
            .unwrap_or(0)
    }

    /// Whether a request to delete it may have had its effect.
    pub(crate) fn may_be_purged(&self, requests: &[Request<'_>]) -> bool {
        self.requests.iter().any(|at| {
            let request = &requests[*at];
            matches!(request.input, Input::Delete { .. })
                && matches!(request.fate, Fate::Done { .. } | Fate::Unknown)
        })
    }
}

/// A history in order.
#[derive(Debug)]
pub(crate) struct Evidence<'h> {
    pub(crate) history: &'h History,
    pub(crate) requests: Vec<Request<'h>>,
    pub(crate) tracks: BTreeMap<&'h str, Track<'h>>,
}

impl<'h> Evidence<'h> {
    pub(crate) fn of(history: &'h History) -> Self {
        let requests = requests(history);
        let mut tracks: BTreeMap<&'h str, Track<'h>> = BTreeMap::new();
        for (at, request) in requests.iter().enumerate() {
            tracks.entry(request.account).or_default().requests.push(at);
        }
        for operation in &history.operations {
            for sight in sights(operation) {
                tracks.entry(sight.account).or_default().sights.push(sight);
            }
        }
        // An export shows that everybody else is not there.
        for operation in &history.operations {
            let (Input::Export { consistency }, Some(Output::Page { accounts, last: true })) =
                (&operation.input, output(operation))
            else {
                continue;
            };
            let listed: BTreeSet<&str> = accounts.iter().map(|view| view.account.as_str()).collect();
            for (account, track) in tracks
                .iter_mut()
                .filter(|(account, _)| !listed.contains(*account))
            {
                track.sights.push(Sight {
                    by: operation,
                    account,
                    seen: Seen::Gone,
                    freshness: freshness(*consistency),
                });
            }
        }
        for track in tracks.values_mut() {
            track.purged_since = NEVER;
            look(track);
            makers(track, &requests);
            certainties(track, &requests);
        }
        Evidence {
            history,
            requests,
            tracks,
        }
    }

    /// Every identifier that occurs, with the accounts that ever asked for it or were seen with it.
    pub(crate) fn identifiers(&self) -> BTreeMap<&'h str, BTreeSet<&'h str>> {
        let mut found: BTreeMap<&'h str, BTreeSet<&'h str>> = BTreeMap::new();
        for request in &self.requests {
            for identifier in request.input.adds() {
                found.entry(identifier).or_default().insert(request.account);
            }
        }
        for (account, track) in &self.tracks {
            for (view, _) in track.views.values() {
                for identifier in &view.identifiers {
                    found.entry(identifier).or_default().insert(account);
                }
            }
        }
        for operation in &self.history.operations {
            if let Input::Lookup { identifier, .. } = &operation.input {
                found.entry(identifier).or_default();
            }
        }
        found
    }
}

fn output(operation: &Operation) -> Option<&Output> {
    match &operation.outcome {
        Outcome::Ok { output, .. } => Some(output),
        Outcome::DefinitelyNot(_) | Outcome::Unknown => None,
    }
}

fn freshness(consistency: Consistency) -> Freshness {
    match consistency {
        Consistency::Linearizable => Freshness::Linearizable,
        Consistency::Stale { .. } | Consistency::AtLeast { .. } => Freshness::Old,
    }
}

/// What an answer says about accounts.
pub(crate) fn sights(operation: &Operation) -> Vec<Sight<'_>> {
    let Some(output) = output(operation) else {
        return Vec::new();
    };
    let freshness = operation.input.consistency().map_or(Freshness::Old, freshness);
    sights_in(operation, output, freshness)
}

fn sights_in<'h>(operation: &'h Operation, output: &'h Output, freshness: Freshness) -> Vec<Sight<'h>> {
    let sight = |account: &'h str, seen| Sight {
        by: operation,
        account,
        seen,
        freshness,
    };
    let view = |view: &'h AccountView| sight(&view.account, Seen::View(view));
    match (output, &operation.input) {
        (Output::Account(found) | Output::Changed { account: found, .. }, _) => vec![view(found)],
        (
            Output::Batch {
                accounts, not_found, ..
            },
            _,
        ) => {
            let gone = not_found.iter().map(|account| sight(account, Seen::Gone));
            accounts.iter().map(view).chain(gone).collect()
        }
        (Output::Page { accounts, .. }, _) => accounts.iter().map(view).collect(),
        (Output::NotFound, Input::Get { account, .. }) => vec![sight(account, Seen::NotFound)],
        (Output::Purged, Input::Get { account, .. }) => vec![sight(account, Seen::Purged)],
        (Output::NotFound | Output::Purged | Output::Imported { .. }, _) => Vec::new(),
    }
}

/// Puts the calls of each request together.
fn requests(history: &History) -> Vec<Request<'_>> {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Key<'h> {
        Named(&'h str, &'h str),
        Item(&'h str, u64),
        Alone(u64),
    }
    let mut groups: BTreeMap<Key<'_>, (&str, Vec<&Operation>)> = BTreeMap::new();
    for operation in &history.operations {
        let Some(account) = operation.input.changes() else {
            continue;
        };
        let key = match (&operation.input, &operation.request_id) {
            (Input::ImportItem { import, index, .. }, _) => Key::Item(import, *index),
            // The service remembers a request id with the account that the request is about.
            (_, Some(id)) => Key::Named(account, id),
            (_, None) => Key::Alone(operation.id),
        };
        groups
            .entry(key)
            .or_insert((account, Vec::new()))
            .1
            .push(operation);
    }
    let mut requests: Vec<Request<'_>> = groups
        .into_values()
        .map(|(account, mut calls)| {
            calls.sort_by_key(|call| (call.invoked, call.id));
            let first = calls[0];
            let (fate, settled) = fate(&calls);
            Request {
                account,
                input: &first.input,
                invoked: first.invoked,
                settled,
                fate,
                calls,
            }
        })
        .collect();
    requests.sort_by_key(|request| (request.invoked, request.calls[0].id));
    requests
}

/// What the calls of one request say together, and when that was first known.
fn fate<'h>(calls: &[&'h Operation]) -> (Fate<'h>, u64) {
    let mut done: Option<(Fate<'h>, u64)> = None;
    let mut refused: Option<(Fate<'h>, u64)> = None;
    let mut unknown = false;
    let mut position: Option<u64> = None;
    let mut shown: Option<&'h AccountView> = None;
    for call in calls {
        let returned = call.returned.unwrap_or(NEVER);
        match &call.outcome {
            Outcome::Ok { output, position: at } => {
                let (revision, action) = match output {
                    Output::Changed { revision, account } => {
                        if account.revision == *revision {
                            shown = shown.or(Some(account));
                        }
                        (*revision, None)
                    }
                    Output::Imported { action, revision } => (*revision, Some(*action)),
                    _ => continue,
                };
                position = [position, *at].into_iter().flatten().min();
                if done.as_ref().is_none_or(|(_, settled)| returned < *settled) {
                    let fate = Fate::Done {
                        revision,
                        action,
                        view: None,
                        position: None,
                    };
                    done = Some((fate, returned));
                }
            }
            Outcome::DefinitelyNot(reason) if reason.is_recorded() => {
                if refused.as_ref().is_none_or(|(_, settled)| returned < *settled) {
                    refused = Some((Fate::Refused(reason), returned));
                }
            }
            Outcome::DefinitelyNot(_) => {}
            Outcome::Unknown => unknown = true,
        }
    }
    match (done, refused) {
        (Some((Fate::Done { revision, action, .. }, settled)), _) => {
            let fate = Fate::Done {
                revision,
                action,
                view: shown,
                position,
            };
            (fate, settled)
        }
        (_, Some(refused)) => refused,
        _ if unknown => (Fate::Unknown, NEVER),
        _ => (
            Fate::Nothing,
            calls
                .iter()
                .filter_map(|call| call.returned)
                .min()
                .unwrap_or(NEVER),
        ),
    }
}

/// Collects the views, and finds two that differ at one revision.
fn look(track: &mut Track<'_>) {
    for sight in &track.sights {
        match sight.seen {
            Seen::View(view) => {
                // The answer to a repetition may hold a tombstone.
                if view.state == State::Deleted {
                    track.purged_since = track.purged_since.min(sight.returned());
                }
                let known = track.views.entry(view.revision).or_insert((view, sight.by.id));
                if known.0 != view {
                    let message = format!(
                        "account {} has two different records at revision {}: {:?} and {view:?}",
                        view.account, view.revision, known.0
                    );
                    track.contradictions.push((message, vec![known.1, sight.by.id]));
                }
            }
            Seen::Purged => track.purged_since = track.purged_since.min(sight.returned()),
            Seen::NotFound | Seen::Gone => {}
        }
    }
}

/// Finds out who made which revision, and how the account looked then.
fn makers(track: &mut Track<'_>, requests: &[Request<'_>]) {
    for at in &track.requests {
        let Some(revision) = requests[*at].made() else {
            continue;
        };
        if let Some(other) = track.makers.insert(revision, *at) {
            let message = format!(
                "two requests were both told that they made revision {revision} of account {}",
                requests[*at].account
            );
            let calls = requests[other].ids().chain(requests[*at].ids()).collect();
            track.contradictions.push((message, calls));
        }
    }
    let mut open: Vec<usize> = track
        .requests
        .iter()
        .copied()
        .filter(|at| {
            let request = &requests[*at];
            request.fate == Fate::Unknown || (request.made().is_none() && skips(request.input))
        })
        .collect();
    let last = track
        .makers
        .keys()
        .chain(track.views.keys())
        .max()
        .copied()
        .unwrap_or(0);
    let mut before = Some(Account::Absent);
    for revision in 1..=last {
        let view = track.views.get(&revision);
        let mut now = view.map(|(view, _)| Present::of(view).map_or(Account::Purged, Account::Present));
        match (track.makers.get(&revision), &before) {
            (Some(at), Some(before)) if now.is_none() => {
                now = match model::decide(before, requests[*at].input) {
                    model::Verdict::Becomes(next) => Some(next),
                    model::Verdict::Stays | model::Verdict::No(_) => None,
                };
            }
            (None, Some(before)) => {
                // Only one that leads from the state before to the state seen can have been it.
                let leads_to = |at: usize| model::after(before, requests[at].input, &Fate::Unknown);
                let fits = |at: &usize| {
                    leads_to(*at).is_some_and(|next| now.as_ref().is_none_or(|now| next == *now))
                };
                let mut fitting = open.iter().copied().filter(fits);
                let only = fitting.next().filter(|_| fitting.next().is_none());
                if let Some(at) = only {
                    now = leads_to(at);
                    track.makers.insert(revision, at);
                    open.retain(|other| *other != at);
                }
            }
            _ => {}
        }
        if let Some(Account::Present(present)) = &now {
            track.states.insert(revision, present.clone());
        }
        before = now;
    }
}

fn certainties(track: &mut Track<'_>, requests: &[Request<'_>]) {
    let mut since = |revision: u64, time: u64, by: u64| {
        if revision > 0 && time < NEVER {
            let known = track.since.entry(revision).or_insert((time, by));
            *known = (*known).min((time, by));
        }
    };
    let mut until = |revision: u64, time: u64| {
        let known = track.until.entry(revision).or_insert(time);
        *known = time.max(*known);
    };
    for sight in &track.sights {
        since(sight.seen.revision_least(), sight.returned(), sight.by.id);
        match sight.seen {
            Seen::View(view) if sight.is_linearizable() => until(view.revision, sight.by.invoked),
            Seen::NotFound if sight.is_linearizable() => until(0, sight.by.invoked),
            _ => {}
        }
    }
    for at in &track.requests {
        let request = &requests[*at];
        if let Fate::Done { revision, .. } = request.fate {
            since(revision, request.settled, request.calls[0].id);
        }
    }
    for (revision, at) in &track.makers {
        until(revision - 1, requests[*at].invoked);
    }
}
