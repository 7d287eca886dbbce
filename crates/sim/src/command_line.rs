//! What the program understands.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tracing::Level;

use crate::runner::child::{self, How, What};
use crate::runner::ledger::Ledger;
use crate::runner::regressions::{self, Stored};
use crate::runner::{Failure, Totals, coverage, pairs, planted, shrink, swarm};
use crate::{config, draw, faults, one_run};

/// Operations a simulated second of the safety phases that a swarm must come to; with fewer, hardly anything is tested.
const OPERATIONS_MIN: f64 = 30.0;
/// The most of what judges are asked that a swarm may leave undecided. Measured: a 200th of that.
const UNDECIDED_MAX: f64 = 0.001;
/// Of fewer runs nothing can be said: in one of them everybody may be waiting for somebody most of the time.
const RUNS_MIN: u64 = 20;

const USAGE: &str = "\
holdfast-sim [swarm] [--minutes M] [--count N] [--first SEED] [--jobs J] [--reports DIR] [--ledger FILE --commit ID]
                                    many seeds, each in a process of its own; then a summary and what was never reached
holdfast-sim run --seed N           one seed, with its whole trace
holdfast-sim run --scenario NAME    a stored run: a file of regressions/, without `.toml`
holdfast-sim run --configuration FILE
                                    a stored run
             [--logs LEVEL] [--quiet] [--reports DIR] [--planted BUG]
holdfast-sim show --seed N          what a seed draws, as it would be stored
holdfast-sim shrink --seed N|--configuration FILE [--planted BUG] --out FILE
                                    the smallest run found that still fails
holdfast-sim planted [BUG ...] [--first SEED]
                                    plant each bug in turn; the table of seeds to catch
holdfast-sim pairs --first SEED --count N
                                    each seed twice, in different surroundings: equal to the byte?
holdfast-sim regressions [--reports DIR]
                                    all stored runs; each must pass
holdfast-sim ledger FILE            what a ledger adds up to";

/// Runs what the arguments ask for.
pub fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let command = match args.first() {
        Some(first) if !first.starts_with("--") => args.remove(0),
        _ if args.iter().any(|arg| arg == "--seed" || arg == "--scenario") => "run".to_owned(),
        _ => "swarm".to_owned(),
    };
    let outcome = Options::parse(args).and_then(|options| match command.as_str() {
        "run" => run(&options),
        "show" => show(&options),
        "swarm" => run_swarm(&options),
        "shrink" => run_shrink(&options),
        "planted" => run_planted(&options),
        "pairs" => run_pairs(&options),
        "regressions" => run_regressions(&options),
        "ledger" => show_ledger(&options),
        "help" => {
            println!("{USAGE}");
            Ok(true)
        }
        other => Err(format!("there is no `{other}`\n{USAGE}")),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

#[derive(Debug, Default)]
struct Options {
    words: Vec<String>,
    seed: Option<u64>,
    configuration: Option<PathBuf>,
    logs: Option<Level>,
    quiet: bool,
    reports: Option<PathBuf>,
    planted: Option<String>,
    minutes: Option<f64>,
    count: Option<u64>,
    first: Option<u64>,
    jobs: Option<usize>,
    ledger: Option<PathBuf>,
    commit: Option<String>,
    out: Option<PathBuf>,
}

impl Options {
    fn parse(args: Vec<String>) -> Result<Self, Failure> {
        let mut options = Options::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            if arg == "--quiet" {
                options.quiet = true;
                continue;
            }
            if !arg.starts_with("--") {
                options.words.push(arg);
                continue;
            }
            let value = args
                .next()
                .ok_or_else(|| format!("{arg} needs a value\n{USAGE}"))?;
            let bad = || format!("{value} is no value for {arg}\n{USAGE}");
            match arg.as_str() {
                "--seed" => options.seed = Some(value.parse().map_err(|_| bad())?),
                "--scenario" => options.configuration = Some(regressions::named(&value)),
                "--configuration" => options.configuration = Some(value.into()),
                "--logs" => options.logs = Some(value.parse().map_err(|_| bad())?),
                "--reports" => options.reports = Some(value.into()),
                "--planted" => options.planted = Some(value),
                "--minutes" => options.minutes = Some(value.parse().map_err(|_| bad())?),
                "--count" => options.count = Some(value.parse().map_err(|_| bad())?),
                "--first" => options.first = Some(value.parse().map_err(|_| bad())?),
                "--jobs" => options.jobs = Some(value.parse().map_err(|_| bad())?),
                "--ledger" => options.ledger = Some(value.into()),
                "--commit" => options.commit = Some(value),
                "--out" => options.out = Some(value.into()),
                other => return Err(format!("there is no {other}\n{USAGE}")),
            }
        }
        Ok(options)
    }

    /// The run that the options name. Read in a thread of its own: no hash map may be made in the thread of the
    /// run before the run has seeded them.
    fn stored(&self) -> Result<config::Configuration, Failure> {
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| self.read());
            reading
                .join()
                .unwrap_or_else(|_| Err("the configuration cannot be read".to_owned()))
        })
    }

    fn read(&self) -> Result<config::Configuration, Failure> {
        let mut configuration = match (&self.configuration, self.seed) {
            (Some(path), _) => Stored::read(path)?.configuration,
            (None, Some(seed)) => draw::draw(seed),
            (None, None) => return Err(format!("name a seed or a stored run\n{USAGE}")),
        };
        if self.planted.is_some() {
            configuration.planted.clone_from(&self.planted);
        }
        Ok(configuration)
    }
}

