//! The mix of a run, drawn in the manner of swarm testing (Groce et al., *Swarm Testing*, 2012): each run leaves
//! some actions out and overdoes others, so that together the runs reach what no even mix would.

use std::collections::BTreeMap;

use holdfast_storage::choices::SplitMix64;

use crate::config::{Action, RealmRules, Workload};

/// What a run has at least: thirty, and a little for its edges.
const CALLS_PER_SECOND_MIN: u32 = 32;

/// What is known of an action before a run.
struct Usual {
    action: Action,
    /// How often it is done in a mix without preferences.
    weight: u32,
    /// How many calls it makes, about.
    calls: u64,
    /// How long it takes when nothing is wrong, milliseconds.
    ms: u64,
}

const fn usual(action: Action, weight: u32, calls: u64, ms: u64) -> Usual {
    Usual {
        action,
        weight,
        calls,
        ms,
    }
}

/// All actions. What makes many calls is done less often.
const USUAL: [Usual; 17] = [
    usual(Action::Create, 12, 1, 25),
    usual(Action::Update, 16, 1, 30),
    usual(Action::UpdateChecked, 12, 2, 60),
    usual(Action::ChangeIdentifiers, 14, 1, 30),
    usual(Action::MoveIdentifier, 8, 2, 50),
    usual(Action::Delete, 5, 1, 25),
    usual(Action::Undelete, 5, 2, 40),
    usual(Action::Get, 16, 1, 20),
    usual(Action::BatchGet, 5, 1, 20),
    usual(Action::Lookup, 12, 1, 20),
    usual(Action::GetStale, 8, 1, 15),
    usual(Action::GetWithToken, 8, 1, 15),
    usual(Action::List, 2, 5, 100),
    usual(Action::Import, 2, 16, 300),
    usual(Action::RetryStorm, 3, 7, 150),
    usual(Action::LateDuplicate, 5, 3, 80),
    usual(Action::Export, 1, 1, 20),
];

/// Draws what clients do, and the rules of their realm.
pub fn draw(choices: &mut SplitMix64) -> (Workload, RealmRules) {
    let clients = between(choices, 12, 20);
    // Well above the least, because faults make clients wait.
    let calls_per_second = between(choices, 110, 260);
    let weights = weights(choices);
    let workload = Workload {
        clients: clients as u32,
        pause_ms: pause_ms(&weights, clients, calls_per_second),
        hot_accounts: between(choices, 2, 8) as u32,
        tail_accounts: one_of(choices, &[0, 10, 40, 150]) as u32,
        hot_share: one_of(choices, &[30, 60, 80, 95]) as f64 / 100.0,
        identifiers: between(choices, 3, 12) as u32,
        deadline_ms: one_of(choices, &[500, 1_000, 2_000, 3_000, 5_000, 10_000]),
        calls_per_second_min: Some(CALLS_PER_SECOND_MIN),
        calls_max: None,
        weights,
    };
    let rules = RealmRules {
        quarantine_ms: one_of(choices, &[0, 300, 1_000, 2_500, 6_000, 12_000]),
        deletion_grace_ms: one_of(choices, &[0, 500, 2_000, 5_000, 10_000]),
        // A minute is the least that the service allows; ids that are born old reach its end within a run.
        request_window_ms: one_of(choices, &[60_000, 60_000, 75_000, 120_000]),
    };
    (workload, rules)
}

/// The pause with which so many clients make so many calls, as long as nothing is wrong.
fn pause_ms(weights: &BTreeMap<Action, u32>, clients: u64, calls_per_second: u64) -> u64 {
    let weight = |usual: &Usual| u64::from(weights.get(&usual.action).copied().unwrap_or_default());
    let sum = |of: fn(&Usual) -> u64| -> u64 { USUAL.iter().map(|usual| weight(usual) * of(usual)).sum() };
    let total = sum(|_| 1).max(1);
    let between_two_ms = clients * 1_000 * sum(|usual| usual.calls) / calls_per_second / total;
    between_two_ms
        .saturating_sub(sum(|usual| usual.ms) / total)
        .max(1)
}

/// A random subset with random weights.
fn weights(choices: &mut SplitMix64) -> BTreeMap<Action, u32> {
    let mut actions: Vec<&Usual> = USUAL.iter().collect();
    for last in (1..actions.len()).rev() {
        actions.swap(last, choices.below(last as u64 + 1) as usize);
    }
    let kept = match choices.below(5) {
        0 => between(choices, 2, 4),
        1 => actions.len() as u64,
        _ => between(choices, 5, 12),
    };
    let (kept, left_out) = actions.split_at(kept as usize);
    let mut weights = BTreeMap::new();
    for usual in kept {
        weights.insert(usual.action, usual.weight * one_of(choices, &[1, 1, 2, 6]) as u32);
    }
    // Writes that nobody reads show nothing, and reads of what never changes neither.
    for needed in [reads as fn(Action) -> bool, writes] {
        if !kept.iter().any(|usual| needed(usual.action)) {
            let missing = left_out.iter().find(|usual| needed(usual.action));
            weights.extend(missing.map(|usual| (usual.action, usual.weight)));
        }
    }
    weights
}

/// Whether the action reads, as fresh as can be.
fn reads(action: Action) -> bool {
    matches!(
        action,
        Action::Get
            | Action::BatchGet
            | Action::Lookup
            | Action::List
            | Action::Export
            | Action::UpdateChecked
    )
}

/// Whether the action changes accounts that exist.
fn writes(action: Action) -> bool {
    matches!(
        action,
        Action::Update
            | Action::UpdateChecked
            | Action::ChangeIdentifiers
            | Action::MoveIdentifier
            | Action::Import
            | Action::RetryStorm
            | Action::LateDuplicate
    )
}

fn between(choices: &mut SplitMix64, least: u64, most: u64) -> u64 {
    least + choices.below(most - least + 1)
}

fn one_of(choices: &mut SplitMix64, values: &[u64]) -> u64 {
    values[choices.below(values.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mix_reads_and_writes_and_all_actions_come_up() {
        let mut drawn = BTreeMap::new();
        let mut small = 0;
        for seed in 0..500 {
            let (workload, rules) = draw(&mut SplitMix64::new(seed));
            let weights = &workload.weights;
            assert!(weights.keys().any(|action| reads(*action)), "seed {seed}");
            assert!(weights.keys().any(|action| writes(*action)), "seed {seed}");
            assert!(rules.request_window_ms >= 60_000, "the service refuses less");
            assert!(workload.pause_ms < 2_500, "seed {seed}: {workload:?}");
            small += u32::from(weights.len() <= 4);
            for action in weights.keys() {
                *drawn.entry(*action).or_insert(0) += 1;
            }
        }
        assert_eq!(drawn.len(), USUAL.len());
        assert!(drawn.values().all(|times| *times > 100), "{drawn:?}");
        assert!(small > 50, "only {small} of the mixes were small");
    }
}
