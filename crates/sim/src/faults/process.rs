//! Processes that go away, and what they leave behind.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Run;
use crate::config::Target;

/// What a supervisor grants a process that was asked to stop.
const STOP: Duration = Duration::from_secs(20);
/// How often a fault that waits for a condition looks.
const LOOK: Duration = Duration::from_millis(100);

/// Gone at once; what was written stays.
pub(super) async fn kill(run: &Run, target: Target, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    run.cluster.hold_down(id);
    run.cluster.kill(id);
    sleep(lasting).await;
    run.cluster.release(id);
    true
}

/// Gone at once, and so is a random part of what was not synced.
pub(super) async fn cut_power(run: &Run, target: Target, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    run.cluster.hold_down(id);
    run.cluster.cut_power(id);
    sleep(lasting).await;
    run.cluster.release(id);
    true
}

/// Asked to stop, killed if it takes too long, started again at the end.
pub(super) async fn stop(run: &Run, target: Target, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    let began = Instant::now();
    run.cluster.hold_down(id);
    run.cluster.stop(id);
    while run.cluster.node(id).is_some() && began.elapsed() < STOP {
        sleep(LOOK).await;
    }
    if run.cluster.node(id).is_some() {
        run.cluster.kill(id);
    }
    sleep_until(began + lasting).await;
    run.cluster.release(id);
    true
}

/// Killed again and again, each time a moment after its start.
pub(super) async fn restart_storm(run: &Run, target: Target, every_ms: u64, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    let until = Instant::now() + lasting;
    while Instant::now() < until {
        run.cluster.kill(id);
        run.cluster.restart(id);
        sleep(Duration::from_millis(every_ms.max(1))).await;
    }
    true
}

/// Does nothing for a while, then goes on as if nothing had happened.
pub(super) async fn pause(run: &Run, target: Target, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    run.cluster.pause(id);
    sleep(lasting).await;
    run.cluster.resume(id);
    true
}

/// All lose power in the same instant.
pub(super) async fn blackout(run: &Run, lasting: Duration) -> bool {
    let mut ids = run.cluster.ids();
    ids.retain(|id| !run.cluster.is_gone(*id));
    for id in &ids {
        run.cluster.hold_down(*id);
        run.cluster.cut_power(*id);
    }
    sleep(lasting).await;
    for id in ids {
        run.cluster.release(id);
    }
    true
}

/// Away until the leader has purged what the node would need next, or the time is over.
pub(super) async fn long_absence(run: &Run, target: Target, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    let last = run
        .cluster
        .node(id)
        .and_then(|node| node.group().status().last_log);
    let until = Instant::now() + lasting;
    run.cluster.hold_down(id);
    run.cluster.kill(id);
    let mut purged_it = false;
    while Instant::now() < until && !purged_it {
        let leader = run.cluster.leader().and_then(|id| run.cluster.node(id));
        let purged = leader.and_then(|node| node.group().status().purged);
        purged_it = purged.map(|log| log.index) > last.map(|log| log.index);
        sleep(LOOK).await;
    }
    run.cluster.release(id);
    purged_it
}
