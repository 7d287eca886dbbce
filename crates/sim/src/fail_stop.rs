//! The judge of nodes that failed: after its disk has told a node that a sync failed, that there is no room or that what
//! it read is not what it wrote, the node acknowledges, votes and serves nothing more, writes nothing after its end, and
//! ends soon.
//!
//! What counts is what the *disk* said, so a node that overlooks it, or retries, is caught as well as one that goes on
//! for a while. The judge hears it from the disk itself ([`FaultyDisk::witness`]), listens to the network, and is told
//! of the crash points that stand for an acknowledgement.
//!
//! [`FaultyDisk::witness`]: holdfast_storage::faulty::FaultyDisk::witness

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_storage::engine::{EngineError, Seq};
use tokio::time::Instant;
use tonic::Code;
use tonic::network::{Overheard, Said};

use crate::cluster::Cluster;
use crate::config::Node;
use crate::judges::Violation;
use crate::trace;

/// What was on its way to the network when the disk failed may still reach it.
const LAST_WORDS: Duration = Duration::from_millis(1);
/// A node that runs and was told so long ago has ended.
const END: Duration = Duration::from_secs(2);
/// The most violations that are kept.
const KEPT_MAX: usize = 5;
/// What is said in these services is an acknowledgement, a vote or an answer. (What operators and peers are told about a
/// node that stops is not.)
const BINDING: [&str; 3] = [
    "/holdfast.v1.AccountService/",
    "/holdfast.internal.v1.ForwardService/Forward",
    "/holdfast.internal.v1.PeerService/",
];
/// Whoever passes these has just made a promise, or is about to tell somebody of it.
const PROMISES: [&str; 3] = [
    "log.synced-not-acknowledged",
    "vote.synced-not-sent",
    "apply.written-not-answered",
];

/// What is known of nodes that failed.
#[derive(Default)]
pub struct FailStop(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    failed: BTreeMap<Node, Failed>,
    ended: BTreeMap<Node, Ended>,
    violations: Vec<Violation>,
    failures: BTreeMap<Node, u64>,
}

/// A process whose disk failed.
struct Failed {
    incarnation: u64,
    what: String,
    /// For how long it has been running since.
    ran: Duration,
    looked: Instant,
    told: bool,
}

/// A process that ended by itself.
struct Ended {
    incarnation: u64,
    written: Seq,
}

impl FailStop {
    /// The disk has just told the process on it of a failure.
    pub fn disk_failed(&self, node: Node, incarnation: u64, error: &EngineError) {
        if matches!(error, EngineError::Stopped { .. }) {
            return;
        }
        let mut inner = self.lock();
        let known = inner.failed.get(&node);
        if known.is_some_and(|failed| failed.incarnation == incarnation) {
            return;
        }
        *inner.failures.entry(node).or_default() += 1;
        trace::event("disk_failed", &format!("node={node} {error}"));
        inner.failed.insert(
            node,
            Failed {
                incarnation,
                what: error.to_string(),
                ran: Duration::ZERO,
                looked: Instant::now(),
                told: false,
            },
        );
    }

    /// The process has ended by itself; so much was written.
    pub fn ended(&self, node: Node, incarnation: u64, written: Seq) {
        self.lock().ended.insert(node, Ended { incarnation, written });
    }

    /// A process that was paused goes on, with what it was about to say.
    pub fn resumed(&self, node: Node) {
        if let Some(failed) = self.lock().failed.get_mut(&node) {
            failed.looked = Instant::now();
            failed.ran = Duration::ZERO;
        }
    }

    /// Somebody says something.
    pub fn heard(&self, cluster: &Cluster, overheard: &Overheard) {
        // A definite no says something about the state too.
        let binds = match overheard.said {
            Said::Answers => true,
            Said::Refuses(code) => matches!(code, Code::NotFound | Code::AlreadyExists | Code::Aborted),
            Said::Asks | Said::AsksMore => false,
        };
        if !binds || self.lock().failed.is_empty() {
            return;
        }
        let path = overheard.path.path();
        if !BINDING.iter().any(|binding| path.starts_with(binding)) {
            return;
        }
        if let Some(node) = cluster.at(overheard.from) {
            let incarnation = cluster.incarnation(node);
            self.objects(node, incarnation, || format!("answered a call of {path}"));
        }
    }

    /// The process passes a crash point.
    pub fn passed(&self, cluster: &Cluster, node: Node, point: &str) {
        if PROMISES.contains(&point) {
            let incarnation = cluster.incarnation(node);
            self.objects(node, incarnation, || format!("passed {point}"));
        }
    }

    fn objects(&self, node: Node, incarnation: u64, did: impl FnOnce() -> String) {
        let mut inner = self.lock();
        let Some(failed) = inner.failed.get_mut(&node) else {
            return;
        };
        failed.run();
        if failed.incarnation != incarnation || failed.ran < LAST_WORDS || failed.told {
            return;
        }
        failed.told = true;
        let message = format!("node {node} {} after its disk had said: {}", did(), failed.what);
        inner.violation(message);
    }

    /// Looks at all that failed: do they end, and write nothing after that?
    pub fn look(&self, cluster: &Cluster) {
        let mut inner = self.lock();
        let mut wrong = Vec::new();
        inner.failed.retain(|node, failed| {
            if cluster.incarnation(*node) != failed.incarnation || cluster.node(*node).is_none() {
                // A new process; or the old one is about to end, and is listened to until there is a new one.
                return cluster.incarnation(*node) == failed.incarnation;
            }
            if cluster.is_still(*node) {
                return true;
            }
            failed.run();
            if failed.ran > END && !failed.told {
                failed.told = true;
                wrong.push(format!(
                    "node {node} goes on {} ms after its disk said: {}",
                    failed.ran.as_millis(),
                    failed.what
                ));
            }
            true
        });
        inner.ended.retain(|node, ended| {
            if cluster.incarnation(*node) != ended.incarnation {
                return false;
            }
            let written = cluster.disk(*node).last();
            if written > ended.written {
                wrong.push(format!(
                    "node {node} wrote sequence {} after it had ended at {}",
                    written.0, ended.written.0
                ));
            }
            written <= ended.written
        });
        for message in wrong {
            inner.violation(message);
        }
    }

    /// What must not be.
    pub fn violations(&self) -> Vec<Violation> {
        self.lock().violations.clone()
    }

    /// How many processes on this node's disks were told of a failure.
    pub fn failures(&self, node: Node) -> u64 {
        self.lock().failures.get(&node).copied().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failed {
    fn run(&mut self) {
        self.ran += self.looked.elapsed();
        self.looked = Instant::now();
    }
}

impl Inner {
    fn violation(&mut self, message: String) {
        if self.violations.len() < KEPT_MAX {
            trace::event("violation", &message);
            self.violations.push(Violation {
                judge: "fail-stop".into(),
                message,
                operations: Vec::new(),
            });
        }
    }
}
