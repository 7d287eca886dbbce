//! The judges that look inside while the run goes on: Raft's invariants, equal replicas, bounds.
//!
//! A monitor looks at every node's status, log and disk each [`PERIOD`] of simulated time, and at a node that passes one
//! of the [`STEPS`], from outside: it takes no part in the run and draws nothing. What it cannot see is what comes and
//! goes between two looks; the invariants are stated such that a violation stays visible (a term with two leaders
//! leaves two nodes that remember leading it, a lost entry stays lost).
//!
//! Source of the invariants: Ongaro, *Consensus: Bridging Theory and Practice*, 2014, figure 3.2.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use holdfast_consensus::{GroupStatus, LogPosition, Role};
use holdfast_storage::engine::{Direction, View};
use holdfast_storage::faulty::FaultyDisk;
use holdfast_types::Family;

use crate::cluster::Cluster;
use crate::config::Node;
use crate::judges::Violation;
use crate::trace;

/// How often it looks.
const PERIOD: Duration = Duration::from_millis(20);
/// The crash points at which something has just changed that an invariant is about.
const STEPS: [&str; 7] = [
    "apply.written-not-answered",
    "install.marked",
    "leadership.changed",
    "log.truncation-queued",
    "membership.change-ended",
    "snapshot.flushed-not-purged",
    "vote.synced-not-sent",
];
/// How many entries are compared at most that were not applied yet, or that a new leader must have.
const TAIL_MAX: u64 = 64;
/// The most violations of one kind that are kept.
const KEPT_MAX: usize = 5;
/// The most tasks that may be alive at once: clients, nodes, and every call between them. Measured: at most
/// 1,100 in some hundred runs.
const TASKS_MAX: usize = 3_000;

/// The most requests that may wait on one node for its log writer, or reads for their barrier: what its clients and its
/// peers have in flight at once.
const QUEUE_MAX: u64 = 500;

/// What the monitor remembers.
#[derive(Default)]
struct Seen {
    violations: Vec<Violation>,
    /// Who led each term.
    leaders: BTreeMap<u64, Node>,
    /// For whom a disk says that its node voted: node, how many disks it has had, term → candidate.
    votes: BTreeMap<(Node, usize, u64), Node>,
    /// Whom disks say a quorum elected: term → leader.
    elected: BTreeMap<u64, Node>,
    /// Applied entries: index → term and checksum.
    entries: BTreeMap<u64, EntryId>,
    /// Entries that were seen before they were applied: index and term → checksum.
    tails: BTreeMap<(u64, u64), u32>,
    /// The greatest index that anybody applied.
    commit: u64,
    /// And by the term of whoever had applied it, which is at least the one it was committed in.
    applied: BTreeMap<u64, u64>,
    /// State digests: applied index → digest and who had it first.
    digests: BTreeMap<u64, ([u8; 16], Node)>,
    nodes: BTreeMap<Node, NodeSeen>,
    looks: u64,
    most_tasks: usize,
    longest_queue: u64,
}

/// What an entry is, as its first bytes on disk say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EntryId {
    term: u64,
    checksum: u32,
}

/// The last look at a node.
#[derive(Default)]
struct NodeSeen {
    /// How many disks it has had: one that lost everything has also forgotten what it promised.
    disks: usize,
    incarnation: u64,
    /// The highest term of which it had said that it is durable.
    promised: u64,
    term: u64,
    applied: u64,
}

/// Looks at a cluster until it is dropped or asked for its verdict.
pub struct Monitor {
    seen: Arc<Mutex<Seen>>,
    task: madsim::task::JoinHandle<()>,
}

/// What a monitor saw.
#[derive(Debug, Default, Clone)]
pub struct Observed {
    /// What must not be.
    pub violations: Vec<Violation>,
    /// How often somebody else became leader.
    pub elections: u64,
    /// How often it looked.
    pub looks: u64,
    /// The most tasks alive at once in the whole simulation.
    pub most_tasks: usize,
    /// The most requests that waited for one node's log writer, or reads for its barrier.
    pub longest_queue: u64,
}

impl Monitor {
    /// Begins to look.
    pub fn start(cluster: Arc<Cluster>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stepping = Arc::clone(&seen);
        cluster.watch_steps(move |cluster, id, point| {
            if STEPS.contains(&point) {
                lock(&stepping).look_at(cluster, id);
            }
        });
        let watching = Arc::clone(&seen);
        let task = madsim::task::spawn(async move {
            loop {
                tokio::time::sleep(PERIOD).await;
                lock(&watching).look(&cluster);
            }
        });
        Monitor { seen, task }
    }

