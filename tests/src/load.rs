//! Writers that keep a ledger of what was acknowledged, and the check that every acknowledgement holds.
//!
//! Each writer owns its accounts: it creates one, then raises its `counter` one by one. So the ledger says what
//! must be there exactly: an acknowledged counter, or, where the last answer was *unknown*, that or the next.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holdfast_client::{CallOptions, Client, Outcome};
use tokio::task::JoinHandle;

use crate::api;
use crate::cluster::Cluster;

/// What is known of one account.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The last acknowledged counter; none before the creation was acknowledged.
    pub acknowledged: Option<i64>,
    /// A write beyond it was sent and its outcome never learnt.
    pub unknown: bool,
}

/// What all writers were told.
pub type Ledger = BTreeMap<String, Entry>;

/// Writers at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    ledger: Arc<Mutex<Ledger>>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    /// How many times each account's counter is raised before its writer goes on to the next.
    const RAISES: i64 = 3;

    /// Starts `writers` writers on a client that knows all nodes of the cluster.
    pub fn start(cluster: &Cluster, writers: usize) -> Self {
        Self::start_on(&cluster.client_of(&cluster.founders()), writers)
    }

    /// Starts `writers` writers on `client`.
    pub fn start_on(client: &Client, writers: usize) -> Self {
        let load = Self {
            stop: Arc::default(),
            acknowledged: Arc::default(),
            ledger: Arc::default(),
            writers: Vec::new(),
        };
        let run = uuid::Uuid::now_v7().simple().to_string();
        let run = run[20..].to_owned();
        let spawn = |writer| {
            let (client, run) = (client.clone(), run.clone());
            let (stop, acknowledged, ledger) =
                (load.stop.clone(), load.acknowledged.clone(), load.ledger.clone());
            tokio::spawn(async move {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let id = format!("load-{run}-{writer}-{number}");
                    one_account(&client, &id, &acknowledged, &ledger).await;
                }
            })
        };
        let writers = (0..writers).map(spawn).collect();
        Self { writers, ..load }
    }

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `more` further writes are acknowledged: the cluster works.
    pub async fn progress(&self, more: u64) {
        let goal = self.acknowledged() + more;
        let end = Instant::now() + Duration::from_secs(60);
        while self.acknowledged() < goal {
            assert!(
                Instant::now() < end,
                "{} of {goal} writes acknowledged within a minute",
                self.acknowledged()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Lets the writers finish what they are at.
    pub async fn stop(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.unwrap();
        }
        let ledger = self.ledger.lock().unwrap();
        ledger.clone()
    }
}

/// Creates an account and raises its counter, noting every answer. Goes no further once an answer is unknown:
/// what follows an unknown write could not be judged.
async fn one_account(client: &Client, id: &str, acknowledged: &AtomicU64, ledger: &Mutex<Ledger>) {
    let options = CallOptions::deadline(Duration::from_secs(30));
    for value in 0..=Load::RAISES {
        let request_id = api::request_id();
        let answer = if value == 0 {
            let create = api::create(id, &format!("{id}@example.com"), &request_id);
            client.create_account(create, &options).await.map(|_| ())
        } else {
            client
                .update_account(api::set_counter(id, value, &request_id), &options)
                .await
                .map(|_| ())
        };
        let mut ledger = ledger.lock().unwrap();
        let entry = ledger.entry(id.to_owned()).or_insert(Entry {
            acknowledged: None,
            unknown: false,
        });
        match answer {
            Ok(()) => {
                entry.acknowledged = Some(value);
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.outcome == Outcome::Unknown => {
                entry.unknown = true;
                return;
            }
            Err(error) if error.is_retryable() => return,
            Err(error) => panic!("writing {id} ({value}): {error:?}"),
        }
    }
}

/// Checks every line of the ledger against what node `node` reads linearizably.
pub async fn verify(cluster: &Cluster, node: u64, ledger: &Ledger) {
    let mut client = api::accounts(&cluster.client_address(node)).await.unwrap();
    for (id, entry) in ledger {
        let answer = client
            .get_account(api::request(api::get(id), api::CALL_LIMIT))
            .await;
        let found = match answer {
            Ok(answer) => Some(api::counter(&answer.into_inner().account.unwrap())),
            Err(status) if status.code() == tonic::Code::NotFound => None,
            Err(status) => panic!("reading {id} at node {node}: {status:?}"),
        };
        let next = entry.acknowledged.map_or(0, |counter| counter + 1);
        let holds = found == entry.acknowledged || (entry.unknown && found == Some(next));
        assert!(
            holds,
            "node {node}: {id} has {found:?}, the ledger says {entry:?}"
        );
    }
}

/// Checks the ledger at every running node.
pub async fn verify_everywhere(cluster: &Cluster, ledger: &Ledger) {
    assert!(!ledger.is_empty());
    for node in cluster.running() {
        verify(cluster, node, ledger).await;
    }
}
