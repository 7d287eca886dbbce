//! At any instant an email belongs to at most one account.

use std::collections::HashMap;

use futures::future::join_all;
use holdfast_tests::api;
use holdfast_tests::cluster::Cluster;
use tonic::Code;

/// 64 clients, spread over all nodes, want the same email in different spellings. One gets it; the others are told
/// that it is not to be had, and not whose it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_race_for_one_email() {
    let cluster = Cluster::start().await;
    for round in 0..3 {
        let attempts = (0..64_u64).map(|client| {
            let address = cluster.client_address(1 + client % 3);
            let spelling = if client % 2 == 0 { "Wanted" } else { "wanted" };
            let email = format!("{spelling}{round}@Example.com");
            async move {
                let mut accounts = api::accounts(&address).await.unwrap();
                let id = format!("racer-{round}-{client}");
                let create = api::create(&id, &email, &api::request_id());
                let answer = accounts
                    .create_account(api::request(create, api::CALL_LIMIT))
                    .await;
                (id, answer)
            }
        });
        let mut winners = Vec::new();
        let mut losers = HashMap::<(Code, String), u32>::new();
        for (id, answer) in join_all(attempts).await {
            match answer {
                Ok(_) => winners.push(id),
                Err(status) => {
                    let (reason, facts) = api::error_info(&status);
                    assert!(
                        !facts.values().any(|value| value.contains("racer")),
                        "{facts:?} names the owner"
                    );
                    *losers.entry((status.code(), reason)).or_default() += 1;
                }
            }
        }
        let taken = (Code::AlreadyExists, "IDENTIFIER_UNAVAILABLE".to_owned());
        assert_eq!(
            (winners.len(), losers),
            (1, HashMap::from([(taken, 63)])),
            "winners: {winners:?}"
        );

        for node in cluster.founders() {
            let mut accounts = api::accounts(&cluster.client_address(node)).await.unwrap();
            let lookup = api::lookup(&format!("wanted{round}@example.com"));
            let found = accounts
                .lookup_account(api::request(lookup, api::CALL_LIMIT))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(found.account.unwrap().name, api::account_name(&winners[0]));
        }
    }
}
