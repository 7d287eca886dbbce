//! Who holds an identifier from which position to which, as far as that is certain; and no two at once.
//!
//! A change's own position is not known exactly, but it has bounds: at most that of each answer that shows it, less
//! than that of the account's next change; and more than that of each answer that does not show it yet, or that
//! came before it was asked for. Of two accounts that held an identifier, one must have given it up before the
//! other took it. If the bounds leave room for neither order, both held it at once.

use super::super::Verdict;
use super::super::evidence::{Evidence, Fate, NEVER, Seen, Track};
use super::{JUDGE, position};
use crate::history::Input;

/// A run of revisions at which an account held an identifier.
struct Tenure<'h> {
    account: &'h str,
    /// It began at this position at the latest.
    begun_by: u64,
    end: End,
    calls: Vec<u64>,
}

/// How a tenure ended.
enum End {
    /// After this position.
    After(u64),
    /// At any time, or not.
    Open,
    /// Nothing can have ended it.
    Never,
}

impl Tenure<'_> {
    /// Whether it can have ended before the other began.
    fn may_precede(&self, other: &Tenure<'_>) -> bool {
        match self.end {
            // It ended at the next position at the earliest, and the other began at one after that.
            End::After(position) => position.saturating_add(1) < other.begun_by,
            End::Open => true,
            End::Never => false,
        }
    }
}

pub(super) fn judge(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let mut answered: Vec<(u64, u64)> = evidence
        .history
        .operations
        .iter()
        .filter_map(|operation| Some((operation.returned?, position(operation)?)))
        .collect();
    answered.sort_unstable();
    let mut highest = 0;
    for (_, position) in &mut answered {
        highest = highest.max(*position);
        *position = highest;
    }
    for (identifier, accounts) in evidence.identifiers() {
        verdict.checked += 1;
        let tenures: Vec<Tenure<'_>> = accounts
            .into_iter()
            .flat_map(|account| {
                tenures(
                    account,
                    &evidence.tracks[account],
                    identifier,
                    evidence,
                    &answered,
                )
            })
            .collect();
        for (at, one) in tenures.iter().enumerate() {
            for other in tenures[at + 1..]
                .iter()
                .filter(|other| other.account != one.account)
            {
                if !one.may_precede(other) && !other.may_precede(one) {
                    let message = format!(
                        "accounts {} (from position {} at the latest) and {} (from {}) held identifier {identifier} \
                         at once: neither can have given it up before the other took it",
                        one.account, one.begun_by, other.account, other.begun_by
                    );
                    verdict.violation(JUDGE, message, one.calls.iter().chain(&other.calls).copied());
                }
            }
        }
    }
}

fn tenures<'h>(
    account: &'h str,
    track: &Track<'h>,
    identifier: &str,
    evidence: &Evidence<'h>,
    answered: &[(u64, u64)],
) -> Vec<Tenure<'h>> {
    let holds = |revision: u64| Some(track.states.get(&revision)?.identifiers.contains(identifier));
    let mut found = Vec::new();
    let mut first = None;
    for revision in track.states.keys().copied() {
        if holds(revision) != Some(true) {
            continue;
        }
        let from = *first.get_or_insert(revision);
        let end = match holds(revision + 1) {
            Some(true) => continue,
            Some(false) => End::After(made_after(track, revision + 1, evidence, answered)),
            None if may_go_on(track, revision, identifier, evidence) => End::Open,
            None => End::Never,
        };
        first = None;
        let makers = [from, revision + 1]
            .into_iter()
            .filter_map(|revision| track.makers.get(&revision));
        found.push(Tenure {
            account,
            begun_by: made_by(track, from, evidence),
            end,
            calls: makers.map(|at| evidence.requests[*at].calls[0].id).collect(),
        });
    }
    found
}

/// Whether the identifier may have been given up after the last revision at which it is known to be held.
fn may_go_on(track: &Track<'_>, revision: u64, identifier: &str, evidence: &Evidence<'_>) -> bool {
    let later = track
        .states
        .keys()
        .chain(track.makers.keys())
        .any(|other| *other > revision);
    later
        || track
            .requests
            .iter()
            .map(|at| &evidence.requests[*at])
            .any(|request| match request.input {
                Input::Delete { .. } => !matches!(request.fate, Fate::Refused(_) | Fate::Nothing),
                Input::ChangeIdentifiers { remove, .. } => {
                    request.fate == Fate::Unknown && remove.iter().any(|one| one == identifier)
                }
                Input::ImportItem { identifiers, .. } => {
                    request.fate == Fate::Unknown && !identifiers.iter().any(|one| one == identifier)
                }
                _ => false,
            })
}

/// The account had reached this revision at this position.
fn made_by(track: &Track<'_>, revision: u64, evidence: &Evidence<'_>) -> u64 {
    let shown = track.sights.iter().filter_map(|sight| match sight.seen {
        Seen::View(view) if view.revision >= revision => Some((view.revision, position(sight.by)?)),
        _ => None,
    });
    let told = track
        .makers
        .range(revision..)
        .filter_map(|(made, at)| match evidence.requests[*at].fate {
            Fate::Done { position, .. } => Some((*made, position?)),
            _ => None,
        });
    // Each change between lies at a position of its own.
    shown
        .chain(told)
        .map(|(made, position)| position.saturating_sub(made - revision))
        .min()
        .unwrap_or(NEVER)
}

/// The account had not reached this revision at this position.
fn made_after(track: &Track<'_>, revision: u64, evidence: &Evidence<'_>, answered: &[(u64, u64)]) -> u64 {
    let shown = track.sights.iter().filter_map(|sight| match sight.seen {
        Seen::View(view) if view.revision < revision => position(sight.by),
        _ => None,
    });
    let asked = track.makers.get(&revision).and_then(|at| {
        let before = answered.partition_point(|(returned, _)| *returned < evidence.requests[*at].invoked);
        Some(answered[before.checked_sub(1)?].1)
    });
    shown.chain(asked).max().unwrap_or(0)
}
