//! The holdfast command: runs a node (`serve`) and talks to a cluster (everything else).
//!
//! One command, one file under [`commands`]. Commands print results on standard output, as text or JSON
//! ([`output`]), and what people should know on standard error; they end with an exit code that scripts can
//! use ([`exit`]). [`json`] is the one JSON form of an account, shared by `account`, `import` and `export`.
//! RocksDB is linked here and nowhere above `storage-rocksdb`.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod exit;
mod json;
mod output;
mod progress;

use clap::{Parser, Subcommand};

use crate::exit::{Exit, Failure};

/// Also RocksDB's: its names are those of the C library, so it takes that one's place.
#[cfg(not(madsim))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A replicated store of customer accounts.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, about, after_help = exit::HELP, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: args::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node.
    Serve(commands::serve::Serve),
    /// Create, read and change accounts.
    #[command(subcommand)]
    Account(Box<commands::account::Account>),
    /// Look at the cluster and change its membership.
    #[command(subcommand)]
    Cluster(commands::cluster::Cluster),
    /// Read and change the rules of the realm.
    #[command(subcommand)]
    Realm(commands::realm::Realm),
    /// Import accounts from JSON Lines.
    Import(commands::import::Import),
    /// Export all accounts as JSON Lines.
    Export(commands::export::Export),
    /// Put the cluster under load and measure it.
    Bench(Box<commands::bench::Bench>),
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let format = cli.global.output;
    let result = match &cli.command {
        Command::Serve(serve) => commands::serve::run(serve, format),
        command => run_against_cluster(&cli.global, command),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(format);
            std::process::ExitCode::from(failure.exit as u8)
        }
    }
}

fn run_against_cluster(global: &args::Global, command: &Command) -> Result<(), Failure> {
    let mut builder = match command {
        Command::Bench(bench) => commands::bench::runtime(bench),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::io("cannot start the runtime", &error))?;
    runtime.block_on(async {
        let work = async {
            match command {
                Command::Account(command) => commands::account::run(command, global).await,
                Command::Cluster(command) => commands::cluster::run(command, global).await,
                Command::Realm(command) => commands::realm::run(command, global).await,
                Command::Import(command) => commands::import::run(command, global).await,
                Command::Export(command) => commands::export::run(command, global).await,
                Command::Bench(command) => commands::bench::run(command, global).await,
                Command::Serve(_) => Err(Failure::new(Exit::Internal, "serve has a runtime of its own")),
            }
        };
        tokio::select! {
            biased;
            result = work => result,
            _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "interrupted")),
        }
    })
}
