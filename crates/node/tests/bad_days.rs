//! Disks that stall, fill and fail; more work than a node takes; deadlines. Nodes in one process.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic, too")]

mod common;

use std::time::Duration;

use common::{Cluster, create, eventually, lookup, reason, request_id};
use futures::future::join_all;
use holdfast_wire::status::{ErrorView, OutcomeView};
use holdfast_wire::v1;
use tokio::time::Instant;
use tonic::{Code, Request};

fn within<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// While the disk stalls, what was let in is answered inside its deadline with "unknown", what was not is
/// refused at once; afterwards the same request ids have one effect each.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_disk_hangs_nobody() {
    let mut cluster = Cluster::new(1);
    cluster.configs.get_mut(&1).unwrap().limits.max_in_flight_writes = 2;
    cluster.start(1).await;
    cluster.wait_ready().await;
    cluster.disks[&1].configure(|faults| faults.sync_stalled = true);

    let requests: Vec<_> = (0..6).map(|n| create(&format!("user{n}@example.com"))).collect();
    let deadline = Duration::from_secs(2);
    let began = Instant::now();
    let results = join_all(requests.iter().map(|request| {
        let mut client = cluster.accounts(1);
        let request = within(request.clone(), deadline);
        async move { (client.create_account(request).await, began.elapsed()) }
    }))
    .await;
    let mut refused = 0;
    let mut unknown = Vec::new();
    for (at, (result, took)) in results.into_iter().enumerate() {
        let error = result.unwrap_err();
        let view = ErrorView::of(&error).unwrap_or_else(|| panic!("no details: {error:?}"));
        match error.code() {
            Code::ResourceExhausted => {
                assert_eq!(
                    (view.reason.as_str(), view.outcome),
                    ("OVERLOADED", OutcomeView::NotApplied)
                );
                assert!(took < Duration::from_secs(1), "at once, not after {took:?}");
                refused += 1;
            }
            _ => {
                assert_eq!(
                    (error.code(), view.outcome),
                    (Code::Unavailable, OutcomeView::Unknown),
                    "{error:?}"
                );
                assert!(took <= deadline, "{took:?}");
                unknown.push(at);
            }
        }
    }
    assert_eq!((refused, unknown.len()), (4, 2));

    cluster.disks[&1].configure(|faults| faults.sync_stalled = false);
    for at in unknown {
        eventually("the retry finds what the first attempt did", || async {
            let answer = cluster.accounts(1).create_account(requests[at].clone()).await;
            answer.is_ok_and(|answer| answer.into_inner().revision == 1)
        })
        .await;
    }
}

/// With little room left, what grows is refused and what helps goes on; it ends by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_nearly_full_disk_stops_growth_only() {
    let mut cluster = Cluster::new(1);
    cluster.configs.get_mut(&1).unwrap().disk.reserve_mib = 8;
    cluster.start(1).await;
    cluster.wait_ready().await;
    let mut client = cluster.accounts(1);
    let account = client
        .create_account(create("ann@example.com"))
        .await
        .unwrap()
        .into_inner()
        .account
        .unwrap();

    cluster.disks[&1].configure(|faults| faults.capacity_bytes = Some(6 << 20));
    eventually("creates are refused", || async {
        let refused = cluster
            .accounts(1)
            .create_account(create("bob@example.com"))
            .await;
        refused.is_err_and(|error| error.code() == Code::ResourceExhausted && reason(&error) == "DISK_FULL")
    })
    .await;
    let status = cluster
        .cluster(1)
        .get_status(v1::GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    let alarms = status.node.unwrap().alarms;
    assert!(
        alarms.iter().any(|alarm| alarm.kind() == v1::AlarmKind::DiskFull),
        "{alarms:?}"
    );
    client.lookup_account(lookup("ann@example.com")).await.unwrap();
    let delete = v1::DeleteAccountRequest {
        name: account.name,
        request_id: request_id(),
        ..v1::DeleteAccountRequest::default()
    };
    client.delete_account(delete).await.unwrap();

    cluster.disks[&1].configure(|faults| faults.capacity_bytes = Some(1 << 30));
    eventually("creates are accepted again", || async {
        cluster
            .accounts(1)
            .create_account(create("eve@example.com"))
            .await
            .is_ok()
    })
    .await;
}

