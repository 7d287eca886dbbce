//! What happens to a simulated cluster, and what must be true at the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_client::{CallOptions, Client};
use holdfast_types::NodeId;
use holdfast_wire::v1;
use madsim::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::config::{Configuration, Disk, Ending, Network, RealmRules, Workload};
use crate::trace;

const NODES: u64 = 3;
const WRITERS: u64 = 4;
const WRITING: Duration = Duration::from_secs(20);

/// What a run of the scenario came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Creates that were acknowledged.
    pub acknowledged: usize,
    /// Creates whose outcome the client could not learn.
    pub unknown: usize,
    /// What must not be, one line each. Empty: the run passed.
    pub violations: Vec<String>,
}

/// The creates of a run: account id → what the client knows of it.
type History = Arc<Mutex<BTreeMap<String, Knowledge>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Knowledge {
    Acknowledged { revision: u64 },
    Unknown,
}

/// Three nodes under writes; the leader loses power and comes back, a link of the leader's is cut and mended,
/// and at last every node loses power at once. Everything acknowledged must be on every node at the end.
pub async fn power_cuts_under_writes(seed: u64) -> Summary {
    let handle = Handle::current();
    let cluster = Cluster::start(&handle, &configuration(seed));
    let history = History::default();
    let outside = cluster.outside("clients");

    let client = connect(&cluster);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| outside.spawn(write(client.clone(), writer, Arc::clone(&history))))
        .collect();

    sleep(Duration::from_secs(4)).await;
    let leader = find_leader(&outside, &client).await;
    cluster.hold_down(leader);
    cluster.cut_power(leader);
    sleep(Duration::from_secs(3)).await;
    cluster.release(leader);

    sleep(Duration::from_secs(3)).await;
    let leader = find_leader(&outside, &client).await;
    let follower = leader % NODES + 1;
    let (one, other) = (cluster.place(leader), cluster.place(follower));
    trace::event("cut_link", &format!("between={leader},{follower}"));
    cluster.links().cut(one, other);
    cluster.links().cut(other, one);
    sleep(Duration::from_secs(3)).await;
    cluster.links().mend(one, other);
    cluster.links().mend(other, one);

    sleep(Duration::from_secs(2)).await;
    for id in cluster.ids() {
        cluster.cut_power(id);
    }
    for id in cluster.ids() {
        cluster.restart(id);
    }

    for writer in writers {
        writer.await.expect("a writer never panics");
    }
    let history = history.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let judge = outside.spawn(judge(client, history, cluster.ids()));
    judge.await.expect("the judge never panics")
}

/// A healthy cluster.
fn configuration(seed: u64) -> Configuration {
    Configuration {
        seed,
        scenario: "power-cuts-under-writes".into(),
        nodes: NODES,
        safety_ms: WRITING.as_millis() as u64,
        network: Network {
            latency_min_us: 1_000,
            latency_max_us: 10_000,
            loss: 0.0,
            silent: 1.0,
        },
        disk: Disk {
            sync_min_us: 1_000,
            sync_jitter_us: 8_000,
        },
        realm: RealmRules {
            quarantine_ms: 0,
            deletion_grace_ms: 0,
            request_window_ms: 0,
        },
        workload: Workload {
            clients: 0,
            pause_ms: 0,
            hot_accounts: 0,
            tail_accounts: 0,
            hot_share: 0.0,
            identifiers: 0,
            deadline_ms: 0,
            weights: BTreeMap::new(),
        },
        faults: Vec::new(),
        ending: Ending::Healed,
        planted: None,
    }
}

fn connect(cluster: &Cluster) -> Client {
    Client::connect(cluster.client_config()).expect("the simulated addresses are well formed")
}

async fn write(client: Client, writer: u64, history: History) {
    let until = Instant::now() + WRITING;
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        let id = format!("w{writer}-{number}");
        let result = client.create_account(create(&id), &CallOptions::default()).await;
        let knowledge = match result {
            Ok(response) => {
                trace::event("created", &format!("account={id} revision={}", response.revision));
                Knowledge::Acknowledged {
                    revision: response.revision,
                }
            }
            Err(error) => {
                trace::event(
                    "not_created",
                    &format!("account={id} code={:?} outcome={:?}", error.code, error.outcome),
                );
                if error.outcome == holdfast_client::Outcome::NotApplied {
                    continue;
                }
                Knowledge::Unknown
            }
        };
        history
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, knowledge);
        sleep(Duration::from_millis(20)).await;
    }
}

