//! Everything that one run is: drawn from a seed, printed, hashed, stored with a failure, and shrunk.
//!
//! A seed only means the same run as long as the drawing code stays as it is. A stored configuration means the
//! same run for ever (with the same program), so regressions keep the whole of it. Everything in it is a list
//! or a number, so that [`crate::runner::shrink`] can take parts away and see whether the run still fails.

use serde::{Deserialize, Serialize};

/// A node's number, from 1.
pub type Node = u64;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// Seeds the simulator: scheduling, latencies, the disks' choices.
    pub seed: u64,
    /// Where it was drawn from: `swarm`, or a named scenario.
    pub scenario: String,
    /// The cluster's founders, 3 to 5.
    pub nodes: u64,
    /// How long faults and clients are active, simulated milliseconds.
    pub safety_ms: u64,
    /// The network when nothing is wrong with it.
    pub network: Network,
    /// The disks when nothing is wrong with them.
    pub disk: Disk,
    /// The realm's rules that matter to histories.
    pub realm: RealmRules,
    /// What clients do.
    pub workload: Workload,
    /// The founder that loses its power while the cluster is founded, and is started again a moment later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founding: Option<FoundingCrash>,
    /// What goes wrong, in the order of time.
    pub faults: Vec<Scheduled>,
    /// What is still wrong when the safety phase has ended.
    pub ending: Ending,
    /// A bug planted in this run, if the program was built for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planted: Option<String>,
}

/// Latency and loss of every message, in every direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Least latency of a message, microseconds.
    pub latency_min_us: u64,
    /// Greatest latency of a message, microseconds.
    pub latency_max_us: u64,
    /// The share of messages that are lost and sent again later.
    pub loss: f64,
    /// The share of refused connections that are silent until the caller gives up, as on a network that drops.
    pub silent: f64,
}

/// How long a sync takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// Least duration of a sync, microseconds.
    pub sync_min_us: u64,
    /// What a random part of is added to it, microseconds.
    pub sync_jitter_us: u64,
}

/// The realm's rules, short enough for a run to see them end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RealmRules {
    /// How long a released identifier stays reserved, milliseconds.
    pub quarantine_ms: u64,
    /// How long a deleted account can be undeleted, milliseconds.
    pub deletion_grace_ms: u64,
    /// How old a request id may be, milliseconds.
    pub request_window_ms: u64,
}

/// What clients do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// How many clients work at the same time.
    pub clients: u32,
    /// Mean pause between two operations of a client, milliseconds.
    pub pause_ms: u64,
    /// Accounts that most operations meet.
    pub hot_accounts: u32,
    /// Accounts that are rarely met.
    pub tail_accounts: u32,
    /// The share of operations on hot accounts.
    pub hot_share: f64,
    /// Identifiers that all clients fight for.
    pub identifiers: u32,
    /// How long a client waits for an answer, milliseconds.
    pub deadline_ms: u64,
    /// Where the clients wait for answers so long that they make fewer calls a second than this, others look at accounts
    /// meanwhile; none: nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_second_min: Option<u32>,
    /// After so many calls the clients stop, however long the safety phase is; none: they go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_max: Option<u64>,
    /// What is done how often, relative to the others; zero or absent: never.
    pub weights: std::collections::BTreeMap<Action, u32>,
}

/// One kind of step of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Create an account with identifiers others want too.
    Create,
    /// Update without a version.
    Update,
    /// Read, then update that version.
    UpdateChecked,
    /// Add, remove or replace identifiers.
    ChangeIdentifiers,
    /// Remove an identifier in one account and take it in another.
    MoveIdentifier,
    /// Delete an account.
    Delete,
    /// Take a deletion back.
    Undelete,
    /// Linearizable read.
    Get,
    /// Several accounts in one linearizable read.
    BatchGet,
    /// Linearizable lookup by identifier.
    Lookup,
    /// Read that may be old, within a bound.
    GetStale,
    /// Read at another node with the token of the last answer.
    GetWithToken,
    /// Read the list of accounts page by page while others write.
    List,
    /// A stream of items, broken off and resumed.
    Import,
    /// The same request sent many times at once.
    RetryStorm,
    /// A request sent again long after it was answered.
    LateDuplicate,
    /// Read all accounts as a stream.
    Export,
}

/// A power cut at a named point of the code, before there is a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundingCrash {
    /// A crash point's name.
    pub point: String,
    /// How many founders pass it before.
    pub passes: u64,
}

/// A fault and when it happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scheduled {
    /// Simulated milliseconds from the beginning of the safety phase.
    pub at_ms: u64,
    /// How long it lasts; then it is undone: the link mended, the node started again.
    pub for_ms: u64,
    /// What happens.
    pub fault: Fault,
}

/// Whom a fault meets, decided when it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// This node.
    Node(Node),
    /// Whoever leads at that moment.
    Leader,
    /// The first that does not.
    Follower,
}

