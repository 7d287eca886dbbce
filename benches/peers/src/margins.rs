//! By how much Holdfast has to be ahead: the table that `--check` enforces.
//!
//! A margin compares the medians of one quantity at one point. It is held, missed, or was not measured: a quick run
//! leaves points out, `--only` leaves stores out.

use std::fmt;

use holdfast_bench::Workload;
use serde::Serialize;

use crate::report::{Point, Results};

const HOLDFAST: &str = "holdfast";
const ETCD: &str = "etcd";
const BARE: &str = "postgres-bare";
const EQUIVALENT: &str = "postgres-equivalent";
const ECHO: &str = "echo";

/// A million accounts, for which memory and disk are compared.
const MILLION: u64 = 1_000_000;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    /// Operations a second. More is better.
    Throughput,
    /// 99 of 100 are quicker. Less is better, as with all that follow.
    P99,
    /// The longest time without a write after the leader was killed.
    Silence,
    /// Of one node at rest, after filling and reads.
    Memory,
    /// The same.
    Disk,
}

/// One line of the table.
struct Margin {
    quantity: Quantity,
    workload: Workload,
    clients: usize,
    /// Ours divided by theirs is at least this for throughput, at most this for all else.
    factor: f64,
    peer: &'static str,
    /// What the peer does instead, where it is not the same.
    peer_workload: Workload,
}

const fn margin(
    quantity: Quantity,
    workload: Workload,
    clients: usize,
    factor: f64,
    peer: &'static str,
) -> Margin {
    Margin {
        quantity,
        workload,
        clients,
        factor,
        peer,
        peer_workload: workload,
    }
}

const fn against(margin: Margin, peer_workload: Workload) -> Margin {
    Margin {
        peer_workload,
        ..margin
    }
}

/// The table. Memory, disk and silence belong to no workload; theirs is the one that causes them. An echo sends the whole
/// record there and back, as for a create; what it does when only the answer is long is in the tables of loads.
const MARGINS: [Margin; 34] = {
    use Quantity::{Disk, Memory, P99, Silence, Throughput};
    use Workload::{Create, GatheredGet, Get, Lookup, Mix, Update};
    [
        margin(Throughput, Create, 64, 1.5, EQUIVALENT),
        margin(Throughput, Create, 64, 1.1, BARE),
        margin(Throughput, Create, 64, 3.0, ETCD),
        margin(Throughput, Create, 256, 1.5, EQUIVALENT),
        margin(Throughput, Create, 256, 1.1, BARE),
        margin(Throughput, Create, 256, 3.0, ETCD),
        margin(Throughput, Update, 64, 1.5, EQUIVALENT),
        margin(Throughput, Update, 64, 1.1, BARE),
        margin(Throughput, Update, 64, 1.7, ETCD),
        against(margin(Throughput, Get, 64, 0.6, ECHO), Create),
        margin(Throughput, Get, 64, 2.5, ETCD),
        against(margin(Throughput, Lookup, 64, 0.6, ECHO), Create),
        margin(Throughput, Lookup, 64, 4.0, ETCD),
        against(margin(Throughput, GatheredGet, 256, 1.2, EQUIVALENT), Get),
        against(margin(Throughput, GatheredGet, 256, 1.2, BARE), Get),
        margin(Throughput, Mix, 64, 3.0, ETCD),
        margin(P99, Create, 64, 1.0, EQUIVALENT),
        margin(P99, Create, 64, 1.0, BARE),
        margin(P99, Create, 256, 1.0, EQUIVALENT),
        margin(P99, Create, 256, 1.0, BARE),
        margin(P99, Update, 64, 1.0, EQUIVALENT),
        margin(P99, Update, 64, 1.0, BARE),
        margin(P99, Get, 64, 0.5, ETCD),
        margin(P99, Lookup, 64, 0.5, ETCD),
        against(margin(P99, GatheredGet, 256, 0.5, ETCD), Get),
        margin(P99, Mix, 64, 0.5, ETCD),
        margin(Throughput, Create, 1, 1.0, EQUIVALENT),
        margin(Throughput, Create, 1, 1.0, BARE),
        margin(Throughput, Get, 1, 1.0, ETCD),
        margin(Silence, Create, 16, 1.0, ETCD),
        margin(Memory, Create, 64, 0.25, ETCD),
        margin(Disk, Create, 64, 0.6, ETCD),
        margin(Disk, Create, 64, 1.0, EQUIVALENT),
        margin(Disk, Create, 64, 1.0, BARE),
    ]
};

