//! What a group does by itself: tells who leads, purges its log, hands leadership over when its disk is
//! stuck, finishes membership changes that a failed leader left half done, and notices that Raft has died.

use std::sync::Arc;
use std::time::Duration;

use holdfast_markers::{crash_point, reached};
use holdfast_types::NodeId;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use openraft::{ChangeMembers, Precondition, RaftMetrics};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::barrier::Barrier;
use crate::log_writer::LogWriter;
use crate::membership::best_successor;
use crate::peers::Peers;
use crate::status::Leadership;
use crate::type_config::{LogId, Raft, TypeConfig};
use crate::{ConsensusConfig, FatalSink};

/// How long a half-done membership change may rest before the leader finishes it.
const JOINT_REST_MAX: Duration = Duration::from_secs(5);

/// How many times the usual reserve is kept for the receivers of snapshots.
const RECEIVER_SHARE: u64 = 4;
/// How often what the members hold is written down.
const STORE_EVERY: Duration = Duration::from_secs(5);

/// Keeps [`Leadership`] up to date. A leader is `ready` once a barrier of its own term has been passed.
pub(crate) async fn watch_leadership(
    raft: Raft,
    barrier: Barrier,
    sender: Arc<watch::Sender<Leadership>>,
    barrier_ttl: Duration,
) {
    let mut receiver = raft.metrics();
    loop {
        let (term, leader, is_me) = {
            let metrics = receiver.borrow_and_update();
            (
                metrics.current_term,
                metrics.current_leader,
                metrics.current_leader == Some(metrics.id),
            )
        };
        let changed = sender.send_if_modified(|current| {
            let ready = is_me && current.ready && current.term == term;
            let next = Leadership {
                term,
                leader,
                is_me,
                ready,
            };
            let changed = *current != next;
            *current = next;
            changed
        });
        if changed {
            metrics::counter!("holdfast_leader_changes_total").increment(1);
            metrics::gauge!("holdfast_raft_is_leader").set(f64::from(u8::from(is_me)));
            metrics::gauge!("holdfast_raft_term").set(term as f64);
            tracing::info!(term, leader, is_me, "leadership changed");
            crash_point!("leadership.changed").await;
        }
        if is_me && !sender.borrow().ready {
            if let Ok(point) = barrier.pass(Instant::now() + barrier_ttl).await
                && point.term == Some(term)
            {
                sender.send_if_modified(|current| {
                    let still = current.is_me && current.term == term;
                    current.ready = still;
                    still
                });
            }
            // Look again whether or not it passed: the term may have ended meanwhile.
            if !sender.borrow().ready {
                reached!("leadership.own-barrier-missed");
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
        }
        if receiver.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until the log that this node started with is either committed and applied again, or gone.
///
/// openraft's own `wait_for_recovery` compares with the log as it grows, which under a steady load a follower's
/// commit index never catches up with.
pub(crate) async fn watch_recovery(raft: Raft, tail: Option<u64>, recovered: watch::Sender<bool>) {
    let mut receiver = raft.metrics();
    loop {
        let done = {
            let metrics = receiver.borrow_and_update();
            let index = |id: Option<LogId>| id.map(|id| id.index);
            // A leader may have cut the tail off.
            let target = tail.min(metrics.last_log_index);
            let committed = index(metrics.cluster_committed);
            committed.is_some() && committed >= target && index(metrics.last_applied) >= target
        };
        if done {
            recovered.send_replace(true);
            return;
        }
        reached!("recovery.waited");
        if receiver.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps the staleness bound of a node fresh that nobody reads from.
pub(crate) async fn probe_staleness(barrier: Barrier, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        if barrier.staleness().is_none_or(|age| age >= every) {
            // Without a leader the bound grows, which is the truth.
            drop(barrier.pass(Instant::now() + every).await);
        }
    }
}

/// A node that has failed neither votes nor leads nor says that it is alive, whoever noticed the failure.
pub(crate) async fn stop_when_fatal(raft: Raft, fatal: FatalSink) {
    fatal.wait().await;
    reached!("raft.stopped-by-failure");
    if let Err(error) = raft.shutdown().await {
        tracing::warn!(%error, "raft did not stop cleanly");
    }
}

/// The regular round.
pub(crate) struct Maintenance {
    pub(crate) config: Arc<ConsensusConfig>,
    pub(crate) raft: Raft,
    pub(crate) writer: LogWriter,
    pub(crate) peers: Arc<Peers>,
    pub(crate) fatal: FatalSink,
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Maintenance {
    pub(crate) async fn run(self) {
        let every = Duration::from_millis(self.config.heartbeat_interval_ms);
        let mut snapshot_asked_at = None;
        let mut purge_asked_at = None;
        let mut handed_over_at: Option<Instant> = None;
        let mut joint_since: Option<(u64, Instant)> = None;
        let mut stored_at = Instant::now();
        loop {
            tokio::time::sleep(every).await;
            let metrics = self.raft.metrics().borrow_watched().clone();
            if let Err(error) = &metrics.running_state {
                if !*self.stopping.borrow() {
                    self.fatal.report(died(error));
                }
                return;
            }
            let applied = metrics.last_applied.map_or(0, |id| id.index);
            let snapshot = metrics.snapshot.map_or(0, |id| id.index);
            let due = snapshot_due(
                applied,
                snapshot,
                self.config.log_entries_kept,
                place_of(&metrics),
            );
            if due && snapshot_asked_at != Some(snapshot) {
                snapshot_asked_at = Some(snapshot);
                drop(self.fatal.unless_failed(self.raft.trigger().snapshot()).await);
            }
            if let Some(upto) = purge_upto(&self.positions(&metrics), &self.config)
                && purge_asked_at != Some(upto)
            {
                purge_asked_at = Some(upto);
                drop(
                    self.fatal
                        .unless_failed(self.raft.trigger().purge_log(upto))
                        .await,
                );
            }
            self.note_own(&metrics);
            // A stalled engine would hold up this round; this can wait.
            let idle = self.writer.sync_age().is_none();
            if stored_at.elapsed() >= STORE_EVERY && idle && self.fatal.reason().is_none() {
                stored_at = Instant::now();
                if let Err(error) = self.peers.acknowledged.store() {
                    self.fatal
                        .report(format!("writing down what the peers hold failed: {error}"));
                    return;
                }
            }
            if metrics.current_leader != Some(metrics.id) {
                joint_since = None;
                continue;
            }
            self.hand_over_if_stuck(&metrics, &mut handed_over_at).await;
            self.finish_joint(&metrics, &mut joint_since);
        }
    }

    /// Looks at where everybody stands, and forgets receivers of snapshots that have caught up.
    fn positions(&self, metrics: &RaftMetrics<TypeConfig>) -> Positions {
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        let applied = index(metrics.last_applied);
        let matched = metrics.replication.as_ref();
        let mut receivers = self.peers.receiving();
        receivers.retain(|node, _| {
            let matched = matched.and_then(|matched| matched.get(node));
            matched.is_some_and(|id| index(*id) < applied.saturating_sub(self.config.log_entries_kept))
        });
        let receiving = receivers
            .iter()
            .map(|(node, snapshot)| {
                let matched = matched.and_then(|matched| matched.get(node).copied().flatten());
                index(matched).max(*snapshot)
            })
            .min();
        Positions {
            snapshot: index(metrics.snapshot),
            applied,
            purged: index(metrics.purged),
            needed: matched.and_then(|matched| matched.values().map(|id| index(*id)).min()),
            receiving,
        }
    }

    /// A leader's own log counts for its quorums too, so the others are told how far it goes. What its followers
    /// say is noted where it arrives.
    fn note_own(&self, metrics: &RaftMetrics<TypeConfig>) {
        if metrics.current_leader != Some(metrics.id) {
            return;
        }
        let term = metrics.current_term;
        if let Some(committed) = metrics.cluster_committed {
            self.peers.acknowledged.committed(term, committed.index);
        }
        let own = metrics
            .replication
            .as_ref()
            .and_then(|replication| replication.get(&metrics.id).copied().flatten());
        if let Some(own) = own {
            self.peers.acknowledged.matched(term, metrics.id, own.index);
        }
    }

    /// Heartbeats need no disk, so a leader whose disk hangs would lead for ever and commit nothing alone.
    async fn hand_over_if_stuck(
        &self,
        metrics: &RaftMetrics<TypeConfig>,
        handed_over_at: &mut Option<Instant>,
    ) {
        let limit = Duration::from_millis(self.config.election_timeout_ms_max);
        let stuck = self.writer.sync_age().is_some_and(|age| age > limit);
        let recently = handed_over_at.is_some_and(|at| at.elapsed() < limit);
        if !stuck || recently {
            return;
        }
        let Some(to) = best_successor(metrics, &[]) else {
            return;
        };
        reached!("leadership.handed-over-for-slow-disk");
        tracing::warn!(
            to,
            "the disk has not finished a write or a sync for {limit:?}; handing leadership over"
        );
        metrics::counter!("holdfast_raft_slow_disk_handovers_total").increment(1);
        *handed_over_at = Some(Instant::now());
        drop(
            self.fatal
                .unless_failed(self.raft.trigger().transfer_leader(to))
                .await,
        );
    }

    /// Finishes a change whose leader went away between its two entries.
    fn finish_joint(&self, metrics: &RaftMetrics<TypeConfig>, since: &mut Option<(u64, Instant)>) {
        let membership = &metrics.membership_config;
        let committed = membership.log_id() == metrics.committed_membership_config.log_id();
        // Who is no member any more steps down, and decides nothing on its way.
        let is_member = membership.get_node(&metrics.id).is_some();
        let Some(id) = membership
            .log_id()
            .filter(|_| membership.get_joint_config().len() > 1 && committed && is_member)
        else {
            *since = None;
            return;
        };
        match since {
            Some((index, began)) if *index == id.index => {
                if began.elapsed() < JOINT_REST_MAX {
                    return;
                }
                *began = Instant::now();
                reached!("membership.half-done-change-finished");
                tracing::info!("finishing a membership change that was left half done");
                let raft = self.raft.clone();
                // Only this change: if another has ended it meanwhile, there is nothing left to do.
                let precondition = Precondition::LastMembershipLogId {
                    last_membership_log_id: Some(id),
                };
                tokio::spawn(async move {
                    let nothing = ChangeMembers::<NodeId, _>::AddVoterIds(Default::default());
                    let changed = raft.change_membership_if(nothing, false, [precondition]).await;
                    if let Err(error) = changed {
                        tracing::warn!(%error, "a half-done membership change could not be finished yet");
                    }
                });
            }
            _ => *since = Some((id.index, Instant::now())),
        }
    }
}

fn died(error: &Fatal<TypeConfig>) -> String {
    match error {
        Fatal::Stopped => "raft stopped by itself".into(),
        error => format!("raft has died: {error}"),
    }
}

/// A member's place among all of them, and how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    before: u64,
    members: u64,
}

fn place_of(metrics: &RaftMetrics<TypeConfig>) -> Place {
    let (mut before, mut members) = (0, 0);
    for (node, _) in metrics.membership_config.nodes() {
        before += u64::from(*node < metrics.id);
        members += 1;
    }
    Place { before, members }
}

/// Whether it is time for a snapshot, which flushes the memory tables: whenever what is applied passes a multiple of `every`
/// entries, shifted by the member's place. A flush, and the compaction that may follow, makes a member slow; if all flushed
/// at the same entry, every quorum would have a slow member.
fn snapshot_due(applied: u64, snapshot: u64, every: u64, place: Place) -> bool {
    let every = every.max(1);
    let shift = every * place.before / place.members.max(1);
    (applied + shift) / every > (snapshot + shift) / every
}

/// Where everybody stands, as far as purging the log goes.
#[derive(Debug, Default)]
struct Positions {
    snapshot: u64,
    applied: u64,
    purged: u64,
    /// The least that a member has, if this node leads.
    needed: Option<u64>,
    /// The least that a member has that receives a snapshot, or did and has not caught up.
    receiving: Option<u64>,
}

/// How far the log may be purged now, if that is worth an entry in it: what every voter and learner has, and a
/// reserve for those that were away briefly; past those that are hopelessly behind, which get a snapshot. Who
/// receives one needs what comes after it: that is kept, up to four times the reserve for all others, so that under
/// load the snapshot is not out of date when it arrives.
fn purge_upto(at: &Positions, config: &ConsensusConfig) -> Option<u64> {
    let kept_max = config.log_entries_kept_max;
    let mut upto = at.applied.checked_sub(config.log_entries_kept)?;
    if let Some(needed) = at.needed {
        if needed < at.applied.saturating_sub(kept_max) {
            reached!("log.purged-past-a-laggard");
        }
        upto = upto.min(needed.max(at.applied.saturating_sub(kept_max)));
    }
    if let Some(receiving) = at.receiving {
        let most = kept_max.saturating_mul(RECEIVER_SHARE);
        upto = upto.min(receiving.max(at.applied.saturating_sub(most)));
    }
    let upto = upto.min(at.snapshot);
    // A tenth at a time, so that a purge is rare beside what it removes.
    (upto > at.purged + config.log_entries_kept / 10).then_some(upto)
}

#[cfg(test)]
mod tests {
    use holdfast_types::ClusterId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn members_take_their_snapshots_one_after_the_other() {
        let due_at = |before| {
            let place = Place { before, members: 3 };
            let mut snapshot = 0;
            let mut taken = Vec::new();
            for applied in 0..600 {
                if snapshot_due(applied, snapshot, 300, place) {
                    snapshot = applied;
                    taken.push(applied);
                }
            }
            taken
        };
        assert_eq!(due_at(0), [300]);
        assert_eq!(due_at(1), [200, 500]);
        assert_eq!(due_at(2), [100, 400]);
    }

    #[test]
    fn a_snapshot_is_due_after_as_many_entries_whatever_was_passed_at_once() {
        let place = Place {
            before: 1,
            members: 2,
        };
        assert!(snapshot_due(1_000, 0, 10, place));
        assert!(!snapshot_due(1_004, 1_000, 10, place));
        assert!(snapshot_due(1_005, 1_000, 10, place));
        // Nobody is a member yet, or everything counts.
        let alone = Place {
            before: 0,
            members: 0,
        };
        assert!(snapshot_due(1, 0, 0, alone));
    }

    #[test]
    fn the_log_behind_a_snapshot_is_kept_for_its_receiver() {
        let config = ConsensusConfig {
            log_entries_kept: 10,
            log_entries_kept_max: 100,
            ..ConsensusConfig::new(ClusterId(Uuid::nil()), 1)
        };
        let mut at = Positions {
            snapshot: 1_000,
            applied: 1_000,
            needed: Some(5),
            ..Positions::default()
        };
        let past_the_hopeless = purge_upto(&at, &config);
        assert_eq!(past_the_hopeless, Some(900));
        at.receiving = Some(700);
        assert_eq!(purge_upto(&at, &config), Some(700));
        at.receiving = Some(5);
        assert_eq!(purge_upto(&at, &config), Some(600), "not for ever");
        at.purged = 600;
        assert_eq!(purge_upto(&at, &config), None);
    }
}
