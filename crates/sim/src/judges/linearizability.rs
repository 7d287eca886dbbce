//! Linearizability of every account and every identifier, black box: answers and times only.
//!
//! *Property.* For each account there is one order of all calls about it, each taking effect at one moment between
//! its invocation and its return, in which the account rules give every answer; and the same for each identifier,
//! whose owner changes hands. By locality (Herlihy & Wing 1990) each object can be judged by itself.
//!
//! *Algorithm.* [`super::search`]: Wing & Gong, Lowe. What the search sees of an account is a register with a
//! revision that each change raises by one; what it sees of an identifier is *free*, *held by* or *left by*.
//! Revisions decide almost every order, so several hundred calls on one account are no trouble: a call of unknown
//! outcome can only have made a revision that no other call claims, and one that was never seen is as good as
//! another.
//!
//! *What it cannot see.* Orders across objects (that is for the judges `order` and `serializability`), how long a
//! quarantine or a grace period lasted (`uniqueness`), stale reads (`freshness`). A refusal for the sake of an
//! identifier is judged per identifier only if the answer or the request says for which.

mod account;
mod identifier;

use std::collections::HashMap;

use self::account::AccountModel;
use self::identifier::IdentifierModel;
use super::Verdict;
use super::evidence::{Evidence, Fate, NEVER, Request, Sight, Track};
use super::search::{Answer, Timed, search};
use crate::history::{History, Input};

const JUDGE: &str = "linearizability";

/// Steps that a search may take for one object. Healthy objects need about one a call.
pub const STEPS: u64 = 100_000;

/// Judges every account and every identifier, with at most `steps` steps for each.
pub fn judge(history: &History, steps: u64) -> Verdict {
    let evidence = Evidence::of(history);
    let mut verdict = Verdict::default();
    for (account, track) in &evidence.tracks {
        for (message, calls) in &track.contradictions {
            verdict.violation(JUDGE, message, calls.iter().copied());
        }
        let calls = account::calls(&evidence, track);
        let model = AccountModel::new(&evidence, track);
        record(
            &mut verdict,
            &format!("account {account}"),
            search(&model, &calls, steps),
        );
    }
    let holders = evidence.identifiers();
    for (identifier, accounts) in &holders {
        let calls = identifier::calls(&evidence, identifier, accounts);
        let answer = search(&IdentifierModel, &calls, steps);
        record(&mut verdict, &format!("identifier {identifier}"), answer);
    }
    verdict
}

fn record(verdict: &mut Verdict, what: &str, answer: Answer) {
    verdict.checked += 1;
    match answer {
        Answer::Linearizable => {}
        Answer::Undecided => verdict.undecided += 1,
        Answer::Not { state, stuck, last } => {
            let message = format!(
                "{what} is not linearizable: no order gives every answer. The longest attempt ends in {state}, \
                 where none of the calls {stuck:?} fits; the last that did were {last:?}"
            );
            verdict.violation(JUDGE, message, last.into_iter().chain(stuck));
        }
    }
}

/// Gives equal descriptions equal numbers.
#[derive(Default)]
struct Classes(HashMap<String, u32>);

impl Classes {
    fn of(&mut self, description: String) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(description).or_insert(next)
    }
}

fn timed<C>(request: &Request<'_>, class: Option<u32>, call: C) -> Timed<C> {
    Timed {
        id: request.calls[0].id,
        invoked: request.invoked,
        returned: (request.fate != Fate::Unknown).then_some(request.settled),
        class,
        call,
    }
}

fn seen<C>(sight: &Sight<'_>, call: C) -> Timed<C> {
    Timed {
        id: sight.by.id,
        invoked: sight.by.invoked,
        returned: Some(sight.returned()),
        class: None,
        call,
    }
}

