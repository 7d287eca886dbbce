//! Uniqueness: at any instant an identifier belongs to at most one account, and accounts and claims agree.
//!
//! *Algorithm.* Comparable instants are: one answer with several accounts; a stretch of time in which answers prove
//! that an account held an identifier (from the first answer that shows it to the last call that still found it);
//! one log index, where the replicas' change logs say when each account changed; and each replica's rows at the
//! end. Quarantine is compared by the log's clock, in which the service measures it: an account's update time at
//! the revision that gave an identifier up, and another's at the revision that took it. A purge, which gives up all of
//! an account's, must not come before the grace period is over.
//!
//! *What it cannot see.* What an account held at revisions that do not follow from any answer. That a quarantine is
//! not too long: `linearizability` allows a refusal as long as nobody else has taken the identifier.

use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;
use super::evidence::{Evidence, Track};
use crate::history::{AccountView, ChangeKind, EndState, History, Input, Outcome, Output, Rules, State};

const JUDGE: &str = "uniqueness";

/// Judges every identifier by the answers, and by each replica's rows at the end.
pub fn judge(history: &History, ends: &[EndState], rules: &Rules) -> Verdict {
    let evidence = Evidence::of(history);
    let mut verdict = Verdict::default();
    in_one_answer(history, &mut verdict);
    let tenures: Vec<Tenure<'_>> = evidence
        .tracks
        .iter()
        .flat_map(|(account, track)| tenures(account, track, ends))
        .collect();
    let mut by_identifier: BTreeMap<&str, Vec<&Tenure<'_>>> = BTreeMap::new();
    for tenure in &tenures {
        by_identifier.entry(tenure.identifier).or_default().push(tenure);
    }
    for (identifier, tenures) in by_identifier {
        verdict.checked += 1;
        for (at, one) in tenures.iter().enumerate() {
            for other in tenures[at + 1..]
                .iter()
                .filter(|other| other.account != one.account)
            {
                not_at_once(identifier, one, other, &mut verdict);
                quarantined(identifier, one, other, rules, &mut verdict);
                quarantined(identifier, other, one, rules, &mut verdict);
            }
        }
    }
    for track in evidence.tracks.values() {
        grace(track, &evidence, rules, &mut verdict);
    }
    for end in ends {
        claims_agree(end, &mut verdict);
        not_purged_early(end, &mut verdict);
        by_log_index(&evidence, end, &mut verdict);
    }
    verdict
}

/// In one answer no two accounts list an identifier, and a lookup's account lists the one that was asked for.
fn in_one_answer(history: &History, verdict: &mut Verdict) {
    for operation in &history.operations {
        let Outcome::Ok { output, .. } = &operation.outcome else {
            continue;
        };
        match (output, &operation.input) {
            (Output::Batch { accounts, .. } | Output::Page { accounts, .. }, _) => {
                verdict.checked += 1;
                if let Some((identifier, one, other)) = listed_twice(accounts) {
                    let message =
                        format!("one answer shows identifier {identifier} at accounts {one} and {other}");
                    verdict.violation(JUDGE, message, [operation.id]);
                }
            }
            (Output::Account(view), Input::Lookup { identifier, .. }) => {
                verdict.checked += 1;
                if !view.identifiers.contains(identifier) {
                    let message = format!(
                        "a lookup of {identifier} answered with account {}, which does not list it",
                        view.account
                    );
                    verdict.violation(JUDGE, message, [operation.id]);
                }
            }
            _ => {}
        }
    }
}

fn listed_twice(accounts: &[AccountView]) -> Option<(&str, &str, &str)> {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for view in accounts {
        for identifier in &view.identifiers {
            if let Some(other) = owners.insert(identifier, &view.account)
                && other != view.account
            {
                return Some((identifier, other, &view.account));
            }
        }
    }
    None
}

/// A run of revisions at which an account certainly held an identifier.
#[derive(Debug)]
struct Tenure<'h> {
    identifier: &'h str,
    account: &'h str,
    /// Simulated time in which it certainly held it, with the call that shows the beginning.
    certain: Option<(u64, u64, u64)>,
    /// When it took it, log milliseconds, if it is known that it did not hold it before.
    taken_ms: Option<u64>,
    /// When it gave it up, log milliseconds.
    left_ms: Option<u64>,
}

