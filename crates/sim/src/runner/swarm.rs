//! Many seeds.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Failure, Totals, child};
use crate::summary::Summary;

/// How often a word is said about how it goes.
const PROGRESS: Duration = Duration::from_secs(10);

/// Which seeds, and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The first seed; the others follow it.
    pub first: u64,
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
}

/// Runs seeds until the plan says it is enough.
///
/// # Errors
/// If runs cannot be started. A run that fails is no error here.
pub fn run(plan: &Plan) -> Result<Swarm, Failure> {
    let next = AtomicU64::new(plan.first);
    let began = Instant::now();
    let shared = Mutex::new((Swarm::default(), None::<Failure>, began));
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            scope.spawn(|| work(plan, &next, began, &shared));
        }
    });
    let (mut swarm, failure, _) = shared
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    swarm.totals.wall_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    swarm.totals.failed.sort_unstable();
    swarm.failures.sort_by_key(|run| run.seed);
    swarm.next = next.load(Ordering::SeqCst);
    failure.map_or(Ok(swarm), Err)
}

fn work(plan: &Plan, next: &AtomicU64, began: Instant, shared: &Mutex<(Swarm, Option<Failure>, Instant)>) {
    loop {
        {
            let state = lock(shared);
            let failed = plan.stop_at_failure && !state.0.failures.is_empty();
            if failed || state.1.is_some() || plan.time.is_some_and(|time| began.elapsed() >= time) {
                return;
            }
        }
        let seed = next.fetch_add(1, Ordering::SeqCst);
        if plan.count.is_some_and(|count| seed - plan.first >= count) {
            next.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        let how = child::How {
            planted: plan.planted.as_deref(),
            reports: plan.reports.as_deref(),
        };
        let result = child::run(&child::What::Seed(seed), &how);
        let mut state = lock(shared);
        match result {
            Err(why) => {
                state.1 = Some(why);
                return;
            }
            Ok(run) => {
                state.0.totals.add(&run);
                if !run.violations.is_empty() {
                    if plan.planted.is_none() {
                        announce(&run);
                    }
                    state.0.failures.push(run);
                }
                if plan.progress && state.2.elapsed() >= PROGRESS {
                    state.2 = Instant::now();
                    let totals = &state.0.totals;
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
    println!(
        "FAILED seed {}: replay it with `cargo xtask sim --seed {}`",
        run.seed, run.seed
    );
    for violation in run.violations.iter().take(3) {
        println!("       {}: {}", violation.judge, violation.message);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
