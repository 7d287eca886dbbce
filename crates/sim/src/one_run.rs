//! One run from its first to its last simulated second, and its verdict.
//!
//! 1. *Safety*: clients work while faults happen.
//! 2. *Liveness*: faults stop, operators finish what they began, and what the run is to end with goes wrong for good (a
//!    minority down, a link that carries nothing one way). Within [`PATIENCE`] the cluster must accept a write and
//!    serve a linearizable read, and within as much again the members that can be reached are at one index.
//! 3. *Rest*: everything is mended. Within [`PATIENCE`] all members are at the same index, and everything clients
//!    ever named is read on every node.
//! 4. *Power cycle*: every node loses its power in the same instant. Everything must be there again.
//!
//! The monitor looks on all the time; the other judges are asked at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_storage::choices::SplitMix64;
use holdfast_types::NodeId;
use madsim::runtime::{Handle, Runtime};
use tokio::time::{Instant, sleep};
use tracing::Level;

use crate::cluster::Cluster;
use crate::config::{Configuration, Fault, Scheduled};
use crate::history::{EndState, History, Input, Operation, Outcome, Output, Rules};
use crate::judges::{self, Verdict, Violation};
use crate::leaving::{self, Leaving};
use crate::monitor::{Monitor, Observed};
use crate::runner::Failure;
use crate::runner::child::{self, PATIENCE as PATIENCE_WALL};
use crate::summary::Summary;
use crate::workload::{self, Recorder};
use crate::{end_state, faults, overheard, trace};

/// How long the cluster may take to come to what it must come to, once nothing prevents it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long requests of the safety phase may still be under way after it.
const LAST_ANSWERS: Duration = Duration::from_secs(20);
/// What a run may have in memory at most, mebibytes: the whole cluster, all its disks, and the history. Measured: at most
/// 140 in some hundred runs. More means that something grows that nobody bounds.
const MEMORY_MAX_MIB: u64 = 400;
/// Tasks more than on freshly started nodes that are no leak: streams to members that came and went.
const TASKS_MORE_MAX: usize = 40;

/// Runs a configuration in this process, prints its trace and its summary, and writes a report if it fails. The
/// answer is whether it passed.
///
/// # Errors
/// If the report cannot be written, or the bug to plant is not in this build.
pub fn main(
    configuration: Configuration,
    replay: String,
    logs: Level,
    quiet: bool,
    reports: Option<&Path>,
) -> Result<bool, Failure> {
    plant(configuration.planted.as_deref())?;
    draw_luck(configuration.seed);
    trace::capture_logs(logs);
    let leaving = Arc::new(Leaving {
        configuration,
        replay,
        recorder: Recorder::new(),
        quiet,
        reports: reports.map(Path::to_owned),
    });
    leaving.leave_on_panic();
    leaving.leave_when_it_hangs(PATIENCE_WALL);
    let mut summary = on_a_fresh_thread(|| {
        let configuration = &leaving.configuration;
        let runtime = Runtime::with_seed_and_config(configuration.seed, madsim::Config::default());
        runtime.block_on(simulate(configuration.clone(), leaving.recorder.clone()))
    });
    summary.replay.clone_from(&leaving.replay);
    // Not said in a run that passes: it is not the same in every run of a seed.
    let memory_mib = child::most_memory_mib("self").unwrap_or(0);
    if memory_mib > MEMORY_MAX_MIB {
        let message =
            format!("the run had {memory_mib} MiB in memory; no run needs more than {MEMORY_MAX_MIB}");
        summary.violations.push(violation("bounds", message));
    }
    let passed = leaving.leave(&summary, &leaving.recorder.history())?;
    // The simulator's threads of killed nodes need no farewell.
    std::process::exit(i32::from(!passed));
}

