//! One group's log and vote, as openraft wants them.
//!
//! Writes go through the node's [log writer](crate::log_writer); what openraft reads is in memory first: the
//! tail of the log, in stored form and decoded, so that replication and apply do not touch the engine while
//! they keep up. An entry stays there at least until it is written, so it can be read the moment `append`
//! returned, whatever the writer is doing. Older entries are read from a view taken under the same lock, which
//! therefore shows exactly the rows that the tail no longer has.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::Stream;
use holdfast_markers::{crash_point, planted, reached};
use holdfast_storage::engine::{Direction, Engine, Op};
use holdfast_types::{Family, ShardId};
use openraft::raft::AppendEntriesRequest;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, storage::LeaderBoundedStreamError};
use tokio::sync::oneshot;

use crate::codec;
use crate::entry::{self, EntryError};
use crate::keys;
use crate::log_writer::{Done, LogWriter};
use crate::type_config::{LogEntry, LogId, TypeConfig, Vote};

/// The most bytes one replication request reads.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// The most entries and bytes that apply reads ahead.
const APPLY_ENTRIES_MAX: u64 = 256;

/// The log of one shard. Clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<dyn Engine>,
    writer: LogWriter,
    shard: ShardId,
    tail_bytes_max: usize,
    log: Mutex<Log>,
}

/// The log as it will be once everything queued is written.
#[derive(Default)]
struct Log {
    vote: Option<Vote>,
    /// The term of the last vote that was called durable: no answer speaks of a higher one.
    promised_term: u64,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The highest index that was in the log since it was opened. What is cut off counts: only a log that was
    /// put back while the node was down is shorter than this for the wrong reason.
    reached: Option<u64>,
    /// The oldest index that is, or will be, in the log.
    first: u64,
    /// The newest entries, without a gap, up to `last`.
    tail: VecDeque<Cached>,
    tail_bytes: usize,
}

struct Cached {
    entry: LogEntry,
    bytes: usize,
    /// The writer's ticket: the entry may go once that is written.
    ticket: u64,
}

impl LogStore {
    /// Reads where the log stands.
    pub(crate) fn open(
        engine: Arc<dyn Engine>,
        writer: LogWriter,
        shard: ShardId,
        tail_bytes_max: usize,
    ) -> io::Result<Self> {
        let log = {
            let view = engine.view();
            let read = |key: bytes::Bytes| view.get(Family::RaftMeta, &key).map_err(io::Error::other);
            let vote = read(keys::vote(shard))?
                .map(|bytes| codec::decode::<Vote>(&bytes))
                .transpose()
                .map_err(io::Error::other)?;
            let purged = read(keys::purged(shard))?
                .map(|bytes| codec::decode::<LogId>(&bytes))
                .transpose()
                .map_err(io::Error::other)?;
            let (from, to) = (keys::log(shard, 0), keys::log(shard, u64::MAX));
            let end = |direction| {
                view.scan(
                    Family::RaftLog,
                    Bound::Included(&from[..]),
                    Bound::Included(&to[..]),
                    direction,
                )
                .next()
                .transpose()
                .map_err(io::Error::other)
            };
            let oldest = end(Direction::Forward)?;
            let newest = end(Direction::Backward)?
                .map(|(_, value)| decode(&*engine, &value))
                .transpose()?;
            let first = match &purged {
                Some(purged) => purged.index + 1,
                None => oldest.and_then(|(key, _)| keys::log_index(&key)).unwrap_or(0),
            };
            // A purge that ran past the end, after a snapshot was installed, leaves no entry.
            let last = newest.map(|entry| entry.log_id).max(purged);
            Log {
                vote,
                promised_term: vote.map_or(0, |vote| vote.leader_id.term),
                purged,
                last,
                reached: last.map(|id| id.index),
                first,
                ..Log::default()
            }
        };
        Ok(LogStore {
            inner: Arc::new(Inner {
                engine,
                writer,
                shard,
                tail_bytes_max,
                log: Mutex::new(log),
            }),
        })
    }