/// What became of a margin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Judgement {
    /// What is compared, for people.
    pub(crate) what: String,
    /// What has to be.
    pub(crate) wanted: String,
    /// Ours divided by theirs, if both were measured.
    pub(crate) ratio: Option<f64>,
    /// Held, missed, or not measured.
    pub(crate) verdict: Verdict,
}

/// What became of a margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// At least as far ahead as it has to be.
    Held,
    /// Not as far.
    Missed,
    /// One of the two was not measured.
    NotMeasured,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Held => "held",
            Verdict::Missed => "MISSED",
            Verdict::NotMeasured => "not measured",
        })
    }
}

/// Judges all margins at every number of accounts that was measured.
pub(crate) fn judge(results: &Results) -> Vec<Judgement> {
    let mut levels = results.levels();
    if levels.is_empty() {
        levels.push(0);
    }
    let mut judgements = Vec::new();
    for margin in &MARGINS {
        let of_a_million = matches!(margin.quantity, Quantity::Memory | Quantity::Disk);
        let at: Vec<u64> = match margin.quantity {
            _ if of_a_million => vec![MILLION],
            // Nothing of it depends on how many accounts there are.
            Quantity::Silence => vec![levels[0]],
            _ => levels.clone(),
        };
        let judged: Vec<Judgement> = at
            .iter()
            .map(|accounts| margin.judge(results, *accounts))
            .collect();
        let measured = |judgement: &&Judgement| judgement.verdict != Verdict::NotMeasured;
        if judged.iter().any(|judgement| measured(&judgement)) {
            judgements.extend(judged.iter().filter(measured).cloned());
        } else {
            judgements.extend(judged.into_iter().take(1));
        }
    }
    judgements
}

impl Margin {
    fn judge(&self, results: &Results, accounts: u64) -> Judgement {
        let ours = self.value(results, HOLDFAST, self.workload, accounts);
        let theirs = self.value(results, self.peer, self.peer_workload, accounts);
        let ratio = ours
            .zip(theirs)
            .filter(|(_, theirs)| *theirs > 0.0)
            .map(|(ours, theirs)| ours / theirs);
        let verdict = match ratio {
            None => Verdict::NotMeasured,
            Some(ratio) if self.holds(ratio) => Verdict::Held,
            Some(_) => Verdict::Missed,
        };
        Judgement {
            what: self.what(accounts),
            wanted: self.wanted(),
            ratio,
            verdict,
        }
    }

    fn holds(&self, ratio: f64) -> bool {
        match self.quantity {
            Quantity::Throughput => ratio >= self.factor,
            _ => ratio <= self.factor,
        }
    }

    fn value(&self, results: &Results, store: &str, workload: Workload, accounts: u64) -> Option<f64> {
        let point = Point::closed(workload, self.clients, accounts);
        match self.quantity {
            Quantity::Throughput => Some(results.load(store, &point)?.throughput.median),
            Quantity::P99 => Some(results.load(store, &point)?.p99_us.median),
            Quantity::Silence => Some(results.outage(store)?.median),
            Quantity::Memory => Some(results.rest(store, accounts)?.memory_bytes.median),
            Quantity::Disk => Some(results.rest(store, accounts)?.disk_bytes.median),
        }
    }

    fn what(&self, accounts: u64) -> String {
        let load = || Point::closed(self.workload, self.clients, accounts).to_string();
        match self.quantity {
            Quantity::Throughput => load(),
            Quantity::P99 => format!("p99 of {}", load()),
            Quantity::Silence => "longest time without a write after kill -9 of the leader".to_owned(),
            Quantity::Memory => format!(
                "memory of a node, {} accounts",
                crate::table::thousands(accounts as f64)
            ),
            Quantity::Disk => format!(
                "disk of a node, {} accounts",
                crate::table::thousands(accounts as f64)
            ),
        }
    }

