//! The same group under the simulator: elections, a killed leader, a power failure, and the same run again; and how long a
//! member lags that was away, in simulated time.
#![cfg(madsim)]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use holdfast_consensus::{ConsensusConfig, EncodedCommand, FatalSink, Group, LogWriter, PeerAddresses};
use holdfast_machine::{Body, Command, Mutation, State, Write};
use holdfast_storage::command;
use holdfast_storage::engine::Engine;
use holdfast_storage::faulty::FaultyDisk;
use holdfast_types::{ClusterId, Family, Millis, NodeId, ShardEpoch};
use madsim::runtime::{Handle, NodeHandle, Runtime};
use tokio::time::Instant;
use uuid::Uuid;

struct Member {
    node: NodeHandle,
    disk: FaultyDisk,
    group: Arc<Mutex<Option<Group>>>,
}

fn address(id: NodeId) -> SocketAddr {
    format!("10.0.0.{id}:7000").parse().unwrap()
}

fn member(id: NodeId, members: BTreeMap<NodeId, PeerAddresses>) -> Member {
    let disk = FaultyDisk::new(id);
    let group: Arc<Mutex<Option<Group>>> = Arc::default();
    let (its_disk, its_group) = (disk.clone(), group.clone());
    let node = Handle::current()
        .create_node()
        .name(format!("node-{id}"))
        .ip(address(id).ip())
        .init(move || {
            let (disk, slot, members) = (its_disk.clone(), its_group.clone(), members.clone());
            async move {
                let engine: Arc<dyn Engine> = Arc::new(disk.open().unwrap());
                let fatal = FatalSink::new();
                let writer = LogWriter::start(engine.clone(), fatal.clone());
                let config = ConsensusConfig::new(ClusterId(Uuid::from_u128(1)), id);
                let group = Group::start(config, engine, writer, fatal).await.unwrap();
                *slot.lock().unwrap() = Some(group.clone());
                let founder = group.clone();
                tokio::spawn(async move { drop(founder.initialize(members).await) });
                let server = tonic::transport::Server::builder().add_service(group.peer_service());
                server.serve(address(id)).await.unwrap();
            }
        })
        .build();
    Member { node, disk, group }
}

fn put(n: u64) -> EncodedCommand {
    let write = Write::Put {
        family: Family::Account,
        key: Bytes::copy_from_slice(&n.to_be_bytes()),
        key_id: 0,
        body: Bytes::from_static(b"v"),
    };
    let body = Body::Mutate(Mutation {
        writes: vec![write],
        ..Mutation::default()
    });
    EncodedCommand(command::encode(&Command {
        epoch: ShardEpoch(1),
        wall: Millis(1),
        body,
    }))
}