    /// Ends and says what it saw.
    pub fn finish(self) -> Observed {
        self.task.abort();
        let seen = lock(&self.seen);
        Observed {
            violations: seen.violations.clone(),
            elections: seen.leaders.len() as u64,
            looks: seen.looks,
            most_tasks: seen.most_tasks,
            longest_queue: seen.longest_queue,
        }
    }
}

impl Seen {
    fn look(&mut self, cluster: &Cluster) {
        self.looks += 1;
        let tasks = madsim::runtime::Handle::current().metrics().num_tasks();
        self.most_tasks = self.most_tasks.max(tasks);
        if tasks > TASKS_MAX {
            self.violation(
                "bounds",
                format!("{tasks} tasks are alive; no run needs more than {TASKS_MAX}"),
            );
        }
        cluster.fail_stop().look(cluster);
        for id in cluster.ids() {
            self.look_at(cluster, id);
        }
    }

    fn look_at(&mut self, cluster: &Cluster, id: Node) {
        let Some(node) = cluster.node(id) else {
            return;
        };
        let incarnation = cluster.incarnation(id);
        let disks = cluster.disks(id).len();
        let seen = self.nodes.entry(id).or_default();
        if seen.disks != disks {
            *seen = NodeSeen {
                disks,
                ..NodeSeen::default()
            };
        }
        let status = node.group().status();
        if status.fatal.is_some() || status.role == Role::Stopped {
            return;
        }
        self.queues(id, &status);
        let (applied, state) = node.group().applied();
        let seen_applied = self.nodes.get(&id).map_or(0, |seen| seen.applied);
        let durable = cluster.disk(id).durable();
        let durably = durably_applied(&*durable);
        let promised = node.group().promised_term();
        self.monotonic(id, incarnation, &status, promised, applied, durably);
        // Raft's own account of the term may be a moment behind what is applied.
        let term = status.term.max(node.group().voted_term());
        let most = self.applied.entry(term).or_default();
        *most = applied.max(*most);
        let written = cluster.disk(id).written();
        self.elections(id, &status, &*written);
        self.vote(id, disks, &*durable);
        self.digest(id, applied, state.digest);
        // A few old ones too: an entry that was replaced after its commit shows at the end of the log.
        // What is purged may still lie there for a while, and nobody reads it: a snapshot puts an end to a log that had
        // other entries.
        let purged = status.purged.map_or(0, |purged| purged.index);
        let from = seen_applied.saturating_sub(4).max(purged + 1);
        self.log_matching(id, from, applied, &*written);
        let last = status.last_log.map_or(0, |last| last.index);
        self.tail_matching(id, applied + 1, last.min(applied + TAIL_MAX), &*written);
        self.quorum(cluster, id, &status, applied);
    }

    /// Who waits is somebody that was let in, and those are bounded.
    fn queues(&mut self, id: Node, status: &GroupStatus) {
        for (queue, length) in [
            ("requests wait for the log writer", status.log_requests),
            ("reads wait for their barrier", status.readers),
        ] {
            self.longest_queue = self.longest_queue.max(length);
            if length > QUEUE_MAX {
                self.violation("bounds", format!("node {id}: {length} {queue}"));
            }
        }
    }

    /// A promised term is kept over any restart. Term and apply never go back within an incarnation. (What openraft
    /// calls committed may: a new leader begins at what it can vouch for itself.)
    fn monotonic(
        &mut self,
        id: Node,
        incarnation: u64,
        status: &GroupStatus,
        promised: u64,
        applied: u64,
        durable: u64,
    ) {
        let seen = self.nodes.entry(id).or_default();
        let mut wrong = Vec::new();
        if promised < seen.promised {
            wrong.push(format!(
                "term {} was promised, now only {promised}",
                seen.promised
            ));
        }
        if seen.incarnation == incarnation {
            if status.term < seen.term {
                wrong.push(format!("term went from {} to {}", seen.term, status.term));
            }
            if applied < seen.applied {
                wrong.push(format!("applied went from {} to {applied}", seen.applied));
            }
        }
        seen.incarnation = incarnation;
        seen.promised = promised;
        seen.term = status.term;
        seen.applied = applied;
        let last = status.last_log.map_or(0, |last| last.index);
        let snapshot = status.snapshot.map_or(0, |snapshot| snapshot.index);
        if applied > last.max(snapshot) {
            wrong.push(format!(
                "applied {applied} but the log ends at {last} and the snapshot at {snapshot}"
            ));
        }
        if status.purged.is_some_and(|purged| purged.index > durable) {
            wrong.push(format!(
                "purged up to {:?} but its durable state is only of entry {durable}",
                status.purged
            ));
        }
        for message in wrong {
            self.violation("monotonic", format!("node {id}: {message}"));
        }
    }

