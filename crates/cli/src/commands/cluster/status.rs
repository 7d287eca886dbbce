//! `holdfast cluster status`

use clap::Args;
use holdfast_client::v1;
use serde_json::{Value, json};

use super::membership;
use super::nodes::{self, Found};
use crate::args::Global;
use crate::exit::{Exit, Failure};
use crate::json::time_text;
use crate::output::{self, Format};

/// Show the nodes: roles, progress, disks, alarms. Ends with exit code 5 if no leader is known.
#[derive(Debug, Args)]
pub(crate) struct Status {}

/// Runs the command.
pub(super) async fn run(_: &Status, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let found = nodes::all(&client, global).await?;
    if let Some(why) = found
        .iter()
        .all(|found| found.status.is_err())
        .then(|| reasons(&found))
    {
        return Err(Failure::new(Exit::Unavailable, format!("no node answers: {why}"))
            .hint("is the cluster running, and are --admin-endpoints right?"));
    }
    match global.output {
        Format::Json => {
            output::line(&json!({ "nodes": found.iter().map(document).collect::<Vec<_>>() }).to_string())?
        }
        Format::Human => output::line(&text(&found))?,
    }
    if !led(&found) {
        return Err(Failure::new(Exit::Unavailable, "no leader is known")
            .hint("an election takes a second or two; if it lasts, more than half of the voters are down"));
    }
    Ok(())
}

fn reasons(found: &[Found]) -> String {
    let mut reasons: Vec<String> = found
        .iter()
        .filter_map(|found| {
            found
                .status
                .as_ref()
                .err()
                .map(|error| format!("{}: {error}", found.address))
        })
        .collect();
    reasons.dedup();
    reasons.join("; ")
}

/// The status of the node that leads the first shard.
fn leader(found: &[Found]) -> Option<&v1::GetStatusResponse> {
    found
        .iter()
        .filter_map(|found| found.status.as_ref().ok())
        .find(|status| {
            status
                .shards
                .first()
                .is_some_and(|shard| shard.role() == v1::ReplicaRole::Leader)
        })
}

/// Whether a leader that is heard of by a quorum is known. A leader that lost its quorum may go on calling itself
/// one for a while, so what counts is whom it heard of, or how fresh what a follower has from it is.
fn led(found: &[Found]) -> bool {
    found
        .iter()
        .filter_map(|found| found.status.as_ref().ok())
        .filter_map(|status| status.shards.first())
        .any(|shard| {
            if shard.role() == v1::ReplicaRole::Leader {
                return hears_quorum(shard);
            }
            shard.leader_node_id != 0 && shard.staleness.is_some_and(is_recent)
        })
}

fn hears_quorum(leader: &v1::ShardStatus) -> bool {
    let members = leader
        .membership
        .as_ref()
        .map(|membership| membership.members.as_slice())
        .unwrap_or_default();
    let voters: Vec<u64> = members
        .iter()
        .filter(|member| member.role() == v1::MemberRole::Voter)
        .map(|member| member.node_id)
        .collect();
    let heard = |voter: &&u64| {
        **voter == leader.leader_node_id
            || leader
                .progress
                .iter()
                .any(|p| p.node_id == **voter && p.last_heard.is_some_and(is_recent))
    };
    voters.iter().filter(heard).count() * 2 > voters.len()
}

/// Longer than an election takes, a leader was not silent.
fn is_recent(age: prost_types::Duration) -> bool {
    millis(age) < 5_000
}

fn membership_of(status: &v1::GetStatusResponse) -> Option<&v1::Membership> {
    status.shards.first()?.membership.as_ref()
}

/// Whether nothing answers at an address that was given, and no member has it either, as after a replacement.
fn is_nobody(one: &Found, all: &[Found]) -> bool {
    let members_known = all
        .iter()
        .filter_map(|found| membership_of(found.status.as_ref().ok()?))
        .any(|membership| !membership.members.is_empty());
    one.node_id.is_none() && one.status.is_err() && members_known
}

fn text(all: &[Found]) -> String {
    let leader = leader(all);
    let progress = leader
        .and_then(|status| status.shards.first())
        .map(|shard| shard.progress.as_slice());
    let rows = all
        .iter()
        .filter(|found| !is_nobody(found, all))
        .map(|found| row(found, progress.unwrap_or_default()))
        .collect();
    let head = [
        "NODE",
        "ROLE",
        "SERVES",
        "TERM",
        "COMMITTED",
        "APPLIED",
        "LAG",
        "PURGED",
        "DISK FREE",
        "VERSION",
        "CLIENT",
    ];
    let mut text = output::table(&head, rows);
    let any = leader.or_else(|| all.iter().find_map(|found| found.status.as_ref().ok()));
    if let Some(status) = any {
        text.push_str(&format!("\n\ncluster {}", status.cluster_id));
        match membership_of(status) {
            Some(membership) if !membership.membership_id.is_empty() => {
                text.push_str(&format!(", membership {}", membership.membership_id));
            }
            _ => text.push_str(", of which this node is not a member yet"),
        }
    }
    for found in all {
        match &found.status {
            Ok(status) => {
                let node = status.node.clone().unwrap_or_default();
                for alarm in &node.alarms {
                    let kind = alarm.kind().as_str_name().trim_start_matches("ALARM_KIND_");
                    text.push_str(&format!(
                        "\nALARM node {}: {kind}: {}",
                        node.node_id, alarm.message
                    ));
                }
            }
            Err(error) if is_nobody(found, all) => text.push_str(&format!(
                "\n{} is no member's admin address, and nobody answers there: {error}; was its node replaced or \
                 removed? leave it out of --admin-endpoints then",
                found.address
            )),
            Err(error) => text.push_str(&format!("\n{} does not answer: {error}", name(found))),
        }
    }
    text
}

