//! Errors that tonic makes by itself (a message it cannot decode, a method nobody serves, a compression it does not
//! know, a deadline that passed while a body was still arriving) get our codes and details here, so that a caller
//! meets one kind of error only. What our own handlers say has details already and is left alone, and so are the
//! standard services for health and reflection, whose clients know nothing of ours.
//!
//! Two headers are looked at before the call is: tonic ignores a `grpc-timeout` it cannot read, which would
//! give a caller who asked for a short deadline a long one, and it decodes any content as protobuf.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use holdfast_types::FieldViolation;
use holdfast_wire::status::{OutcomeView, Problem};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, Request, Response, header};
use tower_layer::Layer;

use crate::deadline::{self, GRPC_TIMEOUT};

/// Services that answer in their own words.
const STANDARD: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];
const DETAILS: &str = "grpc-status-details-bin";

/// Puts [`Explain`] around all services of a port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExplainLayer {
    /// Clients call here. What nodes hear from each other's transport, they know how to read.
    pub(super) public: bool,
}

impl<S> Layer<S> for ExplainLayer {
    type Service = Explain<S>;

    fn layer(&self, inner: S) -> Explain<S> {
        Explain {
            inner,
            public: self.public,
        }
    }
}

/// Services whose errors all have details.
#[derive(Debug, Clone)]
pub(crate) struct Explain<S> {
    inner: S,
    public: bool,
}

impl<S> Service<Request<Body>> for Explain<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        if !self.public || STANDARD.iter().any(|standard| path.starts_with(standard)) {
            return self.inner.call(request).boxed();
        }
        let limit = match headers_read(request.headers()) {
            Ok(limit) => limit,
            Err(violation) => {
                let answer = answer(&Problem::invalid(vec![violation]));
                return std::future::ready(Ok(answer)).boxed();
            }
        };
        let call = self.inner.call(request);
        async move {
            let answered = match limit {
                None => call.await,
                // A handler's own deadline is earlier, tonic's answer without details later.
                Some(limit) => match tokio::time::timeout(limit, call).await {
                    Ok(answered) => answered,
                    Err(_) => return Ok(answer(&Problem::deadline(OutcomeView::Unknown))),
                },
            };
            answered.map(explained)
        }
        .boxed()
    }
}

/// What the headers ask for: the time after which the caller gets an answer whatever happens.
fn headers_read(headers: &HeaderMap) -> Result<Option<std::time::Duration>, FieldViolation> {
    let content = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    let content = content.and_then(|value| value.split(|byte| *byte == b';').next());
    if !matches!(
        content.map(<[u8]>::trim_ascii),
        Some(b"application/grpc" | b"application/grpc+proto")
    ) {
        return Err(FieldViolation::new(
            header::CONTENT_TYPE.as_str(),
            "must be application/grpc or application/grpc+proto",
        ));
    }
    let Some(value) = headers.get(GRPC_TIMEOUT) else {
        return Ok(None);
    };
    let given = value.to_str().ok().and_then(deadline::parse_grpc_timeout);
    match given {
        Some(given) => Ok(Some(deadline::last_word(given))),
        None => Err(FieldViolation::new(
            GRPC_TIMEOUT,
            "must be at most eight digits and a unit, one of H, M, S, m, u and n",
        )),
    }
}

/// An answer that already has its status and no details gets ours.
fn explained(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    if headers.get("grpc-status").is_none_or(|code| code == "0") || headers.contains_key(DETAILS) {
        return response;
    }
    let Some(status) = Status::from_header_map(headers) else {
        return response;
    };
    let mut explained = Problem::from_transport(&status).to_status();
    // Such as the compressions that would do.
    *explained.metadata_mut() = status.metadata().clone();
    counted(&explained);
    explained.into_http()
}

fn answer(problem: &Problem) -> Response<Body> {
    let status = problem.to_status();
    counted(&status);
    status.into_http()
}

fn counted(status: &Status) {
    let code = crate::telemetry::code_name(status.code());
    metrics::counter!("holdfast_rpc_unread_total", "code" => code).increment(1);
}