/// A purge: at any time after a deletion was asked for and the account was last seen, and certainly before it was seen
/// to be purged. The call is made from whether it is certain.
fn purge<C>(evidence: &Evidence<'_>, track: &Track<'_>, call: impl Fn(bool) -> C) -> Option<Timed<C>> {
    let requests = track.requests.iter().map(|at| &evidence.requests[*at]);
    let deletes = requests.filter(|request| {
        let deletes = matches!(request.input, Input::Delete { .. });
        deletes && matches!(request.fate, Fate::Done { .. } | Fate::Unknown)
    });
    let first = deletes.min_by_key(|request| request.invoked)?;
    let certain = track.purged_since < NEVER;
    Some(Timed {
        id: first.calls[0].id,
        invoked: first.invoked.max(track.until(NEVER)),
        returned: certain.then_some(track.purged_since),
        class: None,
        call: call(certain),
    })
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::{Outcome, Output, Reason};
    use crate::judges::miniature::random_run;
    use crate::judges::testing::*;

    fn rejects(history: &History) -> bool {
        let verdict = judge(history, STEPS);
        assert_eq!(verdict.undecided, 0);
        !verdict.violations.is_empty()
    }

    #[test]
    fn a_stale_read_is_rejected_and_one_that_overlaps_the_write_is_not() {
        let history = |read: (u64, u64), revision, fingerprint| {
            let mut history = History::default();
            history.ok((0, 10), create("a", "f1", &[]), made(view("a", 1, "f1", &[])));
            history.ok((20, 30), update("a", "f2"), made(view("a", 2, "f2", &[])));
            history.ok(
                read,
                get("a"),
                Output::Account(view("a", revision, fingerprint, &[])),
            );
            history
        };
        assert!(rejects(&history((31, 40), 1, "f1")));
        assert!(!rejects(&history((29, 40), 1, "f1")));
        assert!(!rejects(&history((31, 40), 2, "f2")));
        // From the future, and from nowhere.
        assert!(rejects(&history((12, 15), 2, "f2")));
        assert!(rejects(&history((31, 40), 2, "f3")));
    }

    #[test]
    fn a_lost_update_is_rejected() {
        let mut history = History::default();
        history.ok((0, 10), create("a", "f1", &[]), made(view("a", 1, "f1", &[])));
        history.ok((20, 40), update("a", "f2"), made(view("a", 2, "f2", &[])));
        let mut concurrent = history.clone();
        concurrent.ok((20, 40), update("a", "f3"), made(view("a", 3, "f3", &[])));
        assert!(!rejects(&concurrent));
        // Both believe that they made revision 2.
        history.ok((20, 40), update("a", "f3"), made(view("a", 2, "f3", &[])));
        assert!(rejects(&history));
    }

    #[test]
    fn a_call_of_unknown_outcome_may_take_effect_late_or_never_but_not_twice() {
        let history = |revisions: &[(u64, &str)]| {
            let mut history = History::default();
            history.ok((0, 10), create("a", "f1", &[]), made(view("a", 1, "f1", &[])));
            history.unknown((20, 30), update("a", "f2"));
            for (at, (revision, fingerprint)) in revisions.iter().enumerate() {
                let times = (40 + 10 * at as u64, 45 + 10 * at as u64);
                history.ok(
                    times,
                    get("a"),
                    Output::Account(view("a", *revision, fingerprint, &[])),
                );
            }
            history
        };
        assert!(!rejects(&history(&[(1, "f1"), (1, "f1")])));
        assert!(!rejects(&history(&[(1, "f1"), (2, "f2")])));
        assert!(rejects(&history(&[(2, "f2"), (1, "f1")])));
        assert!(rejects(&history(&[(2, "f2"), (3, "f2")])));
    }

    #[test]
    fn an_effect_after_a_no_is_rejected() {
        let mut history = History::default();
        history.ok((0, 10), create("a", "f1", &[]), made(view("a", 1, "f1", &[])));
        let etag = Reason::EtagMismatch { current: Some(1) };
        let stale = Input::Update {
            account: "a".into(),
            if_etag: Some(7),
            fingerprint: "f2".into(),
        };
        history.no((20, 30), stale, etag);
        assert!(!rejects(&history));
        history.ok((40, 50), get("a"), Output::Account(view("a", 2, "f2", &[])));
        assert!(rejects(&history));
    }

    #[test]
    fn an_identifier_has_one_owner_and_is_refused_only_while_it_is_not_free() {
        let mut history = History::default();
        history.ok(
            (0, 10),
            create("a", "f1", &["x"]),
            made(view("a", 1, "f1", &["x"])),
        );
        let taken = Reason::IdentifierUnavailable {
            identifier: Some("x".into()),
        };
        let mut early = history.clone();
        history.no((20, 30), create("b", "f2", &["x"]), taken.clone());
        history.ok((40, 50), change("a", &[], &["x"]), made(view("a", 2, "f1", &[])));
        history.ok((60, 70), lookup("x"), Output::NotFound);
        history.ok(
            (80, 90),
            create("c", "f3", &["x"]),
            made(view("c", 1, "f3", &["x"])),
        );
        assert!(!rejects(&history));
        let mut missed = history.clone();
        missed.ok((100, 110), lookup("x"), Output::NotFound);
        assert!(rejects(&missed));
        // A second owner while the first holds it.
        early.ok(
            (20, 30),
            create("b", "f2", &["x"]),
            made(view("b", 1, "f2", &["x"])),
        );
        assert!(rejects(&early));
        // Refused for an identifier that nobody ever had.
        let mut never = History::default();
        never.no((0, 10), create("b", "f2", &["x"]), taken);
        assert!(rejects(&never));
    }

    #[test]
    fn a_hot_account_with_many_unknown_calls_is_decided() {
        let mut history = History::default();
        history.ok((0, 10), create("a", "f", &[]), made(view("a", 1, "f", &[])));
        let mut revision = 1;
        for round in 1..=200_u64 {
            let at = round * 100;
            // Two are lost in each round; the second took effect without being seen.
            history.unknown((at, at + 10), update("a", &format!("lost{round}")));
            history.unknown((at, at + 10), change("a", &[&format!("i{round}")], &[]));
            revision += 2;
            let identifiers: Vec<String> = (1..=round).map(|round| format!("i{round}")).collect();
            let mut identifiers: Vec<&str> = identifiers.iter().map(String::as_str).collect();
            identifiers.sort_unstable();
            let now = view("a", revision, &format!("f{round}"), &identifiers);
            history.ok(
                (at + 20, at + 30),
                update("a", &format!("f{round}")),
                made(now.clone()),
            );
            history.ok((at + 40, at + 50), get("a"), Output::Account(now));
        }
        assert!(!rejects(&history));
        // One revision too many, which the lost ones cannot explain.
        let mut last = history.operations.last().expect("there are many").clone();
        last.id += 1;
        (last.invoked, last.returned) = (900_000, Some(900_010));
        if let Outcome::Ok {
            output: Output::Account(view),
            ..
        } = &mut last.outcome
        {
            view.fingerprint = "f17".into();
            view.revision += 1;
        }
        history.operations.push(last);
        assert!(rejects(&history));
    }

    #[test]
    fn what_takes_too_long_is_undecided_and_not_passed() {
        let mut history = History::default();
        history.ok((0, 10), create("a", "f1", &[]), made(view("a", 1, "f1", &[])));
        history.ok((20, 30), get("a"), Output::Account(view("a", 1, "f1", &[])));
        let verdict = judge(&history, 2);
        assert_eq!((verdict.undecided, verdict.violations.len()), (1, 0));
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn runs_of_a_correct_service_pass(seed: u64, calls in 1_usize..120) {
            let run = random_run(seed, calls);
            let verdict = judge(&run.history, STEPS);
            prop_assert_eq!(verdict.undecided, 0);
            prop_assert!(verdict.violations.is_empty(), "{:#?}\n{}", verdict.violations, run.history.to_lines()?);
        }
    }
}