fn name(found: &Found) -> String {
    match found.node_id {
        Some(node_id) => format!("node {node_id} ({})", found.address),
        None => found.address.clone(),
    }
}

fn row(found: &Found, progress: &[v1::MemberProgress]) -> Vec<String> {
    let id = found
        .node_id
        .map_or("?".to_owned(), |node_id| node_id.to_string());
    let Ok(status) = &found.status else {
        let lag = lag(found.node_id, progress);
        let dash = || "-".to_owned();
        return vec![
            id,
            "DOWN".to_owned(),
            dash(),
            dash(),
            dash(),
            dash(),
            lag,
            dash(),
            dash(),
            dash(),
            dash(),
        ];
    };
    let node = status.node.clone().unwrap_or_default();
    let shard = status.shards.first().cloned().unwrap_or_default();
    let disk = node.disk.clone().unwrap_or_default();
    vec![
        id,
        shard
            .role()
            .as_str_name()
            .trim_start_matches("REPLICA_ROLE_")
            .to_owned(),
        node.serving()
            .as_str_name()
            .trim_start_matches("SERVING_STATE_")
            .to_owned(),
        shard.term.to_string(),
        shard.committed_index.to_string(),
        shard.applied_index.to_string(),
        lag(found.node_id, progress),
        shard.purged_index.to_string(),
        bytes(disk.free_bytes),
        node.version,
        node.addresses
            .map(|addresses| addresses.client)
            .unwrap_or_default(),
    ]
}

/// How far a member is behind, if its leader knows. Of a member that has not answered this leader yet, the number would
/// be the length of the log.
fn lag(node_id: Option<u64>, progress: &[v1::MemberProgress]) -> String {
    let member = progress
        .iter()
        .find(|member| Some(member.node_id) == node_id && member.matched_index.is_some());
    member.map_or("-".to_owned(), |member| member.lag_entries.to_string())
}

/// `12.3 GiB`
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

fn document(found: &Found) -> Value {
    let status = match &found.status {
        Ok(status) => status,
        Err(error) => {
            return json!({ "node_id": found.node_id, "admin": found.address, "error": error.to_string() });
        }
    };
    let node = status.node.clone().unwrap_or_default();
    let disk = node.disk.clone().unwrap_or_default();
    json!({
        "node_id": found.node_id,
        "admin": found.address,
        "cluster_id": status.cluster_id,
        "version": node.version,
        "supported_feature_level": node.supported_feature_level,
        "serving": node.serving().as_str_name().trim_start_matches("SERVING_STATE_"),
        "start_time": node.start_time.map(time_text),
        "addresses": membership::addresses(node.addresses.as_ref()),
        "disk": {
            "data_path": disk.data_path,
            "total_bytes": disk.total_bytes,
            "free_bytes": disk.free_bytes,
            "state_bytes": disk.state_bytes,
            "log_bytes": disk.log_bytes,
        },
        "alarms": node.alarms.iter().map(alarm).collect::<Vec<_>>(),
        "shards": status.shards.iter().map(shard).collect::<Vec<_>>(),
    })
}

fn alarm(alarm: &v1::Alarm) -> Value {
    json!({
        "kind": alarm.kind().as_str_name().trim_start_matches("ALARM_KIND_"),
        "message": alarm.message,
        "raise_time": alarm.raise_time.map(time_text),
    })
}

fn shard(shard: &v1::ShardStatus) -> Value {
    let progress: Vec<Value> = shard
        .progress
        .iter()
        .map(|member| {
            json!({
                "node_id": member.node_id,
                "matched_index": member.matched_index,
                "lag_entries": member.matched_index.map(|_| member.lag_entries),
                "last_heard_ms": member.last_heard.map(millis),
            })
        })
        .collect();
    json!({
        "shard": shard.shard,
        "epoch": shard.epoch,
        "placement": shard.placement,
        "first_slot": shard.first_slot,
        "last_slot": shard.last_slot,
        "role": shard.role().as_str_name().trim_start_matches("REPLICA_ROLE_"),
        "leader_node_id": shard.leader_node_id,
        "term": shard.term,
        "last_log_index": shard.last_log_index,
        "committed_index": shard.committed_index,
        "applied_index": shard.applied_index,
        "snapshot_index": shard.snapshot_index,
        "purged_index": shard.purged_index,
        "feature_level": shard.feature_level,
        "log_time": shard.log_time.map(time_text),
        "staleness_ms": shard.staleness.map(millis),
        "state_digest": shard.state_digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "membership": shard.membership.as_ref().map(membership::document),
        "progress": progress,
    })
}

