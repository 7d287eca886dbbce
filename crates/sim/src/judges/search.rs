//! The search for a linearization: is there an order of these calls, each at one moment between its invocation
//! and its return, in which a sequential model gives every answer?
//!
//! Wing & Gong's algorithm as improved by Lowe (*Testing for linearizability*, 2017) and Horn & Kroening (*Faster
//! linearizability checking via P-compositionality*, 2015): depth first; a call may come next if no other
//! outstanding call returned before it began; configurations (what has been linearized, state) that were reached
//! once are not entered again. Three additions keep hot keys with many calls of unknown outcome in reach, and none
//! loses a witness:
//!
//! - A call that can never change the state is put in place as soon as it fits: whatever comes later in a witness
//!   may still come later.
//! - A call of unknown outcome has no return. It is tried only after all others, and may stay out for ever.
//! - Calls of unknown outcome that are interchangeable are tried in the order of invocation only.
//!
//! It takes a bounded number of steps; beyond that the answer is *undecided*.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// A sequential object.
pub(crate) trait Model {
    /// Its state.
    type State: Clone + Eq + Hash + Debug;
    /// A call together with its answer.
    type Call;

    /// The state before everything.
    fn initial(&self) -> Self::State;

    /// The state after the call, if it may have its answer in this state. For a call of unknown outcome: if it
    /// changes anything.
    fn step(&self, state: &Self::State, call: &Self::Call) -> Option<Self::State>;

    /// Whether the call leaves every state as it is.
    fn is_read(&self, call: &Self::Call) -> bool;
}

/// A call with its times.
#[derive(Debug, Clone)]
pub(crate) struct Timed<C> {
    /// The operation that it is part of.
    pub(crate) id: u64,
    pub(crate) invoked: u64,
    /// None: its outcome is unknown, so it may have happened at any time since, or never.
    pub(crate) returned: Option<u64>,
    /// Of several calls of unknown outcome with the same class it does not matter which one happened. None: like
    /// no other.
    pub(crate) class: Option<u32>,
    pub(crate) call: C,
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// There is such an order.
    Linearizable,
    /// There is none. Where the deepest attempt ended: the state, the calls that did not fit, the last that did.
    Not {
        state: String,
        stuck: Vec<u64>,
        last: Vec<u64>,
    },
    /// Too many steps.
    Undecided,
}

/// How many of the last linearized calls an explanation names.
const LAST: usize = 3;

/// Searches, taking at most `steps` steps.
pub(crate) fn search<M: Model>(model: &M, calls: &[Timed<M::Call>], steps: u64) -> Answer {
    let mut known: Vec<usize> = (0..calls.len())
        .filter(|at| calls[*at].returned.is_some())
        .collect();
    let mut unknown: Vec<usize> = (0..calls.len())
        .filter(|at| calls[*at].returned.is_none())
        .collect();
    known.sort_by_key(|at| (calls[*at].invoked, calls[*at].id));
    unknown.sort_by_key(|at| (calls[*at].invoked, calls[*at].id));
    let mut search = Search {
        model,
        calls,
        known,
        unknown,
        first: 0,
        done: Bits::new(calls.len()),
        order: Vec::new(),
        entered: HashSet::new(),
        deepest: None,
    };
    search.run(steps)
}

struct Search<'c, M: Model> {
    model: &'c M,
    calls: &'c [Timed<M::Call>],
    /// Calls that returned, by invocation; those before `first` are all linearized.
    known: Vec<usize>,
    unknown: Vec<usize>,
    first: usize,
    done: Bits,
    /// What is linearized, in order.
    order: Vec<usize>,
    entered: HashSet<(Bits, M::State)>,
    /// How far the deepest attempt came: calls linearized, and what to say about it.
    deepest: Option<(usize, Answer)>,
}

/// A configuration on the way down, and what may come next from it.
struct Frame<S> {
    /// How many calls were linearized when it was entered, and how many of the known ones from the beginning.
    depth: usize,
    first: usize,
    candidates: std::vec::IntoIter<(usize, S)>,
}