fn tenures<'h>(account: &'h str, track: &Track<'h>, ends: &[EndState]) -> Vec<Tenure<'h>> {
    let time_of = |revision: u64| {
        let seen = track.views.get(&revision).map(|(view, _)| view.update_time_ms);
        seen.filter(|time| *time > 0)
    };
    // A tombstone shows when everything was given up.
    let purged_ms = |revision: u64| {
        let rows = ends.iter().flat_map(|end| &end.accounts);
        let mut tombstones = rows
            .filter(|row| row.account == account && row.state == State::Deleted && row.revision == revision);
        tombstones.next().map(|row| row.update_time_ms)
    };
    let holds = |revision: u64, identifier: &str| {
        let state = track.states.get(&revision)?;
        Some(state.identifiers.contains(identifier))
    };
    let mut found = Vec::new();
    let identifiers: BTreeSet<&'h str> = track
        .views
        .values()
        .flat_map(|(view, _)| view.identifiers.iter().map(String::as_str))
        .collect();
    for identifier in identifiers {
        let mut first: Option<u64> = None;
        for revision in track.states.keys().copied() {
            if holds(revision, identifier) != Some(true) {
                continue;
            }
            let from = *first.get_or_insert(revision);
            if holds(revision + 1, identifier) == Some(true) {
                continue;
            }
            first = None;
            let since = track.since(from);
            let until = track.until(revision);
            let taken = from == 1 || holds(from - 1, identifier) == Some(false);
            let left = holds(revision + 1, identifier) == Some(false);
            found.push(Tenure {
                identifier,
                account,
                certain: since
                    .filter(|(since, _)| *since < until)
                    .map(|(since, by)| (since, until, by)),
                taken_ms: time_of(from).filter(|_| taken),
                left_ms: match left {
                    true => time_of(revision + 1),
                    false => purged_ms(revision + 1),
                },
            });
        }
    }
    found
}

fn not_at_once(identifier: &str, one: &Tenure<'_>, other: &Tenure<'_>, verdict: &mut Verdict) {
    let (Some(a), Some(b)) = (one.certain, other.certain) else {
        return;
    };
    if a.0.max(b.0) < a.1.min(b.1) {
        let message = format!(
            "accounts {} and {} certainly held identifier {identifier} at the same time, {} to {} ns",
            one.account,
            other.account,
            a.0.max(b.0),
            a.1.min(b.1)
        );
        verdict.violation(JUDGE, message, [a.2, b.2]);
    }
}

fn quarantined(
    identifier: &str,
    left: &Tenure<'_>,
    taken: &Tenure<'_>,
    rules: &Rules,
    verdict: &mut Verdict,
) {
    let (Some(left_ms), Some(taken_ms)) = (left.left_ms, taken.taken_ms) else {
        return;
    };
    if left_ms <= taken_ms && taken_ms < left_ms + rules.quarantine_ms {
        let message = format!(
            "account {} took identifier {identifier} at log time {taken_ms} ms, {} ms after {} had given it up; the \
             quarantine is {} ms",
            taken.account,
            taken_ms - left_ms,
            left.account,
            rules.quarantine_ms
        );
        verdict.violation(
            JUDGE,
            message,
            taken.certain.iter().chain(&left.certain).map(|(_, _, by)| *by),
        );
    }
}

/// A deletion leaves the whole grace period.
fn grace(track: &Track<'_>, evidence: &Evidence<'_>, rules: &Rules, verdict: &mut Verdict) {
    for (revision, at) in &track.makers {
        let request = &evidence.requests[*at];
        let Some((view, _)) = track.views.get(revision) else {
            continue;
        };
        let due = view.update_time_ms + rules.deletion_grace_ms;
        if matches!(request.input, Input::Delete { .. }) && view.purge_time_ms.is_some_and(|told| told < due)
        {
            let message = format!("{view:?} is to be purged before its grace period is over, at {due} ms");
            verdict.violation(JUDGE, message, request.ids());
        }
    }
}

/// No tombstone is older than its deadline.
fn not_purged_early(end: &EndState, verdict: &mut Verdict) {
    for view in end.accounts.iter().filter(|view| view.state == State::Deleted) {
        if view.purge_time_ms.is_some_and(|due| view.update_time_ms < due) {
            let message = format!(
                "at the end on node {}, {view:?} was purged before it was due",
                end.node
            );
            verdict.violation(JUDGE, message, []);
        }
    }
}

