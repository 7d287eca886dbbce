//! What a node says of itself and of its shard.

use std::time::Duration;

use holdfast_consensus::{GroupStatus, MemberRole, PeerAddresses, Role};
use holdfast_machine::FEATURE_LEVEL;
use holdfast_types::{Family, Placement};
use holdfast_wire::convert::time;
use holdfast_wire::v1;

use crate::background::alarms;
use crate::core::{Core, SHARD};
use crate::lifecycle::Phase;

pub(super) fn node_status(core: &Core) -> v1::NodeStatus {
    let usage = core.engine.usage().unwrap_or_default();
    let log_bytes = usage
        .families
        .iter()
        .find(|(family, _)| *family == Family::RaftLog);
    let state: u64 = usage
        .families
        .iter()
        .filter(|(family, _)| Family::STATE.contains(family))
        .map(|(_, bytes)| bytes)
        .sum();
    let serving = match core.lifecycle.phase() {
        Phase::Starting => v1::ServingState::Starting,
        Phase::Serving => v1::ServingState::Serving,
        Phase::Draining | Phase::Stopping | Phase::Stopped => v1::ServingState::Draining,
    };
    v1::NodeStatus {
        node_id: core.node_id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        supported_feature_level: FEATURE_LEVEL,
        serving: serving.into(),
        start_time: Some(time::timestamp(core.started_wall)),
        addresses: core.group.members().get(&core.node_id()).map(to_message),
        disk: Some(v1::DiskStatus {
            data_path: core.config.node.data_dir.display().to_string(),
            total_bytes: usage.disk_total_bytes.unwrap_or(0),
            free_bytes: usage.disk_free_bytes.unwrap_or(0),
            state_bytes: state,
            log_bytes: log_bytes.map_or(0, |(_, bytes)| *bytes),
        }),
        alarms: alarms(core),
    }
}

pub(super) fn shard_status(core: &Core) -> v1::ShardStatus {
    let status = core.group.status();
    let (applied_index, state) = core.group.applied();
    let index =
        |position: Option<holdfast_consensus::LogPosition>| position.map_or(0, |position| position.index);
    let last_log_index = index(status.last_log);
    let role = match status.role {
        Role::Leader => v1::ReplicaRole::Leader,
        Role::Follower => v1::ReplicaRole::Follower,
        Role::Candidate => v1::ReplicaRole::Candidate,
        Role::Learner => v1::ReplicaRole::Learner,
        Role::Stopped => v1::ReplicaRole::Unspecified,
    };
    let leads = status.role == Role::Leader;
    v1::ShardStatus {
        shard: SHARD.0,
        epoch: state.epoch.0,
        placement: u32::from(Placement(0).0),
        first_slot: 0,
        last_slot: u32::from(u16::MAX),
        role: role.into(),
        leader_node_id: status.leader.unwrap_or(0),
        term: status.term,
        last_log_index,
        committed_index: index(status.committed),
        applied_index,
        snapshot_index: index(status.snapshot),
        purged_index: index(status.purged),
        feature_level: state.feature_level,
        log_time: Some(time::timestamp(state.stamp.millis())),
        staleness: core.group.staleness().map(time::duration),
        membership: Some(membership(&status)),
        progress: status
            .members
            .iter()
            .filter(|_| leads)
            .map(|member| v1::MemberProgress {
                node_id: member.id,
                matched_index: member.matched,
                lag_entries: last_log_index.saturating_sub(member.matched.unwrap_or(0)),
                last_heard: member
                    .last_heard_ms
                    .map(|ms| time::duration(Duration::from_millis(ms))),
            })
            .collect(),
        state_digest: bytes::Bytes::copy_from_slice(&state.digest),
    }
}

pub(super) fn membership(status: &GroupStatus) -> v1::Membership {
    v1::Membership {
        membership_id: status.membership_id.clone(),
        members: status
            .members
            .iter()
            .map(|member| v1::Member {
                node_id: member.id,
                role: match member.role {
                    MemberRole::Voter => v1::MemberRole::Voter,
                    MemberRole::Learner => v1::MemberRole::Learner,
                }
                .into(),
                addresses: Some(to_message(&member.addresses)),
            })
            .collect(),
    }
}

pub(super) fn to_message(addresses: &PeerAddresses) -> v1::MemberAddresses {
    v1::MemberAddresses {
        peer: addresses.peer.clone(),
        client: addresses.client.clone(),
        admin: addresses.admin.clone(),
    }
}