    /// At most one leader a term; and a leader has every entry that was committed in earlier terms. (Not in later ones: whoever
    /// was elected and could not act on it for a while may come to lead when others have led since.)
    fn elections(&mut self, id: Node, status: &GroupStatus, disk: &dyn View) {
        if status.role != Role::Leader {
            return;
        }
        match self.leaders.get(&status.term) {
            Some(other) if *other != id => {
                let message = format!("nodes {other} and {id} both lead term {}", status.term);
                self.violation("election-safety", message);
            }
            Some(_) => {}
            None => {
                self.leaders.insert(status.term, id);
                trace::event("leads", &format!("node={id} term={}", status.term));
                let last = status.last_log.map_or(0, |last| last.index);
                let earlier = self.applied.range(..status.term);
                let committed = earlier.map(|(_, applied)| *applied).max().unwrap_or_default();
                if last < committed {
                    let message = format!(
                        "node {id} leads term {} with a log up to {last}, but {committed} was applied before",
                        status.term
                    );
                    self.violation("leader-completeness", message);
                }
                // And they are the same: an entry that it has at their place and that is another shows here.
                let purged = status.purged.map_or(0, |purged| purged.index);
                let from = committed.saturating_sub(TAIL_MAX).max(purged + 1);
                self.log_matching(id, from, committed, disk);
            }
        }
    }

    /// Equal state at an equal applied index.
    fn digest(&mut self, id: Node, applied: u64, digest: [u8; 16]) {
        match self.digests.get(&applied) {
            Some((first, other)) if *first != digest => {
                let message = format!("nodes {other} and {id} differ after applying entry {applied}");
                self.violation("replicas", message);
            }
            Some(_) => {}
            None => {
                self.digests.insert(applied, (digest, id));
            }
        }
    }

    /// What was applied is the same entry on every node that has it, for ever. (What a follower was told is committed
    /// it may not have yet.)
    fn log_matching(&mut self, id: Node, from: u64, applied: u64, disk: &dyn View) {
        for (index, entry) in entries(disk, from, applied) {
            match self.entries.get(&index) {
                Some(first) if *first != entry => {
                    let message = format!(
                        "node {id} applied entry {index} of term {} but elsewhere it was one of term {}",
                        entry.term, first.term
                    );
                    self.violation("log-matching", message);
                }
                Some(_) => {}
                None => {
                    self.entries.insert(index, entry);
                }
            }
        }
    }

    /// Entries of one index and term are one entry, applied or not.
    fn tail_matching(&mut self, id: Node, from: u64, to: u64, disk: &dyn View) {
        for (index, entry) in entries(disk, from, to) {
            let known = self.tails.entry((index, entry.term)).or_insert(entry.checksum);
            if *known != entry.checksum {
                let message = format!(
                    "node {id} has another entry {index} of term {} than others have",
                    entry.term
                );
                self.violation("log-matching", message);
            }
        }
    }

    /// What a node applied is durable on a majority of the voters it knows. While they change, of those to come; and of
    /// both sets if the leader, too, still knows both: one that has written the end of the change asks only those to come,
    /// also for entries before it.
    fn quorum(&mut self, cluster: &Cluster, id: Node, status: &GroupStatus, applied: u64) {
        let Some(last) = status.applied.filter(|last| last.index == applied) else {
            return;
        };
        if applied <= self.commit {
            return;
        }
        self.commit = applied;
        // Which majority an older entry needed is not known any more; the membership's own entry and what
        // follows it need this one.
        let since = status
            .membership_id
            .split_once('-')
            .and_then(|(_, index)| index.parse().ok());
        if since.is_none_or(|since: u64| applied < since) {
            return;
        }
        let leader_agrees = || {
            cluster.ids().into_iter().any(|other| {
                let leader = cluster.node(other).map(|node| node.group().status());
                leader.is_some_and(|leader| {
                    leader.role == Role::Leader
                        && leader.term == status.term
                        && leader.membership_id == status.membership_id
                })
            })
        };
        let agreed = status.membership_changing() && leader_agrees();
        let sets = status.voter_sets.iter().rev();
        for voters in sets.take(if agreed { usize::MAX } else { 1 }) {
            let durable = voters
                .iter()
                .filter(|voter| holds_durably(cluster, **voter, last))
                .count();
            if durable * 2 <= voters.len() {
                let message = format!(
                    "node {id} applied {last}, but only {durable} of the voters {voters:?} hold it durably"
                );
                self.violation("quorum", message);
            }
        }
    }

