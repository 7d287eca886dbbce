//! Durability: everything acknowledged, and everything that any read ever saw, is there afterwards and at the end.
//!
//! *Algorithm.* An account's revision never falls, so it is enough to know the highest revision that was certainly
//! reached: by each linearizable read for what had been seen before it began, and by each replica's rows at the
//! end. Records are compared where both sides show the same revision. And nothing is there that nobody asked for:
//! revisions count the requests that may have had an effect.
//!
//! *What it cannot see.* The content of a lost revision that a later one has covered; `order` and
//! `linearizability` look at that.

use std::collections::BTreeMap;

use super::Verdict;
use super::evidence::{Evidence, Fate, NEVER, Seen, Track};
use crate::history::{AccountView, EndState, History, State};

const JUDGE: &str = "durability";

/// Judges every account by the reads, and by each replica's rows at the end.
pub fn judge(history: &History, ends: &[EndState]) -> Verdict {
    let evidence = Evidence::of(history);
    let mut verdict = Verdict::default();
    for (account, track) in &evidence.tracks {
        nothing_fell_back(account, track, &evidence, &mut verdict);
    }
    for end in ends {
        still_there(&evidence, end, &mut verdict);
        change_log_is_whole(end, &mut verdict);
    }
    for pair in ends.windows(2) {
        let [one, other] = pair else { continue };
        if one.applied != other.applied {
            continue;
        }
        verdict.checked += 1;
        for (family, rows) in &one.rows {
            if other.rows.get(family) != Some(rows) {
                let message = format!(
                    "nodes {} and {} have applied log index {} and hold different rows of {family}",
                    one.node, other.node, one.applied
                );
                verdict.violation(JUDGE, message, []);
            }
        }
    }
    verdict
}

/// Each linearizable read sees at least what had been seen or acknowledged before it began.
fn nothing_fell_back(account: &str, track: &Track<'_>, evidence: &Evidence<'_>, verdict: &mut Verdict) {
    // When what was known: time, revision, by which call.
    let mut known: Vec<(u64, u64, u64)> = Vec::new();
    for sight in &track.sights {
        known.push((sight.returned(), sight.seen.revision_least(), sight.by.id));
    }
    for request in track.requests.iter().map(|at| &evidence.requests[*at]) {
        if let Fate::Done { revision, .. } = request.fate {
            known.push((request.settled, revision, request.calls[0].id));
        }
    }
    known.sort_unstable();
    let mut reads: Vec<_> = track
        .sights
        .iter()
        .filter(|sight| sight.is_linearizable())
        .collect();
    reads.sort_by_key(|sight| sight.by.invoked);
    let purgeable = track.may_be_purged(&evidence.requests);
    let mut known = known.into_iter().peekable();
    let mut highest = (0, 0);
    for read in reads {
        while let Some((_, revision, by)) = known.next_if(|(time, ..)| *time < read.by.invoked) {
            highest = highest.max((revision, by));
        }
        verdict.checked += 1;
        let wrong = match read.seen {
            Seen::View(view) if view.revision < highest.0 => "is back at an earlier revision",
            Seen::View(_) if track.purged_since < read.by.invoked => "is back after its purge",
            Seen::NotFound if highest.0 > 0 => "has vanished",
            Seen::Gone if highest.0 > 0 && !purgeable => "has vanished",
            Seen::Purged if !purgeable => "was purged although nobody deleted it",
            _ => continue,
        };
        let message = format!(
            "account {account} {wrong}: {:?}, though revision {} had been seen or acknowledged before",
            read.seen, highest.0
        );
        verdict.violation(
            JUDGE,
            message,
            [highest.1, read.by.id].into_iter().filter(|id| *id > 0),
        );
    }
}