/// Each identifier of each account has a held claim of that account, and each held claim is listed.
fn claims_agree(end: &EndState, verdict: &mut Verdict) {
    let mut violation = |what: String| {
        verdict.violation(JUDGE, format!("at the end on node {}, {what}", end.node), []);
    };
    if let Some((identifier, one, other)) = listed_twice(&end.accounts) {
        violation(format!(
            "accounts {one} and {other} both list identifier {identifier}"
        ));
    }
    let mut held: BTreeMap<&str, &str> = BTreeMap::new();
    for claim in &end.claims {
        match (&claim.identifier, claim.quarantined_until_ms) {
            (None, _) => violation(format!(
                "there is a claim of {} that no identifier leads to",
                claim.owner
            )),
            (Some(identifier), None) => {
                if let Some(other) = held.insert(identifier, &claim.owner) {
                    violation(format!(
                        "identifier {identifier} is claimed by {other} and by {}",
                        claim.owner
                    ));
                }
            }
            (Some(_), Some(_)) => {}
        }
    }
    let mut listed: BTreeSet<(&str, &str)> = BTreeSet::new();
    for view in end.accounts.iter().filter(|view| view.state != State::Deleted) {
        for identifier in &view.identifiers {
            listed.insert((identifier, &view.account));
            match held.get(identifier.as_str()) {
                Some(owner) if *owner == view.account => {}
                claim => violation(format!(
                    "account {} lists identifier {identifier}, whose claim is held by {claim:?}",
                    view.account
                )),
            }
        }
    }
    for (identifier, owner) in held {
        if !listed.contains(&(identifier, owner)) {
            violation(format!(
                "the claim on {identifier} is held by {owner}, which does not list it"
            ));
        }
    }
    verdict.checked += end.claims.len() as u64;
}

