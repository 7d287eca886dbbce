//! What a node does without being asked. Each duty is a loop of its own that ends with the node.
//!
//! Duties of the leader only: found the default realm once; tick the log clock while nobody writes, so that
//! deadlines pass; expire request records bucket range by bucket range; purge accounts whose grace period is
//! over; trim the change log and forget imports at rest; remember who joined. All of them propose and check like everybody else, so
//! two leaders that overlap do no harm.
//!
//! Duties of every node: measure the disk, compare clocks with its peers, keep alarms and health up to date.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use holdfast_accounts::{DueAction, Operation, Request};
use holdfast_consensus::EncodedCommand;
use holdfast_machine::{Body, Command, Reply, layout};
use holdfast_markers::reached;
use holdfast_storage::engine::{Direction, EngineError, Stall, View};
use holdfast_storage::{command, schema};
use holdfast_types::{Actor, Bucket, Caller, Family, Millis};
use holdfast_wire::internal::ReportRequest;
use holdfast_wire::status::Reason;
use holdfast_wire::v1;
use tokio::time::Instant;

use crate::call::Call;
use crate::core::Core;
use crate::deadline::Deadline;
use crate::driver;
use crate::lifecycle::Phase;
use crate::realms;
use crate::roster;
use crate::services::hand_over;
use crate::trace::TraceContext;
use crate::transport::Health;

/// How long one proposal of a duty may take.
const PROPOSAL: Duration = Duration::from_secs(30);
/// The log clock moves at least this often.
const TICK: Duration = Duration::from_secs(1);
/// Pause between two sweeps of what is due.
const SWEEP: Duration = Duration::from_secs(5);
/// Purges in one sweep.
const PURGES_MAX: usize = 1_000;
/// Pause between two steps of expiry. All buckets are visited once in `EXPIRE * EXPIRE_STEPS`.
const EXPIRE: Duration = Duration::from_secs(4);
/// Steps in which all buckets are visited.
const EXPIRE_STEPS: u16 = 16;
/// Pause between two looks at history.
const TRIM: Duration = Duration::from_secs(30);
/// An import that has not moved for this long is forgotten.
const IMPORT_REST_MS: u64 = 30 * 86_400_000;
/// Imports forgotten in one step.
const IMPORTS_MAX: usize = 200;
/// Pause between two measurements of this node.
const MEASURE: Duration = Duration::from_secs(1);
/// Pause between two rounds of comparing clocks.
const COMPARE: Duration = Duration::from_secs(2);
/// How soon they are compared until a quorum has agreed once.
const COMPARE_FIRST: Duration = Duration::from_millis(50);
/// How long a peer may take to report.
const REPORT: Duration = Duration::from_millis(500);

/// Starts all duties.
pub(crate) fn start(core: &Arc<Core>, health: &Health) -> Vec<tokio::task::JoinHandle<()>> {
    vec![
        duty(core, "founding the realm", {
            lead(core.clone(), TICK, |core| async move { found_realm(&core).await })
        }),
        duty(core, "the log clock", {
            lead(core.clone(), TICK, |core| async move { tick(&core).await })
        }),
        duty(core, "purging accounts", {
            lead(core.clone(), SWEEP, |core| async move { purge_due(&core).await })
        }),
        duty(core, "trimming history", {
            lead(core.clone(), TRIM, |core| async move { trim(&core).await })
        }),
        duty(core, "the roster", {
            lead(
                core.clone(),
                SWEEP,
                |core| async move { roster::keep(&core).await },
            )
        }),
        duty(core, "expiring requests", expire(core.clone())),
        duty(core, "measuring", measure(core.clone(), health.clone())),
        duty(core, "comparing clocks", compare_clocks(core.clone())),
        duty(core, "joining", roster::until_joined(core.clone())),
    ]
}

/// Starts a duty. Without one of them the node would go wrong slowly, so a panic in it is fatal.
fn duty(
    core: &Core,
    what: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(core.fatal.clone().guard(what, task))
}

