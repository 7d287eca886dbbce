//! A simulated cluster: machines whose disks outlive the processes on them, and who may be added while it runs.
//!
//! A machine has an address, a disk, a clock and power; the process on it is the production start. Whoever wants
//! a process to be away says so with [`Cluster::hold_down`] and takes it back with [`Cluster::release`]; it runs
//! while nobody holds it down. A process that ends by itself is started again a little later, as a supervisor
//! would, unless it said that it must not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use holdfast_client::{Client, ClientConfig};
use holdfast_consensus::{GroupStatus, MemberRole};
use holdfast_node::config::InitialMember;
use holdfast_node::{Config, NodeHandle, StartError};
use holdfast_storage::engine::{EngineError, Seq};
use holdfast_storage::faulty::{Faults, FaultyDisk};
use holdfast_types::NodeId;
use holdfast_wire::v1;
use madsim::runtime::{Handle, NodeHandle as MachineHandle};
use tokio::sync::{Notify, mpsc};
use tonic::network;

use crate::config::{Configuration, Disk, Misnamed};
use crate::fail_stop::FailStop;
use crate::faults::{Armed, Links, Spells};
use crate::trace;

mod clock;

pub use clock::SkewedClock;

const CLIENT_PORT: u16 = 7100;
const ADMIN_PORT: u16 = 7200;
const PEER_PORT: u16 = 7300;
const CLUSTER_ID: uuid::Uuid = uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
/// That of a cluster which is none of this one's business.
const OTHER_CLUSTER_ID: uuid::Uuid = uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0002);
/// The node id of its only machine.
const STRANGER: NodeId = 99;
/// The size of a disk, bytes.
const CAPACITY: u64 = 1 << 30;
/// The operators' machine among those that are no node's.
const OFFICE: u8 = 255;
/// How long a process that has to end still runs: an answer that it gives in this time is one too many.
const AGONY: Duration = Duration::from_millis(100);
/// How long a supervisor waits before it starts a process again that ended by itself.
const SUPERVISOR_PAUSE: Duration = Duration::from_millis(1_500);

/// A cluster of nodes, each on a machine of its own.
pub struct Cluster {
    handle: Handle,
    seed: u64,
    healthy: Disk,
    machines: Mutex<BTreeMap<NodeId, Arc<Machine>>>,
    outsiders: Mutex<Vec<MachineHandle>>,
    office: MachineHandle,
    links: Links,
    spells: Spells,
    armed: Armed,
    fail_stop: Arc<FailStop>,
    /// Who hears of every crash point that a node passes.
    steps: OnceLock<Steps>,
    change: Mutex<Change>,
    ended: mpsc::UnboundedSender<NodeId>,
}

/// Who hears which node passes which crash point.
type Steps = Box<dyn Fn(&Cluster, NodeId, &str) + Send + Sync>;

/// What operators have begun and not finished, and what they have to see to.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Members whose copy is destroyed, or about to be taken out.
    pub(crate) lost: BTreeSet<NodeId>,
    /// Members, and the new node that shall take their place.
    pub(crate) replacing: BTreeMap<NodeId, NodeId>,
    /// Members that operators asked to take out for good. Whether that came to pass may not be known.
    pub(crate) leaving: BTreeSet<NodeId>,
    /// New nodes that shall become voters.
    pub(crate) joining: BTreeSet<NodeId>,
    /// Nodes that are switched off for ever.
    gone: BTreeSet<NodeId>,
}

impl Change {
    /// The voters that nobody asked to leave, and how many of them are lost.
    fn staying(&self, voters: &[NodeId]) -> (Vec<NodeId>, usize) {
        let stays = |voter: &&NodeId| !self.leaving.contains(voter);
        let staying: Vec<_> = voters.iter().filter(stays).copied().collect();
        let lost = self.lost_among(&staying);
        (staying, lost)
    }

    fn lost_among(&self, voters: &[NodeId]) -> usize {
        voters.iter().filter(|voter| self.lost.contains(voter)).count()
    }
}