/// The rows at the end hold everything, and nothing else.
fn still_there(evidence: &Evidence<'_>, end: &EndState, verdict: &mut Verdict) {
    let rows: BTreeMap<&str, &AccountView> = end
        .accounts
        .iter()
        .map(|view| (view.account.as_str(), view))
        .collect();
    for (account, track) in &evidence.tracks {
        verdict.checked += 1;
        let mut violation = |what: String, by: Vec<u64>| {
            verdict.violation(
                JUDGE,
                format!("at the end on node {}, account {account} {what}", end.node),
                by,
            );
        };
        let known = track.since(1).map(|_| highest(track)).unwrap_or((0, 0));
        let Some(row) = rows.get(account) else {
            if known.0 > 0 {
                violation(
                    format!("is missing, and was at revision {}", known.0),
                    vec![known.1],
                );
            }
            continue;
        };
        if row.revision < known.0 {
            violation(
                format!("is at revision {}, and was at {}", row.revision, known.0),
                vec![known.1],
            );
        }
        let purged = row.state == State::Deleted;
        if purged && !track.may_be_purged(&evidence.requests) {
            violation("was purged although nobody deleted it".into(), vec![]);
        }
        if !purged && track.purged_since < NEVER {
            violation("is there, and was purged".into(), vec![]);
        }
        if let Some((view, by)) = track.views.get(&row.revision)
            && *view != *row
        {
            violation(format!("is {row:?}, and was seen as {view:?}"), vec![*by]);
        }
        let possible = track
            .requests
            .iter()
            .filter(|at| matches!(evidence.requests[**at].fate, Fate::Done { .. } | Fate::Unknown));
        let most = possible.count() as u64 + u64::from(purged);
        if row.revision > most {
            violation(
                format!(
                    "has revision {}, and at most {most} changes were asked for",
                    row.revision
                ),
                vec![],
            );
        }
    }
    for account in rows
        .keys()
        .filter(|account| !evidence.tracks.contains_key(*account))
    {
        let message = format!(
            "at the end on node {}, there is account {account}, for which nobody asked",
            end.node
        );
        verdict.violation(JUDGE, message, []);
    }
}

/// The highest revision that the account certainly reached, and a call that shows it.
fn highest(track: &Track<'_>) -> (u64, u64) {
    let mut highest = (0, 0);
    let mut revision = 1;
    while let Some((_, by)) = track.since(revision) {
        highest = (revision, by);
        revision += 1;
    }
    highest
}