    /// Nobody votes for two candidates in one term, whatever happens to it in between; and one is elected.
    ///
    /// The vote as it is stored: format, term, node, whether a quorum gave it. (A node that voted for another takes the
    /// elected one's vote over when it hears of it, so what was *given* is what no quorum has confirmed yet.)
    fn vote(&mut self, id: Node, disks: usize, disk: &dyn View) {
        let key = [0, 0, 0, 0, b'v'];
        let Ok(Some(stored)) = disk.get(Family::RaftMeta, &key) else {
            return;
        };
        let Some((term, candidate, elected)) = vote_in(&stored) else {
            self.violation(
                "vote",
                format!("node {id} stored a vote that nobody can read: {stored:?}"),
            );
            return;
        };
        let (known, what) = if elected {
            (self.elected.entry(term).or_insert(candidate), "elected")
        } else {
            (
                self.votes.entry((id, disks, term)).or_insert(candidate),
                "voted for",
            )
        };
        if *known != candidate {
            let message = format!("in term {term} node {id} has {what} {candidate}, but {known} before");
            self.violation("vote", message);
        }
    }

    fn violation(&mut self, invariant: &str, message: String) {
        let judge = match invariant {
            "bounds" => "bounds",
            "vote" => "votes",
            _ => "replicas",
        };
        let same = |violation: &&Violation| violation.message.starts_with(invariant);
        if self.violations.iter().filter(same).count() >= KEPT_MAX {
            return;
        }
        let message = format!("{invariant}: {message}");
        trace::event("violation", &message);
        self.violations.push(Violation {
            judge: judge.into(),
            message,
            operations: Vec::new(),
        });
    }
}

/// Whether the entry would survive a power cut, or is already part of a durable state there.
fn holds_durably(cluster: &Cluster, node: Node, entry: LogPosition) -> bool {
    if !cluster.ids().contains(&node) {
        return false;
    }
    // What it held before it lost everything counted when the entry was committed.
    let holds = |disk: FaultyDisk| {
        entries(&*disk.durable(), entry.index, entry.index)
            .first()
            .is_some_and(|(_, found)| found.term == entry.term)
    };
    if cluster.disks(node).into_iter().any(holds) {
        return true;
    }
    // Purged: then a durable state or snapshot covers it.
    cluster
        .node(node)
        .and_then(|running| running.group().status().purged)
        .is_some_and(|purged| purged.index >= entry.index)
}

/// The log entries of the shard on a disk, by the documented shape of their keys and values
/// (`holdfast_consensus`: shard and index; format, checksum, term).
fn entries(disk: &dyn View, from: u64, to: u64) -> Vec<(u64, EntryId)> {
    let (from, to) = (log_key(from), log_key(to));
    disk.scan(
        Family::RaftLog,
        Bound::Included(&from),
        Bound::Included(&to),
        Direction::Forward,
    )
    .filter_map(|row| {
        let (key, value) = row.ok()?;
        let index = u64::from_be_bytes(key.get(4..12)?.try_into().ok()?);
        let checksum = u32::from_be_bytes(value.get(1..5)?.try_into().ok()?);
        let term = u64::from_be_bytes(value.get(5..13)?.try_into().ok()?);
        Some((index, EntryId { term, checksum }))
    })
    .collect()
}

/// The index of the last entry whose effect is on the disk for good; 0: none is. As it is stored: format, term, index.
fn durably_applied(disk: &dyn View) -> u64 {
    let stored = disk.get(Family::Meta, &[0, 0, 0, 0, b'a']).ok().flatten();
    stored
        .as_ref()
        .and_then(|stored| number(number(stored.get(1..)?)?.1))
        .map_or(0, |(index, _)| index)
}

/// The term, the candidate and whether it was elected.
fn vote_in(stored: &[u8]) -> Option<(u64, Node, bool)> {
    let (_format, rest) = stored.split_first()?;
    let (term, rest) = number(rest)?;
    let (candidate, rest) = number(rest)?;
    Some((term, candidate, *rest.first()? == 1))
}

/// A number as bincode's standard configuration writes it, and what follows.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let length = match first {
        251 => 2,
        252 => 4,
        253 => 8,
        small => return Some((u64::from(*small), rest)),
    };
    let (number, rest) = rest.split_at_checked(length)?;
    let mut padded = [0; 8];
    padded[..length].copy_from_slice(number);
    Some((u64::from_le_bytes(padded), rest))
}

fn log_key(index: u64) -> Bytes {
    let mut key = vec![0; 4];
    key.extend_from_slice(&index.to_be_bytes());
    key.into()
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
