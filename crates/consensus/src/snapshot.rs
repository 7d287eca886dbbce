//! Snapshots: never files, only the state itself.
//!
//! *Taking* one flushes the engine and notes the applied log id, after which the log before it may go. *Sending*
//! one streams the rows of a pinned view in bounded chunks. *Installing* one can be done again from the start
//! at any point:
//!
//! 1. rows arrive and are staged beside the live ones, then synced;
//! 2. a synced `installing` row says that the staged rows are complete;
//! 3. the live rows are deleted and the staged ones ingested, which is not atomic;
//! 4. one synced batch sets the applied log id and membership and removes mark and staged rows.
//!
//! A node that finds the mark when it starts does 3 and 4 again before anything else runs; staged rows without
//! the mark are thrown away. The sender's own rows about the log (applied id, membership) are not sent: the
//! header carries them.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_markers::{crash_point, planted, reached};
use holdfast_storage::engine::{Batch, Direction, Engine, EngineError, Row, View};
use holdfast_types::{Family, ShardId};
use openraft::async_runtime::WatchReceiver;
use openraft::storage::{RaftSnapshotBuilder, Snapshot};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::codec::{self, Installing};
use crate::error::FlushError;
use crate::keys;
use crate::runtime::timeout;
use crate::type_config::{LeaderTerm, Raft, SnapshotMeta, TypeConfig};

/// Bytes read, sent, staged and ingested at a time.
pub(crate) const CHUNK_BYTES: usize = 512 << 10;
const INGEST_BYTES: usize = 8 << 20;
/// How long a snapshot that was asked for may take before it is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// A snapshot's rows, on either side of the network.
pub(crate) enum SnapshotData {
    /// Rows to send.
    Outgoing(Box<dyn View>),
    /// Rows staged completely in the engine. Nobody else may stage while this is held.
    Incoming(OwnedMutexGuard<()>),
}

/// Takes a snapshot.
pub(crate) struct SnapshotBuilder {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) view: Option<Box<dyn View>>,
    pub(crate) meta: SnapshotMeta,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(
        &mut self,
    ) -> Result<Snapshot<LeaderTerm, u64, crate::PeerAddresses, SnapshotData>, io::Error> {
        crash_point!("snapshot.not-flushed").await;
        self.engine.flush().await.map_err(io::Error::other)?;
        crash_point!("snapshot.flushed-not-purged").await;
        let view = self.view.take().unwrap_or_else(|| self.engine.view());
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: SnapshotData::Outgoing(view),
        })
    }
}

/// Waits until a snapshot covers this entry, and asks for one as often as that takes: while one is being taken, which
/// may be of an older state, openraft takes no note of a second request. Returns what the snapshot covers.
pub(crate) async fn flush_up_to(raft: &Raft, wanted: Option<u64>) -> Result<u64, FlushError> {
    let stopped = |why: String| FlushError::Stopped { why };
    let mut receiver = raft.metrics();
    let mut asked: Option<(Option<u64>, Instant)> = None;
    loop {
        let (snapshot, ended) = {
            let metrics = receiver.borrow_and_update();
            let ended = metrics.running_state.as_ref().err().map(ToString::to_string);
            (metrics.snapshot.map(|id| id.index), ended)
        };
        if snapshot >= wanted {
            return Ok(snapshot.unwrap_or(0));
        }
        if let Some(why) = ended {
            return Err(stopped(why));
        }
        if asked.is_none_or(|(before, at)| before != snapshot || at.elapsed() >= ASK_AGAIN) {
            asked = Some((snapshot, Instant::now()));
            let triggered = raft.trigger().snapshot().await;
            triggered.map_err(|error| stopped(error.to_string()))?;
        }
        if let Ok(Err(_)) = timeout(ASK_AGAIN, receiver.changed()).await {
            return Err(stopped("its metrics ended".into()));
        }
    }
}

/// Walks a view's rows family by family in chunks.
pub(crate) struct Walk {
    view: Box<dyn View>,
    shard: ShardId,
    families: std::vec::IntoIter<Family>,
    current: Option<(Family, Bound<Bytes>)>,
}

impl Walk {
    pub(crate) fn new(view: Box<dyn View>, shard: ShardId) -> Self {
        let mut families = Family::STATE.to_vec().into_iter();
        let current = families.next().map(|family| (family, Bound::Unbounded));
        Walk {
            view,
            shard,
            families,
            current,
        }
    }

    /// The next rows, all of one family, at least one; nothing at the end.
    pub(crate) fn next_chunk(&mut self) -> Result<Option<(Family, Vec<Row>)>, EngineError> {
        let own = [keys::applied(self.shard), keys::membership(self.shard)];
        while let Some((family, from)) = self.current.clone() {
            let mut rows = Vec::new();
            let mut bytes = 0;
            let start = match &from {
                Bound::Included(key) => Bound::Included(&key[..]),
                Bound::Excluded(key) => Bound::Excluded(&key[..]),
                Bound::Unbounded => Bound::Unbounded,
            };
            for row in self
                .view
                .scan(family, start, Bound::Unbounded, Direction::Forward)
            {
                let (key, value) = row?;
                if family == Family::Meta && own.contains(&key) {
                    continue;
                }
                bytes += key.len() + value.len();
                rows.push((key, value));
                if bytes >= CHUNK_BYTES {
                    break;
                }
            }
            match rows.last() {
                Some((last, _)) => {
                    self.current = Some((family, Bound::Excluded(last.clone())));
                    return Ok(Some((family, rows)));
                }
                None => self.current = self.families.next().map(|family| (family, Bound::Unbounded)),
            }
        }
        Ok(None)
    }
}

