//! Who is a member: adding, promoting, removing, handing leadership over.
//!
//! A change that turns voters over goes through Raft's joint consensus in two entries. The caller may name the
//! membership it decided upon; if that is no longer the one in force, nothing happens. A change runs to its
//! end even if its caller gives up; if the leader fails in between, the next one finishes it
//! ([`maintenance`](crate::maintenance)).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_markers::{crash_point, reached};
use holdfast_types::NodeId;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, PreconditionFailed, RaftError};
use openraft::{ChangeMembers, Precondition, RaftMetrics};
use tokio::time::Instant;

use crate::PeerAddresses;
use crate::error::MembershipError;
use crate::runtime::{timeout, timeout_at};
use crate::status::LogPosition;
use crate::type_config::{LogId, Raft, TypeConfig, log_id};

/// How close to the end of the log a learner must be before it gets a vote.
const CAUGHT_UP_ENTRIES: u64 = 1_000;

/// A membership id as it is shown: "term-index", or empty before the first.
pub(crate) fn show_id(id: Option<&LogId>) -> String {
    id.map_or_else(String::new, |id| {
        LogPosition {
            term: id.leader_id.term,
            index: id.index,
        }
        .to_string()
    })
}

fn parse_id(text: &str) -> Result<Option<LogId>, MembershipError> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text
        .split_once('-')
        .and_then(|(term, index)| Some(log_id(term.parse().ok()?, index.parse().ok()?)));
    match parsed {
        Some(id) => Ok(Some(id)),
        None => Err(MembershipError::Refused(format!(
            "{text:?} is not a membership id; one looks like \"3-1042\""
        ))),
    }
}

/// The leader's view of the group, for one change.
pub(crate) struct Change {
    raft: Raft,
    expected: Option<String>,
    deadline: Instant,
    metrics: RaftMetrics<TypeConfig>,
}

impl Change {
    /// Checks that this node leads the membership the caller expects.
    pub(crate) fn begin(
        raft: &Raft,
        expected: Option<String>,
        deadline: Instant,
    ) -> Result<Change, MembershipError> {
        let metrics = raft.metrics().borrow_watched().clone();
        may_change(&metrics, expected.as_deref())?;
        Ok(Change {
            raft: raft.clone(),
            expected,
            deadline,
            metrics,
        })
    }

    fn current_id(&self) -> String {
        show_id(self.metrics.membership_config.log_id().as_ref())
    }

    fn is_voter(&self, id: NodeId) -> bool {
        self.metrics
            .membership_config
            .voter_ids()
            .any(|voter| voter == id)
    }

    fn node(&self, id: NodeId) -> Option<&PeerAddresses> {
        self.metrics.membership_config.get_node(&id)
    }

    /// Adds a member without a vote.
    pub(crate) async fn add_learner(
        self,
        id: NodeId,
        addresses: PeerAddresses,
    ) -> Result<String, MembershipError> {
        match self.node(id) {
            Some(known) if known.same_ports(&addresses) => return Ok(self.current_id()),
            Some(known) => {
                return Err(MembershipError::Refused(format!(
                    "node {id} is already a member, at {}; an id belongs to one node for ever",
                    known.peer
                )));
            }
            None => {}
        }
        if let Some((other, _)) = self
            .metrics
            .membership_config
            .nodes()
            .find(|(_, node)| node.peer == addresses.peer)
        {
            return Err(MembershipError::Refused(format!(
                "node {other} already has the peer address {}",
                addresses.peer
            )));
        }
        self.run(ChangeMembers::AddNodes(BTreeMap::from([(id, addresses)])), true)
            .await
    }

    /// Gives a learner a vote, once it is close to the end of the log.
    pub(crate) async fn promote(self, id: NodeId) -> Result<String, MembershipError> {
        if self.is_voter(id) {
            return Ok(self.current_id());
        }
        if self.node(id).is_none() {
            return Err(MembershipError::Refused(format!(
                "node {id} is not a member; add it as a learner first"
            )));
        }
        self.caught_up(id).await?;
        self.run(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true)
            .await
    }

    /// Puts the learner `new` in the place of `old`: one change, so that at no moment there are more or fewer
    /// voters than before.
    pub(crate) async fn replace(self, old: NodeId, new: NodeId) -> Result<String, MembershipError> {
        if !self.is_voter(old) {
            return Err(MembershipError::Refused(format!(
                "node {old} has no vote to pass on"
            )));
        }
        if self.node(new).is_none() {
            return Err(MembershipError::Refused(format!(
                "node {new} is not a member; add it as a learner first"
            )));
        }
        self.caught_up(new).await?;
        let voters = self.metrics.membership_config.voter_ids();
        let voters = voters.filter(|voter| *voter != old).chain([new]).collect();
        self.run(ChangeMembers::ReplaceAllVoters(voters), false).await
    }

