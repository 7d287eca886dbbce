//! RocksDB passes the contract suite that every engine must pass.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

mod support;

use holdfast_storage::contract;
use support::subject::Stores;

#[tokio::test]
async fn passes_the_contract_suite() {
    contract::run_all(&Stores::default()).await;
}
