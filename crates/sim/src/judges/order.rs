//! The order of the log: the positions that the servers gave out are one order of everything, and a sequential
//! model that runs in that order gives every answer.
//!
//! *Property.* Replayed by position, each change and each read has the answer that it got; no identifier changes hands
//! before it was given up; and positions respect real time: what began after an answer with position *p* has position *p* or
//! more, and more if it changed something.
//!
//! *Algorithm.* Changes and reads are sorted by position. A change's position is that of its own entry, unless its
//! answer was the answer to a repetition: then it lies somewhere below, and nobody can tell. So a change is replayed
//! at its position at the latest, and earlier if an answer shows it earlier; the same for changes of unknown outcome
//! and for purges, which have no position. What was replayed must not be missing in any answer from there on. Who
//! holds an identifier when is judged by the bounds that follow for each change (`owners`).
//!
//! *What it relies on.* That a node reads its position and its rows in one step: true in the simulation, where
//! nothing runs in between. *What it cannot see.* Refusals and reads that found nothing: they carry no position.
//! `linearizability` judges them. Revisions whose maker does not follow are taken as they are seen.

mod owners;

use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;
use super::evidence::{Evidence, Fate, NEVER, Seen, Sight};
use super::model::{self, Account, Present};
use crate::history::{Consistency, History, Input, Operation, Outcome};

const JUDGE: &str = "order";

/// Judges all positions at once.
pub fn judge(history: &History) -> Verdict {
    let evidence = Evidence::of(history);
    let mut verdict = Verdict::default();
    real_time(&evidence, &mut verdict);
    replay(&evidence, &mut verdict);
    owners::judge(&evidence, &mut verdict);
    verdict
}

fn position(operation: &Operation) -> Option<u64> {
    match operation.outcome {
        Outcome::Ok { position, .. } => position,
        Outcome::DefinitelyNot(_) | Outcome::Unknown => None,
    }
}

/// Positions grow with time.
fn real_time(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let operations = &evidence.history.operations;
    let mut answers: Vec<(u64, u64, u64)> = operations
        .iter()
        .filter_map(|operation| Some((operation.returned?, position(operation)?, operation.id)))
        .collect();
    answers.sort_unstable();
    // Invoked, position, by which call, whether it changed something.
    let reads = operations.iter().filter_map(|operation| {
        let linearizable = operation.input.consistency() == Some(Consistency::Linearizable);
        linearizable.then_some((operation.invoked, position(operation)?, operation.id, false))
    });
    let changes = evidence.requests.iter().filter_map(|request| match request.fate {
        // A repetition may be answered from a position before others', so only the first call counts.
        Fate::Done { position, .. } => Some((
            request.invoked,
            position?,
            request.calls[0].id,
            request.made().is_some(),
        )),
        _ => None,
    });
    let mut begun: Vec<_> = reads.chain(changes).collect();
    begun.sort_unstable();
    let mut answers = answers.into_iter().peekable();
    let mut highest = (0, 0);
    for (invoked, position, id, changed) in begun {
        while let Some((_, position, by)) = answers.next_if(|(returned, ..)| *returned < invoked) {
            highest = highest.max((position, by));
        }
        verdict.checked += 1;
        if position < highest.0 || (changed && position == highest.0) {
            let message = format!(
                "operation {id} has position {position}, but began after operation {} had been answered with {}",
                highest.1, highest.0
            );
            verdict.violation(JUDGE, message, [highest.1, id]);
        }
    }
}

/// One thing to replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step<'h> {
    /// The account reaches this revision at the latest.
    Change(&'h str, u64),
    /// The answer of the operation at this index.
    Answer(usize),
}