/// Goes through the change log: whoever comes to hold an identifier finds it held by nobody else.
fn by_log_index(evidence: &Evidence<'_>, end: &EndState, verdict: &mut Verdict) {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for change in &end.changes {
        let Some((account, track)) = evidence.tracks.get_key_value(change.account.as_str()) else {
            continue;
        };
        let state = track.states.get(&change.revision);
        if state.is_none() && change.kind != ChangeKind::Purged {
            // What it holds now is not known: it may have given up anything.
            owners.retain(|_, owner| owner != account);
            continue;
        }
        verdict.checked += 1;
        owners.retain(|identifier, owner| {
            owner != account || state.is_some_and(|state| state.identifiers.contains(*identifier))
        });
        for identifier in state.iter().flat_map(|state| &state.identifiers) {
            if let Some(other) = owners.insert(identifier, account)
                && other != *account
            {
                let message = format!(
                    "at log index {} account {account} came to hold identifier {identifier}, which {other} held",
                    change.position
                );
                let maker = track.makers.get(&change.revision);
                let by = maker.into_iter().flat_map(|at| evidence.requests[*at].ids());
                verdict.violation(JUDGE, message, by);
            }
        }
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::{Change, ClaimView};
    use crate::judges::miniature::{RULES, random_run};
    use crate::judges::testing::*;

    fn rejects(history: &History, ends: &[EndState]) -> bool {
        !judge(history, ends, &RULES).violations.is_empty()
    }

    #[test]
    fn two_owners_in_one_answer_are_rejected() {
        let mut history = History::default();
        let both = |x: &[&str], y: &[&str]| found(vec![view("a", 1, "f1", x), view("b", 1, "f2", y)]);
        history.ok((0, 10), batch(&["a", "b"]), both(&["x"], &["y"]));
        assert!(!rejects(&history, &[]));
        history.ok((0, 10), batch(&["a", "b"]), both(&["x"], &["x", "y"]));
        assert!(rejects(&history, &[]));
        let mut lookups = History::default();
        lookups.ok((0, 10), lookup("x"), Output::Account(view("a", 1, "f1", &["x"])));
        assert!(!rejects(&lookups, &[]));
        lookups.ok((0, 10), lookup("z"), Output::Account(view("a", 1, "f1", &["x"])));
        assert!(rejects(&lookups, &[]));
    }

    #[test]
    fn two_owners_at_one_time_are_rejected() {
        let history = |last_read| {
            let mut history = History::default();
            history.ok(
                (0, 10),
                create("a", "f1", &["x"]),
                made(view("a", 1, "f1", &["x"])),
            );
            history.ok(
                (20, 30),
                create("b", "f2", &["x"]),
                made(view("b", 1, "f2", &["x"])),
            );
            history.ok((50, 60), get("b"), Output::Account(view("b", 1, "f2", &["x"])));
            history.ok(last_read, get("a"), Output::Account(view("a", 1, "f1", &["x"])));
            history
        };
        assert!(rejects(&history((40, 45)), &[]));
        // It may have given it up before the other came.
        assert!(!rejects(&history((12, 15)), &[]));
    }

    #[test]
    fn a_quarantine_cut_short_is_rejected() {
        let at = |view: AccountView, update_time_ms| AccountView {
            update_time_ms,
            ..view
        };
        let history = |taken_ms| {
            let mut history = History::default();
            history.ok(
                (0, 10),
                create("a", "f1", &["x"]),
                made(at(view("a", 1, "f1", &["x"]), 1_000)),
            );
            history.ok(
                (20, 30),
                change("a", &[], &["x"]),
                made(at(view("a", 2, "f1", &[]), 2_000)),
            );
            history.ok(
                (40, 50),
                create("b", "f2", &["x"]),
                made(at(view("b", 1, "f2", &["x"]), taken_ms)),
            );
            history
        };
        assert!(rejects(&history(2_000 + RULES.quarantine_ms - 1), &[]));
        assert!(!rejects(&history(2_000 + RULES.quarantine_ms), &[]));
    }

    #[test]
    fn a_grace_period_cut_short_is_rejected() {
        let history = |grace_ms| {
            let pending = AccountView {
                state: State::PendingDeletion,
                update_time_ms: 1_000,
                purge_time_ms: Some(1_000 + grace_ms),
                ..view("a", 2, "f1", &[])
            };
            let mut history = History::default();
            history.ok((0, 10), create("a", "f1", &[]), made(view("a", 1, "f1", &[])));
            history.ok((20, 30), delete("a"), made(pending));
            history
        };
        assert!(!rejects(&history(RULES.deletion_grace_ms), &[]));
        assert!(rejects(&history(RULES.deletion_grace_ms - 1), &[]));
        let end = |update_time_ms| EndState {
            accounts: vec![AccountView {
                state: State::Deleted,
                update_time_ms,
                purge_time_ms: Some(5_000),
                ..view("a", 3, "", &[])
            }],
            ..EndState::default()
        };
        assert!(!rejects(&History::default(), &[end(5_000)]));
        assert!(rejects(&History::default(), &[end(4_999)]));
    }

    #[test]
    fn claims_and_accounts_must_agree_at_the_end() {
        let claim = |identifier: Option<&str>, owner: &str, quarantined_until_ms| ClaimView {
            identifier: identifier.map(Into::into),
            owner: owner.into(),
            quarantined_until_ms,
        };
        let judged = |claims: &[ClaimView]| {
            let end = EndState {
                accounts: vec![view("a", 1, "f1", &["x"]), view("b", 1, "f2", &[])],
                claims: claims.to_vec(),
                ..EndState::default()
            };
            rejects(&History::default(), &[end])
        };
        let held = claim(Some("x"), "a", None);
        assert!(!judged(std::slice::from_ref(&held)));
        assert!(!judged(&[held.clone(), claim(Some("y"), "b", Some(9))]));
        // Missing, another's, in quarantine, orphaned, unreachable.
        assert!(judged(&[]));
        assert!(judged(&[claim(Some("x"), "b", None)]));
        assert!(judged(&[claim(Some("x"), "a", Some(9))]));
        assert!(judged(&[held.clone(), claim(Some("y"), "b", None)]));
        assert!(judged(&[held, claim(None, "b", Some(9))]));
    }

    #[test]
    fn two_owners_at_one_log_index_are_rejected() {
        let mut history = History::default();
        history.ok(
            (0, 90),
            create("a", "f1", &["x"]),
            made(view("a", 1, "f1", &["x"])),
        );
        history.ok((0, 90), change("a", &[], &["x"]), made(view("a", 2, "f1", &[])));
        history.ok(
            (0, 90),
            create("b", "f2", &["x"]),
            made(view("b", 1, "f2", &["x"])),
        );
        let change = |position, account: &str, revision| Change {
            position,
            account: account.into(),
            revision,
            kind: ChangeKind::Updated,
            request_id: None,
        };
        let judged = |changes: [Change; 3]| {
            let end = EndState {
                changes: changes.to_vec(),
                ..EndState::default()
            };
            rejects(&history, &[end])
        };
        assert!(!judged([change(1, "a", 1), change(2, "a", 2), change(3, "b", 1)]));
        assert!(judged([change(1, "a", 1), change(2, "b", 1), change(3, "a", 2)]));
    }

    proptest! {
        #![proptest_config(cases(256))]
        #[test]
        fn runs_of_a_correct_service_pass(seed: u64, calls in 1_usize..120) {
            let run = random_run(seed, calls);
            let verdict = judge(&run.history, &[run.end], &RULES);
            prop_assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
        }

        #[test]
        fn a_lost_claim_is_found(seed: u64) {
            let mut run = random_run(seed, 80);
            let held = |claim: &ClaimView| claim.quarantined_until_ms.is_none();
            if let Some(at) = run.end.claims.iter().position(held) {
                run.end.claims.remove(at);
                prop_assert!(rejects(&run.history, &[run.end]));
            }
        }
    }
}
