//! More than a node takes on at once is refused at once, and what is accepted still gets through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_tests::api;
use holdfast_tests::cluster::{Cluster, Options};
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_its_limit_a_node_says_no_quickly_and_goes_on() {
    let extra = "[limits]\nmemory_budget_mib = 256\nmax_in_flight_writes = 4\n".to_owned();
    let cluster = Cluster::start_with(Options {
        extra,
        ..Options::default()
    })
    .await;
    let leader = cluster.leader().await;
    let (accepted, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let end = Instant::now() + Duration::from_secs(3);
    let clients: Vec<_> = (0..64)
        .map(|client| {
            let address = cluster.client_address(leader);
            let (accepted, refused) = (accepted.clone(), refused.clone());
            tokio::spawn(async move {
                let mut accounts = api::accounts(&address).await.unwrap();
                let mut number = 0;
                while Instant::now() < end {
                    number += 1;
                    let id = format!("pressed-{client}-{number}");
                    let create = api::create(&id, &format!("{id}@example.com"), &api::request_id());
                    match accounts
                        .create_account(api::request(create, api::CALL_LIMIT))
                        .await
                    {
                        Ok(_) => accepted.fetch_add(1, Ordering::Relaxed),
                        Err(status) => {
                            api::assert_status::<()>(Err(status), Code::ResourceExhausted, "OVERLOADED");
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let (accepted, refused) = (accepted.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    println!("{accepted} accepted, {refused} refused");
    assert!(refused > 0, "64 clients fitted into 4 places");
    assert!(
        accepted > 50,
        "goodput collapsed: {accepted} accepted, {refused} refused"
    );
}
