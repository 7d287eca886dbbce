//! An import: items in, one result for each item out, across broken streams and dead nodes.
//!
//! Items flow through a bounded window: an item stays here until its result is here. When the stream breaks, a
//! new one is opened (elsewhere, after a back-off), and the items of the window are sent again; the service
//! answers those it had settled with the result they got, because each item's request id is derived from the
//! import's id and the item's index. So every item yields its result exactly once, and none takes effect twice.
//!
//! Items that are at hand go out together, in batches bounded by count and by bytes: one message an item would be a
//! flood of tiny frames, against which HTTP/2 servers protect themselves.
//!
//! Items that an *earlier* run of the same import settled are recognised by the header of the first stream and
//! passed over; [`ImportEvent::Resumed`] says so.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use holdfast_types::RequestId;
use holdfast_wire::v1;
use holdfast_wire::v1::import_accounts_request::Payload as Input;
use holdfast_wire::v1::import_accounts_response::Payload as Output;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Code, Request, Streaming};

use crate::account::service;
use crate::backoff;
use crate::call::{LEADER_HINT, annotate, fresh_traceparent, learn, text};
use crate::client::Client;
use crate::endpoints::canonical_address;
use crate::error::{ClientError, Outcome};

/// The most items in one message: what the service takes is ten times as many.
const BATCH_ITEMS_MAX: usize = 100;
/// A message is sent once it has this many bytes, so that with one item more it stays below 4 MiB.
const BATCH_BYTES: usize = 1024 * 1024;

/// What an import is.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// `realms/{realm}`.
    pub parent: String,
    /// Chosen once for the import; the same to resume it.
    pub import_id: RequestId,
    /// What to do about accounts that exist.
    pub mode: v1::ImportMode,
    /// On whose behalf and why.
    pub context: Option<v1::RequestContext>,
    /// The most items without a result at any time.
    pub window: usize,
    /// How long a stream with items under way may stay silent before another node is tried.
    pub stall_timeout: Duration,
    /// Give up after this long without any result.
    pub patience: Duration,
}

impl ImportOptions {
    /// An import with the usual window and patience.
    pub fn new(parent: impl Into<String>, import_id: RequestId, mode: v1::ImportMode) -> Self {
        ImportOptions {
            parent: parent.into(),
            import_id,
            mode,
            context: None,
            window: 256,
            stall_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(60),
        }
    }
}

/// What an import tells.
#[derive(Debug, Clone, PartialEq)]
pub enum ImportEvent {
    /// Once, first: items up to this index were settled by an earlier run and are passed over; 0: none were.
    Resumed {
        /// The index.
        after_index: u64,
    },
    /// What became of an item; in the order of the items.
    Result(v1::ImportItemResult),
}

/// An import under way. Nothing happens unless [`Import::next`] is awaited.
pub struct Import {
    client: Client,
    options: ImportOptions,
    source: Pin<Box<dyn Stream<Item = v1::ImportItem> + Send>>,
    source_ended: bool,
    /// Items sent whose result is not here yet, oldest first.
    window: VecDeque<v1::ImportItem>,
    /// Results that came and were not given out yet.
    results: VecDeque<v1::ImportItemResult>,
    connection: Option<Connection>,
    /// Known after the first header.
    passed_over: Option<u64>,
    last_progress: Instant,
    failures: u32,
    /// A follower has named the leader since the last result; a second one is not followed, so that nodes that
    /// name each other cannot send it in circles.
    redirected: bool,
    /// Already ended, well or with an error.
    over: bool,
}

/// One stream.
struct Connection {
    address: String,
    items: mpsc::Sender<v1::ImportAccountsRequest>,
    results: Streaming<v1::ImportAccountsResponse>,
}

impl Connection {
    /// Queues a batch. The queue holds a whole window; if it is closed, the stream broke, which its other half
    /// reports with the reason.
    fn send(&self, items: Vec<v1::ImportItem>) {
        if items.is_empty() {
            return;
        }
        let batch = v1::ImportBatch { items };
        let _ = self.items.try_send(v1::ImportAccountsRequest {
            payload: Some(Input::Batch(batch)),
        });
    }
}

