//! One trace id finds a request in the logs of all members. Alone in its process: it takes over the log.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic, too")]

#[allow(dead_code, reason = "shared with other tests")]
mod support;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_accounts::{ChangeEvent, ChangeKind};
use holdfast_consensus::{ConsensusConfig, EncodedCommand, traced};
use holdfast_machine::{Body, Command, Mutation};
use holdfast_storage::{command, schema};
use holdfast_types::{AccountId, Actor, Millis, RealmNumber, ShardEpoch};
use support::{Cluster, soon};
use tokio::time::Instant;

/// The log, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Waits for a line with all of these in it.
    async fn wait_for(&self, parts: &[&str]) {
        let until = soon();
        loop {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            if text
                .lines()
                .any(|line| parts.iter().all(|part| line.contains(part)))
            {
                return;
            }
            assert!(Instant::now() < until, "no line has {parts:?} in:\n{text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

const WRITE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const READ: &str = "5cf92f3577b34da6a3ce929d0e0e4737";
const TRANSFER: &str = "6df92f3577b34da6a3ce929d0e0e4738";

fn parent(trace_id: &str) -> String {
    format!("00-{trace_id}-00f067aa0ba902b7-01")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_is_found_on_every_member() {
    let log = Log::default();
    let sink = log.clone();
    tracing_subscriber::fmt()
        .with_env_filter("holdfast_consensus=debug")
        .with_ansi(false)
        .with_writer(move || sink.clone())
        .init();
    let cluster = Cluster::found(|_: &mut ConsensusConfig| {}).await;
    let (leader, term) = cluster.leader().await;
    let follower = leader % 3 + 1;

    let event = ChangeEvent {
        kind: ChangeKind::Created,
        account: AccountId::new("a").unwrap(),
        revision: 1,
        fields: Vec::new(),
        identifier_kinds: Vec::new(),
        actor: Actor {
            trace_id: WRITE.into(),
            ..Actor::default()
        },
        request_id: None,
    };
    let change = Command {
        epoch: ShardEpoch(1),
        wall: Millis(1_000),
        body: Body::Mutate(Mutation {
            events: vec![schema::change::encode(RealmNumber(1), &event)],
            ..Mutation::default()
        }),
    };
    let change = EncodedCommand(command::encode(&change));
    cluster.group(leader).propose(change, term, soon()).await.unwrap();
    for id in 1..=3 {
        log.wait_for(&[WRITE, &format!("raft{{node={id} "), "an entry is applied"])
            .await;
        if id != leader {
            log.wait_for(&[WRITE, &format!("node={id} "), "an entry has arrived"])
                .await;
        }
    }

    let read = cluster.group(follower).read_barrier(soon());
    traced(parent(READ), read).await.unwrap();
    log.wait_for(&[READ, "read_index", &format!("node={leader} from={follower} ")])
        .await;

    let transfer = cluster
        .group(leader)
        .transfer_leadership(Some(follower), &[], soon());
    traced(parent(TRANSFER), transfer).await.unwrap();
    log.wait_for(&[
        TRANSFER,
        "transfer_leader",
        &format!("node={follower} from={leader} "),
    ])
    .await;
}
