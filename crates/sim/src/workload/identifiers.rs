//! Actions on identifiers: added, removed, replaced, and moved from one account to another.

use super::call::Freshness;
use super::request::{Change, Mutation, Typed, request_id};
use super::worker::{Step, Worker};
use crate::history::{Outcome, Output};

impl Worker {
    /// Adds, removes or replaces identifiers of an account.
    pub(super) async fn change_identifiers(&mut self) -> bool {
        let account = self.account().await;
        let held = self
            .caller
            .world
            .seen(&account)
            .map_or_else(Vec::new, |seen| seen.identifiers);
        let wanted = self.caller.world.identifier(&mut self.dice);
        // Mostly one that it has, as far as anybody knows.
        let given_up = match self.dice.pick(&held) {
            Some(held) if self.dice.percent(85) => held.clone(),
            _ => self.caller.world.identifier(&mut self.dice),
        };
        let new = Typed::new(&wanted, &mut self.dice);
        let old = Typed::new(&given_up, &mut self.dice);
        let changes = match self.dice.below(10) {
            0..=3 => vec![Change::Add(new)],
            4..=5 => vec![Change::Remove(old)],
            // No identifier may occur twice in a request.
            _ if wanted == given_up => vec![Change::Remove(old)],
            6..=7 if new.kind == old.kind => vec![Change::Replace { old, new }],
            _ => vec![Change::Remove(old), Change::Add(new)],
        };
        let if_etag = self.perhaps_etag(&account);
        let mutation = Mutation::change(request_id(&mut self.dice, 0), account, &changes, if_etag);
        self.send(&mutation).await
    }

    /// Finds who has an identifier, takes it away, and gives it to another account around the end of its
    /// quarantine.
    pub(super) async fn move_identifier(&mut self) -> bool {
        let identifier = self.caller.world.identifier(&mut self.dice);
        let typed = Typed::new(&identifier, &mut self.dice);
        let via = self.via();
        let holder = self.caller.lookup(&typed, &Freshness::linearizable(), &via).await;
        let Outcome::Ok {
            output: Output::Account(holder),
            ..
        } = holder
        else {
            // Nobody: then it is there to be taken.
            let account = self.account().await;
            return self.take_identifier(&identifier, account).await;
        };
        let id = request_id(&mut self.dice, 0);
        let mutation = Mutation::change(id, holder.account.clone(), &[Change::Remove(typed)], None);
        let removed = self.send(&mutation).await;
        let taker = self.any_account();
        let quarantine_ms = self.rules.quarantine_ms;
        let after_ms = match self.dice.below(4) {
            // Too early, unless it is its old owner who takes it back.
            0 => self.dice.between(0, quarantine_ms),
            1 => quarantine_ms + self.dice.between(0, 2_000),
            // On the edge.
            _ => quarantine_ms.saturating_sub(50) + self.dice.between(0, 150),
        };
        let account = if self.dice.percent(15) {
            holder.account
        } else {
            taker
        };
        self.put_off(after_ms, Step::Take { identifier, account });
        removed
    }

    /// Adds an identifier to an account.
    pub(super) async fn take_identifier(&mut self, identifier: &str, account: String) -> bool {
        let typed = Typed::new(identifier, &mut self.dice);
        let id = request_id(&mut self.dice, 0);
        let mutation = Mutation::change(id, account, &[Change::Add(typed)], None);
        self.send(&mutation).await
    }
}
