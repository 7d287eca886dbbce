//! Actions on one account: create, update, delete, undelete.

use std::time::Duration;

use tokio::time::sleep;

use super::call::Freshness;
use super::request::{Change, Mutation, Typed, request_id};
use super::worker::{Worker, found};
use crate::history::{Outcome, Output, State};

/// The longest grace period whose end a client waits for.
const LAST_MOMENT_MS_MAX: u64 = 2_000;

impl Worker {
    /// Creates an account with identifiers that others want too; sometimes one that exists, or existed.
    pub(super) async fn create(&mut self) -> bool {
        let share = self.workload.hot_share;
        let unseen = self.dice.percent(80);
        let account = match self.caller.world.unseen(&mut self.dice, share) {
            Some(account) if unseen => account,
            _ => self.any_account(),
        };
        let mutation = self.creation(account);
        self.send(&mutation).await
    }

    /// Updates whatever the account is.
    pub(super) async fn update(&mut self) -> bool {
        let account = self.account().await;
        let mutation = self.plain_update(account, 0);
        self.send(&mutation).await
    }

    /// Reads, then updates what was read, unless somebody was faster.
    pub(super) async fn update_checked(&mut self) -> bool {
        let account = self.account().await;
        let via = self.via();
        let seen = self.caller.get(&account, &Freshness::linearizable(), &via).await;
        let Outcome::Ok {
            output: Output::Account(seen),
            ..
        } = seen
        else {
            return false;
        };
        if self.dice.percent(30) {
            sleep(Duration::from_millis(self.dice.between(1, 100))).await;
        }
        // Now and then the etag is certainly stale.
        let revision = match self.dice.below(20) {
            0 => seen.revision.saturating_sub(1).max(1),
            _ => seen.revision,
        };
        let fingerprint = self.caller.recorder.fingerprint(self.caller.number);
        let id = request_id(&mut self.dice, 0);
        let mutation = Mutation::update(id, account, fingerprint, Some(revision));
        self.send(&mutation).await
    }

    /// Asks for a deletion; sometimes takes it back at the last moment, when the purge is due.
    pub(super) async fn delete(&mut self) -> bool {
        let account = self.account().await;
        let mutation = self.deletion(account.clone(), 0);
        let done = self.send(&mutation).await;
        let grace_ms = self.rules.deletion_grace_ms;
        if done && (1..=LAST_MOMENT_MS_MAX).contains(&grace_ms) && self.dice.percent(40) {
            let early_ms = self.dice.between(0, 80).min(grace_ms);
            sleep(Duration::from_millis(grace_ms - early_ms)).await;
            let id = request_id(&mut self.dice, 0);
            self.send(&Mutation::undelete(id, account, None)).await;
        }
        done
    }

    /// Takes a deletion back, or tries to.
    pub(super) async fn undelete(&mut self) -> bool {
        let share = self.workload.hot_share;
        let deleted = self
            .caller
            .world
            .in_state(&mut self.dice, share, State::PendingDeletion);
        let account = match deleted {
            Some(account) => account,
            // Somebody has to delete one first.
            None => {
                let account = self.account().await;
                if self.dice.percent(60) {
                    let deletion = self.deletion(account.clone(), 0);
                    self.send(&deletion).await;
                }
                account
            }
        };
        let if_etag = self.perhaps_etag(&account);
        let mutation = Mutation::undelete(request_id(&mut self.dice, 0), account, if_etag);
        self.send(&mutation).await
    }

    /// Sends a mutation by some way.
    pub(super) async fn send(&mut self, mutation: &Mutation) -> bool {
        let via = self.via();
        found(&self.caller.mutate(mutation, &via).await)
    }

    /// A mutation of any kind, its request id born this long ago.
    pub(super) async fn any_mutation(&mut self, age_ms: u64) -> Mutation {
        let account = self.account().await;
        match self.dice.below(10) {
            0..=2 => {
                let account = match self.caller.world.unseen(&mut self.dice, self.workload.hot_share) {
                    Some(unseen) => unseen,
                    None => account,
                };
                self.aged_creation(account, age_ms)
            }
            3..=6 => self.plain_update(account, age_ms),
            7..=8 => {
                let identifier = self.caller.world.identifier(&mut self.dice);
                let typed = Typed::new(&identifier, &mut self.dice);
                let id = request_id(&mut self.dice, age_ms);
                let held = self
                    .caller
                    .world
                    .seen(&account)
                    .is_some_and(|seen| seen.identifiers.contains(&identifier));
                let change = if held {
                    Change::Remove(typed)
                } else {
                    Change::Add(typed)
                };
                Mutation::change(id, account, &[change], None)
            }
            _ => self.deletion(account, age_ms),
        }
    }

    /// The creation of an account.
    pub(super) fn creation(&mut self, account: String) -> Mutation {
        self.aged_creation(account, 0)
    }

    fn aged_creation(&mut self, account: String, age_ms: u64) -> Mutation {
        let identifiers = self.identifiers_for(&account);
        let fingerprint = self.caller.recorder.fingerprint(self.caller.number);
        let id = request_id(&mut self.dice, age_ms);
        Mutation::create(id, account, fingerprint, &identifiers)
    }

    /// Identifiers for an account to be: often one that nobody else wants, sometimes some that all do.
    pub(super) fn identifiers_for(&mut self, account: &str) -> Vec<Typed> {
        let mut wanted = Vec::new();
        if self.dice.percent(60) {
            wanted.push(format!("{account}@example.org"));
        }
        let contested = match self.dice.below(10) {
            0..=3 => 0,
            4..=7 => 1,
            _ => 2,
        };
        for _ in 0..contested {
            let identifier = self.caller.world.identifier(&mut self.dice);
            if !wanted.contains(&identifier) {
                wanted.push(identifier);
            }
        }
        wanted
            .iter()
            .map(|canonical| Typed::new(canonical, &mut self.dice))
            .collect()
    }

    fn plain_update(&mut self, account: String, age_ms: u64) -> Mutation {
        let fingerprint = self.caller.recorder.fingerprint(self.caller.number);
        Mutation::update(request_id(&mut self.dice, age_ms), account, fingerprint, None)
    }

    fn deletion(&mut self, account: String, age_ms: u64) -> Mutation {
        let if_etag = self.perhaps_etag(&account);
        Mutation::delete(request_id(&mut self.dice, age_ms), account, if_etag)
    }

    /// Sometimes the revision that was last seen.
    pub(super) fn perhaps_etag(&mut self, account: &str) -> Option<u64> {
        let asked = self.dice.percent(20);
        let seen = self.caller.world.seen(account).filter(|_| asked)?;
        Some(seen.revision)
    }
}
