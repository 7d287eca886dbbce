//! Runs one seed in this process and prints its trace; the exit status says whether every judge was content.
//!
//! `holdfast-sim --seed N [--logs LEVEL] [--quiet]`

/// Without the simulator there is nothing to run.
#[cfg(not(madsim))]
fn main() {
    eprintln!(
        "this program only exists in a simulation: build it with RUSTFLAGS=\"--cfg madsim\", or use `cargo xtask sim`"
    );
    std::process::exit(2);
}

#[cfg(madsim)]
fn main() {
    simulation::main();
}

#[cfg(madsim)]
mod simulation {
    use holdfast_sim::{scenario, trace};
    use madsim::Config;
    use madsim::runtime::Runtime;
    use tracing::Level;

    struct Args {
        seed: u64,
        logs: Level,
        quiet: bool,
    }

    pub(super) fn main() {
        let args = match parse(std::env::args().skip(1)) {
            Ok(args) => args,
            Err(problem) => {
                eprintln!("{problem}\nusage: holdfast-sim --seed N [--logs error|warn|info|debug] [--quiet]");
                std::process::exit(2);
            }
        };
        trace::capture_logs(args.logs);
        let runtime = Runtime::with_seed_and_config(args.seed, Config::default());
        let summary = runtime.block_on(scenario::power_cuts_under_writes(args.seed));
        for line in trace::take() {
            if !args.quiet {
                println!("{line}");
            }
        }
        for violation in &summary.violations {
            println!("VIOLATION {violation}");
        }
        println!(
            "seed {}: {} acknowledged, {} unknown, {} violations",
            args.seed,
            summary.acknowledged,
            summary.unknown,
            summary.violations.len()
        );
        // The simulator's threads of killed nodes need no farewell.
        std::process::exit(i32::from(!summary.violations.is_empty()));
    }

    fn parse(mut args: impl Iterator<Item = String>) -> Result<Args, String> {
        let mut parsed = Args {
            seed: 1,
            logs: Level::INFO,
            quiet: false,
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--seed" => parsed.seed = value()?.parse().map_err(|_| "a seed is a number".to_owned())?,
                "--logs" => parsed.logs = value()?.parse().map_err(|_| "no such log level".to_owned())?,
                "--quiet" => parsed.quiet = true,
                other => return Err(format!("unknown argument {other}")),
            }
        }
        Ok(parsed)
    }
}
