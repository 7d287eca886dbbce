//! Whose directory this is, and which directory each peer came with.
//!
//! The directory's identity is written at the first start and checked at every later one: a directory that
//! changes hands forgets nothing it promised under its old name. The other way round, a node that lost its
//! directory has forgotten its vote and its log, and must not speak under its old id (Alagappan et al.,
//! *Protocol-Aware Recovery for Consensus-Based Storage*, FAST'18). So each directory draws a random name, and a
//! node that comes with another one than before is refused, and is told so. Who knows which one that was:
//!
//! - of a founder, everybody who has a part of the log: each founder writes them all down, durably, with its founding
//!   membership, and every message brings them to who does not have them yet, before it brings anything of the log;
//! - of a member that came later, everybody: the membership says it;
//! - besides, each node remembers with which directory it first met each other one.
//!
//! The node that lost its directory cannot be left to those who happen to know: a candidate that never met it would
//! count its vote, though it has forgotten both its last vote and the log. So a node without data takes part in
//! nothing, unless the sender knows its directory; and whoever is entitled to send it anything does.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use holdfast_markers::{crash_point, reached};
use holdfast_storage::engine::{Batch, Direction, Engine, EngineError};
use holdfast_types::{ClusterId, Family, NodeId};
use holdfast_wire::internal as wire;
use uuid::Uuid;

use crate::StartError;
use crate::codec::{self, Identity};
use crate::config::Directory;
use crate::keys;

/// The layout of everything in the directory. A release reads this one and writes this one.
pub(crate) const FORMAT: u32 = 1;

/// Checks the directory's identity, or gives an empty one its identity, durably. Returns the directory's name.
pub(crate) async fn check(
    engine: &dyn Engine,
    cluster_id: ClusterId,
    node_id: NodeId,
) -> Result<Directory, StartError> {
    let stored = engine.view().get(Family::RaftMeta, &keys::identity())?;
    let Some(stored) = stored else {
        let identity = Identity {
            cluster_id: *cluster_id.0.as_bytes(),
            node_id,
            directory: *Uuid::now_v7().as_bytes(),
            format: FORMAT,
        };
        let mut batch = Batch::default();
        batch.put(Family::RaftMeta, keys::identity(), codec::encode(&identity));
        engine.write(batch)?;
        crash_point!("start.identity-not-synced").await;
        engine.sync().await?;
        crash_point!("start.identity-written").await;
        return Ok(identity.directory);
    };
    let found: Identity = codec::decode(&stored).map_err(|error| StartError::Damaged(error.to_string()))?;
    if found.format > FORMAT {
        return Err(StartError::NewerFormat {
            found: found.format,
            known: FORMAT,
        });
    }
    if found.cluster_id != *cluster_id.0.as_bytes() {
        reached!("identity.other-cluster");
        return Err(StartError::OtherCluster {
            found: Uuid::from_bytes(found.cluster_id).to_string(),
            configured: cluster_id.to_string(),
        });
    }
    if found.node_id != node_id {
        reached!("identity.other-node");
        return Err(StartError::OtherNode {
            found: found.node_id,
            configured: node_id,
        });
    }
    Ok(found.directory)
}

/// A node came with another directory than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OtherDirectory;

/// What a peer says of the founders was not taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LearnError {
    /// It is no list of directories.
    #[error("a founder's data directory is not readable")]
    Unreadable,
    /// It could not be written down.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The directories of the other nodes.
pub(crate) struct Directories {
    /// This node's own.
    pub(crate) own: Directory,
    engine: Arc<dyn Engine>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Those who founded the cluster, as far as this node has founded or was told.
    founders: BTreeMap<NodeId, Directory>,
    /// The same as every message says it.
    told: Vec<wire::Founder>,
    /// With which directory each other node was first met.
    met: BTreeMap<NodeId, Directory>,
}

impl Known {
    fn set_founders(&mut self, founders: BTreeMap<NodeId, Directory>) {
        self.told = founders
            .iter()
            .map(|(node, directory)| wire::Founder {
                node: *node,
                directory: Bytes::copy_from_slice(directory),
            })
            .collect();
        self.founders = founders;
    }

    fn of(&self, node: NodeId) -> Option<Directory> {
        self.founders.get(&node).or_else(|| self.met.get(&node)).copied()
    }
}

impl Directories {
    pub(crate) fn open(own: Directory, engine: Arc<dyn Engine>) -> Result<Self, StartError> {
        let view = engine.view();
        let stored = |key: fn(NodeId) -> Bytes| {
            let (from, to) = (key(0), key(NodeId::MAX));
            let rows = view.scan(
                Family::RaftMeta,
                Bound::Included(&from[..]),
                Bound::Included(&to[..]),
                Direction::Forward,
            );
            rows.map(|row| {
                let (key, value) = row?;
                match (keys::node(&key), Directory::try_from(&value[..])) {
                    (Some(node), Ok(directory)) => Ok((node, directory)),
                    _ => Err(StartError::Damaged("a peer's directory is not readable".into())),
                }
            })
            .collect::<Result<BTreeMap<_, _>, StartError>>()
        };
        let mut known = Known {
            met: stored(keys::peer_directory)?,
            ..Known::default()
        };
        known.set_founders(stored(keys::founder)?);
        drop(view);
        Ok(Directories {
            own,
            engine,
            known: Mutex::new(known),
        })
    }