fn run(options: &Options) -> Result<bool, Failure> {
    create(options.reports.as_deref())?;
    let configuration = options.stored()?;
    let what = match (&options.configuration, options.seed) {
        (Some(path), _) => What::Stored(path),
        (None, seed) => What::Seed(seed.unwrap_or(configuration.seed)),
    };
    let replay = what.replay(configuration.planted.as_deref());
    one_run::main(
        configuration,
        replay,
        options.logs.unwrap_or(Level::WARN),
        options.quiet,
        options.reports.as_deref(),
    )
}

/// The directory for reports must be there before a run needs it.
fn create(reports: Option<&Path>) -> Result<(), Failure> {
    reports.map_or(Ok(()), |directory| {
        std::fs::create_dir_all(directory)
            .map_err(|why| format!("cannot create {}: {why}", directory.display()))
    })
}

fn show(options: &Options) -> Result<bool, Failure> {
    let stored = Stored {
        story: "Not told yet.".to_owned(),
        configuration: options.stored()?,
    };
    println!(
        "{}",
        toml::to_string_pretty(&stored).map_err(|why| why.to_string())?
    );
    Ok(true)
}

fn run_swarm(options: &Options) -> Result<bool, Failure> {
    let ledger = match (&options.ledger, &options.commit) {
        (Some(path), Some(commit)) => Some((path, Ledger::open(path, commit, options.first.unwrap_or(1))?)),
        (Some(_), None) => return Err("a ledger is of one commit: name it with --commit".to_owned()),
        (None, _) => None,
    };
    create(options.reports.as_deref())?;
    let defaults = swarm::Plan::default();
    let first = ledger.as_ref().map(|(_, ledger)| ledger.next_seed);
    let plan = swarm::Plan {
        first: first.or(options.first).unwrap_or(1),
        done: ledger
            .as_ref()
            .map_or_else(Default::default, |(_, ledger)| ledger.done.clone()),
        count: options.count,
        time: match (options.minutes, options.count) {
            (Some(minutes), _) => Some(Duration::from_secs_f64(minutes * 60.0)),
            (None, Some(_)) => None,
            (None, None) => Some(Duration::from_secs(60)),
        },
        jobs: options.jobs.unwrap_or(defaults.jobs),
        planted: options.planted.clone(),
        reports: options.reports.clone(),
        ..defaults
    };
    let swarm = swarm::run_and_keep(&plan, |so_far| match &ledger {
        Some((path, ledger)) => ledger.with(so_far).save(path),
        None => Ok(()),
    })?;
    println!("\nseeds {} to {}", plan.first, swarm.next - 1);
    print!("{}", swarm.totals);
    let mut all: Totals = swarm.totals.clone();
    if let Some((path, ledger)) = &ledger {
        let ledger = ledger.with(&swarm);
        ledger.save(path)?;
        all = ledger.totals();
        println!("\nin the ledger, {} sittings:", ledger.sittings.len());
        print!("{all}");
    }
    println!();
    for line in coverage::missing(&all, &faults::varieties())? {
        println!("{line}");
    }
    for run in &swarm.failures {
        swarm::announce(run);
    }
    let too_few = swarm.totals.operations_per_second() < OPERATIONS_MIN;
    let busy = !(too_few && swarm.totals.runs >= RUNS_MIN);
    if !busy {
        println!("FAILED: clients begin fewer than {OPERATIONS_MIN} operations a simulated second");
    }
    let decided = swarm.totals.undecided_share() <= UNDECIDED_MAX;
    if !decided {
        println!(
            "FAILED: judges could not decide more than {} % of what they were asked",
            UNDECIDED_MAX * 100.0
        );
    }
    Ok(swarm.failures.is_empty() && busy && decided)
}

fn run_shrink(options: &Options) -> Result<bool, Failure> {
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| Path::new("smallest.toml").to_path_buf());
    shrink::shrink(options.stored()?, &out)?;
    println!("the smallest failing run is in {}", out.display());
    Ok(true)
}

fn run_planted(options: &Options) -> Result<bool, Failure> {
    if cfg!(not(feature = "planted")) {
        return Err("this build has no bugs to plant: use `cargo xtask sim --planted`".to_owned());
    }
    let catches = planted::hunt(&options.words, options.first.unwrap_or(1))?;
    println!("\n{}", planted::table(&catches));
    Ok(catches.iter().all(|catch| catch.seeds.is_some()))
}

fn run_pairs(options: &Options) -> Result<bool, Failure> {
    let first = options.first.unwrap_or(1);
    let count = options.count.unwrap_or(2);
    for seed in first..first.saturating_add(count) {
        pairs::check(seed)?;
    }
    println!("{count} seeds, each twice: equal to the byte");
    Ok(true)
}

fn run_regressions(options: &Options) -> Result<bool, Failure> {
    create(options.reports.as_deref())?;
    let mut passed = true;
    for path in regressions::all()? {
        let how = How {
            reports: options.reports.as_deref(),
            ..How::default()
        };
        let summary = child::run(&What::Stored(&path), &how)?;
        println!("{}: {summary}", regressions::name_of(&path).unwrap_or_default());
        if !summary.violations.is_empty() {
            passed = false;
            swarm::announce(&summary);
        }
    }
    Ok(passed)
}

fn show_ledger(options: &Options) -> Result<bool, Failure> {
    let path = options
        .words
        .first()
        .ok_or_else(|| format!("name the file\n{USAGE}"))?;
    let text = std::fs::read_to_string(path).map_err(|why| format!("cannot read {path}: {why}"))?;
    let ledger: Ledger = serde_json::from_str(&text).map_err(|why| format!("{path} is no ledger: {why}"))?;
    let totals = ledger.totals();
    println!("commit {}, {} sittings", ledger.commit, ledger.sittings.len());
    print!("{totals}");
    for line in coverage::missing(&totals, &faults::varieties())? {
        println!("{line}");
    }
    Ok(true)
}