impl<M: Model> Search<'_, M> {
    fn run(&mut self, steps: u64) -> Answer {
        let mut state = self.model.initial();
        let mut left = steps;
        let mut stack: Vec<Frame<M::State>> = Vec::new();
        loop {
            // Down: everything that fits and changes nothing, then one that changes the state.
            let reads = self.take_reads(&state);
            left = left.saturating_sub(1 + reads);
            if self.all_known_done() {
                return Answer::Linearizable;
            }
            if left == 0 {
                return Answer::Undecided;
            }
            let candidates = match self.entered.insert((self.done.clone(), state.clone())) {
                true => self.candidates(&state),
                false => Vec::new(),
            };
            if candidates.is_empty() {
                self.note(&state);
            }
            stack.push(Frame {
                depth: self.order.len(),
                first: self.first,
                candidates: candidates.into_iter(),
            });
            // Up, until there is another way.
            state = loop {
                let Some(frame) = stack.last_mut() else {
                    return self
                        .deepest
                        .take()
                        .map_or(Answer::Undecided, |(_, answer)| answer);
                };
                match frame.candidates.next() {
                    Some((call, next)) => {
                        let (depth, first) = (frame.depth, frame.first);
                        self.unwind(depth, first);
                        self.take(call);
                        break next;
                    }
                    None => drop(stack.pop()),
                }
            };
        }
    }

    fn all_known_done(&mut self) -> bool {
        while self.known.get(self.first).is_some_and(|at| self.done.has(*at)) {
            self.first += 1;
        }
        self.first == self.known.len()
    }

    fn take(&mut self, call: usize) {
        self.done.set(call);
        self.order.push(call);
    }

    fn unwind(&mut self, depth: usize, first: usize) {
        for call in self.order.drain(depth..) {
            self.done.clear(call);
        }
        self.first = first;
    }

    /// Linearizes every outstanding read that may come next and fits, until none is left. Returns how many calls
    /// were looked at.
    fn take_reads(&mut self, state: &M::State) -> u64 {
        let mut looked = 0;
        loop {
            let fitting: Vec<usize> = self
                .open()
                .into_iter()
                .filter(|at| {
                    let call = &self.calls[*at].call;
                    self.model.is_read(call) && self.model.step(state, call).is_some()
                })
                .collect();
            looked += 1;
            if fitting.is_empty() {
                return looked;
            }
            for at in fitting {
                self.take(at);
            }
        }
    }

    /// Outstanding calls that returned and that no other outstanding call precedes.
    fn open(&mut self) -> Vec<usize> {
        self.all_known_done();
        let mut open = Vec::new();
        let mut first_return = u64::MAX;
        for at in &self.known[self.first..] {
            if self.calls[*at].invoked > first_return {
                break;
            }
            if !self.done.has(*at) {
                first_return = first_return.min(self.calls[*at].returned.unwrap_or(u64::MAX));
                open.push(*at);
            }
        }
        // A call found early may have begun after one found later had returned.
        open.retain(|at| self.calls[*at].invoked <= first_return);
        open
    }

    /// What may come next and changes the state, with the state after it: those that must happen by their
    /// return, then those that may.
    fn candidates(&mut self, state: &M::State) -> Vec<(usize, M::State)> {
        let mut open = self.open();
        let first_return = open
            .iter()
            .filter_map(|at| self.calls[*at].returned)
            .min()
            .unwrap_or(u64::MAX);
        open.sort_by_key(|at| self.calls[*at].returned);
        let mut classes = HashSet::new();
        let optional = self.unknown.iter().copied().filter(|at| {
            let call = &self.calls[*at];
            call.invoked <= first_return
                && !self.done.has(*at)
                && call.class.is_none_or(|class| classes.insert(class))
        });
        let all: Vec<usize> = open.into_iter().chain(optional).collect();
        all.into_iter()
            .filter(|at| !self.model.is_read(&self.calls[*at].call))
            .filter_map(|at| Some((at, self.model.step(state, &self.calls[at].call)?)))
            .collect()
    }

    /// Remembers where the search was stuck, if it never came further.
    fn note(&mut self, state: &M::State) {
        let depth = self.order.len();
        if self
            .deepest
            .as_ref()
            .is_some_and(|(deepest, _)| *deepest >= depth)
        {
            return;
        }
        let stuck = self.open().into_iter().map(|at| self.calls[at].id).collect();
        let last = self
            .order
            .iter()
            .rev()
            .take(LAST)
            .rev()
            .map(|at| self.calls[*at].id)
            .collect();
        let answer = Answer::Not {
            state: format!("{state:?}"),
            stuck,
            last,
        };
        self.deepest = Some((depth, answer));
    }
}

/// A set of small numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Bits(vec![0; len.div_ceil(64)])
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn set(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn clear(&mut self, at: usize) {
        self.0[at / 64] &= !(1 << (at % 64));
    }
}
