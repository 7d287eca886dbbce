//! What build.rs made of `proto/`.
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::unwrap_used,
    clippy::large_futures
)]
#![allow(rustdoc::all)]

/// The part of etcd's API that is used.
pub(crate) mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// The echo.
pub(crate) mod echo {
    tonic::include_proto!("holdfast.echo");
}
