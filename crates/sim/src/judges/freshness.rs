//! Reads that may be old are not older than they may be, and never from the future.
//!
//! *Property.* A stale read with a bound shows a state that was current at some moment later than *invocation
//! minus bound*; a read with a token shows at least what the answer with that token showed, and every change that
//! was acknowledged at or below the token's position; every read, however old, shows a state that once was.
//!
//! *Algorithm.* From all answers follows since when an account had certainly left a revision
//! (`Track::since`). A read that still shows it longer after that than the bound allows is too old.
//!
//! *What it cannot see.* Staleness that no other answer proves. Without a token, a session may go back in time by
//! reading elsewhere: that is what *stale* means, and it is no violation.

use super::Verdict;
use super::evidence::{Evidence, Fate, NEVER, Seen, Sight, Track};
use crate::history::{Consistency, History, Outcome};

const JUDGE: &str = "freshness";

const NANOS: u64 = 1_000_000;

/// Judges every answer to a read that may be old.
pub fn judge(history: &History) -> Verdict {
    let evidence = Evidence::of(history);
    let mut verdict = Verdict::default();
    for (account, track) in &evidence.tracks {
        for sight in &track.sights {
            not_from_the_future(sight, track, &evidence, &mut verdict);
            match sight.by.input.consistency() {
                Some(Consistency::Stale { max_ms: Some(max_ms) }) => {
                    let oldest = sight.by.invoked.saturating_sub(max_ms.saturating_mul(NANOS));
                    not_older(sight, track, oldest, &mut verdict);
                }
                Some(Consistency::AtLeast { operation, position }) => {
                    reaches(
                        account,
                        sight,
                        track,
                        &evidence,
                        (operation, position),
                        &mut verdict,
                    );
                }
                _ => {}
            }
        }
    }
    tokens_grow(history, &mut verdict);
    verdict
}

/// The state that was seen had begun before the read ended.
fn not_from_the_future(sight: &Sight<'_>, track: &Track<'_>, evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let Seen::View(view) = sight.seen else {
        return;
    };
    verdict.checked += 1;
    if let Some(maker) = track.makers.get(&view.revision).map(|at| &evidence.requests[*at])
        && maker.invoked > sight.returned()
    {
        let message = format!(
            "account {} was seen at revision {} before the request that made it was sent",
            view.account, view.revision
        );
        verdict.violation(JUDGE, message, [sight.by.id, maker.calls[0].id]);
    }
}

/// What was seen had not certainly been replaced at this moment.
fn not_older(sight: &Sight<'_>, track: &Track<'_>, oldest: u64, verdict: &mut Verdict) {
    verdict.checked += 1;
    let replaced = match sight.seen {
        Seen::View(view) => track.since(view.revision + 1),
        Seen::NotFound => track.since(1),
        // Purged is for ever. Gone may be that.
        Seen::Purged => None,
        Seen::Gone if track.purged_since < NEVER => None,
        Seen::Gone => track.since(1),
    };
    let purged = matches!(sight.seen, Seen::View(_)) && track.purged_since < oldest;
    let since = replaced.filter(|(since, _)| *since < oldest);
    if since.is_some() || purged {
        let message = format!(
            "{:?} was read with the bound of {:?}, but something newer had been acknowledged {} ms before",
            sight.seen,
            sight.by.input.consistency(),
            sight
                .by
                .invoked
                .saturating_sub(since.map_or(track.purged_since, |(since, _)| since))
                / NANOS
        );
        verdict.violation(
            JUDGE,
            message,
            since.map(|(_, by)| by).into_iter().chain([sight.by.id]),
        );
    }
}

