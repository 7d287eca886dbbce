//! How much of the log each member is known to hold, so that a directory that was put back from an older copy of
//! itself is noticed.
//!
//! Such a node has its name and its vote, so [`identity`](crate::identity) knows it, but it has forgotten part of
//! what it acknowledged, and quorums were counted with that. Two facts are remembered about each member:
//!
//! - What it *matched* while this node led a term. Until the member sees a higher term nobody may cut that off.
//! - What it *holds*: the part of it that a quorum has committed. Nobody may cut that off ever, so this is told on
//!   to everybody in the headers of messages, is kept by the next leaders, and is written down now and then.
//!
//! Every message carries both, and its receiver compares them with its own log before Raft sees anything: whoever
//! holds less stops. Raft itself must not see it: a leader that hears a conflict below what was matched
//! takes that for its own defect.
//!
//! Not noticed: what was acknowledged in the last heartbeat before the only one who knew went down, and a majority
//! that was put back together. The row is written without a sync, so a power failure may lose the last seconds of
//! it; the leader tells it again as soon as there is one. Removed members stay in the list, a few bytes each.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use holdfast_storage::engine::{Batch, Direction, Engine, EngineError};
use holdfast_types::{Family, NodeId, ShardId};
use holdfast_wire::internal as wire;

use crate::StartError;
use crate::keys;

/// What this node knows about the members' logs.
pub(crate) struct Acknowledged {
    engine: Arc<dyn Engine>,
    shard: ShardId,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    led: Led,
    /// The last committed index that each member certainly has.
    held: BTreeMap<NodeId, u64>,
    /// What of it is written down.
    stored: BTreeMap<NodeId, u64>,
}

/// What was learned in the term that this node led last.
#[derive(Default)]
struct Led {
    term: u64,
    committed: Option<u64>,
    matched: BTreeMap<NodeId, u64>,
}

impl Known {
    /// What is known of `term`; nothing, if it is not the last one that this node led.
    fn led(&mut self, term: u64) -> Option<&mut Led> {
        if term > self.led.term {
            self.led = Led {
                term,
                ..Led::default()
            };
        }
        (term == self.led.term).then_some(&mut self.led)
    }

    fn hold(&mut self, node: NodeId, index: u64) {
        let held = self.held.entry(node).or_insert(index);
        *held = index.max(*held);
    }
}

impl Acknowledged {
    /// Reads what was written down.
    pub(crate) fn open(engine: Arc<dyn Engine>, shard: ShardId) -> Result<Self, StartError> {
        let mut held = BTreeMap::new();
        let (from, to) = (keys::held(shard, 0), keys::held(shard, NodeId::MAX));
        let view = engine.view();
        let rows = view.scan(
            Family::RaftMeta,
            Bound::Included(&from[..]),
            Bound::Included(&to[..]),
            Direction::Forward,
        );
        for row in rows {
            let (key, value) = row?;
            match (keys::node(&key), <[u8; 8]>::try_from(&value[..])) {
                (Some(node), Ok(index)) => drop(held.insert(node, u64::from_be_bytes(index))),
                _ => {
                    return Err(StartError::Damaged(
                        "what a peer has acknowledged is not readable".into(),
                    ));
                }
            }
        }
        drop(view);
        let known = Known {
            stored: held.clone(),
            held,
            led: Led::default(),
        };
        Ok(Acknowledged {
            engine,
            shard,
            known: Mutex::new(known),
        })
    }

    /// This node leads `term`, and a quorum holds everything up to `index`.
    pub(crate) fn committed(&self, term: u64, index: u64) {
        let mut known = self.lock();
        let Some(led) = known.led(term) else { return };
        if led.committed >= Some(index) {
            return;
        }
        led.committed = Some(index);
        let held: Vec<_> = led
            .matched
            .iter()
            .map(|(node, at)| (*node, index.min(*at)))
            .collect();
        for (node, index) in held {
            known.hold(node, index);
        }
    }

    /// This node leads `term`, and `node` says that its log is durable and agrees with this one's up to `index`.
    pub(crate) fn matched(&self, term: u64, node: NodeId, index: u64) {
        let mut known = self.lock();
        let Some(led) = known.led(term) else { return };
        let matched = led.matched.entry(node).or_insert(index);
        *matched = index.max(*matched);
        if let Some(committed) = led.committed {
            let index = committed.min(*matched);
            known.hold(node, index);
        }
    }

    /// Takes over what a peer knows.
    pub(crate) fn heard(&self, header: &wire::PeerHeader) {
        let mut known = self.lock();
        for held in &header.held {
            known.hold(held.node, held.index);
        }
    }

