//! The mix of a run, drawn in the manner of swarm testing (Groce et al., *Swarm Testing*, 2012): each run leaves
//! some actions out and overdoes others, so that together the runs reach what no even mix would.

use std::collections::BTreeMap;

use holdfast_storage::choices::SplitMix64;

use crate::config::{Action, RealmRules, Workload};

/// All actions with their usual weights: what costs many calls is done less often.
const USUAL: [(Action, u32); 17] = [
    (Action::Create, 12),
    (Action::Update, 16),
    (Action::UpdateChecked, 12),
    (Action::ChangeIdentifiers, 14),
    (Action::MoveIdentifier, 8),
    (Action::Delete, 5),
    (Action::Undelete, 5),
    (Action::Get, 16),
    (Action::BatchGet, 5),
    (Action::Lookup, 12),
    (Action::GetStale, 8),
    (Action::GetWithToken, 8),
    (Action::List, 2),
    (Action::Import, 2),
    (Action::RetryStorm, 3),
    (Action::LateDuplicate, 5),
    (Action::Export, 1),
];

/// What a call takes when nothing is wrong, milliseconds; only for choosing the pauses.
const CALL_MS: u64 = 25;

/// Draws what clients do, and the rules of their realm.
pub fn draw(choices: &mut SplitMix64) -> (Workload, RealmRules) {
    let clients = between(choices, 4, 16);
    // Well above the thirty a second that a run must have at least, because faults make clients wait.
    let per_second = between(choices, 90, 240);
    let workload = Workload {
        clients: clients as u32,
        pause_ms: (clients * 1_000 / per_second).saturating_sub(CALL_MS).max(1),
        hot_accounts: between(choices, 2, 8) as u32,
        tail_accounts: one_of(choices, &[0, 10, 40, 150]) as u32,
        hot_share: one_of(choices, &[30, 60, 80, 95]) as f64 / 100.0,
        identifiers: between(choices, 3, 12) as u32,
        deadline_ms: one_of(choices, &[500, 1_000, 2_000, 3_000, 5_000, 10_000]),
        weights: weights(choices),
    };
    let rules = RealmRules {
        quarantine_ms: one_of(choices, &[0, 300, 1_000, 2_500, 6_000, 12_000]),
        deletion_grace_ms: one_of(choices, &[0, 500, 2_000, 5_000, 10_000]),
        // A minute is the least that the service allows; ids that are born old reach its end within a run.
        request_window_ms: one_of(choices, &[60_000, 60_000, 75_000, 120_000]),
    };
    (workload, rules)
}

/// A random subset with random weights.
fn weights(choices: &mut SplitMix64) -> BTreeMap<Action, u32> {
    let mut actions = USUAL.to_vec();
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
    for (action, usual) in kept {
        weights.insert(*action, usual * one_of(choices, &[1, 1, 2, 6]) as u32);
    }
    // Writes that nobody reads show nothing, and reads of what never changes neither.
    for needed in [reads as fn(Action) -> bool, writes] {
        if !kept.iter().any(|(action, _)| needed(*action)) {
            let missing = left_out.iter().find(|(action, _)| needed(*action));
            weights.extend(missing.copied());
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
            let at_best = u64::from(workload.clients) * 1_000 / (workload.pause_ms + CALL_MS);
            assert!(
                at_best >= 60,
                "seed {seed} would do {at_best} calls a second at best"
            );
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