/// The members with a vote.
fn voters_in(status: &GroupStatus) -> Vec<NodeId> {
    let voters = status
        .members
        .iter()
        .filter(|member| member.role == MemberRole::Voter);
    voters.map(|member| member.id).collect()
}

/// Where in the log the membership is.
fn membership_index(status: &GroupStatus) -> Option<u64> {
    let (_term, index) = status.membership_id.split_once('-')?;
    index.parse().ok()
}

/// One machine.
struct Machine {
    id: NodeId,
    place: MachineHandle,
    inside: Arc<Inside>,
}

/// What the process on a machine can reach.
struct Inside {
    id: NodeId,
    /// The disk, after those that were lost with everything on them.
    disks: Mutex<Vec<FaultyDisk>>,
    clock: Arc<SkewedClock>,
    ended: mpsc::UnboundedSender<NodeId>,
    fail_stop: Arc<FailStop>,
    stop: Notify,
    state: Mutex<MachineState>,
}

struct MachineState {
    config: Config,
    /// Rises with each start of the process.
    incarnation: u64,
    running: Option<Arc<NodeHandle>>,
    /// Why processes on this machine ended by themselves.
    fatal: Vec<(u64, String)>,
    /// How many want it to be away.
    held_down: u32,
    /// How many paused it.
    held_still: u32,
    /// The process said that starting it again makes no sense.
    hopeless: bool,
    /// What is wrong about its identity in its configuration.
    misnamed: Option<Misnamed>,
}

impl Cluster {
    /// Starts the founders on fresh disks.
    pub fn start(handle: &Handle, configuration: &Configuration) -> Arc<Self> {
        let (ended, ends) = mpsc::unbounded_channel();
        let cluster = Arc::new(Cluster {
            handle: handle.clone(),
            seed: configuration.seed,
            healthy: configuration.disk.clone(),
            machines: Mutex::default(),
            outsiders: Mutex::default(),
            office: outsider(handle, "operators", OFFICE),
            links: Links::default(),
            spells: Spells::none(&configuration.network),
            armed: Armed::default(),
            fail_stop: Arc::default(),
            steps: OnceLock::new(),
            change: Mutex::default(),
            ended,
        });
        let founders: Vec<NodeId> = (1..=configuration.nodes).collect();
        let initial: Vec<InitialMember> = founders.iter().map(|id| member(*id)).collect();
        for id in founders {
            cluster.add_machine(node_config(id, initial.clone()));
        }
        madsim::task::spawn(supervise(Arc::clone(&cluster), ends));
        cluster
    }

    /// Sets up another machine with an empty disk and starts a node on it. Its id is `config.node.id`.
    pub fn add_machine(&self, config: Config) {
        let id = config.node.id;
        let inside = Arc::new(Inside {
            id,
            disks: Mutex::new(vec![self.new_disk(id, 0)]),
            clock: Arc::new(SkewedClock::default()),
            ended: self.ended.clone(),
            fail_stop: Arc::clone(&self.fail_stop),
            stop: Notify::new(),
            state: Mutex::new(MachineState {
                config,
                incarnation: 0,
                running: None,
                fatal: Vec::new(),
                held_down: 0,
                held_still: 0,
                hopeless: false,
                misnamed: None,
            }),
        });
        inside.watch_disk();
        let process = Arc::clone(&inside);
        let place = self
            .handle
            .create_node()
            .name(format!("node-{id}"))
            .ip(ip(id))
            .init(move || Arc::clone(&process).run())
            .build();
        trace::event("machine", &format!("node={id}"));
        lock(&self.machines).insert(id, Arc::new(Machine { id, place, inside }));
    }

    /// An empty disk: the first of a machine, or the one after so many were lost.
    fn new_disk(&self, id: NodeId, lost: u64) -> FaultyDisk {
        let seed = self.seed.wrapping_mul(31).wrapping_add(id);
        let disk = FaultyDisk::new(seed.wrapping_add(lost << 32));
        disk.configure(|faults| *faults = self.healthy_disk());
        disk
    }

    /// Everything on the disk is lost. The process must be away.
    pub(crate) fn wipe(&self, id: NodeId) {
        let machine = self.machine(id);
        let mut disks = lock(&machine.inside.disks);
        let empty = self.new_disk(id, disks.len() as u64);
        disks.push(empty);
        drop(disks);
        machine.inside.watch_disk();
        trace::event("wipe", &format!("node={id}"));
    }