/// A thread's first hash map draws the keys of all later ones. The simulator makes them follow from the seed, but
/// only where it comes first: arguments, files and filters of logs have had hash maps on this thread by now.
fn on_a_fresh_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(act);
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Takes unlikely turns that are always allowed (`unlucky!`): none in every other run, one in four in the rest.
fn draw_luck(seed: u64) {
    if seed.is_multiple_of(2) {
        return;
    }
    let mut choices = SplitMix64::new(seed ^ 0x6c75_636b);
    holdfast_markers::simulated::set_luck_hook(Box::new(move |_| choices.below(4) == 0));
}

#[cfg(feature = "planted")]
fn plant(bug: Option<&str>) -> Result<(), Failure> {
    if let Some(bug) = bug {
        holdfast_markers::simulated::plant(bug);
    }
    Ok(())
}

#[cfg(not(feature = "planted"))]
fn plant(bug: Option<&str>) -> Result<(), Failure> {
    match bug {
        Some(bug) => Err(format!(
            "this build has no bug `{bug}` to plant: use `cargo xtask sim --planted`"
        )),
        None => Ok(()),
    }
}

async fn simulate(configuration: Configuration, recorder: Recorder) -> Summary {
    let handle = Handle::current();
    let cluster = Cluster::start(&handle, &configuration);
    let mut wrong = Vec::new();
    let monitor = Monitor::start(Arc::clone(&cluster));
    faults::listen(&cluster);
    overheard::listen(&cluster, cluster.fail_stop());
    let founding = madsim::task::spawn({
        let (cluster, configuration) = (Arc::clone(&cluster), configuration.clone());
        async move { faults::found(cluster, &configuration).await }
    });
    let mut counts = BTreeMap::new();
    let mut ends = Vec::new();
    let mut safety_from = 0;
    if let Err(why) = workload::prepare(&cluster, &configuration).await {
        wrong.push(violation("liveness", format!("the cluster did not begin: {why}")));
    } else {
        let faults = madsim::task::spawn({
            let (cluster, configuration) = (Arc::clone(&cluster), configuration.clone());
            async move { faults::run(cluster, &configuration).await }
        });
        safety_from = trace::now();
        workload::run(&cluster, &configuration, &recorder).await;
        counts = faults.await.unwrap_or_default();
        if let Ok(Some(happened)) = founding.await {
            *counts.entry(happened).or_default() += 1;
        }
        ends = after_the_faults(&cluster, &configuration, &recorder, &mut wrong).await;
    }
    let observed = monitor.finish();
    let history = recorder.history();
    wrong.extend(
        recorder
            .violations()
            .into_iter()
            .map(|what| violation("clients", what)),
    );
    let mut verdict = judge(&history, &ends, &configuration);
    verdict.violations.extend(wrong);
    verdict.violations.extend(cluster.fail_stop().violations());
    let mut summary = summarize(&configuration, &history, counts, observed, verdict);
    let safety = safety_from..safety_from + configuration.safety_ms * 1_000_000;
    let begun = |operation: &&Operation| safety.contains(&operation.invoked);
    summary.safety_ms = configuration.safety_ms;
    summary.safety_operations = history.operations.iter().filter(begun).count() as u64;
    summary
}

