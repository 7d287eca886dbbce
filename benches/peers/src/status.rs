//! gRPC for the drivers that speak it: connections, and what a status means to the load generator.

use std::error::Error;
use std::time::Duration;

use holdfast_bench::{Class, Failure};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// So many connections, spread over the endpoints, opened when they are first used.
pub(crate) fn channels(endpoints: &[String], connections: usize) -> Result<Vec<Channel>, Failure> {
    endpoints
        .iter()
        .cycle()
        .take(connections.max(endpoints.len()))
        .map(|address| {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))
                .map_err(|why| Failure::new(Class::Other, format!("{address} is no address: {why}")))?;
            Ok(endpoint
                .connect_timeout(Duration::from_secs(1))
                .tcp_nodelay(true)
                .connect_lazy())
        })
        .collect()
}

/// What a status says about the call.
pub(crate) fn failure(status: &Status) -> Failure {
    let class = match status.code() {
        Code::ResourceExhausted => Class::Overloaded,
        Code::AlreadyExists | Code::InvalidArgument | Code::FailedPrecondition => Class::Refused,
        Code::NotFound => Class::Missing,
        Code::Aborted => Class::Contended,
        Code::Unimplemented => Class::Unsupported,
        // The connection was never opened, so nothing was sent.
        Code::Unavailable if never_connected(status) => Class::Unavailable,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => Class::Unknown,
        _ => Class::Other,
    };
    Failure::new(class, format!("{}: {}", status.code(), status.message()))
}

fn never_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return error.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_connection_leaves_the_outcome_open() {
        assert_eq!(failure(&Status::unavailable("reset")).class, Class::Unknown);
        let mut refused = Status::unavailable("connect");
        refused.set_source(std::sync::Arc::new(std::io::Error::from(
            std::io::ErrorKind::ConnectionRefused,
        )));
        assert_eq!(failure(&refused).class, Class::Unavailable);
    }
}