    /// The disks that a node ever had, the present one last.
    pub(crate) fn disks(&self, id: NodeId) -> Vec<FaultyDisk> {
        lock(&self.machine(id).inside.disks).clone()
    }

    /// A machine of another cluster, and the configuration of a node on it that takes two members of this one for
    /// founders of its own.
    pub(crate) fn stranger(&self) -> (MachineHandle, Config) {
        let place = self.outside("stranger");
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 1, lock(&self.outsiders).len() as u8));
        let at = |port| SocketAddr::new(ip, port);
        let itself = InitialMember {
            id: STRANGER,
            peer: at(PEER_PORT).to_string(),
            client: at(CLIENT_PORT).to_string(),
            admin: at(ADMIN_PORT).to_string(),
        };
        let mut config = node_config(STRANGER, vec![itself, member(1), member(2)]);
        config.cluster.id = OTHER_CLUSTER_ID;
        config.listen.client = Some(at(CLIENT_PORT));
        config.listen.admin = Some(at(ADMIN_PORT));
        config.listen.peer = Some(at(PEER_PORT));
        (place, config)
    }

    /// Ends whatever runs on a machine that is no node's.
    pub(crate) fn switch_off(&self, outsider: &MachineHandle) {
        self.handle.kill(outsider.id());
    }

    /// Adds a machine for a node that is to join later, under the next id that was never used. Returns the id.
    pub fn add_joiner(&self) -> NodeId {
        let id = self.ids().last().map_or(1, |last| last + 1);
        self.add_machine(node_config(id, Vec::new()));
        id
    }

    /// A machine for clients.
    pub fn outside(&self, name: &str) -> MachineHandle {
        let mut outsiders = lock(&self.outsiders);
        let place = outsider(&self.handle, name, outsiders.len() as u8 + 1);
        outsiders.push(place.clone());
        place
    }

    /// The simulator's names of the machines for clients.
    pub(crate) fn outsiders(&self) -> Vec<madsim::task::NodeId> {
        lock(&self.outsiders).iter().map(MachineHandle::id).collect()
    }

    /// The machine where operators sit. No fault meets it.
    pub(crate) fn office(&self) -> &MachineHandle {
        &self.office
    }

    /// Which links are cut.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// How slow all links are.
    pub(crate) fn spells(&self) -> &Spells {
        &self.spells
    }

    /// Which crash points cut the power of whoever passes them.
    pub(crate) fn armed(&self) -> &Armed {
        &self.armed
    }

    /// The judge of nodes that failed.
    pub(crate) fn fail_stop(&self) -> &Arc<FailStop> {
        &self.fail_stop
    }

    /// Somebody hears of every crash point that a node passes from now on. There can be one.
    pub(crate) fn watch_steps(&self, steps: impl Fn(&Cluster, NodeId, &str) + Send + Sync + 'static) {
        let _ = self.steps.set(Box::new(steps));
    }

    /// A node passes a crash point.
    pub(crate) fn passed(&self, id: NodeId, point: &str) {
        self.fail_stop.passed(self, id, point);
        if let Some(steps) = self.steps.get() {
            steps(self, id, point);
        }
    }

    /// Whether somebody paused it.
    pub(crate) fn is_still(&self, id: NodeId) -> bool {
        self.machine(id).inside.state().held_still > 0
    }

    /// What operators are at.
    pub(crate) fn change(&self) -> MutexGuard<'_, Change> {
        lock(&self.change)
    }

    /// Whether this member's copy may be destroyed: at most a minority is at any time. If so, it counts from now
    /// on until the member has been replaced.
    ///
    /// A membership that is not agreed on yet may need a quorum of the one before too, so nothing is lost meanwhile.
    pub(crate) fn may_lose(&self, id: NodeId) -> bool {
        if !self.settled() {
            return false;
        }
        let voters = self.voters();
        let mut change = self.change();
        // Who is asked to leave votes until it has left.
        let (staying, lost) = change.staying(&voters);
        let bears = |voters: usize, lost: usize| lost < (voters - 1) / 2;
        let may = staying.contains(&id)
            && bears(staying.len(), lost)
            && bears(voters.len(), change.lost_among(&voters));
        may && change.lost.insert(id)
    }

    /// Whether this member may leave for good, so that at least `voters_min` stay and at most a minority of them is
    /// lost. If so, it counts as gone from now on.
    pub(crate) fn may_leave(&self, id: NodeId, voters_min: usize) -> bool {
        let voters = self.voters();
        let mut change = self.change();
        if !voters.contains(&id) || !change.leaving.insert(id) {
            return false;
        }
        let (staying, lost) = change.staying(&voters);
        let may = staying.len() >= voters_min && lost <= (staying.len() - 1) / 2;
        if !may {
            change.leaving.remove(&id);
        }
        may
    }

    /// Switches a machine off for ever.
    pub(crate) fn retire(&self, id: NodeId) {
        trace::event("retire", &format!("node={id}"));
        self.change().gone.insert(id);
        self.hold_down(id);
        self.machine(id).end(&self.handle);
    }

    /// Whether a machine was switched off for ever.
    pub fn is_gone(&self, id: NodeId) -> bool {
        self.change().gone.contains(&id)
    }

    /// Nobody holds this node down or still any more; it runs, unless it is gone for ever. What gave up is tried once
    /// more.
    pub(crate) fn free(&self, id: NodeId) {
        if self.is_gone(id) {
            return;
        }
        let (paused, runs) = {
            let machine = self.machine(id);
            let mut state = machine.inside.state();
            state.held_down = 0;
            state.hopeless = false;
            let paused = std::mem::take(&mut state.held_still) > 0;
            (paused, state.running.is_some())
        };
        if paused {
            self.fail_stop.resumed(id);
            network::thaw(self.place(id));
            self.handle.resume(self.place(id));
        }
        if !runs {
            self.restart(id);
        }
    }

    /// The ids of all nodes that ever were, whether they still are or not.
    pub fn ids(&self) -> Vec<NodeId> {
        lock(&self.machines).keys().copied().collect()
    }

    /// The node that runs on a machine at present.
    pub fn node(&self, id: NodeId) -> Option<Arc<NodeHandle>> {
        self.machine(id).inside.state().running.clone()
    }

    /// How often a node was started. What was learned in an earlier incarnation may be forgotten in this one.
    pub fn incarnation(&self, id: NodeId) -> u64 {
        self.machine(id).inside.state().incarnation
    }

    /// Why the node ended by itself: the incarnation and the reason, oldest first.
    pub fn fatal(&self, id: NodeId) -> Vec<(u64, String)> {
        self.machine(id).inside.state().fatal.clone()
    }

    /// Whether nothing but a replacement brings this node back.
    pub fn is_hopeless(&self, id: NodeId) -> bool {
        self.machine(id).inside.state().hopeless
    }

    /// The disk of a node, to read it or to make it fail.
    pub fn disk(&self, id: NodeId) -> FaultyDisk {
        self.machine(id).inside.disk()
    }

    /// The clock of a node.
    pub fn clock(&self, id: NodeId) -> Arc<SkewedClock> {
        Arc::clone(&self.machine(id).inside.clock)
    }

    /// What a disk is like when nothing is wrong with it.
    pub(crate) fn healthy_disk(&self) -> Faults {
        Faults {
            sync_delay: Duration::from_micros(self.healthy.sync_min_us),
            sync_jitter: Duration::from_micros(self.healthy.sync_jitter_us),
            capacity_bytes: Some(CAPACITY),
            ..Faults::default()
        }
    }

    /// The configuration of a client of this cluster, which knows the founders and the given others.
    pub fn client_config(&self) -> ClientConfig {
        let ids = self.ids();
        ClientConfig {
            endpoints: ids
                .iter()
                .map(|id| address(*id, CLIENT_PORT).to_string())
                .collect(),
            admin_endpoints: ids.iter().map(|id| admin_address(*id)).collect(),
            ..ClientConfig::default()
        }
    }

    /// A client as operators set one up: it knows the machines that are there now. (The founders may all have been
    /// replaced since the beginning.)
    pub(crate) fn operators_client(&self) -> Client {
        let mut config = self.client_config();
        let there: Vec<_> = self.ids().into_iter().filter(|id| !self.is_gone(*id)).collect();
        if !there.is_empty() {
            config.endpoints = there
                .iter()
                .map(|id| address(*id, CLIENT_PORT).to_string())
                .collect();
            config.admin_endpoints = there.iter().map(|id| admin_address(*id)).collect();
        }
        Client::connect(config).expect("the simulated addresses are well formed")
    }

    /// Who leads, as the nodes know it: the leader of the newest term that says so itself.
    pub fn leader(&self) -> Option<NodeId> {
        let claims = self.ids().into_iter().filter_map(|id| {
            let leadership = *self.node(id)?.group().leadership().borrow();
            leadership.is_me.then_some((leadership.term, id))
        });
        claims.max().map(|(_, id)| id)
    }

    /// What the running node says that knows of the newest membership. (Who has applied most may have been removed
    /// since, and those who removed it may just have been started and not have applied again.)
    fn foremost(&self) -> Option<GroupStatus> {
        let running = self.ids().into_iter().filter_map(|id| self.node(id));
        running
            .map(|node| node.group().status())
            .max_by_key(|status| (membership_index(status), status.applied))
    }

    /// Whether no membership change is under way, half done or not yet agreed on.
    pub(crate) fn settled(&self) -> bool {
        self.foremost()
            .is_some_and(|status| status.membership_committed && !status.membership_changing())
    }

    /// The members with a vote, as the newest membership says that a running node knows.
    pub fn voters(&self) -> Vec<NodeId> {
        self.foremost()
            .map(|status| voters_in(&status))
            .unwrap_or_default()
    }

    /// The id of the newest membership that a running node knows; empty if nobody runs.
    pub(crate) fn membership_id(&self) -> String {
        self.foremost()
            .map(|status| status.membership_id)
            .unwrap_or_default()
    }

    /// Kills the process. The machine lives on, so everything written stays.
    pub fn kill(&self, id: NodeId) {
        let machine = self.machine(id);
        trace::event("kill", &format!("node={id}"));
        machine.end(&self.handle);
    }

    /// Cuts the power of a machine: the process is gone at once, and of what was not synced some prefix stays.
    pub fn cut_power(&self, id: NodeId) -> Seq {
        let machine = self.machine(id);
        let disk = machine.inside.disk();
        let written = disk.last();
        let kept = disk.crash();
        network::power_off(machine.place.id());
        machine.end(&self.handle);
        trace::event(
            "cut_power",
            &format!("node={id} written={} kept={}", written.0, kept.0),
        );
        kept
    }

    /// Asks the process to stop, as SIGTERM does. One that has not started yet dies of it.
    pub fn stop(&self, id: NodeId) {
        let machine = self.machine(id);
        trace::event("stop", &format!("node={id}"));
        if machine.inside.state().running.is_some() {
            machine.inside.stop.notify_one();
        } else {
            machine.end(&self.handle);
        }
    }

    /// From now on the process is not started (again) until as many have released it.
    pub fn hold_down(&self, id: NodeId) {
        self.machine(id).inside.state().held_down += 1;
    }

    /// Takes one [`hold_down`](Self::hold_down) back, and starts the process if it was the last.
    pub fn release(&self, id: NodeId) {
        let start = {
            let machine = self.machine(id);
            let mut state = machine.inside.state();
            state.held_down = state.held_down.saturating_sub(1);
            state.held_down == 0
        };
        if start {
            self.restart(id);
        }
    }

    /// Starts the process again on the disk it had, unless somebody holds it down or it makes no sense.
    pub fn restart(&self, id: NodeId) {
        let machine = self.machine(id);
        {
            let state = machine.inside.state();
            if state.held_down > 0 || state.hopeless {
                return;
            }
        }
        trace::event("restart", &format!("node={id}"));
        machine.end(&self.handle);
        network::power_on(machine.place.id());
        self.handle.restart(machine.place.id());
    }

    /// The process does nothing until as many have resumed it as paused it.
    pub fn pause(&self, id: NodeId) {
        let machine = self.machine(id);
        machine.inside.state().held_still += 1;
        self.handle.pause(machine.place.id());
        network::freeze(machine.place.id());
        trace::event("pause", &format!("node={id}"));
    }

    /// Takes one [`pause`](Self::pause) back.
    pub fn resume(&self, id: NodeId) {
        let machine = self.machine(id);
        let go = {
            let mut state = machine.inside.state();
            state.held_still = state.held_still.saturating_sub(1);
            state.held_still == 0
        };
        if go {
            self.fail_stop.resumed(id);
            network::thaw(machine.place.id());
            self.handle.resume(machine.place.id());
            trace::event("resume", &format!("node={id}"));
        }
    }

    /// The same for one that said that it makes no sense: the reason is gone.
    pub(crate) fn try_again(&self, id: NodeId) {
        self.machine(id).inside.state().hopeless = false;
        self.restart(id);
    }

    /// From its next start on, the node's configuration says that it is somebody else.
    pub(crate) fn misname(&self, id: NodeId, what: Option<Misnamed>) {
        self.machine(id).inside.state().misnamed = what;
    }

    /// Changes the configuration that the node has from its next start on.
    pub fn reconfigure(&self, id: NodeId, change: impl FnOnce(&mut Config)) {
        change(&mut self.machine(id).inside.state().config);
    }

    /// The node on this machine of the simulator.
    pub fn at(&self, place: madsim::task::NodeId) -> Option<NodeId> {
        let machines = lock(&self.machines);
        machines
            .values()
            .find(|machine| machine.place.id() == place)
            .map(|machine| machine.id)
    }

    /// The simulator's name of a node's machine.
    pub fn place(&self, id: NodeId) -> madsim::task::NodeId {
        self.machine(id).place.id()
    }

    fn machine(&self, id: NodeId) -> Arc<Machine> {
        let machines = lock(&self.machines);
        Arc::clone(
            machines
                .get(&id)
                .expect("only ids of machines that were added are used"),
        )
    }
}

