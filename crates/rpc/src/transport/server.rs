//! Servers: ports, and the calls that arrive there.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use tokio::sync::{Notify, mpsc};

use super::{Error, NamedService};
use crate::codegen::http::uri::PathAndQuery;
use crate::codegen::{BoxMessageStream, RequestExt, Service};
use crate::connection::{Connection, KeepAlive, Side};
use crate::network::{self, Said};
use crate::pipe::{Answer, Asked, Call, arrive, request, strip, strip_status};
use crate::{Request, Response, Status};

/// Settings of a server.
#[derive(Debug, Clone, Default)]
pub struct Server {
    ping: Option<Duration>,
    pong: Option<Duration>,
}

/// What a request is to a service, and what it gives back.
type Asking = (PathAndQuery, Request<BoxMessageStream>);
type Answering = BoxFuture<'static, Result<Response<BoxMessageStream>, Status>>;

/// A service that calls itself by a name.
type Handler = Arc<std::sync::Mutex<dyn FnMut(Asking) -> Answering + Send>>;

impl Server {
    /// The default settings.
    pub fn builder() -> Self {
        Self::default()
    }

    /// How often to ask whether a client still lives.
    #[must_use]
    pub fn http2_keepalive_interval(self, interval: Option<Duration>) -> Self {
        Server {
            ping: interval,
            ..self
        }
    }

    /// How long to wait for an answer to that.
    #[must_use]
    pub fn http2_keepalive_timeout(self, timeout: Option<Duration>) -> Self {
        Server {
            pong: timeout,
            ..self
        }
    }

    /// A server of this service, to which others can be added.
    pub fn add_service<S>(&mut self, service: S) -> Router
    where
        S: Service<Asking, Response = Response<BoxMessageStream>, Error = Status, Future = Answering>
            + NamedService
            + Send
            + 'static,
    {
        let router = Router {
            server: self.clone(),
            services: BTreeMap::new(),
        };
        router.add_service(service)
    }
}

/// A server of some services.
pub struct Router {
    server: Server,
    services: BTreeMap<&'static str, Handler>,
}

impl Router {
    /// Adds a service.
    #[must_use]
    pub fn add_service<S>(mut self, mut service: S) -> Self
    where
        S: Service<Asking, Response = Response<BoxMessageStream>, Error = Status, Future = Answering>
            + NamedService
            + Send
            + 'static,
    {
        let handler = Arc::new(std::sync::Mutex::new(move |asking| service.call(asking)));
        self.services.insert(S::NAME, handler);
        self
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// None.
    pub async fn serve(self, address: SocketAddr) -> Result<(), Error> {
        self.serve_with_shutdown(address, std::future::pending()).await
    }

    /// Serves until told to stop, then lets calls under way finish.
    ///
    /// # Errors
    /// None.
    pub async fn serve_with_shutdown(
        self,
        address: SocketAddr,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let mut accepted = network::listen(address, madsim::plugin::node());
        let serving = Arc::new(Serving {
            address,
            services: self.services,
            under_way: AtomicUsize::new(0),
            fewer: Notify::new(),
        });
        let keep_alive = self.server.ping.map(|interval| KeepAlive {
            interval,
            timeout: self.server.pong.unwrap_or(Duration::from_secs(20)),
        });
        let mut connections: Vec<Arc<Connection>> = Vec::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                next = accepted.recv() => {
                    // Another process took the port: this one was killed and does not know it yet.
                    let Some((kept, calls)) = next else { break };
                    let connection = Arc::clone(kept.connection());
                    connections.retain(|connection| Arc::strong_count(connection) > 1);
                    connections.push(Arc::clone(&connection));
                    let serving = Arc::clone(&serving);
                    madsim::task::spawn(async move {
                        tokio::select! {
                            biased;
                            () = kept.watch(keep_alive) => {}
                            () = serving.take_up(connection, calls) => {}
                        }
                    });
                }
            }
        }
        drop(accepted);
        for connection in &connections {
            connection.drain();
        }
        serving.idle().await;
        for connection in &connections {
            connection.finish(Side::Server);
        }
        Ok(())
    }
}

/// A server at work.
struct Serving {
    address: SocketAddr,
    services: BTreeMap<&'static str, Handler>,
    under_way: AtomicUsize,
    fewer: Notify,
}

/// One of the calls under way.
struct UnderWay(Arc<Serving>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        self.0.fewer.notify_waiters();
    }
}

impl Serving {
    /// Waits until no call is under way.
    async fn idle(&self) {
        loop {
            let fewer = self.fewer.notified();
            if self.under_way.load(Ordering::SeqCst) == 0 {
                return;
            }
            fewer.await;
        }
    }

    /// Starts the calls of one connection.
    async fn take_up(self: Arc<Self>, connection: Arc<Connection>, mut calls: mpsc::UnboundedReceiver<Call>) {
        loop {
            let call = tokio::select! {
                biased;
                () = connection.over(Side::Server) => return,
                call = calls.recv() => call,
            };
            let Some(call) = call else { return };
            self.under_way.fetch_add(1, Ordering::SeqCst);
            let (under_way, connection) = (UnderWay(Arc::clone(&self)), Arc::clone(&connection));
            madsim::task::spawn(async move {
                let caller = Arc::clone(&call.caller);
                let gone = async {
                    caller.gone().await;
                    network::travel(connection.client, connection.server).await;
                };
                tokio::select! {
                    biased;
                    () = connection.over(Side::Server) => {}
                    () = gone => {}
                    () = under_way.0.answer(&connection, call) => {}
                }
                drop(under_way);
            });
        }
    }

    /// Carries out one call.
    async fn answer(&self, connection: &Connection, call: Call) {
        let Call {
            path,
            metadata,
            asked,
            mut answers,
            arrives,
            ..
        } = call;
        arrive(connection, Side::Client, arrives).await;
        let messages: BoxMessageStream = match asked {
            Asked::One(message) => stream::iter([Ok(message)]).boxed(),
            Asked::Many(receiver) => stream::unfold(Some(receiver), |receiver| async {
                let mut receiver = receiver?;
                match receiver.receive().await {
                    Ok(Some(message)) => Some((Ok(message), Some(receiver))),
                    Ok(None) => None,
                    Err(status) => Some((Err(status), None)),
                }
            })
            .boxed(),
        };
        let mut request = request(metadata, messages);
        // Whose port it is does not matter to anybody.
        let client = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        request.set_tcp_connect_info(self.address, client);
        let name = path.path().split('/').nth(1).unwrap_or_default();
        let handling = self.services.get(name).map(|service| {
            let mut service = service.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            service((path.clone(), request))
        });
        let response = match handling {
            Some(handling) => handling.await,
            None => Err(Status::unimplemented(format!("there is no service {name}"))),
        };
        let say = |said| network::say(connection.server, connection.client, &path, said);
        // Whoever no longer listens needs no answer.
        let _ = match response {
            Err(status) => {
                say(Said::Refuses(status.code()));
                answers.send(Answer::Head(Err(strip_status(&status)))).await
            }
            Ok(response) => {
                let (metadata, mut messages) = strip(response);
                let sending = async {
                    answers.send(Answer::Head(Ok(metadata))).await?;
                    while let Some(message) = messages.next().await {
                        say(match &message {
                            Ok(_) => Said::Answers,
                            Err(status) => Said::Refuses(status.code()),
                        });
                        let message = message.map_err(|status| strip_status(&status));
                        answers.send(Answer::Message(message)).await?;
                    }
                    answers.send(Answer::End).await
                };
                sending.await
            }
        };
    }
}