/// The checksum of one chunk: CRC-32 over keys and values, each preceded by its length.
pub(crate) fn chunk_checksum<'r>(rows: impl IntoIterator<Item = (&'r Bytes, &'r Bytes)>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for (key, value) in rows {
        for field in [key, value] {
            hasher.update(&(field.len() as u32).to_be_bytes());
            hasher.update(field);
        }
    }
    hasher.finalize()
}

/// Forgets rows that were staged earlier.
pub(crate) fn clear_staged(engine: &dyn Engine, shard: ShardId) -> Result<(), EngineError> {
    let (from, to) = keys::staged_range(shard);
    let mut batch = Batch::default();
    batch.delete_range(Family::RaftMeta, from, to);
    engine.write(batch).map(drop)
}

/// Stages a chunk.
pub(crate) fn stage(
    engine: &dyn Engine,
    shard: ShardId,
    family: Family,
    rows: impl IntoIterator<Item = Row>,
) -> Result<(), EngineError> {
    let mut batch = Batch::default();
    for (key, value) in rows {
        batch.put(Family::RaftMeta, keys::staged(shard, family, &key), value);
    }
    engine.write(batch).map(drop)
}

/// Says durably that the staged rows are a whole snapshot.
pub(crate) async fn mark_installing(
    engine: &dyn Engine,
    shard: ShardId,
    mark: &Installing,
) -> Result<(), EngineError> {
    engine.sync().await?;
    crash_point!("install.staged").await;
    let mut batch = Batch::default();
    batch.put(Family::RaftMeta, keys::installing(shard), codec::encode(mark));
    engine.write(batch)?;
    crash_point!("install.mark-not-synced").await;
    engine.sync().await?;
    crash_point!("install.marked").await;
    Ok(())
}

/// Finishes an install if one was marked, else throws away what was staged. Must run before Raft does. Returns
/// whether one was marked.
pub(crate) async fn finish_install(engine: &dyn Engine, shard: ShardId) -> io::Result<bool> {
    let view = engine.view();
    let mark = view
        .get(Family::RaftMeta, &keys::installing(shard))
        .map_err(io::Error::other)?;
    let Some(mark) = mark else {
        let (from, to) = keys::staged_range(shard);
        let leftover = view
            .scan(
                Family::RaftMeta,
                Bound::Included(&from[..]),
                Bound::Excluded(&to[..]),
                Direction::Forward,
            )
            .next();
        return match leftover {
            Some(_) => {
                reached!("snapshot.staged-thrown-away");
                clear_staged(engine, shard)
                    .map(|()| false)
                    .map_err(io::Error::other)
            }
            None => Ok(false),
        };
    };
    let mark: Installing = codec::decode(&mark).map_err(io::Error::other)?;

    let mut done = Batch::default();
    if let Some(last) = &mark.last_log_id {
        done.put(Family::Meta, keys::applied(shard), codec::encode(last));
    }
    if !planted!("membership-lost-on-snapshot-install") {
        done.put(
            Family::Meta,
            keys::membership(shard),
            codec::encode(&mark.membership),
        );
    }
    done.delete(Family::RaftMeta, keys::installing(shard));
    let (from, to) = keys::staged_range(shard);
    done.delete_range(Family::RaftMeta, from, to);

    let mut clear = Batch::default();
    for family in Family::STATE {
        clear.delete_range(family, Bytes::new(), keys::above_all());
    }
    if planted!("half-an-install-accepted") {
        clear.ops.extend(done.ops.iter().cloned());
    }
    engine.write(clear).map_err(io::Error::other)?;
    crash_point!("install.cleared").await;
    ingest_staged(engine, &*view, shard).await?;
    crash_point!("install.ingested").await;

    engine.write(done).map_err(io::Error::other)?;
    crash_point!("install.done-not-synced").await;
    engine.sync().await.map_err(io::Error::other)?;
    tracing::info!(last_log_id = ?mark.last_log_id, "installed a snapshot");
    Ok(true)
}

