//! Raft's log store and state machine pass openraft's own suite on RocksDB, as they do on the fault-injecting engine.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

mod support;

use std::sync::Arc;

use holdfast_consensus::testing::log_suite;
use holdfast_storage::engine::Engine;

#[test]
fn passes_openrafts_suite() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(log_suite(|| async {
        let root = tempfile::tempdir().unwrap();
        let engine: Arc<dyn Engine> = Arc::new(support::open(root.path()).unwrap());
        (root, engine)
    }));
}
