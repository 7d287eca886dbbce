//! Reads of accounts, by id and by identifier, as fresh as can be or not.

use std::time::Duration;

use super::call::{Freshness, Via};
use super::request::Typed;
use super::worker::{Worker, found};
use crate::history::Outcome;

impl Worker {
    /// Reads an account, linearizably.
    pub(super) async fn get(&mut self) -> bool {
        let account = self.account().await;
        let via = self.via();
        found(&self.caller.get(&account, &Freshness::linearizable(), &via).await)
    }

    /// One quick look at an account, at any node.
    pub(super) async fn look(&mut self) {
        let account = self.any_account();
        let via = self.somewhere();
        let usual = self.caller.deadline;
        self.caller.deadline = Duration::from_millis(self.dice.between(100, 400)).min(usual);
        let fresh = match self.dice.below(5) {
            0 => Freshness::stale(None),
            _ => Freshness::linearizable(),
        };
        self.caller.get(&account, &fresh, &via).await;
        self.caller.deadline = usual;
    }

    /// Reads several accounts in one view.
    pub(super) async fn batch_get(&mut self) -> bool {
        let via = self.via();
        let outcome = self.batch(&Freshness::linearizable(), &via).await;
        found(&outcome)
    }

    /// Finds the account that has an identifier.
    pub(super) async fn lookup(&mut self) -> bool {
        let identifier = self.an_identifier();
        let via = self.via();
        found(
            &self
                .caller
                .lookup(&identifier, &Freshness::linearizable(), &via)
                .await,
        )
    }

    /// Reads what a node has, if it is not too old.
    pub(super) async fn get_stale(&mut self) -> bool {
        let bound = match self.dice.below(4) {
            0 => None,
            1 => Some(0),
            2 => Some(self.dice.between(1, 500)),
            _ => Some(self.dice.between(500, 5_000)),
        };
        let via = self.somewhere();
        let outcome = self.some_read(None, &Freshness::stale(bound), &via).await;
        found(&outcome)
    }

    /// Carries a token to another node and reads there.
    pub(super) async fn get_with_token(&mut self) -> bool {
        let Some(token) = self.token() else {
            // Nobody has one yet: the answer to this read brings one.
            return self.get().await;
        };
        let via = self.somewhere();
        let fresh = Freshness::at_least(&token);
        let account = token.account.filter(|_| self.dice.percent(70));
        let outcome = self.some_read(account, &fresh, &via).await;
        found(&outcome)
    }

    /// A read of any kind; of this account, if one is given.
    async fn some_read(&mut self, account: Option<String>, fresh: &Freshness, via: &Via) -> Outcome {
        match (self.dice.below(5), account) {
            (_, Some(account)) => self.caller.get(&account, fresh, via).await,
            (0, None) => self.batch(fresh, via).await,
            (1, None) => {
                let identifier = self.an_identifier();
                self.caller.lookup(&identifier, fresh, via).await
            }
            _ => {
                let account = self.any_account();
                self.caller.get(&account, fresh, via).await
            }
        }
    }

    async fn batch(&mut self, fresh: &Freshness, via: &Via) -> Outcome {
        let mut accounts = Vec::new();
        for _ in 0..self.dice.between(2, 10) {
            let account = self.any_account();
            if !accounts.contains(&account) {
                accounts.push(account);
            }
        }
        self.caller.batch_get(&accounts, fresh, via).await
    }

    /// An identifier that somebody may have.
    fn an_identifier(&mut self) -> Typed {
        let account = self.any_account();
        let canonical = match self.caller.world.seen(&account) {
            Some(seen) if self.dice.percent(25) => self.dice.pick(&seen.identifiers).cloned(),
            _ => None,
        };
        let canonical = canonical.unwrap_or_else(|| self.caller.world.identifier(&mut self.dice));
        Typed::new(&canonical, &mut self.dice)
    }
}
