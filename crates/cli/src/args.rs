//! What every command understands: where the cluster is, who calls, how patient to be, how to print.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use holdfast_client::{CallOptions, Client, ClientConfig, TlsOptions, v1};

use crate::exit::Failure;
use crate::output::Format;

/// Options of all commands that talk to a cluster. They are the same everywhere, so `-h` leaves them out and `--help`
/// has them below what is the command's own.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Client ports of the nodes.
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_ENDPOINTS",
        value_delimiter = ',',
        value_name = "HOST:PORT,…",
        default_value = "127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103",
        hide_short_help = true,
        help_heading = "Connection"
    )]
    pub(crate) endpoints: Vec<String>,

    /// Admin ports of the nodes (`cluster` and `realm` commands).
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_ADMIN_ENDPOINTS",
        value_delimiter = ',',
        value_name = "HOST:PORT,…",
        default_value = "127.0.0.1:7201,127.0.0.1:7202,127.0.0.1:7203",
        hide_short_help = true,
        help_heading = "Connection"
    )]
    pub(crate) admin_endpoints: Vec<String>,

    /// Realm to work in.
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_REALM",
        default_value = "default",
        hide_short_help = true,
        help_heading = "Connection"
    )]
    pub(crate) realm: String,

    /// Who is calling, where no client certificate says so. Request ids belong to a caller.
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_CALLER",
        default_value = "holdfast-cli",
        hide_short_help = true,
        help_heading = "Connection"
    )]
    pub(crate) caller: String,

    /// How long to keep trying, as in 500ms, 10s or 2m [default: 10s; 10m where data moves].
    #[arg(long, global = true, env = "HOLDFAST_TIMEOUT", value_parser = duration, hide_short_help = true, help_heading = "Connection")]
    pub(crate) timeout: Option<Duration>,

    /// Authorities of the servers' certificates (PEM file); switches TLS on.
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_TLS_CA",
        value_name = "FILE",
        hide_short_help = true,
        help_heading = "Connection"
    )]
    pub(crate) tls_ca: Option<PathBuf>,

    /// This client's certificate (PEM file).
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_TLS_CERT",
        value_name = "FILE",
        requires = "tls_ca",
        requires = "tls_key",
        hide_short_help = true,
        help_heading = "Connection"
    )]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The key of this client's certificate (PEM file).
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert",
        hide_short_help = true,
        help_heading = "Connection"
    )]
    pub(crate) tls_key: Option<PathBuf>,

    /// The name expected in the servers' certificates, if it is not the host.
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_TLS_SERVER_NAME",
        value_name = "NAME",
        requires = "tls_ca",
        hide_short_help = true,
        help_heading = "Connection"
    )]
    pub(crate) tls_server_name: Option<String>,

    /// Text for people, or one JSON document a line.
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_OUTPUT",
        value_enum,
        default_value_t,
        help_heading = "Output"
    )]
    pub(crate) output: Format,
}

impl Global {
    /// A client with these options. Nothing is connected yet.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let tls = match &self.tls_ca {
            None => None,
            Some(ca) => Some(TlsOptions {
                ca_pem: read_pem(ca)?,
                identity_pem: match (&self.tls_cert, &self.tls_key) {
                    (Some(cert), Some(key)) => Some((read_pem(cert)?, read_pem(key)?)),
                    _ => None,
                },
                server_name: self.tls_server_name.clone(),
            }),
        };
        Client::connect(ClientConfig {
            endpoints: self.endpoints.clone(),
            admin_endpoints: self.admin_endpoints.clone(),
            caller: self.caller.clone(),
            tls,
            ..ClientConfig::default()
        })
        .map_err(|error| Failure::usage(error.to_string()))
    }

    /// Options of a usual call.
    pub(crate) fn call(&self) -> CallOptions {
        CallOptions::deadline(self.timeout.unwrap_or(Duration::from_secs(10)))
    }

    /// Options of a call that waits for data to move.
    pub(crate) fn long_call(&self) -> CallOptions {
        CallOptions::deadline(self.timeout.unwrap_or(Duration::from_secs(600)))
    }

    /// Options of a call that brings in a node, and waits for data to move to it. If nobody answers at its address, that
    /// is said soon: no more attempts than the election of a leader may take.
    pub(crate) fn newcomer_call(&self) -> CallOptions {
        CallOptions {
            attempts_max: Some(12),
            ..self.long_call()
        }
    }

    /// The resource name of the realm.
    pub(crate) fn realm_name(&self) -> String {
        format!("realms/{}", self.realm)
    }

    /// The resource name of an account: `account` is its id, or the whole name.
    pub(crate) fn account_name(&self, account: &str) -> String {
        if account.starts_with("realms/") {
            account.to_owned()
        } else {
            format!("realms/{}/accounts/{account}", self.realm)
        }
    }
}

