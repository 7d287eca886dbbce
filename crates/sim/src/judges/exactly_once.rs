//! Exactly once: each request has at most one effect, all its answers agree, and after a definite no it has none,
//! ever.
//!
//! *Algorithm.* Black box: display names are unique to their request, so one that shows at two revisions with
//! another in between was written twice, and one of a request that was turned down must show nowhere; the same for
//! identifiers, existence and deletion where no other request can be behind them. White box: the change log of
//! each replica names the request behind each change.
//!
//! *What it cannot see.* A second effect without a trace in any answer once the change log has been trimmed. The
//! items of an import are judged by what they show only: their request ids are the service's.

use std::collections::BTreeMap;

use super::Verdict;
use super::evidence::{Evidence, Fate, Request, Track};
use crate::history::{
    Change, ChangeKind, EndState, History, Input, Operation, Outcome, Output, Reason, State,
};

const JUDGE: &str = "exactly_once";

/// Judges every request by the answers, and by the replicas' change logs at the end.
pub fn judge(history: &History, ends: &[EndState]) -> Verdict {
    let evidence = Evidence::of(history);
    let mut verdict = Verdict::default();
    for request in &evidence.requests {
        verdict.checked += 1;
        answers_agree(request, &mut verdict);
        if matches!(request.fate, Fate::Refused(_) | Fate::Nothing) {
            left_no_trace(request, &evidence, &mut verdict);
        }
    }
    for track in evidence.tracks.values() {
        written_once(track, &mut verdict);
    }
    for end in ends {
        logged_once(&evidence, end, &mut verdict);
    }
    verdict
}

/// What an answer says about the request as a whole; none: only about that call.
#[derive(Debug, PartialEq, Eq)]
enum Said<'h> {
    Made(u64),
    Refused(&'h Reason),
    EtagMismatch,
}

fn said(call: &Operation) -> Option<Said<'_>> {
    match &call.outcome {
        Outcome::Ok {
            output: Output::Changed { revision, .. } | Output::Imported { revision, .. },
            ..
        } => Some(Said::Made(*revision)),
        Outcome::DefinitelyNot(Reason::EtagMismatch { .. }) => Some(Said::EtagMismatch),
        Outcome::DefinitelyNot(reason) if reason.is_recorded() => Some(Said::Refused(reason)),
        _ => None,
    }
}

/// A repetition gets the answer of the first, so far as that was recorded.
fn answers_agree(request: &Request<'_>, verdict: &mut Verdict) {
    let mut first: Option<(Said<'_>, &Operation)> = None;
    for call in &request.calls {
        let Some(answer) = said(call).filter(|answer| *answer != Said::EtagMismatch) else {
            continue;
        };
        match &first {
            None => first = Some((answer, call)),
            Some((before, other)) if !alike(before, &answer) => {
                differ(request, [(before, other), (&answer, call)], verdict)
            }
            Some(_) => {}
        }
    }
    // That an etag was stale is not recorded; but what was recorded before comes first.
    for call in request
        .calls
        .iter()
        .filter(|call| said(call) == Some(Said::EtagMismatch))
    {
        if request.settled < call.invoked
            && let Some((before, other)) = &first
        {
            differ(request, [(before, other), (&Said::EtagMismatch, call)], verdict);
        }
    }
}

fn differ(request: &Request<'_>, answers: [(&Said<'_>, &Operation); 2], verdict: &mut Verdict) {
    let [(one, one_call), (other, other_call)] = answers;
    let message = format!(
        "two answers to one request about account {} differ: {one:?} and {other:?}",
        request.account
    );
    verdict.violation(JUDGE, message, [one_call.id, other_call.id]);
}

/// Facts that one of the answers leaves out do not make a difference.
fn alike(one: &Said<'_>, other: &Said<'_>) -> bool {
    match (one, other) {
        (Said::Refused(one), Said::Refused(other)) => {
            std::mem::discriminant(*one) == std::mem::discriminant(*other)
        }
        _ => one == other,
    }
}

