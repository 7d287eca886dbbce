//! How clients connect.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use madsim_tonic::codegen::http::Uri;
use madsim_tonic::codegen::{Service, StdError};
use madsim_tonic::transport::{Channel, Endpoint};
use tokio::net::TcpStream;

use crate::gathered::Gathered;

/// A channel that connects when it is first used, and again whenever its connection broke. Requests that are made in one
/// moment travel together (see [`gathered`](crate::gathered)).
pub fn connect_lazy(endpoint: &Endpoint) -> Channel {
    let mut tcp = HttpConnector::new();
    // Whether there is TLS on it is the endpoint's business.
    tcp.enforce_http(false);
    tcp.set_nodelay(endpoint.get_tcp_nodelay());
    tcp.set_connect_timeout(endpoint.get_connect_timeout());
    endpoint.connect_with_connector_lazy(Connector(tcp))
}

/// Connects by TCP.
struct Connector(HttpConnector);

impl Service<Uri> for Connector {
    type Response = TokioIo<Gathered<TcpStream>>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, StdError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move { Ok(TokioIo::new(Gathered::new(connecting.await?.into_inner()))) })
    }
}
