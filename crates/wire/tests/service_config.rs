//! The published service_config.json speaks of every method, once, and never retries what is not safe to retry.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::{BTreeMap, BTreeSet};

use holdfast_wire::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use serde_json::Value;

fn methods() -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let services = set.file.iter().flat_map(|file| {
        file.service
            .iter()
            .map(move |service| (format!("{}.{}", file.package(), service.name()), service))
    });
    services
        .flat_map(|(name, service)| {
            service
                .method
                .iter()
                .map(move |method| format!("{name}/{}", method.name()))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn config() -> BTreeMap<String, Value> {
    let text = include_str!("../../../proto/holdfast/v1/service_config.json");
    let config: Value = serde_json::from_str(text).unwrap();
    let mut methods = BTreeMap::new();
    for entry in config["methodConfig"].as_array().unwrap() {
        for name in entry["name"].as_array().unwrap() {
            let method = format!(
                "{}/{}",
                name["service"].as_str().unwrap(),
                name["method"].as_str().unwrap()
            );
            assert!(
                methods.insert(method.clone(), entry.clone()).is_none(),
                "{method} occurs twice"
            );
        }
    }
    methods
}

#[test]
fn every_method_has_its_deadline() {
    let config = config();
    assert_eq!(config.keys().cloned().collect::<BTreeSet<_>>(), methods());
    for (method, entry) in config {
        let timeout = entry["timeout"].as_str().unwrap();
        let seconds: f64 = timeout.strip_suffix('s').unwrap().parse().unwrap();
        assert!(seconds > 0.0, "{method}");
    }
}

#[test]
fn only_what_is_safe_to_repeat_is_retried() {
    for (method, entry) in config() {
        let name = method.rsplit_once('/').unwrap().1;
        // Reads, and mutations that carry a request id. Streams resume in their own way.
        let is_read = ["Get", "BatchGet", "Lookup", "List"]
            .iter()
            .any(|verb| name.starts_with(verb));
        let has_request_id =
            method.starts_with("holdfast.v1.AccountService/") && !name.ends_with("ortAccounts");
        let retry = &entry["retryPolicy"];
        assert_eq!(!retry.is_null(), is_read || has_request_id, "{method}");
        if !retry.is_null() {
            // gRPC allows five; and ABORTED must not be repeated blindly.
            assert!(retry["maxAttempts"].as_u64().unwrap() <= 5);
            assert_eq!(
                retry["retryableStatusCodes"],
                serde_json::json!(["UNAVAILABLE"]),
                "{method}"
            );
        }
    }
}
