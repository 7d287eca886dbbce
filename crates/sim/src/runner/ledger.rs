//! A file that adds up runs at one commit, over many sittings.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::swarm::Swarm;
use super::{Failure, Totals};

/// What was run at one commit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// The commit; runs at another do not add up with these.
    pub commit: String,
    /// The first seed that was not run yet.
    pub next_seed: u64,
    /// Seeds above it that were run all the same, before a sitting was broken off.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub done: BTreeSet<u64>,
    /// One entry a sitting.
    pub sittings: Vec<Totals>,
}

impl Ledger {
    /// Reads the file, or begins a ledger whose seeds follow from the commit.
    ///
    /// # Errors
    /// If the file is not a ledger, or one of another commit.
    pub fn open(path: &Path, commit: &str, first_seed: u64) -> Result<Self, Failure> {
        if !path.exists() {
            return Ok(Ledger {
                commit: commit.to_owned(),
                next_seed: first_seed,
                done: BTreeSet::new(),
                sittings: Vec::new(),
            });
        }
        let text =
            fs::read_to_string(path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
        let ledger: Ledger =
            serde_json::from_str(&text).map_err(|why| format!("{} is no ledger: {why}", path.display()))?;
        if ledger.commit != commit {
            return Err(format!(
                "{} is of commit {}, this is {commit}; name another file",
                path.display(),
                ledger.commit
            ));
        }
        Ok(ledger)
    }

    /// Writes the file; what was there stays whole until the new one is.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).map_err(|why| why.to_string())?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        fs::write(&beside, text)
            .and_then(|()| fs::rename(&beside, path))
            .map_err(|why| format!("cannot write {}: {why}", path.display()))
    }

    /// This ledger and what another sitting came to, so far or in all.
    #[must_use]
    pub fn with(&self, sitting: &Swarm) -> Self {
        let mut ledger = self.clone();
        ledger.next_seed = sitting.next;
        ledger.done.clone_from(&sitting.done);
        ledger.sittings.push(sitting.totals.clone());
        ledger
    }

    /// All sittings together.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for sitting in &self.sittings {
            totals.merge(sitting);
        }
        totals
    }
}
