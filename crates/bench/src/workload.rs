//! What clients do, and to which accounts.

use clap::ValueEnum;
use rand::RngExt;
use rand::rngs::StdRng;
use rand_distr::{Distribution as _, Zipf};
use serde::{Deserialize, Serialize};

/// What all clients of a run do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// New accounts with two unique identifiers.
    Create,
    /// A new payload for an account that must still have the version known.
    Update,
    /// An account by id, linearizable.
    Get,
    /// An account by its email, linearizable.
    Lookup,
    /// 95 gets, 5 updates.
    Mix,
    /// A campaign brings new people: is the email free, create, read it back.
    SignUpStorm,
    /// The morning: 90 lookups by email, 10 updates.
    LoginStorm,
    /// New accounts in batches.
    Import,
    /// Gets that the client library may send together.
    GatheredGet,
}

/// The version of an account that nobody has changed.
pub(crate) const FIRST_VERSION: u64 = 1;

/// One thing a client does, as results list it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Get,
    Lookup,
    /// A lookup of an email that nobody has.
    LookupAbsent,
    /// [`Operation::LookupAbsent`], [`Operation::Create`] and [`Operation::Get`], together.
    SignUp,
    /// A batch.
    Import,
    GatheredGet,
}

impl Operation {
    pub(crate) const ALL: [Operation; 8] = [
        Operation::Create,
        Operation::Update,
        Operation::Get,
        Operation::Lookup,
        Operation::LookupAbsent,
        Operation::SignUp,
        Operation::Import,
        Operation::GatheredGet,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Get => "get",
            Operation::Lookup => "lookup",
            Operation::LookupAbsent => "lookup_absent",
            Operation::SignUp => "sign_up",
            Operation::Import => "import_batch",
            Operation::GatheredGet => "gathered_get",
        }
    }

    /// Whether it changes something, and so needs a quorum's syncs.
    pub(crate) fn writes(self) -> bool {
        matches!(
            self,
            Operation::Create | Operation::Update | Operation::SignUp | Operation::Import
        )
    }
}

impl Workload {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Create => "create",
            Workload::Update => "update",
            Workload::Get => "get",
            Workload::Lookup => "lookup",
            Workload::Mix => "mix",
            Workload::SignUpStorm => "sign-up-storm",
            Workload::LoginStorm => "login-storm",
            Workload::Import => "import",
            Workload::GatheredGet => "gathered-get",
        }
    }

    /// Whether it works on accounts that must be there already.
    pub fn needs_accounts(self) -> bool {
        !matches!(self, Workload::Create | Workload::SignUpStorm | Workload::Import)
    }

    /// What its clients do, parts included.
    pub(crate) fn operations(self) -> &'static [Operation] {
        match self {
            Workload::Create => &[Operation::Create],
            Workload::Update => &[Operation::Update],
            Workload::Get => &[Operation::Get],
            Workload::Lookup => &[Operation::Lookup],
            Workload::Mix => &[Operation::Get, Operation::Update],
            Workload::SignUpStorm => &[
                Operation::SignUp,
                Operation::LookupAbsent,
                Operation::Create,
                Operation::Get,
            ],
            Workload::LoginStorm => &[Operation::Lookup, Operation::Update],
            Workload::Import => &[Operation::Import],
            Workload::GatheredGet => &[Operation::GatheredGet],
        }
    }

    /// Draws what a client does next.
    pub(crate) fn next(self, random: &mut StdRng) -> Operation {
        match self {
            Workload::Create => Operation::Create,
            Workload::Update => Operation::Update,
            Workload::Get => Operation::Get,
            Workload::Lookup => Operation::Lookup,
            Workload::Mix if random.random_bool(0.05) => Operation::Update,
            Workload::Mix => Operation::Get,
            Workload::SignUpStorm => Operation::SignUp,
            Workload::LoginStorm if random.random_bool(0.10) => Operation::Update,
            Workload::LoginStorm => Operation::Lookup,
            Workload::Import => Operation::Import,
            Workload::GatheredGet => Operation::GatheredGet,
        }
    }
}

/// How often which account is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// All equally often.
    #[default]
    Uniform,
    /// Zipf's law with exponent 0.99, YCSB's: of a million accounts, one gets about 7 % of all requests.
    Zipf,
}

/// Draws numbers of accounts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keys {
    Uniform { accounts: u64 },
    Zipf { ranks: Zipf<f64> },
}

impl Keys {
    /// Of the accounts `0..accounts`, of which there is at least one.
    pub(crate) fn new(distribution: Distribution, accounts: u64) -> Self {
        match distribution {
            Distribution::Uniform => Keys::Uniform { accounts },
            Distribution::Zipf => Keys::Zipf {
                ranks: Zipf::new(accounts as f64, 0.99)
                    .expect("at least one account and a positive exponent are all that it asks for"),
            },
        }
    }

    /// The next account's number. The most popular are those with the lowest; their ids are scattered all the same.
    pub(crate) fn next(&self, random: &mut StdRng) -> u64 {
        match self {
            Keys::Uniform { accounts } => random.random_range(0..*accounts),
            // Ranks begin at 1.
            Keys::Zipf { ranks } => ranks.sample(random) as u64 - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn counts(distribution: Distribution, accounts: u64, draws: usize) -> Vec<u64> {
        let keys = Keys::new(distribution, accounts);
        let mut random = StdRng::seed_from_u64(1);
        let mut counts = vec![0; accounts as usize];
        for _ in 0..draws {
            counts[keys.next(&mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_is_flat_and_zipf_follows_its_law() {
        let flat = counts(Distribution::Uniform, 100, 100_000);
        assert!(flat.iter().all(|count| (800..1_200).contains(count)), "{flat:?}");

        let (accounts, draws) = (1_000, 200_000);
        let skewed = counts(Distribution::Zipf, accounts, draws);
        let whole: f64 = (1..=accounts).map(|rank| (rank as f64).powf(-0.99)).sum();
        for rank in [1_u64, 2, 10, 100] {
            let expected = draws as f64 * (rank as f64).powf(-0.99) / whole;
            let seen = skewed[rank as usize - 1] as f64;
            let spread = 5.0 * expected.sqrt();
            assert!(
                (seen - expected).abs() < spread,
                "rank {rank}: {seen}, not {expected}"
            );
        }
        assert!(skewed[999] < skewed[0] / 100);
    }

    #[test]
    fn one_account_is_enough() {
        for distribution in [Distribution::Uniform, Distribution::Zipf] {
            assert_eq!(counts(distribution, 1, 10), [10]);
        }
    }

    #[test]
    fn mixtures_have_their_shares() {
        let mut random = StdRng::seed_from_u64(1);
        for (workload, share) in [(Workload::Mix, 0.05), (Workload::LoginStorm, 0.10)] {
            let updates = (0..20_000)
                .filter(|_| workload.next(&mut random) == Operation::Update)
                .count();
            let seen = updates as f64 / 20_000.0;
            assert!((seen - share).abs() < 0.01, "{workload:?}: {seen}");
        }
    }

    #[test]
    fn clients_do_what_their_workload_has() {
        let mut random = StdRng::seed_from_u64(1);
        for workload in Workload::value_variants() {
            for _ in 0..100 {
                let next = workload.next(&mut random);
                assert!(workload.operations().contains(&next), "{workload:?}: {next:?}");
            }
        }
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for workload in Workload::value_variants() {
            let option = workload
                .to_possible_value()
                .map(|value| value.get_name().to_owned());
            assert_eq!(option.as_deref(), Some(workload.name()));
        }
    }
}