    /// The directory that this node is known to have.
    pub(crate) fn of(&self, node: NodeId) -> Option<Directory> {
        self.lock().of(node)
    }

    /// What every message says of the founders.
    pub(crate) fn told(&self) -> Vec<wire::Founder> {
        self.lock().told.clone()
    }

    /// Notes with which directory a node comes, the first time; later ones must be the same.
    ///
    /// Written but not synced: if it is lost, the node is met for the first time again.
    pub(crate) fn meet(
        &self,
        node: NodeId,
        directory: Directory,
    ) -> Result<Result<(), OtherDirectory>, EngineError> {
        let mut known = self.lock();
        match known.of(node) {
            Some(before) if before == directory => Ok(Ok(())),
            Some(_) => Ok(Err(OtherDirectory)),
            None => {
                let mut batch = Batch::default();
                batch.put(Family::RaftMeta, keys::peer_directory(node), directory.to_vec());
                self.engine.write(batch)?;
                known.met.insert(node, directory);
                Ok(Ok(()))
            }
        }
    }

    /// Writes down, durably, which directories the founders of the cluster have.
    pub(crate) async fn found(&self, founders: BTreeMap<NodeId, Directory>) -> Result<(), EngineError> {
        self.write_founders(&mut self.lock(), founders)?;
        self.engine.sync().await.map(drop)
    }

    /// Takes over what a peer says of the founders. What is already known stays once this node has `joined` a cluster
    /// that works; until then it may come from a founding that was never completed.
    ///
    /// Written but not synced: nothing of the log is durable before it is.
    pub(crate) fn learn(&self, told: &[wire::Founder], joined: bool) -> Result<(), LearnError> {
        let mut known = self.lock();
        if told.is_empty() || known.told == told || (joined && !known.founders.is_empty()) {
            return Ok(());
        }
        let founders = told
            .iter()
            .map(|founder| Some((founder.node, Directory::try_from(&founder.directory[..]).ok()?)))
            .collect::<Option<_>>()
            .ok_or(LearnError::Unreadable)?;
        reached!("identity.founders-learned");
        Ok(self.write_founders(&mut known, founders)?)
    }

    fn write_founders(
        &self,
        known: &mut Known,
        founders: BTreeMap<NodeId, Directory>,
    ) -> Result<(), EngineError> {
        let mut batch = Batch::default();
        for node in known.founders.keys() {
            batch.delete(Family::RaftMeta, keys::founder(*node));
        }
        for (node, directory) in &founders {
            batch.put(Family::RaftMeta, keys::founder(*node), directory.to_vec());
        }
        self.engine.write(batch)?;
        known.set_founders(founders);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use holdfast_storage::faulty::FaultyDisk;

    use super::*;

    #[tokio::test]
    async fn a_directory_is_remembered_over_restarts_and_another_is_refused() {
        let disk = FaultyDisk::new(1);
        let open = || Directories::open([1; 16], Arc::new(disk.open().unwrap())).unwrap();
        let directories = open();
        assert_eq!(directories.of(2), None);
        assert_eq!(directories.meet(2, [2; 16]).unwrap(), Ok(()));
        // What was heard before the founding counts for nothing, what founders say then is durable.
        let founders = [(2, [22; 16]), (3, [3; 16])];
        directories.found(founders.into()).await.unwrap();
        disk.crash();

        let directories = open();
        assert_eq!(directories.meet(2, [2; 16]).unwrap(), Err(OtherDirectory));
        assert_eq!(directories.meet(2, [22; 16]).unwrap(), Ok(()));
        assert_eq!(directories.of(3), Some([3; 16]));
    }

    #[tokio::test]
    async fn founders_are_learned_once_and_again_by_a_node_that_has_not_joined() {
        let open = || {
            let engine = FaultyDisk::new(1).open().unwrap();
            Directories::open([1; 16], Arc::new(engine)).unwrap()
        };
        let (first, other) = (open(), open());
        first.found([(2, [2; 16])].into()).await.unwrap();
        other.found([(2, [22; 16]), (3, [3; 16])].into()).await.unwrap();

        let learner = open();
        learner.learn(&first.told(), true).unwrap();
        learner.learn(&other.told(), true).unwrap();
        assert_eq!((learner.of(2), learner.of(3)), (Some([2; 16]), None));
        learner.learn(&[], false).unwrap();
        let mut broken = other.told();
        broken[0].directory.truncate(3);
        assert!(matches!(
            learner.learn(&broken, false),
            Err(LearnError::Unreadable)
        ));
        assert_eq!(learner.told(), first.told());
        learner.learn(&other.told(), false).unwrap();
        assert_eq!(learner.told(), other.told());
    }
}
