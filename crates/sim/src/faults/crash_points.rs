//! Power cut, or a disk that fails, at a named point of the code.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_types::NodeId;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::network;

use super::{Run, disk};
use crate::cluster::Cluster;
use crate::config::DiskFailure;
use crate::trace;

/// What is waited for, by point.
pub(crate) type Armed = Arc<Mutex<BTreeMap<String, Vec<Waiting>>>>;

/// Somebody who waits until a node passes a point.
pub(crate) struct Waiting {
    /// How often it is still to be passed before.
    passes: u64,
    what: What,
    /// Who wants to know.
    tell: oneshot::Sender<NodeId>,
}

/// What happens to whoever passes.
#[derive(Clone, Copy)]
enum What {
    PowerCut,
    Disk(DiskFailure),
    Reset,
}

/// The points that the swarm chooses from.
pub(super) const POINTS: &[&str] = &[
    "apply.written-not-answered",
    "export.begun",
    "import.settled-not-reported",
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
    "start.identity-not-synced",
    "start.identity-written",
    "stop.drained",
    "stop.handed-over",
    "stop.left-the-group",
    "vote.queued-not-synced",
    "vote.synced-not-sent",
];

/// The points where a failing disk shows something, and what fails there.
pub(super) const DISK_POINTS: &[(&str, DiskFailure)] = &[
    ("install.cleared", DiskFailure::Sync),
    ("install.ingested", DiskFailure::Reads),
    ("install.mark-not-synced", DiskFailure::Sync),
    ("install.partly-ingested", DiskFailure::Sync),
    ("install.staged", DiskFailure::Sync),
    ("install.staged", DiskFailure::Reads),
    ("log.written-not-synced", DiskFailure::Reads),
    ("membership.retired-not-removed", DiskFailure::Reads),
    ("snapshot.not-flushed", DiskFailure::Sync),
    ("snapshot.sending", DiskFailure::Reads),
    ("start.identity-not-synced", DiskFailure::Sync),
    ("vote.queued-not-synced", DiskFailure::Sync),
];

/// The points that are passed while a cluster is founded, where the power of one founder is cut.
pub(super) const FOUNDING_POINTS: &[&str] = &[
    "start.founded",
    "start.identity-not-synced",
    "start.identity-written",
];

/// The points in the midst of a stream, where all connections of whoever passes break: a snapshot being sent, one being
/// received, an import, an export.
pub(super) const RESET_POINTS: &[&str] = &[
    "export.begun",
    "import.settled-not-reported",
    "snapshot.chunk-staged",
    "snapshot.sending",
];

/// How long a disk fails to read at most.
const UNREADABLE: Duration = Duration::from_millis(1_500);
/// How long a machine without power stays so at least.
const DARK: Duration = Duration::from_millis(500);

/// Listens at all points, from now on.
pub(crate) fn listen(cluster: &Arc<Cluster>) {
    let cluster = Arc::clone(cluster);
    holdfast_markers::simulated::set_crash_hook(Box::new(move |point| {
        let Some(id) = cluster.at(madsim::plugin::node()) else {
            return false;
        };
        cluster.passed(id, point);
        let whoever = {
            let mut armed = cluster.armed().lock().unwrap_or_else(PoisonError::into_inner);
            let Some(waiting) = armed.get_mut(point) else {
                return false;
            };
            let Some(next) = waiting.first_mut() else {
                return false;
            };
            if next.passes > 0 {
                next.passes -= 1;
                return false;
            }
            waiting.remove(0)
        };
        if let What::Reset = whoever.what {
            if whoever.tell.send(id).is_ok() {
                trace::event("reset", &format!("node={id} point={point}"));
                network::reset(cluster.place(id));
            }
            return false;
        }
        if let What::Disk(how) = whoever.what {
            // Failing for whoever waits; if nobody does any more, nobody would mend it.
            if whoever.tell.send(id).is_ok() {
                trace::event("disk_fails", &format!("node={id} point={point} how={how:?}"));
                cluster.disk(id).configure(|faults| match how {
                    DiskFailure::Sync => faults.fail_next_sync = true,
                    DiskFailure::Reads => disk::unreadable(faults),
                });
            }
            return false;
        }
        // Held down for whoever waits; if nobody does any more, nobody would release it.
        cluster.hold_down(id);
        if whoever.tell.send(id).is_err() {
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
    let Some(id) = passed(run, point, passes, What::PowerCut, lasting).await else {
        return false;
    };
    sleep(DARK).await;
    sleep_until(until).await;
    run.cluster.release(id);
    true
}

/// The disk of whoever passes the point next fails, after it was passed so often.
pub(super) async fn disk_fails_at(
    run: &Run,
    point: &str,
    passes: u64,
    how: DiskFailure,
    lasting: Duration,
) -> bool {
    let Some(id) = passed(run, point, passes, What::Disk(how), lasting).await else {
        return false;
    };
    sleep(UNREADABLE).await;
    disk::heal(&run.cluster, id);
    true
}

/// All connections of whoever passes the point next break, after it was passed so often.
pub(super) async fn reset_at(run: &Run, point: &str, passes: u64, lasting: Duration) -> bool {
    passed(run, point, passes, What::Reset, lasting).await.is_some()
}

/// Waits until a node has passed the point, and it has happened to it.
async fn passed(run: &Run, point: &str, passes: u64, what: What, at_most: Duration) -> Option<NodeId> {
    let (tell, told) = oneshot::channel();
    {
        let mut armed = run.cluster.armed().lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = armed.entry(point.to_owned()).or_default();
        waiting.push(Waiting { passes, what, tell });
    }
    timeout(at_most, told).await.ok()?.ok()
}
