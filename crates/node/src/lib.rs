//! One Holdfast node, put together.
//!
//! [`start`] takes a [`Config`], an engine and a clock, and gives a [`NodeHandle`]. The same function runs in
//! production and in simulation; what exists in one of them only is behind `transport`.
//!
//! A mutation's way: a service (`services`) reads the message and finds all that is malformed about it; the
//! `router` hands it to whoever leads, waiting through elections, and `forward` takes it in there; the `driver`
//! latches its keys (`latches`), evaluates it on applied state, proposes the plan and looks again if a guard
//! failed. A read's way: `reads` makes the local state as fresh as asked for, on any node.
//!
//! What keeps a node upright: `admission` (bounded work), `deadline` (no call outlives its caller), `disk` and
//! `clock` (guards), `background` (duties nobody asks for), `lifecycle` (draining and stopping), `telemetry` and
//! `trace` (numbers, and one trace id through all rooms and hops).
#![forbid(unsafe_code)]

mod admission;
mod alarms;
mod background;
mod call;
mod clock;
pub mod config;
mod core;
mod deadline;
mod disk;
mod driver;
mod failure;
mod forward;
mod latches;
mod lifecycle;
mod methods;
mod peers;
mod reads;
mod realms;
mod roster;
mod router;
mod services;
mod start;
mod telemetry;
mod trace;
mod transport;

pub use clock::SystemClock;
pub use config::{Config, ConfigProblem};
pub use start::{NodeHandle, StartError, check_certificates, start};