fn read_pem(path: &PathBuf) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::io(path.display(), &error))
}

/// `500ms`, `10s`, `2m`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let value: f64 = digits
        .trim()
        .parse()
        .map_err(|_| format!("`{text}` is not a duration such as 500ms, 10s or 2m"))?;
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1.0,
        "" | "s" => 1_000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        unit => return Err(format!("unknown unit `{unit}`; use ms, s, m, h or d")),
    };
    let millis = value * unit_ms;
    if !(0.0..=1e15).contains(&millis) {
        return Err(format!("`{text}` is out of range"));
    }
    Ok(Duration::from_millis(millis as u64))
}

/// `name=value`, for labels and attributes.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not name=value")),
    }
}

/// Why, for changes. Both go to the change log.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Why {
    /// Opaque id of the person or service on whose behalf this is done.
    #[arg(long, value_name = "ID", help_heading = "Change")]
    pub(crate) actor: Option<String>,
    /// Why it is done. No personal data.
    #[arg(long, value_name = "TEXT", help_heading = "Change")]
    pub(crate) reason: Option<String>,
}

impl Why {
    /// The message for it; none if nothing was said.
    pub(crate) fn context(&self) -> Option<v1::RequestContext> {
        if self.actor.is_none() && self.reason.is_none() {
            return None;
        }
        Some(v1::RequestContext {
            actor: self.actor.clone().unwrap_or_default(),
            reason: self.reason.clone().unwrap_or_default(),
            ..v1::RequestContext::default()
        })
    }
}

/// What every change of an account can be given.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Change {
    /// UUIDv7 of this request; repeat it to learn what became of an earlier attempt. Drawn if not given.
    #[arg(long, value_name = "UUID", help_heading = "Change")]
    request_id: Option<String>,
    #[command(flatten)]
    pub(crate) why: Why,
}

impl Change {
    /// The request id to send; empty: let the client draw one.
    pub(crate) fn request_id(&self) -> String {
        self.request_id.clone().unwrap_or_default()
    }
}

/// How fresh a read must be.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Freshness {
    /// Be content with an answer at most this old (0s: of any age), from any node, as in 5s.
    #[arg(long, value_name = "AGE", value_parser = duration, help_heading = "Freshness")]
    stale: Option<Duration>,
    /// Reflect at least what an earlier answer reflected: its `consistency_token`, base64.
    #[arg(long, value_name = "TOKEN", help_heading = "Freshness")]
    token: Option<String>,
}

impl Freshness {
    /// The message for it; none: linearizable.
    pub(crate) fn consistency(&self) -> Result<Option<v1::Consistency>, Failure> {
        if self.stale.is_none() && self.token.is_none() {
            return Ok(None);
        }
        let at_least_token = match &self.token {
            None => Vec::new(),
            Some(text) => STANDARD
                .decode(text)
                .map_err(|error| Failure::usage(format!("--token is not base64: {error}")))?,
        };
        let mode = self.stale.map(|age| {
            let max_staleness = (!age.is_zero()).then(|| duration_message(age));
            v1::consistency::Mode::Stale(v1::StaleRead { max_staleness })
        });
        Ok(Some(v1::Consistency {
            mode,
            at_least_token: at_least_token.into(),
        }))
    }
}

/// protobuf's form of a duration.
pub(crate) fn duration_message(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: duration.as_secs() as i64,
        nanos: duration.subsec_nanos() as i32,
    }
}

/// The form in which tokens are printed and read.
pub(crate) fn token_text(token: &[u8]) -> String {
    STANDARD.encode(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for bad in ["", "s", "-1s", "1y", "nan", "1e30s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pairs_split_at_the_first_equals() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(pair("=x").is_err() && pair("x").is_err());
    }
}
