//! Disks that are slow, that fail, that forget and that are full.

use std::time::Duration;

use holdfast_storage::faulty::Faults;
use holdfast_types::NodeId;
use tokio::time::sleep;

use super::{Run, operators};
use crate::cluster::Cluster;
use crate::config::Target;

/// How much room a disk that is about to be full still has, bytes.
const LAST_ROOM: u64 = 64 * 1024;

/// Syncs take longer.
pub(super) async fn slow_syncs(run: &Run, target: Target, delay_ms: u64, lasting: Duration) -> bool {
    let slow = |faults: &mut Faults| faults.sync_delay = Duration::from_millis(delay_ms);
    with(run, target, lasting, slow).await
}

/// Syncs do not return.
pub(super) async fn stalled_syncs(run: &Run, target: Target, lasting: Duration) -> bool {
    with(run, target, lasting, |faults| faults.sync_stalled = true).await
}

/// The next sync fails; what was not synced is undefined.
pub(super) async fn failed_sync(run: &Run, target: Target, lasting: Duration) -> bool {
    with(run, target, lasting, |faults| faults.fail_next_sync = true).await
}

/// Reads fail.
pub(super) async fn read_errors(run: &Run, target: Target, lasting: Duration) -> bool {
    with(run, target, lasting, |faults| faults.fail_reads = true).await
}

/// No room for more than a little.
pub(super) async fn full(run: &Run, target: Target, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    let used = run.cluster.disk(id).used_bytes();
    let full = |faults: &mut Faults| faults.capacity_bytes = Some(used + LAST_ROOM);
    with(run, Target::Node(id), lasting, full).await
}

/// Power cut, and a bit of what was synced is not what it was. The node is lost: it is replaced.
pub(super) async fn bit_flip(run: &Run, target: Target, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    if !run.cluster.may_lose(id) {
        return false;
    }
    run.cluster.hold_down(id);
    run.cluster.cut_power(id);
    run.cluster.disk(id).flip_bit();
    sleep(lasting / 2).await;
    run.cluster.release(id);
    operators::put_in_place_of(run, id, lasting / 2).await;
    true
}

/// A node's disk has a fault for a while.
async fn with(run: &Run, target: Target, lasting: Duration, fault: impl FnOnce(&mut Faults)) -> bool {
    let Some(id) = run.find(target) else { return false };
    run.cluster.disk(id).configure(fault);
    sleep(lasting).await;
    heal(&run.cluster, id);
    true
}

/// The disk is well again. What it has lost it has lost.
pub(super) fn heal(cluster: &Cluster, id: NodeId) {
    let healthy = cluster.healthy_disk();
    cluster.disk(id).configure(|faults| {
        *faults = Faults {
            sync_delay: Duration::from_micros(healthy.sync_min_us),
            sync_jitter: Duration::from_micros(healthy.sync_jitter_us),
            ..Faults::default()
        };
    });
}