/// Everything that must be true once nothing goes wrong any more.
async fn after_the_faults(
    cluster: &Arc<Cluster>,
    configuration: &Configuration,
    recorder: &Recorder,
    wrong: &mut Vec<Violation>,
) -> Vec<EndState> {
    let left = faults::heal(cluster, configuration).await;
    if let Err(why) = workload::probe(cluster, recorder, PATIENCE).await {
        wrong.push(violation("liveness", format!("after the faults, {why}")));
    }
    if !left.behind.is_empty()
        && let Err(why) = converge(cluster, &left.behind).await
    {
        wrong.push(violation("liveness", format!("with what stays wrong, {why}")));
    }
    faults::heal_fully(cluster);
    let nobody = [BTreeSet::new()];
    let mut ends = Vec::new();
    let mut at_rest = BTreeMap::new();
    match converge(cluster, &nobody).await {
        Err(why) => wrong.push(violation("liveness", why)),
        Ok(()) => {
            workload::final_reads(cluster, recorder).await;
            sleep(LAST_ANSWERS).await;
            at_rest = tasks();
        }
    }
    for id in cluster.ids() {
        cluster.hold_down(id);
        cluster.cut_power(id);
    }
    for id in cluster.ids() {
        cluster.release(id);
    }
    match converge(cluster, &nobody).await {
        Err(why) => wrong.push(violation("liveness", format!("after the power cycle, {why}"))),
        Ok(()) => {
            if let Err(why) = one_membership(cluster) {
                wrong.push(violation("membership", why));
            }
            workload::final_reads(cluster, recorder).await;
            ends = end_states(cluster, &recorder.history(), wrong);
            sleep(LAST_ANSWERS).await;
            let fresh = tasks();
            let more = more(&at_rest, &fresh);
            if more.iter().map(|(count, _)| count).sum::<usize>() > TASKS_MORE_MAX {
                let message = format!("tasks at rest that freshly started nodes have not: {more:?}");
                wrong.push(violation("bounds", message));
            }
        }
    }
    ends
}

/// Waits until all members have applied the same, except those of one of these sets, and compares their digests.
async fn converge(cluster: &Cluster, behind: &[BTreeSet<NodeId>]) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    let mut last = String::from("nobody leads, or a membership change is under way");
    while Instant::now() < until {
        sleep(Duration::from_millis(200)).await;
        if cluster.leader().is_none() || !cluster.settled() {
            continue;
        }
        let voters = cluster.voters();
        let seen: BTreeMap<_, _> = voters
            .iter()
            .filter_map(|id| {
                let node = cluster.node(*id)?;
                let (applied, state) = node.group().applied();
                let lives = node.group().status().fatal.is_none();
                lives.then_some((*id, (applied, state.digest)))
            })
            .collect();
        for behind in behind {
            let mut together = voters.iter().filter(|voter| !behind.contains(voter));
            let Some(first) = together.next().and_then(|first| seen.get(first)) else {
                continue;
            };
            let found: Vec<_> = together.map(|voter| (voter, seen.get(voter))).collect();
            if !found
                .iter()
                .all(|(_, found)| found.is_some_and(|found| found.0 == first.0))
            {
                continue;
            }
            return match found.iter().find(|(_, found)| *found != Some(first)) {
                None => Ok(()),
                Some((id, _)) => Err(format!(
                    "node {id} differs from others after applying entry {}",
                    first.0
                )),
            };
        }
        let indexes: Vec<_> = seen.iter().map(|(id, (applied, _))| (*id, *applied)).collect();
        last = format!("voters {voters:?}, applied {indexes:?}");
    }
    Err(format!("the replicas did not converge: {last}"))
}

/// Everybody who is at the same index knows the same members: what is in a snapshot and what is restored at start
/// included.
fn one_membership(cluster: &Cluster) -> Result<(), String> {
    let known: BTreeMap<_, _> = cluster
        .voters()
        .into_iter()
        .filter_map(|id| {
            let status = cluster.node(id)?.group().status();
            let members: Vec<_> = status
                .members
                .iter()
                .map(|member| (member.id, member.role))
                .collect();
            Some((id, (status.membership_id, members)))
        })
        .collect();
    match known.values().find(|other| Some(*other) != known.values().next()) {
        None => Ok(()),
        Some(_) => Err(format!("at one index, nodes know different members: {known:?}")),
    }
}

/// What is on every member's disk.
fn end_states(cluster: &Cluster, history: &History, wrong: &mut Vec<Violation>) -> Vec<EndState> {
    let identifiers = identifiers(history);
    let mut states = Vec::new();
    for id in cluster.voters() {
        let Some(node) = cluster.node(id) else { continue };
        let (applied, state) = node.group().applied();
        match end_state::read(
            id,
            &*node.group().view(),
            applied,
            state.change_floor,
            &identifiers,
        ) {
            Ok(state) => states.push(state),
            Err(why) => wrong.push(violation(
                "durability",
                format!("node {id} cannot be read: {why}"),
            )),
        }
    }
    states
}

