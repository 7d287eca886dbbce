//! The transport's two faces. Everything that exists in one runtime only (TLS, health, reflection, HTTP,
//! listening on a bound socket) is behind this one door, so that no other file asks which runtime it is in.

#[cfg(not(madsim))]
mod accept;
#[cfg(not(madsim))]
mod explain;
#[cfg(not(madsim))]
mod http;
#[cfg(not(madsim))]
mod real;
#[cfg(madsim)]
mod simulated;

#[cfg(not(madsim))]
pub(crate) use real::{
    Health, Listener, Tls, client_certificate, connect, install_recorder, only_peers, serve_grpc, serve_http,
    server, with_standard,
};
#[cfg(madsim)]
pub(crate) use simulated::{
    Health, Listener, Tls, client_certificate, connect, install_recorder, only_peers, serve_grpc, serve_http,
    server, with_standard,
};

use crate::lifecycle::Phase;

/// What the HTTP endpoint can tell about the node.
#[cfg_attr(madsim, allow(dead_code, reason = "there is no HTTP in simulation"))]
pub(crate) trait Probe: Clone + Send + Sync + 'static {
    /// The failure that ends this node, if there is one.
    fn fatal(&self) -> Option<String>;
    /// The node's phase.
    fn phase(&self) -> Phase;
    /// Whether a leader is known.
    fn has_leader(&self) -> bool;
}

/// What goes wrong while sockets and certificates are set up. The message says which and what to do.
#[derive(Debug, thiserror::Error)]
#[cfg_attr(madsim, allow(dead_code, reason = "a simulated port is never taken"))]
pub(crate) enum TransportError {
    /// A port cannot be listened on.
    #[error("cannot listen on {address}: {message}")]
    Listen {
        address: std::net::SocketAddr,
        message: String,
    },
    /// A certificate file cannot be used.
    #[error("{what}: {message}")]
    Certificate { what: String, message: String },
}
