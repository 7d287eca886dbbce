//! What one client saw. Each client has its own and no other touches it; they are added up when all is over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::measurement::{Errors, Latency, Window};
use crate::pace::Span;
use crate::target::{Class, Failure};
use crate::workload::Operation;

/// Digits that are exact in a latency: 0.1 %.
const DIGITS: u8 = 3;

/// Counts and latencies.
///
/// An operation counts if it ended after the measured time began and was due before that time ended. So the ones under
/// way at either edge count in full, and a store cannot hide a slow operation behind the end of the run. Throughput
/// counts only what ended within.
pub(crate) struct Tally {
    span: Span,
    /// By [`Operation`], microseconds.
    latencies: [Histogram<u64>; Operation::ALL.len()],
    /// Whole operations: the parts of a sign-up are not in it.
    all: Histogram<u64>,
    windows: Vec<Window>,
    errors: BTreeMap<Class, Errors>,
    pub(crate) conflicts: u64,
    late: Histogram<u64>,
    reads: Moments,
    writes: Moments,
}

impl Tally {
    pub(crate) fn new(span: Span) -> Self {
        let seconds = (span.end - span.measured).as_secs_f64().ceil() as usize;
        Tally {
            span,
            latencies: Operation::ALL.map(|_| empty()),
            all: empty(),
            windows: vec![Window::default(); seconds],
            errors: BTreeMap::new(),
            conflicts: 0,
            late: empty(),
            reads: Moments::default(),
            writes: Moments::default(),
        }
    }

    /// Takes the memory that these operations will need, in which a histogram grows whenever it meets a longer latency.
    /// Hundreds of clients would do that all at once when the measured time begins, and be measured doing it.
    pub(crate) fn grow(&mut self, operations: &[Operation]) {
        let latencies = operations.iter().map(|operation| *operation as usize);
        for which in latencies {
            grow(&mut self.latencies[which]);
        }
        grow(&mut self.all);
        grow(&mut self.late);
    }

    /// Counts from another moment; nothing may have been counted yet.
    pub(crate) fn begin(&mut self, span: Span) {
        self.span = span;
    }

    /// A whole operation that ended at `ended`: with this many units of work done, or in failure.
    pub(crate) fn whole(
        &mut self,
        operation: Operation,
        due: Instant,
        ended: Instant,
        result: &Result<u64, Failure>,
    ) {
        if !self.counts(due, ended) {
            return;
        }
        let latency_us = micros(ended - due);
        note(&mut self.all, latency_us);
        self.part(operation, due, ended);
        let at = ended - self.span.measured;
        let second = at.as_secs() as usize;
        let within = ended < self.span.end;
        if let Some(window) = self.windows.get_mut(second).filter(|_| within) {
            match result {
                Ok(units) => window.done += units,
                Err(_) => window.errors += 1,
            }
            window.slowest_us = window.slowest_us.max(latency_us);
        }
        match result {
            Ok(_) if operation.writes() => self.writes.mark(at),
            Ok(_) => self.reads.mark(at),
            Err(failure) => self.failed(failure),
        }
    }

    /// A step of an operation, or all of it: only its latency.
    pub(crate) fn part(&mut self, operation: Operation, due: Instant, ended: Instant) {
        if self.counts(due, ended) {
            note(&mut self.latencies[operation as usize], micros(ended - due));
        }
    }

    /// An operation that was due and never begun.
    pub(crate) fn never_begun(&mut self, due: Instant) {
        if due >= self.span.measured {
            note(&mut self.all, micros(self.span.end - due));
        }
    }

    /// How late the generator began something.
    pub(crate) fn late(&mut self, late: Duration) {
        note(&mut self.late, micros(late));
    }

    fn counts(&self, due: Instant, ended: Instant) -> bool {
        ended >= self.span.measured && due < self.span.end
    }

    fn failed(&mut self, failure: &Failure) {
        let errors = self.errors.entry(failure.class).or_insert_with(|| Errors {
            count: 0,
            first: failure.message.clone(),
        });
        errors.count += 1;
    }

    /// Adds what another client of the same run saw.
    pub(crate) fn add(&mut self, other: &Tally) {
        let histograms = self.latencies.iter_mut().chain([&mut self.all, &mut self.late]);
        let others = other.latencies.iter().chain([&other.all, &other.late]);
        for (mine, theirs) in histograms.zip(others) {
            mine.add(theirs)
                .expect("histograms that grow take what another of their precision took");
        }
        for (mine, theirs) in self.windows.iter_mut().zip(&other.windows) {
            mine.done += theirs.done;
            mine.errors += theirs.errors;
            mine.slowest_us = mine.slowest_us.max(theirs.slowest_us);
        }
        for (class, theirs) in &other.errors {
            let mine = self.errors.entry(*class).or_insert_with(|| Errors {
                count: 0,
                first: theirs.first.clone(),
            });
            mine.count += theirs.count;
        }
        self.conflicts += other.conflicts;
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
    }

    /// Latencies of all whole operations.
    pub(crate) fn all(&self) -> Latency {
        latency(&self.all)
    }

    /// Latencies by operation, those that occurred.
    pub(crate) fn operations(&self) -> BTreeMap<String, Latency> {
        Operation::ALL
            .iter()
            .zip(&self.latencies)
            .filter(|(_, histogram)| !histogram.is_empty())
            .map(|(operation, histogram)| (operation.name().to_owned(), latency(histogram)))
            .collect()
    }

    /// How late the generator began what it had waited for; none in a closed loop.
    pub(crate) fn lateness(&self) -> Option<Latency> {
        (!self.late.is_empty()).then(|| latency(&self.late))
    }