/// A request that was turned down shows nowhere.
fn left_no_trace(request: &Request<'_>, evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let Some(track) = evidence.tracks.get(request.account) else {
        return;
    };
    let others = || {
        let others = track.requests.iter().map(|at| &evidence.requests[*at]);
        others.filter(|other| matches!(other.fate, Fate::Done { .. } | Fate::Unknown))
    };
    let adds = request.input.adds();
    let alone_adds: Vec<&String> = adds
        .iter()
        .filter(|one| !others().any(|other| other.input.adds().contains(one)))
        .collect();
    let creates = |input: &Input| matches!(input, Input::Create { .. } | Input::ImportItem { .. });
    let alone_creates = creates(request.input) && !others().any(|other| creates(other.input));
    let deletes = |input: &Input| matches!(input, Input::Delete { .. });
    let alone_deletes = deletes(request.input) && !others().any(|other| deletes(other.input));
    for (view, seen_by) in track.views.values() {
        let trace = if request.input.fingerprint() == Some(view.fingerprint.as_str()) {
            "its display name"
        } else if alone_adds.iter().any(|one| view.identifiers.contains(*one)) {
            "an identifier that only it adds"
        } else if alone_creates {
            "the account that only it creates"
        } else if alone_deletes && view.state == State::PendingDeletion {
            "a deletion that only it asks for"
        } else {
            continue;
        };
        let message = format!(
            "a request about account {} was turned down, and yet {trace} is seen at revision {}",
            request.account, view.revision
        );
        verdict.violation(JUDGE, message, request.ids().chain([*seen_by]));
        return;
    }
}

/// Each display name shows at one stretch of revisions.
fn written_once(track: &Track<'_>, verdict: &mut Verdict) {
    let mut ended: BTreeMap<&str, u64> = BTreeMap::new();
    let mut now: Option<(&str, u64)> = None;
    for (view, seen_by) in track.views.values() {
        let fingerprint = view.fingerprint.as_str();
        match now {
            Some((before, _)) if before == fingerprint => {}
            Some((before, by)) => drop(ended.insert(before, by)),
            None => {}
        }
        now = Some((fingerprint, *seen_by));
        if let Some(by) = ended.get(fingerprint) {
            let message = format!(
                "the display name {fingerprint} of account {} came back at revision {} after another had \
                 replaced it: it was written twice",
                view.account, view.revision
            );
            verdict.violation(JUDGE, message, [*by, *seen_by]);
            return;
        }
    }
}

/// The change log names each request at most once, those that were turned down not at all, and the others with
/// the revision that they were told.
fn logged_once(evidence: &Evidence<'_>, end: &EndState, verdict: &mut Verdict) {
    let mut named: BTreeMap<(&str, &str), Vec<&Change>> = BTreeMap::new();
    for change in &end.changes {
        if let Some(id) = &change.request_id {
            named.entry((&change.account, id)).or_default().push(change);
        }
    }
    for request in &evidence.requests {
        let Some(id) = &request.calls[0].request_id else {
            continue;
        };
        verdict.checked += 1;
        let changes = named
            .get(&(request.account, id.as_str()))
            .map_or(&[][..], Vec::as_slice);
        let wrong = match (&request.fate, changes) {
            (_, [_, _, ..]) => "has two effects",
            (Fate::Refused(_) | Fate::Nothing, [_]) => "was turned down and has an effect",
            (Fate::Done { .. }, []) if end.changes_from == 0 => "was carried out and has no effect",
            (Fate::Done { revision, .. }, [change]) if change.revision != *revision => {
                "was told another revision than it made"
            }
            (_, [change]) if !fits(request.input, change.kind) => "has an effect of another kind",
            _ => continue,
        };
        let message = format!(
            "in the change log of node {} request {id} about account {} {wrong}: {changes:?}",
            end.node, request.account
        );
        verdict.violation(JUDGE, message, request.ids());
    }
}

