//! The durable records as protobuf, generated from `proto/holdfast/storage/v1`, whose comments are the manual.
//! Private to this crate: everybody else sees the types of `types`, `accounts` and `machine`.
#![allow(missing_docs, unreachable_pub, clippy::enum_variant_names)]

include!(concat!(env!("OUT_DIR"), "/holdfast.storage.v1.rs"));