impl Machine {
    /// Ends the process at once.
    fn end(&self, handle: &Handle) {
        {
            let mut state = self.inside.state();
            state.running = None;
            state.held_still = 0;
        }
        // A paused process is woken to die: the simulator drops what it holds back while it is locked itself.
        network::thaw(self.place.id());
        handle.resume(self.place.id());
        handle.kill(self.place.id());
    }
}

impl Inside {
    fn state(&self) -> MutexGuard<'_, MachineState> {
        lock(&self.state)
    }

    /// The judge of failed nodes hears what the disk tells whoever runs on it.
    fn watch_disk(self: &Arc<Self>) {
        let inside = Arc::downgrade(self);
        self.disk().witness(move |error| {
            if let Some(inside) = inside.upgrade() {
                let incarnation = inside.state().incarnation;
                inside.fail_stop.disk_failed(inside.id, incarnation, error);
            }
        });
    }

    fn disk(&self) -> FaultyDisk {
        let disks = lock(&self.disks);
        disks
            .last()
            .expect("a machine has a disk from the beginning")
            .clone()
    }

    /// The process: the production start on the disk that outlives it, until it fails or is told to stop.
    async fn run(self: Arc<Self>) {
        let (config, incarnation) = {
            let mut state = self.state();
            state.incarnation += 1;
            let mut config = state.config.clone();
            let others = config.cluster.initial_members.iter().map(|member| member.id);
            match (state.misnamed, others.clone().find(|other| *other != self.id)) {
                (Some(Misnamed::Cluster), _) => config.cluster.id = OTHER_CLUSTER_ID,
                (Some(Misnamed::Node), Some(another)) => config.node.id = another,
                // Who joined later knows no founder that it could be taken for.
                (Some(Misnamed::Node), None) | (None, _) => {}
            }
            (config, state.incarnation)
        };
        let id = self.id;
        let clock = Arc::clone(&self.clock);
        let started = match self.disk().open() {
            Ok(engine) => holdfast_node::start(config, Arc::new(engine), clock)
                .await
                .map_err(|error| (is_final(&error), error.to_string())),
            Err(error) => Err((true, error.to_string())),
        };
        match started {
            Ok(node) => {
                let node = Arc::new(node);
                self.state().running = Some(Arc::clone(&node));
                tokio::select! {
                    biased;
                    message = node.wait_fatal() => self.dies(incarnation, message).await,
                    () = self.stop.notified() => tokio::select! {
                        biased;
                        message = node.wait_fatal() => self.dies(incarnation, message).await,
                        () = node.shutdown() => trace::event("stopped", &format!("node={id}")),
                    },
                }
                self.state().running = None;
            }
            Err((hopeless, message)) => {
                self.state().hopeless |= hopeless;
                self.died(incarnation, "start_failed", message);
            }
        }
        // Nobody is there to hear it only when the run is over.
        let _ = self.ended.send(id);
    }

    /// A process that has to end does not do so in an instant.
    async fn dies(&self, incarnation: u64, message: String) {
        self.died(incarnation, "fatal", message);
        self.state().running = None;
        tokio::time::sleep(AGONY).await;
    }

    fn died(&self, incarnation: u64, what: &str, message: String) {
        trace::event(what, &format!("node={} message={message}", self.id));
        self.state().fatal.push((incarnation, message));
        self.fail_stop.ended(self.id, incarnation, self.disk().last());
    }
}

