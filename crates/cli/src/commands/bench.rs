//! `holdfast bench`: puts a cluster under load and says how it did.
//!
//! The generator is `holdfast-bench`, which drives other stores in the same way; here it meets the command line.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use holdfast_bench::{Class, Holdfast, Measurement, Options, Prepared, Progress, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::Global;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};
use crate::progress::thousands;

/// Put the cluster under load and measure it.
///
/// It creates accounts in the realm, with ids that begin with `bench-`, and leaves them there: do not point it at a
/// cluster that people use. The same options do the same again, on accounts that are found by their seed and number.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(flatten)]
    options: Options,
    /// Threads that run the clients. One does as long as the result says that it had time to spare, and costs less
    /// than two: nothing is handed from one to the other.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Connections to each node, shared by the clients.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    connections: u16,
    /// Show no progress bar. There is none either if standard error is not a terminal.
    #[arg(long)]
    no_progress: bool,
}

/// The runtime that the clients run on.
pub(crate) fn runtime(bench: &Bench) -> tokio::runtime::Builder {
    let mut builder = match bench.threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(bench.threads.into());
    builder
}

/// Runs the command.
pub(crate) async fn run(bench: &Bench, global: &Global) -> Result<(), Failure> {
    let clients = (0..bench.connections)
        .map(|_| global.client())
        .collect::<Result<Vec<_>, _>>()?;
    let store = Holdfast::new(clients, &global.realm, global.call());
    let visible = global.output == Format::Human && !bench.no_progress && std::io::stderr().is_terminal();
    let bar = Bar::new(visible);
    let show = |progress: Progress| bar.show(progress);

    if let Some(accounts) = bench.options.prepare {
        let prepared = holdfast_bench::prepare(&store, &bench.options, accounts, show).await?;
        bar.clear();
        print_prepared(global.output, prepared)?;
    }
    let Some(plan) = bench.options.plan() else {
        return Ok(());
    };
    let measurement = holdfast_bench::run(&store, &plan, show).await?;
    bar.clear();
    print_measurement(global.output, &measurement)?;
    if measurement.errors > 0 {
        let what = format!("{} operations were no success", measurement.errors);
        return Err(Failure::new(Exit::PartlyRejected, what));
    }
    Ok(())
}

fn print_prepared(format: Format, prepared: Prepared) -> Result<(), Failure> {
    output::result(format, &serialised(&prepared)?, || {
        format!(
            "{} accounts are there, after {:.1} s ({:.0}/s)",
            thousands(prepared.prepared),
            prepared.seconds,
            prepared.prepared as f64 / prepared.seconds
        )
    })
}

fn print_measurement(format: Format, measurement: &Measurement) -> Result<(), Failure> {
    output::result(format, &serialised(measurement)?, || measurement.table())
}

fn serialised(result: &impl serde::Serialize) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(result).map_err(|error| Failure::new(Exit::Internal, error.to_string()))
}

impl From<holdfast_bench::Failure> for Failure {
    fn from(failure: holdfast_bench::Failure) -> Self {
        let exit = match failure.class {
            Class::Refused | Class::Contended => Exit::Conflict,
            Class::Missing => Exit::NotFound,
            Class::Overloaded | Class::Unavailable => Exit::Unavailable,
            Class::Unknown => Exit::UnknownOutcome,
            Class::Unsupported => Exit::Usage,
            Class::WrongAnswer | Class::Other => Exit::Internal,
        };
        Failure::new(exit, failure.message)
    }
}

/// What a person sees while it runs.
struct Bar(ProgressBar);

impl Bar {
    fn new(visible: bool) -> Self {
        let bar = ProgressBar::new(1);
        if let Ok(style) = ProgressStyle::with_template("{bar:32} {percent:>3}%  {msg}") {
            bar.set_style(style.progress_chars("━━ "));
        }
        bar.set_draw_target(if visible {
            ProgressDrawTarget::stderr_with_hz(8)
        } else {
            ProgressDrawTarget::hidden()
        });
        bar.enable_steady_tick(Duration::from_millis(250));
        Bar(bar)
    }

    fn show(&self, progress: Progress) {
        let stage = match progress.stage {
            Stage::Preparing => "preparing",
            Stage::WarmingUp => "warming up",
            Stage::Measuring => "measuring",
        };
        self.0.set_length(progress.of.max(1));
        self.0.set_position(progress.done);
        let errors = match progress.errors {
            0 => String::new(),
            errors => format!(", {} errors", thousands(errors)),
        };
        self.0
            .set_message(format!("{stage}, {}/s{errors}", thousands(progress.rate as u64)));
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}
