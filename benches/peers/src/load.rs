//! One run against one store, while the kernel's accounts of its nodes are read at both ends of the measured time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use holdfast_bench::{Failure, Options, Progress, Stage, Store, prepare, run as run_plan};

use crate::echo::EchoStore;
use crate::etcd::Etcd;
use crate::impatient::Impatient;
use crate::outcome::{FilledOutcome, LoadOutcome, OutageOutcome, Outcome, RestOutcome};
use crate::plain::Plain;
use crate::postgres::{Layout, Postgres};
use crate::processes::{Occupied, Used};
use crate::{Setup, Target, TargetArgs, append, etcd, holdfast};

/// What `--announce` prints.
const ANNOUNCEMENT: &str = "measuring";

/// A load.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    record: RecordArgs,
    /// The process of each node, to see what it uses.
    #[arg(long = "node-pid")]
    node_pids: Vec<u32>,
    /// Of an open loop: the rate, as a percentage of what the closed one reached. For the record.
    #[arg(long)]
    share: Option<u32>,
    /// A node is going to be killed: look for the longest time without a write. Clients give up on a call after this
    /// many milliseconds.
    #[arg(long, value_name = "MS")]
    outage: Option<u64>,
    /// Print `measuring` when the measured time begins, for whoever does something meanwhile.
    #[arg(long)]
    announce: bool,
}

/// Where results go.
#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// The file to append to.
    #[arg(long)]
    out: PathBuf,
    /// Which of the rounds, from 1.
    #[arg(long, default_value_t = 1)]
    round: u32,
}

/// Nodes at rest.
#[derive(Debug, Args)]
pub(crate) struct RestArgs {
    /// Which store.
    #[arg(long)]
    store: String,
    /// About how many accounts it holds.
    #[arg(long)]
    accounts: u64,
    /// The process of each node.
    #[arg(long = "node-pid", required = true)]
    node_pids: Vec<u32>,
    /// The data directory of each node.
    #[arg(long = "node-dir", required = true)]
    node_dirs: Vec<PathBuf>,
    #[command(flatten)]
    record: RecordArgs,
}

/// Runs a load.
pub(crate) async fn run(args: LoadArgs) -> Result<(), String> {
    let setup = args.target.setup(args.options.clients as usize);
    let done = match args.target.target {
        Target::Etcd => match Etcd::new(setup) {
            Ok(store) => drive(store, &args).await,
            Err(why) => Err(why),
        },
        Target::PostgresBare => drive(Postgres::new(setup, Layout::Bare), &args).await,
        Target::PostgresEquivalent => drive(Postgres::new(setup, Layout::Equivalent), &args).await,
        Target::Echo => match EchoStore::new(setup) {
            Ok(store) => drive(store, &args).await,
            Err(why) => Err(why),
        },
        Target::Holdfast => drive(holdfast::store(&setup)?, &args).await,
        Target::HoldfastPlain => match Plain::new(&setup) {
            Ok(store) => drive(store, &args).await,
            Err(why) => Err(why),
        },
    };
    let outcomes = done.map_err(|why| why.to_string())?;
    for outcome in outcomes {
        append(&args.record.out, &outcome.line()?)?;
    }
    Ok(())
}

async fn drive<S: Store>(store: S, args: &LoadArgs) -> Result<Vec<Outcome>, Failure> {
    match args.outage {
        None => measure(store, args).await,
        Some(limit_ms) => {
            let limit = Duration::from_millis(limit_ms);
            measure(Impatient { store, limit }, args).await
        }
    }
}

