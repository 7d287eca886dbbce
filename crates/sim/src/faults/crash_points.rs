//! Power cut at a named point of the code.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_types::NodeId;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Run;
use crate::cluster::Cluster;

/// What is waited for: by point, how often it is still to be passed before, and who wants to know.
pub(crate) type Armed = Arc<Mutex<BTreeMap<String, Vec<(u64, oneshot::Sender<NodeId>)>>>>;

/// The points that the swarm chooses from.
pub(super) const POINTS: &[&str] = &[
    "apply.written-not-answered",
    "install.cleared",
    "install.done-not-synced",
    "install.ingested",
    "install.mark-not-synced",
    "install.marked",
    "install.partly-ingested",
    "install.staged",
    "leadership.changed",
    "log.synced-not-acknowledged",
    "log.truncation-queued",
    "log.written-not-synced",
    "membership.caught-up",
    "membership.change-ended",
    "membership.learner-added",
    "membership.retired-not-removed",
    "membership.retired-not-replaced",
    "snapshot.chunk-staged",
    "snapshot.flushed-not-purged",
    "snapshot.not-flushed",
    "snapshot.received",
    "snapshot.sending",
    "start.founded",
    "start.identity-not-synced",
    "start.identity-written",
    "stop.drained",
    "stop.handed-over",
    "stop.left-the-group",
    "vote.queued-not-synced",
    "vote.synced-not-sent",
];

/// How long a machine without power stays so at least.
const DARK: Duration = Duration::from_millis(500);

/// Listens at all points, from now on.
pub(super) fn listen(cluster: &Arc<Cluster>) {
    let cluster = Arc::clone(cluster);
    holdfast_markers::simulated::set_crash_hook(Box::new(move |point| {
        let Some(id) = cluster.at(madsim::plugin::node()) else {
            return false;
        };
        let whoever = {
            let mut armed = cluster.armed().lock().unwrap_or_else(PoisonError::into_inner);
            let Some(waiting) = armed.get_mut(point) else {
                return false;
            };
            let Some(next) = waiting.first_mut() else {
                return false;
            };
            if next.0 > 0 {
                next.0 -= 1;
                return false;
            }
            waiting.remove(0).1
        };
        // Held down for whoever waits; if nobody does any more, nobody would release it.
        cluster.hold_down(id);
        if whoever.send(id).is_err() {
            cluster.release(id);
            return false;
        }
        cluster.cut_power(id);
        true
    }));
}

/// Nobody waits at any point any more.
pub(super) fn disarm(cluster: &Cluster) {
    cluster
        .armed()
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
}

/// Cuts the power of whoever passes the point next, after it was passed so often.
pub(super) async fn cut_power_at(run: &Run, point: &str, passes: u64, lasting: Duration) -> bool {
    let until = Instant::now() + lasting;
    let (tell, told) = oneshot::channel();
    {
        let mut armed = run.cluster.armed().lock().unwrap_or_else(PoisonError::into_inner);
        armed.entry(point.to_owned()).or_default().push((passes, tell));
    }
    let Ok(Ok(id)) = timeout(lasting, told).await else {
        return false;
    };
    sleep(DARK).await;
    sleep_until(until).await;
    run.cluster.release(id);
    true
}
