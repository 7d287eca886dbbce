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

use std::collections::{BTreeSet, HashMap};

use super::Verdict;
use super::evidence::{Evidence, Fate, Request, Seen, Sight, Track};
use super::model::{self, Account};
use super::search::{Answer, Model, Timed, search};
use crate::history::{AccountView, Consistency, History, ImportAction, Input, Outcome, Output, Reason};

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
        let calls = account_calls(&evidence, track);
        let model = AccountModel::new(&evidence, track);
        record(
            &mut verdict,
            &format!("account {account}"),
            search(&model, &calls, steps),
        );
    }
    let holders = evidence.identifiers();
    for (identifier, accounts) in &holders {
        let calls = identifier_calls(&evidence, identifier, accounts);
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

/// A call about one account.
#[derive(Debug, Clone)]
pub(crate) enum AccountCall<'h> {
    Mutation(&'h Input, Fate<'h>),
    /// A mutation that was turned away without being recorded.
    TurnedAway(&'h Input, &'h Reason),
    Sees(Seen<'h>),
    /// What the service does by itself when a grace period is over.
    Purge,
}

/// One account, with what all answers together say about its revisions.
pub(crate) struct AccountModel<'h> {
    /// Revisions that some request was told it made.
    claimed: BTreeSet<u64>,
    views: HashMap<u64, &'h AccountView>,
    /// Fingerprints that some answer shows.
    shown: BTreeSet<&'h str>,
}

/// Stands for every fingerprint that no answer shows: it does not matter which one it was.
const NEVER_SHOWN: &str = "(never shown)";

impl<'h> AccountModel<'h> {
    pub(crate) fn new(evidence: &Evidence<'h>, track: &Track<'h>) -> Self {
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
                NEVER_SHOWN.clone_into(&mut present.fingerprint);
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
pub(crate) fn account_calls<'h>(evidence: &Evidence<'h>, track: &Track<'h>) -> Vec<Timed<AccountCall<'h>>> {
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
                        NEVER_SHOWN.clone_into(fingerprint);
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
    calls.extend(purge(evidence, track, AccountCall::Purge));
    calls
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

/// A purge that may happen at any time after a deletion was asked for.
fn purge<C>(evidence: &Evidence<'_>, track: &Track<'_>, call: C) -> Option<Timed<C>> {
    let requests = track.requests.iter().map(|at| &evidence.requests[*at]);
    let deletes = requests.filter(|request| {
        let deletes = matches!(request.input, Input::Delete { .. });
        deletes && matches!(request.fate, Fate::Done { .. } | Fate::Unknown)
    });
    let first = deletes.min_by_key(|request| request.invoked)?;
    Some(Timed {
        id: first.calls[0].id,
        invoked: first.invoked,
        returned: None,
        class: None,
        call,
    })
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

/// A call about one identifier. Accounts are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum IdentifierCall {
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
enum Owner {
    Nobody,
    Held(usize),
    Left(usize),
}

struct IdentifierModel;

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
fn identifier_calls(
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
            // The first revision of the account is another request's.
            let too_late = matches!(request.input, Input::Create { .. })
                && track.makers.get(&1).is_some_and(|maker| maker != at);
            if request.fate == Fate::Unknown && too_late {
                continue;
            }
            if let Some((call, sure)) = identifier_call(request, identifier, number) {
                let class = (!sure).then(|| classes.of(format!("{call:?}")));
                let mut timed = timed(request, class, call);
                timed.returned = timed.returned.filter(|_| sure);
                calls.push(timed);
            }
        }
        for sight in track.sights.iter().filter(|sight| sight.is_linearizable()) {
            let call = match sight.seen {
                Seen::View(view) if lists(view, identifier) => IdentifierCall::Held(number),
                Seen::View(_) | Seen::NotFound | Seen::Purged | Seen::Gone => IdentifierCall::NotHeld(number),
            };
            calls.push(seen(sight, call));
        }
        let mut purge = purge(evidence, track, IdentifierCall::Leave(number));
        if let Some(purge) = &mut purge {
            purge.class = Some(classes.of("purge".to_owned() + &number.to_string()));
        }
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

/// What a request means for an identifier, and whether that is sure.
fn identifier_call(
    request: &Request<'_>,
    identifier: &str,
    account: usize,
) -> Option<(IdentifierCall, bool)> {
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

#[cfg(all(test, not(madsim)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
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
