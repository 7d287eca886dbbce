//! What a run is: the options every driver's command takes, and the plan they make.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::record::Population;
use crate::workload::{Distribution, Workload};

/// The options of a load, the same for every store.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// What clients do. Without it, only --prepare is done.
    #[arg(long, value_enum, required_unless_present = "prepare")]
    pub workload: Option<Workload>,

    /// Clients at work at the same time.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub clients: u32,

    /// Begin this many operations a second, whoever answers (an open loop; latency counts from when an operation was
    /// due). Without it each client begins its next operation when the last one ended.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub rate: Option<f64>,

    /// How long to measure, seconds.
    #[arg(long, value_name = "S", default_value = "10", value_parser = measured_seconds)]
    pub seconds: Duration,

    /// How long the load runs before it is measured, seconds.
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    pub warm_up: Duration,

    /// Accounts that are there and worked on [default: as many as --prepare, or 10000].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub accounts: Option<u64>,

    /// How often which account is asked for.
    #[arg(long, value_enum, default_value_t)]
    pub distribution: Distribution,

    /// First make sure that this many accounts are there; those that are stay as they are.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub prepare: Option<u64>,

    /// Random bytes in each account.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=131_072))]
    pub record_bytes: u32,

    /// Accounts in one batch of an import, and of --prepare.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch: u32,

    /// Which accounts: those of different seeds have nothing in common.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u32,

    /// The number of the first account to create. By default one that no other run used: the time, in microseconds.
    #[arg(long, value_name = "N")]
    pub first_new: Option<u64>,
}

/// When operations begin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loop", rename_all = "lowercase")]
pub enum Load {
    /// When the client's last one ended.
    Closed,
    /// At a fixed rate.
    Open {
        /// The rate.
        per_second: f64,
    },
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What clients do.
    pub workload: Workload,
    /// When they begin.
    pub load: Load,
    /// How many there are.
    pub clients: usize,
    /// Which accounts they ask for.
    pub distribution: Distribution,
    /// Of how many: numbers `0..accounts` of the population.
    pub accounts: u64,
    /// What accounts are like.
    pub population: Population,
    /// The number of the first account created.
    pub first_new: u64,
    /// Accounts in one batch of an import.
    pub batch: usize,
    /// How long the load runs before it is measured.
    pub warm_up: Duration,
    /// How long it is measured.
    pub measured: Duration,
}

impl Options {
    /// What accounts are like.
    pub fn population(&self) -> Population {
        Population {
            seed: self.seed,
            payload_bytes: self.record_bytes as usize,
        }
    }

    /// The run; none if only a store is to be filled.
    pub fn plan(&self) -> Option<Plan> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Plan {
            workload: self.workload?,
            load: match self.rate {
                None => Load::Closed,
                Some(per_second) => Load::Open { per_second },
            },
            clients: self.clients as usize,
            distribution: self.distribution,
            accounts: self.accounts.or(self.prepare).unwrap_or(10_000),
            population: self.population(),
            first_new: self.first_new.unwrap_or(now.as_micros() as u64),
            batch: self.batch as usize,
            warm_up: self.warm_up,
            measured: self.seconds,
        })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| *duration <= Duration::from_secs(7 * 86_400))
        .ok_or_else(|| format!("`{text}` is not a number of seconds, at most a week"))
}

fn measured_seconds(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("nothing can be measured in no time".to_owned()),
        duration => Ok(duration),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number of operations a second, from 0.001 to 10 million".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn parse(args: &str) -> Result<Options, clap::Error> {
        let words = std::iter::once("bench").chain(args.split_whitespace());
        Command::try_parse_from(words).map(|command| command.options)
    }

    #[test]
    fn defaults_follow_from_what_is_said() {
        let plan = |args| parse(args).unwrap().plan();
        assert_eq!(plan("--prepare 5"), None, "nothing to run");
        let usual = plan("--workload get").unwrap();
        assert_eq!(
            (usual.clients, usual.accounts, usual.load),
            (64, 10_000, Load::Closed)
        );
        let prepared = plan("--workload mix --prepare 7 --rate 100 --seconds 0.5").unwrap();
        assert_eq!(prepared.accounts, 7);
        assert_eq!(prepared.load, Load::Open { per_second: 100.0 });
        assert_eq!(prepared.measured, Duration::from_millis(500));
        assert!(plan("--workload create").unwrap().first_new > usual.first_new);
    }

    #[test]
    fn nonsense_is_refused() {
        for args in [
            "",
            "--workload dance",
            "--workload get --clients 0",
            "--workload get --seconds 0",
            "--workload get --seconds nan",
            "--workload get --warm-up -1",
            "--workload get --rate 0",
            "--workload get --accounts 0",
        ] {
            assert!(parse(args).is_err(), "{args}");
        }
    }
}
