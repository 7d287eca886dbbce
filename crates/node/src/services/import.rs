//! ImportAccounts: many items in flight, results in order, a position that survives everything.
//!
//! Any node takes the stream; each item goes to the leader by itself, so an import outlives leaders. An item's
//! request id is derived from the import's id, the item's index and a *birth* (see [`super::checkpoint`]), so
//! that an item sent again meets its own request record. What is not final (no leader, overload, an unknown
//! outcome) is tried again with the same id; if that goes on for too long the stream ends, and the import is
//! resumed with another.
//!
//! The durable position follows behind the results: every result carries the last one that was stored.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, Stream, StreamExt};
use holdfast_markers::{crash_point, reached};
use holdfast_types::{FieldViolation, Millis, Rejection};
use holdfast_wire::convert::import;
use holdfast_wire::internal::{ImportCheckpoint, ImportState, ImportStep};
use holdfast_wire::status::{OutcomeView, Problem, Reason};
use holdfast_wire::v1;
use holdfast_wire::v1::import_accounts_request::Payload as Asked;
use holdfast_wire::v1::import_accounts_response::Payload as Answer;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use crate::admission::{Permit, Work};
use crate::call::Call;
use crate::core::Core;
use crate::deadline::Deadline;
use crate::failure::Failure;
use crate::lifecycle::Phase;
use crate::methods;
use crate::router;
use crate::telemetry;
use crate::trace::TraceContext;

/// The stream of answers.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<v1::ImportAccountsResponse, Status>> + Send>>;

/// How long one item is tried.
const ITEM: Duration = Duration::from_secs(60);
/// The pause between two tries of an item.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a caller may take to send the next item, or to read a result.
const IDLE: Duration = Duration::from_secs(600);
/// The position is stored after this many results …
const CHECKPOINT_ITEMS: u64 = 1_000;
/// … or this long.
const CHECKPOINT: Duration = Duration::from_secs(1);
/// How far indexes may run ahead of the stored position.
const RESERVE: u64 = 20_000;
/// The most items in one message.
const BATCH_ITEMS_MAX: usize = 1_000;
/// The most results in one answer: well below 4 MiB, even if each item was rejected for many reasons.
const RESULTS_MAX: usize = 100;
/// The largest index of an item.
const INDEX_MAX: u64 = 1 << 53;

/// Begins an import. Everything else happens in its own task, errors included.
pub(super) async fn start(
    core: &Arc<Core>,
    request: Request<Streaming<v1::ImportAccountsRequest>>,
) -> Result<Response<Answers>, Status> {
    let method = &methods::IMPORT_ACCOUNTS;
    let trace = TraceContext::of_call(request.metadata());
    let core = core.clone();
    let answering = core.clone();
    let leader = core.leader_client_address();
    let begin = async {
        let call = Call::of(&request, method, &trace)?;
        let asked = request.into_inner();
        let permit = core.admit(Work::Stream, 0)?;
        let (sender, receiver) = mpsc::channel(64);
        let work = {
            let core = core.clone();
            async move {
                let mut import = Import::new(core, call, sender);
                if let Err(failure) = import.run(asked).await {
                    // The caller may be gone, which is one of the reasons to end.
                    drop(import.sender.send(Err(failure.into())).await);
                }
                drop(permit);
            }
        };
        core.tasks.spawn(work.in_current_span());
        Ok(Box::pin(super::answers(answering, receiver)) as Answers)
    };
    let said = telemetry::Said {
        traceparent: trace.drawn.then(|| trace.to_header()),
        leader: || leader,
    };
    telemetry::observe(method, &trace, said, begin).await
}

type Step = BoxFuture<'static, Result<v1::ImportItemResult, Failure>>;
type Checkpoint = BoxFuture<'static, Result<ImportState, Failure>>;

/// One import stream.
struct Import {
    core: Arc<Core>,
    call: Call,
    sender: mpsc::Sender<Result<v1::ImportAccountsResponse, Status>>,
    options: v1::ImportOptions,
    state: ImportState,
    /// Items that came and wait to be taken: the rest of one batch.
    waiting: VecDeque<v1::ImportItem>,
    /// Items under way, in order.
    steps: FuturesOrdered<Step>,
    /// The index of the newest item that came.
    newest: u64,
    /// Every item up to this index has its final result.
    position: u64,
    checkpoint: Option<Checkpoint>,
    last_checkpoint: Instant,
}

impl Import {
    fn new(
        core: Arc<Core>,
        call: Call,
        sender: mpsc::Sender<Result<v1::ImportAccountsResponse, Status>>,
    ) -> Self {
        Import {
            core,
            call,
            sender,
            options: v1::ImportOptions::default(),
            state: ImportState::default(),
            waiting: VecDeque::new(),
            steps: FuturesOrdered::new(),
            newest: 0,
            position: 0,
            checkpoint: None,
            last_checkpoint: Instant::now(),
        }
    }