/// Whether starting the same node again cannot help. A disk whose reads fail may be well the next time.
fn is_final(error: &StartError) -> bool {
    use holdfast_consensus::StartError as Consensus;
    match error {
        StartError::Transport(_) | StartError::Consensus(Consensus::Raft(_)) => false,
        StartError::Consensus(Consensus::Engine(error)) => matches!(error, EngineError::Damaged { .. }),
        _ => true,
    }
}

/// Starts processes again that ended by themselves.
async fn supervise(cluster: Arc<Cluster>, mut ends: mpsc::UnboundedReceiver<NodeId>) {
    while let Some(id) = ends.recv().await {
        let cluster = Arc::clone(&cluster);
        let incarnation = cluster.incarnation(id);
        madsim::task::spawn(async move {
            tokio::time::sleep(SUPERVISOR_PAUSE).await;
            if cluster.incarnation(id) == incarnation {
                cluster.restart(id);
            }
        });
    }
}

/// A machine that is no node's.
fn outsider(handle: &Handle, name: &str, number: u8) -> MachineHandle {
    handle
        .create_node()
        .name(name)
        .ip(IpAddr::V4(Ipv4Addr::new(10, 0, 1, number)))
        .build()
}

/// The address of a node's machine.
pub fn ip(id: NodeId) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, id as u8))
}

