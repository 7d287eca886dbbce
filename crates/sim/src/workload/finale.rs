//! After the faults: a probe whether the cluster does its duty again; and when all is well, very late duplicates,
//! and every node is asked for everything.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::call::{Caller, Freshness, Via};
use super::dice::Dice;
use super::repeats::Late;
use super::request::{Mutation, Typed, request_id};
use super::worker::found;
use super::world::World;
use super::{Endpoint, Recorder, endpoint, nodes};
use crate::cluster::Cluster;
use crate::history::{Input, Outcome, Output};

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a read is tried.
const ATTEMPTS: u32 = 4;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// Readers of one node at the same time.
const READERS: usize = 4;
/// Accounts in one batch.
const BATCH: usize = 50;
/// Accounts on one page.
const PAGE: i32 = 500;
/// The number of the client that probes.
const PROBE: u32 = 999;
/// The clients that read last have numbers from here, by node and by reader.
const READER: u32 = 1_000;

/// Waits until the cluster accepts a write and then serves it to a linearizable read.
///
/// # Errors
/// What it said last, if it did not within this time.
pub async fn probe(cluster: &Arc<Cluster>, recorder: &Recorder, patience: Duration) -> Result<(), String> {
    let endpoints = nodes(cluster).into_iter().map(|node| node.client).collect();
    let caller = caller(PROBE, endpoints, recorder)?;
    let work = cluster.office().spawn(async move {
        let until = Instant::now() + patience;
        let mut dice = Dice::new(caller.recorder.count() as u64, u64::from(PROBE));
        loop {
            let account = format!("probe.{}", caller.recorder.count());
            let fingerprint = caller.recorder.fingerprint(PROBE);
            let mutation = Mutation::create(request_id(&mut dice, 0), account.clone(), fingerprint, &[]);
            let mut outcome = caller.mutate(&mutation, &Via::Client).await;
            if found(&outcome) {
                outcome = caller
                    .get(&account, &Freshness::linearizable(), &Via::Client)
                    .await;
            }
            match outcome {
                outcome if found(&outcome) => return Ok(()),
                outcome if Instant::now() >= until => {
                    return Err(format!(
                        "no write and read within {} ms: {outcome:?}",
                        patience.as_millis()
                    ));
                }
                _ => sleep(PAUSE).await,
            }
        }
    });
    work.await.map_err(|error| error.to_string())?
}

/// Sends the late duplicates, and reads every account and identifier that was ever mentioned, linearizably, at
/// each voter. All of it goes into the history; a voter that does not answer is a violation.
pub async fn final_reads(cluster: &Arc<Cluster>, recorder: &Recorder) {
    let live: Vec<Endpoint> = cluster.voters().into_iter().map(endpoint).collect();
    let work = cluster.office().spawn(read_everywhere(live, recorder.clone()));
    match work.await {
        Ok(problems) => problems
            .into_iter()
            .for_each(|problem| recorder.violation(problem)),
        Err(error) => recorder.violation(format!("the last reads ended by themselves: {error}")),
    }
}

async fn read_everywhere(live: Vec<Endpoint>, recorder: Recorder) -> Vec<String> {
    let addresses: Vec<String> = live.iter().map(|node| node.client.clone()).collect();
    let mut problems = Vec::new();
    for Late { client, mutation } in recorder.late() {
        match caller(client, addresses.clone(), &recorder) {
            Ok(caller) => drop(caller.mutate(&mutation, &Via::Client).await),
            Err(why) => problems.push(why),
        }
    }
    let (accounts, identifiers) = mentioned(&recorder);
    let batches: Vec<Vec<String>> = accounts.chunks(BATCH).map(<[String]>::to_vec).collect();
    let mut readers = Vec::new();
    for node in live {
        for reader in 0..READERS {
            let part = Part {
                batches: batches.iter().skip(reader).step_by(READERS).cloned().collect(),
                lookups: identifiers
                    .iter()
                    .skip(reader)
                    .step_by(READERS)
                    .cloned()
                    .collect(),
                list: reader == 0,
            };
            let number = READER + node.node as u32 * 10 + reader as u32;
            match caller(number, addresses.clone(), &recorder) {
                Ok(caller) => readers.push(tokio::spawn(read_all(caller, node.clone(), part))),
                Err(why) => problems.push(why),
            }
        }
    }
    for reader in readers {
        match reader.await {
            Ok(failed) => problems.extend(failed),
            Err(error) => problems.push(format!("a reader ended by itself: {error}")),
        }
    }
    problems
}