    async fn run(&mut self, mut asked: Streaming<v1::ImportAccountsRequest>) -> Result<(), Failure> {
        self.options = match next(&mut asked).await? {
            Some(Asked::Options(options)) => options,
            _ => return Err(invalid("options", "must be the first message of the stream")),
        };
        import::options(self.options.clone())?;
        super::mutations::room_to_grow(&self.core)?;
        self.state = self.store(0, RESERVE).await?;
        self.position = self.state.resume_after_index;
        if self.position > 0 {
            reached!("import.resumed");
        }
        let header = v1::ImportHeader {
            resume_after_index: self.position,
        };
        self.answer(Answer::Header(header)).await?;

        let core = self.core.clone();
        let mut stop = std::pin::pin!(core.lifecycle.reached(Phase::Stopping));
        let mut ended = false;
        loop {
            self.take_what_fits();
            let unreserved = self.waiting.front().map(|item| item.index);
            self.checkpoint_if_due(unreserved.filter(|index| *index > self.state.reserved_through_index));
            let working = !self.steps.is_empty();
            // Memory is waited for only while this stream holds none: its own items are what could give it back.
            let starved = self.next_item().filter(|_| !working).map(Message::encoded_len);
            let room =
                !ended && self.waiting.is_empty() && self.steps.len() < core.config.limits.import_window;
            // Nothing else may happen for a while, and the position is to be stored all the same.
            let unstored = self.checkpoint.is_none() && self.position > self.state.resume_after_index;
            if ended && !working && self.waiting.is_empty() {
                return self.finish().await;
            }
            tokio::select! {
                biased;
                () = &mut stop => {
                    return Err(Failure::new(Reason::NodeNotServing, "this node is being stopped; resume elsewhere"));
                }
                stored = stored(&mut self.checkpoint), if self.checkpoint.is_some() => {
                    self.checkpoint = None;
                    self.state = stored?;
                }
                Some(result) = self.steps.next(), if working => self.settle(result?, ended).await?,
                permit = core.admission.wait_for_room(starved.unwrap_or(0)), if starved.is_some() => {
                    self.take(permit);
                }
                message = next(&mut asked), if room => match message? {
                    None => ended = true,
                    Some(Asked::Batch(batch)) => self.in_order(batch)?,
                    Some(Asked::Options(_)) => return Err(invalid("options", "must be sent once")),
                },
                () = tokio::time::sleep(CHECKPOINT), if unstored => {}
            }
        }
    }

    fn in_order(&mut self, batch: v1::ImportBatch) -> Result<(), Failure> {
        if !(1..=BATCH_ITEMS_MAX).contains(&batch.items.len()) {
            let otherwise = format!("must be 1 to {BATCH_ITEMS_MAX}, are {}", batch.items.len());
            return Err(invalid("batch.items", &otherwise));
        }
        for (at, item) in batch.items.iter().enumerate() {
            let otherwise = if item.index <= self.newest {
                "must count from 1 and rise within the stream"
            } else if item.index > INDEX_MAX {
                "must be at most 2^53, so that JSON can carry it"
            } else {
                self.newest = item.index;
                continue;
            };
            return Err(invalid(&format!("batch.items[{at}].index"), otherwise));
        }
        self.waiting = batch.items.into();
        Ok(())
    }

    /// The next item, if it may be set off as soon as there is memory for it.
    fn next_item(&self) -> Option<&v1::ImportItem> {
        self.waiting.front().filter(|item| {
            item.index <= self.state.reserved_through_index
                && self.steps.len() < self.core.config.limits.import_window
        })
    }

    /// Sets off what there is memory for now.
    fn take_what_fits(&mut self) {
        while let Some(item) = self.next_item()
            && let Some(permit) = self.core.admission.room_now(item.encoded_len())
        {
            self.take(permit);
        }
    }

    /// Sets the next item off.
    fn take(&mut self, permit: Permit) {
        let Some(item) = self.waiting.pop_front() else {
            return;
        };
        let birth = birth_of(&self.state, item.index);
        let step = ImportStep {
            parent: self.options.parent.clone(),
            import_id: self.options.import_id.clone(),
            mode: self.options.mode,
            context: self.options.context.clone(),
            birth_ms: birth.0,
            item: Some(item),
        };
        self.steps
            .push_back(until_settled(self.core.clone(), step, self.call.clone(), permit).boxed());
    }

    /// Reports the next result in order, and those after it that are there already.
    async fn settle(&mut self, first: v1::ImportItemResult, ended: bool) -> Result<(), Failure> {
        let mut results = Vec::new();
        let mut failed = None;
        let mut next = Some(Ok(first));
        while let Some(result) = next.take() {
            match result {
                Ok(result) => results.push(result),
                // Those before it are reported first.
                Err(failure) => failed = Some(failure),
            }
            if failed.is_none() && results.len() < RESULTS_MAX {
                next = self.steps.next().now_or_never().flatten();
            }
        }
        for result in &results {
            metrics::counter!("holdfast_import_items_total", "action" => result.action().as_str_name())
                .increment(1);
            // An item sent again from below the stored position does not move it back.
            self.position = self.position.max(result.index);
        }
        if ended && self.steps.is_empty() && self.waiting.is_empty() && failed.is_none() {
            // The last result tells that all of them are stored.
            self.finish().await?;
        }
        crash_point!("import.settled-not-reported").await;
        self.answer(Answer::Batch(v1::ImportResultBatch { results }))
            .await?;
        failed.map_or(Ok(()), Err)
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        if let Some(checkpoint) = self.checkpoint.take() {
            self.state = checkpoint.await?;
        }
        if self.position > self.state.resume_after_index {
            self.state = self.store(self.position, 0).await?;
        }
        Ok(())
    }