fn create(id: &str) -> v1::CreateAccountRequest {
    v1::CreateAccountRequest {
        parent: "realms/default".into(),
        account_id: id.into(),
        account: Some(v1::Account {
            display_name: format!("name of {id}"),
            identifiers: vec![v1::Identifier {
                kind: v1::IdentifierKind::Email as i32,
                value: format!("{id}@example.com"),
                ..v1::Identifier::default()
            }],
            ..v1::Account::default()
        }),
        ..v1::CreateAccountRequest::default()
    }
}

/// Asks the cluster who leads, until somebody does.
async fn find_leader(outside: &madsim::runtime::NodeHandle, client: &Client) -> NodeId {
    let client = client.clone();
    let search = outside.spawn(async move {
        loop {
            if let Ok(status) = client.get_status(&CallOptions::default()).await
                && let Some(leader) = status
                    .shards
                    .first()
                    .map(|shard| shard.leader_node_id)
                    .filter(|id| *id != 0)
            {
                return leader;
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    search.await.expect("the search never panics")
}

/// Reads everything back, through the whole cluster and by both ways to an account.
async fn judge(client: Client, history: BTreeMap<String, Knowledge>, nodes: Vec<NodeId>) -> Summary {
    let mut summary = Summary::default();
    for (id, knowledge) in &history {
        match knowledge {
            Knowledge::Acknowledged { revision } => {
                summary.acknowledged += 1;
                if let Err(why) = present(&client, id, *revision).await {
                    summary
                        .violations
                        .push(format!("acknowledged account {id}: {why}"));
                }
            }
            Knowledge::Unknown => summary.unknown += 1,
        }
    }
    if let Err(why) = replicas_agree(&client, nodes.len()).await {
        summary.violations.push(why);
    }
    if summary.acknowledged < 50 {
        summary.violations.push(format!(
            "only {} creates were acknowledged: nothing was tested",
            summary.acknowledged
        ));
    }
    trace::event(
        "judged",
        &format!(
            "acknowledged={} unknown={} violations={}",
            summary.acknowledged,
            summary.unknown,
            summary.violations.len()
        ),
    );
    summary
}

async fn present(client: &Client, id: &str, revision: u64) -> Result<(), String> {
    let options = CallOptions {
        deadline: Some(Duration::from_secs(30)),
        ..CallOptions::default()
    };
    let get = v1::GetAccountRequest {
        name: format!("realms/default/accounts/{id}"),
        consistency: None,
    };
    let got = client
        .get_account(get, &options)
        .await
        .map_err(|error| error.to_string())?;
    let account = got.account.ok_or("the answer holds no account")?;
    if account.revision != revision || account.display_name != format!("name of {id}") {
        return Err(format!(
            "found revision {} instead of {revision}, or another name",
            account.revision
        ));
    }
    let lookup = v1::LookupAccountRequest {
        parent: "realms/default".into(),
        identifier: Some(v1::IdentifierReference {
            kind: v1::IdentifierKind::Email as i32,
            value: format!("{id}@example.com"),
            ..v1::IdentifierReference::default()
        }),
        consistency: None,
    };
    let found = client
        .lookup_account(lookup, &options)
        .await
        .map_err(|error| error.to_string())?;
    match found.account {
        Some(account) if account.name == format!("realms/default/accounts/{id}") => Ok(()),
        _ => Err("its email leads elsewhere".into()),
    }
}

/// Waits until all replicas have applied the same index, and compares their digests.
async fn replicas_agree(client: &Client, size: usize) -> Result<(), String> {
    let until = Instant::now() + Duration::from_secs(60);
    let mut last = String::from("no node answered");
    while Instant::now() < until {
        let mut seen = Vec::new();
        for node in client.admin_endpoints() {
            if let Ok(status) = client.get_status_of(node, &CallOptions::default()).await {
                seen.extend(
                    status
                        .shards
                        .first()
                        .map(|shard| (shard.applied_index, shard.state_digest.clone())),
                );
            }
        }
        if seen.len() == size && seen.iter().all(|(index, _)| *index == seen[0].0) {
            return match seen.iter().all(|(_, digest)| *digest == seen[0].1) {
                true => Ok(()),
                false => Err(format!("replicas differ at the same applied index: {seen:?}")),
            };
        }
        last = format!("{seen:?}");
        sleep(Duration::from_millis(500)).await;
    }
    Err(format!("the replicas did not converge: {last}"))
}
