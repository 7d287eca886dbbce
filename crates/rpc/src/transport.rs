//! Channels and servers on the simulated network, with the names and settings that tonic's have. Settings that
//! the simulation has no use for are taken and forgotten.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use madsim::task::NodeId as Place;

use crate::Status;
use crate::codegen::StdError;
use crate::connection::{Connection, Held, KeepAlive};

pub use crate::codegen::http::Uri;
pub use madsim_tonic::transport::NamedService;
pub use server::Server;

pub mod server;

/// What goes wrong before there is a call.
#[derive(Debug)]
pub struct Error {
    source: StdError,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("transport error")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

impl Error {
    pub(crate) fn new(source: impl Into<StdError>) -> Self {
        Error {
            source: source.into(),
        }
    }
}

/// Where and how to connect.
#[derive(Debug, Clone)]
pub struct Endpoint {
    uri: Uri,
    timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    ping: Option<Duration>,
    pong: Duration,
}

impl Endpoint {
    /// An endpoint of this address.
    ///
    /// # Errors
    /// If it is none.
    pub fn new<D>(address: D) -> Result<Self, Error>
    where
        D: TryInto<Self>,
        D::Error: Into<StdError>,
    {
        address.try_into().map_err(Error::new)
    }

    /// An endpoint of this address.
    ///
    /// # Errors
    /// If it is none.
    pub fn from_shared(address: impl Into<prost::bytes::Bytes>) -> Result<Self, Error> {
        let uri = Uri::from_maybe_shared(address.into()).map_err(Error::new)?;
        Ok(Self::from(uri))
    }

    /// How long a call may take that does not say.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Endpoint {
            timeout: Some(timeout),
            ..self
        }
    }

    /// How long opening a connection may take.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Endpoint {
            connect_timeout: Some(timeout),
            ..self
        }
    }

    /// How often to ask whether the other side still lives.
    #[must_use]
    pub fn http2_keep_alive_interval(self, interval: Duration) -> Self {
        Endpoint {
            ping: Some(interval),
            ..self
        }
    }

    /// How long to wait for an answer to that.
    #[must_use]
    pub fn keep_alive_timeout(self, timeout: Duration) -> Self {
        Endpoint {
            pong: timeout,
            ..self
        }
    }

    /// Forgotten: connections are always asked after.
    #[must_use]
    pub fn keep_alive_while_idle(self, _enabled: bool) -> Self {
        self
    }

    /// Forgotten.
    #[must_use]
    pub fn tcp_nodelay(self, _enabled: bool) -> Self {
        self
    }

    /// A channel that connects when it is first used.
    pub fn connect_lazy(&self) -> Channel {
        Channel {
            endpoint: self.clone(),
            connections: Arc::default(),
        }
    }

    /// A channel that is connected.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn connect(&self) -> Result<Channel, Error> {
        let channel = self.connect_lazy();
        channel.connection().await.map_err(Error::new)?;
        Ok(channel)
    }

    fn address(&self) -> Result<SocketAddr, Status> {
        let (host, port) = (self.uri.host(), self.uri.port_u16());
        let ip = host.and_then(|host| host.parse::<IpAddr>().ok());
        match (ip, port) {
            (Some(ip), Some(port)) => Ok(SocketAddr::new(ip, port)),
            _ => Err(Status::unavailable(format!("there is no host {}", self.uri))),
        }
    }

    fn keep_alive(&self) -> Option<KeepAlive> {
        self.ping.map(|interval| KeepAlive {
            interval,
            timeout: self.pong,
        })
    }
}

impl From<Uri> for Endpoint {
    fn from(uri: Uri) -> Self {
        Endpoint {
            uri,
            timeout: None,
            connect_timeout: None,
            ping: None,
            pong: Duration::from_secs(20),
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = Error;

    fn try_from(address: String) -> Result<Self, Error> {
        Endpoint::from_shared(address)
    }
}

impl TryFrom<&'static str> for Endpoint {
    type Error = Error;

    fn try_from(address: &'static str) -> Result<Self, Error> {
        Endpoint::from_shared(address)
    }
}

/// A channel that connects when it is first used.
pub fn connect_lazy(endpoint: &Endpoint) -> Channel {
    endpoint.connect_lazy()
}

/// Calls to one address. Each machine that uses it has a connection of its own, which all its calls share; it is
/// opened again after it broke.
#[derive(Clone)]
pub struct Channel {
    endpoint: Endpoint,
    connections: Arc<Mutex<BTreeMap<Place, Opening>>>,
}

/// A connection that is being opened, has been, or could not be.
type Opening = Shared<BoxFuture<'static, Result<Arc<Held>, Status>>>;

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("uri", &self.endpoint.uri)
            .finish_non_exhaustive()
    }
}

impl Channel {
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.endpoint.timeout
    }

    /// The connection, opened if need be. Whoever needs it while it is being opened waits. Opening it is nobody's own: it
    /// goes on when a caller waits no longer, or is not polled.
    pub(crate) async fn connection(&self) -> Result<Arc<Held>, Status> {
        let here = madsim::plugin::node();
        let opening = {
            let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            match connections.get(&here) {
                Some(opening) if may_serve(opening) => opening.clone(),
                _ => {
                    let opening = open(self.endpoint.clone());
                    connections.insert(here, opening.clone());
                    opening
                }
            }
        };
        opening.await
    }
}

/// Whether it is still being opened, or can be used. (Looking at it polls it: its callers may all have gone away.)
fn may_serve(opening: &Opening) -> bool {
    match opening.clone().now_or_never() {
        None => true,
        Some(Ok(connection)) => connection.0.is_usable(),
        Some(Err(_)) => false,
    }
}

fn open(endpoint: Endpoint) -> Opening {
    let opening = madsim::task::spawn(async move {
        let keep_alive = endpoint.keep_alive();
        Connection::open(endpoint.address()?, endpoint.connect_timeout, keep_alive).await
    });
    let opened =
        opening.map(|opened| opened.unwrap_or_else(|_| Err(Status::unavailable("this process has ended"))));
    opened.boxed().shared()
}
