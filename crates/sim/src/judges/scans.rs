//! Scans: who is there all the time is seen exactly once, however many pages it takes and whatever others do.
//!
//! *Property.* Over the pages of one scan, no account is seen twice; and if the scan came to its end, every account
//! that was certainly there before its first page began, and was never deleted, was seen.
//!
//! *Algorithm.* Pages are put together by the number of their scan. Of a page that was asked for again after a
//! failure the one that was answered counts.
//!
//! *What it cannot see.* Accounts that were created or deleted during the scan may or may not be there.

use std::collections::BTreeMap;

use super::Verdict;
use super::evidence::Evidence;
use crate::history::{Consistency, History, Input, Operation, Outcome, Output};

const JUDGE: &str = "scans";

/// Judges every scan.
pub fn judge(history: &History) -> Verdict {
    let evidence = Evidence::of(history);
    let mut scans: BTreeMap<u64, BTreeMap<u32, &Operation>> = BTreeMap::new();
    for operation in &history.operations {
        if let (Input::List { scan, page, .. }, Outcome::Ok { .. }) = (&operation.input, &operation.outcome) {
            scans.entry(*scan).or_default().insert(*page, operation);
        }
    }
    let mut verdict = Verdict::default();
    for pages in scans.values() {
        verdict.checked += 1;
        scan(pages, &evidence, &mut verdict);
    }
    verdict
}

fn scan(pages: &BTreeMap<u32, &Operation>, evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let mut complete = false;
    for operation in pages.values() {
        let Outcome::Ok {
            output: Output::Page { accounts, last },
            ..
        } = &operation.outcome
        else {
            continue;
        };
        complete |= *last;
        for view in accounts {
            if let Some(before) = seen.insert(&view.account, operation.id) {
                let message = format!("a scan has seen account {} twice", view.account);
                verdict.violation(JUDGE, message, [before, operation.id]);
            }
        }
    }
    let Some(first) = pages
        .get(&0)
        .filter(|_| complete && pages.len() as u64 == span(pages))
    else {
        return;
    };
    // Old pages may show as much less as they may be old.
    let oldest = pages.values().map(|page| match page.input.consistency() {
        Some(Consistency::Stale { max_ms: Some(max_ms) }) => first.invoked.saturating_sub(max_ms * 1_000_000),
        Some(Consistency::Linearizable) => first.invoked,
        _ => 0,
    });
    let oldest = oldest.min().unwrap_or(0);
    for (account, track) in &evidence.tracks {
        let there = track.since(1).filter(|(since, _)| *since < oldest);
        if let Some((_, by)) = there
            && !seen.contains_key(account)
            && !track.may_be_purged(&evidence.requests)
        {
            let message =
                format!("a complete scan has not seen account {account}, which was there all the time");
            verdict.violation(JUDGE, message, [by, first.id]);
        }
    }
}

/// How many pages there are up to the last one answered.
fn span(pages: &BTreeMap<u32, &Operation>) -> u64 {
    pages.keys().next_back().map_or(0, |last| u64::from(*last) + 1)
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use super::*;
    use crate::judges::testing::*;

    #[test]
    fn an_account_seen_twice_or_missed_is_rejected() {
        let judged = |pages: &[&[&str]]| {
            let mut history = History::default();
            for (at, account) in ["a", "b", "c"].into_iter().enumerate() {
                let from = 10 * at as u64;
                history.ok(
                    (from, from + 5),
                    create(account, account, &[]),
                    made(view(account, 1, account, &[])),
                );
            }
            history.ok((100, 110), delete("c"), made(view("c", 2, "c", &[])));
            history.ok((150, 400), create("d", "d", &[]), made(view("d", 1, "d", &[])));
            for (page, accounts) in pages.iter().enumerate() {
                let from = 200 + 10 * page as u64;
                let list = Input::List {
                    scan: 1,
                    page: page as u32,
                    consistency: Consistency::Linearizable,
                };
                let output = Output::Page {
                    accounts: accounts
                        .iter()
                        .map(|account| view(account, 1, account, &[]))
                        .collect(),
                    last: page + 1 == pages.len(),
                };
                history.ok((from, from + 5), list, output);
            }
            judge(&history).violations.len()
        };
        assert_eq!(judged(&[&["a"], &["b"]]), 0);
        assert_eq!(judged(&[&["b", "c"], &["d", "a"]]), 0);
        assert_eq!(judged(&[&["a"], &["a", "b"]]), 1);
        assert_eq!(judged(&[&["a"], &[]]), 1);
    }
}
