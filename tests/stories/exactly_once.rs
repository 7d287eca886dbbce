//! A request id runs once: however often it is sent, to whichever node, whoever leads.

use std::time::Duration;

use futures::future::join_all;
use holdfast_tests::api;
use holdfast_tests::cluster::Cluster;
use holdfast_wire::v1;
use tonic::Code;

/// The same update a hundred times at once, over all nodes: one effect, and everyone hears of that one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_storm_of_one_request_has_one_effect() {
    let cluster = Cluster::start().await;
    let mut accounts = api::accounts(&cluster.client_address(1)).await.unwrap();
    let create = api::create("stormed", "stormed@example.com", &api::request_id());
    let created = accounts
        .create_account(api::request(create, api::CALL_LIMIT))
        .await
        .unwrap()
        .into_inner();

    let request_id = api::request_id();
    let storm = (0..100_u64).map(|shot| {
        let address = cluster.client_address(1 + shot % 3);
        let update = api::set_counter("stormed", 1, &request_id);
        async move {
            let mut accounts = api::accounts(&address).await.unwrap();
            accounts
                .update_account(api::request(update, api::CALL_LIMIT))
                .await
        }
    });
    for answer in join_all(storm).await {
        assert_eq!(answer.unwrap().into_inner().revision, created.revision + 1);
    }
    let read = accounts
        .get_account(api::request(api::get("stormed"), api::CALL_LIMIT))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(read.account.unwrap().revision, created.revision + 1);
}

/// Creations without an id of the caller's, repeated across the death of the leader: every retry finds the same
/// account, because its id is derived from the request's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_storm_across_a_leader_kill_has_one_effect() {
    let mut cluster = Cluster::start().await;
    let request_ids: Vec<String> = (0..20).map(|_| api::request_id()).collect();
    let leader = cluster.leader().await;
    let client = cluster.client();
    let storm: Vec<_> = (0..100)
        .map(|shot| {
            let (client, at) = (client.clone(), shot % request_ids.len());
            let create = api::create("", &format!("storm{at}@example.com"), &request_ids[at]);
            tokio::spawn(async move {
                let options = holdfast_client::CallOptions::deadline(Duration::from_secs(40));
                (at, client.create_account(create, &options).await)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(15)).await;
    cluster.kill(leader);

    let mut names = vec![None; request_ids.len()];
    for shot in storm {
        let (at, answer) = shot.await.unwrap();
        let name = answer.unwrap().account.unwrap().name;
        let seen: &mut Option<String> = &mut names[at];
        assert_eq!(
            seen.get_or_insert_with(|| name.clone()),
            &name,
            "request {at} made two accounts"
        );
    }
    let new = cluster.leader_other_than(leader).await;
    let mut accounts = api::accounts(&cluster.client_address(new)).await.unwrap();
    let list = v1::ListAccountsRequest {
        parent: api::REALM.to_owned(),
        page_size: 1000,
        ..Default::default()
    };
    let listed = accounts
        .list_accounts(api::request(list, api::CALL_LIMIT))
        .await
        .unwrap()
        .into_inner()
        .accounts;
    assert_eq!(listed.len(), request_ids.len(), "one account for each request id");
    assert!(listed.iter().all(|account| account.revision == 1));
}

/// A no that depends on state is remembered like a yes. When the email has become free, the old request is still
/// refused: its sender has long been told no and has acted on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_create_stays_refused_after_the_identifier_became_free() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    api::set_quarantine(&cluster.admin_address(leader), Duration::from_millis(200)).await;
    let mut accounts = api::accounts(&cluster.client_address(leader)).await.unwrap();
    let owner = api::create("owner", "desired@example.com", &api::request_id());
    accounts
        .create_account(api::request(owner, api::CALL_LIMIT))
        .await
        .unwrap();

    let refused = api::create("latecomer", "desired@example.com", &api::request_id());
    let answer = accounts
        .create_account(api::request(refused.clone(), api::CALL_LIMIT))
        .await;
    api::assert_status(answer, Code::AlreadyExists, "IDENTIFIER_UNAVAILABLE");

    // The owner moves to another address, and the quarantine of the old one passes.
    let change = v1::ChangeIdentifiersRequest {
        name: api::account_name("owner"),
        changes: vec![v1::IdentifierChange {
            change: Some(v1::identifier_change::Change::Replace(
                v1::IdentifierReplacement {
                    old_identifier: Some(api::reference(v1::IdentifierKind::Email, "desired@example.com")),
                    new_identifier: Some(api::identifier(v1::IdentifierKind::Email, "moved@example.com")),
                },
            )),
        }],
        request_id: api::request_id(),
        ..Default::default()
    };
    accounts
        .change_identifiers(api::request(change, api::CALL_LIMIT))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;

    for node in cluster.founders() {
        let mut accounts = api::accounts(&cluster.client_address(node)).await.unwrap();
        let answer = accounts
            .create_account(api::request(refused.clone(), api::CALL_LIMIT))
            .await;
        api::assert_status(answer, Code::AlreadyExists, "IDENTIFIER_UNAVAILABLE");
    }
    // It was free all the same: a new request gets it. (Expiry goes by the log's clock, which every write advances.)
    let unrelated = api::create("unrelated", "unrelated@example.com", &api::request_id());
    accounts
        .create_account(api::request(unrelated, api::CALL_LIMIT))
        .await
        .unwrap();
    let fresh = api::create("latecomer", "desired@example.com", &api::request_id());
    accounts
        .create_account(api::request(fresh, api::CALL_LIMIT))
        .await
        .unwrap();
    // And even now the old request is refused, rather than answered with the account it did not make.
    let answer = accounts
        .create_account(api::request(refused, api::CALL_LIMIT))
        .await;
    api::assert_status(answer, Code::AlreadyExists, "IDENTIFIER_UNAVAILABLE");
}