async fn measure<S: Store>(store: S, args: &LoadArgs) -> Result<Vec<Outcome>, Failure> {
    let round = args.record.round;
    let nodes = args.node_pids.len();
    let mut outcomes = Vec::new();
    if let Some(accounts) = args.options.prepare {
        let used = || Used::by(&args.node_pids).unwrap_or_default();
        let before = used();
        let prepared = prepare(&store, &args.options, accounts, |_| {}).await?;
        println!("filled {} in {:.1} s", prepared.prepared, prepared.seconds);
        outcomes.push(Outcome::Filled(FilledOutcome {
            round,
            store: store.name().to_owned(),
            record_bytes: args.options.record_bytes,
            nodes,
            used: used().since(before),
            prepared,
        }));
    }
    let Some(plan) = args.options.plan() else {
        return Ok(outcomes);
    };
    // Reading takes milliseconds, which are not the clients' to wait for.
    let read = || {
        let pids = args.node_pids.clone();
        tokio::task::spawn_blocking(move || Used::by(&pids).unwrap_or_default())
    };
    let (mut first, mut last) = (read(), None);
    let measurement = run_plan(&store, &plan, |progress: Progress| match progress.stage {
        // The last one of these is the moment in which the measured time begins.
        Stage::WarmingUp => {
            first = read();
            if args.announce && progress.done >= plan.warm_up.as_secs() {
                println!("{ANNOUNCEMENT}");
            }
        }
        Stage::Measuring if progress.done >= progress.of => last = Some(read()),
        Stage::Measuring | Stage::Preparing => {}
    })
    .await?;
    let last = last.unwrap_or_else(read);
    let (first, last) = (first.await.unwrap_or_default(), last.await.unwrap_or_default());
    println!(
        "{:.0} a second, p50 {} us, p99 {} us, {} errors",
        measurement.throughput, measurement.all.p50_us, measurement.all.p99_us, measurement.errors
    );
    for (class, errors) in &measurement.errors_by_class {
        eprintln!("  {} x {class}, as in: {}", errors.count, errors.first);
    }
    outcomes.push(if args.outage.is_some() {
        Outcome::Outage(Box::new(OutageOutcome { round, measurement }))
    } else {
        Outcome::Load(Box::new(LoadOutcome {
            round,
            share: args.share,
            nodes,
            used: last.since(first),
            measurement,
        }))
    });
    Ok(outcomes)
}

/// Records what nodes take at rest.
pub(crate) fn rest(args: &RestArgs) -> Result<(), String> {
    if args.node_pids.len() != args.node_dirs.len() {
        return Err("each node needs its process and its directory".to_owned());
    }
    let nodes = args
        .node_pids
        .iter()
        .zip(&args.node_dirs)
        .map(|(pid, dir)| {
            Occupied::by(*pid, dir).map_err(|why| format!("cannot see what process {pid} takes: {why}"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    for (node, place) in nodes.iter().zip(1..) {
        println!(
            "node {place}: memory {} MiB, disk {} MiB",
            node.memory_bytes >> 20,
            node.disk_bytes >> 20
        );
    }
    let outcome = Outcome::Rest(RestOutcome {
        round: args.record.round,
        store: args.store.clone(),
        accounts: args.accounts,
        nodes,
    });
    append(&args.record.out, &outcome.line()?)
}

/// Waits until the store answers, and creates its tables.
pub(crate) async fn ready(args: &TargetArgs, limit: Duration) -> Result<(), String> {
    let end = Instant::now() + limit;
    loop {
        let why = match attempt(args).await {
            Ok(()) => return Ok(()),
            Err(why) => why,
        };
        if Instant::now() >= end {
            return Err(format!("no answer within {} s: {why}", limit.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn attempt(args: &TargetArgs) -> Result<(), String> {
    let setup: Setup = args.setup(1);
    let answered = match args.target {
        Target::Etcd => session_of(&Etcd::new(setup).map_err(|why| why.to_string())?).await,
        Target::PostgresBare => Postgres::new(setup, Layout::Bare).create_tables().await,
        Target::PostgresEquivalent => Postgres::new(setup, Layout::Equivalent).create_tables().await,
        Target::Echo => session_of(&EchoStore::new(setup).map_err(|why| why.to_string())?).await,
        Target::Holdfast => session_of(&holdfast::store(&setup)?).await,
        Target::HoldfastPlain => session_of(&Plain::new(&setup).map_err(|why| why.to_string())?).await,
    };
    answered.map_err(|why| why.to_string())
}

/// A session has asked the store something by the time it is there.
async fn session_of<S: Store>(store: &S) -> Result<(), Failure> {
    store.session(0).await.map(|_| ())
}

/// Prints which node leads.
pub(crate) async fn print_leader(args: &TargetArgs) -> Result<(), String> {
    let leader = match args.target {
        Target::Etcd => etcd::leader(&args.endpoints).await,
        Target::Holdfast | Target::HoldfastPlain => holdfast::leader(&args.setup(1)).await?,
        // A primary is the first by definition, and the echo is alone.
        Target::PostgresBare | Target::PostgresEquivalent | Target::Echo => Some(1),
    };
    match leader {
        Some(place) => {
            println!("{place}");
            Ok(())
        }
        None => Err("no node leads".to_owned()),
    }
}
