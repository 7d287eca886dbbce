//! Generated protobuf types, conversions and status mapping.
