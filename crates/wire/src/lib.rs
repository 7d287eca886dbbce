//! Generated protobuf types, conversions and status mapping.

mod generated;

pub use generated::holdfast::{internal::v1 as internal, v1};

/// The public API as an encoded `FileDescriptorSet`, with comments, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public.bin"));
