//! The Rust SDK.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use holdfast_client::{CallOptions, Client, ClientConfig, v1};
//!
//! let client = Client::connect(ClientConfig::default())?;
//! let request = v1::CreateAccountRequest { parent: "realms/default".into(), ..Default::default() };
//! let created = client.create_account(request, &CallOptions::default()).await?;
//! # drop(created); Ok(()) }
//! ```
//!
//! A [`Client`] knows several nodes and talks to the one that leads, or to any. A call is one or more attempts
//! ([`retry`]) inside one deadline; every attempt of a mutation carries the same request id, which is what makes
//! repeating safe: the cluster remembers what an id did. So an error's [`Outcome`] is `Unknown` only when the
//! deadline came first, and then repeating the call with [`Failure::request_id`] still tells; or when an id was so
//! old that an unanswered attempt may have been forgotten. [`Import`] and [`Export`] put the same promise on streams.
//! A [`Gather`] sends reads that many tasks ask for at the same moment as batches.
//!
//! The same code runs in production and in the simulation; only the `transport` module knows which.
#![forbid(unsafe_code)]

mod account;
mod backoff;
mod call;
mod client;
mod cluster;
mod config;
mod endpoints;
mod error;
mod export;
mod gather;
mod import;
mod realm;
mod request_id;
pub mod retry;
mod transport;

pub use backoff::Backoff;
pub use client::Client;
pub use cluster::NodeClient;
pub use config::{CallOptions, ClientConfig, TlsOptions};
pub use error::{ClientError, Failure, Outcome};
pub use export::Export;
pub use gather::Gather;
pub use holdfast_wire::v1;
pub use import::{Import, ImportEvent, ImportOptions};
pub use request_id::new_request_id;
pub use transport::InvalidEndpoint;
