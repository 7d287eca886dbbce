//! What operators do and see, on nodes in one process.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic, too")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Cluster, create, eventually, lookup, reason};
use holdfast_wire::v1;
use tonic::{Code, Request};

fn addresses(cluster: &Cluster, id: u64) -> v1::MemberAddresses {
    let config = &cluster.configs[&id];
    v1::MemberAddresses {
        peer: config.listen_peer().to_string(),
        client: config.listen_client().to_string(),
        admin: config.listen_admin().to_string(),
    }
}

/// Three members, and node 4, which waits to be taken in.
async fn with_a_newcomer() -> Cluster {
    let mut cluster = Cluster::new(4);
    for config in cluster.configs.values_mut() {
        config.cluster.initial_members.truncate(3);
    }
    cluster
        .configs
        .get_mut(&4)
        .unwrap()
        .cluster
        .initial_members
        .clear();
    for id in 1..=4 {
        cluster.start(id).await;
    }
    cluster.wait_ready().await;
    cluster
}

/// A fourth node takes the place of a third that is lost: learner, snapshot or log, vote, removal.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_is_replaced_by_a_new_one() {
    let mut cluster = with_a_newcomer().await;
    cluster
        .accounts(1)
        .create_account(create("ann@example.com"))
        .await
        .unwrap();

    let lost = cluster.follower().min(3);
    let lost = if Some(lost) == cluster.leader() {
        lost % 3 + 1
    } else {
        lost
    };
    let asked = lost % 3 + 1;
    cluster.stop(lost).await;
    let before = cluster
        .cluster(asked)
        .get_status(v1::GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    let membership_id = before.shards[0]
        .membership
        .as_ref()
        .unwrap()
        .membership_id
        .clone();
    let replace = |expected: &str| {
        let mut request = Request::new(v1::ReplaceMemberRequest {
            old_node_id: lost,
            new_node_id: 4,
            addresses: Some(addresses(&cluster, 4)),
            expected_membership_id: expected.into(),
            validate_only: false,
            context: None,
        });
        request.set_timeout(Duration::from_secs(30));
        request
    };
    let error = cluster
        .cluster(asked)
        .replace_member(replace("1-999"))
        .await
        .unwrap_err();
    assert_eq!(reason(&error), "MEMBERSHIP_CHANGED");
    let mut only_checked = replace(&membership_id);
    only_checked.get_mut().validate_only = true;
    let would_be = cluster
        .cluster(asked)
        .replace_member(only_checked)
        .await
        .unwrap()
        .into_inner()
        .membership
        .unwrap();
    let expected: Vec<u64> = (1..=4).filter(|id| *id != lost).collect();
    let ids: Vec<_> = would_be.members.iter().map(|member| member.node_id).collect();
    assert_eq!((ids, would_be.membership_id.as_str()), (expected, ""));
    let replaced = cluster
        .cluster(asked)
        .replace_member(replace(&membership_id))
        .await
        .unwrap()
        .into_inner();
    let members = replaced.membership.unwrap().members;
    assert!(members.iter().all(|member| member.node_id != lost));
    assert_eq!(
        members
            .iter()
            .filter(|member| member.role() == v1::MemberRole::Voter)
            .count(),
        3
    );
    eventually("the new node serves", || async {
        cluster
            .accounts(4)
            .lookup_account(lookup("ann@example.com"))
            .await
            .is_ok()
    })
    .await;
    // The same id does not come back.
    let add = v1::AddLearnerRequest {
        node_id: lost,
        addresses: Some(addresses(&cluster, lost)),
        ..v1::AddLearnerRequest::default()
    };
    let error = cluster.cluster(asked).add_learner(add).await.unwrap_err();
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::AlreadyExists, "MEMBER_EXISTS")
    );
}