impl Client {
    /// Imports the items that `source` yields; their indexes must rise. Dropping the import stops it; what is
    /// settled stays, and the same import id resumes.
    pub fn import_accounts(
        &self,
        options: ImportOptions,
        source: impl Stream<Item = v1::ImportItem> + Send + 'static,
    ) -> Import {
        Import {
            client: self.clone(),
            options,
            source: Box::pin(source),
            source_ended: false,
            window: VecDeque::new(),
            results: VecDeque::new(),
            connection: None,
            passed_over: None,
            last_progress: Instant::now(),
            failures: 0,
            redirected: false,
            over: false,
        }
    }
}

impl Import {
    /// The next event; `None` once every item has its result. An error is the end: the import can be resumed
    /// with the same id.
    pub async fn next(&mut self) -> Option<Result<ImportEvent, ClientError>> {
        while !self.over {
            if self.source_ended && self.window.is_empty() && self.passed_over.is_some() {
                self.close().await;
                break;
            }
            match self.step().await {
                Ok(None) => {}
                Ok(Some(event)) => return Some(Ok(event)),
                Err(error) => {
                    if let Err(error) = self.recover(error).await {
                        self.over = true;
                        return Some(Err(error));
                    }
                }
            }
        }
        None
    }

    /// Gives out one result, or connects, or moves a batch of items or of results.
    async fn step(&mut self) -> Result<Option<ImportEvent>, ClientError> {
        if let Some(result) = self.results.pop_front() {
            return self.settle(result);
        }
        let Some(connection) = &mut self.connection else {
            return self.open().await;
        };
        let room = !self.source_ended && self.window.len() < self.options.window;
        // A full window comes first: answers make room, and an item read too early would have to wait anyway.
        tokio::select! {
            biased;
            answer = connection.results.message() => {
                let answer = answer.map_err(|status| ClientError::from_status(&status))?;
                let Some(answer) = answer else {
                    return Err(unavailable("the service ended the import before its last result"));
                };
                // Anything else is a second header, or a kind of message of a later release.
                if let Some(Output::Batch(batch)) = answer.payload {
                    self.results = batch.results.into();
                }
                Ok(None)
            }
            item = self.source.next(), if room => {
                let sent = self.window.len();
                let mut bytes = 0;
                let mut next = Some(item);
                while let Some(item) = next.take() {
                    match item {
                        None => self.source_ended = true,
                        Some(item) if item.index <= self.passed_over.unwrap_or(0) => {}
                        Some(item) => {
                            bytes += item.encoded_len();
                            self.window.push_back(item);
                        }
                    }
                    let more = !self.source_ended
                        && self.window.len() < self.options.window
                        && self.window.len() - sent < BATCH_ITEMS_MAX
                        && bytes < BATCH_BYTES;
                    if more {
                        // Only what is there now: nobody waits for a full batch.
                        next = self.source.next().now_or_never();
                    }
                }
                let new = self.window.range(sent..).cloned().collect();
                connection.send(new);
                Ok(None)
            }
            () = tokio::time::sleep(self.options.stall_timeout), if !self.window.is_empty() => {
                Err(unavailable("the service fell silent in the middle of an import"))
            }
        }
    }

    /// A result arrived: it must be that of the oldest item without one.
    fn settle(&mut self, result: v1::ImportItemResult) -> Result<Option<ImportEvent>, ClientError> {
        match self.window.front() {
            Some(item) if item.index == result.index => {
                self.window.pop_front();
                self.last_progress = Instant::now();
                self.failures = 0;
                self.redirected = false;
                Ok(Some(ImportEvent::Result(result)))
            }
            expected => Err(ClientError::local(
                Code::DataLoss,
                format!(
                    "the service answered item {} where item {} was due; this is a defect",
                    result.index,
                    expected.map_or(0, |item| item.index)
                ),
                Outcome::Unknown,
            )),
        }
    }

