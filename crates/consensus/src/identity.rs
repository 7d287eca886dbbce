//! Whose directory this is, and which directory each peer came with.
//!
//! The directory's identity is written at the first start and checked at every later one: a directory that
//! changes hands forgets nothing it promised under its old name. The other way round, a node that lost its
//! directory has forgotten its vote and its log, and must not speak under its old id (Alagappan et al.,
//! *Protocol-Aware Recovery for Consensus-Based Storage*, FAST'18). So each directory draws a random name, and a
//! node that comes with another one than before is refused, and is told so. Who knows which one that was:
//!
//! - of a founder, all founders: each writes it down, durably, with its founding membership;
//! - of a member that came later, everybody: the membership says it;
//! - besides, each node remembers with which directory it first met each other one.
//!
//! The node that lost its directory cannot be left to those who happen to know: a candidate that never met it would
//! count its vote, though it has forgotten both its last vote and the log. So a node without data takes part in
//! nothing, unless the sender knows its directory; and whoever is entitled to send it anything does.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use holdfast_markers::{crash_point, reached};
use holdfast_storage::engine::{Batch, Direction, Engine, EngineError};
use holdfast_types::{ClusterId, Family, NodeId};
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

/// The directories of the other nodes.
pub(crate) struct Directories {
    /// This node's own.
    pub(crate) own: Directory,
    engine: Arc<dyn Engine>,
    known: Mutex<BTreeMap<NodeId, Directory>>,
}

impl Directories {
    pub(crate) fn open(own: Directory, engine: Arc<dyn Engine>) -> Result<Self, StartError> {
        let mut known = BTreeMap::new();
        let (from, to) = (keys::peer_directory(0), keys::peer_directory(NodeId::MAX));
        let view = engine.view();
        let rows = view.scan(
            Family::RaftMeta,
            Bound::Included(&from[..]),
            Bound::Included(&to[..]),
            Direction::Forward,
        );
        for row in rows {
            let (key, value) = row?;
            match (keys::peer_directory_node(&key), Directory::try_from(&value[..])) {
                (Some(node), Ok(directory)) => drop(known.insert(node, directory)),
                _ => return Err(StartError::Damaged("a peer's directory is not readable".into())),
            }
        }
        drop(view);
        Ok(Directories {
            own,
            engine,
            known: Mutex::new(known),
        })
    }

    /// The directory that this node is known to have.
    pub(crate) fn of(&self, node: NodeId) -> Option<Directory> {
        self.lock().get(&node).copied()
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
        match known.get(&node) {
            Some(before) if *before == directory => Ok(Ok(())),
            Some(_) => Ok(Err(OtherDirectory)),
            None => {
                let mut batch = Batch::default();
                batch.put(Family::RaftMeta, keys::peer_directory(node), directory.to_vec());
                self.engine.write(batch)?;
                known.insert(node, directory);
                Ok(Ok(()))
            }
        }
    }

    /// Writes down, durably, which directories the founders of the cluster have.
    pub(crate) async fn found(
        &self,
        founders: impl Iterator<Item = (NodeId, Directory)>,
    ) -> Result<(), EngineError> {
        let mut batch = Batch::default();
        for (node, directory) in founders {
            batch.put(Family::RaftMeta, keys::peer_directory(node), directory.to_vec());
            self.lock().insert(node, directory);
        }
        self.engine.write(batch)?;
        self.engine.sync().await.map(drop)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Directory>> {
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
        directories.found(founders.into_iter()).await.unwrap();
        disk.crash();

        let directories = open();
        assert_eq!(directories.meet(2, [2; 16]).unwrap(), Err(OtherDirectory));
        assert_eq!(directories.meet(2, [22; 16]).unwrap(), Ok(()));
        assert_eq!(directories.of(3), Some([3; 16]));
    }
}
