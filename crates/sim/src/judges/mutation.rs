//! The judges are judged: the miniature service with each of its bugs, and who must notice.

use super::all;
use super::miniature::{Bug, RULES, Run, run_with};

/// Runs a bug may take to be noticed by each of its judges.
const RUNS: u64 = 60;
/// Calls of a run.
const CALLS: usize = 100;

/// The names of all judges that find something in a run.
fn found_by(run: &Run) -> Vec<String> {
    let verdict = all(&run.history, std::slice::from_ref(&run.end), &RULES);
    let violations = verdict.violations.into_iter();
    let mut names: Vec<String> = violations.map(|violation| violation.judge).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn each_bug_is_found_by_the_judges_of_what_it_breaks() {
    let table: &[(Bug, &[&str])] = &[
        (
            Bug::StaleRead,
            &["linearizability", "order", "serializability", "durability"],
        ),
        (Bug::BoundIgnored, &["freshness"]),
        (Bug::TokenIgnored, &["freshness"]),
        (
            Bug::TornAnswer,
            &["linearizability", "order", "serializability", "uniqueness"],
        ),
        (
            Bug::LostWrite,
            &["linearizability", "order", "exactly_once", "durability"],
        ),
        (Bug::DoubleEffect, &["linearizability", "exactly_once"]),
        (Bug::RefusalForgotten, &["exactly_once"]),
        (Bug::NoButDone, &["linearizability", "exactly_once"]),
        (Bug::EtagIgnored, &["linearizability", "order"]),
        (Bug::IdentifierShared, &["linearizability", "order", "uniqueness"]),
        (Bug::QuarantineSkipped, &["uniqueness"]),
        (Bug::ClaimKept, &["linearizability", "uniqueness"]),
        (Bug::TokenAhead, &["order"]),
        (Bug::EndForgotten, &["durability"]),
    ];
    for (bug, judges) in table {
        let mut missing: Vec<&str> = judges.to_vec();
        for seed in 0..RUNS {
            let found = found_by(&run_with(Some(*bug), seed, CALLS));
            missing.retain(|judge| !found.iter().any(|name| name == judge));
            if missing.is_empty() {
                break;
            }
        }
        assert!(
            missing.is_empty(),
            "{bug:?} was not found by {missing:?} in {RUNS} runs"
        );
    }
}

#[test]
fn the_correct_service_is_not_accused() {
    for seed in 0..RUNS {
        let found = found_by(&run_with(None, seed, CALLS));
        assert!(found.is_empty(), "seed {seed}: {found:?}");
    }
}
