//! `holdfast cluster …`: one file for each.

mod add_learner;
mod drain;
mod membership;
mod nodes;
mod promote;
mod remove;
mod replace;
mod snapshot;
mod status;
mod transfer;

use clap::Subcommand;

use crate::args::Global;
use crate::exit::Failure;

/// Look at the cluster and change its membership.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Show the nodes: roles, progress, disks, alarms.
    Status(status::Status),
    /// Add a node that receives the log but does not vote.
    AddLearner(add_learner::AddLearner),
    /// Give a learner its vote.
    Promote(promote::Promote),
    /// Take a member out, for ever.
    Remove(remove::Remove),
    /// Put a new node in the place of one that is lost.
    Replace(replace::Replace),
    /// Hand leadership over.
    Transfer(transfer::Transfer),
    /// Make a node hand over what it leads and turn clients away, before it is stopped.
    Drain(drain::Drain),
    /// Make nodes flush their state, so that the log that it covers can be purged.
    Snapshot(snapshot::Snapshot),
}

/// Runs one.
pub(crate) async fn run(command: &Cluster, global: &Global) -> Result<(), Failure> {
    match command {
        Cluster::Status(status) => status::run(status, global).await,
        Cluster::AddLearner(add) => add_learner::run(add, global).await,
        Cluster::Promote(promote) => promote::run(promote, global).await,
        Cluster::Remove(remove) => remove::run(remove, global).await,
        Cluster::Replace(replace) => replace::run(replace, global).await,
        Cluster::Transfer(transfer) => transfer::run(transfer, global).await,
        Cluster::Drain(drain) => drain::run(drain, global).await,
        Cluster::Snapshot(snapshot) => snapshot::run(snapshot, global).await,
    }
}