/// A failed sync ends its node at once and with one message. The others go on with the same request ids.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_ends_its_node_only() {
    let cluster = Cluster::started(3).await;
    cluster
        .accounts(1)
        .create_account(create("ann@example.com"))
        .await
        .unwrap();
    let leader = cluster.leader().unwrap();
    cluster.disks[&leader].configure(|faults| faults.fail_next_sync = true);
    let request = create("bob@example.com");
    let other = leader % 3 + 1;
    let (created, fatal) = tokio::join!(
        async { cluster.accounts(other).create_account(request.clone()).await },
        cluster.nodes[&leader].wait_fatal(),
    );
    assert!(fatal.contains("sync"), "{fatal}");
    if let Err(error) = created {
        assert_eq!(error.code(), Code::Unavailable);
    }
    let again = cluster
        .accounts(other)
        .create_account(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.revision, 1);
    let error = cluster
        .accounts(leader)
        .create_account(create("eve@example.com"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}

/// Updates of one account queue up at its latch: all take effect, one after the other, through every node.
#[tokio::test(flavor = "multi_thread")]
async fn updates_of_one_account_do_not_starve_each_other() {
    let cluster = Cluster::started(3).await;
    let account = cluster
        .accounts(1)
        .create_account(create("ann@example.com"))
        .await
        .unwrap()
        .into_inner();
    let name = account.account.unwrap().name;
    let updates = join_all((0..60_u64).map(|n| {
        let mut client = cluster.accounts(1 + n % 3);
        let request = v1::UpdateAccountRequest {
            account: Some(v1::Account {
                name: name.clone(),
                display_name: format!("Ann {n}"),
                ..v1::Account::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["display_name".into()],
            }),
            request_id: request_id(),
            ..v1::UpdateAccountRequest::default()
        };
        async move {
            client
                .update_account(request)
                .await
                .unwrap()
                .into_inner()
                .revision
        }
    }))
    .await;
    let mut revisions = updates;
    revisions.sort_unstable();
    assert_eq!(revisions, (2..=61).collect::<Vec<_>>());
}

/// A deletion's grace period passes on the log clock: nothing else has to happen for the purge.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_comes_by_itself() {
    let cluster = Cluster::started(1).await;
    let mut realms = cluster.realms(1);
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
    let request = v1::UpdateRealmRequest {
        realm: Some(v1::Realm {
            name: realm.name,
            config: Some(v1::RealmConfig {
                deletion_grace: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
                ..v1::RealmConfig::default()
            }),
            ..v1::Realm::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["config.deletion_grace".into()],
        }),
        etag: realm.etag,
        ..v1::UpdateRealmRequest::default()
    };
    realms.update_realm(request).await.unwrap();
    let mut client = cluster.accounts(1);
    let account = client
        .create_account(create("ann@example.com"))
        .await
        .unwrap()
        .into_inner()
        .account
        .unwrap();
    let delete = v1::DeleteAccountRequest {
        name: account.name.clone(),
        request_id: request_id(),
        ..v1::DeleteAccountRequest::default()
    };
    let deleted = client
        .delete_account(delete)
        .await
        .unwrap()
        .into_inner()
        .account
        .unwrap();
    assert_eq!(deleted.state(), v1::AccountState::PendingDeletion);
    eventually("the account is purged", || async {
        let request = v1::GetAccountRequest {
            name: account.name.clone(),
            consistency: None,
        };
        let got = cluster.accounts(1).get_account(request).await;
        got.is_err_and(|error| error.code() == Code::NotFound && reason(&error) == "ACCOUNT_PURGED")
    })
    .await;
}