/// Runs a duty again and again while this node leads.
async fn lead<F, W>(core: Arc<Core>, every: Duration, duty: F)
where
    F: Fn(Arc<Core>) -> W,
    W: Future<Output = ()>,
{
    let mut leadership = core.group.leadership();
    loop {
        if leadership.wait_for(|now| now.is_me && now.ready).await.is_err() {
            return;
        }
        if core.clock_guard.trusted() {
            duty(core.clone()).await;
        }
        tokio::time::sleep(every).await;
    }
}

/// Proposes something that needs no answer. Returns whether it took effect.
async fn propose(core: &Core, body: Body) -> bool {
    let Ok(term) = driver::leading(core) else {
        return false;
    };
    let command = Command {
        epoch: core.group.state().epoch,
        wall: core.wall(),
        body,
    };
    let encoded = EncodedCommand(command::encode(&command));
    match core.group.propose(encoded, term, Instant::now() + PROPOSAL).await {
        Ok(committed) => matches!(committed.reply, Reply::Applied { .. }),
        Err(error) => {
            reached!("background.proposal-failed");
            tracing::debug!(%error, "a duty's proposal came to nothing");
            false
        }
    }
}

async fn found_realm(core: &Core) {
    match schema::realm::read(&*core.group.view(), realms::DEFAULT) {
        Ok(Some(_)) => {}
        Ok(None) => match realms::found_default() {
            Ok(mutation) => {
                if propose(core, Body::Mutate(mutation)).await {
                    tracing::info!("the default realm was founded");
                }
            }
            Err(error) => core
                .fatal
                .report(format!("the system gives no random numbers: {error}")),
        },
        Err(error) => drop(driver::unreadable(core, &error)),
    }
}

/// Moves the log clock if nobody else does.
async fn tick(core: &Core) {
    let behind = core
        .clock
        .now()
        .0
        .saturating_sub(core.group.state().stamp.millis().0);
    if Duration::from_millis(behind) >= TICK {
        propose(core, Body::Tick).await;
    }
}

/// Purges accounts whose grace period is over.
async fn purge_due(core: &Arc<Core>) {
    let now = core.group.state().stamp.millis();
    let view = core.group.view();
    let due: Result<Vec<_>, _> = schema::due::dues_until(&*view, now).take(PURGES_MAX).collect();
    drop(view);
    let due = match due {
        Ok(due) => due,
        Err(error) => return drop(driver::unreadable(core, &error)),
    };
    for row in due {
        let DueAction::PurgeAccount = row.action.value;
        let request = Request {
            realm: row.realm,
            caller: Caller::new("holdfast"),
            actor: Actor {
                reason: "the grace period is over".into(),
                ..Actor::default()
            },
            request_id: None,
            account: row.key.subject,
            operation: Operation::Purge {
                deadline: row.key.deadline,
            },
        };
        let call = Call {
            caller: Caller::new("holdfast"),
            trace: TraceContext::of_header(""),
            deadline: Deadline::after(PROPOSAL),
        };
        match driver::run(core, request, &call, None).await {
            Ok(_) => {
                reached!("background.purged");
                metrics::counter!("holdfast_purged_accounts_total").increment(1);
            }
            // Another node's turn, or this one's later.
            Err(failure) if failure.may_have_applied() || not_now(failure.reason()) => {
                reached!("background.purge-put-off");
                tracing::debug!(reason = ?failure.reason(), "a purge came to nothing; the next sweep tries again");
                return;
            }
            // One account that cannot be purged must not keep the others from it.
            Err(failure) => {
                metrics::counter!("holdfast_purges_failed_total").increment(1);
                tracing::warn!(reason = ?failure.reason(), "an account could not be purged; the next sweep tries again");
            }
        }
    }
}

/// Whether a failure says nothing about the request, only about this node at this moment.
fn not_now(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NotLeader
            | Reason::NoLeader
            | Reason::NodeNotServing
            | Reason::ClockSkew
            | Reason::Overloaded
            | Reason::DeadlineExceeded
    )
}

