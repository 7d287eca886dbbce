//! One client: chooses an action, carries it out, pauses, and sees to what it has put off.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::call::{Caller, Via};
use super::dice::Dice;
use super::imports::Batch;
use super::repeats::Late;
use super::request::Mutation;
use super::world::{Token, World};
use super::{Endpoint, Recorder, nodes};
use crate::cluster::Cluster;
use crate::config::{Action, Configuration, RealmRules, Workload};
use crate::history::{Outcome, Output};

/// A client at work.
pub(super) struct Worker {
    pub(super) caller: Caller,
    pub(super) dice: Dice,
    pub(super) workload: Arc<Workload>,
    pub(super) rules: RealmRules,
    cluster: Arc<Cluster>,
    /// What is to be done later.
    put_off: Vec<PutOff>,
    /// Imports that were broken off.
    pub(super) broken: Vec<Batch>,
}

struct PutOff {
    due: Instant,
    what: Step,
}

/// What can be put off.
pub(super) enum Step {
    /// The same request once more.
    Again(Box<Mutation>),
    /// An identifier that was given up is taken.
    Take {
        /// The identifier, canonical.
        identifier: String,
        /// By whom.
        account: String,
    },
}

impl Worker {
    pub(super) fn new(
        number: u32,
        configuration: &Configuration,
        cluster: &Arc<Cluster>,
        recorder: &Recorder,
        world: &World,
    ) -> Result<Self, String> {
        let mut dice = Dice::new(configuration.seed, u64::from(number));
        let mut endpoints: Vec<String> = nodes(cluster).into_iter().map(|node| node.client).collect();
        dice.shuffle(&mut endpoints);
        let deadline = Duration::from_millis(configuration.workload.deadline_ms);
        let caller = Caller::new(number, endpoints, deadline, recorder.clone(), world.clone())?;
        Ok(Worker {
            caller,
            dice,
            workload: Arc::new(configuration.workload.clone()),
            rules: configuration.realm.clone(),
            cluster: Arc::clone(cluster),
            put_off: Vec::new(),
            broken: Vec::new(),
        })
    }

    /// Works until then. Returns the requests that it still meant to repeat.
    pub(super) async fn run(mut self, until: Instant) -> Vec<Late> {
        self.pause().await;
        let calls_max = self.workload.calls_max.unwrap_or(u64::MAX);
        while Instant::now() < until && (self.caller.recorder.count() as u64) < calls_max {
            if let Some(step) = self.due() {
                self.take_up(step).await;
            } else if !self.caller.was_answered() && self.dice.percent(75) {
                // As long as nobody answers, people look again and again before they write once more.
                self.look().await;
            } else if let Some(action) = self.choose() {
                self.choose_deadline();
                let done = Box::pin(self.act(action)).await;
                self.caller.world.tally(action, done);
            }
            self.pause().await;
        }
        let client = self.caller.number;
        let rest = self.put_off.into_iter().filter_map(|put_off| match put_off.what {
            Step::Again(mutation) => Some(Late::new(client, *mutation)),
            Step::Take { .. } => None,
        });
        rest.collect()
    }

    /// Looks at accounts until then, whenever all clients together have made fewer calls than they should have by now.
    /// It leaves nothing to repeat.
    pub(super) async fn look_when_others_wait(mut self, until: Instant) -> Vec<Late> {
        let (began, before) = (Instant::now(), self.caller.recorder.count());
        let calls_max = self.workload.calls_max.unwrap_or(u64::MAX);
        let calls_per_second_min = self.workload.calls_per_second_min.unwrap_or(0);
        loop {
            sleep(Duration::from_millis(self.dice.between(20, 100))).await;
            let calls = self.caller.recorder.count();
            if Instant::now() >= until || calls as u64 >= calls_max {
                return Vec::new();
            }
            let due = began.elapsed().as_secs_f64() * f64::from(calls_per_second_min);
            if ((calls - before) as f64) < due {
                self.look().await;
            }
        }
    }

    async fn pause(&mut self) {
        let mean_us = self.workload.pause_ms * 1_000;
        sleep(Duration::from_micros(self.dice.between(0, 2 * mean_us))).await;
    }

