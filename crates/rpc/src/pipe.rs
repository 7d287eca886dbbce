//! One direction of one call: messages in order, each with the time at which it arrives.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::codegen::BoxMessage;
use crate::codegen::http::uri::PathAndQuery;
use crate::connection::{Connection, Side, broken};
use crate::{Code, Extensions, Request, Response, Status};
use crate::{metadata::MetadataMap, network};

/// How many messages a reader lets a writer be ahead.
const WINDOW: usize = 32;

/// A call, as the server gets it.
pub(crate) struct Call {
    pub(crate) path: PathAndQuery,
    pub(crate) metadata: MetadataMap,
    pub(crate) asked: Asked,
    pub(crate) answers: Sender<Answer>,
    pub(crate) caller: Arc<Caller>,
    /// When it arrives; `None`: it has not got through yet.
    pub(crate) arrives: Option<Instant>,
}

/// What a call asks.
pub(crate) enum Asked {
    One(BoxMessage),
    Many(Receiver<Option<BoxMessage>>),
}

/// What a server says in answer to a call.
pub(crate) enum Answer {
    /// First: the call was taken up, or refused.
    Head(Result<MetadataMap, Status>),
    /// Then messages, or why there are no more.
    Message(Result<BoxMessage, Status>),
    /// At last.
    End,
}

/// Whether somebody still waits for a call's answer.
#[derive(Default)]
pub(crate) struct Caller {
    gone: AtomicBool,
    changed: Notify,
}

impl Caller {
    /// Waits until the caller has gone away.
    pub(crate) async fn gone(&self) {
        loop {
            let changed = self.changed.notified();
            if self.gone.load(Ordering::SeqCst) {
                return;
            }
            changed.await;
        }
    }
}

/// The caller's place in a call; when it is dropped, the caller has gone away.
pub(crate) struct Waiting(pub(crate) Arc<Caller>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

/// The end that is written to.
pub(crate) struct Sender<T> {
    connection: Arc<Connection>,
    /// Who writes.
    side: Side,
    latest: Instant,
    into: mpsc::Sender<(T, Option<Instant>)>,
}

/// The end that is read from.
pub(crate) struct Receiver<T> {
    connection: Arc<Connection>,
    /// Who writes.
    side: Side,
    out: mpsc::Receiver<(T, Option<Instant>)>,
}

/// A pipe that `side` writes into.
pub(crate) fn pipe<T>(connection: &Arc<Connection>, side: Side) -> (Sender<T>, Receiver<T>) {
    let (into, out) = mpsc::channel(WINDOW);
    let sender = Sender {
        connection: Arc::clone(connection),
        side,
        latest: Instant::now(),
        into,
    };
    let receiver = Receiver {
        connection: Arc::clone(connection),
        side,
        out,
    };
    (sender, receiver)
}

/// When what is sent now arrives; `None` if it does not get through.
pub(crate) fn arrival(connection: &Connection, side: Side) -> Option<Instant> {
    let takes = network::passage(connection.place(side), connection.place(side.other()));
    takes.map(|takes| Instant::now() + takes)
}

/// Waits until something that `side` sent has arrived. It never does if it was still under way when a machine lost
/// its power.
pub(crate) async fn arrive(connection: &Connection, side: Side, at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None if connection.is_severed() => std::future::pending().await,
        None => {
            network::travel(connection.place(side), connection.place(side.other())).await;
            if connection.is_severed() {
                std::future::pending().await
            }
        }
    }
}

impl<T> Sender<T> {
    /// Sends a message; waits while the reader is too far behind. Fails if nobody reads any more.
    pub(crate) async fn send(&mut self, message: T) -> Result<(), Status> {
        let room = tokio::select! {
            biased;
            () = self.connection.over(self.side) => return Err(broken()),
            room = self.into.reserve() => room.map_err(|_| broken())?,
        };
        let arrives = arrival(&self.connection, self.side).map(|at| at.max(self.latest));
        self.latest = arrives.unwrap_or(self.latest);
        room.send((message, arrives));
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// The next message; an error if there will be none because the connection or the writer is gone.
    pub(crate) async fn receive(&mut self) -> Result<T, Status> {
        let connection = &self.connection;
        let next = async {
            match self.out.recv().await {
                Some((message, at)) => {
                    arrive(connection, self.side, at).await;
                    Ok(message)
                }
                // The writer went away in the midst of it, and word of that comes the same way.
                None => {
                    network::travel(connection.place(self.side), connection.place(self.side.other())).await;
                    Err(broken())
                }
            }
        };
        tokio::select! {
            biased;
            () = connection.over(self.side.other()) => Err(broken()),
            result = next => result,
        }
    }
}

/// A message as it comes out at the other end: encoded here, decoded there.
pub(crate) fn across<M: prost::Message + Default>(message: &M) -> M {
    let bytes = Bytes::from(message.encode_to_vec());
    M::decode(bytes).expect("what was encoded just now can be decoded")
}

/// What remains of an answer on the wire.
pub(crate) fn strip<T>(response: Response<T>) -> (MetadataMap, T) {
    let (metadata, message, _) = response.into_parts();
    (metadata, message)
}

/// What remains of a status on the wire.
pub(crate) fn strip_status(status: &Status) -> Status {
    Status::with_details_and_metadata(
        status.code(),
        status.message(),
        Bytes::copy_from_slice(status.details()),
        status.metadata().clone(),
    )
}

/// A request as a server sees it.
pub(crate) fn request<T>(metadata: MetadataMap, message: T) -> Request<T> {
    Request::from_parts(metadata, Extensions::new(), message)
}

/// A message whose type generated code knows.
pub(crate) fn unbox<M: Any>(message: BoxMessage) -> Result<M, Status> {
    let message = message.downcast::<M>();
    message
        .map(|message| *message)
        .map_err(|_| Status::new(Code::Internal, "the peer sent a message of another type"))
}
