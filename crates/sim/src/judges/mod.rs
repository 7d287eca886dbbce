//! The judges: each looks at the history of a run from one side and says what may not be.
//!
//! Every judge is a pure function to a [`Verdict`]. None trusts another's view of the run: some see only what
//! clients saw (black box), some the log indexes that the servers gave out, some the stored rows at the end.

#[cfg(all(test, not(madsim)))]
mod crosscheck;
pub mod durability;
mod evidence;
pub mod exactly_once;
pub mod freshness;
pub mod linearizability;
#[cfg(all(test, not(madsim)))]
mod miniature;
mod model;
#[cfg(all(test, not(madsim)))]
mod mutation;
pub mod order;
pub mod scans;
mod search;
pub mod serializability;
#[cfg(all(test, not(madsim)))]
mod testing;
pub mod uniqueness;

use serde::{Deserialize, Serialize};

use crate::history::{EndState, History, Rules};

/// Asks every judge: about what clients saw, and about each replica's rows at the end.
pub fn all(history: &History, ends: &[EndState], rules: &Rules) -> Verdict {
    let mut all = Verdict::default();
    for verdict in [
        linearizability::judge(history, linearizability::STEPS),
        order::judge(history),
        serializability::judge(history),
        uniqueness::judge(history, ends, rules),
        exactly_once::judge(history, ends),
        durability::judge(history, ends),
        freshness::judge(history),
        scans::judge(history),
    ] {
        all.merge(verdict);
    }
    all
}

/// What a judge found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What may not be. Empty: nothing was found.
    pub violations: Vec<Violation>,
    /// How many questions were given up because they took too long. They did not pass.
    pub undecided: u64,
    /// How many questions were answered.
    pub checked: u64,
}

/// Something that may not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Who says so.
    pub judge: String,
    /// What is wrong.
    pub message: String,
    /// The operations that show it, by id.
    pub operations: Vec<u64>,
}

impl Verdict {
    /// Takes another verdict in.
    pub fn merge(&mut self, other: Verdict) {
        self.violations.extend(other.violations);
        self.undecided += other.undecided;
        self.checked += other.checked;
    }

    fn violation(
        &mut self,
        judge: &str,
        message: impl Into<String>,
        operations: impl IntoIterator<Item = u64>,
    ) {
        self.violations.push(Violation {
            judge: judge.to_owned(),
            message: message.into(),
            operations: operations.into_iter().collect(),
        });
    }
}
