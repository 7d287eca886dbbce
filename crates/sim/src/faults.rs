//! What goes wrong, and how it is put right again.
//!
//! [`draw`] makes a timeline from a seed. [`run`] carries it out: each fault begins at its time, meets whom it was
//! meant for at that moment, lasts as long as it was drawn to, and is undone. Undoing counts: a node that two
//! faults keep away comes back when both have ended. [`heal`] ends everything, whatever is left of it.
//!
//! One class of faults a file. A fault is a function that begins it, waits and undoes it; to add one, give it a
//! place in [`Fault`], a line in `draw` and an arm in [`Run::carry_out`].

mod clock;
mod crash_points;
mod disk;
mod draw;
mod mistakes;
mod network;
mod operators;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_storage::choices::SplitMix64;
use holdfast_types::NodeId;
use madsim::runtime::NodeHandle as MachineHandle;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::config::{Configuration, Ending, Fault, FoundingCrash, Scheduled, Target};
use crate::trace;

pub(crate) use crash_points::{Armed, listen};
pub use draw::{draw, draw_founding, varieties};
pub(crate) use network::{Links, Spells};

/// How long a founder that loses its power is away, and how long it is waited for one that does.
const FOUNDING: Duration = Duration::from_millis(1_500);

/// What a fault that is being carried out can reach.
struct Run {
    cluster: Arc<Cluster>,
    /// Where operators sit.
    office: MachineHandle,
    seed: u64,
    counts: Mutex<BTreeMap<String, u64>>,
}

/// Has a founder lose its power while the cluster is founded, if the run has that. The answer: which fault happened.
pub async fn found(cluster: Arc<Cluster>, configuration: &Configuration) -> Option<String> {
    let FoundingCrash { point, passes } = configuration.founding.as_ref()?;
    let run = Run {
        office: cluster.office().clone(),
        cluster,
        seed: configuration.seed,
        counts: Mutex::default(),
    };
    trace::event(
        "fault",
        &format!("kind=founding-crash point={point} passes={passes}"),
    );
    let happened = crash_points::cut_power_at(&run, point, *passes, FOUNDING).await;
    happened.then(|| format!("founding-crash {point}"))
}

/// Carries out the timeline of a run and returns when the last fault is undone: how many of each kind happened.
pub async fn run(cluster: Arc<Cluster>, configuration: &Configuration) -> BTreeMap<String, u64> {
    let run = Arc::new(Run {
        office: cluster.office().clone(),
        cluster,
        seed: configuration.seed,
        counts: Mutex::default(),
    });
    let tasks: Vec<_> = configuration
        .faults
        .iter()
        .cloned()
        .enumerate()
        .map(|(number, scheduled)| {
            let run = Arc::clone(&run);
            madsim::task::spawn(async move {
                sleep(Duration::from_millis(scheduled.at_ms)).await;
                run.carry_out(number as u64, &scheduled).await;
            })
        })
        .collect();
    for task in tasks {
        // A fault that panicked has ended the process.
        let _ = task.await;
    }
    let counts = run.counts.lock().unwrap_or_else(PoisonError::into_inner);
    counts.clone()
}

/// Mends everything that is still wrong, and has what is beyond mending replaced; then what the run is to end with goes
/// wrong for good. When it returns, all members can converge but those that [`Left`] says may stay behind.
pub async fn heal(cluster: &Arc<Cluster>, configuration: &Configuration) -> Left {
    trace::event("heal", &format!("ending={:?}", configuration.ending));
    crash_points::disarm(cluster);
    cluster.links().mend_all();
    cluster.spells().end_all();
    for id in cluster.ids() {
        disk::heal(cluster, id);
        clock::heal(cluster, id);
        cluster.free(id);
    }
    operators::heal(cluster).await;
    let voters = cluster.voters();
    let behind = match configuration.ending {
        Ending::Healed => Vec::new(),
        Ending::MinorityDown => {
            let down: BTreeSet<_> = voters
                .iter()
                .rev()
                .take(voters.len().saturating_sub(1) / 2)
                .copied()
                .collect();
            for id in &down {
                cluster.hold_down(*id);
                cluster.kill(*id);
            }
            vec![down]
        }
        Ending::OneWayLink => match voters[..] {
            [.., one, other] => {
                cluster.links().cut(cluster.place(one), cluster.place(other));
                // If one of them leads, the other cannot follow; nobody else has a reason to lead.
                vec![BTreeSet::from([one]), BTreeSet::from([other])]
            }
            _ => Vec::new(),
        },
    };
    Left { behind }
}

/// What is still wrong after [`heal`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Left {
    /// Members that may stay behind the others until all is mended: one of these sets. Empty: nobody may.
    pub behind: Vec<BTreeSet<NodeId>>,
}

/// Ends what the run ended with, so that everybody is there for the last questions.
pub fn heal_fully(cluster: &Arc<Cluster>) {
    cluster.links().mend_all();
    for id in cluster.ids() {
        cluster.free(id);
    }
}

