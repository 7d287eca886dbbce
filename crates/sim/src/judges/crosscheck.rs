//! The search of judge 1 against another implementation: todc-utils' `WGLChecker` (Kayman Brusse), on random small
//! histories of the same model, right and wrong ones.
//!
//! That checker knows no calls of unknown outcome. A history with some is linearizable exactly if it is with a
//! subset of them, each returning at the end; so all subsets are tried.

use proptest::prelude::*;
use todc_utils::Action::{Call, Response};
use todc_utils::{History as Actions, Specification, WGLChecker};

use super::search::{Answer, Model, Timed, search};
use super::testing::{Random, cases};

/// A call on a register with compare-and-set, with its answer.
#[derive(Debug, Clone, Copy)]
enum Op {
    Read(u8),
    Write(u8),
    CompareAndSet { from: u8, to: u8, done: bool },
}

fn apply(op: Op, value: u8) -> Option<u8> {
    match op {
        Op::Read(seen) => (seen == value).then_some(value),
        Op::Write(new) => Some(new),
        Op::CompareAndSet { from, to, done: true } => (from == value).then_some(to),
        Op::CompareAndSet {
            from, done: false, ..
        } => (from != value).then_some(value),
    }
}

struct Register;

impl Specification for Register {
    type State = u8;
    type Operation = Op;

    fn init() -> u8 {
        0
    }

    fn apply(op: &Op, value: &u8) -> (bool, u8) {
        match apply(*op, *value) {
            Some(next) => (true, next),
            None => (false, *value),
        }
    }
}

impl Model for Register {
    type State = u8;
    type Call = Op;

    fn initial(&self) -> u8 {
        0
    }

    fn step(&self, value: &u8, op: &Op) -> Option<u8> {
        apply(*op, *value)
    }

    fn is_read(&self, op: &Op) -> bool {
        matches!(op, Op::Read(_) | Op::CompareAndSet { done: false, .. })
    }
}

/// A history of a register whose calls take effect at random moments, and then some answers that may be wrong.
fn random_history(seed: u64) -> Vec<Timed<Op>> {
    let mut random = Random(seed);
    let mut clients = [0_u64; 3];
    let mut moments: Vec<(u64, Timed<Op>)> = Vec::new();
    for id in 1..=1 + random.below(9) {
        let client = random.below(3) as usize;
        let invoked = clients[client] + 1 + random.below(6);
        let moment = invoked + 1 + random.below(6);
        let returned = moment + 1 + random.below(6);
        clients[client] = returned;
        let small = |random: &mut Random| random.below(3) as u8;
        let (from, to) = (small(&mut random), small(&mut random));
        let op = match random.below(3) {
            0 => Op::Read(0),
            1 => Op::Write(to),
            _ => Op::CompareAndSet { from, to, done: true },
        };
        let read = matches!(op, Op::Read(_));
        // Some are told apart by a class, as interchangeable calls are; here equal calls are.
        let unknown = !read && random.chance(25);
        let call = Timed {
            id,
            invoked,
            returned: (!unknown).then_some(returned),
            class: (unknown && random.chance(50)).then(|| match op {
                Op::Write(to) => u32::from(to),
                _ => 10 + u32::from(from) * 3 + u32::from(to),
            }),
            call: op,
        };
        moments.push((moment, call));
    }
    moments.sort_by_key(|(moment, call)| (*moment, call.id));
    let mut value = 0;
    for (_, timed) in &mut moments {
        if timed.returned.is_none() && random.chance(50) {
            continue;
        }
        match &mut timed.call {
            Op::Read(seen) => *seen = value,
            Op::CompareAndSet { from, done, .. } if timed.returned.is_some() => *done = *from == value,
            _ => {}
        }
        value = apply(timed.call, value).unwrap_or(value);
    }
    let mut calls: Vec<Timed<Op>> = moments.into_iter().map(|(_, call)| call).collect();
    for call in calls.iter_mut().filter(|call| call.returned.is_some()) {
        if random.chance(8) {
            match &mut call.call {
                Op::Read(seen) => *seen = random.below(3) as u8,
                Op::CompareAndSet { done, .. } => *done = !*done,
                Op::Write(_) => {}
            }
        }
    }
    calls
}

/// What the other checker says.
fn other_says(calls: &[Timed<Op>]) -> bool {
    let unknown: Vec<usize> = (0..calls.len())
        .filter(|at| calls[*at].returned.is_none())
        .collect();
    (0..1_u32 << unknown.len()).any(|subset| {
        let chosen = |at: &usize| match unknown.iter().position(|unknown| unknown == at) {
            Some(bit) => subset & (1 << bit) != 0,
            None => true,
        };
        // Calls before returns at one time: they overlap.
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for at in (0..calls.len()).filter(chosen) {
            events.push((calls[at].invoked, false, at));
            events.push((calls[at].returned.unwrap_or(u64::MAX), true, at));
        }
        events.sort_unstable();
        let actions: Vec<_> = events
            .into_iter()
            .map(|(_, returns, at)| match returns {
                // Each call is a process of its own.
                false => (at, Call(calls[at].call)),
                true => (at, Response(calls[at].call)),
            })
            .collect();
        actions.is_empty() || WGLChecker::<Register>::is_linearizable(Actions::from_actions(actions))
    })
}

proptest! {
    #![proptest_config(cases(2_000))]
    #[test]
    fn both_searches_agree(seed: u64) {
        let calls = random_history(seed);
        let ours = search(&Register, &calls, 1_000_000);
        prop_assert!(ours != Answer::Undecided);
        prop_assert_eq!(ours == Answer::Linearizable, other_says(&calls), "{:#?}", calls);
    }
}

#[test]
fn both_kinds_of_history_occur() {
    let right = (0..1_000)
        .filter(|seed| other_says(&random_history(*seed)))
        .count();
    assert!((200..=900).contains(&right), "{right} of 1000 are linearizable");
}
