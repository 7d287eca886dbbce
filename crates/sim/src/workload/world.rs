//! The accounts and identifiers that clients fight for, and what they know of them.
//!
//! An account's id is never used again once it was purged, so a place in the pool has generations: `h2.0` is
//! followed by `h2.1`. What is known is a hint for making requests that often succeed; the judges do not see it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::dice::Dice;
use crate::config::Action;
use crate::history::{AccountView, Output, Reason, State};

/// How many tokens are kept for anybody to carry to another node.
const TOKENS: usize = 32;
/// How many places are looked at to find an account of a certain kind.
const LOOKS: usize = 24;

/// Shared by all clients.
#[derive(Debug, Clone)]
pub(super) struct World(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// The hot ones first.
    places: Vec<Place>,
    hot: usize,
    /// Canonical.
    identifiers: Vec<String>,
    tokens: VecDeque<Token>,
    tallies: BTreeMap<Action, Tally>,
}

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    /// The newest that anybody saw of this generation.
    seen: Option<AccountView>,
}

/// A consistency token and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Token {
    /// The operation whose answer held it.
    pub(super) operation: u64,
    /// The log index in it.
    pub(super) position: u64,
    /// The account that the answer was about, if it was about one.
    pub(super) account: Option<String>,
    /// The token.
    pub(super) bytes: Vec<u8>,
}

/// How often an action was tried, and how often what it is about was answered with *ok*.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tried.
    pub tried: u64,
    /// Answered with *ok*.
    pub done: u64,
}

impl World {
    pub(super) fn new(hot_accounts: u32, tail_accounts: u32, identifiers: u32) -> Self {
        let hot = hot_accounts.max(1) as usize;
        let mut places = Vec::new();
        places.resize_with(hot + tail_accounts as usize, Place::default);
        World(Arc::new(Mutex::new(Inner {
            places,
            hot,
            identifiers: (0..identifiers.max(1)).map(contested).collect(),
            tokens: VecDeque::new(),
            tallies: BTreeMap::new(),
        })))
    }

    /// Some account; now and then one of a generation that has passed.
    pub(super) fn account(&self, dice: &mut Dice, hot_share: f64) -> String {
        let inner = self.lock();
        let at = inner.draw(dice, hot_share);
        let generation = inner.places[at].generation;
        let past = u32::from(generation > 0 && dice.percent(5));
        inner.name(at, generation - past)
    }

    /// An account that nobody has seen yet, if one is found quickly.
    pub(super) fn unseen(&self, dice: &mut Dice, hot_share: f64) -> Option<String> {
        self.search(dice, hot_share, |seen| seen.is_none())
    }

    /// An account that was last seen in this state, if one is found quickly.
    pub(super) fn in_state(&self, dice: &mut Dice, hot_share: f64, state: State) -> Option<String> {
        self.search(dice, hot_share, |seen| {
            seen.is_some_and(|seen| seen.state == state)
        })
    }

    fn search(
        &self,
        dice: &mut Dice,
        hot_share: f64,
        wanted: impl Fn(Option<&AccountView>) -> bool,
    ) -> Option<String> {
        let inner = self.lock();
        (0..LOOKS).find_map(|_| {
            let at = inner.draw(dice, hot_share);
            let place = &inner.places[at];
            wanted(place.seen.as_ref()).then(|| inner.name(at, place.generation))
        })
    }

    /// What was last seen of an account.
    pub(super) fn seen(&self, account: &str) -> Option<AccountView> {
        let inner = self.lock();
        let at = inner.find(account)?;
        inner.places[at].seen.clone()
    }

    /// An identifier that everybody wants.
    pub(super) fn identifier(&self, dice: &mut Dice) -> String {
        let inner = self.lock();
        let at = dice.below(inner.identifiers.len() as u64) as usize;
        inner.identifiers[at].clone()
    }

    /// Keeps a token for others.
    pub(super) fn keep(&self, token: Token) {
        let mut inner = self.lock();
        if inner.tokens.len() == TOKENS {
            inner.tokens.pop_front();
        }
        inner.tokens.push_back(token);
    }

    /// A token of somebody's.
    pub(super) fn token(&self, dice: &mut Dice) -> Option<Token> {
        let inner = self.lock();
        let count = inner.tokens.len() as u64;
        let at = if count == 0 {
            return None;
        } else {
            dice.below(count)
        };
        inner.tokens.get(at as usize).cloned()
    }

    /// Learns from an answer about `account`.
    pub(super) fn answered(&self, account: Option<&str>, output: &Output) {
        let mut inner = self.lock();
        match (output, account) {
            (Output::Changed { account, .. } | Output::Account(account), _) => inner.learn(account),
            (Output::Batch { accounts, .. } | Output::Page { accounts, .. }, _) => {
                accounts.iter().for_each(|account| inner.learn(account));
            }
            (Output::Purged, Some(account)) => inner.purged(account),
            (Output::Imported { .. } | Output::NotFound | Output::Purged, _) => {}
        }
    }

    /// Learns from a refusal.
    pub(super) fn refused(&self, account: &str, reason: &Reason) {
        if *reason == Reason::AccountPurged {
            self.lock().purged(account);
        }
    }

    /// Counts an action.
    pub(super) fn tally(&self, action: Action, done: bool) {
        let mut inner = self.lock();
        let tally = inner.tallies.entry(action).or_default();
        tally.tried += 1;
        tally.done += u64::from(done);
    }

    /// What was done how often.
    pub(super) fn tallies(&self) -> BTreeMap<Action, Tally> {
        self.lock().tallies.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn draw(&self, dice: &mut Dice, hot_share: f64) -> usize {
        let tail = self.places.len() - self.hot;
        match tail {
            0 => dice.below(self.hot as u64) as usize,
            _ if dice.share(hot_share) => dice.below(self.hot as u64) as usize,
            _ => self.hot + dice.below(tail as u64) as usize,
        }
    }

    fn name(&self, at: usize, generation: u32) -> String {
        let kind = if at < self.hot { 'h' } else { 't' };
        format!("{kind}{at}.{generation}")
    }

    /// The place whose present generation has this name.
    fn find(&self, account: &str) -> Option<usize> {
        let (place, generation) = account.get(1..)?.split_once('.')?;
        let (at, generation) = (place.parse::<usize>().ok()?, generation.parse::<u32>().ok()?);
        (self.places.get(at)?.generation == generation).then_some(at)
    }

    fn learn(&mut self, account: &AccountView) {
        let Some(at) = self.find(&account.account) else {
            return;
        };
        if account.state == State::Deleted {
            return self.purged(&account.account);
        }
        let seen = &mut self.places[at].seen;
        if seen.as_ref().is_none_or(|seen| seen.revision <= account.revision) {
            *seen = Some(account.clone());
        }
    }

    fn purged(&mut self, account: &str) {
        if let Some(at) = self.find(account) {
            let place = &mut self.places[at];
            place.generation += 1;
            place.seen = None;
        }
    }
}

/// The canonical form of the `n`-th identifier that everybody wants.
pub(super) fn contested(n: u32) -> String {
    match n % 4 {
        0 | 1 => format!("user{n}@example.com"),
        2 => format!("name{n}"),
        _ => format!("+4179{:07}", 1_234_000 + n),
    }
}