    /// Mostly the run's, sometimes a short one, and more often where nobody answers: so some go on asking while
    /// others wait for what does not come.
    fn choose_deadline(&mut self) {
        let usual_ms = self.workload.deadline_ms;
        let short = if self.caller.was_answered() { 30 } else { 85 };
        let ms = if self.dice.percent(short) {
            self.dice.between(150, 800).min(usual_ms)
        } else {
            usual_ms
        };
        self.caller.deadline = Duration::from_millis(ms);
    }

    /// An action by its weight. None: nothing has any.
    fn choose(&mut self) -> Option<Action> {
        let total: u64 = self
            .workload
            .weights
            .values()
            .map(|weight| u64::from(*weight))
            .sum();
        let mut at = if total == 0 {
            return None;
        } else {
            self.dice.below(total)
        };
        for (action, weight) in &self.workload.weights {
            match at.checked_sub(u64::from(*weight)) {
                Some(rest) => at = rest,
                None => return Some(*action),
            }
        }
        None
    }

    /// Carries an action out. True: what it is about succeeded.
    async fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Create => self.create().await,
            Action::Update => self.update().await,
            Action::UpdateChecked => self.update_checked().await,
            Action::ChangeIdentifiers => self.change_identifiers().await,
            Action::MoveIdentifier => self.move_identifier().await,
            Action::Delete => self.delete().await,
            Action::Undelete => self.undelete().await,
            Action::Get => self.get().await,
            Action::BatchGet => self.batch_get().await,
            Action::Lookup => self.lookup().await,
            Action::GetStale => self.get_stale().await,
            Action::GetWithToken => self.get_with_token().await,
            Action::List => self.list().await,
            Action::Import => self.import().await,
            Action::RetryStorm => self.retry_storm().await,
            Action::LateDuplicate => self.late_duplicate().await,
            Action::Export => self.export().await,
        }
    }

    /// Does something later.
    pub(super) fn put_off(&mut self, by_ms: u64, what: Step) {
        let due = Instant::now() + Duration::from_millis(by_ms);
        self.put_off.push(PutOff { due, what });
    }

    fn due(&mut self) -> Option<Step> {
        let now = Instant::now();
        let at = self.put_off.iter().position(|put_off| put_off.due <= now)?;
        Some(self.put_off.swap_remove(at).what)
    }

    async fn take_up(&mut self, step: Step) {
        match step {
            Step::Again(mutation) => {
                // Anywhere: whoever answers must know what the first one came to.
                let via = self.somewhere();
                self.caller.mutate(&mutation, &via).await;
            }
            Step::Take { identifier, account } => {
                let done = Box::pin(self.take_identifier(&identifier, account)).await;
                self.caller.world.tally(Action::MoveIdentifier, done);
            }
        }
    }

    /// An account that most likely exists: one that nobody has seen is often created first.
    pub(super) async fn account(&mut self) -> String {
        let account = self.any_account();
        if self.caller.world.seen(&account).is_none() && self.dice.percent(75) {
            let mutation = self.creation(account.clone());
            let via = self.via();
            self.caller.mutate(&mutation, &via).await;
        }
        account
    }

    /// Any account of the pool.
    pub(super) fn any_account(&mut self) -> String {
        self.caller.world.account(&mut self.dice, self.workload.hot_share)
    }

    /// Mostly the production client, sometimes one attempt somewhere.
    pub(super) fn via(&mut self) -> Via {
        if self.dice.percent(80) {
            Via::Client
        } else {
            self.somewhere()
        }
    }

    /// One attempt at any node.
    pub(super) fn somewhere(&mut self) -> Via {
        self.node().map_or(Via::Client, Via::Node)
    }

    /// Any node.
    pub(super) fn node(&mut self) -> Option<Endpoint> {
        let nodes = nodes(&self.cluster);
        self.dice.pick(&nodes).cloned()
    }

    /// Somebody's token.
    pub(super) fn token(&mut self) -> Option<Token> {
        self.caller.world.token(&mut self.dice)
    }
}

/// Whether an answer is *ok* and found something.
pub(super) fn found(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Ok { output, .. } => !matches!(output, Output::NotFound | Output::Purged),
        Outcome::DefinitelyNot(_) | Outcome::Unknown => false,
    }
}