    /// Stores the position from time to time, and at once if an item must wait for it.
    fn checkpoint_if_due(&mut self, waiting: Option<u64>) {
        if self.checkpoint.is_some() {
            return;
        }
        let moved = self.position - self.state.resume_after_index.min(self.position);
        let due = moved >= CHECKPOINT_ITEMS || (moved > 0 && self.last_checkpoint.elapsed() >= CHECKPOINT);
        if due || waiting.is_some() {
            self.last_checkpoint = Instant::now();
            let through = waiting.unwrap_or(self.newest) + RESERVE;
            self.checkpoint = Some(self.store(self.position, through).boxed());
        }
    }

    fn store(
        &self,
        position: u64,
        through: u64,
    ) -> impl Future<Output = Result<ImportState, Failure>> + Send + 'static {
        let checkpoint = ImportCheckpoint {
            parent: self.options.parent.clone(),
            import_id: self.options.import_id.clone(),
            resume_after_index: position,
            reserve_through_index: through,
            mode: self.options.mode,
        };
        let (core, call) = (self.core.clone(), self.call.at_most(ITEM));
        async move { router::route(&core, checkpoint, &call, None).await }
    }

    async fn answer(&mut self, payload: Answer) -> Result<(), Failure> {
        let answer = v1::ImportAccountsResponse {
            payload: Some(payload),
            resume_after_index: self.state.resume_after_index,
        };
        match tokio::time::timeout(IDLE, self.sender.send(Ok(answer))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Failure::new(Reason::NodeNotServing, "the caller has left")),
            Err(_) => Err(Problem::deadline(OutcomeView::NotApplied).into()),
        }
    }
}

/// The stored state, when the checkpoint under way is done.
async fn stored(checkpoint: &mut Option<Checkpoint>) -> Result<ImportState, Failure> {
    match checkpoint {
        Some(checkpoint) => checkpoint.await,
        None => std::future::pending().await,
    }
}

/// The birth of an item's request id. Of one from before all segments that are remembered, none can be told any
/// more: it is refused as expired.
fn birth_of(state: &ImportState, index: u64) -> Millis {
    let segment = state
        .segments
        .iter()
        .rev()
        .find(|segment| segment.from_index <= index);
    Millis(segment.map_or(0, |segment| segment.birth_ms))
}

async fn next(asked: &mut Streaming<v1::ImportAccountsRequest>) -> Result<Option<Asked>, Failure> {
    match tokio::time::timeout(IDLE, asked.message()).await {
        Ok(Ok(Some(message))) => match message.payload {
            Some(payload) => Ok(Some(payload)),
            None => Err(invalid("payload", "must be set")),
        },
        Ok(Ok(None)) => Ok(None),
        // Only the transport fails here: it could not read what came.
        Ok(Err(status)) => Err(Problem::from_transport(&status).into()),
        Err(_) => Err(Problem::deadline(OutcomeView::NotApplied).into()),
    }
}

fn invalid(field: &str, description: &str) -> Failure {
    Rejection::Invalid(vec![FieldViolation::new(field, description)]).into()
}

/// Tries an item until it has a final result.
async fn until_settled(
    core: Arc<Core>,
    step: ImportStep,
    call: Call,
    permit: Permit,
) -> Result<v1::ImportItemResult, Failure> {
    let permit = Arc::new(permit);
    let give_up = Deadline::after(ITEM);
    loop {
        let call = Call {
            deadline: give_up,
            ..call.clone()
        };
        let failure = match router::route(&core, step.clone(), &call, Some(permit.clone())).await {
            Ok(result) => return Ok(result),
            Err(failure) => failure,
        };
        let passes = matches!(
            failure.reason(),
            Reason::NoLeader
                | Reason::NotLeader
                | Reason::OutcomeUnknown
                | Reason::NodeNotServing
                | Reason::Overloaded
                | Reason::Contention
                | Reason::ClockSkew
        );
        if !passes || give_up.left() < PAUSE * 2 || core.lifecycle.phase() >= Phase::Stopping {
            return Err(failure);
        }
        reached!("import.item-tried-again");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use holdfast_wire::internal::ImportSegment;

    use super::*;

    #[test]
    fn an_item_keeps_the_birth_of_its_segment() {
        let segment = |from_index, birth_ms| ImportSegment { from_index, birth_ms };
        let state = ImportState {
            segments: vec![segment(10, 100), segment(20, 200)],
            ..ImportState::default()
        };
        let births = [1, 9, 10, 19, 20, 99].map(|index| birth_of(&state, index).0);
        assert_eq!(births, [0, 0, 100, 100, 200, 200]);
    }
}