/// What can go wrong. Faults that destroy a copy are limited by `faults` to a minority of the voters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Fault {
    /// Network: two groups cannot reach each other.
    Partition {
        /// One side; everybody else is the other.
        side: Vec<Node>,
        /// Only messages that leave the side are lost.
        one_way: bool,
    },
    /// Network: a node and the other nodes do not hear each other, or one does not hear the other.
    Isolate {
        /// Who.
        target: Target,
        /// The others hear it.
        heard: bool,
        /// It hears the others.
        hears: bool,
    },
    /// Network: two groups see each other only through one node.
    Bridge {
        /// The node that sees all.
        over: Node,
        /// One side without it; the rest is the other.
        side: Vec<Node>,
    },
    /// Network: directed links fail and recover by themselves, one after another.
    RandomClogs {
        /// Mean time between two changes, milliseconds.
        every_ms: u64,
    },
    /// Network: everything is slow.
    Slow {
        /// Latencies are multiplied by this.
        factor: u64,
    },
    /// Network: everything is lossy.
    Lossy {
        /// The share of messages lost and sent again.
        loss: f64,
    },
    /// Network: single requests arrive twice.
    Duplicates {
        /// The share of them.
        share: f64,
    },
    /// Network: answers of a node reach no client, though it executed the request.
    LoseAnswers {
        /// Whose answers.
        target: Target,
    },
    /// Network: requests of clients do not reach a node, though it hears and answers everybody else.
    LoseRequests {
        /// Which.
        target: Target,
    },
    /// Network: one directed link is slow and lossy.
    PoorLink {
        /// From here.
        from: Node,
        /// To there.
        to: Node,
        /// How much longer each message takes, milliseconds.
        latency_ms: u64,
        /// The share of messages that are lost besides and sent again.
        loss: f64,
    },
    /// Network: all connections of whoever passes a named point of the code break, the n-th time any node passes it.
    ResetAt {
        /// A crash point's name.
        point: String,
        /// How often it is passed before, from the beginning of the fault.
        passes: u64,
    },
    /// Network: all streams of a node break at once, and once more every so often.
    ResetStreams {
        /// Whose streams.
        target: Target,
        /// Time between two resets, milliseconds.
        every_ms: u64,
    },
    /// Process: gone at once; what was written stays (the machine lives).
    Kill {
        /// Who.
        target: Target,
    },
    /// Process and disk: gone at once, and so is a random part of what was not synced.
    CutPower {
        /// Who.
        target: Target,
    },
    /// Process and disk: power cut at a named point of the code, the n-th time any node passes it.
    CutPowerAt {
        /// A crash point's name.
        point: String,
        /// How often it is passed before, from the beginning of the fault.
        passes: u64,
    },
    /// Process: graceful stop.
    Stop {
        /// Who.
        target: Target,
    },
    /// Process: killed again and again.
    RestartStorm {
        /// Who.
        target: Target,
        /// Between two kills, milliseconds.
        every_ms: u64,
    },
    /// Process: does nothing for a while, then goes on as if nothing had happened.
    Pause {
        /// Who.
        target: Target,
    },
    /// Process and disk: all nodes lose power in the same instant.
    Blackout,
    /// Process: away until the others have purged what it needs, so that only a snapshot helps.
    LongAbsence {
        /// Who.
        target: Target,
    },
    /// Disk: syncs take longer.
    SlowSyncs {
        /// Whose.
        target: Target,
        /// How long each takes, milliseconds.
        delay_ms: u64,
    },
    /// Disk: syncs do not return.
    StalledSyncs {
        /// Whose.
        target: Target,
    },
    /// Disk: a sync fails and what was not synced is undefined.
    FailedSync {
        /// Whose.
        target: Target,
    },
    /// Disk: reads fail.
    ReadErrors {
        /// Whose.
        target: Target,
    },
    /// Disk: power cut, and a bit of what was synced has changed.
    BitFlip {
        /// Whose.
        target: Target,
        /// Where.
        part: Part,
    },
    /// Disk: a bit of an account has changed while the node runs, and a new node wants all of the state. The node is
    /// replaced.
    BitRot {
        /// Whose.
        target: Target,
    },
    /// Disk: no room; recovers at the end.
    Full {
        /// Whose.
        target: Target,
    },
    /// Disk: fails at a named point of the code, the n-th time any node passes it.
    DiskFailsAt {
        /// A crash point's name.
        point: String,
        /// How often it is passed before, from the beginning of the fault.
        passes: u64,
        /// What fails.
        how: DiskFailure,
    },
    /// Disk: all of it is lost, and the node is started again under its old id. Then it is replaced.
    Wipe {
        /// Whose.
        target: Target,
        /// The others can tell it at its start that they know it.
        told: bool,
    },
    /// Clock: jumps by this much; back at the end.
    ClockOffset {
        /// Whose.
        target: Target,
        /// Milliseconds, either way.
        offset_ms: i64,
    },
    /// Clock: runs too fast or too slow.
    ClockDrift {
        /// Whose.
        target: Target,
        /// Parts per million, either way.
        ppm: i64,
    },
    /// Operator: a new node joins as a learner and becomes a voter.
    AddNode,
    /// Operator: a voter leaves for good.
    RemoveNode {
        /// Who.
        target: Target,
    },
    /// Operator: a voter is replaced by a new node.
    ReplaceNode {
        /// Who.
        target: Target,
    },
    /// Operator: leadership is handed over.
    TransferLeadership,
    /// Operator: the node gives up its leaderships and takes none until the end.
    Drain {
        /// Who.
        target: Target,
    },
    /// Operator: a snapshot now, and the log purged behind it.
    TriggerSnapshot {
        /// Who.
        target: Target,
    },
    /// Operator: a node restarts with other timings and limits.
    Reconfigure {
        /// Who.
        target: Target,
    },
    /// Operator: a node restarts as somebody whose data directory that is not; as itself again at the end.
    Misname {
        /// Who.
        target: Target,
        /// What is wrong.
        what: Misnamed,
    },
    /// Operator: a node of another cluster is set up with members of this one among its founders.
    Stranger,
}

