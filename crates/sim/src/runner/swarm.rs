//! Many seeds.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Failure, Totals, child};
use crate::summary::Summary;

/// How often those who keep what a swarm came to so far are told.
const KEPT: Duration = Duration::from_secs(30);
/// How often a word is said about how it goes.
const PROGRESS: Duration = Duration::from_secs(10);

/// Which seeds, and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The first seed; the others follow it.
    pub first: u64,
    /// Seeds that are left out: they were run before.
    pub done: BTreeSet<u64>,
    /// At most this many.
    pub count: Option<u64>,
    /// No new one after this long.
    pub time: Option<Duration>,
    /// How many at a time.
    pub jobs: usize,
    /// A bug to plant in each.
    pub planted: Option<String>,
    /// Where failing runs write their reports.
    pub reports: Option<PathBuf>,
    /// No new one after the first failure.
    pub stop_at_failure: bool,
    /// Say how it goes.
    pub progress: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            first: 1,
            done: BTreeSet::new(),
            count: None,
            time: None,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            planted: None,
            reports: None,
            stop_at_failure: false,
            progress: true,
        }
    }
}

/// What a swarm came to.
#[derive(Debug, Default)]
pub struct Swarm {
    /// All runs together.
    pub totals: Totals,
    /// The runs that failed.
    pub failures: Vec<Summary>,
    /// The first seed that was not run.
    pub next: u64,
    /// Seeds above it that were.
    pub done: BTreeSet<u64>,
}

/// Runs seeds until the plan says it is enough.
///
/// # Errors
/// If runs cannot be started. A run that fails is no error here.
pub fn run(plan: &Plan) -> Result<Swarm, Failure> {
    run_and_keep(plan, |_| Ok(()))
}

/// The same, and hands what it came to so far to `keep` twice a minute: who is killed loses no more than that.
///
/// # Errors
/// Those of [`run`], and the first of `keep`, which ends the swarm.
pub fn run_and_keep(
    plan: &Plan,
    mut keep: impl FnMut(&Swarm) -> Result<(), Failure>,
) -> Result<Swarm, Failure> {
    let next = AtomicU64::new(plan.first);
    let began = Instant::now();
    let shared = Mutex::new(Shared::default());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.jobs.max(1))
            .map(|_| scope.spawn(|| work(plan, &next, began, &shared)))
            .collect();
        let mut kept = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            if kept.elapsed() < KEPT {
                continue;
            }
            kept = Instant::now();
            let mut shared = lock(&shared);
            shared.swarm.totals.wall_ms = milliseconds(began.elapsed());
            let under_way = shared.under_way.first().copied();
            shared.settle(under_way.unwrap_or_else(|| next.load(Ordering::SeqCst)));
            if let Err(why) = keep(&shared.swarm) {
                shared.failure.get_or_insert(why);
            }
        }
    });
    let mut shared = shared
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    shared.settle(next.load(Ordering::SeqCst));
    let Shared {
        mut swarm, failure, ..
    } = shared;
    swarm.totals.wall_ms = milliseconds(began.elapsed());
    swarm.totals.failed.sort_unstable();
    swarm.failures.sort_by_key(|run| run.seed);
    failure.map_or(Ok(swarm), Err)
}

/// What those who run seeds have in common.
#[derive(Default)]
struct Shared {
    swarm: Swarm,
    /// Why runs cannot be started, or not be kept.
    failure: Option<Failure>,
    /// When a word was last said about how it goes.
    said: Option<Instant>,
    /// Seeds that are being run.
    under_way: BTreeSet<u64>,
}

impl Shared {
    /// All seeds below `next` were run.
    fn settle(&mut self, next: u64) {
        self.swarm.next = next;
        self.swarm.done.retain(|seed| *seed > next);
    }
}

/// Runs one seed after the other.
fn work(plan: &Plan, next: &AtomicU64, began: Instant, shared: &Mutex<Shared>) {
    loop {
        let seed = {
            let mut shared = lock(shared);
            let failed = plan.stop_at_failure && !shared.swarm.failures.is_empty();
            let late = plan.time.is_some_and(|time| began.elapsed() >= time);
            let mut seed = next.load(Ordering::SeqCst);
            while plan.done.contains(&seed) {
                seed += 1;
            }
            let all = plan.count.is_some_and(|count| seed - plan.first >= count);
            if failed || late || all || shared.failure.is_some() {
                return;
            }
            next.store(seed + 1, Ordering::SeqCst);
            shared.under_way.insert(seed);
            seed
        };
        let how = child::How {
            planted: plan.planted.as_deref(),
            reports: plan.reports.as_deref(),
        };
        let result = child::run(&child::What::Seed(seed), &how);
        let mut shared = lock(shared);
        shared.under_way.remove(&seed);
        shared.swarm.done.insert(seed);
        match result {
            Err(why) => {
                shared.failure.get_or_insert(why);
                return;
            }
            Ok(run) => {
                shared.swarm.totals.add(&run);
                if !run.violations.is_empty() {
                    if plan.planted.is_none() {
                        announce(&run);
                    }
                    shared.swarm.failures.push(run);
                }
                let since = shared.said.get_or_insert(began);
                if plan.progress && since.elapsed() >= PROGRESS {
                    shared.said = Some(Instant::now());
                    let totals = &shared.swarm.totals;
                    println!(
                        "{:>6.0} s: {} runs, {:.1} simulated hours, {} failed",
                        began.elapsed().as_secs_f64(),
                        totals.runs,
                        totals.simulated_ms as f64 / 3_600_000.0,
                        totals.failed.len()
                    );
                }
            }
        }
    }
}

/// One line that replays it, and what was wrong.
pub fn announce(run: &Summary) {
    println!("FAILED seed {}: replay it with `{}`", run.seed, run.replay);
    for violation in run.violations.iter().take(3) {
        println!("       {}: {}", violation.judge, violation.message);
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
