//! The disk guard: stop growing before the log has nowhere to go.
//!
//! A full disk fails a sync, and a failed sync stops the node. So while less than the reserve is free, creates
//! and imports are refused; reads go on, and so do updates and deletes, without which nobody could make room.
//! It ends by itself once a tenth more than the reserve is free again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use holdfast_markers::reached;
use holdfast_storage::engine::Usage;

use crate::config::DiskSection;

/// Whether there is room to grow, as last looked up.
#[derive(Debug)]
pub(crate) struct DiskGuard {
    reserve_bytes: u64,
    nearly_full: AtomicBool,
    /// So many other members' disks are nearly full that losing them would end the quorum.
    quorum_nearly_full: AtomicBool,
    free_bytes: AtomicU64,
}

impl DiskGuard {
    pub(crate) fn new(config: &DiskSection) -> Self {
        DiskGuard {
            reserve_bytes: config.reserve_mib * 1024 * 1024,
            nearly_full: AtomicBool::new(false),
            quorum_nearly_full: AtomicBool::new(false),
            free_bytes: AtomicU64::new(u64::MAX),
        }
    }

    /// Takes a measurement. An engine without a file system never fills.
    pub(crate) fn measured(&self, usage: &Usage) {
        let Some(free) = usage.disk_free_bytes else { return };
        self.free_bytes.store(free, Ordering::Relaxed);
        let was = self.nearly_full.load(Ordering::Relaxed);
        let until = if was {
            self.reserve_bytes + self.reserve_bytes / 10
        } else {
            self.reserve_bytes
        };
        let is = free < until;
        if is != was {
            self.nearly_full.store(is, Ordering::Relaxed);
            if is {
                reached!("disk.nearly-full");
                tracing::warn!(
                    free_bytes = free,
                    reserve_bytes = self.reserve_bytes,
                    "the disk is nearly full: creates and imports are refused"
                );
            } else {
                reached!("disk.has-room-again");
                tracing::info!(
                    free_bytes = free,
                    "the disk has room again: creates and imports are accepted"
                );
            }
        }
        metrics::gauge!("holdfast_disk_nearly_full").set(f64::from(u8::from(is)));
    }

    /// Takes what the other members report: one full disk is that node's trouble, too many are everybody's.
    pub(crate) fn peers_nearly_full(&self, nearly_full: usize, members: usize) {
        self.quorum_nearly_full.store(
            nearly_full > 0 && nearly_full > members.saturating_sub(1) / 2,
            Ordering::Relaxed,
        );
    }

    /// Whether creates and imports must wait because of other members' disks.
    pub(crate) fn quorum_nearly_full(&self) -> bool {
        self.quorum_nearly_full.load(Ordering::Relaxed)
    }

    /// Whether creates and imports must wait because of this node's disk.
    pub(crate) fn nearly_full(&self) -> bool {
        self.nearly_full.load(Ordering::Relaxed)
    }

    /// What an operator should know, if there is anything.
    pub(crate) fn alarm(&self) -> Option<String> {
        self.nearly_full().then(|| {
            format!(
                "disk nearly full: {} MiB free, {} MiB must stay free; creates and imports are refused",
                self.free_bytes.load(Ordering::Relaxed) >> 20,
                self.reserve_bytes >> 20
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_below_the_reserve_and_opens_above_it() {
        let guard = DiskGuard::new(&DiskSection {
            reserve_mib: 100,
            ballast_mib: 0,
        });
        let mut seen = Vec::new();
        for free_mib in [500, 100, 99, 105, 110, 100, 99] {
            guard.measured(&Usage {
                disk_free_bytes: Some(free_mib << 20),
                ..Usage::default()
            });
            seen.push(guard.nearly_full());
        }
        assert_eq!(seen, [false, false, true, true, false, false, true]);
        assert!(guard.alarm().unwrap().contains("99 MiB free"));
        guard.measured(&Usage::default());
        assert!(guard.nearly_full(), "no news is no news");
    }
}
