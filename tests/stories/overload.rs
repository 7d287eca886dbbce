//! More than a node takes on at once is refused at once; what is accepted still gets through, and memory stays where
//! it was told to stay.
//!
//! The load is closed: a client has one request under way and sends the next when it has its answer, so as many
//! clients as there are permits saturate the node. A refused one comes back after a tenth of the time it was
//! asked to wait, which is less polite than any real client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_tests::api;
use holdfast_tests::cluster::{Cluster, Options};
use holdfast_wire::status::{ErrorView, OutcomeView};
use tonic::{Code, Status};

const PERMITS: usize = 32;
const MEMORY_BUDGET_MIB: u64 = 256;
/// How long each load lasts.
const PHASE: Duration = Duration::from_secs(4);

/// What the clients of one phase saw: how long each answer took.
#[derive(Default)]
struct Seen {
    accepted: Vec<Duration>,
    refused: Vec<Duration>,
}

/// `clients` clients create accounts until the phase ends.
async fn press(address: &str, phase: &'static str, clients: usize) -> Seen {
    let end = Instant::now() + PHASE;
    let running: Vec<_> = (0..clients)
        .map(|client| {
            let address = address.to_owned();
            tokio::spawn(async move {
                let mut accounts = api::accounts(&address).await.unwrap();
                let mut seen = Seen::default();
                let mut number = 0;
                while Instant::now() < end {
                    number += 1;
                    let id = format!("{phase}-{client}-{number}");
                    let create = api::create(&id, &format!("{id}@example.com"), &api::request_id());
                    let begun = Instant::now();
                    let answer = accounts
                        .create_account(api::request(create, api::CALL_LIMIT))
                        .await;
                    match answer {
                        Ok(_) => seen.accepted.push(begun.elapsed()),
                        Err(status) => {
                            seen.refused.push(begun.elapsed());
                            tokio::time::sleep(asked_to_wait(&status) / 10).await;
                        }
                    }
                }
                seen
            })
        })
        .collect();
    let mut all = Seen::default();
    for client in running {
        let seen = client.await.unwrap();
        all.accepted.extend(seen.accepted);
        all.refused.extend(seen.refused);
    }
    all.accepted.sort();
    all.refused.sort();
    all
}

/// A refusal says that nothing was done, and when to come back.
fn asked_to_wait(status: &Status) -> Duration {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let view = ErrorView::of(status).unwrap();
    assert_eq!(
        (view.reason.as_str(), view.outcome),
        ("OVERLOADED", OutcomeView::NotApplied),
        "{status:?}"
    );
    view.retry_after.expect("RetryInfo")
}

/// Resident memory of a process, KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn median(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_twice_the_load_that_saturates_goodput_and_memory_hold() {
    let extra =
        format!("[limits]\nmemory_budget_mib = {MEMORY_BUDGET_MIB}\nmax_in_flight_writes = {PERMITS}\n");
    let cluster = Cluster::start_with(Options {
        extra,
        ..Options::default()
    })
    .await;
    let pids: Vec<u32> = cluster.running().into_iter().map(|id| cluster.pid(id)).collect();
    let over = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn({
        let over = over.clone();
        async move {
            let mut most_kib = vec![0; pids.len()];
            while !over.load(Ordering::Relaxed) {
                for (most, pid) in most_kib.iter_mut().zip(&pids) {
                    *most = resident_kib(*pid).max(*most);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            most_kib
        }
    });

    let leader = cluster.client_address(cluster.leader().await);
    let saturating = press(&leader, "saturating", PERMITS).await;
    let twice = press(&leader, "twice", 2 * PERMITS).await;
    over.store(true, Ordering::Relaxed);
    let most_kib = watch.await.unwrap();

    let goodput = [saturating.accepted.len(), twice.accepted.len()];
    println!(
        "goodput {goodput:?} in {PHASE:?} each, {} refused; resident at most {most_kib:?} KiB",
        twice.refused.len()
    );
    assert!(goodput[0] > 0);
    assert!(
        !twice.refused.is_empty(),
        "{} clients fitted into {PERMITS} places",
        2 * PERMITS
    );
    assert!(
        goodput[1] * 2 >= goodput[0],
        "goodput collapsed from {} to {}",
        goodput[0],
        goodput[1]
    );
    // At once: a refusal waits for nothing that an accepted request waits for.
    assert!(
        median(&twice.refused) <= median(&twice.accepted),
        "refused after {:?}, accepted after {:?}",
        median(&twice.refused),
        median(&twice.accepted)
    );
    for kib in most_kib {
        assert!(
            kib <= MEMORY_BUDGET_MIB * 1024,
            "a node took {kib} KiB, with a budget of {MEMORY_BUDGET_MIB} MiB"
        );
    }
}
