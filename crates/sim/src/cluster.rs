//! A simulated cluster: nodes that can be killed at any moment, disks that outlive them, links that can be cut.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use holdfast_client::ClientConfig;
use holdfast_node::Config;
use holdfast_node::config::InitialMember;
use holdfast_storage::engine::Seq;
use holdfast_storage::faulty::FaultyDisk;
use holdfast_types::{Clock, Millis, NodeId};
use madsim::net::NetSim;
use madsim::runtime::{Handle, NodeHandle};

use crate::trace;

const CLIENT_PORT: u16 = 7100;
const ADMIN_PORT: u16 = 7200;
const PEER_PORT: u16 = 7300;
/// Syncs take time, so that there is something unsynced to lose.
const SYNC_DELAY: Duration = Duration::from_millis(1);
const SYNC_JITTER: Duration = Duration::from_millis(8);
const CLUSTER_ID: uuid::Uuid = uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);

/// A clock that is off by a settable amount: madsim gives every node the same time.
#[derive(Debug, Default)]
pub struct SkewedClock {
    offset_ms: AtomicI64,
}

impl SkewedClock {
    /// Sets the offset from true simulated time, milliseconds.
    pub fn set_offset_ms(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::SeqCst);
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Millis {
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_millis() as u64);
        Millis(since_epoch.saturating_add_signed(self.offset_ms.load(Ordering::SeqCst)))
    }
}

/// One simulated machine.
struct Machine {
    node: NodeHandle,
    disk: FaultyDisk,
    clock: Arc<SkewedClock>,
}

/// A cluster of nodes 1 to n, each on a machine of its own.
pub struct Cluster {
    handle: Handle,
    machines: Vec<Machine>,
}

impl Cluster {
    /// Starts `size` nodes with fresh disks whose choices follow from `seed`.
    pub fn start(handle: &Handle, size: u64, seed: u64) -> Self {
        let machines = (1..=size)
            .map(|id| {
                let disk = FaultyDisk::new(seed.wrapping_mul(31).wrapping_add(id));
                disk.configure(|faults| {
                    faults.sync_delay = SYNC_DELAY;
                    faults.sync_jitter = SYNC_JITTER;
                });
                let clock = Arc::new(SkewedClock::default());
                let node = boot(handle, id, config(id, size), disk.clone(), Arc::clone(&clock));
                Machine { node, disk, clock }
            })
            .collect();
        Cluster {
            handle: handle.clone(),
            machines,
        }
    }

    /// The nodes' ids.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        1..=self.machines.len() as u64
    }

    /// The configuration of a client of this cluster.
    pub fn client_config(&self) -> ClientConfig {
        ClientConfig {
            endpoints: self
                .ids()
                .map(|id| address(id, CLIENT_PORT).to_string())
                .collect(),
            admin_endpoints: self.ids().map(|id| address(id, ADMIN_PORT).to_string()).collect(),
            ..ClientConfig::default()
        }
    }

    /// Cuts the power of a node: the process is gone at once, and of what was not synced some prefix stays.
    pub fn cut_power(&self, id: NodeId) -> Seq {
        self.handle.kill(self.machine(id).node.id());
        let written = self.machine(id).disk.last();
        let kept = self.machine(id).disk.crash();
        trace::event(
            "cut_power",
            &format!("node={id} written={} kept={}", written.0, kept.0),
        );
        kept
    }

    /// Starts a node again on the disk it had.
    pub fn restart(&self, id: NodeId) {
        trace::event("restart", &format!("node={id}"));
        self.handle.restart(self.machine(id).node.id());
    }

    /// Makes a link silent both ways. Streams across it break, as they do when a connection times out.
    pub fn cut_link(&self, one: NodeId, other: NodeId) {
        trace::event("cut_link", &format!("between={one},{other}"));
        let (one, other) = (self.machine(one).node.id(), self.machine(other).node.id());
        NetSim::current().clog_link(one, other);
        NetSim::current().clog_link(other, one);
    }

    /// Mends a cut link.
    pub fn heal_link(&self, one: NodeId, other: NodeId) {
        trace::event("heal_link", &format!("between={one},{other}"));
        let (one, other) = (self.machine(one).node.id(), self.machine(other).node.id());
        NetSim::current().unclog_link(one, other);
        NetSim::current().unclog_link(other, one);
    }

    /// The disk of a node, to read it or to make it fail.
    pub fn disk(&self, id: NodeId) -> &FaultyDisk {
        &self.machine(id).disk
    }

    /// The clock of a node.
    pub fn clock(&self, id: NodeId) -> &SkewedClock {
        &self.machine(id).clock
    }

    fn machine(&self, id: NodeId) -> &Machine {
        &self.machines[id as usize - 1]
    }
}

/// Creates the machine; its main task is the production start on the disk that outlives it.
fn boot(
    handle: &Handle,
    id: NodeId,
    config: Config,
    disk: FaultyDisk,
    clock: Arc<SkewedClock>,
) -> NodeHandle {
    handle
        .create_node()
        .name(format!("node-{id}"))
        .ip(address(id, 0).ip())
        .init(move || run(config.clone(), disk.clone(), Arc::clone(&clock)))
        .build()
}

async fn run(config: Config, disk: FaultyDisk, clock: Arc<SkewedClock>) {
    let id = config.node.id;
    let engine = disk.open().expect("a crash never damages what was synced");
    match holdfast_node::start(config, Arc::new(engine), clock).await {
        Ok(node) => {
            let fatal = node.wait_fatal().await;
            trace::event("fatal", &format!("node={id} message={fatal}"));
        }
        Err(error) => trace::event("start_failed", &format!("node={id} error={error}")),
    }
}

fn address(id: NodeId, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, id as u8)), port)
}

fn config(id: NodeId, size: u64) -> Config {
    let mut config = Config::default();
    config.node.id = id;
    config.cluster.id = CLUSTER_ID;
    config.cluster.initial_members = (1..=size)
        .map(|id| InitialMember {
            id,
            peer: address(id, PEER_PORT).to_string(),
            client: address(id, CLIENT_PORT).to_string(),
            admin: address(id, ADMIN_PORT).to_string(),
        })
        .collect();
    config.listen.client = Some(address(id, CLIENT_PORT));
    config.listen.admin = Some(address(id, ADMIN_PORT));
    config.listen.peer = Some(address(id, PEER_PORT));
    config.insecure = true;
    config
}