/// Copies staged rows to their families, a bounded amount at a time.
async fn ingest_staged(engine: &dyn Engine, view: &dyn View, shard: ShardId) -> io::Result<()> {
    let (mut from, to) = keys::staged_range(shard);
    loop {
        let mut families: Vec<(Family, Vec<Row>)> = Vec::new();
        let mut bytes = 0;
        let mut last = None;
        let rows = view.scan(
            Family::RaftMeta,
            Bound::Excluded(&from[..]),
            Bound::Excluded(&to[..]),
            Direction::Forward,
        );
        for row in rows {
            let (staged, value) = row.map_err(io::Error::other)?;
            let (family, key) = keys::unstage(&staged)
                .ok_or_else(|| io::Error::other("a staged snapshot row has a key that nothing writes"))?;
            bytes += key.len() + value.len();
            match families.last_mut() {
                Some((current, rows)) if *current == family => rows.push((key, value)),
                _ => families.push((family, vec![(key, value)])),
            }
            last = Some(staged);
            if bytes >= INGEST_BYTES {
                break;
            }
        }
        let Some(last) = last else { return Ok(()) };
        engine.ingest(families).await.map_err(io::Error::other)?;
        crash_point!("install.partly-ingested").await;
        from = last;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_storage::faulty::FaultyDisk;

    use super::*;
    use crate::type_config::{StoredMembership, log_id};

    const SHARD: ShardId = ShardId(0);

    fn rows(engine: &dyn Engine) -> Vec<(Family, Row)> {
        let view = engine.view();
        let mut all = Vec::new();
        for family in Family::STATE.into_iter().chain([Family::RaftMeta]) {
            for row in view.scan(family, Bound::Unbounded, Bound::Unbounded, Direction::Forward) {
                all.push((family, row.unwrap()));
            }
        }
        all
    }

    /// Stages a snapshot of 3 families over a state that has other rows, and marks it.
    async fn staged(engine: &dyn Engine) {
        let mut old = Batch::default();
        for n in 0..20_u8 {
            old.put(Family::Account, vec![n], vec![0]);
            old.put(Family::Due, vec![n], vec![0]);
        }
        engine.write(old).unwrap();
        for family in [Family::Account, Family::Claim, Family::Meta] {
            let rows = (10..30_u8).map(|n| (Bytes::from(vec![n]), Bytes::from(vec![1])));
            stage(engine, SHARD, family, rows).unwrap();
        }
        let mark = Installing {
            last_log_id: Some(log_id(2, 7)),
            membership: StoredMembership::default(),
        };
        mark_installing(engine, SHARD, &mark).await.unwrap();
    }

    #[tokio::test]
    async fn an_install_interrupted_anywhere_is_finished_at_the_next_start() {
        let expected = {
            let disk = FaultyDisk::new(0);
            let engine = disk.open().unwrap();
            staged(&engine).await;
            finish_install(&engine, SHARD).await.unwrap();
            rows(&engine)
        };
        assert_eq!(
            expected.len(),
            3 * 20 + 2,
            "the snapshot, the applied id and the membership, nothing else"
        );

        for seed in 0..60 {
            let disk = FaultyDisk::new(seed);
            let engine = Arc::new(disk.open().unwrap());
            staged(&*engine).await;
            disk.configure(|faults| faults.sync_delay = Duration::from_micros(500));
            let running = tokio::spawn({
                let engine = engine.clone();
                async move { finish_install(&*engine, SHARD).await }
            });
            tokio::time::sleep(Duration::from_micros(60 * seed)).await;
            disk.crash();
            // It may have been done already.
            drop(running.await.unwrap());
            disk.configure(|faults| faults.sync_delay = Duration::ZERO);
            let engine = disk.open().unwrap();
            finish_install(&engine, SHARD).await.unwrap();
            assert_eq!(rows(&engine), expected, "seed {seed}");
        }
    }

    #[tokio::test]
    async fn staged_rows_without_a_mark_are_thrown_away() {
        let disk = FaultyDisk::new(0);
        let engine = disk.open().unwrap();
        stage(
            &engine,
            SHARD,
            Family::Account,
            [(Bytes::from_static(b"k"), Bytes::from_static(b"v"))],
        )
        .unwrap();
        finish_install(&engine, SHARD).await.unwrap();
        assert_eq!(rows(&engine), []);
    }

    #[test]
    fn a_walk_sees_every_row_once_and_not_the_logs_own() {
        let disk = FaultyDisk::new(0);
        let engine = disk.open().unwrap();
        let mut batch = Batch::default();
        for n in 0..10_u8 {
            batch.put(Family::Account, vec![n], vec![n; CHUNK_BYTES / 3]);
            batch.put(Family::Meta, vec![n], vec![n]);
            batch.put(Family::RaftLog, vec![n], vec![n]);
        }
        batch.put(Family::Meta, keys::applied(SHARD), vec![1]);
        batch.put(Family::Meta, keys::membership(SHARD), vec![1]);
        engine.write(batch).unwrap();

        let mut walk = Walk::new(engine.view(), SHARD);
        let mut seen = Vec::new();
        while let Some((family, rows)) = walk.next_chunk().unwrap() {
            assert!(rows.len() <= 10);
            seen.extend(rows.into_iter().map(|(key, _)| (family, key)));
        }
        let expected: Vec<_> = [Family::Account, Family::Meta]
            .into_iter()
            .flat_map(|family| (0..10_u8).map(move |n| (family, Bytes::from(vec![n]))))
            .collect();
        assert_eq!(seen, expected);
    }
}