fn replay(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let mut steps: Vec<(u64, u64, Step<'_>)> = Vec::new();
    for (account, track) in &evidence.tracks {
        // At the latest one below the account's next change.
        let mut latest = NEVER;
        for (revision, at) in track.makers.iter().rev() {
            let told = match evidence.requests[*at].fate {
                Fate::Done { position, .. } => position,
                _ => None,
            };
            latest = told
                .unwrap_or(NEVER)
                .min(latest.saturating_sub(u64::from(latest < NEVER)));
            if latest < NEVER {
                steps.push((latest, *revision, Step::Change(account, *revision)));
            }
        }
    }
    for (at, operation) in evidence.history.operations.iter().enumerate() {
        if let Some(position) = position(operation)
            && operation.input.consistency().is_some()
        {
            // After all changes of its position.
            steps.push((position, NEVER, Step::Answer(at)));
        }
    }
    steps.sort_unstable();
    let mut sights: BTreeMap<u64, Vec<Sight<'_>>> = BTreeMap::new();
    for sight in evidence.tracks.values().flat_map(|track| &track.sights) {
        sights.entry(sight.by.id).or_default().push(*sight);
    }
    let mut world = World {
        evidence,
        accounts: BTreeMap::new(),
        hazy: BTreeSet::new(),
        sights,
        broken: BTreeSet::new(),
        verdict,
    };
    for (position, _, step) in steps {
        world.verdict.checked += 1;
        match step {
            Step::Change(account, revision) => world.advance(account, revision, position),
            Step::Answer(at) => world.answer(&evidence.history.operations[at], position),
        }
    }
}

/// Everything at one position.
struct World<'e, 'h> {
    evidence: &'e Evidence<'h>,
    accounts: BTreeMap<&'h str, Account>,
    /// Accounts at a revision that no answer shows and whose maker does not follow.
    hazy: BTreeSet<&'h str>,
    /// What each operation saw.
    sights: BTreeMap<u64, Vec<Sight<'h>>>,
    /// Accounts about which a violation was reported: what follows from that is not reported again.
    broken: BTreeSet<&'h str>,
    verdict: &'e mut Verdict,
}

impl<'h> World<'_, 'h> {
    fn account(&self, account: &str) -> Account {
        self.accounts.get(account).cloned().unwrap_or(Account::Absent)
    }

    fn report(&mut self, account: &'h str, message: String, by: impl IntoIterator<Item = u64>) {
        if self.broken.insert(account) {
            self.verdict.violation(JUDGE, message, by);
        }
    }

    /// Replays an account's changes up to a revision, unless they have been.
    fn advance(&mut self, account: &'h str, revision: u64, position: u64) {
        // An answer showed its purge already, so this was answered late.
        let Some(now) = self.account(account).revision() else {
            return;
        };
        for next in now + 1..=revision {
            self.change(account, next, position);
        }
    }

    fn maker(&self, account: &str, revision: u64) -> Vec<u64> {
        let at = self
            .evidence
            .tracks
            .get(account)
            .and_then(|track| track.makers.get(&revision));
        at.map(|at| self.evidence.requests[*at].ids().collect())
            .unwrap_or_default()
    }

    /// Replays the change that makes the next revision.
    fn change(&mut self, account: &'h str, revision: u64, position: u64) {
        let Some(track) = self.evidence.tracks.get(account) else {
            return;
        };
        let before = self.account(account);
        let known = track.states.get(&revision).cloned().map(Account::Present);
        let hazy = self.hazy.remove(account);
        let after = match track.makers.get(&revision) {
            Some(at) if !hazy => {
                let request = &self.evidence.requests[*at];
                let after = model::after(&before, request.input, &request.fate);
                if after.is_none() {
                    let message = format!(
                        "at position {position} account {account} is {before:?}, in which {:?} cannot come to {:?}",
                        request.input, request.fate
                    );
                    self.report(account, message, request.ids());
                }
                after
            }
            _ => None,
        };
        let after = after.or(known).unwrap_or_else(|| {
            self.hazy.insert(account);
            match before {
                Account::Present(mut present) => {
                    present.revision = revision;
                    Account::Present(present)
                }
                other => other,
            }
        });
        self.accounts.insert(account, after);
    }

    /// Compares an answer with the world at its position.
    fn answer(&mut self, operation: &'h Operation, position: u64) {
        for sight in self.sights.get(&operation.id).cloned().unwrap_or_default() {
            self.sight(&sight, position);
        }
    }

    fn sight(&mut self, sight: &Sight<'h>, position: u64) {
        let account = sight.account;
        if let Seen::View(view) = sight.seen {
            let behind = self
                .account(account)
                .revision()
                .is_some_and(|now| now < view.revision);
            if behind {
                self.advance(account, view.revision, position);
            }
        }
        if let Seen::View(view) = sight.seen
            && self.account(account).revision() == Some(view.revision)
            && self.hazy.remove(account)
            && let Some(present) = Present::of(view)
        {
            self.accounts.insert(account, Account::Present(present));
        }
        let now = self.account(account);
        let pending = matches!(&now, Account::Present(present) if present.pending);
        if matches!(sight.seen, Seen::Gone | Seen::Purged) && !now.shows(&sight.seen) {
            let deletes = |at: &usize| {
                let request = &self.evidence.requests[*at];
                matches!(request.input, Input::Delete { .. })
                    && matches!(request.fate, Fate::Unknown | Fate::Done { .. })
                    && request.invoked < sight.returned()
            };
            let requests = self.evidence.tracks.get(account).map(|track| &track.requests);
            if pending || requests.is_some_and(|requests| requests.iter().any(deletes)) {
                self.accounts.insert(account, Account::Purged);
                return;
            }
        }
        if !now.shows(&sight.seen) {
            let by = now
                .revision()
                .map(|revision| self.maker(account, revision))
                .unwrap_or_default();
            let message = format!(
                "at position {position} account {account} is {now:?}, and an answer from there shows {:?}",
                sight.seen
            );
            self.report(account, message, by.into_iter().chain([sight.by.id]));
        }
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::{Consistency, Output};
    use crate::judges::miniature::random_run;
    use crate::judges::testing::*;

    fn rejects(history: &History) -> bool {
        !judge(history).violations.is_empty()
    }

    fn begun() -> History {
        let mut history = History::default();
        history.ok_at(
            (0, 10),
            5,
            create("a", "f1", &["x"]),
            made(view("a", 1, "f1", &["x"])),
        );
        history.ok_at((20, 30), 7, update("a", "f2"), made(view("a", 2, "f2", &["x"])));
        history
    }

    #[test]
    fn an_answer_must_fit_its_position() {
        let any = Consistency::Stale { max_ms: None };
        let read = |position, revision, fingerprint| {
            let mut history = begun();
            let output = Output::Account(view("a", revision, fingerprint, &["x"]));
            history.ok_at((40, 50), position, get_with("a", any), output);
            rejects(&history)
        };
        assert!(!read(5, 1, "f1"));
        assert!(!read(6, 1, "f1"));
        assert!(!read(7, 2, "f2"));
        assert!(!read(9, 2, "f2"));
        assert!(read(7, 1, "f1"));
        assert!(read(9, 1, "f1"));
        assert!(read(9, 2, "f1"));
    }

    #[test]
    fn positions_follow_real_time() {
        let read = |position| {
            let mut history = begun();
            let output = Output::Account(view("a", 2, "f2", &["x"]));
            history.ok_at((40, 50), position, get("a"), output);
            rejects(&history)
        };
        assert!(!read(7));
        assert!(read(6));
        let write = |position| {
            let mut history = begun();
            history.ok_at(
                (40, 50),
                position,
                create("b", "f3", &[]),
                made(view("b", 1, "f3", &[])),
            );
            rejects(&history)
        };
        assert!(!write(8));
        assert!(write(7));
    }

    #[test]
    fn the_answer_to_a_repetition_may_come_from_a_later_position() {
        let mut history = begun();
        // Its entry was at 8, and the answer to the first call was lost.
        history.unknown((40, 50), update("a", "f3"));
        history.ok_at((40, 50), 8, get("a"), Output::Account(view("a", 3, "f3", &["x"])));
        let mut again = history.operations[2].clone();
        again.id = 9;
        (again.invoked, again.returned) = (60, Some(70));
        again.outcome = Outcome::Ok {
            output: made(view("a", 3, "f3", &["x"])),
            position: Some(12),
        };
        history.operations.push(again);
        assert!(!rejects(&history));
        // Seen at 8, and at 9 no more.
        let any = Consistency::Stale { max_ms: None };
        history.ok_at(
            (60, 70),
            9,
            get_with("a", any),
            Output::Account(view("a", 2, "f2", &["x"])),
        );
        assert!(rejects(&history));
    }

    #[test]
    fn two_owners_in_the_order_of_the_log_are_rejected() {
        let mut history = begun();
        let mut moved = history.clone();
        history.ok_at(
            (40, 90),
            9,
            create("b", "f3", &["x"]),
            made(view("b", 1, "f3", &["x"])),
        );
        assert!(rejects(&history));
        moved.ok_at(
            (40, 90),
            8,
            change("a", &[], &["x"]),
            made(view("a", 3, "f2", &[])),
        );
        moved.ok_at(
            (40, 90),
            9,
            create("b", "f3", &["x"]),
            made(view("b", 1, "f3", &["x"])),
        );
        assert!(!rejects(&moved));
    }

    proptest! {
        #![proptest_config(cases(256))]
        #[test]
        fn runs_of_a_correct_service_pass(seed: u64, calls in 1_usize..120) {
            let run = random_run(seed, calls);
            let verdict = judge(&run.history);
            prop_assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
        }

        #[test]
        fn an_old_state_at_a_new_position_is_found(seed: u64) {
            let mut run = random_run(seed, 80);
            // The last read of an account that changed shows it as it was created.
            let evidence = Evidence::of(&run.history);
            let changed = evidence.tracks.iter().find_map(|(account, track)| {
                let first = track.views.get(&1).map(|(view, _)| (*view).clone())?;
                let last = track.sights.iter().rev().find(|sight| sight.is_linearizable())?;
                let (since, by) = track.since(2)?;
                let proof = run.history.operations.iter().find(|operation| operation.id == by)?;
                let known = since < last.by.invoked && position(proof).is_some();
                let shown = known && matches!(last.seen, Seen::View(_));
                let get = matches!(last.by.input, Input::Get { .. });
                (shown && get).then_some((account.to_string(), last.by.id, first))
            });
            if let Some((_, id, first)) = changed {
                let operation = run.history.operations.iter_mut().find(|operation| operation.id == id);
                if let Some(Operation { outcome: Outcome::Ok { output, .. }, .. }) = operation {
                    *output = Output::Account(first);
                }
                prop_assert!(rejects(&run.history));
            }
        }
    }
}
