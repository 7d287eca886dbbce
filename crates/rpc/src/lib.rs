//! gRPC, which the other rooms call `tonic`. In a normal build this crate is tonic, and connections on which what is written
//! in one moment travels together (`gathered`).
//!
//! In a simulation (`--cfg madsim`) it has tonic's interface over a network of its own, because madsim's would
//! answer *connection refused* at once where a real one is silent, pass messages as values, never break a stream
//! without killing a process, never lose an answer to a request that was carried out, and let handlers run on when
//! their callers have gone. Here
//!
//! - messages are encoded and decoded, and nothing else of a request, an answer or a status crosses;
//! - a call goes over a connection, which is opened first, watched by pings, and broken by resets;
//! - what is sent into a cut link arrives when it is mended, if both ends still wait for it then;
//! - a process that dies tells its peers at once, if the network lets it; a machine without power tells nobody;
//! - when a caller goes away its handler is dropped, once the news has arrived;
//! - a reader that does not read holds the writer up.
//!
//! `network` is the network and what can go wrong with it; `connection` one connection, `pipe` one direction of
//! one call; [`client`] and [`transport`] are what generated code and the other rooms see.
#![forbid(unsafe_code)]

pub use madsim_tonic::*;

#[cfg(madsim)]
pub mod client;
#[cfg(madsim)]
mod connection;
#[cfg(not(madsim))]
mod connector;
#[cfg(not(madsim))]
pub mod gathered;
#[cfg(madsim)]
pub mod network;
#[cfg(madsim)]
mod pipe;
#[cfg(madsim)]
pub mod transport;

#[cfg(not(madsim))]
pub use connector::connect_lazy;
#[cfg(madsim)]
pub use transport::connect_lazy;
