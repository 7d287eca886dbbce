//! Strict serializability: there is one order of all operations, over all accounts and identifiers at once, that
//! agrees with what each of them saw and with real time.
//!
//! *Algorithm.* Elle (Kingsbury & Alvaro, 2020): because every value is unique to its writer and revisions number
//! an account's versions, most of the order can be read off the answers. Edges say *must come before*:
//!
//! | edge | from | to |
//! |---|---|---|
//! | ww | who made a revision | who made the account's next one that is known |
//! | wr | who made the revision seen, or the last known one before it | who saw it |
//! | rw | who saw a revision | who made the next one that is known |
//! | identifier | who gave an identifier up | who took it or found it free afterwards |
//! | time | an operation that returned | one that began after that |
//!
//! A cycle is a proof that no order exists; the shortest one found is reported. Real time costs only O(n) edges: a
//! chain of barriers, one for each return, that an operation enters at its return and leaves at its invocation.
//!
//! Several accounts in one answer (a batch, a page, an export) are one operation, which is what this judge adds
//! to the others. Reads that may be old have no edge from what returned before them.
//!
//! *What it cannot see.* Edges that do not follow from answers: refusals, and who made a revision when several calls
//! of unknown outcome may have.

use std::collections::{BTreeMap, VecDeque};

use super::Verdict;
use super::evidence::{Evidence, NEVER, Seen};
use crate::history::{Consistency, History, Input, Outcome, Output};

const JUDGE: &str = "serializability";

/// Judges the whole history at once.
pub fn judge(history: &History) -> Verdict {
    let evidence = Evidence::of(history);
    let mut graph = Graph::of(&evidence);
    graph.accounts(&evidence);
    graph.identifiers(&evidence);
    graph.real_time();
    let mut verdict = Verdict {
        checked: graph.nodes.len() as u64,
        ..Verdict::default()
    };
    for component in graph.components() {
        let cycle = graph.shortest_cycle(&component);
        let mut message = "no order of these operations agrees with what they saw: ".to_owned();
        for (node, edge) in &cycle {
            message.push_str(&format!("{} must come before ({edge}) ", graph.nodes[*node].id));
        }
        message.push_str("the first again");
        verdict.violation(
            JUDGE,
            message,
            cycle.iter().map(|(node, _)| graph.nodes[*node].id),
        );
    }
    verdict
}

/// An operation as a whole.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// Its operation.
    id: u64,
    /// What returned before this precedes it; none: nothing does for that reason.
    invoked: Option<u64>,
    /// It precedes what began after this.
    returned: u64,
}

/// Why one comes before another.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Edge {
    Because(String),
    /// Into, along or out of the chain of barriers.
    Time,
}

struct Graph {
    /// The operations; in the graph the barriers follow them.
    nodes: Vec<Node>,
    edges: Vec<Vec<(usize, Edge)>>,
    /// The node of each request that had an effect, by its place in the evidence.
    makers: BTreeMap<usize, usize>,
    /// The node of each read, by operation id.
    reads: BTreeMap<u64, usize>,
}

impl Graph {
    fn of(evidence: &Evidence<'_>) -> Self {
        let mut graph = Graph {
            nodes: Vec::new(),
            edges: Vec::new(),
            makers: BTreeMap::new(),
            reads: BTreeMap::new(),
        };
        for track in evidence.tracks.values() {
            for at in track.makers.values() {
                let request = &evidence.requests[*at];
                graph.makers.insert(*at, graph.nodes.len());
                graph.nodes.push(Node {
                    id: request.calls[0].id,
                    invoked: Some(request.invoked),
                    returned: request.settled,
                });
            }
        }
        for operation in &evidence.history.operations {
            let Some(consistency) = operation.input.consistency() else {
                continue;
            };
            if matches!(operation.outcome, Outcome::Ok { .. }) {
                graph.reads.insert(operation.id, graph.nodes.len());
                graph.nodes.push(Node {
                    id: operation.id,
                    invoked: (consistency == Consistency::Linearizable).then_some(operation.invoked),
                    returned: operation.returned.unwrap_or(NEVER),
                });
            }
        }
        graph.edges = vec![Vec::new(); graph.nodes.len()];
        graph
    }

    fn edge(&mut self, from: usize, to: usize, why: String) {
        if from != to {
            self.edges[from].push((to, Edge::Because(why)));
        }
    }

