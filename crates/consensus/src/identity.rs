//! Whose directory this is. Written at the first start, checked at every later one: a directory that changes
//! hands forgets nothing it promised under its old name.

use holdfast_storage::engine::{Batch, Engine};
use holdfast_types::{ClusterId, Family, NodeId};
use uuid::Uuid;

use crate::StartError;
use crate::codec::{self, Identity};
use crate::keys;

/// The layout of everything in the directory. A release reads this one and writes this one.
pub(crate) const FORMAT: u32 = 1;

/// Checks the directory's identity, or gives an empty one its identity, durably.
pub(crate) async fn check(
    engine: &dyn Engine,
    cluster_id: ClusterId,
    node_id: NodeId,
) -> Result<(), StartError> {
    let stored = engine.view().get(Family::RaftMeta, &keys::identity())?;
    let Some(stored) = stored else {
        let identity = Identity {
            cluster_id: *cluster_id.0.as_bytes(),
            node_id,
            format: FORMAT,
        };
        let mut batch = Batch::default();
        batch.put(Family::RaftMeta, keys::identity(), codec::encode(&identity));
        engine.write(batch)?;
        engine.sync().await?;
        return Ok(());
    };
    let found: Identity = codec::decode(&stored).map_err(|error| StartError::Damaged(error.to_string()))?;
    if found.format > FORMAT {
        return Err(StartError::NewerFormat {
            found: found.format,
            known: FORMAT,
        });
    }
    if found.cluster_id != *cluster_id.0.as_bytes() {
        return Err(StartError::OtherCluster {
            found: Uuid::from_bytes(found.cluster_id).to_string(),
            configured: cluster_id.to_string(),
        });
    }
    if found.node_id != node_id {
        return Err(StartError::OtherNode {
            found: found.node_id,
            configured: node_id,
        });
    }
    Ok(())
}
