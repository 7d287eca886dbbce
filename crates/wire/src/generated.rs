//! What build.rs made of `proto/`. The modules are nested as the packages are, because the generated code
//! refers to other packages by relative paths.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::large_futures
)]
#![allow(rustdoc::all)]

pub mod holdfast {
    /// The public API.
    pub mod v1 {
        tonic::include_proto!("holdfast.v1");
    }

    /// What the nodes of one cluster say to each other.
    pub mod internal {
        pub mod v1 {
            tonic::include_proto!("holdfast.internal.v1");
        }
    }
}
