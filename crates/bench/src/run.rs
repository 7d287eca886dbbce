//! Running a plan: clients are connected, begin together, and are added up when all have ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;

use crate::actor::{Actor, World, judge};
use crate::measurement::{Generator, Measurement, Prepared};
use crate::pace::{Pace, Schedule, Span};
use crate::plan::{Load, Options, Plan};
use crate::record::Population;
use crate::seconds::Seconds;
use crate::tally::Tally;
use crate::target::{Class, Existing, Failure, Session, Store};

/// How long after the end an operation may still be answered. More than the deadline of any driver.
const GRACE: Duration = Duration::from_secs(30);

/// The most clients whose histograms are grown beforehand: half a gigabyte.
const GROWN_MAX: usize = 1_024;

/// The most clients that fill a store at the same time.
const PREPARING_MAX: usize = 16;

/// How far a run, or the filling of a store, has come; told about every second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Accounts of the filling, seconds of the run.
    pub done: u64,
    /// Of how many.
    pub of: u64,
    /// Successes a second since it was last told.
    pub rate: f64,
    /// Failures so far.
    pub errors: u64,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The store is being filled.
    Preparing,
    /// The load runs and does not count yet.
    WarmingUp,
    /// The load counts.
    Measuring,
}

/// What one client has done so far, for the progress shown. A cache line of its own, which only it writes.
#[derive(Default)]
#[repr(align(128))]
struct Counters {
    done: AtomicU64,
    errors: AtomicU64,
}

