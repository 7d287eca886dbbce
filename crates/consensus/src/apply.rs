//! Applying committed entries: the machine's rules over the engine, one atomic batch after the other.
//!
//! A batch holds the rows of many commands, the machine's own state, the last applied log id and, when it
//! changed, the membership, so a crash never leaves one without the others. It enters the engine only after
//! the *log* writes of its entries did ([`LogStore::wait_written`]): both are in one write-ahead log, so
//! whatever prefix of it survives a crash, what was applied is never ahead of the log. Replies go out only
//! after the batch entered.
//!
//! Whatever cannot be applied stops the node: another replica may have managed, so carrying on would diverge.

use std::io;
use std::sync::{Arc, RwLock};
use std::time::Instant;

use futures::{Stream, StreamExt};
use holdfast_machine::{Body, Command, Guard, State, Tables, layout};
use holdfast_markers::{crash_point, planted, reached};
use holdfast_storage::command;
use holdfast_storage::engine::{Batch, Engine, EngineError, View};
use holdfast_storage::overlay::Staged;
use holdfast_types::{Family, Millis, ShardId};
use openraft::OptionalSend;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine, Snapshot};
use tokio::sync::watch;

use crate::FatalSink;
use crate::codec::{self, Installing};
use crate::hot_rows::{HotRows, HotView};
use crate::keys;
use crate::log_store::LogStore;
use crate::log_writer::writes_flow;
use crate::snapshot::{self, SnapshotBuilder, SnapshotData, Walk};
use crate::trace;
use crate::type_config::{
    ApplyReply, LogEntry, LogId, Membership, Payload, SnapshotMeta, StoredMembership, TypeConfig,
};

/// The most entries and bytes in one batch.
const BATCH_ENTRIES_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// What is applied, for everyone who reads it.
pub(crate) struct Applied {
    engine: Arc<dyn Engine>,
    /// The last applied index, plus one; 0 before the first.
    next_index: watch::Sender<u64>,
    state: RwLock<State>,
    view: RwLock<SharedView>,
    hot: Arc<HotRows>,
}

/// The picture of the state that readers share.
#[derive(Default)]
struct SharedView {
    /// What was read last, until something else is applied: taking a snapshot of the engine costs more than most reads.
    last: Option<Arc<dyn View>>,
    /// A snapshot is being installed; until it is complete, readers get the state before it.
    frozen: bool,
    /// How often something was written that readers see; of the views that are taken from now on.
    generation: u64,
}

impl Applied {
    /// The applied state, frozen.
    pub(crate) fn view(&self) -> Arc<dyn View> {
        if let Some(view) = &self.read_view().last {
            return view.clone();
        }
        // Locked while the view is taken: it is as new as what was applied when the last one was dropped, and an
        // install cannot begin in between.
        let mut shared = self.lock_view();
        let generation = shared.generation;
        let view = shared.last.get_or_insert_with(|| self.take_view(generation));
        view.clone()
    }

    fn take_view(&self, generation: u64) -> Arc<dyn View> {
        Arc::new(HotView {
            view: self.engine.view(),
            hot: self.hot.clone(),
            generation,
        })
    }

    /// A batch will be written that readers shall see.
    fn writing(&self, batch: &Batch) {
        let generation = self.read_view().generation + 1;
        self.hot.writing(batch, generation);
    }

    /// Something was written that readers shall see.
    fn renew_view(&self) {
        let mut shared = self.lock_view();
        shared.generation += 1;
        if !shared.frozen {
            shared.last = None;
        }
    }