    /// Opens a stream, reads its header and sends the window again.
    async fn open(&mut self) -> Result<Option<ImportEvent>, ClientError> {
        let shared = self.client.shared.clone();
        let target = shared.accounts.pick();
        let (items, queue) = mpsc::channel(self.options.window + 1);
        let options = v1::ImportOptions {
            parent: self.options.parent.clone(),
            import_id: self.options.import_id.to_string(),
            mode: self.options.mode.into(),
            context: self.options.context.clone(),
        };
        let first = v1::ImportAccountsRequest {
            payload: Some(Input::Options(options)),
        };
        let _ = items.try_send(first);
        let outgoing = futures::stream::unfold(queue, |mut queue| async move {
            let message = queue.recv().await?;
            Some((message, queue))
        });
        let mut request = Request::new(outgoing);
        annotate(
            request.metadata_mut(),
            shared.caller.as_ref(),
            &fresh_traceparent(),
        );
        let opening = async {
            let mut service = service(target.channel);
            let response = service.import_accounts(request).await?;
            let leader = text(response.metadata(), LEADER_HINT).map(str::to_owned);
            let mut results = response.into_inner();
            let header = results.message().await?;
            Ok::<_, tonic::Status>((results, header, leader))
        };
        let opened = match tokio::time::timeout(self.options.stall_timeout, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(tonic::Status::unavailable(format!(
                "{} did not answer in time",
                target.address
            ))),
        };
        let (results, header, leader) = opened.map_err(|status| {
            let error = ClientError::from_status(&status);
            learn(
                &shared.accounts,
                &error,
                text(status.metadata(), LEADER_HINT),
                &target.address,
            );
            error
        })?;
        if let Some(leader) = leader
            && canonical_address(&leader) != target.address
            && shared.accounts.leader_is(&leader)
            && !self.redirected
        {
            // Nothing was sent yet, and every item would take a hop more through a follower.
            self.redirected = true;
            return Ok(None);
        }
        let Some(Output::Header(header)) = header.and_then(|message| message.payload) else {
            return Err(unavailable(
                "the service did not begin the import with its header",
            ));
        };
        let connection = Connection {
            address: target.address,
            items,
            results,
        };
        let (mut again, mut bytes) = (Vec::new(), 0);
        for item in &self.window {
            bytes += item.encoded_len();
            again.push(item.clone());
            if again.len() >= BATCH_ITEMS_MAX || bytes >= BATCH_BYTES {
                bytes = 0;
                connection.send(std::mem::take(&mut again));
            }
        }
        connection.send(again);
        self.connection = Some(connection);
        if self.passed_over.is_some() {
            return Ok(None);
        }
        self.passed_over = Some(header.resume_after_index);
        self.last_progress = Instant::now();
        Ok(Some(ImportEvent::Resumed {
            after_index: header.resume_after_index,
        }))
    }

    /// After a failure: waits and lets the next step open another stream, unless that cannot help.
    async fn recover(&mut self, mut error: ClientError) -> Result<(), ClientError> {
        if let Some(connection) = self.connection.take()
            && error.is_retryable()
        {
            learn(&self.client.shared.accounts, &error, None, &connection.address);
        }
        self.failures += 1;
        error.attempts = self.failures;
        if !self.window.is_empty() {
            // What was sent may have been done; resuming tells.
            error.outcome = Outcome::Unknown;
        }
        let config = &self.client.shared.config;
        let wait =
            if (self.failures as usize) < self.client.shared.accounts.len() && error.retry_after.is_none() {
                Duration::ZERO
            } else {
                error.retry_after.unwrap_or_default() + config.backoff.wait(self.failures, backoff::draw())
            };
        // A wait that would outlast the patience is not begun: the caller learns as much now.
        if !error.is_retryable()
            || error.code == Code::DataLoss
            || self.last_progress.elapsed() + wait > self.options.patience
        {
            return Err(error);
        }
        tracing::debug!(
            code = ?error.code, reason = %error.reason, failures = self.failures,
            wait_ms = wait.as_millis() as u64, "resuming the import"
        );
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Everything has its result: lets the service see the end, so that it does not report a broken stream.
    async fn close(&mut self) {
        self.over = true;
        if let Some(Connection {
            items, mut results, ..
        }) = self.connection.take()
        {
            drop(items);
            let _ = tokio::time::timeout(Duration::from_secs(1), async {
                while let Ok(Some(_)) = results.message().await {}
            })
            .await;
        }
    }
}

fn unavailable(message: &str) -> ClientError {
    ClientError::local(Code::Unavailable, message, Outcome::Unknown)
}