    fn wanted(&self) -> String {
        let bound = match self.quantity {
            Quantity::Throughput => "at least",
            _ => "at most",
        };
        let peer = match self.peer_workload {
            same if same == self.workload => self.peer.to_owned(),
            other => format!("{}'s {}", self.peer, other.name()),
        };
        format!("{bound} {} x {peer}", self.factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{load, outage, rest, results};

    fn verdict(results: &Results, what: &str, wanted: &str) -> Verdict {
        let judged = judge(results);
        let found = judged
            .iter()
            .find(|judgement| judgement.what.starts_with(what) && judgement.wanted == wanted);
        found
            .map(|judgement| judgement.verdict)
            .expect("such a margin is in the table")
    }

    #[test]
    fn more_is_better_for_throughput_and_less_for_all_else() {
        let results = results([
            load("holdfast", Workload::Create, 64, 3_000.0, 10_000),
            load("etcd", Workload::Create, 64, 1_000.0, 50_000),
            load("postgres-bare", Workload::Create, 64, 2_800.0, 9_999),
            load("postgres-equivalent", Workload::Create, 64, 2_000.0, 10_000),
        ]);
        let create = "create, 64 clients";
        assert_eq!(verdict(&results, create, "at least 3 x etcd"), Verdict::Held);
        assert_eq!(
            verdict(&results, create, "at least 1.1 x postgres-bare"),
            Verdict::Missed
        );
        assert_eq!(
            verdict(&results, create, "at least 1.5 x postgres-equivalent"),
            Verdict::Held
        );
        let p99 = "p99 of create, 64 clients";
        assert_eq!(
            verdict(&results, p99, "at most 1 x postgres-equivalent"),
            Verdict::Held
        );
        assert_eq!(
            verdict(&results, p99, "at most 1 x postgres-bare"),
            Verdict::Missed
        );
    }

    #[test]
    fn what_was_not_measured_is_neither_held_nor_missed() {
        let results = results([load("holdfast", Workload::Create, 64, 3_000.0, 10)]);
        assert!(
            judge(&results)
                .iter()
                .all(|judgement| judgement.verdict == Verdict::NotMeasured)
        );
        assert_eq!(judge(&results).len(), MARGINS.len(), "each is listed once");
    }

    #[test]
    fn medians_of_rounds_are_compared() {
        let create = |store, throughput| load(store, Workload::Create, 64, throughput, 10);
        let results = results([
            create("holdfast", 10.0),
            create("holdfast", 300.0),
            create("holdfast", 310.0),
            create("etcd", 100.0),
            create("etcd", 900.0),
            create("etcd", 90.0),
        ]);
        assert_eq!(
            verdict(&results, "create, 64 clients", "at least 3 x etcd"),
            Verdict::Held
        );
    }

    #[test]
    fn reads_that_are_gathered_are_compared_with_reads() {
        let results = results([
            load("holdfast", Workload::GatheredGet, 256, 119.0, 10),
            load("postgres-bare", Workload::Get, 256, 100.0, 10),
        ]);
        assert_eq!(
            verdict(
                &results,
                "gathered-get, 256",
                "at least 1.2 x postgres-bare's get"
            ),
            Verdict::Missed
        );
    }

    #[test]
    fn what_nodes_take_and_how_long_they_are_silent() {
        let results = results([
            rest("holdfast", 1_000_000, 690, 600),
            rest("etcd", 1_000_000, 2_800, 900),
            rest("postgres-bare", 1_000_000, 500, 600),
            outage("holdfast", 1_500),
            outage("holdfast", 9_000),
            outage("holdfast", 1_400),
            outage("etcd", 1_600),
        ]);
        let million = "1,000,000 accounts";
        let memory = format!("memory of a node, {million}");
        let disk = format!("disk of a node, {million}");
        assert_eq!(verdict(&results, &memory, "at most 0.25 x etcd"), Verdict::Held);
        assert_eq!(verdict(&results, &disk, "at most 0.6 x etcd"), Verdict::Missed);
        assert_eq!(
            verdict(&results, &disk, "at most 1 x postgres-bare"),
            Verdict::Held
        );
        let silence = "longest time without a write";
        assert_eq!(verdict(&results, silence, "at most 1 x etcd"), Verdict::Held);
    }
}
