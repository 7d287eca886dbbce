//! `holdfast realm …`: one file for each.

mod get;
mod show;
mod update;

use clap::Subcommand;

use crate::args::Global;
use crate::exit::Failure;

/// Read and change the rules of the realm.
#[derive(Debug, Subcommand)]
pub(crate) enum Realm {
    /// Show the rules.
    Get(get::Get),
    /// Change rules.
    Update(update::Update),
}

/// Runs one.
pub(crate) async fn run(command: &Realm, global: &Global) -> Result<(), Failure> {
    match command {
        Realm::Get(get) => get::run(get, global).await,
        Realm::Update(update) => update::run(update, global).await,
    }
}