    /// The seconds of the measured time. The last may be shorter.
    pub(crate) fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// By class.
    pub(crate) fn errors(&self) -> &BTreeMap<Class, Errors> {
        &self.errors
    }

    /// The longest time within the measured one without a read, and without a write, that succeeded; none if there was
    /// none at all.
    pub(crate) fn silences(&self) -> (Option<Duration>, Option<Duration>) {
        let whole = self.span.end - self.span.measured;
        (self.reads.longest_gap(whole), self.writes.longest_gap(whole))
    }
}

fn empty() -> Histogram<u64> {
    Histogram::new(DIGITS).expect("three digits are within what it allows")
}

/// Latencies up to this grow a histogram beforehand: 90 KB.
const GROWN_US: u64 = 1_000_000;

fn grow(histogram: &mut Histogram<u64>) {
    note(histogram, GROWN_US);
    histogram.reset();
}

fn note(histogram: &mut Histogram<u64>, value_us: u64) {
    histogram
        .record(value_us)
        .expect("a histogram that grows takes any value");
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    Latency {
        count: histogram.len(),
        mean_us: histogram.mean(),
        p50_us: histogram.value_at_quantile(0.50),
        p95_us: histogram.value_at_quantile(0.95),
        p99_us: histogram.value_at_quantile(0.99),
        p999_us: histogram.value_at_quantile(0.999),
        max_us: histogram.max(),
    }
}

/// The milliseconds in which something succeeded, a bit each: an hour is 450 KB.
#[derive(Debug, Default)]
struct Moments {
    words: Vec<u64>,
}

impl Moments {
    fn mark(&mut self, at: Duration) {
        let millis = at.as_millis() as usize;
        let word = millis / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (millis % 64);
    }

    fn add(&mut self, other: &Moments) {
        if other.words.len() > self.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine |= theirs;
        }
    }

    /// The edges count: silence before the first success and after the last.
    fn longest_gap(&self, whole: Duration) -> Option<Duration> {
        let whole_ms = whole.as_millis() as usize;
        let mut marks = (0..self.words.len() * 64)
            .filter(|at| self.words[at / 64] >> (at % 64) & 1 == 1)
            .take_while(|at| *at < whole_ms)
            .peekable();
        marks.peek()?;
        let mut longest = 0;
        let mut last = 0;
        for at in marks.chain([whole_ms]) {
            longest = longest.max(at - last);
            last = at;
        }
        Some(Duration::from_millis(longest as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn span() -> Span {
        let start = Instant::now();
        Span {
            start,
            measured: start + millis(1_000),
            end: start + millis(3_000),
        }
    }

    #[test]
    fn what_is_under_way_at_an_edge_counts_and_what_is_outside_does_not() {
        let span = span();
        let at = |ms| span.start + millis(ms);
        let mut tally = Tally::new(span);
        let mut get = |due, ended| tally.whole(Operation::Get, at(due), at(ended), &Ok(1));
        get(0, 999);
        get(900, 1_100);
        get(1_500, 1_510);
        get(2_900, 3_400);
        get(3_000, 3_001);
        let all = tally.all();
        assert_eq!(all.count, 3);
        assert!((499_000..501_000).contains(&all.max_us), "{all:?}");
        let done: Vec<u64> = tally.windows().iter().map(|window| window.done).collect();
        assert_eq!(done, [2, 0], "the one that ended late is not throughput");
    }

    #[test]
    fn what_is_grown_has_counted_nothing() {
        let span = span();
        let mut tally = Tally::new(span);
        tally.grow(&[Operation::Get]);
        tally.begin(span);
        assert_eq!((tally.all().count, tally.lateness()), (0, None));
        assert!(tally.operations().is_empty());
        let at = |ms| span.start + millis(ms);
        tally.whole(Operation::Get, at(1_000), at(1_010), &Ok(1));
        assert!(
            (10_000..10_010).contains(&tally.all().max_us),
            "{:?}",
            tally.all()
        );
    }

    #[test]
    fn clients_add_up() {
        let span = span();
        let at = |ms| span.start + millis(ms);
        let mut one = Tally::new(span);
        let mut other = Tally::new(span);
        one.whole(Operation::Get, at(1_000), at(1_010), &Ok(1));
        other.whole(Operation::Get, at(2_000), at(2_030), &Ok(1));
        for message in ["first", "second"] {
            let failure = Err(Failure::new(Class::Unavailable, message));
            other.whole(Operation::Create, at(2_000), at(2_100), &failure);
        }
        other.conflicts = 3;
        one.add(&other);
        assert_eq!(one.all().count, 4);
        assert_eq!(one.operations()["get"].count, 2);
        assert!((30_000..30_100).contains(&one.operations()["get"].max_us));
        let errors = &one.errors()[&Class::Unavailable];
        assert_eq!(
            (errors.count, errors.first.as_str(), one.conflicts),
            (2, "first", 3)
        );
        let windows = one.windows();
        assert_eq!((windows[0].done, windows[1].done, windows[1].errors), (1, 1, 2));
    }

    #[test]
    fn the_longest_silence_includes_the_edges() {
        let whole = millis(1_000);
        let gap = |marks: &[u64]| {
            let mut moments = Moments::default();
            marks.iter().for_each(|at| moments.mark(millis(*at)));
            moments.longest_gap(whole)
        };
        assert_eq!(gap(&[]), None);
        assert_eq!(gap(&[0, 500, 999]), Some(millis(500)));
        assert_eq!(gap(&[600, 700]), Some(millis(600)));
        assert_eq!(gap(&[10, 70]), Some(millis(930)));
        assert_eq!(
            gap(&[10, 70, 2_000]),
            Some(millis(930)),
            "what came after the end is not in it"
        );
    }
}
