//! `holdfast account …`: one file for each.

mod create;
mod delete;
mod get;
mod identifiers;
mod list;
mod lookup;
mod show;
mod undelete;
mod update;

use clap::Subcommand;

use crate::args::Global;
use crate::exit::Failure;

/// Create, read and change accounts.
#[derive(Debug, Subcommand)]
pub(crate) enum Account {
    /// Create an account.
    Create(create::Create),
    /// Show an account by its id.
    Get(get::Get),
    /// Show the account that an identifier belongs to.
    Lookup(lookup::Lookup),
    /// Change fields and attributes of an account.
    Update(update::Update),
    /// Add, remove, replace and verify identifiers of an account, all at once.
    Identifiers(identifiers::Identifiers),
    /// Ask for an account's deletion.
    Delete(delete::Delete),
    /// Take a deletion back.
    Undelete(undelete::Undelete),
    /// List accounts.
    List(list::List),
}

/// Runs one.
pub(crate) async fn run(command: &Account, global: &Global) -> Result<(), Failure> {
    match command {
        Account::Create(create) => create::run(create, global).await,
        Account::Get(get) => get::run(get, global).await,
        Account::Lookup(lookup) => lookup::run(lookup, global).await,
        Account::Update(update) => update::run(update, global).await,
        Account::Identifiers(identifiers) => identifiers::run(identifiers, global).await,
        Account::Delete(delete) => delete::run(delete, global).await,
        Account::Undelete(undelete) => undelete::run(undelete, global).await,
        Account::List(list) => list::run(list, global).await,
    }
}
