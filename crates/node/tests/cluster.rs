//! Three nodes in one process, over real sockets: any node answers anything, and nothing happens twice.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic, too")]

mod common;

use std::time::Duration;

use common::{Cluster, create, eventually, lookup, reason, request_id};
use futures::future::join_all;
use holdfast_wire::status::{ErrorView, OutcomeView};
use holdfast_wire::v1;
use tonic::{Code, Request};

/// A create on a follower is carried out by the leader; every node then reads it, by name, by identifier, and
/// with the token even without asking anybody.
#[tokio::test(flavor = "multi_thread")]
async fn any_node_answers_anything() {
    let cluster = Cluster::started(3).await;
    let follower = cluster.follower();
    let created = cluster
        .accounts(follower)
        .create_account(create("ann@example.com"))
        .await
        .unwrap();
    assert!(created.metadata().contains_key("traceparent"));
    let leader = cluster.leader().unwrap();
    let hint = created
        .metadata()
        .get("holdfast-leader")
        .unwrap()
        .to_str()
        .unwrap();
    assert_eq!(hint, cluster.configs[&leader].listen_client().to_string());
    let created = created.into_inner();
    let account = created.account.unwrap();
    assert_eq!(account.revision, 1);

    for id in 1..=3 {
        let mut client = cluster.accounts(id);
        let token = created.consistency_token.clone();
        let stale = v1::Consistency {
            mode: Some(v1::consistency::Mode::Stale(v1::StaleRead::default())),
            at_least_token: token,
        };
        for consistency in [None, Some(stale)] {
            let request = v1::GetAccountRequest {
                name: account.name.clone(),
                consistency,
            };
            let got = client.get_account(request).await.unwrap().into_inner();
            assert_eq!(got.account.as_ref(), Some(&account));
        }
        let found = client
            .lookup_account(lookup("ANN@Example.com"))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(found.account.as_ref(), Some(&account));
        let error = client
            .lookup_account(lookup("bob@example.com"))
            .await
            .unwrap_err();
        assert_eq!(
            (error.code(), reason(&error).as_str()),
            (Code::NotFound, "IDENTIFIER_NOT_FOUND")
        );
    }

    // An update with the etag, then with the stale one.
    let update = |etag: &str, name: &str| v1::UpdateAccountRequest {
        account: Some(v1::Account {
            name: account.name.clone(),
            display_name: name.into(),
            ..v1::Account::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["display_name".into()],
        }),
        etag: etag.into(),
        request_id: request_id(),
        ..v1::UpdateAccountRequest::default()
    };
    let mut client = cluster.accounts(follower);
    let updated = client
        .update_account(update(&account.etag, "Ann B."))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(updated.account.unwrap().display_name, "Ann B.");
    let error = client
        .update_account(update(&account.etag, "Ann C."))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::Aborted, "ETAG_MISMATCH")
    );
    assert_eq!(ErrorView::of(&error).unwrap().metadata["current_etag"], "2");
}

/// Many clients want one email address: one gets it, and the others are told no, on every retry.
#[tokio::test(flavor = "multi_thread")]
async fn one_wins_a_race_and_a_no_stays_a_no() {
    let cluster = Cluster::started(3).await;
    let requests: Vec<_> = (0..32).map(|_| create("one@example.com")).collect();
    let race = join_all(requests.iter().enumerate().map(|(at, request)| {
        let mut client = cluster.accounts(1 + at as u64 % 3);
        async move { client.create_account(request.clone()).await }
    }))
    .await;
    let winners: Vec<_> = race.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1);
    for error in race.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!(
            (error.code(), reason(error).as_str()),
            (Code::AlreadyExists, "IDENTIFIER_UNAVAILABLE")
        );
    }
    // A storm of retries of the winner's request: one effect.
    let at = race.iter().position(Result::is_ok).unwrap();
    let storm = join_all((0..32).map(|n| {
        let mut client = cluster.accounts(1 + n % 3);
        let request = requests[at].clone();
        async move { client.create_account(request).await.unwrap().into_inner() }
    }))
    .await;
    assert!(
        storm
            .iter()
            .all(|answer| answer.revision == 1 && answer.account == storm[0].account)
    );
    // A loser stays one even when the identifier became free for its own account … it never does for others.
    let loser = race.iter().position(Result::is_err).unwrap();
    let error = cluster
        .accounts(2)
        .create_account(requests[loser].clone())
        .await
        .unwrap_err();
    assert_eq!(reason(&error), "IDENTIFIER_UNAVAILABLE");
    // The same id with other content is the caller's mistake.
    let mut other = requests[at].clone();
    other.account.as_mut().unwrap().display_name = "Someone else".into();
    let error = cluster.accounts(3).create_account(other).await.unwrap_err();
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::InvalidArgument, "REQUEST_ID_REUSED")
    );
}

/// The leader goes, gracefully and not: writes go on with the same request ids.
#[tokio::test(flavor = "multi_thread")]
async fn writes_survive_the_leader() {
    let mut cluster = Cluster::started(3).await;
    let before = create("before@example.com");
    cluster
        .accounts(cluster.follower())
        .create_account(before.clone())
        .await
        .unwrap();
    let leader = cluster.leader().unwrap();
    cluster.stop(leader).await;
    // A graceful stop handed leadership over before it closed.
    let other = *cluster.nodes.keys().next().unwrap();
    let again = cluster
        .accounts(other)
        .create_account(before)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.revision, 1);
    cluster
        .accounts(other)
        .create_account(create("after@example.com"))
        .await
        .unwrap();
    cluster.start(leader).await;
    eventually("the restarted node serves", || async {
        cluster
            .accounts(leader)
            .lookup_account(lookup("after@example.com"))
            .await
            .is_ok()
    })
    .await;
}

/// Without a quorum nothing hangs: the answer comes inside the deadline and tells the truth.
#[tokio::test(flavor = "multi_thread")]
async fn no_quorum_is_no_hang() {
    let mut cluster = Cluster::started(3).await;
    let last = cluster.follower();
    for id in 1..=3 {
        if id != last {
            cluster.stop(id).await;
        }
    }
    let mut request = Request::new(create("lost@example.com"));
    request.set_timeout(Duration::from_secs(2));
    let error = cluster.accounts(last).create_account(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    let view = ErrorView::of(&error).unwrap();
    assert!(view.retry_after.is_some());

    let mut request = Request::new(lookup("lost@example.com"));
    request.set_timeout(Duration::from_secs(2));
    let error = cluster.accounts(last).lookup_account(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    assert_eq!(ErrorView::of(&error).unwrap().outcome, OutcomeView::NotApplied);
    // What is malformed is told even now.
    let error = cluster
        .accounts(last)
        .create_account(v1::CreateAccountRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}