    /// Waits until the entry at `index` is in the engine, synced or not. State that includes it may be written
    /// only then: both go to the same write-ahead log, so whatever prefix of it survives, no state is ahead of
    /// the log.
    pub(crate) async fn wait_written(&self, index: u64) -> io::Result<()> {
        let ticket = {
            let log = self.lock();
            log.tail
                .front()
                .map(|front| front.entry.log_id.index)
                .and_then(|first| {
                    let at = index.checked_sub(first)?;
                    log.tail
                        .get(usize::try_from(at).ok()?)
                        .map(|cached| cached.ticket)
                })
        };
        match ticket {
            Some(ticket) => {
                if ticket > self.inner.writer.written() {
                    reached!("apply.waited-for-log");
                }
                self.inner.writer.wait_written(ticket).await
            }
            // Entries leave memory only when they are written.
            None => Ok(()),
        }
    }

    /// Waits until everything queued so far is in the engine.
    pub(crate) async fn wait_all_written(&self) -> io::Result<()> {
        self.inner
            .writer
            .wait_written(self.inner.writer.last_ticket())
            .await
    }

    /// The newest log id.
    pub(crate) fn last_log_id(&self) -> Option<LogId> {
        self.lock().last
    }

    /// Whether there is nothing of a log.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().last.is_none()
    }

    /// Whether there is an entry of an elected leader. The founding membership, which each founder writes for itself,
    /// is none.
    pub(crate) fn joined(&self) -> bool {
        self.lock().last.is_some_and(|last| last.leader_id.term > 0)
    }

    /// The term of the last vote that was called durable.
    pub(crate) fn promised_term(&self) -> u64 {
        self.lock().promised_term
    }

    /// The highest index that was in the log since it was opened, and the term of the vote.
    pub(crate) fn reached(&self) -> (Option<u64>, u64) {
        let log = self.lock();
        (log.reached, log.vote.map_or(0, |vote| vote.leader_id.term))
    }

    /// Whether entries that come next after this request, which has none, are purged.
    pub(crate) fn has_purged_beyond(&self, request: &AppendEntriesRequest<TypeConfig>) -> bool {
        let next = request.prev_log_id.map_or(0, |prev| prev.index + 1);
        request.entries.is_empty() && next < self.lock().first
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.inner
            .log
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Entries with `start <= index < end`, as far as the log has them, at most about `bytes_max` bytes but at
    /// least one.
    fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut from_tail = Vec::new();
        let (start, stored_end, view) = {
            let log = self.lock();
            let start = start.max(log.first);
            let end = end.min(log.last.map_or(0, |id| id.index + 1));
            if start >= end {
                return Ok(entries);
            }
            let tail_start = log
                .tail
                .front()
                .map_or(u64::MAX, |front| front.entry.log_id.index);
            let stored_end = end.min(tail_start);
            if end > tail_start {
                let mut tail_bytes = 0;
                let skip = usize::try_from(start.saturating_sub(tail_start)).unwrap_or(usize::MAX);
                let take = usize::try_from(end - start.max(tail_start)).unwrap_or(usize::MAX);
                for cached in log.tail.iter().skip(skip).take(take) {
                    if tail_bytes >= bytes_max && !from_tail.is_empty() {
                        break;
                    }
                    tail_bytes += cached.bytes;
                    from_tail.push(cached.entry.clone());
                }
            }
            let view = (start < stored_end).then(|| self.inner.engine.view());
            (start, stored_end, view)
        };
        if let Some(view) = view {
            reached!("log.read-from-disk");
            let (from, to) = (
                keys::log(self.inner.shard, start),
                keys::log(self.inner.shard, stored_end),
            );
            let rows = view.scan(
                Family::RaftLog,
                Bound::Included(&from[..]),
                Bound::Excluded(&to[..]),
                Direction::Forward,
            );
            let mut expected = start;
            for row in rows {
                let (key, value) = row.map_err(io::Error::other)?;
                let entry = decode(&*self.inner.engine, &value)?;
                if keys::log_index(&key) != Some(expected) || entry.log_id.index != expected {
                    return Err(hole(expected, entry.log_id.index));
                }
                expected += 1;
                bytes += value.len();
                entries.push(entry);
                if bytes >= bytes_max {
                    return Ok(entries);
                }
            }
            if expected != stored_end {
                return Err(hole(expected, stored_end));
            }
        }
        for entry in from_tail {
            if bytes >= bytes_max && !entries.is_empty() {
                break;
            }
            bytes += entry.encoded.as_ref().map_or(0, bytes::Bytes::len);
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// A stored entry. One that is not what was written is damage of the disk; a hole, or a kind that is not known, is rather
/// somebody's mistake, and ends only this process.
fn decode(engine: &dyn Engine, stored: &bytes::Bytes) -> io::Result<LogEntry> {
    entry::decode(stored).map_err(|error| match error {
        EntryError::Checksum { .. } => io::Error::other(engine.condemn(error.to_string())),
        _ => io::Error::other(error),
    })
}

fn hole(expected: u64, found: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the raft log is damaged: entry {expected} is missing, found {found}"),
    )
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl Log {
    /// Forgets written entries beyond the bound.
    fn evict(&mut self, written: u64, bytes_max: usize) {
        while self.tail_bytes > bytes_max {
            match self.tail.front() {
                Some(front) if front.ticket <= written => {
                    self.tail_bytes -= front.bytes;
                    self.tail.pop_front();
                }
                _ => break,
            }
        }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, io::Error> {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.lock().vote)
    }

    /// For replication, which sends what it is given as the entries that follow `start`'s predecessor. If the first of
    /// them was purged it is given none: openraft makes a heartbeat of that, and not a log with a hole.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, io::Error> {
        let entries = self.read(start, end, REQUEST_BYTES_MAX)?;
        if entries.first().is_none_or(|first| first.log_id.index == start) {
            return Ok(entries);
        }
        reached!("log.purged-before-it-was-sent");
        Ok(Vec::new())
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<LogEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let store = self.clone();
        let state = (store, start, std::collections::VecDeque::new());
        futures::stream::try_unfold(state, move |(store, next, mut ready)| async move {
            if ready.is_empty() && next < end {
                let read = store.read(next, end.min(next + APPLY_ENTRIES_MAX), REQUEST_BYTES_MAX)?;
                ready.extend(read);
            }
            Ok(ready.pop_front().map(|entry: LogEntry| {
                let next = entry.log_id.index + 1;
                (entry, (store, next, ready))
            }))
        })
    }

    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: openraft::type_config::alias::LeaderIdOf<TypeConfig>,
        range: RB,
    ) -> impl Stream<Item = Result<LogEntry, LeaderBoundedStreamError<TypeConfig>>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let changed = |vote: Option<Vote>| {
            LeaderBoundedStreamError::LeaderChanged(openraft::errors::LeaderChanged::new(leader, vote))
        };
        let (start, end) = bounds(&range);
        // The vote is recorded before anything is truncated under it, so seeing the same vote after the read
        // means that what was read was this leader's.
        let before = self.lock().vote;
        let result = match before {
            Some(vote) if vote.leader_id == leader && vote.committed => self
                .read(start, end, usize::MAX)
                .map_err(LeaderBoundedStreamError::IoError),
            vote => Err(changed(vote)),
        };
        let after = self.lock().vote;
        let items: Vec<_> = match result {
            Ok(_) if after != before => vec![Err(changed(after))],
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        futures::stream::iter(items)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let log = self.lock();
        Ok(LogState {
            last_purged_log_id: log.purged,
            last_log_id: log.last,
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let inner = &self.inner;
        let value = codec::encode(vote);
        let room = inner.writer.reserve(value.len()).await?;
        let (sender, receiver) = oneshot::channel();
        {
            let mut log = self.lock();
            let op = Op::Put(Family::RaftMeta, keys::vote(inner.shard), value);
            if planted!("vote-not-synced") {
                inner.writer.enqueue(room, vec![op], 0, Done::Nobody)?;
                log.vote = Some(*vote);
                log.promised_term = vote.leader_id.term;
                return Ok(());
            }
            inner.writer.enqueue(room, vec![op], 0, Done::Reply(sender))?;
            log.vote = Some(*vote);
        }
        crash_point!("vote.queued-not-synced").await;
        let durable = receiver
            .await
            .map_err(|_| io::Error::other("the log writer stopped before the vote was durable"))?;
        if durable.is_ok() {
            self.lock().promised_term = vote.leader_id.term;
            crash_point!("vote.synced-not-sent").await;
        }
        durable
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let inner = &self.inner;
        let mut ops = Vec::new();
        let mut cached = VecDeque::new();
        let mut total = 0;
        for mut entry in entries {
            let encoded = entry::encode(&entry);
            total += encoded.len();
            ops.push(Op::Put(
                Family::RaftLog,
                keys::log(inner.shard, entry.log_id.index),
                encoded.clone(),
            ));
            let bytes = encoded.len();
            entry.encoded = Some(encoded);
            cached.push_back(Cached {
                entry,
                bytes,
                ticket: 0,
            });
        }
        let room = inner.writer.reserve(total).await?;
        let mut log = self.lock();
        // Without anything before it, a log may begin anywhere.
        let first = cached.front().map_or(log.first, |new| new.entry.log_id.index);
        let next = log.last.map_or(first, |id| id.index + 1);
        for (expected, new) in (next..).zip(&cached) {
            if new.entry.log_id.index != expected {
                return Err(hole(expected, new.entry.log_id.index));
            }
        }
        let ticket = inner
            .writer
            .enqueue(room, ops, cached.len(), Done::Flushed(callback))?;
        if log.last.is_none() {
            log.first = first;
        }
        for mut new in cached {
            new.ticket = ticket;
            log.last = Some(new.entry.log_id);
            log.tail_bytes += new.bytes;
            log.tail.push_back(new);
        }
        log.reached = log.reached.max(log.last.map(|id| id.index));
        log.evict(inner.writer.written(), inner.tail_bytes_max);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let inner = &self.inner;
        let room = inner.writer.reserve(1).await?;
        {
            let mut log = self.lock();
            let keep = last_log_id.max(log.purged);
            let (Some(last), first_gone) = (log.last, keep.map_or(0, |id| id.index + 1)) else {
                return Ok(());
            };
            if last.index < first_gone {
                return Ok(());
            }
            reached!("log.truncated");
            let op = Op::DeleteRange(
                Family::RaftLog,
                keys::log(inner.shard, first_gone),
                keys::log(inner.shard, last.index + 1),
            );
            inner.writer.enqueue(room, vec![op], 0, Done::Nobody)?;
            while log
                .tail
                .back()
                .is_some_and(|back| back.entry.log_id.index >= first_gone)
            {
                let bytes = log.tail.pop_back().map_or(0, |gone| gone.bytes);
                log.tail_bytes -= bytes;
            }
            log.last = keep;
        }
        crash_point!("log.truncation-queued").await;
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let inner = &self.inner;
        let value = codec::encode(&log_id);
        let room = inner.writer.reserve(value.len()).await?;
        let mut log = self.lock();
        if log.purged >= Some(log_id) {
            return Ok(());
        }
        if log.last < Some(log_id) {
            reached!("log.purged-past-its-end");
        }
        let first = log.purged.map_or(0, |id| id.index + 1);
        let ops = vec![
            Op::Put(Family::RaftMeta, keys::purged(inner.shard), value),
            Op::DeleteRange(
                Family::RaftLog,
                keys::log(inner.shard, first),
                keys::log(inner.shard, log_id.index + 1),
            ),
        ];
        inner.writer.enqueue(room, ops, 0, Done::Nobody)?;
        while log
            .tail
            .front()
            .is_some_and(|front| front.entry.log_id.index <= log_id.index)
        {
            let bytes = log.tail.pop_front().map_or(0, |gone| gone.bytes);
            log.tail_bytes -= bytes;
        }
        log.purged = Some(log_id);
        log.first = log_id.index + 1;
        log.last = log.last.max(Some(log_id));
        log.reached = log.reached.max(Some(log_id.index));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_storage::engine::{Batch, EngineError};
    use holdfast_storage::faulty::FaultyDisk;
    use openraft::entry::RaftEntry;
    use openraft_rt::Oneshot;

    use super::*;
    use crate::FatalSink;
    use crate::runtime::Channels;
    use crate::type_config::{EncodedCommand, Payload, log_id};

    fn open(disk: &FaultyDisk, tail_bytes_max: usize) -> (LogStore, FatalSink) {
        let engine: Arc<dyn Engine> = Arc::new(disk.open().unwrap());
        let fatal = FatalSink::new();
        let writer = LogWriter::with_sync_bytes(engine.clone(), fatal.clone(), 1_000);
        (
            LogStore::open(engine, writer, ShardId(0), tail_bytes_max).unwrap(),
            fatal,
        )
    }

    fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<LogEntry> {
        let command = |index| EncodedCommand(bytes::Bytes::from(vec![term as u8; 10 + index as usize % 50]));
        indexes
            .map(|index| LogEntry::new(log_id(term, index), Payload::Normal(command(index))))
            .collect()
    }

    type Flushed = <Channels as Oneshot>::Receiver<io::Result<()>>;

    async fn append(log: &mut LogStore, entries: Vec<LogEntry>) -> Flushed {
        let (sender, receiver) = Channels::channel();
        log.append(entries, IOFlushed::signal(sender)).await.unwrap();
        receiver
    }

    fn ids(entries: &[LogEntry]) -> Vec<(u64, u64)> {
        entries
            .iter()
            .map(|entry| (entry.log_id.leader_id.term, entry.log_id.index))
            .collect()
    }

    #[tokio::test]
    async fn what_was_reported_survives_every_crash() {
        for seed in 0..40 {
            let disk = FaultyDisk::new(seed);
            disk.configure(|faults| faults.sync_delay = Duration::from_micros(200));
            let (mut log, _) = open(&disk, 300);
            let mut reports = Vec::new();
            for n in 0..seed {
                reports.push(append(&mut log, entries(1, n * 3..n * 3 + 3)).await);
                if n % 4 == 0 {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
            }
            let mut vote = None;
            if seed % 3 == 0 {
                log.save_vote(&Vote::new(2, seed)).await.unwrap();
                vote = Some(Vote::new(2, seed));
            }
            let reported = reports
                .iter_mut()
                .map(|report| report.try_recv().is_ok())
                .collect::<Vec<_>>();
            let count = reported.iter().take_while(|done| **done).count() as u64;
            assert!(
                reported[count as usize..].iter().all(|done| !done),
                "reports come in order"
            );
            disk.crash();

            let (mut log, _) = open(&disk, 300);
            let kept = log.try_get_log_entries(..).await.unwrap();
            assert!(
                kept.len() as u64 >= count * 3,
                "seed {seed}: {} of {} kept",
                kept.len(),
                count * 3
            );
            assert_eq!(ids(&kept), ids(&entries(1, 0..kept.len() as u64)));
            assert!(log.read_vote().await.unwrap() >= vote, "seed {seed}");
        }
    }

    #[tokio::test]
    async fn entries_can_be_read_while_the_disk_hangs_and_never_once_truncated() {
        let disk = FaultyDisk::new(1);
        let (mut log, _) = open(&disk, 0);
        append(&mut log, entries(1, 0..10)).await.await.unwrap().unwrap();
        disk.configure(|faults| faults.sync_stalled = true);
        let first = append(&mut log, entries(1, 10..20)).await;
        // So that the writer is busy syncing when the rest comes.
        tokio::time::sleep(Duration::from_millis(20)).await;
        log.truncate_after(Some(log_id(1, 4))).await.unwrap();
        let second = append(&mut log, entries(2, 5..8)).await;

        let all = log.try_get_log_entries(..).await.unwrap();
        let expected: Vec<_> = (0..5).map(|n| (1, n)).chain((5..8).map(|n| (2, n))).collect();
        assert_eq!(ids(&all), expected);
        assert_eq!(ids(&log.try_get_log_entries(6..7).await.unwrap()), [(2, 6)]);
        // State that includes the new entry 5 waits for it, although an old entry 5 was written long ago.
        let early = tokio::time::timeout(Duration::from_millis(50), log.wait_written(5)).await;
        assert!(early.is_err());

        disk.configure(|faults| faults.sync_stalled = false);
        first.await.unwrap().unwrap();
        second.await.unwrap().unwrap();
        log.wait_written(5).await.unwrap();
        log.purge(log_id(1, 2)).await.unwrap();
        log.wait_all_written().await.unwrap();
        // Nobody is sent the entries after a hole as if they followed.
        assert_eq!(ids(&log.limited_get_log_entries(2, 6).await.unwrap()), []);
        assert_eq!(
            ids(&log.limited_get_log_entries(3, 5).await.unwrap()),
            expected[3..5]
        );

        let (mut log, _) = open(&disk, 0);
        assert_eq!(ids(&log.try_get_log_entries(..).await.unwrap()), expected[3..]);
        let state = log.get_log_state().await.unwrap();
        assert_eq!(
            (state.last_purged_log_id, state.last_log_id),
            (Some(log_id(1, 2)), Some(log_id(2, 7)))
        );
    }

    #[tokio::test]
    async fn an_entry_that_is_not_what_was_written_is_remembered_as_damage() {
        let disk = FaultyDisk::new(1);
        let (mut log, _) = open(&disk, 0);
        append(&mut log, entries(1, 0..4)).await.await.unwrap().unwrap();
        let key = keys::log(ShardId(0), 2);
        let (mut log, _) = open(&disk, 0);
        let engine = &log.inner.engine;
        let mut wrong = engine
            .view()
            .get(Family::RaftLog, &key)
            .unwrap()
            .unwrap()
            .to_vec();
        *wrong.last_mut().unwrap() ^= 1;
        let mut batch = Batch::default();
        batch.put(Family::RaftLog, key, wrong);
        engine.write(batch).unwrap();

        assert!(log.try_get_log_entries(0..2).await.is_ok());
        let error = log.try_get_log_entries(0..4).await.unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
        assert!(
            log.try_get_log_entries(0..2).await.is_err(),
            "the engine has stopped"
        );
        assert!(matches!(disk.open(), Err(EngineError::Damaged { .. })));
    }

    #[tokio::test]
    async fn a_vote_is_promised_once_it_is_synced() {
        let disk = FaultyDisk::new(1);
        let (mut log, _) = open(&disk, 0);
        log.save_vote(&Vote::new(2, 1)).await.unwrap();
        assert_eq!(log.promised_term(), 2);
        disk.configure(|faults| faults.sync_stalled = true);
        let saving = tokio::time::timeout(Duration::from_millis(50), log.save_vote(&Vote::new(3, 1))).await;
        assert!(saving.is_err(), "it waits for the disk");
        assert_eq!(log.promised_term(), 2);
        disk.crash();

        // What was not synced may have survived.
        let (log, _) = open(&disk, 0);
        assert!([2, 3].contains(&log.promised_term()));
    }

    #[tokio::test]
    async fn nothing_is_reported_after_a_failure_elsewhere() {
        let disk = FaultyDisk::new(1);
        let (mut log, fatal) = open(&disk, 0);
        disk.configure(|faults| faults.sync_stalled = true);
        let report = append(&mut log, entries(1, 0..3)).await;
        // So that the sync has begun.
        tokio::time::sleep(Duration::from_millis(20)).await;
        fatal.report("another part of the node failed");
        disk.configure(|faults| faults.sync_stalled = false);
        assert!(report.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn nothing_is_reported_after_a_failed_sync() {
        let disk = FaultyDisk::new(1);
        let (mut log, fatal) = open(&disk, 0);
        disk.configure(|faults| faults.fail_next_sync = true);
        let report = append(&mut log, entries(1, 0..3)).await;
        assert!(report.await.unwrap().is_err());
        assert!(fatal.wait().await.contains("raft log"));
        assert!(append(&mut log, entries(1, 3..4)).await.await.unwrap().is_err());
        assert!(log.save_vote(&Vote::new(1, 1)).await.is_err());
        assert!(log.wait_written(3).await.is_err());
    }

    #[tokio::test]
    async fn a_missing_entry_is_damage() {
        let disk = FaultyDisk::new(1);
        let (mut log, _) = open(&disk, 0);
        append(&mut log, entries(1, 0..10)).await.await.unwrap().unwrap();
        log.purge(log_id(1, 1)).await.unwrap();
        log.wait_all_written().await.unwrap();
        drop(log);
        let engine = disk.open().unwrap();
        let mut batch = holdfast_storage::engine::Batch::default();
        batch.delete(Family::RaftLog, keys::log(ShardId(0), 5));
        engine.write(batch).unwrap();
        drop(engine);
        let (mut log, _) = open(&disk, 0);
        assert!(log.try_get_log_entries(..).await.is_err());
        assert_eq!(log.try_get_log_entries(6..).await.unwrap().len(), 4);
    }
}
