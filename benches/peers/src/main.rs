//! The comparison's side of the load: drivers for etcd, PostgreSQL and a bare echo, and the tables made of what was
//! measured.
//!
//! `cargo xtask bench peers` starts and stops the stores and calls this program for everything else. One process is one
//! run: [`load`] puts a store under one load and appends one line of JSON to a file; [`outcome`] is what such a line
//! says; [`report`] reads them all, takes medians, prints tables and, with `--check`, compares with the [`margins`].
//!
//! [`days`] and [`growth`] report on Holdfast alone, with plots, [`profile`] on where its processor time goes; [`waiting`] tells `cargo xtask bench growth` when a node or a
//! cluster that was started is there again.
//!
//! The generator, its keys, clocks and histograms are those of `holdfast bench`, the same for every store. A driver
//! ([`etcd`], [`postgres`], [`echo`], [`holdfast`], [`plain`]) does no more than its store's users would, and no less.
#![forbid(unsafe_code)]

mod days;
mod deletions;
mod echo;
mod etcd;
mod generated;
mod growth;
mod holdfast;
mod impatient;
mod load;
mod margins;
mod outcome;
mod page;
mod plain;
mod plot;
mod postgres;
mod processes;
mod profile;
mod report;
mod service_config;
mod statistics;
mod status;
mod table;
#[cfg(test)]
mod testing;
mod waiting;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// As `holdfast bench` has it: all drivers, and the echo, gain alike.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Drivers for the stores that Holdfast is compared with.
#[derive(Debug, Parser)]
#[command(name = "holdfast-bench-peers")]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put a store under load and append what was measured to a file.
    Load(Box<load::LoadArgs>),
    /// Append what the nodes take when nothing happens: memory, disk.
    Rest(load::RestArgs),
    /// Wait until the store answers, and create its tables where it has any.
    Ready(TargetArgs),
    /// Print the place, from 1, of the node that leads.
    Leader(TargetArgs),
    /// Serve the bare echo until stopped.
    EchoServer {
        /// Where.
        #[arg(long)]
        listen: SocketAddr,
        /// Length of an answer, bytes.
        #[arg(long, default_value_t = 1024)]
        record_bytes: usize,
    },
    /// Tables of all that was measured.
    Report(report::ReportArgs),
    /// The table and the plots of bad days.
    Days(page::PageArgs),
    /// The tables and the plots of growth.
    Growth(page::PageArgs),
    /// The table of what nodes spend their processor time on.
    Profile(page::PageArgs),
    /// Wait until a member of a cluster of Holdfast has caught up.
    Member(waiting::MemberArgs),
    /// Wait until a cluster of Holdfast answers.
    Answers(waiting::AnswersArgs),
    /// Delete accounts that --prepare created, or count those that are purged.
    Delete(deletions::DeleteArgs),
}

/// The stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Target {
    Holdfast,
    HoldfastPlain,
    Etcd,
    PostgresBare,
    PostgresEquivalent,
    Echo,
}

/// Which store, and where.
#[derive(Debug, Clone, Args)]
struct TargetArgs {
    /// Which.
    #[arg(long, value_enum)]
    target: Target,
    /// `host:port` of each node's client port; for PostgreSQL the primary's.
    #[arg(long = "endpoint", required = true)]
    endpoints: Vec<String>,
    /// `host:port` of each node's admin port, if it has one.
    #[arg(long = "admin-endpoint")]
    admin_endpoints: Vec<String>,
    /// Connections of the load [default: the best of those tried].
    #[arg(long)]
    connections: Option<usize>,
    /// PostgreSQL: how many connections read at the same time.
    #[arg(long, default_value_t = 8)]
    readers: usize,
    /// PostgreSQL: connections on which gathered reads travel together.
    #[arg(long, default_value_t = 8)]
    shared_connections: usize,
}

/// How a driver reaches its store.
#[derive(Debug, Clone)]
struct Setup {
    endpoints: Vec<String>,
    admin_endpoints: Vec<String>,
    connections: usize,
    readers: usize,
    shared_connections: usize,
}

impl TargetArgs {
    /// With the defaults of the store, for so many clients.
    fn setup(&self, clients: usize) -> Setup {
        let most = match self.target {
            Target::PostgresBare | Target::PostgresEquivalent => POSTGRES_CONNECTIONS_MAX,
            Target::Etcd | Target::Echo => GRPC_CONNECTIONS_MAX,
            Target::Holdfast | Target::HoldfastPlain => 1,
        };
        Setup {
            endpoints: self.endpoints.clone(),
            admin_endpoints: self.admin_endpoints.clone(),
            connections: self.connections.unwrap_or(clients.clamp(1, most)),
            readers: self.readers,
            shared_connections: self.shared_connections,
        }
    }
}

/// A pool's size. More backends cost PostgreSQL more than longer groups of its log gain.
const POSTGRES_CONNECTIONS_MAX: usize = 64;
/// HTTP/2 connections, each with many calls under way.
const GRPC_CONNECTIONS_MAX: usize = 4;

impl Setup {
    /// For the record.
    fn describe(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("endpoints".to_owned(), self.endpoints.join(",")),
            ("connections".to_owned(), self.connections.to_string()),
        ])
    }
}

/// How long a store that was just started may take to answer.
const READY_LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let command = Program::parse().command;
    // The clients run on one thread, as with `holdfast bench`: nothing is handed from one to the other. The echo has
    // what any server has.
    let mut runtime = match command {
        Command::EchoServer { .. } => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let result = runtime
        .enable_all()
        .build()
        .map_err(|why| format!("no runtime to be had: {why}"))
        .and_then(|runtime| runtime.block_on(run(command)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), String> {
    match command {
        Command::Load(args) => load::run(*args).await,
        Command::Rest(args) => load::rest(&args),
        Command::Ready(args) => load::ready(&args, READY_LIMIT).await,
        Command::Leader(args) => load::print_leader(&args).await,
        Command::EchoServer { listen, record_bytes } => echo::serve(listen, record_bytes)
            .await
            .map_err(|why| format!("cannot serve on {listen}: {why}")),
        Command::Report(args) => report::run(&args),
        Command::Days(args) => days::run(&args),
        Command::Growth(args) => growth::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Member(args) => waiting::member(&args).await,
        Command::Answers(args) => waiting::answers(&args).await,
        Command::Delete(args) => deletions::run(&args).await,
    }
}

/// Appends one line, whole, to a file.
fn append(path: &PathBuf, line: &str) -> Result<(), String> {
    use std::io::Write;
    let problem = |why: std::io::Error| format!("cannot write {}: {why}", path.display());
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(problem)?;
    file.write_all(format!("{line}\n").as_bytes()).map_err(problem)
}
