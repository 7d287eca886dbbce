//! Nodes in one process: real sockets on loopback, engines in memory.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use holdfast_node::config::{ClusterSection, InitialMember, ListenSection, NodeSection};
use holdfast_node::{Config, NodeHandle, StartError, SystemClock, start};
use holdfast_storage::faulty::FaultyDisk;
use holdfast_wire::status::ErrorView;
use holdfast_wire::v1;
use holdfast_wire::v1::account_service_client::AccountServiceClient;
use holdfast_wire::v1::cluster_service_client::ClusterServiceClient;
use holdfast_wire::v1::realm_service_client::RealmServiceClient;
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

/// A cluster in this process.
pub(crate) struct Cluster {
    pub(crate) configs: BTreeMap<u64, Config>,
    pub(crate) disks: BTreeMap<u64, FaultyDisk>,
    pub(crate) nodes: BTreeMap<u64, NodeHandle>,
}

impl Cluster {
    /// Configures `count` nodes with quick elections.
    pub(crate) fn new(count: u64) -> Self {
        let addresses: Vec<_> = (0..count * 4).map(|_| fresh_address()).collect();
        let address = |id: u64, kind: usize| addresses[(id as usize - 1) * 4 + kind].to_string();
        let initial_members: Vec<_> = (1..=count)
            .map(|id| InitialMember {
                id,
                peer: address(id, 0),
                client: address(id, 1),
                admin: address(id, 2),
            })
            .collect();
        let configs = (1..=count)
            .map(|id| {
                let config = Config {
                    node: NodeSection {
                        id,
                        data_dir: format!("memory/{id}").into(),
                    },
                    cluster: ClusterSection {
                        id: Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0001),
                        initial_members: initial_members.clone(),
                    },
                    listen: ListenSection {
                        peer: Some(address(id, 0).parse().unwrap()),
                        client: Some(address(id, 1).parse().unwrap()),
                        admin: Some(address(id, 2).parse().unwrap()),
                        metrics: Some(address(id, 3).parse().unwrap()),
                    },
                    ..Config::default()
                };
                (id, config)
            })
            .collect();
        let disks = (1..=count).map(|id| (id, FaultyDisk::new(id))).collect();
        Cluster {
            configs,
            disks,
            nodes: BTreeMap::new(),
        }
    }

    /// Starts `count` nodes and waits until they serve.
    pub(crate) async fn started(count: u64) -> Self {
        let mut cluster = Cluster::new(count);
        for id in 1..=count {
            cluster.start(id).await;
        }
        cluster.wait_ready().await;
        cluster
    }

    pub(crate) async fn start(&mut self, id: u64) {
        self.try_start(id).await.unwrap();
    }

    pub(crate) async fn try_start(&mut self, id: u64) -> Result<(), StartError> {
        let engine = Arc::new(self.disks[&id].open().unwrap());
        let node = start(self.configs[&id].clone(), engine, Arc::new(SystemClock)).await?;
        self.nodes.insert(id, node);
        Ok(())
    }

    pub(crate) async fn stop(&mut self, id: u64) {
        if let Some(node) = self.nodes.remove(&id) {
            node.shutdown().await;
        }
    }

    /// Until a realm exists, which takes a leader and a write.
    pub(crate) async fn wait_ready(&self) {
        let id = *self.nodes.keys().next().unwrap();
        eventually("the cluster serves", || async {
            let request = v1::GetRealmRequest {
                name: "realms/default".into(),
                consistency: None,
            };
            self.realms(id).get_realm(request).await.is_ok()
        })
        .await;
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        self.nodes.values().find_map(|node| {
            let leadership = *node.group().leadership().borrow();
            (leadership.is_me && leadership.ready)
                .then_some(leadership.leader)
                .flatten()
        })
    }

    pub(crate) fn follower(&self) -> u64 {
        let leader = self.leader();
        *self.nodes.keys().find(|id| Some(**id) != leader).unwrap()
    }

    pub(crate) fn accounts(&self, id: u64) -> AccountServiceClient<Channel> {
        AccountServiceClient::new(self.channel(self.configs[&id].listen_client()))
    }

    pub(crate) fn realms(&self, id: u64) -> RealmServiceClient<Channel> {
        RealmServiceClient::new(self.channel(self.configs[&id].listen_admin()))
    }

    pub(crate) fn cluster(&self, id: u64) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel(self.configs[&id].listen_admin()))
    }

    fn channel(&self, address: std::net::SocketAddr) -> Channel {
        Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect_lazy()
    }
}

/// An address that is this test's alone, also while its node is down: the process id is in it, and outgoing connections
/// come from another.
fn fresh_address() -> SocketAddr {
    static COUNTER: AtomicU16 = AtomicU16::new(0);
    let pid = std::process::id();
    let host = Ipv4Addr::new(127, 217, (pid >> 8) as u8, pid as u8);
    SocketAddr::from((host, 7000 + COUNTER.fetch_add(1, Ordering::Relaxed)))
}

/// Tries until it is true, for at most half a minute.
pub(crate) async fn eventually<F, W>(what: &str, mut check: F)
where
    F: FnMut() -> W,
    W: Future<Output = bool>,
{
    let give_up = Instant::now() + Duration::from_secs(30);
    while !check().await {
        assert!(Instant::now() < give_up, "never came true: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn request_id() -> String {
    Uuid::now_v7().to_string()
}

/// A create with one email address.
pub(crate) fn create(email: &str) -> v1::CreateAccountRequest {
    v1::CreateAccountRequest {
        parent: "realms/default".into(),
        account_id: String::new(),
        account: Some(v1::Account {
            display_name: "Ann".into(),
            identifiers: vec![v1::Identifier {
                kind: v1::IdentifierKind::Email.into(),
                value: email.into(),
                ..v1::Identifier::default()
            }],
            ..v1::Account::default()
        }),
        request_id: request_id(),
        context: None,
    }
}

pub(crate) fn lookup(email: &str) -> v1::LookupAccountRequest {
    v1::LookupAccountRequest {
        parent: "realms/default".into(),
        identifier: Some(v1::IdentifierReference {
            kind: v1::IdentifierKind::Email.into(),
            value: email.into(),
            ..v1::IdentifierReference::default()
        }),
        consistency: None,
    }
}

/// The reason of an error of ours.
pub(crate) fn reason(status: &Status) -> String {
    ErrorView::of(status)
        .unwrap_or_else(|| panic!("no details: {status:?}"))
        .reason
}