    fn read_view(&self) -> std::sync::RwLockReadGuard<'_, SharedView> {
        self.view
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn lock_view(&self) -> std::sync::RwLockWriteGuard<'_, SharedView> {
        self.view
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The machine's own state.
    pub(crate) fn state(&self) -> State {
        self.state
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// The machine's own state and the index after the entry that it is the state of.
    pub(crate) fn position(&self) -> (State, u64) {
        let state = self
            .state
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        (state.clone(), self.next_index())
    }

    /// The index after the last applied one.
    pub(crate) fn next_index(&self) -> u64 {
        *self.next_index.borrow()
    }

    /// Waits until the entry at `index` is applied.
    pub(crate) async fn wait(&self, index: u64) {
        let mut next = self.next_index.subscribe();
        while *next.borrow_and_update() <= index {
            if next.changed().await.is_err() {
                // The sender is in `self`, so it is still there.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Of a node that has applied nothing.
    #[cfg(test)]
    pub(crate) fn nothing() -> Arc<Applied> {
        let engine: Arc<dyn Engine> = Arc::new(holdfast_storage::faulty::FaultyDisk::new(1).open().unwrap());
        let (fatal, shard) = (FatalSink::new(), ShardId(0));
        let writer = crate::log_writer::LogWriter::start(engine.clone(), fatal.clone());
        let log = LogStore::open(engine.clone(), writer, shard, 0).unwrap();
        StateMachine::open(engine, shard, log, 1 << 20, fatal).unwrap().1
    }

    /// As if everything up to `index` were applied.
    #[cfg(test)]
    pub(crate) fn reach(&self, index: u64) {
        self.publish(&self.state(), Some(crate::type_config::log_id(1, index)));
    }

    fn freeze(&self) {
        let mut shared = self.lock_view();
        shared.last = Some(self.take_view(shared.generation));
        shared.frozen = true;
    }

    fn publish(&self, state: &State, last: Option<LogId>) {
        let mut shared = self
            .state
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *shared = state.clone();
        // Still locked, so that whoever reads both gets the pair.
        self.next_index.send_replace(last.map_or(0, |id| id.index + 1));
        drop(shared);
        metrics::gauge!("holdfast_raft_applied_index").set(last.map_or(0, |id| id.index) as f64);
    }

    fn thaw(&self) {
        let mut shared = self.lock_view();
        let generation = shared.generation + 1;
        self.hot.forget_all(generation);
        *shared = SharedView {
            generation,
            ..SharedView::default()
        };
    }
}

/// What is stored about the applied state.
struct Stored {
    state: State,
    last: Option<LogId>,
    membership: StoredMembership,
}

impl Stored {
    fn load(view: &dyn View, shard: ShardId) -> io::Result<Self> {
        let read = |key: &[u8]| view.get(Family::Meta, key).map_err(io::Error::other);
        let state = match read(&layout::state_key(shard))? {
            Some(bytes) => State::decode(&bytes).map_err(io::Error::other)?,
            None => State::new(shard),
        };
        let last = read(&keys::applied(shard))?
            .map(|bytes| codec::decode::<LogId>(&bytes))
            .transpose()
            .map_err(io::Error::other)?;
        let membership = read(&keys::membership(shard))?
            .map(|bytes| codec::decode::<StoredMembership>(&bytes))
            .transpose()
            .map_err(io::Error::other)?
            .unwrap_or_default();
        Ok(Stored {
            state,
            last,
            membership,
        })
    }
}

/// What an entry says.
enum Content {
    Blank,
    Command(Command),
    Membership(Membership),
}

impl Content {
    fn of(entry: LogEntry) -> io::Result<Self> {
        let index = entry.log_id.index;
        Ok(match entry.payload {
            Payload::Blank => Content::Blank,
            Payload::Normal(encoded) => {
                let command = command::decode(&encoded.0).map_err(|error| not_applied(index, &error))?;
                Content::Command(command)
            }
            Payload::Membership(membership) => Content::Membership(membership),
        })
    }

    /// The rows that applying it looks at.
    fn guards(&self) -> &[Guard] {
        match self {
            Content::Command(Command {
                body: Body::Mutate(mutation),
                ..
            }) => &mutation.guards,
            _ => &[],
        }
    }
}

fn not_applied(index: u64, why: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("log entry {index} cannot be applied: {why}"))
}

/// The state machine as openraft drives it: from one task.
pub(crate) struct StateMachine {
    engine: Arc<dyn Engine>,
    shard: ShardId,
    log: LogStore,
    fatal: FatalSink,
    shared: Arc<Applied>,
    stored: Stored,
}

impl StateMachine {
    /// Reads what is applied. A half-installed snapshot must have been finished before.
    pub(crate) fn open(
        engine: Arc<dyn Engine>,
        shard: ShardId,
        log: LogStore,
        hot_rows_bytes: usize,
        fatal: FatalSink,
    ) -> io::Result<(Self, Arc<Applied>)> {
        let stored = Stored::load(&*engine.view(), shard)?;
        let shared = Arc::new(Applied {
            engine: engine.clone(),
            next_index: watch::channel(0).0,
            state: RwLock::new(stored.state.clone()),
            view: RwLock::default(),
            hot: Arc::new(HotRows::new(hot_rows_bytes)),
        });
        shared.publish(&stored.state, stored.last);
        Ok((
            StateMachine {
                engine,
                shard,
                log,
                fatal,
                shared: shared.clone(),
                stored,
            },
            shared,
        ))
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.stored.last,
            last_membership: self.stored.membership.clone(),
        }
    }

    /// Runs a batch of entries and answers whoever proposed them.
    async fn apply_batch(
        &mut self,
        entries: Vec<(LogEntry, Option<ApplyResponder<TypeConfig>>)>,
    ) -> io::Result<()> {
        let Some(last) = entries.last().map(|(entry, _)| entry.log_id) else {
            return Ok(());
        };
        let started = Instant::now();
        let mut batch = Batch::default();
        let mut replies = Vec::with_capacity(entries.len());
        {
            let view = self.engine.view();
            let mut staged = Staged::new(&*view);
            let entries = entries
                .into_iter()
                .map(|(entry, responder)| Ok((entry.log_id, Content::of(entry)?, responder)))
                .collect::<io::Result<Vec<_>>>()?;
            let guards = entries.iter().flat_map(|(_, content, _)| content.guards());
            staged
                .fetch(guards.map(|guard| (guard.family, guard.key.clone())))
                .map_err(io::Error::other)?;
            for (log_id, content, responder) in entries {
                let reply = self.apply_entry(&mut staged, &mut batch, log_id, content)?;
                if let Some(responder) = responder {
                    replies.push((responder, reply));
                }
            }
            staged.drain(&mut batch);
        }
        batch.put(
            Family::Meta,
            layout::state_key(self.shard),
            self.stored.state.encode(),
        );
        let applied = if planted!("double-apply-on-restart") {
            self.stored.last.unwrap_or(last)
        } else {
            last
        };
        let apart = planted!("applied-id-written-apart");
        if !apart {
            batch.put(Family::Meta, keys::applied(self.shard), codec::encode(&applied));
        }
        self.log.wait_written(last.index).await?;
        writes_flow(&*self.engine).await;
        if let Some(reason) = self.fatal.reason() {
            reached!("apply.silent-after-failure");
            return Err(io::Error::other(reason));
        }
        self.shared.writing(&batch);
        self.engine.write(batch).map_err(io::Error::other)?;
        if apart {
            let mut id = Batch::default();
            id.put(Family::Meta, keys::applied(self.shard), codec::encode(&applied));
            self.engine.write(id).map_err(io::Error::other)?;
        }
        self.shared.renew_view();
        crash_point!("apply.written-not-answered").await;
        self.stored.last = Some(last);
        self.shared.publish(&self.stored.state, Some(last));
        for (responder, reply) in replies {
            responder.send(reply);
        }
        metrics::histogram!("holdfast_apply_seconds").record(started.elapsed().as_secs_f64());
        Ok(())
    }

    fn apply_entry(
        &mut self,
        staged: &mut Staged<'_>,
        batch: &mut Batch,
        log_id: LogId,
        content: Content,
    ) -> io::Result<ApplyReply> {
        let index = log_id.index;
        match content {
            // The first entry of a new leader.
            Content::Blank => {
                if planted!("request-record-forgotten-after-leader-change") {
                    staged.delete_range(Family::Request, bytes::Bytes::new(), keys::above_all());
                }
                if planted!("change-event-dropped-at-leader-change") {
                    let last = layout::change_key(self.shard, index.saturating_sub(1), 0);
                    staged.delete_range(Family::Change, last, layout::change_key(self.shard, index, 0));
                }
                Ok(ApplyReply::Nothing)
            }
            Content::Command(mut command) => {
                if planted!("expiry-by-local-clock") {
                    expire_by_own_clock(&mut command);
                }
                if tracing::enabled!(tracing::Level::DEBUG)
                    && let Some(trace_id) = trace::of_command(&command)
                {
                    tracing::debug!(index, trace_id, "an entry is applied");
                }
                let reply = holdfast_machine::apply(&mut self.stored.state, staged, index, &command)
                    .map_err(|error| not_applied(index, &error))?;
                Ok(ApplyReply::Command(reply))
            }
            Content::Membership(membership) => {
                self.stored.membership = StoredMembership::new(Some(log_id), membership);
                let value = codec::encode(&self.stored.membership);
                batch.put(Family::Meta, keys::membership(self.shard), value);
                Ok(ApplyReply::Nothing)
            }
        }
    }

    /// Stages a snapshot that came without a network: another machine's in the same process.
    fn stage(&self, view: Box<dyn View>) -> Result<(), EngineError> {
        snapshot::clear_staged(&*self.engine, self.shard)?;
        let mut walk = Walk::new(view, self.shard);
        while let Some((family, rows)) = walk.next_chunk()? {
            snapshot::stage(&*self.engine, self.shard, family, rows)?;
        }
        Ok(())
    }

    async fn install(&mut self, meta: &SnapshotMeta) -> io::Result<()> {
        // Truncations that openraft ordered before this install must not be lost if the install survives.
        self.log.wait_all_written().await?;
        let mark = Installing {
            last_log_id: meta.last_log_id,
            membership: meta.last_membership.clone(),
        };
        snapshot::mark_installing(&*self.engine, self.shard, &mark)
            .await
            .map_err(io::Error::other)?;
        snapshot::finish_install(&*self.engine, self.shard).await?;
        self.stored = Stored::load(&*self.engine.view(), self.shard)?;
        if self.stored.last != meta.last_log_id {
            return Err(io::Error::other(
                "an installed snapshot is not the one that was sent",
            ));
        }
        Ok(())
    }
}

/// A planted mistake: the window ends at the local clock, and not at the one that was agreed upon.
fn expire_by_own_clock(command: &mut Command) {
    if let Body::ExpireRequests { before, .. } = &mut command.body {
        let window_ms = command.wall.0.saturating_sub(before.0);
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        *before = Millis(since_epoch.as_millis() as u64).minus(window_ms);
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.stored.last, self.stored.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let result = async {
            let mut waiting = Vec::new();
            let mut bytes = 0;
            while let Some(item) = entries.next().await {
                let (entry, responder) = item?;
                bytes += entry.encoded.as_ref().map_or(0, bytes::Bytes::len);
                waiting.push((entry, responder));
                if waiting.len() >= BATCH_ENTRIES_MAX || bytes >= BATCH_BYTES_MAX {
                    bytes = 0;
                    self.apply_batch(std::mem::take(&mut waiting)).await?;
                }
            }
            self.apply_batch(waiting).await
        }
        .await;
        result.inspect_err(|error: &io::Error| {
            reached!("apply.failed");
            self.fatal
                .report(format!("applying the raft log failed: {error}"))
        })
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            engine: self.engine.clone(),
            view: Some(self.engine.view()),
            meta: self.meta(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        // What came over the network is staged already; the guard keeps it so until it is installed.
        let _staging = match snapshot {
            SnapshotData::Incoming(guard) => Some(guard),
            SnapshotData::Outgoing(view) => {
                self.stage(view).map_err(io::Error::other)?;
                None
            }
        };
        self.shared.freeze();
        let result = self.install(meta).await;
        match result {
            Ok(()) => {
                // In this order: whoever sees the new index must not get the old picture.
                self.shared.thaw();
                self.shared.publish(&self.stored.state, self.stored.last);
                reached!("snapshot.installed");
                metrics::counter!("holdfast_raft_snapshots_installed_total").increment(1);
                Ok(())
            }
            Err(error) => {
                reached!("snapshot.install-failed");
                self.fatal
                    .report(format!("installing a snapshot failed: {error}"));
                Err(error)
            }
        }
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<
        Option<Snapshot<crate::type_config::LeaderTerm, u64, crate::PeerAddresses, SnapshotData>>,
        io::Error,
    > {
        // The state as it is now, pinned: taking a snapshot costs nothing, so there is never an older one.
        if self.stored.last.is_none() {
            return Ok(None);
        }
        Ok(Some(Snapshot {
            meta: self.meta(),
            snapshot: SnapshotData::Outgoing(self.engine.view()),
        }))
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use holdfast_storage::faulty::FaultyDisk;
    use openraft::entry::RaftEntry;
    use openraft::storage::{IOFlushed, RaftLogStorage};

    use super::*;
    use crate::log_writer::LogWriter;
    use crate::type_config::log_id;

    #[tokio::test]
    async fn nothing_is_applied_after_a_failure() {
        let disk = FaultyDisk::new(1);
        let engine: Arc<dyn Engine> = Arc::new(disk.open().unwrap());
        let (fatal, shard) = (FatalSink::new(), ShardId(0));
        let writer = LogWriter::start(engine.clone(), fatal.clone());
        let mut log = LogStore::open(engine.clone(), writer, shard, 0).unwrap();
        let (mut machine, applied) =
            StateMachine::open(engine, shard, log.clone(), 1 << 20, fatal.clone()).unwrap();
        let entry = LogEntry::new(log_id(1, 0), Payload::Blank);
        log.append([entry.clone()], IOFlushed::noop()).await.unwrap();
        log.wait_written(0).await.unwrap();

        fatal.report("something else failed");
        let refused = machine.apply(futures::stream::iter([Ok((entry, None))])).await;
        assert!(refused.is_err());
        assert_eq!(applied.next_index(), 0);
    }
}