    /// Waits until a learner is close to the end of the log.
    async fn caught_up(&self, id: NodeId) -> Result<(), MembershipError> {
        let caught_up = async {
            loop {
                let behind = self.behind(id)?;
                if behind <= CAUGHT_UP_ENTRIES {
                    return Ok(());
                }
                reached!("membership.waited-for-catch-up");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match timeout_at(self.deadline, caught_up).await {
            Ok(result) => {
                crash_point!("membership.caught-up").await;
                result
            }
            Err(_) => {
                reached!("membership.not-caught-up");
                // A node that never took an entry is behind by nobody knows how much.
                let lag = match self.behind(id)? {
                    u64::MAX => "has not taken anything from this leader yet".to_owned(),
                    behind => format!("is still {behind} log entries behind"),
                };
                Err(MembershipError::Refused(format!(
                    "node {id} {lag}; wait until it has caught up"
                )))
            }
        }
    }

    fn behind(&self, id: NodeId) -> Result<u64, MembershipError> {
        let receiver = self.raft.metrics();
        let metrics = receiver.borrow_watched();
        let Some(replication) = &metrics.replication else {
            return Err(MembershipError::NotLeader {
                leader: metrics.current_leader,
            });
        };
        let next = |index: Option<u64>| index.map_or(0, |index| index + 1);
        let matched = replication
            .get(&id)
            .and_then(|matched| matched.map(|id| id.index));
        // A log that never began is never caught up, even with a short one.
        Ok(match matched {
            Some(_) => next(metrics.last_log_index).saturating_sub(next(matched)),
            None => u64::MAX,
        })
    }

    /// Removes a member, voter or not.
    pub(crate) async fn remove(self, id: NodeId) -> Result<String, MembershipError> {
        if self.node(id).is_none() {
            return Ok(self.current_id());
        }
        if !self.is_voter(id) {
            return self
                .run(ChangeMembers::RemoveNodes(BTreeSet::from([id])), false)
                .await;
        }
        if self.metrics.membership_config.voter_ids().count() == 1 {
            return Err(MembershipError::Refused(format!(
                "node {id} is the only voter; promote another before removing it"
            )));
        }
        self.run(ChangeMembers::RemoveVoters(BTreeSet::from([id])), false)
            .await
    }

    /// Commits a change. The task goes on if the caller gives up: a change must not stop half way.
    async fn run(
        self,
        members: ChangeMembers<NodeId, PeerAddresses>,
        retain: bool,
    ) -> Result<String, MembershipError> {
        let before = *self.metrics.membership_config.log_id();
        // Decided upon this membership, whether the caller named it or not.
        let precondition = Precondition::LastMembershipLogId {
            last_membership_log_id: before,
        };
        let raft = self.raft.clone();
        let task = tokio::spawn(async move {
            let changed = raft.change_membership_if(members, retain, [precondition]).await;
            crash_point!("membership.change-ended").await;
            changed
        });
        let unknown = |why: String| MembershipError::Unknown { why };
        let error = match timeout_at(self.deadline, task).await {
            Err(_) => {
                reached!("membership.change-outlived-caller");
                return Err(unknown("the deadline passed first; it goes on".into()));
            }
            Ok(Err(join)) => return Err(unknown(join.to_string())),
            Ok(Ok(Ok(response))) => return Ok(show_id(Some(&response.log_id))),
            Ok(Ok(Err(error))) => error,
        };
        let now = *self.raft.metrics().borrow_watched().membership_config.log_id();
        let first_step_done = now != before;
        match error {
            RaftError::APIError(ClientWriteError::PreconditionFailed(
                PreconditionFailed::LastMembershipLogIdMismatch { actual, .. },
            )) => Err(MembershipError::Changed {
                expected: self.expected.unwrap_or_else(|| show_id(before.as_ref())),
                found: show_id(actual.as_ref()),
            }),
            // The second of two entries failed, or somebody else's change came first: look again.
            error if first_step_done => Err(unknown(error.to_string())),
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                Err(MembershipError::NotLeader {
                    leader: forward.leader_id,
                })
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_),
            )) => {
                reached!("membership.busy");
                Err(MembershipError::Busy)
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
                Err(MembershipError::Refused(error.to_string()))
            }
            error => Err(unknown(error.to_string())),
        }
    }
}

/// Whether a node with this view of the group may change its membership, which the caller expects to be `expected`. What
/// is checked here still holds when the change is proposed: it names this membership as its precondition.
fn may_change(metrics: &RaftMetrics<TypeConfig>, expected: Option<&str>) -> Result<(), MembershipError> {
    if metrics.current_leader != Some(metrics.id) {
        return Err(MembershipError::NotLeader {
            leader: metrics.current_leader,
        });
    }
    let membership = &metrics.membership_config;
    // A leader that has removed itself leads on for a moment, so that the others learn of it. Whatever it then changed
    // would be decided by a node that is no member, and openraft asserts that this never happens.
    if membership.get_node(&metrics.id).is_none() {
        reached!("membership.leader-is-no-member");
        return Err(MembershipError::NotLeader { leader: None });
    }
    if let Some(expected) = expected {
        let found = show_id(membership.log_id().as_ref());
        // So that "03-1" and "3-1" are the same.
        if show_id(parse_id(expected)?.as_ref()) != found {
            reached!("membership.not-as-expected");
            return Err(MembershipError::Changed {
                expected: expected.to_owned(),
                found,
            });
        }
    }
    // A change that was left half done is in force, and openraft would take another on top of it: decided upon voters
    // that are about to leave, and ended by a leader that may be one of them, which openraft asserts cannot be. The
    // leader finishes it soon, whoever began it.
    if membership.get_joint_config().len() > 1 {
        reached!("membership.half-done-change-in-the-way");
        return Err(MembershipError::Busy);
    }
    Ok(())
}

