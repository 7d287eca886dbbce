//! Disks that are slow, that fail, that forget and that are full.

use std::time::Duration;

use holdfast_storage::choices::SplitMix64;
use holdfast_storage::faulty::Faults;
use holdfast_types::{Family, NodeId};
use tokio::time::sleep;

use super::{Run, network, operators};
use crate::cluster::Cluster;
use crate::config::{Part, Target};

/// How much room a disk that is about to be full still has at least, bytes.
const LAST_ROOM: u64 = 8 * 1024;
/// How long a sync takes at least on a disk that dies.
const DYING: Duration = Duration::from_millis(150);
/// How long a wiped node hears nobody: longer than it asks the others about itself before it starts.
const DEAF: Duration = Duration::from_millis(2_500);
/// Where the vote is, as `holdfast_consensus` documents it: shard, tag.
const VOTE: &[u8] = &[0, 0, 0, 0, b'v'];
/// How long a machine without power stays so.
const DARK: Duration = Duration::from_millis(500);

/// Syncs take longer.
pub(super) async fn slow_syncs(run: &Run, target: Target, delay_ms: u64, lasting: Duration) -> bool {
    let slow = |faults: &mut Faults| faults.sync_delay = Duration::from_millis(delay_ms);
    with(run, target, lasting, slow).await
}

/// The disk's fault has met its node.
async fn told(run: &Run, target: Target, lasting: Duration, fault: impl FnOnce(&mut Faults)) -> bool {
    let Some(id) = run.find(target) else { return false };
    let before = run.cluster.fail_stop().failures(id);
    with(run, Target::Node(id), lasting, fault).await && run.cluster.fail_stop().failures(id) > before
}

/// Syncs do not return.
pub(super) async fn stalled_syncs(run: &Run, target: Target, lasting: Duration) -> bool {
    with(run, target, lasting, |faults| faults.sync_stalled = true).await
}

/// The next sync fails; what was not synced is undefined.
pub(super) async fn failed_sync(run: &Run, target: Target, lasting: Duration) -> bool {
    told(run, target, lasting, |faults| faults.fail_next_sync = true).await
}

/// Reads fail.
pub(super) async fn read_errors(run: &Run, target: Target, lasting: Duration) -> bool {
    told(run, target, lasting, unreadable).await
}

/// A disk that dies: reads fail, and syncs are slow, so that the failure comes while others wait for them.
pub(super) fn unreadable(faults: &mut Faults) {
    faults.fail_reads = true;
    faults.sync_delay = faults.sync_delay.max(DYING);
}

/// No room for more than a little.
pub(super) async fn full(run: &Run, target: Target, lasting: Duration, choices: &mut SplitMix64) -> bool {
    let Some(id) = run.find(target) else { return false };
    let room = run.cluster.disk(id).used_bytes() + (LAST_ROOM << choices.below(9));
    let full = |faults: &mut Faults| faults.capacity_bytes = Some(room);
    told(run, Target::Node(id), lasting, full).await
}

/// Power cut, and a bit of what was synced is not what it was. The node is lost: it is replaced.
pub(super) async fn bit_flip(run: &Run, target: Target, part: Part, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    if !run.cluster.may_lose(id) {
        return false;
    }
    run.cluster.hold_down(id);
    run.cluster.cut_power(id);
    let disk = run.cluster.disk(id);
    let flipped = match part {
        Part::Mark => {
            disk.flip_bit();
            true
        }
        Part::Log => disk.flip_bit_in(Family::RaftLog),
        Part::Vote => disk.flip_bit_at(Family::RaftMeta, VOTE),
        Part::State => disk.flip_bit_in(Family::Account),
        Part::Claim => disk.flip_bit_in(Family::Claim),
        Part::Request => disk.flip_bit_in(Family::Request),
        Part::Change => disk.flip_bit_in(Family::Change),
        Part::Meta => disk.flip_bit_in(Family::Meta),
    };
    if !flipped {
        disk.flip_bit();
    }
    sleep(DARK).await;
    run.cluster.release(id);
    sleep(lasting / 2).await;
    operators::put_in_place_of(run, id, lasting / 2).await;
    flipped
}

/// A bit of an account is not what it was. Nobody may notice for long, except whoever reads all of it: a new node is
/// set up at once, which gets its state from the leader. Then the damaged node is replaced.
pub(super) async fn bit_rot(run: &Run, target: Target, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    if !run.cluster.may_lose(id) {
        return false;
    }
    let flipped = run.cluster.disk(id).flip_bit_in(Family::Account);
    operators::add_node(run, lasting / 2).await;
    operators::put_in_place_of(run, id, lasting / 2).await;
    flipped
}

/// Power cut, and everything on the disk is lost. The node is started again as if nothing had happened, and refused;
/// then it is replaced.
pub(super) async fn wipe(run: &Run, target: Target, told: bool, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    if !run.cluster.may_lose(id) {
        return false;
    }
    run.cluster.hold_down(id);
    run.cluster.cut_power(id);
    sleep(DARK).await;
    run.cluster.wipe(id);
    run.cluster.release(id);
    if !told {
        network::alone(run, run.cluster.place(id), DEAF).await;
    }
    sleep(lasting / 2).await;
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
    cluster.disk(id).configure(|faults| *faults = healthy);
}
