//! The transport in simulation, which has neither TLS nor health, reflection or HTTP.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use holdfast_consensus::PeerTls;
use tonic::Extensions;
use tonic::transport::server::Router;
use tonic::transport::{Channel, Endpoint, Server};

use super::{Probe, TransportError};
use crate::config::TlsSection;

/// The same as outside of the simulation.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);

/// An address to listen on.
pub(crate) struct Listener {
    address: SocketAddr,
}

impl Listener {
    pub(crate) async fn bind(
        _port: &'static str,
        address: SocketAddr,
        _connections_max: usize,
    ) -> Result<Self, TransportError> {
        Ok(Listener { address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// There is no TLS in simulation.
#[derive(Clone)]
pub(crate) struct Tls;

impl Tls {
    pub(crate) fn load(_section: &TlsSection) -> Result<Self, TransportError> {
        Err(TransportError::Certificate {
            what: "[tls]".into(),
            message: "the simulation has none".into(),
        })
    }

    pub(crate) fn for_peers(&self) -> Option<PeerTls> {
        None
    }
}

pub(crate) fn server(_tls: Option<&Tls>, _peers: bool) -> Result<Server, TransportError> {
    Ok(Server::builder()
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PONG)))
}

pub(crate) async fn serve_grpc(
    router: Router,
    listener: Listener,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), String> {
    router
        .serve_with_shutdown(listener.address, stop)
        .await
        .map_err(|error| error.to_string())
}

/// Nobody asks for health in simulation.
#[derive(Clone)]
pub(crate) struct Health;

impl Health {
    pub(crate) fn new() -> Self {
        Health
    }

    pub(crate) async fn set(&self, _serving: bool) {}
}

pub(crate) fn with_standard(router: Router, _health: &Health) -> Router {
    router
}

pub(crate) fn connect(address: &str, _tls: Option<&Tls>) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    Ok(endpoint
        .connect_timeout(Duration::from_millis(1_000))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .connect_lazy())
}

pub(crate) fn client_certificate(_extensions: &Extensions) -> Option<String> {
    None
}

pub(crate) fn only_peers<S>(service: S, _tls: Option<&Tls>) -> S {
    service
}

pub(crate) async fn serve_http(
    _listener: Listener,
    _probe: impl Probe,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    stop.await;
    Ok(())
}

pub(crate) fn install_recorder() {}