/// The voter with the most of the log, other than this node. One of `avoid` only if there is no other.
pub(crate) fn best_successor(metrics: &RaftMetrics<TypeConfig>, avoid: &[NodeId]) -> Option<NodeId> {
    let replication = metrics.replication.as_ref()?;
    metrics
        .membership_config
        .voter_ids()
        .filter(|id| *id != metrics.id)
        .filter_map(|id| {
            let matched = replication.get(&id).copied().flatten()?;
            Some((!avoid.contains(&id), matched, std::cmp::Reverse(id)))
        })
        .max()
        .map(|(_, _, std::cmp::Reverse(id))| id)
}

/// Hands leadership over and waits until another node leads.
pub(crate) async fn transfer_leadership(
    raft: &Raft,
    to: Option<NodeId>,
    avoid: &[NodeId],
    deadline: Instant,
    attempt_ttl: Duration,
) -> Result<NodeId, MembershipError> {
    loop {
        let metrics = raft.metrics().borrow_watched().clone();
        let me = metrics.id;
        if metrics.current_leader != Some(me) {
            return Err(MembershipError::NotLeader {
                leader: metrics.current_leader,
            });
        }
        let target = match to {
            Some(id) if id == me => return Ok(me),
            Some(id) if metrics.membership_config.voter_ids().any(|voter| voter == id) => id,
            Some(id) => {
                return Err(MembershipError::Refused(format!(
                    "node {id} has no vote, so it cannot lead"
                )));
            }
            None => best_successor(&metrics, avoid).ok_or_else(|| {
                MembershipError::Refused("there is no other voter to hand leadership to".into())
            })?,
        };
        raft.trigger()
            .transfer_leader(target)
            .await
            .map_err(|error| MembershipError::Unknown {
                why: error.to_string(),
            })?;
        let mut receiver = raft.metrics();
        let changed = async {
            loop {
                let leader = receiver.borrow_and_update().current_leader;
                if let Some(leader) = leader.filter(|leader| *leader != me) {
                    return Some(leader);
                }
                if receiver.changed().await.is_err() {
                    return None;
                }
            }
        };
        let remaining = deadline.saturating_duration_since(Instant::now());
        match timeout(remaining.min(attempt_ttl), changed).await {
            Ok(Some(leader)) => return Ok(leader),
            Ok(None) => {
                return Err(MembershipError::Unknown {
                    why: "this node is stopping".into(),
                });
            }
            Err(_) if Instant::now() >= deadline => {
                reached!("leadership.not-taken-over");
                return Err(MembershipError::Unknown {
                    why: format!("node {target} has not taken over in time"),
                });
            }
            Err(_) => reached!("leadership.offered-again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::type_config::{Membership, StoredMembership};

    /// What node 1 knows, which leads a group with these voters.
    fn leading(configurations: &[&[u64]]) -> RaftMetrics<TypeConfig> {
        let sets = configurations.iter().map(|set| set.iter().copied().collect());
        let sets: Vec<BTreeSet<u64>> = sets.collect();
        let nodes: BTreeMap<u64, PeerAddresses> = sets
            .iter()
            .flatten()
            .map(|id| (*id, PeerAddresses::default()))
            .collect();
        let mut metrics = RaftMetrics::<TypeConfig>::new_initial(1);
        metrics.current_leader = Some(1);
        let membership = Membership::new(sets, nodes).unwrap();
        metrics.membership_config =
            std::sync::Arc::new(StoredMembership::new(Some(log_id(3, 7)), membership));
        metrics
    }

    #[test]
    fn a_change_waits_for_the_end_of_the_one_before() {
        assert_eq!(may_change(&leading(&[&[1, 2, 3]]), Some("3-7")), Ok(()));
        // Node 1's own removal was left half done, and it was elected again: nothing else may come on top of it.
        let half = leading(&[&[1, 2, 3], &[2, 3]]);
        assert_eq!(may_change(&half, None), Err(MembershipError::Busy));
        let changed = may_change(&half, Some("3-6"));
        assert!(
            matches!(changed, Err(MembershipError::Changed { .. })),
            "{changed:?}"
        );
    }

    #[test]
    fn who_is_no_member_changes_nothing() {
        let refused = may_change(&leading(&[&[2, 3]]), None);
        assert_eq!(refused, Err(MembershipError::NotLeader { leader: None }));
    }
}