impl Run {
    async fn carry_out(&self, number: u64, scheduled: &Scheduled) {
        let lasting = Duration::from_millis(scheduled.for_ms);
        let kind = scheduled.fault.kind();
        trace::event(
            "fault",
            &format!("number={number} kind={kind} for_ms={}", scheduled.for_ms),
        );
        let mut choices = SplitMix64::new(self.seed ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let happened = match &scheduled.fault {
            Fault::Partition { side, one_way } => network::partition(self, side, *one_way, lasting).await,
            Fault::Isolate { target, heard, hears } => {
                network::isolate(self, *target, *heard, *hears, lasting).await
            }
            Fault::Bridge { over, side } => network::bridge(self, *over, side, lasting).await,
            Fault::RandomClogs { every_ms } => {
                network::random_clogs(self, *every_ms, lasting, &mut choices).await
            }
            Fault::Slow { factor } => network::slow(self, *factor, lasting).await,
            Fault::Lossy { loss } => network::lossy(*loss, lasting).await,
            Fault::Duplicates { share } => network::duplicates(*share, lasting).await,
            Fault::LoseAnswers { target } => network::lose_answers(self, *target, lasting).await,
            Fault::LoseRequests { target } => network::lose_requests(self, *target, lasting).await,
            Fault::PoorLink {
                from,
                to,
                latency_ms,
                loss,
            } => {
                let latency = Duration::from_millis(*latency_ms);
                network::poor_link(self, *from, *to, latency, *loss, lasting).await
            }
            Fault::ResetAt { point, passes } => crash_points::reset_at(self, point, *passes, lasting).await,
            Fault::ResetStreams { target, every_ms } => {
                network::reset_streams(self, *target, *every_ms, lasting).await
            }
            Fault::Kill { target } => process::kill(self, *target, lasting).await,
            Fault::CutPower { target } => process::cut_power(self, *target, lasting).await,
            Fault::CutPowerAt { point, passes } => {
                crash_points::cut_power_at(self, point, *passes, lasting).await
            }
            Fault::Stop { target } => process::stop(self, *target, lasting).await,
            Fault::RestartStorm { target, every_ms } => {
                process::restart_storm(self, *target, *every_ms, lasting).await
            }
            Fault::Pause { target } => process::pause(self, *target, lasting).await,
            Fault::Blackout => process::blackout(self, lasting).await,
            Fault::LongAbsence { target } => process::long_absence(self, *target, lasting).await,
            Fault::SlowSyncs { target, delay_ms } => {
                disk::slow_syncs(self, *target, *delay_ms, lasting).await
            }
            Fault::StalledSyncs { target } => disk::stalled_syncs(self, *target, lasting).await,
            Fault::FailedSync { target } => disk::failed_sync(self, *target, lasting).await,
            Fault::ReadErrors { target } => disk::read_errors(self, *target, lasting).await,
            Fault::BitFlip { target, part } => disk::bit_flip(self, *target, *part, lasting).await,
            Fault::BitRot { target } => disk::bit_rot(self, *target, lasting).await,
            Fault::Full { target } => disk::full(self, *target, lasting, &mut choices).await,
            Fault::DiskFailsAt { point, passes, how } => {
                crash_points::disk_fails_at(self, point, *passes, *how, lasting).await
            }
            Fault::Wipe { target, told } => disk::wipe(self, *target, *told, lasting).await,
            Fault::ClockOffset { target, offset_ms } => {
                clock::offset(self, *target, *offset_ms, lasting).await
            }
            Fault::ClockDrift { target, ppm } => clock::drift(self, *target, *ppm, lasting).await,
            Fault::AddNode => operators::add_node(self, lasting).await,
            Fault::RemoveNode { target } => operators::remove_node(self, *target, lasting).await,
            Fault::ReplaceNode { target } => operators::replace_node(self, *target, lasting).await,
            Fault::TransferLeadership => operators::transfer_leadership(self, lasting).await,
            Fault::Drain { target } => operators::drain(self, *target, lasting).await,
            Fault::TriggerSnapshot { target } => operators::trigger_snapshot(self, *target, lasting).await,
            Fault::Reconfigure { target } => operators::reconfigure(self, *target, lasting).await,
            Fault::Misname { target, what } => mistakes::misname(self, *target, *what, lasting).await,
            Fault::Stranger => mistakes::stranger(self, lasting).await,
        };
        if happened {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            *counts.entry(scheduled.fault.variety()).or_default() += 1;
        }
        trace::event(
            "fault_over",
            &format!("number={number} kind={kind} happened={happened}"),
        );
    }

    /// Whom a fault meets now; nobody if there is no such node, or it is gone for good.
    fn find(&self, target: Target) -> Option<NodeId> {
        let leader = self.cluster.leader();
        let found = match target {
            Target::Node(id) => self.cluster.ids().contains(&id).then_some(id),
            Target::Leader => leader,
            Target::Follower => {
                let running = |id: &NodeId| Some(*id) != leader && self.cluster.node(*id).is_some();
                self.cluster.voters().into_iter().find(running)
            }
        };
        let found = found.filter(|id| !self.cluster.is_gone(*id));
        trace::event("target", &format!("wanted={target:?} found={found:?}"));
        found
    }
}