    /// ww, wr and rw on accounts.
    fn accounts(&mut self, evidence: &Evidence<'_>) {
        for (account, track) in &evidence.tracks {
            let makers: Vec<(u64, usize)> = track
                .makers
                .iter()
                .map(|(revision, at)| (*revision, self.makers[at]))
                .collect();
            for pair in makers.windows(2) {
                let [(one, from), (other, to)] = pair else {
                    continue;
                };
                self.edge(*from, *to, format!("ww {account} {one}, {other}"));
            }
            let purgeable = track.may_be_purged(&evidence.requests);
            for sight in &track.sights {
                let Some(read) = self.reads.get(&sight.by.id).copied() else {
                    continue;
                };
                let seen = match sight.seen {
                    Seen::View(view) => view.revision,
                    Seen::NotFound => 0,
                    Seen::Gone if !purgeable => 0,
                    Seen::Gone => continue,
                    // After every change.
                    Seen::Purged => NEVER,
                };
                let next = makers.partition_point(|(revision, _)| *revision <= seen);
                if let Some((revision, maker)) = next.checked_sub(1).map(|at| makers[at]) {
                    self.edge(maker, read, format!("wr {account} {revision}"));
                }
                if let Some((revision, maker)) = makers.get(next) {
                    self.edge(read, *maker, format!("rw {account} {revision}"));
                }
            }
        }
    }

    /// Who gave an identifier up comes before whoever took it, or missed it, later.
    fn identifiers(&mut self, evidence: &Evidence<'_>) {
        for (identifier, accounts) in evidence.identifiers() {
            // Who took it, and who gave it up again.
            let mut tenures: Vec<(&str, usize, Option<usize>)> = Vec::new();
            for account in accounts {
                let track = &evidence.tracks[account];
                let holds = |revision: u64| {
                    let state = track.states.get(&revision)?;
                    Some(state.identifiers.contains(identifier))
                };
                let maker = |revision: u64| track.makers.get(&revision).map(|at| self.makers[at]);
                for revision in track.states.keys().copied() {
                    let taken = revision == 1 || holds(revision - 1) == Some(false);
                    if holds(revision) != Some(true) || !taken {
                        continue;
                    }
                    let mut after = revision + 1;
                    while holds(after) == Some(true) {
                        after += 1;
                    }
                    let left = if holds(after) == Some(false) {
                        maker(after)
                    } else {
                        None
                    };
                    if let Some(start) = maker(revision) {
                        tenures.push((account, start, left));
                    }
                }
            }
            for (one, start, left) in &tenures {
                let Some(left) = left else { continue };
                for (other, later, _) in &tenures {
                    if one != other && self.precedes(*start, *later) {
                        self.edge(
                            *left,
                            *later,
                            format!("identifier {identifier} from {one} to {other}"),
                        );
                    }
                }
                for operation in &evidence.history.operations {
                    let (
                        Input::Lookup {
                            identifier: asked,
                            consistency,
                        },
                        Outcome::Ok {
                            output: Output::NotFound,
                            ..
                        },
                    ) = (&operation.input, &operation.outcome)
                    else {
                        continue;
                    };
                    if asked != identifier || *consistency != Consistency::Linearizable {
                        continue;
                    }
                    let read = self.reads[&operation.id];
                    if self.precedes(*start, read) {
                        self.edge(*left, read, format!("identifier {identifier} left by {one}"));
                    } else if self.precedes(read, *left) {
                        self.edge(
                            read,
                            *start,
                            format!("identifier {identifier} not yet taken by {one}"),
                        );
                    }
                }
            }
        }
    }

    /// Whether one certainly returned before the other began.
    fn precedes(&self, one: usize, other: usize) -> bool {
        self.nodes[other]
            .invoked
            .is_some_and(|invoked| self.nodes[one].returned < invoked)
    }

