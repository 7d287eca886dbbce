//! Raft: log store, apply, snapshots, network, read barriers.