fn millis(duration: prost_types::Duration) -> i64 {
    duration.seconds * 1_000 + i64::from(duration.nanos) / 1_000_000
}

#[cfg(test)]
mod tests {
    use holdfast_client::{ClientError, Outcome};

    use super::*;

    #[test]
    fn bytes_are_shown_with_a_unit() {
        assert_eq!(
            [0, 1_023, 1_536, 5 << 30].map(bytes),
            ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
        );
    }

    #[test]
    fn a_leader_without_a_quorum_leads_nobody() {
        let voter = |node_id| v1::Member {
            node_id,
            role: v1::MemberRole::Voter.into(),
            addresses: None,
        };
        let heard = |node_id, seconds| v1::MemberProgress {
            node_id,
            last_heard: Some(prost_types::Duration { seconds, nanos: 0 }),
            ..Default::default()
        };
        let leader = |ages: [i64; 2]| v1::ShardStatus {
            role: v1::ReplicaRole::Leader.into(),
            leader_node_id: 1,
            membership: Some(v1::Membership {
                members: vec![voter(1), voter(2), voter(3)],
                ..Default::default()
            }),
            progress: vec![heard(2, ages[0]), heard(3, ages[1])],
            ..Default::default()
        };
        assert!(hears_quorum(&leader([0, 60])));
        assert!(!hears_quorum(&leader([60, 60])));
    }

    #[test]
    fn the_lag_of_a_member_that_has_not_answered_is_not_known() {
        let progress = |matched_index| v1::MemberProgress {
            node_id: 2,
            matched_index,
            lag_entries: 4_711,
            ..Default::default()
        };
        assert_eq!(lag(Some(2), &[progress(Some(1))]), "4711");
        assert_eq!(lag(Some(2), &[progress(None)]), "-");
        assert_eq!(lag(Some(3), &[progress(Some(1))]), "-");
    }

    #[test]
    fn who_was_replaced_has_no_row_and_who_has_not_joined_no_membership() {
        let answer = |membership| {
            Ok(v1::GetStatusResponse {
                cluster_id: "c".into(),
                shards: vec![v1::ShardStatus {
                    membership: Some(membership),
                    ..Default::default()
                }],
                ..Default::default()
            })
        };
        let silent = || Found {
            address: "old:1".into(),
            node_id: None,
            status: Err(ClientError::local(
                tonic::Code::Unavailable,
                "refused",
                Outcome::NotApplied,
            )),
        };
        let member = |membership| Found {
            address: "a:1".into(),
            node_id: Some(1),
            status: answer(membership),
        };
        let joined = member(v1::Membership {
            membership_id: "3-9".into(),
            members: vec![v1::Member::default()],
        });
        let told = text(&[joined, silent()]);
        assert!(!told.contains("DOWN"), "{told}");
        assert!(told.contains("old:1 is no member's admin address"), "{told}");
        // Who knows of no member cannot tell who is one.
        let told = text(&[member(v1::Membership::default()), silent()]);
        assert!(told.contains("DOWN"), "{told}");
        assert!(
            told.contains("cluster c, of which this node is not a member yet"),
            "{told}"
        );
    }

    #[test]
    fn the_table_shows_the_living_and_the_dead() {
        let leader = v1::GetStatusResponse {
            cluster_id: "c".into(),
            node: Some(v1::NodeStatus {
                node_id: 1,
                version: "0.1.0".into(),
                ..Default::default()
            }),
            shards: vec![v1::ShardStatus {
                role: v1::ReplicaRole::Leader.into(),
                term: 3,
                applied_index: 42,
                progress: vec![v1::MemberProgress {
                    node_id: 2,
                    matched_index: Some(25),
                    lag_entries: 17,
                    ..Default::default()
                }],
                membership: Some(v1::Membership {
                    membership_id: "3-9".into(),
                    members: vec![],
                }),
                ..Default::default()
            }],
        };
        let found = [
            Found {
                address: "a:1".into(),
                node_id: Some(1),
                status: Ok(leader),
            },
            Found {
                address: "b:1".into(),
                node_id: Some(2),
                status: Err(ClientError::local(
                    tonic::Code::Unavailable,
                    "refused",
                    Outcome::NotApplied,
                )),
            },
        ];
        let text = text(&found);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("LEADER") && lines[1].contains("42"), "{text}");
        assert!(lines[2].contains("DOWN") && lines[2].contains("17"), "{text}");
        assert!(
            text.contains("membership 3-9") && text.contains("node 2 (b:1) does not answer: refused"),
            "{text}"
        );
    }
}