/// The change log holds each revision of each account once, in order.
fn change_log_is_whole(end: &EndState, verdict: &mut Verdict) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut position = 0;
    for change in &end.changes {
        let before = last.insert(&change.account, change.revision);
        let follows = match before {
            Some(before) => change.revision == before + 1,
            None => change.revision == 1 || end.changes_from > 0,
        };
        if !follows || change.position < position {
            let message = format!(
                "in the change log of node {}, {change:?} follows revision {} of its account and position {position}",
                end.node,
                before.unwrap_or(0)
            );
            verdict.violation(JUDGE, message, []);
        }
        position = change.position;
    }
    for row in &end.accounts {
        verdict.checked += 1;
        let logged = last.get(row.account.as_str()).copied();
        let whole = logged == Some(row.revision) || (logged.is_none() && end.changes_from > 0);
        if !whole {
            let message = format!(
                "on node {} account {} is at revision {}, and its last logged change is {logged:?}",
                end.node, row.account, row.revision
            );
            verdict.violation(JUDGE, message, []);
        }
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::{Consistency, Outcome, Output};
    use crate::judges::miniature::random_run;
    use crate::judges::testing::*;

    fn rejects(history: &History, accounts: &[AccountView]) -> bool {
        let end = EndState {
            accounts: accounts.to_vec(),
            changes_from: 1,
            ..EndState::default()
        };
        !judge(history, &[end]).violations.is_empty()
    }

    #[test]
    fn replicas_with_different_rows_are_rejected() {
        let end = |node, applied, checksum| EndState {
            node,
            applied,
            rows: BTreeMap::from([("request".to_owned(), (3, checksum))]),
            ..EndState::default()
        };
        let judged = |ends: &[EndState]| judge(&History::default(), ends).violations.len();
        assert_eq!(judged(&[end(1, 7, 11), end(2, 7, 11)]), 0);
        assert_eq!(judged(&[end(1, 7, 11), end(2, 7, 12)]), 1);
        assert_eq!(
            judged(&[end(1, 7, 11), end(2, 8, 12)]),
            0,
            "at other places in the log"
        );
    }

    #[test]
    fn a_vanished_write_is_rejected() {
        let mut history = History::default();
        history.ok((0, 10), create("a", "f1", &[]), made(view("a", 1, "f1", &[])));
        history.ok((20, 30), update("a", "f2"), made(view("a", 2, "f2", &[])));
        assert!(!rejects(&history, &[view("a", 2, "f2", &[])]));
        assert!(rejects(&history, &[view("a", 1, "f1", &[])]));
        assert!(rejects(&history, &[view("a", 2, "f1", &[])]));
        assert!(rejects(&history, &[]));
        // More than was asked for.
        assert!(rejects(&history, &[view("a", 3, "f2", &[])]));
        assert!(rejects(
            &history,
            &[view("a", 2, "f2", &[]), view("b", 1, "f3", &[])]
        ));
        history.ok((40, 50), get("a"), Output::NotFound);
        assert!(rejects(&history, &[view("a", 2, "f2", &[])]));
    }

    #[test]
    fn what_a_stale_read_saw_may_not_vanish_either() {
        let mut history = History::default();
        history.unknown((0, 10), create("a", "f1", &[]));
        assert!(!rejects(&history, &[]));
        assert!(!rejects(&history, &[view("a", 1, "f1", &[])]));
        let any = Consistency::Stale { max_ms: None };
        history.ok(
            (20, 30),
            get_with("a", any),
            Output::Account(view("a", 1, "f1", &[])),
        );
        assert!(rejects(&history, &[]));
        let mut back = history.clone();
        back.ok((40, 50), get_with("a", any), Output::NotFound);
        assert!(!rejects(&back, &[view("a", 1, "f1", &[])]));
        history.ok((40, 50), get("a"), Output::NotFound);
        assert!(rejects(&history, &[view("a", 1, "f1", &[])]));
    }

    #[test]
    fn a_tombstone_needs_a_deletion_and_stays() {
        let tombstone = AccountView {
            state: State::Deleted,
            ..view("a", 3, "", &[])
        };
        let mut history = History::default();
        history.ok((0, 10), create("a", "f1", &[]), made(view("a", 1, "f1", &[])));
        assert!(rejects(&history, std::slice::from_ref(&tombstone)));
        let pending = AccountView {
            state: State::PendingDeletion,
            ..view("a", 2, "f1", &[])
        };
        history.ok((20, 30), delete("a"), made(pending.clone()));
        assert!(!rejects(&history, std::slice::from_ref(&tombstone)));
        history.ok((40, 50), get("a"), Output::Purged);
        assert!(!rejects(&history, &[tombstone]));
        assert!(rejects(&history, std::slice::from_ref(&pending)));
        history.ok((60, 70), get("a"), Output::Account(pending));
        assert!(rejects(&history, &[]));
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn runs_of_a_correct_service_pass(seed: u64, calls in 1_usize..120) {
            let run = random_run(seed, calls);
            let verdict = judge(&run.history, &[run.end.clone(), run.end]);
            prop_assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
        }

        #[test]
        fn a_lost_row_and_a_lost_change_are_found(seed: u64) {
            let run = random_run(seed, 60);
            let seen = run.history.operations.iter().any(|operation| {
                matches!(operation.outcome, Outcome::Ok { output: Output::Changed { .. }, .. })
            });
            if seen {
                let mut older = run.end.clone();
                older.accounts.retain(|row| row.revision == 0);
                prop_assert!(!judge(&run.history, &[older]).violations.is_empty());
                let mut trimmed = run.end.clone();
                trimmed.changes.pop();
                prop_assert!(!judge(&run.history, &[run.end, trimmed]).violations.is_empty());
            }
        }
    }
}