/// Every identifier that occurs in the run.
fn identifiers(history: &History) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for operation in &history.operations {
        match &operation.input {
            Input::Create { identifiers, .. } | Input::ImportItem { identifiers, .. } => {
                all.extend(identifiers.iter().cloned());
            }
            Input::ChangeIdentifiers { add, remove, .. } => all.extend(add.iter().chain(remove).cloned()),
            Input::Lookup { identifier, .. } => {
                all.insert(identifier.clone());
            }
            _ => {}
        }
        if let Outcome::Ok {
            output: Output::Account(account) | Output::Changed { account, .. },
            ..
        } = &operation.outcome
        {
            all.extend(account.identifiers.iter().cloned());
        }
    }
    all
}

/// Asks all judges who need the whole run.
fn judge(history: &History, ends: &[EndState], configuration: &Configuration) -> Verdict {
    let rules = Rules {
        quarantine_ms: configuration.realm.quarantine_ms,
        deletion_grace_ms: configuration.realm.deletion_grace_ms,
    };
    // Of a request that arrives twice, one copy may be turned away and the other carried out.
    let is_twin = |scheduled: &Scheduled| matches!(scheduled.fault, Fault::Duplicates { .. });
    let doubted = configuration
        .faults
        .iter()
        .any(is_twin)
        .then(|| history.clone().with_twins());
    let history = doubted.as_ref().unwrap_or(history);
    judges::all(history, ends, &rules)
}

fn summarize(
    configuration: &Configuration,
    history: &History,
    faults: BTreeMap<String, u64>,
    observed: Observed,
    verdict: Verdict,
) -> Summary {
    let mut violations = verdict.violations;
    violations.extend(observed.violations);
    Summary {
        seed: configuration.seed,
        scenario: configuration.scenario.clone(),
        configuration: configuration.hash(),
        replay: String::new(),
        simulated_ms: trace::now_ms(),
        safety_ms: 0,
        safety_operations: 0,
        operations: history.outcomes(),
        faults,
        elections: observed.elections,
        checked: verdict.checked,
        undecided: verdict.undecided,
        reached: leaving::reached(),
        most_tasks: observed.most_tasks as u64,
        longest_queue: observed.longest_queue,
        most_memory_mib: 0,
        violations,
    }
}

fn violation(judge: &str, message: String) -> Violation {
    trace::event("violation", &message);
    Violation {
        judge: judge.to_owned(),
        message,
        operations: Vec::new(),
    }
}

/// How many tasks there are, by where they were begun.
fn tasks() -> BTreeMap<String, usize> {
    let text = Handle::current().metrics().num_tasks_by_node_by_spawn();
    let mut tasks = BTreeMap::new();
    for line in text.lines() {
        // Lines of nodes end in a brace, those of tasks in a number.
        let count = line.trim().trim_end_matches(',').rsplit_once("\": ");
        if let Some((place, Ok(count))) = count.map(|(place, count)| (place, count.parse::<usize>())) {
            *tasks.entry(place.trim_start_matches('"').to_owned()).or_default() += count;
        }
    }
    tasks
}

/// Where there are more tasks than later, most first.
fn more(tasks: &BTreeMap<String, usize>, later: &BTreeMap<String, usize>) -> Vec<(usize, String)> {
    let surplus = |(place, count): (&String, &usize)| {
        // The simulated network's own: a connection to a member that nobody has needed again lives on, as it does
        // between real machines.
        if place.starts_with("crates/rpc/") {
            return None;
        }
        let more = count.saturating_sub(later.get(place).copied().unwrap_or_default());
        (more > 0).then(|| (more, place.clone()))
    };
    let mut more: Vec<_> = tasks.iter().filter_map(surplus).collect();
    more.sort_unstable_by(|a, b| b.cmp(a));
    more
}
