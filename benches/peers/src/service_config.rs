//! The service config that is published beside the protocol: what gRPC's own libraries do with it for a client of accounts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tonic::Code;

const SERVICE_CONFIG: &str = include_str!("../../../proto/holdfast/v1/service_config.json");

/// What the config says.
pub(crate) struct ServiceConfig {
    methods: BTreeMap<String, Policy>,
    /// Of the throttling of retries.
    pub(crate) tokens_max: f64,
    /// What a success gives back.
    pub(crate) token_ratio: f64,
}

/// About one method.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Policy {
    /// Of a call, with all its attempts.
    pub(crate) timeout: Duration,
    pub(crate) attempts_max: u32,
    first_wait: Duration,
    wait_max: Duration,
    wait_factor: f64,
    codes: Vec<String>,
}

impl ServiceConfig {
    /// As it is published.
    pub(crate) fn published() -> Result<ServiceConfig, String> {
        let config: Value = serde_json::from_str(SERVICE_CONFIG)
            .map_err(|why| format!("the service config is no JSON: {why}"))?;
        let mut methods = BTreeMap::new();
        for entry in array(&config["methodConfig"]) {
            let policy = Policy::parse(entry)
                .ok_or_else(|| format!("an entry of the service config is not understood: {entry}"))?;
            for name in array(&entry["name"]) {
                if name["service"] == "holdfast.v1.AccountService" {
                    let method = name["method"].as_str().unwrap_or_default();
                    methods.insert(method.to_owned(), policy.clone());
                }
            }
        }
        let throttling = &config["retryThrottling"];
        Ok(ServiceConfig {
            methods,
            tokens_max: throttling["maxTokens"].as_f64().ok_or("no maxTokens")?,
            token_ratio: throttling["tokenRatio"].as_f64().ok_or("no tokenRatio")?,
        })
    }

    /// A test says that all methods are there that are called.
    pub(crate) fn method(&self, name: &str) -> &Policy {
        &self.methods[name]
    }
}

impl Policy {
    fn parse(entry: &Value) -> Option<Policy> {
        let retry = &entry["retryPolicy"];
        if retry.is_null() {
            return Some(Policy {
                timeout: seconds(&entry["timeout"])?,
                attempts_max: 1,
                first_wait: Duration::ZERO,
                wait_max: Duration::ZERO,
                wait_factor: 1.0,
                codes: Vec::new(),
            });
        }
        let codes = array(&retry["retryableStatusCodes"]).filter_map(Value::as_str);
        Some(Policy {
            timeout: seconds(&entry["timeout"])?,
            attempts_max: retry["maxAttempts"].as_u64()? as u32,
            first_wait: seconds(&retry["initialBackoff"])?,
            wait_max: seconds(&retry["maxBackoff"])?,
            wait_factor: retry["backoffMultiplier"].as_f64()?,
            codes: codes.map(str::to_owned).collect(),
        })
    }

    /// Whether a call that ended so is made again.
    pub(crate) fn repeats(&self, code: Code) -> bool {
        // The one code that the config names; a test holds it to that.
        code == Code::Unavailable && self.codes.iter().any(|name| name == "UNAVAILABLE")
    }

    /// Before the attempt after this one.
    pub(crate) fn wait(&self, attempt: u32, jitter: f64) -> Duration {
        let factor = self.wait_factor.powi(attempt as i32 - 1);
        self.first_wait.mul_f64(factor).min(self.wait_max).mul_f64(jitter)
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// protobuf's JSON of a duration, such as `0.1s`.
fn seconds(value: &Value) -> Option<Duration> {
    let seconds = value.as_str()?.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ServiceConfig {
        ServiceConfig::published().unwrap()
    }

    #[test]
    fn the_published_config_is_understood() {
        let config = config();
        for method in ["CreateAccount", "UpdateAccount", "GetAccount", "LookupAccount"] {
            let policy = config.method(method);
            assert!(
                policy.attempts_max > 1 && policy.repeats(Code::Unavailable),
                "{method}"
            );
            assert!(!policy.repeats(Code::Aborted), "{method}");
            assert_eq!(
                policy.codes,
                ["UNAVAILABLE"],
                "{method}: another code needs code here"
            );
        }
        assert_eq!(config.method("ImportAccounts").attempts_max, 1);
    }

    #[test]
    fn waits_grow_to_their_limit() {
        let policy = Policy {
            timeout: Duration::from_secs(5),
            attempts_max: 5,
            first_wait: Duration::from_millis(100),
            wait_max: Duration::from_millis(300),
            wait_factor: 2.0,
            codes: Vec::new(),
        };
        let waits = [1, 2, 3].map(|attempt| policy.wait(attempt, 1.0).as_millis());
        assert_eq!(waits, [100, 200, 300]);
    }
}