/// Makes sure that accounts `0..accounts` are there, as fast as the store's import does it.
pub async fn prepare<S: Store>(
    store: &S,
    options: &Options,
    accounts: u64,
    mut watch: impl FnMut(Progress),
) -> Result<Prepared, Failure> {
    let start = Instant::now();
    let population = options.population();
    let batch = u64::from(options.batch);
    let next = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for client in 0..PREPARING_MAX.min(options.clients as usize) {
        let mut session = store.session(client).await?;
        let (next, done) = (next.clone(), done.clone());
        clients.spawn(async move {
            loop {
                let first = next.fetch_add(batch, Ordering::Relaxed);
                if first >= accounts {
                    return Ok::<_, Failure>(());
                }
                let end = (first + batch).min(accounts);
                let records = (first..end).map(|number| population.record(number)).collect();
                session.import(records, Existing::Keep).await?;
                done.fetch_add(end - first, Ordering::Relaxed);
            }
        });
    }
    let mut told = 0;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            biased;
            ended = clients.join_next() => match ended {
                Some(result) => joined(result)??,
                None => break,
            },
            _ = ticks.tick() => {
                let done = done.load(Ordering::Relaxed);
                let rate = (done - told) as f64;
                told = done;
                watch(Progress { stage: Stage::Preparing, done, of: accounts, rate, errors: 0 });
            }
        }
    }
    Ok(Prepared {
        prepared: accounts,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Runs a plan against a store.
pub async fn run<S: Store>(
    store: &S,
    plan: &Plan,
    watch: impl FnMut(Progress),
) -> Result<Measurement, Failure> {
    let mut sessions = Vec::with_capacity(plan.clients);
    for client in 0..plan.clients {
        sessions.push(store.session(client).await?);
    }
    if let Some(session) = sessions.first_mut()
        && plan.workload.needs_accounts()
    {
        check_filled(session, plan.population, plan.accounts).await?;
    }

    let world = Arc::new(World::new(plan.clone()));
    let mut tallies: Vec<Tally> = (0..plan.clients).map(|_| Tally::new(span(plan))).collect();
    for tally in tallies.iter_mut().take(GROWN_MAX) {
        tally.grow(plan.workload.operations());
    }
    let span = span(plan);
    let schedule = match plan.load {
        Load::Closed => None,
        Load::Open { per_second } => Some(Arc::new(Schedule::new(span, per_second))),
    };
    let seconds = Arc::new(Seconds::new(span));
    let counters: Arc<Vec<Counters>> = Arc::new((0..plan.clients).map(|_| Counters::default()).collect());
    let mut clients = JoinSet::new();
    for (client, (session, mut tally)) in sessions.into_iter().zip(tallies).enumerate() {
        tally.begin(span);
        let actor = Actor::new(session, world.clone(), client);
        let pace = match &schedule {
            None => Pace::closed(span),
            Some(schedule) => Pace::open(schedule.clone()).map_err(timer_failed)?,
        };
        let (counters, seconds) = (counters.clone(), seconds.clone());
        clients.spawn(async move { work(actor, pace, (span, tally), (&counters[client], &seconds)).await });
    }

    let cpu = attend(span, &counters, watch).await;
    let mut total = Tally::new(span);
    while let Some(result) = clients.join_next().await {
        total.add(&joined(result)??);
    }
    let mut never_begun = 0;
    for due in schedule.iter().flat_map(|schedule| schedule.never_begun()) {
        total.never_begun(due);
        never_begun += u64::from(due >= span.measured);
    }
    Ok(measurement(store, plan, (&total, &seconds), never_begun, cpu))
}

/// From now.
fn span(plan: &Plan) -> Span {
    let start = Instant::now();
    Span {
        start,
        measured: start + plan.warm_up,
        end: start + plan.warm_up + plan.measured,
    }
}

/// One client, from its first operation to its last.
async fn work<S: Session>(
    mut actor: Actor<S>,
    mut pace: Pace,
    (span, mut tally): (Span, Tally),
    (counters, seconds): (&Counters, &Seconds),
) -> Result<Tally, Failure> {
    let give_up = tokio::time::sleep_until((span.end + GRACE).into());
    tokio::pin!(give_up);
    let mut now = Instant::now();
    while let Some(beginning) = pace.next(now).await.map_err(timer_failed)? {
        if let Some(late) = beginning.late {
            tally.late(late);
        }
        let operation = actor.next();
        let result = tokio::select! {
            biased;
            result = actor.perform(operation, &mut tally) => result,
            () = &mut give_up => Err(Failure::new(
                Class::Unknown,
                format!("no answer {} s after the end", GRACE.as_secs()),
            )),
        };
        now = Instant::now();
        match &result {
            Ok(units) => counters.done.fetch_add(*units, Ordering::Relaxed),
            Err(_) => counters.errors.fetch_add(1, Ordering::Relaxed),
        };
        let failed = result.is_err();
        tally.whole(operation, beginning.due, now, &result);
        seconds.note(beginning.due, now);
        if failed {
            // A store that refuses at once must not make a busy loop of the client, which would starve the store.
            tokio::task::yield_now().await;
        }
    }
    Ok(tally)
}

/// Tells the progress until the end, and returns the processor time of the measured part.
async fn attend(span: Span, counters: &[Counters], mut watch: impl FnMut(Progress)) -> Duration {
    let mut told = 0;
    let mut before = span.start;
    let mut cpu_before = cpu_time();
    while before < span.end {
        let warming_up = before < span.measured;
        let limit = if warming_up { span.measured } else { span.end };
        let next = (before + Duration::from_secs(1)).min(limit);
        tokio::time::sleep_until(next.into()).await;
        let done: u64 = counters.iter().map(|one| one.done.load(Ordering::Relaxed)).sum();
        let errors = counters
            .iter()
            .map(|one| one.errors.load(Ordering::Relaxed))
            .sum();
        watch(Progress {
            stage: if warming_up {
                Stage::WarmingUp
            } else {
                Stage::Measuring
            },
            done: (next - span.start).as_secs(),
            of: (span.end - span.start).as_secs(),
            rate: (done - told) as f64 / (next - before).as_secs_f64(),
            errors,
        });
        if warming_up {
            cpu_before = cpu_time();
        }
        (told, before) = (done, next);
    }
    cpu_time().saturating_sub(cpu_before)
}

fn measurement<S: Store>(
    store: &S,
    plan: &Plan,
    (total, by_second): (&Tally, &Seconds),
    never_begun: u64,
    cpu: Duration,
) -> Measurement {
    let mut windows = total.windows().to_vec();
    for (second, window) in windows.iter_mut().enumerate() {
        window.p99_us = by_second.p99_us(second);
    }
    let done: u64 = windows.iter().map(|window| window.done).sum();
    let (without_read, without_write) = total.silences();
    let seconds = plan.measured.as_secs_f64();
    Measurement {
        store: store.name().to_owned(),
        settings: store.settings(),
        workload: plan.workload,
        load: plan.load,
        clients: plan.clients,
        distribution: plan.distribution,
        accounts: plan.accounts,
        record_bytes: plan.population.payload_bytes,
        seed: plan.population.seed,
        first_new: plan.first_new,
        warm_up_seconds: plan.warm_up.as_secs_f64(),
        seconds,
        throughput: done as f64 / seconds,
        worst_window: windows[..plan.measured.as_secs() as usize]
            .iter()
            .map(|window| window.done)
            .min(),
        minutes_p99_us: by_second.minutes_p99_us(),
        windows,
        all: total.all(),
        operations: total.operations(),
        errors: total.errors().values().map(|errors| errors.count).sum(),
        errors_by_class: total.errors().clone(),
        conflicts: total.conflicts,
        never_begun,
        longest_without_read_ms: without_read.map(|gap| gap.as_millis() as u64),
        longest_without_write_ms: without_write.map(|gap| gap.as_millis() as u64),
        generator: Generator {
            cpu_seconds: cpu.as_secs_f64(),
            cpu_us_per_operation: cpu.as_secs_f64() * 1e6 / (done.max(1) as f64),
            threads: tokio::runtime::Handle::current().metrics().num_workers(),
            late: total.lateness(),
        },
    }
}

/// The first and the last account are there: the rest was stored between them.
async fn check_filled<S: Session>(
    session: &mut S,
    population: Population,
    accounts: u64,
) -> Result<(), Failure> {
    for number in [0, accounts - 1] {
        let id = population.id(number);
        let found = session.get(&id).await?;
        judge(found, &id, population.payload_bytes).map_err(|failure| {
            let what = format!("{}; --prepare {accounts} fills the store", failure.message);
            Failure::new(failure.class, what)
        })?;
    }
    Ok(())
}

/// Processor time that this process has used.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn timer_failed(error: std::io::Error) -> Failure {
    Failure::new(Class::Other, format!("no timer to be had: {error}"))
}

/// A client that panicked is a defect of its driver, and no run.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, Failure> {
    result.map_err(|error| Failure::new(Class::Other, format!("a client ended: {error}")))
}