/// A read with a token shows what the token covers.
fn reaches(
    account: &str,
    sight: &Sight<'_>,
    track: &Track<'_>,
    evidence: &Evidence<'_>,
    (token_of, position): (u64, u64),
    verdict: &mut Verdict,
) {
    verdict.checked += 1;
    let shown = match sight.seen {
        Seen::View(view) => view.revision,
        Seen::NotFound => 0,
        Seen::Purged => return,
        Seen::Gone if track.may_be_purged(&evidence.requests) => return,
        Seen::Gone => 0,
    };
    let in_answer = track
        .sights
        .iter()
        .filter(|other| other.by.id == token_of)
        .map(|other| (other.seen.revision_least(), token_of));
    let acknowledged = track.requests.iter().filter_map(|at| {
        let request = &evidence.requests[*at];
        match request.fate {
            Fate::Done {
                revision,
                position: Some(at),
                ..
            } if at <= position => Some((revision, request.calls[0].id)),
            _ => None,
        }
    });
    let least = in_answer.chain(acknowledged).max();
    if let Some((least, by)) = least
        && shown < least
    {
        let message = format!(
            "account {account} was read with the token of operation {token_of} at revision {shown}, and the token \
             covers revision {least}"
        );
        verdict.violation(JUDGE, message, [by, sight.by.id]);
    }
}

/// The token of an answer is not below the one that was asked for.
fn tokens_grow(history: &History, verdict: &mut Verdict) {
    for operation in &history.operations {
        let (
            Some(Consistency::AtLeast { position: asked, .. }),
            Outcome::Ok {
                position: Some(got), ..
            },
        ) = (operation.input.consistency(), &operation.outcome)
        else {
            continue;
        };
        verdict.checked += 1;
        if *got < asked {
            let message =
                format!("a read that was to reach position {asked} has answered from position {got}");
            verdict.violation(JUDGE, message, [operation.id]);
        }
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::Output;
    use crate::judges::miniature::random_run;
    use crate::judges::testing::*;

    const MS: u64 = NANOS;

    fn rejects(history: &History) -> bool {
        !judge(history).violations.is_empty()
    }

    fn begun() -> History {
        let mut history = History::default();
        history.ok_at((0, MS), 5, create("a", "f1", &[]), made(view("a", 1, "f1", &[])));
        history.ok_at(
            (2 * MS, 3 * MS),
            7,
            update("a", "f2"),
            made(view("a", 2, "f2", &[])),
        );
        history
    }

    #[test]
    fn a_read_older_than_its_bound_is_rejected() {
        let read = |max_ms, output| {
            let mut history = begun();
            history.ok(
                (100 * MS, 101 * MS),
                get_with("a", Consistency::Stale { max_ms }),
                output,
            );
            rejects(&history)
        };
        let old = || Output::Account(view("a", 1, "f1", &[]));
        assert!(read(Some(96), old()));
        assert!(!read(Some(97), old()));
        assert!(!read(None, old()));
        assert!(!read(Some(0), Output::Account(view("a", 2, "f2", &[]))));
        assert!(read(Some(50), Output::NotFound));
        assert!(!read(Some(100), Output::NotFound));
    }

    #[test]
    fn a_read_from_the_future_is_rejected() {
        let mut history = begun();
        let any = Consistency::Stale { max_ms: None };
        history.ok(
            (MS, 2 * MS - 1),
            get_with("a", any),
            Output::Account(view("a", 2, "f2", &[])),
        );
        assert!(rejects(&history));
    }

    #[test]
    fn a_read_reaches_its_token() {
        let read = |operation, position, got, revision, fingerprint| {
            let mut history = begun();
            let consistency = Consistency::AtLeast { operation, position };
            let output = Output::Account(view("a", revision, fingerprint, &[]));
            history.ok_at((10 * MS, 11 * MS), got, get_with("a", consistency), output);
            rejects(&history)
        };
        assert!(!read(1, 5, 5, 1, "f1"));
        assert!(!read(1, 5, 9, 2, "f2"));
        assert!(!read(2, 7, 7, 2, "f2"));
        assert!(read(2, 7, 7, 1, "f1"));
        // Another's change at or below the token.
        assert!(read(1, 8, 8, 1, "f1"));
        assert!(read(2, 7, 6, 2, "f2"));
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn runs_of_a_correct_service_pass(seed: u64, calls in 1_usize..120) {
            let run = random_run(seed, calls);
            let verdict = judge(&run.history);
            prop_assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
        }
    }
}
