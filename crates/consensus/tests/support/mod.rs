//! Nodes in one process, over loopback, each with a disk that outlives it.

#![allow(clippy::unwrap_used, reason = "a test helper")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdfast_consensus::{
    ConsensusConfig, EncodedCommand, FatalSink, Group, LogWriter, PeerAddresses, ProposeError,
};
use holdfast_machine::{Body, Command, Mutation, Write};
use holdfast_storage::command;
use holdfast_storage::engine::Engine;
use holdfast_storage::faulty::FaultyDisk;
use holdfast_types::{ClusterId, Family, Millis, NodeId, ShardEpoch};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::transport::server::TcpIncoming;
use uuid::Uuid;

pub(crate) const CLUSTER: ClusterId = ClusterId(Uuid::from_u128(0xc1));

/// A deadline far enough for anything that should succeed.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// An address that is this test's alone, also while its node is down: the process id is in it, and outgoing connections
/// come from another.
fn fresh_address() -> SocketAddr {
    static COUNTER: AtomicU16 = AtomicU16::new(0);
    let pid = std::process::id();
    let host = Ipv4Addr::new(127, 216, (pid >> 8) as u8, pid as u8);
    SocketAddr::from((host, 7000 + COUNTER.fetch_add(1, Ordering::Relaxed)))
}

/// A command that stores one account row.
pub(crate) fn put(key: &str, value: &str) -> EncodedCommand {
    EncodedCommand(command::encode(&Command {
        epoch: ShardEpoch(1),
        wall: Millis(1_000),
        body: Body::Mutate(Mutation {
            writes: vec![Write::Put {
                family: Family::Account,
                key: Bytes::copy_from_slice(key.as_bytes()),
                key_id: 0,
                body: Bytes::copy_from_slice(value.as_bytes()),
            }],
            ..Mutation::default()
        }),
    }))
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) disk: FaultyDisk,
    pub(crate) addresses: PeerAddresses,
    address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    group: Group,
    fatal: FatalSink,
    engine: Arc<dyn Engine>,
    stop: oneshot::Sender<()>,
}

