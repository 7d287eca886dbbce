//! Reads of all accounts: page by page while others write, and as a stream.

use super::call::Freshness;
use super::worker::{Worker, found};
use crate::history::Outcome;

/// A scan is left unfinished after this many pages.
const PAGES_MAX: u32 = 30;

impl Worker {
    /// Lists the accounts page by page, each page perhaps at another node.
    pub(super) async fn list(&mut self) -> bool {
        let fresh = self.freshness_of_scan();
        let scan = self.caller.recorder.scan();
        let accounts = u64::from(self.workload.hot_accounts + self.workload.tail_accounts);
        // From a few pages to one for all.
        let size = self.dice.between(1 + accounts / 12, 10 + accounts) as i32;
        let mut token = String::new();
        for page in 0..PAGES_MAX {
            let via = self.via();
            let (outcome, next) = self.caller.page((scan, page), (size, token), &fresh, &via).await;
            match outcome {
                Outcome::Ok { .. } if next.is_empty() => return true,
                Outcome::Ok { .. } => token = next,
                Outcome::DefinitelyNot(_) | Outcome::Unknown => return false,
            }
        }
        true
    }

    /// Reads all accounts as a stream.
    pub(super) async fn export(&mut self) -> bool {
        let fresh = self.freshness_of_scan();
        found(&self.caller.export(&fresh).await)
    }

    fn freshness_of_scan(&mut self) -> Freshness {
        match (self.dice.below(10), self.token()) {
            (0, _) => Freshness::stale(None),
            (1, _) => Freshness::stale(Some(self.dice.between(100, 3_000))),
            (2, Some(token)) => Freshness::at_least(&token),
            _ => Freshness::linearizable(),
        }
    }
}