/// What of a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFailure {
    /// The next sync.
    Sync,
    /// All reads, for a while.
    Reads,
}

/// Which part of a node's identity is wrong in its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Misnamed {
    /// The cluster's.
    Cluster,
    /// Its own.
    Node,
}

/// Where on a disk a bit changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The engine's own log, below the mark up to which it was synced: found when the disk is opened.
    Mark,
    /// An entry of Raft's log.
    Log,
    /// The vote, the node's identity or another of Raft's notes.
    Vote,
    /// An account.
    State,
    /// Who holds an identifier.
    Claim,
    /// What a request came to.
    Request,
    /// An entry of the change log.
    Change,
    /// What was applied last, the membership, the realms.
    Meta,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 8] = [
        Part::Mark,
        Part::Log,
        Part::Vote,
        Part::State,
        Part::Claim,
        Part::Request,
        Part::Change,
        Part::Meta,
    ];
}

/// What stays wrong after the safety phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Nothing: everybody must converge.
    Healed,
    /// A minority of the voters stays away; the rest must go on.
    MinorityDown,
    /// Messages from one node to one other stay lost; everybody must go on.
    OneWayLink,
}

impl Fault {
    /// The kind, by the name that reports and stored configurations use.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Partition { .. } => "partition",
            Fault::Isolate { .. } => "isolate",
            Fault::Bridge { .. } => "bridge",
            Fault::RandomClogs { .. } => "random-clogs",
            Fault::Slow { .. } => "slow",
            Fault::Lossy { .. } => "lossy",
            Fault::Duplicates { .. } => "duplicates",
            Fault::LoseAnswers { .. } => "lose-answers",
            Fault::LoseRequests { .. } => "lose-requests",
            Fault::PoorLink { .. } => "poor-link",
            Fault::ResetAt { .. } => "reset-at",
            Fault::ResetStreams { .. } => "reset-streams",
            Fault::Kill { .. } => "kill",
            Fault::CutPower { .. } => "cut-power",
            Fault::CutPowerAt { .. } => "cut-power-at",
            Fault::Stop { .. } => "stop",
            Fault::RestartStorm { .. } => "restart-storm",
            Fault::Pause { .. } => "pause",
            Fault::Blackout => "blackout",
            Fault::LongAbsence { .. } => "long-absence",
            Fault::SlowSyncs { .. } => "slow-syncs",
            Fault::StalledSyncs { .. } => "stalled-syncs",
            Fault::FailedSync { .. } => "failed-sync",
            Fault::ReadErrors { .. } => "read-errors",
            Fault::BitFlip { .. } => "bit-flip",
            Fault::BitRot { .. } => "bit-rot",
            Fault::Full { .. } => "full",
            Fault::DiskFailsAt { .. } => "disk-fails-at",
            Fault::Wipe { .. } => "wipe",
            Fault::ClockOffset { .. } => "clock-offset",
            Fault::ClockDrift { .. } => "clock-drift",
            Fault::AddNode => "add-node",
            Fault::RemoveNode { .. } => "remove-node",
            Fault::ReplaceNode { .. } => "replace-node",
            Fault::TransferLeadership => "transfer-leadership",
            Fault::Drain { .. } => "drain",
            Fault::TriggerSnapshot { .. } => "trigger-snapshot",
            Fault::Reconfigure { .. } => "reconfigure",
            Fault::Misname { .. } => "misname",
            Fault::Stranger => "stranger",
        }
    }
}

impl Fault {
    /// The kind, and where it makes a difference which one: what reports count.
    pub fn variety(&self) -> String {
        let kind = self.kind();
        match self {
            Fault::CutPowerAt { point, .. } | Fault::ResetAt { point, .. } => format!("{kind} {point}"),
            Fault::DiskFailsAt { point, how, .. } => format!("{kind} {point} {how:?}").to_lowercase(),
            Fault::BitFlip { part, .. } => format!("{kind} {part:?}").to_lowercase(),
            _ => kind.to_owned(),
        }
    }
}

impl Configuration {
    /// A short name of exactly this configuration (FNV-1a of its stored form): equal names, equal runs.
    pub fn hash(&self) -> String {
        let text = toml::to_string(self).unwrap_or_default();
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }
}
