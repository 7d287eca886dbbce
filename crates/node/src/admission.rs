//! Admission: how much a node takes on at once.
//!
//! A queue that grows without bound only turns overload into slowness and then into an out-of-memory kill. So
//! work enters through permits, by count and by bytes, and what finds none is refused at once with
//! RESOURCE_EXHAUSTED and a hint when to retry. Reads, mutations and streams have permits of their own: a flood
//! of one does not starve the others, and none touches Raft's traffic.

use std::sync::Arc;

use holdfast_markers::reached;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::config::LimitsSection;

/// What kind of work asks to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A unary call that changes nothing.
    Read,
    /// A unary call that changes something.
    Write,
    /// An import or an export, for as long as it runs.
    Stream,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Work::Read => "read",
            Work::Write => "write",
            Work::Stream => "stream",
        }
    }
}

/// The node is full. Nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overloaded;

/// The node's permits.
#[derive(Debug)]
pub(crate) struct Admission {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// In KiB, because a semaphore counts to 2^29 only.
    kibibytes: Arc<Semaphore>,
}

/// Lets one piece of work be; dropped when it is done.
#[derive(Debug)]
pub(crate) struct Permit {
    _count: Option<OwnedSemaphorePermit>,
    _bytes: OwnedSemaphorePermit,
}

impl Admission {
    pub(crate) fn new(limits: &LimitsSection) -> Self {
        let kibibytes = usize::try_from(limits.in_flight_bytes_max() / 1024).unwrap_or(usize::MAX);
        Admission {
            reads: Arc::new(Semaphore::new(limits.max_in_flight_reads)),
            writes: Arc::new(Semaphore::new(limits.max_in_flight_writes)),
            streams: Arc::new(Semaphore::new(limits.max_streams)),
            kibibytes: Arc::new(Semaphore::new(kibibytes.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Lets work of `bytes` in, or says at once that there is no room.
    pub(crate) fn admit(&self, work: Work, bytes: usize) -> Result<Permit, Overloaded> {
        let counted = match work {
            Work::Read => &self.reads,
            Work::Write => &self.writes,
            Work::Stream => &self.streams,
        };
        let kibibytes = kibibytes_of(bytes);
        let permits = counted.clone().try_acquire_owned().and_then(|count| {
            Ok(Permit {
                _count: Some(count),
                _bytes: self.kibibytes.clone().try_acquire_many_owned(kibibytes)?,
            })
        });
        permits.map_err(|error| {
            debug_assert_eq!(
                error,
                TryAcquireError::NoPermits,
                "the semaphores are never closed"
            );
            reached!("admission.overloaded");
            metrics::counter!("holdfast_admission_refused_total", "work" => work.name()).increment(1);
            Overloaded
        })
    }

    /// Memory for one more item of a stream that was let in, if there is some now.
    pub(crate) fn room_now(&self, bytes: usize) -> Option<Permit> {
        let kibibytes = self.kibibytes.clone();
        let bytes = kibibytes.try_acquire_many_owned(kibibytes_of(bytes)).ok()?;
        Some(Permit {
            _count: None,
            _bytes: bytes,
        })
    }

    /// The same, once there is some. The stream's own caller is slowed down by that, nobody else; a stream that
    /// holds memory already must not wait here without working off what it holds it for.
    pub(crate) async fn wait_for_room(&self, bytes: usize) -> Permit {
        let kibibytes = kibibytes_of(bytes);
        let unclosed = "the semaphores are never closed";
        let bytes = self
            .kibibytes
            .clone()
            .acquire_many_owned(kibibytes)
            .await
            .expect(unclosed);
        Permit {
            _count: None,
            _bytes: bytes,
        }
    }

    /// Permits taken now: reads, writes, streams.
    pub(crate) fn in_flight(&self, limits: &LimitsSection) -> [(&'static str, usize); 3] {
        [
            (
                Work::Read.name(),
                limits.max_in_flight_reads - self.reads.available_permits(),
            ),
            (
                Work::Write.name(),
                limits.max_in_flight_writes - self.writes.available_permits(),
            ),
            (
                Work::Stream.name(),
                limits.max_streams - self.streams.available_permits(),
            ),
        ]
    }
}

/// A request costs its message and about as much again for what is made of it.
fn kibibytes_of(bytes: usize) -> u32 {
    u32::try_from(bytes / 512 + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_means_no_until_something_is_done() {
        let limits = LimitsSection {
            max_in_flight_writes: 2,
            memory_budget_mib: 64,
            ..LimitsSection::default()
        };
        let admission = Admission::new(&limits);
        let first = admission.admit(Work::Write, 100).unwrap();
        let _second = admission.admit(Work::Write, 100).unwrap();
        assert_eq!(admission.admit(Work::Write, 100).unwrap_err(), Overloaded);
        // Reads have their own count.
        assert!(admission.admit(Work::Read, 100).is_ok());
        assert_eq!(admission.in_flight(&limits)[1], ("write", 2));
        drop(first);
        assert!(admission.admit(Work::Write, 100).is_ok());
    }

    #[test]
    fn bytes_are_bounded_too() {
        let limits = LimitsSection {
            memory_budget_mib: 64,
            ..LimitsSection::default()
        };
        let admission = Admission::new(&limits);
        let held: Vec<_> = (0..100)
            .map_while(|_| admission.admit(Work::Read, 1024 * 1024).ok())
            .collect();
        // 16 MiB in all, 2 MiB for each megabyte of message; the last one has no room for its one KiB more.
        assert_eq!(held.len(), 7);
        assert!(admission.admit(Work::Write, 4 * 1024 * 1024).is_err());
        drop(held);
        assert!(admission.admit(Work::Write, 4 * 1024 * 1024).is_ok());
    }
}