async fn leader(members: &BTreeMap<NodeId, Member>, except: Option<NodeId>) -> (NodeId, Group, u64) {
    loop {
        for (id, member) in members {
            let group = member.group.lock().unwrap().clone();
            if let Some(group) = group
                && Some(*id) != except
            {
                let leadership = *group.leadership().borrow();
                if leadership.ready {
                    return (*id, group, leadership.term);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Proposes `range` one by one, again until each is in; returns where each was committed.
async fn write(
    members: &BTreeMap<NodeId, Member>,
    except: Option<NodeId>,
    range: std::ops::Range<u64>,
) -> Vec<u64> {
    let mut indexes = Vec::new();
    for n in range {
        loop {
            let (_, group, term) = leader(members, except).await;
            let deadline = Instant::now() + Duration::from_secs(1);
            if let Ok(committed) = group.propose(put(n), term, deadline).await {
                indexes.push(committed.index);
                break;
            }
        }
    }
    indexes
}

fn three_members() -> BTreeMap<NodeId, Member> {
    let addresses: BTreeMap<_, _> = (1..=3)
        .map(|id| {
            (
                id,
                PeerAddresses {
                    peer: address(id).to_string(),
                    ..PeerAddresses::default()
                },
            )
        })
        .collect();
    (1..=3).map(|id| (id, member(id, addresses.clone()))).collect()
}

/// The power of a member fails.
fn crash(member: &Member) {
    Handle::current().kill(member.node.id());
    *member.group.lock().unwrap() = None;
    member.disk.crash();
}

/// Waits until a member that was restarted runs.
async fn running(member: &Member) -> Group {
    loop {
        if let Some(group) = member.group.lock().unwrap().clone() {
            return group;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn story() -> (Vec<u64>, State) {
    let members = three_members();
    let mut indexes = write(&members, None, 0..30).await;

    let (first, _, _) = leader(&members, None).await;
    crash(&members[&first]);
    indexes.extend(write(&members, Some(first), 30..60).await);
    Handle::current().restart(members[&first].node.id());
    indexes.extend(write(&members, None, 60..90).await);

    let (_, group, _) = leader(&members, None).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let point = group.read_barrier(deadline).await.unwrap();
    let mut states = Vec::new();
    for member in members.values() {
        let group = running(member).await;
        group.wait_applied(point.index, deadline).await.unwrap();
        group.read_barrier(deadline).await.unwrap();
        let (state, view) = (group.state(), group.view());
        for n in 0..90_u64 {
            assert!(
                view.get(Family::Account, &n.to_be_bytes()).unwrap().is_some(),
                "{n} was acknowledged"
            );
        }
        states.push(state);
    }
    assert_eq!(states[0], states[1]);
    assert_eq!(states[0], states[2]);
    (indexes, states.remove(0))
}

/// For how long a follower that has been away lags, once it runs again: for absences of many lengths.
async fn absences() -> Vec<Duration> {
    let members = three_members();
    write(&members, None, 0..10).await;
    let (leading, ..) = leader(&members, None).await;
    let follower = &members[&(leading % 3 + 1)];
    let mut lags = Vec::new();
    for away in (1..=12).map(|n| Duration::from_millis(270) * n) {
        crash(follower);
        let since = Instant::now();
        while since.elapsed() < away {
            write(&members, None, 10..11).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Handle::current().restart(follower.node.id());
        let group = running(follower).await;
        let back = Instant::now();
        let index = write(&members, None, 11..12).await[0];
        let deadline = back + Duration::from_secs(30);
        group.wait_applied(index, deadline).await.unwrap();
        lags.push(back.elapsed());
    }
    assert_eq!(leader(&members, None).await.0, leading, "nobody else was elected");
    lags
}

/// The longest that a reader waited at a leader that handed over meanwhile, of several times.
async fn hand_overs() -> Duration {
    let members = three_members();
    write(&members, None, 0..10).await;
    let longest = Arc::new(Mutex::new(Duration::ZERO));
    for _ in 0..20 {
        let (_, group, _) = leader(&members, None).await;
        let until = Instant::now() + Duration::from_secs(2);
        let readers: Vec<_> = (0..8)
            .map(|_| {
                let (group, longest) = (group.clone(), longest.clone());
                tokio::spawn(async move {
                    while Instant::now() < until {
                        let began = Instant::now();
                        group.read_barrier(until + Duration::from_secs(30)).await.unwrap();
                        let mut longest = longest.lock().unwrap();
                        *longest = longest.max(began.elapsed());
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        group.transfer_leadership(None, &[], until).await.unwrap();
        for reader in readers {
            reader.await.unwrap();
        }
    }
    *longest.lock().unwrap()
}

/// One process, one seed: another seed would need another process. The environment may choose it.
fn simulation() -> (u64, Runtime) {
    let seed = std::env::var("MADSIM_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1);
    let mut runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
    runtime.set_time_limit(Duration::from_secs(600));
    (seed, runtime)
}

#[test]
fn a_simulated_cluster_survives_its_leader() {
    let (seed, runtime) = simulation();
    let (indexes, state) = runtime.block_on(story());
    println!("seed {seed}: {indexes:?} {:?}", state.digest);
}

#[test]
fn readers_at_a_leader_that_hands_over_do_not_wait_for_it() {
    let (seed, runtime) = simulation();
    let longest = runtime.block_on(hand_overs());
    println!("seed {seed}: {longest:?}");
    assert!(longest < Duration::from_millis(300), "{longest:?}");
}

#[test]
fn a_member_that_was_away_does_not_wait_for_the_end_of_a_pause() {
    let (seed, runtime) = simulation();
    let lags = runtime.block_on(absences());
    println!("seed {seed}: {lags:?}");
    // Two heartbeats, and what the messages take.
    let most = Duration::from_millis(250);
    assert!(lags.iter().all(|lag| *lag < most), "{lags:?}");
}
