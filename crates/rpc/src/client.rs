//! What generated clients are made of.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use prost::Message;
use tokio::time::{Instant, timeout};

use crate::codec::Streaming;
use crate::codegen::http::uri::PathAndQuery;
use crate::codegen::{BoxMessage, IdentityInterceptor, RequestExt};
use crate::connection::{Held, Side};
use crate::metadata::MetadataMap;
use crate::network::{self, Said};
use crate::pipe::{Answer, Asked, Call, Caller, Receiver, Waiting, across, arrival, pipe, unbox};
use crate::service::Interceptor;
use crate::transport::{Channel, Error};
use crate::{Extensions, Request, Response, Status};

/// Calls of any service over a channel.
#[derive(Debug, Clone)]
pub struct Grpc<T, F> {
    channel: T,
    interceptor: F,
}

impl<T> Grpc<T, IdentityInterceptor> {
    /// Calls as they are.
    pub fn new(channel: T) -> Self {
        Grpc {
            channel,
            interceptor: Ok,
        }
    }
}

/// A call under way.
struct Open {
    answers: Receiver<Answer>,
    /// Tells the server when nobody waits for the answers any more.
    _waiting: Waiting,
    _connection: Arc<Held>,
}

impl<F: Interceptor> Grpc<Channel, F> {
    /// Calls that an interceptor sees first.
    pub fn with_interceptor(channel: Channel, interceptor: F) -> Self {
        Grpc { channel, interceptor }
    }

    /// A channel is always ready: it connects when it is used.
    ///
    /// # Errors
    /// None.
    pub async fn ready(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// One request, one answer.
    ///
    /// # Errors
    /// What the server or the network said.
    pub async fn unary<M1, M2, C>(
        &mut self,
        request: Request<M1>,
        path: PathAndQuery,
        _codec: C,
    ) -> Result<Response<M2>, Status>
    where
        M1: Message + Default + 'static,
        M2: Message + Default + 'static,
    {
        let deadline = request.timeout().or(self.channel.timeout());
        let call = async {
            let (metadata, message) = self.intercept(request)?;
            let connection = self.channel.connection().await?;
            if let Some(later) = network::twin(&path) {
                send_twin(&connection, &path, &metadata, Box::new(across(&message)), later);
            }
            let asked = Asked::One(Box::new(across(&message)));
            let open = open(&connection, path, metadata, asked)?;
            single(open).await
        };
        within(deadline, call).await
    }

    /// Many requests, one answer.
    ///
    /// # Errors
    /// What the server or the network said.
    pub async fn client_streaming<M1, M2, C>(
        &mut self,
        request: Request<impl Stream<Item = M1> + Send + 'static>,
        path: PathAndQuery,
        _codec: C,
    ) -> Result<Response<M2>, Status>
    where
        M1: Message + Default + 'static,
        M2: Message + Default + 'static,
    {
        let deadline = request.timeout().or(self.channel.timeout());
        let call = async {
            let (metadata, messages) = self.intercept(request)?;
            let connection = self.channel.connection().await?;
            let (asked, pump) = pump(&connection, path.clone(), messages);
            let open = open(&connection, path, metadata, asked)?;
            let answer = single(open).await;
            drop(pump);
            answer
        };
        within(deadline, call).await
    }

    /// One request, many answers.
    ///
    /// # Errors
    /// What the server or the network said.
    pub async fn server_streaming<M1, M2, C>(
        &mut self,
        request: Request<M1>,
        path: PathAndQuery,
        _codec: C,
    ) -> Result<Response<Streaming<M2>>, Status>
    where
        M1: Message + Default + 'static,
        M2: Message + Default + 'static,
    {
        let deadline = request.timeout().or(self.channel.timeout());
        let call = async {
            let (metadata, message) = self.intercept(request)?;
            let connection = self.channel.connection().await?;
            let asked = Asked::One(Box::new(across(&message)));
            let open = open(&connection, path, metadata, asked)?;
            many(open, ()).await
        };
        within(deadline, call).await
    }

    /// Many requests, many answers.
    ///
    /// # Errors
    /// What the server or the network said.
    pub async fn streaming<M1, M2, C>(
        &mut self,
        request: Request<impl Stream<Item = M1> + Send + 'static>,
        path: PathAndQuery,
        _codec: C,
    ) -> Result<Response<Streaming<M2>>, Status>
    where
        M1: Message + Default + 'static,
        M2: Message + Default + 'static,
    {
        let deadline = request.timeout().or(self.channel.timeout());
        let call = async {
            let (metadata, messages) = self.intercept(request)?;
            let connection = self.channel.connection().await?;
            let (asked, pump) = pump(&connection, path.clone(), messages);
            let open = open(&connection, path, metadata, asked)?;
            many(open, pump).await
        };
        within(deadline, call).await
    }

    fn intercept<T>(&mut self, request: Request<T>) -> Result<(MetadataMap, T), Status> {
        let (metadata, _, message) = request.intercept(&mut self.interceptor)?.into_parts();
        Ok((metadata, message))
    }
}

fn open(
    connection: &Arc<Held>,
    path: PathAndQuery,
    metadata: MetadataMap,
    asked: Asked,
) -> Result<Open, Status> {
    let (sender, answers) = pipe(&connection.0, Side::Server);
    network::say(connection.0.client, connection.0.server, &path, Said::Asks);
    let caller = Arc::new(Caller::default());
    let waiting = Waiting(Arc::clone(&caller));
    connection.0.call(Call {
        path,
        metadata,
        asked,
        answers: sender,
        caller,
        arrives: arrival(&connection.0, Side::Client),
    })?;
    Ok(Open {
        answers,
        _waiting: waiting,
        _connection: Arc::clone(connection),
    })
}

/// The same request once more, a little later; nobody waits for its answer.
fn send_twin(
    connection: &Arc<Held>,
    path: &PathAndQuery,
    metadata: &MetadataMap,
    message: BoxMessage,
    later: Duration,
) {
    let (answers, _) = pipe(&connection.0, Side::Server);
    let twin = Call {
        path: path.clone(),
        metadata: metadata.clone(),
        asked: Asked::One(message),
        answers,
        caller: Arc::default(),
        arrives: Some(Instant::now() + later),
    };
    // If the connection is broken the original fails as well.
    let _ = connection.0.call(twin);
}

/// Sends a stream of requests from a task of its own, which ends when what is returned is dropped.
fn pump<M: Message + Default + 'static>(
    connection: &Arc<Held>,
    path: PathAndQuery,
    messages: impl Stream<Item = M> + Send + 'static,
) -> (Asked, impl Send + 'static) {
    let (mut sender, receiver) = pipe::<Option<BoxMessage>>(&connection.0, Side::Client);
    let (client, server) = (connection.0.client, connection.0.server);
    let task = madsim::task::spawn(async move {
        let mut messages = std::pin::pin!(messages);
        while let Some(message) = messages.next().await {
            network::say(client, server, &path, Said::AsksMore);
            if sender.send(Some(Box::new(across(&message)))).await.is_err() {
                // The server has heard enough.
                return;
            }
        }
        // So it has if it does not want to hear of the end.
        let _ = sender.send(None).await;
    });
    (Asked::Many(receiver), task.cancel_on_drop())
}