/// Listens as soon as the node that had the address before has let go of it: it waits for its connections.
async fn listen(address: SocketAddr) -> TcpIncoming {
    let until = soon();
    loop {
        match TcpIncoming::bind(address) {
            Ok(incoming) => return incoming,
            Err(error) => assert!(Instant::now() < until, "cannot listen on {address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Node {
    pub(crate) fn new(id: NodeId) -> Self {
        let address = fresh_address();
        let addresses = PeerAddresses {
            peer: address.to_string(),
            client: format!("client-{id}"),
            admin: format!("admin-{id}"),
            directory: None,
        };
        Node {
            id,
            disk: FaultyDisk::new(id),
            addresses,
            address,
            running: None,
        }
    }

    /// Starts, or starts again, on what is on the disk.
    pub(crate) async fn start(&mut self, adjust: impl FnOnce(&mut ConsensusConfig)) {
        let mut config = ConsensusConfig::new(CLUSTER, self.id);
        adjust(&mut config);
        let fatal = FatalSink::new();
        let engine: Arc<dyn Engine> = Arc::new(self.disk.open().unwrap());
        let writer = LogWriter::start(engine.clone(), fatal.clone());
        let group = Group::start(config, engine.clone(), writer, fatal.clone())
            .await
            .unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = tonic::transport::Server::builder().add_service(group.peer_service());
        let incoming = listen(self.address).await;
        tokio::spawn(async move {
            server
                .serve_with_incoming_shutdown(incoming, async {
                    drop(stopped.await);
                })
                .await
                .unwrap();
        });
        self.running = Some(Running {
            group,
            fatal,
            engine,
            stop,
        });
    }

    pub(crate) fn group(&self) -> &Group {
        &self.running.as_ref().expect("the node runs").group
    }

    /// How it is taken in, now that it runs.
    pub(crate) fn introduced(&self) -> PeerAddresses {
        PeerAddresses {
            directory: Some(self.group().directory()),
            ..self.addresses.clone()
        }
    }

    pub(crate) fn fatal(&self) -> &FatalSink {
        &self.running.as_ref().expect("the node runs").fatal
    }

    /// Copies the directory as it is now.
    pub(crate) async fn copy(&self) -> FaultyDisk {
        let engine = &self.running.as_ref().expect("the node runs").engine;
        let directory = std::path::Path::new("copy");
        engine.checkpoint(directory).await.unwrap();
        self.disk.restore_checkpoint(directory, self.id + 100).unwrap()
    }

    /// Cuts the power: what was not synced may be gone.
    pub(crate) async fn crash(&mut self) {
        if let Some(running) = self.running.take() {
            self.disk.crash();
            drop(running.stop);
            running.group.shutdown().await;
        }
    }
}

pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    adjust: fn(&mut ConsensusConfig),
}

impl Cluster {
    /// Founds a cluster of three.
    pub(crate) async fn found(adjust: fn(&mut ConsensusConfig)) -> Self {
        let mut cluster = Cluster {
            nodes: (1..=3).map(|id| (id, Node::new(id))).collect(),
            adjust,
        };
        for id in 1..=3 {
            cluster.start(id).await;
        }
        let members: BTreeMap<_, _> = cluster
            .nodes
            .iter()
            .map(|(id, node)| (*id, node.introduced()))
            .collect();
        for node in cluster.nodes.values() {
            // All may found it, with the same members; whoever is late hears that it has been done.
            drop(node.group().initialize(members.clone()).await);
        }
        cluster
    }

    pub(crate) async fn start(&mut self, id: NodeId) {
        let adjust = self.adjust;
        self.nodes.get_mut(&id).unwrap().start(adjust).await;
    }

    pub(crate) async fn crash(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).unwrap().crash().await;
    }

    pub(crate) fn group(&self, id: NodeId) -> &Group {
        self.nodes[&id].group()
    }

    /// Waits for a leader that may propose.
    pub(crate) async fn leader(&self) -> (NodeId, u64) {
        let until = soon();
        loop {
            for (id, node) in &self.nodes {
                if let Some(running) = &node.running {
                    let leadership = *running.group.leadership().borrow();
                    if leadership.ready {
                        return (*id, leadership.term);
                    }
                }
            }
            assert!(Instant::now() < until, "no leader");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Proposes until it is done; only for commands that may run twice.
    pub(crate) async fn write(&self, key: &str, value: &str) -> u64 {
        let until = soon();
        loop {
            let (leader, term) = self.leader().await;
            let deadline = Instant::now() + Duration::from_secs(2);
            match self.group(leader).propose(put(key, value), term, deadline).await {
                Ok(committed) => return committed.index,
                Err(ProposeError::NotAppended { .. } | ProposeError::Unknown { .. }) => {
                    assert!(Instant::now() < until, "no progress");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// The row as a linearizable read on this node sees it.
    pub(crate) async fn read(&self, id: NodeId, key: &str) -> Option<String> {
        let group = self.group(id);
        group.read_barrier(soon()).await.unwrap();
        let row = group.view().get(Family::Account, key.as_bytes()).unwrap()?;
        let body = holdfast_machine::envelope::decode(&row).unwrap().body;
        Some(String::from_utf8(body.to_vec()).unwrap())
    }

    /// Waits until all running nodes have applied the same, and checks that it is the same.
    pub(crate) async fn assert_equal(&self) {
        let index = {
            let (leader, _) = self.leader().await;
            self.group(leader).read_barrier(soon()).await.unwrap().index
        };
        let mut states = Vec::new();
        for (id, node) in &self.nodes {
            if let Some(running) = &node.running {
                running.group.wait_applied(index, soon()).await.unwrap();
                states.push((*id, running.group.state()));
            }
        }
        for (id, state) in &states {
            assert_eq!(state, &states[0].1, "node {id} differs from node {}", states[0].0);
        }
    }
}
