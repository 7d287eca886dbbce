//! An answer's consistency token, presented to any node, shows at least what the answer showed: read your own
//! writes without asking the leader.

use holdfast_tests::api;
use holdfast_tests::cluster::Cluster;
use holdfast_wire::v1;

fn stale_at_least(token: Vec<u8>) -> v1::Consistency {
    v1::Consistency {
        mode: Some(v1::consistency::Mode::Stale(v1::StaleRead {
            max_staleness: None,
        })),
        at_least_token: token.into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_read_on_every_node_right_after_a_write_sees_it() {
    let cluster = Cluster::start().await;
    let mut nodes = Vec::new();
    for id in cluster.founders() {
        nodes.push(api::accounts(&cluster.client_address(id)).await.unwrap());
    }
    let create = api::create("reader", "reader@example.com", &api::request_id());
    nodes[0]
        .create_account(api::request(create, api::CALL_LIMIT))
        .await
        .unwrap();

    for round in 1..=50 {
        let writer = round as usize % nodes.len();
        let update = api::set_counter("reader", round, &api::request_id());
        let written = nodes[writer]
            .update_account(api::request(update, api::CALL_LIMIT))
            .await
            .unwrap()
            .into_inner();
        assert!(!written.consistency_token.is_empty());
        for (node, accounts) in nodes.iter_mut().enumerate() {
            let consistency = Some(stale_at_least(written.consistency_token.to_vec()));
            let get = v1::GetAccountRequest {
                name: api::account_name("reader"),
                consistency: consistency.clone(),
            };
            let read = accounts
                .get_account(api::request(get, api::CALL_LIMIT))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(
                api::counter(&read.account.unwrap()),
                round,
                "node {} read the past",
                node + 1
            );

            let lookup = v1::LookupAccountRequest {
                consistency,
                ..api::lookup("reader@example.com")
            };
            let found = accounts
                .lookup_account(api::request(lookup, api::CALL_LIMIT))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(
                api::counter(&found.account.unwrap()),
                round,
                "node {} looked up the past",
                node + 1
            );
        }
    }
}

/// The default read is linearizable on every node, without any token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linearizable_read_on_every_node_right_after_a_write_sees_it() {
    let cluster = Cluster::start().await;
    let mut nodes = Vec::new();
    for id in cluster.founders() {
        nodes.push(api::accounts(&cluster.client_address(id)).await.unwrap());
    }
    for round in 0..30_usize {
        let id = format!("written-{round}");
        let create = api::create(&id, &format!("{id}@example.com"), &api::request_id());
        let writer = round % nodes.len();
        nodes[writer]
            .create_account(api::request(create, api::CALL_LIMIT))
            .await
            .unwrap();
        for accounts in &mut nodes {
            accounts
                .get_account(api::request(api::get(&id), api::CALL_LIMIT))
                .await
                .unwrap();
        }
    }
}