async fn single<M: 'static>(mut open: Open) -> Result<Response<M>, Status> {
    let metadata = head(&mut open).await?;
    match open.answers.receive().await? {
        Answer::Message(message) => Ok(Response::from_parts(
            metadata,
            unbox(message?)?,
            Extensions::new(),
        )),
        Answer::Head(_) | Answer::End => Err(Status::internal("the answer is missing")),
    }
}

async fn many<M: Send + 'static>(
    mut open: Open,
    pump: impl Send + 'static,
) -> Result<Response<Streaming<M>>, Status> {
    let metadata = head(&mut open).await?;
    let stream = futures::stream::unfold(Some((open, pump)), |state| async {
        let (mut open, pump) = state?;
        let next = match open.answers.receive().await {
            Ok(Answer::Message(Ok(message))) => unbox(message),
            Ok(Answer::Message(Err(status))) | Err(status) => Err(status),
            Ok(Answer::Head(_) | Answer::End) => return None,
        };
        let state = next.is_ok().then_some((open, pump));
        Some((next, state))
    });
    let stream = Streaming::from_stream(stream.boxed());
    Ok(Response::from_parts(metadata, stream, Extensions::new()))
}

async fn head(open: &mut Open) -> Result<MetadataMap, Status> {
    match open.answers.receive().await? {
        Answer::Head(head) => head,
        Answer::Message(_) | Answer::End => Err(Status::internal("the answer has no head")),
    }
}

async fn within<T>(
    deadline: Option<Duration>,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match deadline {
        None => call.await,
        Some(deadline) => timeout(deadline, call)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the call took too long"))),
    }
}
