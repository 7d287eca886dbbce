//! What a client is told whose call never reaches a method: raw HTTP/2 against a node in this process.
//!
//! Every answer has the code that says whose fault it was, and exactly one `google.rpc.ErrorInfo`.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic, too")]

mod common;

use std::net::SocketAddr;

use common::Cluster;
use holdfast_wire::status::{ErrorView, OutcomeView};
use holdfast_wire::v1;
use prost::Message;
use tokio::net::TcpStream;
use tonic::codegen::http::{HeaderMap, Request};
use tonic::{Code, Status};

const CREATE: &str = "/holdfast.v1.AccountService/CreateAccount";
const IMPORT: &str = "/holdfast.v1.AccountService/ImportAccounts";

/// One call as it goes over the wire.
struct Raw {
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    /// Otherwise the body never ends.
    ends: bool,
}

impl Raw {
    fn new(path: &'static str, body: Vec<u8>) -> Self {
        Raw {
            path,
            headers: vec![("content-type", "application/grpc")],
            body,
            ends: true,
        }
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value));
        self
    }
}

/// A gRPC frame: not compressed, the length, the bytes.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend((bytes.len() as u32).to_be_bytes());
    frame.extend(bytes);
    frame
}

/// Sends it and reads the status, wherever in the answer it stands.
async fn send(address: SocketAddr, raw: Raw) -> (HeaderMap, Status) {
    let socket = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://{address}{}", raw.path));
    for (name, value) in raw.headers {
        request = request.header(name, value);
    }
    let mut client = client.ready().await.unwrap();
    let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    // The node may have answered and reset the stream before all of it was sent.
    let _ = body.send_data(raw.body.into(), raw.ends);
    let response = tokio::time::timeout(std::time::Duration::from_secs(10), response)
        .await
        .expect("an answer")
        .unwrap();
    let headers = response.headers().clone();
    if let Some(status) = Status::from_header_map(&headers) {
        return (headers, status);
    }
    let mut answer = response.into_body();
    while let Some(data) = answer.data().await {
        let _ = answer.flow_control().release_capacity(data.unwrap().len());
    }
    let trailers = answer.trailers().await.unwrap().expect("a status");
    (headers, Status::from_header_map(&trailers).unwrap())
}

/// Asserts what every error must have, and returns the details.
fn explained(what: &str, status: &Status, code: Code) -> ErrorView {
    assert_eq!(status.code(), code, "{what}: {status:?}");
    let details = tonic_types::pb::Status::decode(status.details()).unwrap();
    assert_eq!(details.code, code as i32, "{what}");
    let infos = details
        .details
        .iter()
        .filter(|detail| detail.type_url.ends_with("/google.rpc.ErrorInfo"));
    assert_eq!(infos.count(), 1, "{what}: {status:?}");
    let view = ErrorView::of(status).unwrap();
    if code == Code::InvalidArgument {
        assert!(!view.violations.is_empty(), "{what}: {status:?}");
    }
    view
}

fn not_utf8() -> Vec<u8> {
    // CreateAccountRequest.parent
    frame(&[0x0a, 0x02, 0xff, 0xfe])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_method_has_seen_is_explained_too() {
    let cluster = Cluster::started(1).await;
    let client = cluster.configs[&1].listen_client();
    let admin = cluster.configs[&1].listen_admin();
    let good = || frame(&v1::CreateAccountRequest::default().encode_to_vec());
    // (what, call, code, reason, field of the violation)
    let table = [
        (
            "garbage",
            Raw::new(CREATE, frame(&[0xff; 7])),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "message",
        ),
        (
            "invalid UTF-8",
            Raw::new(CREATE, not_utf8()),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "parent",
        ),
        (
            "no message",
            Raw::new(CREATE, vec![]),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "message",
        ),
        (
            "half a frame",
            Raw::new(CREATE, vec![0, 0, 0, 0, 9, 1]),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "message",
        ),
        (
            "a strange flag",
            Raw::new(CREATE, vec![9, 0, 0, 0, 0]),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "message",
        ),
        (
            "too large",
            Raw::new(CREATE, vec![0, 0, 0x50, 0, 0]),
            Code::InvalidArgument,
            "LIMIT_EXCEEDED",
            "message",
        ),
        (
            "a compression",
            Raw::new(CREATE, good()).header("grpc-encoding", "snappy"),
            Code::Unimplemented,
            "UNIMPLEMENTED",
            "",
        ),
        (
            "a deadline",
            Raw::new(CREATE, good()).header("grpc-timeout", "5 minutes"),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "grpc-timeout",
        ),
        (
            "JSON",
            Raw::new(CREATE, frame(b"{}")).header("content-type", "application/json"),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "content-type",
        ),
        (
            "a method",
            Raw::new("/holdfast.v1.AccountService/BlessAccount", good()),
            Code::Unimplemented,
            "UNIMPLEMENTED",
            "",
        ),
        (
            "a service",
            Raw::new("/holdfast.v9.AccountService/CreateAccount", good()),
            Code::Unimplemented,
            "UNIMPLEMENTED",
            "",
        ),
        (
            "a long name",
            Raw::new(CREATE, good()).header(
                "holdfast-caller",
                concat!(
                    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                    "x",
                ),
            ),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "holdfast-caller",
        ),
        (
            "garbage in a stream",
            Raw::new(IMPORT, frame(&[0xff; 7])),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "message",
        ),
        (
            "too large in a stream",
            Raw::new(IMPORT, vec![0, 0, 0x50, 0, 0]),
            Code::InvalidArgument,
            "LIMIT_EXCEEDED",
            "message",
        ),
    ];
    for (what, raw, code, reason, field) in table {
        let (headers, status) = send(client, raw).await;
        let view = explained(what, &status, code);
        assert_eq!(view.reason, reason, "{what}: {status:?}");
        assert_eq!(view.outcome, OutcomeView::NotApplied, "{what}");
        let named = view.violations.first().map_or("", |violation| &*violation.field);
        assert_eq!(named, field, "{what}: {status:?}");
        if what == "a compression" {
            assert_eq!(headers["grpc-accept-encoding"], "identity");
        }
        if what.starts_with("too large") {
            assert_eq!(view.metadata["limit"], (4 * 1024 * 1024).to_string(), "{what}");
        }
    }
    let garbage = Raw::new("/holdfast.v1.ClusterService/AddLearner", frame(&[0xff; 7]));
    explained("admin", &send(admin, garbage).await.1, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_holds_while_the_request_is_still_arriving() {
    let cluster = Cluster::started(1).await;
    for given in ["300m", "1n"] {
        let raw = Raw {
            ends: false,
            ..Raw::new(CREATE, vec![0, 0, 0, 0, 9]).header("grpc-timeout", given)
        };
        let (_, status) = send(cluster.configs[&1].listen_client(), raw).await;
        let view = explained(given, &status, Code::DeadlineExceeded);
        assert_eq!(view.outcome, OutcomeView::Unknown);
    }
}

/// Its clients know nothing of ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_standard_services_speak_as_they_do_everywhere() {
    let cluster = Cluster::started(1).await;
    // HealthCheckRequest.service = "x"
    let raw = Raw::new("/grpc.health.v1.Health/Check", frame(&[0x0a, 0x01, b'x']));
    let (_, status) = send(cluster.configs[&1].listen_client(), raw).await;
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.details().is_empty());
}