fn fits(input: &Input, kind: ChangeKind) -> bool {
    match input {
        Input::Create { .. } => kind == ChangeKind::Created,
        Input::Update { .. } => kind == ChangeKind::Updated,
        Input::ChangeIdentifiers { .. } => kind == ChangeKind::IdentifiersChanged,
        Input::Delete { .. } => kind == ChangeKind::DeletionRequested,
        Input::Undelete { .. } => kind == ChangeKind::Undeleted,
        Input::ImportItem { .. } => matches!(kind, ChangeKind::Created | ChangeKind::Updated),
        _ => false,
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::AccountView;
    use crate::judges::miniature::random_run;
    use crate::judges::testing::*;

    fn rejects(history: &History) -> bool {
        !judge(history, &[]).violations.is_empty()
    }

    fn begun() -> History {
        let mut history = History::default();
        history.ok((0, 10), create("a", "f1", &[]), made(view("a", 1, "f1", &[])));
        history
    }

    #[test]
    fn a_double_effect_is_rejected() {
        let mut history = begun();
        history.unknown((20, 30), update("a", "f2"));
        history.ok((40, 50), get("a"), Output::Account(view("a", 2, "f2", &[])));
        history.ok((60, 70), update("a", "f3"), made(view("a", 3, "f3", &[])));
        assert!(!rejects(&history));
        history.ok((80, 90), get("a"), Output::Account(view("a", 4, "f2", &[])));
        assert!(rejects(&history));
    }

    #[test]
    fn an_effect_after_a_no_is_rejected() {
        let no = Reason::Other("OVERLOADED".into());
        let mut history = begun();
        history.no((20, 30), update("a", "f2"), no.clone());
        assert!(!rejects(&history));
        history.ok((40, 50), get("a"), Output::Account(view("a", 2, "f2", &[])));
        assert!(rejects(&history));
        for (input, seen) in [
            (change("a", &["x"], &[]), view("a", 2, "f1", &["x"])),
            (
                delete("a"),
                AccountView {
                    state: State::PendingDeletion,
                    ..view("a", 2, "f1", &[])
                },
            ),
            (create("b", "f9", &[]), view("b", 7, "f1", &[])),
        ] {
            let mut history = begun();
            history.no((20, 30), input.clone(), no.clone());
            assert!(!rejects(&history));
            history.ok((40, 50), get("a"), Output::Account(seen));
            assert!(rejects(&history), "{input:?}");
            // Unless another request may be behind it.
            history.unknown((20, 30), input);
            if history.operations[1].input.fingerprint().is_none() {
                assert!(!rejects(&history));
            }
        }
    }

    #[test]
    fn repetitions_get_the_same_answer() {
        let repeated = |first: Outcome, second: Outcome| {
            let mut history = begun();
            history.call((20, 30), update("a", "f2"), first);
            let mut again = history.operations[1].clone();
            again.id = 3;
            (again.invoked, again.returned) = (40, Some(50));
            again.outcome = second;
            history.operations.push(again);
            history
        };
        let done = |revision| Outcome::Ok {
            output: Output::Changed {
                revision,
                account: view("a", 9, "f9", &[]),
            },
            position: None,
        };
        let no = || Outcome::DefinitelyNot(Reason::StateForbids { state: None });
        let expired = || Outcome::DefinitelyNot(Reason::RequestIdExpired);
        let etag = || Outcome::DefinitelyNot(Reason::EtagMismatch { current: None });
        assert!(!rejects(&repeated(done(2), done(2))));
        assert!(!rejects(&repeated(Outcome::Unknown, done(2))));
        assert!(!rejects(&repeated(done(2), expired())));
        assert!(!rejects(&repeated(no(), no())));
        assert!(rejects(&repeated(done(2), done(3))));
        assert!(rejects(&repeated(done(2), no())));
        assert!(rejects(&repeated(no(), done(2))));
        assert!(rejects(&repeated(done(2), etag())));
    }

    #[test]
    fn the_change_log_is_compared() {
        let mut history = begun();
        history.no((20, 30), update("a", "f2"), Reason::Other("OVERLOADED".into()));
        let change = |request_id: &str, revision, kind| Change {
            position: revision,
            account: "a".into(),
            revision,
            kind,
            request_id: Some(request_id.into()),
        };
        let judged = |changes: &[Change]| {
            let end = EndState {
                changes: changes.to_vec(),
                ..EndState::default()
            };
            judge(&history, &[end]).violations.len()
        };
        let created = change("r1", 1, ChangeKind::Created);
        assert_eq!(judged(std::slice::from_ref(&created)), 0);
        assert_eq!(judged(&[]), 1);
        assert_eq!(judged(&[created.clone(), created.clone()]), 1);
        assert_eq!(judged(&[change("r1", 2, ChangeKind::Created)]), 1);
        assert_eq!(judged(&[change("r1", 1, ChangeKind::Updated)]), 1);
        assert_eq!(judged(&[created, change("r2", 2, ChangeKind::Updated)]), 1);
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn runs_of_a_correct_service_pass(seed: u64, calls in 1_usize..120) {
            let run = random_run(seed, calls);
            let verdict = judge(&run.history, std::slice::from_ref(&run.end));
            prop_assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
        }

        #[test]
        fn a_no_that_was_a_yes_is_found(seed: u64) {
            let mut run = random_run(seed, 80);
            let done = |operation: &&mut Operation| {
                operation.request_id.is_some() && matches!(operation.outcome, Outcome::Ok { .. })
            };
            if let Some(operation) = run.history.operations.iter_mut().find(done) {
                let id = operation.request_id.clone();
                // All calls of that request say no.
                for operation in run.history.operations.iter_mut().filter(|operation| operation.request_id == id) {
                    operation.outcome = Outcome::DefinitelyNot(Reason::Other("OVERLOADED".into()));
                }
                prop_assert!(!judge(&run.history, &[run.end]).violations.is_empty());
            }
        }
    }
}
