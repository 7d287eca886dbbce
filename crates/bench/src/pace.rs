//! When operations begin: the closed and the open loop.
//!
//! *Closed*: each client begins its next operation when the last one ended. That finds what a store can do, and flatters
//! it about latency: a store that stops for a second delays one operation for each client, where the world outside
//! would have sent thousands.
//!
//! *Open*: operations are due at a fixed rate, whoever answers. A client that is free takes the next one and begins when
//! it is due, or at once if it is overdue because all clients were waiting; its latency counts from when it was *due*.
//! So a stall shows in all that fell into it (Gil Tene's "coordinated omission" is what this avoids). What was due but
//! never begun by the end counts too, with the time it had waited by then.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::alarm::Alarm;

/// When a run starts, is measured, and ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// The first operation.
    pub(crate) start: Instant,
    /// From here it counts.
    pub(crate) measured: Instant,
    /// Nothing begins after this.
    pub(crate) end: Instant,
}

/// Hands out beginnings, to one client.
pub(crate) enum Pace {
    Closed { span: Span },
    Open { schedule: Arc<Schedule>, alarm: Alarm },
}

/// One beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beginning {
    /// Latency counts from here.
    pub(crate) due: Instant,
    /// How late the generator itself was: the client was free, and waited for this moment.
    pub(crate) late: Option<Duration>,
}

/// The arrivals of an open loop, shared by its clients.
pub(crate) struct Schedule {
    span: Span,
    interval_ns: f64,
    next: AtomicU64,
}

impl Schedule {
    pub(crate) fn new(span: Span, per_second: f64) -> Self {
        Schedule {
            span,
            interval_ns: 1e9 / per_second,
            next: AtomicU64::new(0),
        }
    }

    fn due(&self, arrival: u64) -> Instant {
        self.span.start + Duration::from_nanos((arrival as f64 * self.interval_ns) as u64)
    }

    /// When those were due that nobody ever began, though it was before the end. For after the run.
    pub(crate) fn never_begun(&self) -> impl Iterator<Item = Instant> + '_ {
        let first = self.next.load(Ordering::Relaxed);
        (first..)
            .map(|arrival| self.due(arrival))
            .take_while(|due| *due < self.span.end)
    }
}

impl Pace {
    pub(crate) fn closed(span: Span) -> Self {
        Pace::Closed { span }
    }

    pub(crate) fn open(schedule: Arc<Schedule>) -> io::Result<Self> {
        Ok(Pace::Open {
            schedule,
            alarm: Alarm::new()?,
        })
    }

    /// Waits for the next beginning; `now` is when the last operation ended. `None`: it is over.
    pub(crate) async fn next(&mut self, now: Instant) -> io::Result<Option<Beginning>> {
        match self {
            Pace::Closed { span } => Ok((now < span.end).then_some(Beginning { due: now, late: None })),
            Pace::Open { schedule, alarm } => {
                if now >= schedule.span.end {
                    return Ok(None);
                }
                let due = schedule.due(schedule.next.fetch_add(1, Ordering::Relaxed));
                if due >= schedule.span.end {
                    return Ok(None);
                }
                if due <= now {
                    return Ok(Some(Beginning { due, late: None }));
                }
                alarm.wait_until(due).await?;
                let late = Some(due.elapsed());
                Ok(Some(Beginning { due, late }))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn span() -> Span {
        let start = Instant::now();
        Span {
            start,
            measured: start,
            end: start + Duration::from_millis(100),
        }
    }

    #[tokio::test]
    async fn arrivals_keep_their_times_however_late_they_are_taken() {
        let span = span();
        let schedule = Arc::new(Schedule::new(span, 1_000.0));
        let mut pace = Pace::open(schedule.clone()).unwrap();
        // Nobody was free for the first 50 of them.
        let late = span.start + Duration::from_millis(50);
        for arrival in 0..50 {
            let next = pace.next(late).await.unwrap().unwrap();
            assert_eq!(next.due, span.start + Duration::from_millis(arrival));
        }
        // The rest is never begun.
        assert!(pace.next(span.end).await.unwrap().is_none());
        let left: Vec<Instant> = schedule.never_begun().collect();
        assert_eq!((left.len(), left[0]), (50, late));
    }
}