    /// The last committed index that `node` certainly has.
    pub(crate) fn held_by(&self, node: NodeId) -> Option<u64> {
        self.lock().held.get(&node).copied()
    }

    /// Adds what is known to a message to `to`.
    pub(crate) fn tell(&self, to: NodeId, header: &mut wire::PeerHeader) {
        let known = self.lock();
        header.held = known
            .held
            .iter()
            .map(|(node, index)| wire::Held {
                node: *node,
                index: *index,
            })
            .collect();
        header.acknowledged = known.led.matched.get(&to).map(|index| wire::LogId {
            term: known.led.term,
            index: *index,
        });
    }

    /// Writes down what has changed.
    pub(crate) fn store(&self) -> Result<(), EngineError> {
        let mut known = self.lock();
        let mut batch = Batch::default();
        for (node, index) in &known.held {
            if known.stored.get(node) != Some(index) {
                let key = keys::held(self.shard, *node);
                batch.put(Family::RaftMeta, key, index.to_be_bytes().to_vec());
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.engine.write(batch)?;
        known.stored = known.held.clone();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Whether the receiver of a message, whose log reaches to `last` and whose vote is of `term`, has forgotten
/// something that it acknowledged. Returns the index that it should have.
pub(crate) fn forgotten(header: &wire::PeerHeader, last: Option<u64>, term: u64) -> Option<u64> {
    let held = header
        .held
        .iter()
        .find(|held| held.node == header.to_node)
        .map(|held| held.index);
    // A higher term's leader may have cut off what the sender's followers acknowledged.
    let matched = header
        .acknowledged
        .filter(|matched| term <= matched.term)
        .map(|matched| matched.index);
    held.max(matched).filter(|index| last < Some(*index))
}

/// What to do about it.
pub(crate) fn put_back(node: NodeId, has: Option<u64>, had: u64) -> String {
    let has = has.map_or("nothing of the log".into(), |index| {
        format!("the log up to entry {index}")
    });
    format!(
        "the data directory of node {node} holds {has}, but node {node} had acknowledged entry {had}: the directory \
         was put back from an older copy of itself, so it has forgotten what it promised; give the machine an empty \
         directory and a new node id, start it, and put it in the place of node {node} with `holdfast cluster replace`"
    )
}

#[cfg(test)]
mod tests {
    use holdfast_storage::faulty::FaultyDisk;

    use super::*;

    const SHARD: ShardId = ShardId(0);

    fn header(known: &Acknowledged, to: NodeId) -> wire::PeerHeader {
        let mut header = wire::PeerHeader {
            to_node: to,
            ..wire::PeerHeader::default()
        };
        known.tell(to, &mut header);
        header
    }

    #[test]
    fn what_is_held_is_committed_and_outlives_terms_and_restarts() {
        let disk = FaultyDisk::new(1);
        let engine: Arc<dyn Engine> = Arc::new(disk.open().unwrap());
        let known = Acknowledged::open(engine.clone(), SHARD).unwrap();
        known.matched(3, 2, 10);
        assert_eq!(known.held_by(2), None, "not committed");
        assert_eq!(forgotten(&header(&known, 2), Some(9), 3), Some(10));
        assert_eq!(forgotten(&header(&known, 2), Some(10), 3), None);
        assert_eq!(
            forgotten(&header(&known, 2), Some(4), 4),
            None,
            "the leader of term 4 may have cut it off"
        );

        known.committed(3, 7);
        assert_eq!(known.held_by(2), Some(7));
        assert_eq!(forgotten(&header(&known, 2), Some(6), 4), Some(7));
        assert_eq!(forgotten(&header(&known, 2), None, 4), Some(7));

        // Another term knows nothing of what was matched in the one before, and late answers change nothing.
        known.matched(5, 3, 20);
        known.matched(3, 2, 20);
        known.committed(3, 30);
        assert_eq!((known.held_by(2), known.held_by(3)), (Some(7), None));
        assert_eq!(header(&known, 2).acknowledged, None);

        known.store().unwrap();
        let later = Acknowledged::open(engine, SHARD).unwrap();
        assert_eq!(later.held_by(2), Some(7));
        // Told to a third.
        let other: Arc<dyn Engine> = Arc::new(FaultyDisk::new(2).open().unwrap());
        let third = Acknowledged::open(other, SHARD).unwrap();
        third.heard(&header(&later, 3));
        assert_eq!(forgotten(&header(&third, 2), Some(6), 9), Some(7));
        assert_eq!(forgotten(&header(&third, 3), Some(0), 9), None);
    }
}