/// Who removes a node while another replaces it does not leave the new one without a vote.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_in_the_place_of_one_that_was_removed_meanwhile_gets_its_vote() {
    let cluster = with_a_newcomer().await;
    let leader = cluster.leader().unwrap();
    let old = leader % 3 + 1;
    let mut admin = cluster.cluster(leader);
    let add = v1::AddLearnerRequest {
        node_id: 4,
        addresses: Some(addresses(&cluster, 4)),
        ..v1::AddLearnerRequest::default()
    };
    admin.add_learner(add).await.unwrap();
    let replace = |old| {
        let mut request = Request::new(v1::ReplaceMemberRequest {
            old_node_id: old,
            new_node_id: 4,
            addresses: Some(addresses(&cluster, 4)),
            ..v1::ReplaceMemberRequest::default()
        });
        request.set_timeout(Duration::from_secs(30));
        request
    };
    let error = admin.replace_member(replace(77)).await.unwrap_err();
    assert_eq!(reason(&error), "MEMBER_NOT_FOUND", "nobody ever had this id");

    let remove = v1::RemoveMemberRequest {
        node_id: old,
        ..v1::RemoveMemberRequest::default()
    };
    admin.remove_member(remove).await.unwrap();
    // The second time there is nothing left to do.
    for _ in 0..2 {
        let replaced = admin.replace_member(replace(old)).await.unwrap().into_inner();
        let members = replaced.membership.unwrap().members;
        let voters = members
            .iter()
            .filter(|member| member.role() == v1::MemberRole::Voter);
        let voters: Vec<u64> = voters.map(|member| member.node_id).collect();
        assert_eq!(voters, (1..=4).filter(|id| *id != old).collect::<Vec<_>>());
    }
}

/// An address that belongs to somebody else is a mistake, which no waiting mends; one where nobody is yet is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_member_is_asked_who_it_is() {
    let cluster = Cluster::started(3).await;
    let mut stranger = Cluster::new(1);
    let config = stranger.configs.get_mut(&1).unwrap();
    config.cluster.id = uuid::Uuid::from_u128(0x5e);
    stranger.start(1).await;
    let asked = cluster.follower();
    let ask = async |peer: String| {
        let mut addresses = addresses(&cluster, 1);
        addresses.peer = peer;
        let add = v1::AddLearnerRequest {
            node_id: 4,
            addresses: Some(addresses),
            ..v1::AddLearnerRequest::default()
        };
        cluster.cluster(asked).add_learner(add).await.unwrap_err()
    };

    let address = addresses(&cluster, 2).peer;
    let error = ask(address.clone()).await;
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::FailedPrecondition, "OTHER_NODE_ANSWERS")
    );
    let words = format!("node 2 answers at {address}, not node 4");
    assert!(error.message().contains(&words), "{error:?}");

    let error = ask(addresses(&stranger, 1).peer).await;
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::FailedPrecondition, "OTHER_NODE_ANSWERS")
    );
    for cluster in [&stranger, &cluster] {
        let id = cluster.configs[&1].cluster.id.to_string();
        assert!(error.message().contains(&id), "{error:?}");
    }

    let error = ask("127.0.0.1:1".into()).await;
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::Unavailable, "NODE_NOT_SERVING")
    );
    assert!(error.message().contains("127.0.0.1:1"), "{error:?}");
}

/// Who votes already is given its vote without a change.
#[tokio::test(flavor = "multi_thread")]
async fn a_voter_is_not_promoted_again() {
    let cluster = Cluster::started(3).await;
    let leader = cluster.leader().unwrap();
    let membership = async || {
        let status = cluster.cluster(leader).get_status(v1::GetStatusRequest {}).await;
        status.unwrap().into_inner().shards[0].membership.clone().unwrap()
    };
    let before = membership().await;
    for validate_only in [true, false] {
        let promote = v1::PromoteMemberRequest {
            node_id: cluster.follower(),
            validate_only,
            ..v1::PromoteMemberRequest::default()
        };
        let answer = cluster.cluster(leader).promote_member(promote).await.unwrap();
        assert_eq!(answer.into_inner().membership.as_ref(), Some(&before));
    }
    assert_eq!(membership().await, before);
}

/// What is answered is what this flush covers, not what the one before did.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_is_answered_when_it_is_done() {
    let cluster = Cluster::started(1).await;
    let mut admin = cluster.cluster(1);
    for n in 0..3 {
        let account = create(&format!("ann{n}@example.com"));
        cluster.accounts(1).create_account(account).await.unwrap();
        let status = admin.get_status(v1::GetStatusRequest {}).await.unwrap();
        let applied = status.into_inner().shards[0].applied_index;
        let flushed = admin
            .trigger_snapshot(v1::TriggerSnapshotRequest::default())
            .await;
        let flushed = flushed.unwrap().into_inner().snapshot_index;
        assert!(flushed >= applied, "{flushed} < {applied}");
    }
}