/// Where a node's admin port is.
pub fn admin_address(id: NodeId) -> String {
    address(id, ADMIN_PORT).to_string()
}

/// Where a node's ports are, as operators say it.
pub fn member_addresses(id: NodeId) -> v1::MemberAddresses {
    let member = member(id);
    v1::MemberAddresses {
        peer: member.peer,
        client: member.client,
        admin: member.admin,
    }
}

fn member(id: NodeId) -> InitialMember {
    InitialMember {
        id,
        peer: address(id, PEER_PORT).to_string(),
        client: address(id, CLIENT_PORT).to_string(),
        admin: address(id, ADMIN_PORT).to_string(),
    }
}

fn address(id: NodeId, port: u16) -> SocketAddr {
    SocketAddr::new(ip(id), port)
}

fn node_config(id: NodeId, initial_members: Vec<InitialMember>) -> Config {
    let mut config = Config::default();
    config.node.id = id;
    config.cluster.id = CLUSTER_ID;
    config.cluster.initial_members = initial_members;
    config.listen.client = Some(address(id, CLIENT_PORT));
    config.listen.admin = Some(address(id, ADMIN_PORT));
    config.listen.peer = Some(address(id, PEER_PORT));
    config.history.log_entries = 1_000;
    config.history.change_entries = 4_000;
    config.disk.reserve_mib = 1;
    config.insecure = true;
    config
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
