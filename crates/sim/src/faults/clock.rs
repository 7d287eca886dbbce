//! Clocks that jump, and clocks that run too fast or too slow.

use std::time::Duration;

use holdfast_types::NodeId;
use tokio::time::sleep;

use super::Run;
use crate::cluster::Cluster;
use crate::config::Target;

/// Jumps by this much; back at the end.
pub(super) async fn offset(run: &Run, target: Target, offset_ms: i64, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    let clock = run.cluster.clock(id);
    clock.set_offset_ms(clock.offset_ms() + offset_ms);
    sleep(lasting).await;
    clock.set_offset_ms(clock.offset_ms() - offset_ms);
    true
}

/// Runs too fast or too slow; at the end it is set right.
pub(super) async fn drift(run: &Run, target: Target, ppm: i64, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    let clock = run.cluster.clock(id);
    clock.set_drift_ppm(ppm);
    sleep(lasting).await;
    clock.set_drift_ppm(0);
    clock.set_offset_ms(0);
    true
}

/// Sets it right.
pub(super) fn heal(cluster: &Cluster, id: NodeId) {
    let clock = cluster.clock(id);
    clock.set_drift_ppm(0);
    clock.set_offset_ms(0);
}