    /// The chain of barriers.
    fn real_time(&mut self) {
        let mut returns: Vec<(u64, usize)> = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.returned < NEVER)
            .map(|(at, node)| (node.returned, at))
            .collect();
        returns.sort_unstable();
        let first = self.nodes.len();
        self.edges.resize(first + returns.len(), Vec::new());
        for (place, (_, node)) in returns.iter().enumerate() {
            self.edges[*node].push((first + place, Edge::Time));
            if place + 1 < returns.len() {
                self.edges[first + place].push((first + place + 1, Edge::Time));
            }
        }
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(invoked) = node.invoked else { continue };
            let before = returns.partition_point(|(returned, _)| *returned < invoked);
            if let Some(place) = before.checked_sub(1) {
                self.edges[first + place].push((at, Edge::Time));
            }
        }
    }

    /// The strongly connected components with more than one member (Tarjan 1972, without recursion).
    fn components(&self) -> Vec<Vec<usize>> {
        const UNSEEN: usize = usize::MAX;
        let count = self.edges.len();
        let (mut number, mut low) = (vec![UNSEEN; count], vec![0; count]);
        let mut on_stack = vec![false; count];
        let mut stack = Vec::new();
        let mut next = 0;
        let mut found = Vec::new();
        for root in 0..count {
            if number[root] != UNSEEN {
                continue;
            }
            // A node and how many of its edges have been followed.
            let mut path: Vec<(usize, usize)> = vec![(root, 0)];
            while let Some((node, followed)) = path.last_mut() {
                let node = *node;
                if *followed == 0 {
                    number[node] = next;
                    low[node] = next;
                    next += 1;
                    stack.push(node);
                    on_stack[node] = true;
                }
                if let Some((to, _)) = self.edges[node].get(*followed) {
                    *followed += 1;
                    if number[*to] == UNSEEN {
                        path.push((*to, 0));
                    } else if on_stack[*to] {
                        low[node] = low[node].min(number[*to]);
                    }
                    continue;
                }
                path.pop();
                if let Some((parent, _)) = path.last() {
                    low[*parent] = low[*parent].min(low[node]);
                }
                if low[node] == number[node] {
                    let at = stack.iter().rposition(|other| *other == node).unwrap_or(0);
                    let members: Vec<usize> = stack.drain(at..).collect();
                    members.iter().for_each(|member| on_stack[*member] = false);
                    if members.len() > 1 {
                        found.push(members);
                    }
                }
            }
        }
        found
    }

    /// A cycle with as few operations as possible: each with why it comes before the next.
    fn shortest_cycle(&self, component: &[usize]) -> Vec<(usize, String)> {
        let mut inside = vec![false; self.edges.len()];
        component.iter().for_each(|node| inside[*node] = true);
        let mut best: Option<Vec<usize>> = None;
        for start in component.iter().filter(|node| **node < self.nodes.len()) {
            if let Some(cycle) = self.cycle_through(*start, &inside)
                && best
                    .as_ref()
                    .is_none_or(|best| self.operations(&cycle) < self.operations(best))
            {
                best = Some(cycle);
            }
        }
        let cycle = best.unwrap_or_default();
        let mut told: Vec<(usize, String)> = Vec::new();
        for (at, node) in cycle.iter().enumerate() {
            let next = cycle[(at + 1) % cycle.len()];
            let why = self.edges[*node]
                .iter()
                .find(|(to, _)| *to == next)
                .map(|(_, edge)| edge);
            if *node < self.nodes.len() {
                let why = match why {
                    Some(Edge::Because(why)) => why.clone(),
                    Some(Edge::Time) | None => "time".to_owned(),
                };
                told.push((*node, why));
            }
        }
        told
    }

    fn operations(&self, cycle: &[usize]) -> usize {
        cycle.iter().filter(|node| **node < self.nodes.len()).count()
    }

    /// Breadth first, where only operations count as steps.
    fn cycle_through(&self, start: usize, inside: &[bool]) -> Option<Vec<usize>> {
        let mut came_from: BTreeMap<usize, usize> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for (to, _) in self.edges[node].iter().filter(|(to, _)| inside[*to]) {
                if *to == start {
                    let mut cycle = vec![node];
                    let mut at = node;
                    while at != start {
                        at = came_from[&at];
                        cycle.push(at);
                    }
                    cycle.reverse();
                    return Some(cycle);
                }
                if !came_from.contains_key(to) {
                    came_from.insert(*to, node);
                    match *to < self.nodes.len() {
                        true => queue.push_back(*to),
                        false => queue.push_front(*to),
                    }
                }
            }
        }
        None
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::judges::miniature::random_run;
    use crate::judges::testing::*;

    /// The ids of the cycle, if there is one.
    fn cycle(history: &History) -> Vec<u64> {
        let verdict = judge(history);
        let mut ids: Vec<u64> = verdict
            .violations
            .into_iter()
            .flat_map(|violation| violation.operations)
            .collect();
        ids.sort_unstable();
        ids
    }

    fn begun() -> History {
        let mut history = History::default();
        history.ok((0, 10), create("a", "a1", &[]), made(view("a", 1, "a1", &[])));
        history.ok((0, 10), create("b", "b1", &[]), made(view("b", 1, "b1", &[])));
        history
    }

    #[test]
    fn two_readers_who_see_two_writes_in_opposite_orders_are_rejected() {
        let seen = |a: u64, b: u64| {
            found(vec![
                view("a", a, &format!("a{a}"), &[]),
                view("b", b, &format!("b{b}"), &[]),
            ])
        };
        let history = |one: (u64, u64), other: (u64, u64)| {
            let mut history = begun();
            history.ok((20, 90), update("a", "a2"), made(view("a", 2, "a2", &[])));
            history.ok((20, 90), update("b", "b2"), made(view("b", 2, "b2", &[])));
            history.ok((20, 90), batch(&["a", "b"]), seen(one.0, one.1));
            history.ok((20, 90), batch(&["a", "b"]), seen(other.0, other.1));
            history
        };
        // The long fork: each account alone is fine.
        assert_eq!(cycle(&history((2, 1), (1, 2))), [3, 4, 5, 6]);
        assert_eq!(cycle(&history((2, 1), (2, 2))), [0; 0]);
        assert_eq!(cycle(&history((2, 1), (1, 1))), [0; 0]);
        let linearizable = super::super::linearizability::judge(&history((2, 1), (1, 2)), 10_000);
        assert_eq!(linearizable.violations, []);
    }

    #[test]
    fn an_answer_of_two_instants_is_rejected() {
        let mut history = begun();
        history.ok((20, 30), update("a", "a2"), made(view("a", 2, "a2", &[])));
        history.ok((40, 50), update("b", "b2"), made(view("b", 2, "b2", &[])));
        let mut fine = history.clone();
        fine.ok(
            (15, 60),
            batch(&["a", "b"]),
            found(vec![view("a", 2, "a2", &[]), view("b", 1, "b1", &[])]),
        );
        assert_eq!(cycle(&fine), [0; 0]);
        // It sees the second write and not the first, which was over before the second began.
        history.ok(
            (15, 60),
            batch(&["a", "b"]),
            found(vec![view("a", 1, "a1", &[]), view("b", 2, "b2", &[])]),
        );
        assert_eq!(cycle(&history), [3, 4, 5]);
    }

    #[test]
    fn a_stale_read_is_rejected_unless_it_may_be_old() {
        let read = |consistency| {
            let mut history = begun();
            history.ok((20, 30), update("a", "a2"), made(view("a", 2, "a2", &[])));
            history.ok(
                (40, 50),
                get_with("a", consistency),
                Output::Account(view("a", 1, "a1", &[])),
            );
            cycle(&history)
        };
        assert_eq!(read(Consistency::Linearizable), [3, 4]);
        assert_eq!(read(Consistency::Stale { max_ms: None }), [0; 0]);
    }

    #[test]
    fn an_identifier_that_moves_orders_its_accounts() {
        let mut history = History::default();
        history.ok(
            (0, 10),
            create("a", "a1", &["x"]),
            made(view("a", 1, "a1", &["x"])),
        );
        history.ok((20, 90), change("a", &[], &["x"]), made(view("a", 2, "a1", &[])));
        history.ok(
            (20, 90),
            create("b", "b1", &["x"]),
            made(view("b", 1, "b1", &["x"])),
        );
        let both = |a: AccountView, b: AccountView| found(vec![a, b]);
        use crate::history::AccountView;
        let mut fine = history.clone();
        fine.ok(
            (20, 90),
            batch(&["a", "b"]),
            both(view("a", 2, "a1", &[]), view("b", 1, "b1", &["x"])),
        );
        assert_eq!(cycle(&fine), [0; 0]);
        history.ok(
            (20, 90),
            batch(&["a", "b"]),
            both(view("a", 1, "a1", &["x"]), view("b", 1, "b1", &["x"])),
        );
        assert_eq!(cycle(&history), [2, 3, 4]);
    }

    proptest! {
        #![proptest_config(cases(256))]
        #[test]
        fn runs_of_a_correct_service_pass(seed: u64, calls in 1_usize..120) {
            let run = random_run(seed, calls);
            let verdict = judge(&run.history);
            prop_assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
        }
    }
}