/// A drained node leads nothing and turns clients away, until the drain is taken back; the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_turns_clients_away() {
    let cluster = Cluster::started(3).await;
    let drained = cluster.leader().unwrap();
    let request = v1::DrainRequest {
        undo: false,
        context: None,
    };
    let answer = cluster
        .cluster(drained)
        .drain(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.node.unwrap().serving(), v1::ServingState::Draining);
    let error = cluster
        .accounts(drained)
        .create_account(create("a@example.com"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::Unavailable, "NODE_NOT_SERVING")
    );
    let other = drained % 3 + 1;
    cluster
        .accounts(other)
        .create_account(create("b@example.com"))
        .await
        .unwrap();
    assert_ne!(cluster.leader(), Some(drained));
    // Nor is it made to lead by mistake.
    let request = v1::TransferLeadershipRequest {
        node_id: drained,
        context: None,
    };
    let error = cluster
        .cluster(other)
        .transfer_leadership(request)
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::FailedPrecondition, "MEMBER_DRAINING")
    );
    let request = v1::DrainRequest {
        undo: true,
        context: None,
    };
    cluster.cluster(drained).drain(request).await.unwrap();
    cluster
        .accounts(drained)
        .create_account(create("c@example.com"))
        .await
        .unwrap();
}

/// Who has not heard yet that a node stops is answered; who has, goes elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_stopped_turns_nobody_away() {
    let mut cluster = Cluster::started(3).await;
    let stopped = cluster.leader().unwrap();
    let accounts = cluster.accounts(stopped);
    let callers: Vec<_> = (0..16)
        .map(|caller| {
            let mut accounts = accounts.clone();
            tokio::spawn(async move {
                let mut answered = 0;
                loop {
                    let email = format!("{caller}.{answered}@example.com");
                    match accounts.create_account(create(&email)).await {
                        Ok(_) => answered += 1,
                        Err(status) => return (answered, status),
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.stop(stopped).await;
    for caller in callers {
        let (answered, status) = caller.await.unwrap();
        assert!(answered > 0, "{status:?}");
        assert!(
            status.details().is_empty(),
            "the node said no, instead of nothing: {status:?}"
        );
    }
}

/// A leader that is drained while another node is drained already leaves leadership to the third.
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_is_not_given_leadership() {
    let cluster = Cluster::started(3).await;
    let leader = cluster.leader().unwrap();
    // Among equals the lowest id is chosen.
    let first = (1..=3).find(|node| *node != leader).unwrap();
    let last = 6 - leader - first;
    for drained in [first, leader] {
        let request = v1::DrainRequest {
            undo: false,
            context: None,
        };
        cluster.cluster(drained).drain(request).await.unwrap();
    }
    eventually("the only node that is not drained leads", || async {
        cluster.leader() == Some(last)
    })
    .await;
}

/// What decides who owns an address is fixed by the realm's first account.
#[tokio::test(flavor = "multi_thread")]
async fn the_rule_for_emails_is_fixed_by_the_first_account() {
    let cluster = Cluster::started(1).await;
    let update = async |insensitive| {
        let mut realms = cluster.realms(1);
        let request = v1::GetRealmRequest {
            name: "realms/default".into(),
            consistency: None,
        };
        let mut realm = realms.get_realm(request).await?.into_inner().realm.unwrap();
        let config = realm.config.as_mut().unwrap();
        config.email_local_part_case_insensitive = insensitive;
        let etag = realm.etag.clone();
        let request = v1::UpdateRealmRequest {
            realm: Some(realm),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["config.email_local_part_case_insensitive".into()],
            }),
            etag,
            ..v1::UpdateRealmRequest::default()
        };
        realms.update_realm(request).await
    };
    update(false).await.unwrap();
    update(true).await.unwrap();
    let first = create("Ann@example.com");
    cluster.accounts(1).create_account(first).await.unwrap();
    let error = update(false).await.unwrap_err();
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::InvalidArgument, "INVALID_FIELD")
    );
    update(true).await.expect("that is what it is");
}

/// Leadership goes where it is sent, through any node; rules change by compare-and-set; numbers are served.
#[tokio::test(flavor = "multi_thread")]
async fn operators_see_and_steer() {
    let cluster = Cluster::started(3).await;
    let target = cluster.follower();
    let request = v1::TransferLeadershipRequest {
        node_id: target,
        context: None,
    };
    let handed = cluster
        .cluster(target)
        .transfer_leadership(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(handed.leader_node_id, target);
    eventually("the new leader is ready", || async {
        cluster.leader() == Some(target)
    })
    .await;

    let mut realms = cluster.realms(target % 3 + 1);
    let request = v1::GetRealmRequest {
        name: "realms/default".into(),
        consistency: None,
    };
    let realm = realms
        .get_realm(request)
        .await
        .unwrap()
        .into_inner()
        .realm
        .unwrap();
    let update = |etag: &str| v1::UpdateRealmRequest {
        realm: Some(v1::Realm {
            name: realm.name.clone(),
            config: Some(v1::RealmConfig {
                max_record_bytes: 4_096,
                ..v1::RealmConfig::default()
            }),
            ..v1::Realm::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["config.max_record_bytes".into()],
        }),
        etag: etag.into(),
        ..v1::UpdateRealmRequest::default()
    };
    let updated = realms
        .update_realm(update(&realm.etag))
        .await
        .unwrap()
        .into_inner()
        .realm
        .unwrap();
    assert_eq!(
        (updated.revision, updated.config.unwrap().max_record_bytes),
        (2, 4_096)
    );
    let error = realms.update_realm(update(&realm.etag)).await.unwrap_err();
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::Aborted, "ETAG_MISMATCH")
    );
    let mut large = create("large@example.com");
    let attributes = &mut large.account.as_mut().unwrap().attributes;
    for name in ["a", "b", "c"] {
        let value = v1::attribute::Value::StringValue("x".repeat(2_000));
        attributes.insert(
            name.into(),
            v1::Attribute {
                value: Some(value),
                ..v1::Attribute::default()
            },
        );
    }
    let error = cluster.accounts(target).create_account(large).await.unwrap_err();
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::InvalidArgument, "INVALID_FIELD")
    );

    let (status, body) = http(&cluster, target, "/readyz");
    assert_eq!((status.as_str(), body.as_str()), ("200", "ready\n"));
    let (status, metrics) = http(&cluster, target, "/metrics");
    assert_eq!(status, "200");
    for series in [
        "holdfast_rpc_requests_total",
        "holdfast_rpc_duration_seconds_bucket",
        "holdfast_proposals_total",
    ] {
        assert!(metrics.contains(series), "{series} is missing");
    }
    assert!(!metrics.contains("example.com"), "no personal data");
}

/// A GET without a client library.
fn http(cluster: &Cluster, id: u64, path: &str) -> (String, String) {
    let mut socket = TcpStream::connect(cluster.configs[&id].listen_metrics()).unwrap();
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let status = answer.split_whitespace().nth(1).unwrap().to_owned();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

/// A founder that comes back without its data is told to come under another id; the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_does_not_come_back_under_its_id() {
    let mut cluster = Cluster::started(3).await;
    let wiped = cluster.follower();
    // Remembered by the leader's next round.
    eventually("everyone has applied that the node joined", || async {
        cluster.nodes.values().all(|node| {
            let view = node.group().view();
            let row = holdfast_storage::schema::member::read(&*view, wiped).unwrap();
            row.is_some_and(|row| row.value.joined)
        })
    })
    .await;
    cluster.stop(wiped).await;
    cluster
        .disks
        .insert(wiped, holdfast_storage::faulty::FaultyDisk::new(99));
    let error = cluster.try_start(wiped).await.unwrap_err();
    assert!(error.to_string().contains("new node id"), "{error}");
    cluster
        .accounts(wiped % 3 + 1)
        .create_account(create("ann@example.com"))
        .await
        .unwrap();
}