/// Expires request records, a range of buckets at a time.
async fn expire(core: Arc<Core>) {
    let mut step = 0;
    let width = Bucket::COUNT / EXPIRE_STEPS;
    let mut leadership = core.group.leadership();
    loop {
        if leadership.wait_for(|now| now.is_me && now.ready).await.is_err() {
            return;
        }
        if let Some(before) = request_horizon(&core) {
            let (first, last) = (Bucket(step * width), Bucket(step * width + width - 1));
            match any_request_before(&*core.group.view(), before, first, last) {
                Ok(true) => drop(propose(&core, Body::ExpireRequests { before, first, last }).await),
                Ok(false) => {}
                Err(error) => drop(driver::unreadable(&core, &error)),
            }
            step = (step + 1) % EXPIRE_STEPS;
        }
        tokio::time::sleep(EXPIRE).await;
    }
}

/// Whether these buckets have a request record born before then. Without any, nothing is written: the floor below
/// which requests are refused at apply need not be above what was deleted.
fn any_request_before(
    view: &dyn View,
    before: Millis,
    first: Bucket,
    last: Bucket,
) -> Result<bool, EngineError> {
    for bucket in (first.0..=last.0).map(Bucket) {
        let from = layout::request_birth_key(bucket, Millis(0));
        let to = layout::request_birth_key(bucket, before);
        let (from, to) = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let oldest = view.scan(Family::Request, from, to, Direction::Forward).next();
        if oldest.transpose()?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Births before this are outside of every realm's window. A little more is kept than promised, so that a retry
/// at the very end of the window still finds its record. `None`: there is no realm yet, or the clock is young.
fn request_horizon(core: &Core) -> Option<Millis> {
    let view = core.group.view();
    let mut window_ms = None;
    for realm in schema::realm::all(&*view) {
        match realm {
            Ok(realm) => window_ms = window_ms.max(Some(realm.value.config.request_window_ms)),
            Err(error) => {
                drop(driver::unreadable(core, &error));
                return None;
            }
        }
    }
    let window_ms = window_ms?;
    let horizon = core
        .group
        .state()
        .stamp
        .millis()
        .minus(window_ms + window_ms / 10);
    (horizon > Millis(0)).then_some(horizon)
}

/// Trims the change log to what the configuration keeps, and forgets imports at rest.
async fn trim(core: &Core) {
    let state = core.group.state();
    let keep = core.config.history.change_entries;
    let index = core.group.applied_index().saturating_sub(keep);
    // In strides, so that an idle cluster does not write about not writing.
    if index > state.change_floor + keep / 100 {
        propose(core, Body::TrimChanges { index }).await;
    }
    let before = state.stamp.millis().minus(IMPORT_REST_MS);
    match schema::import::forget(&*core.group.view(), before, IMPORTS_MAX) {
        Ok(Some(mutation)) => drop(propose(core, Body::Mutate(mutation)).await),
        Ok(None) => {}
        Err(error) => drop(driver::unreadable(core, &error)),
    }
}

/// Measures the disk, and keeps health, alarms and gauges up to date.
async fn measure(core: Arc<Core>, health: Health) {
    let recovered = core
        .group
        .wait_recovered(Instant::now() + Duration::from_secs(86_400));
    if recovered.await.is_ok() {
        core.lifecycle.advance(Phase::Serving);
    }
    let mut was_serving = None;
    loop {
        match core.engine.usage() {
            Ok(usage) => core.disk.measured(&usage),
            Err(error) => core.fatal.report(error.to_string()),
        }
        core.alarms.update(core.clock.now(), conditions(&core));
        for (work, taken) in core.admission.in_flight(&core.config.limits) {
            metrics::gauge!("holdfast_admission_in_flight", "work" => work).set(taken as f64);
        }
        let serving = core.lifecycle.phase() == Phase::Serving && core.leadership().leader.is_some();
        if was_serving != Some(serving) {
            was_serving = Some(serving);
            health.set(serving).await;
        }
        tokio::select! {
            biased;
            () = core.lifecycle.reached(Phase::Stopping) => {
                health.set(false).await;
                return;
            }
            () = tokio::time::sleep(MEASURE) => {}
        }
    }
}

/// What an operator should look at now.
fn conditions(core: &Core) -> Vec<(v1::AlarmKind, String)> {
    let mut found = Vec::new();
    let status = core.group.status();
    let patience_ms = core.config.raft.election_timeout_ms_max * 4;
    if let Some(message) = core.disk.alarm() {
        found.push((v1::AlarmKind::DiskFull, message));
    }
    if status.leader.is_none() && !status.members.is_empty() {
        found.push((
            v1::AlarmKind::NoLeader,
            "no leader is known: are a majority of the voters up?".to_owned(),
        ));
    }
    if !core.clock_guard.trusted() {
        let ahead = core.clock_guard.offset_ms();
        found.push((
            v1::AlarmKind::ClockSkew,
            format!("this clock is {ahead} ms ahead of its peers'; check time synchronisation"),
        ));
    }
    if status.leader == Some(status.node_id) {
        for member in status.members.iter().filter(|member| member.id != status.node_id) {
            if member.last_heard_ms.is_none_or(|silence| silence > patience_ms) {
                let message = format!("node {} at {} does not answer", member.id, member.addresses.peer);
                found.push((v1::AlarmKind::MemberLags, message));
            }
        }
    }
    if let Some(age_ms) = status
        .sync_age_ms
        .filter(|age_ms| *age_ms > core.config.raft.election_timeout_ms_max)
    {
        found.push((
            v1::AlarmKind::DiskSlow,
            format!("a sync has been under way for {age_ms} ms"),
        ));
    }
    if core.engine.stall() != Stall::None {
        found.push((
            v1::AlarmKind::WriteStall,
            "the storage engine holds writes back".to_owned(),
        ));
    }
    found
}

/// The alarms that stand.
pub(crate) fn alarms(core: &Core) -> Vec<v1::Alarm> {
    core.alarms.standing()
}

/// Compares clocks with the peers, and steps aside while this one is far from theirs.
async fn compare_clocks(core: Arc<Core>) {
    loop {
        // The leader waits for the first conclusion.
        let pause = if core.clock_guard.confirmed() {
            COMPARE
        } else {
            COMPARE_FIRST
        };
        tokio::time::sleep(pause).await;
        let mut ahead_ms = Vec::new();
        let mut disks_nearly_full = 0;
        let members = core.group.members();
        let began = (core.clock.now(), Instant::now());
        for (node, addresses) in members.iter().filter(|(node, _)| **node != core.node_id()) {
            let Ok(mut client) = core.peers.client(&addresses.peer) else {
                continue;
            };
            let mut request = tonic::Request::new(ReportRequest {
                header: Some(core.peers.header(*node)),
            });
            request.set_timeout(REPORT);
            let asked = core.clock.now();
            if let Ok(Ok(report)) = tokio::time::timeout(REPORT, client.report(request)).await {
                let report = report.into_inner();
                roster::heed(&core, &report);
                // The peer read its clock about half way through.
                let middle = (asked.0 + core.clock.now().0) / 2;
                ahead_ms.push(report.wall_ms as i64 - middle as i64);
                disks_nearly_full += usize::from(report.disk_nearly_full);
            }
        }
        core.disk.peers_nearly_full(disks_nearly_full, members.len());
        core.clock_guard.measured(began, ahead_ms, members.len());
        if !core.clock_guard.trusted() && core.leadership().is_me {
            reached!("clock.leadership-given-up");
            tracing::warn!(
                ahead_ms = core.clock_guard.offset_ms(),
                "this clock is far from its peers': leadership is handed over"
            );
            hand_over(&core, Instant::now() + Duration::from_secs(5)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_storage::engine::{Batch, Engine};
    use holdfast_storage::faulty::FaultyDisk;

    use super::*;

    #[test]
    fn expiry_looks_before_it_writes() {
        let engine = FaultyDisk::new(1).open().unwrap();
        let (first, last) = (Bucket(16), Bucket(31));
        let any = |before| any_request_before(&*engine.view(), Millis(before), first, last).unwrap();
        assert!(!any(1_000));
        let mut batch = Batch::default();
        for (bucket, birth) in [(15, 1), (32, 1), (20, 500)] {
            let key = layout::request_birth_key(Bucket(bucket), Millis(birth));
            batch.put(Family::Request, key, vec![1]);
        }
        engine.write(batch).unwrap();
        assert!(!any(500), "the other buckets are not asked about");
        assert!(any(501));
    }
}