fn caller(number: u32, endpoints: Vec<String>, recorder: &Recorder) -> Result<Caller, String> {
    Caller::new(number, endpoints, DEADLINE, recorder.clone(), World::new(1, 0, 1))
}

/// One reader's part of what is asked of a node.
struct Part {
    batches: Vec<Vec<String>>,
    lookups: Vec<String>,
    list: bool,
}

/// A read that a node must answer.
enum Read {
    Batch(Vec<String>),
    Get(String),
    Lookup(Typed),
    Page { scan: u64, page: u32, token: String },
}

async fn read_all(caller: Caller, node: Endpoint, part: Part) -> Vec<String> {
    let mut dice = Dice::new(0, node.node);
    let via = Via::Node(node);
    let mut todo: VecDeque<Read> = part.batches.into_iter().map(Read::Batch).collect();
    todo.extend(
        part.lookups
            .iter()
            .map(|canonical| Read::Lookup(Typed::new(canonical, &mut dice))),
    );
    todo.extend(part.list.then(|| Read::Page {
        scan: caller.recorder.scan(),
        page: 0,
        token: String::new(),
    }));
    let mut failed = Vec::new();
    while let Some(read) = todo.pop_front() {
        let (outcome, next) = insist(&caller, &read, &via).await;
        match outcome {
            Outcome::Ok {
                output: Output::Batch { not_found, .. },
                ..
            } => {
                // Whether it was purged or never was, only a read of its own tells.
                todo.extend(not_found.into_iter().map(Read::Get));
            }
            Outcome::Ok { .. } => {}
            outcome => failed.push(format!("{via:?} did not answer a last read: {outcome:?}")),
        }
        if let (Read::Page { scan, page, .. }, Some(token)) = (read, next) {
            let page = page + 1;
            todo.push_front(Read::Page { scan, page, token });
        }
    }
    failed
}

/// Reads until it is answered, some times. The second value is the token of the next page, if there is one.
async fn insist(caller: &Caller, read: &Read, via: &Via) -> (Outcome, Option<String>) {
    let mut answer = ask(caller, read, via).await;
    for _ in 1..ATTEMPTS {
        if matches!(answer.0, Outcome::Ok { .. }) {
            break;
        }
        sleep(PAUSE).await;
        answer = ask(caller, read, via).await;
    }
    answer
}

async fn ask(caller: &Caller, read: &Read, via: &Via) -> (Outcome, Option<String>) {
    let fresh = Freshness::linearizable();
    match read {
        Read::Batch(accounts) => (caller.batch_get(accounts, &fresh, via).await, None),
        Read::Get(account) => (caller.get(account, &fresh, via).await, None),
        Read::Lookup(identifier) => (caller.lookup(identifier, &fresh, via).await, None),
        Read::Page { scan, page, token } => {
            let asked = (PAGE, token.clone());
            let (outcome, next) = caller.page((*scan, *page), asked, &fresh, via).await;
            (outcome, (!next.is_empty()).then_some(next))
        }
    }
}

/// Every account and every identifier that the history names.
fn mentioned(recorder: &Recorder) -> (Vec<String>, Vec<String>) {
    let (mut accounts, mut identifiers) = (BTreeSet::new(), BTreeSet::new());
    for operation in recorder.history().operations {
        match operation.input {
            Input::Create {
                account,
                identifiers: with,
                ..
            }
            | Input::ImportItem {
                account,
                identifiers: with,
                ..
            } => {
                accounts.insert(account);
                identifiers.extend(with);
            }
            Input::ChangeIdentifiers {
                account, add, remove, ..
            } => {
                accounts.insert(account);
                identifiers.extend(add);
                identifiers.extend(remove);
            }
            Input::Update { account, .. }
            | Input::Delete { account, .. }
            | Input::Undelete { account, .. }
            | Input::Get { account, .. } => {
                accounts.insert(account);
            }
            Input::BatchGet {
                accounts: several, ..
            } => accounts.extend(several),
            Input::Lookup { identifier, .. } => {
                identifiers.insert(identifier);
            }
            Input::List { .. } | Input::Export { .. } => {}
        }
    }
    (accounts.into_iter().collect(), identifiers.into_iter().collect())
}
