//! What a client can be told, once for all its calls and for each call.

use std::time::Duration;

use holdfast_types::RequestId;
use holdfast_wire::v1;

use crate::backoff::Backoff;

/// How to reach a cluster and how patient to be.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Client ports of the nodes, as `host:port`. Any one that lives is enough.
    pub endpoints: Vec<String>,
    /// Admin ports of the nodes, as `host:port`; only needed for `ClusterService` and `RealmService`.
    pub admin_endpoints: Vec<String>,
    /// Who is calling, where no client certificate says so. Request ids are scoped by it.
    pub caller: String,
    /// TLS, or plain text if `None`.
    pub tls: Option<TlsOptions>,
    /// Deadline of a call that names none. All attempts and waits fit into it.
    pub deadline: Duration,
    /// How long one attempt may take before another node is tried (a node may be frozen).
    pub attempt_timeout: Duration,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// The most attempts of one call, whatever its deadline.
    pub attempts_max: u32,
    /// Waits between attempts.
    pub backoff: Backoff,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            endpoints: loopback(7100),
            admin_endpoints: loopback(7200),
            caller: String::new(),
            tls: None,
            deadline: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(1),
            attempts_max: 64,
            backoff: Backoff::default(),
        }
    }
}

/// The three nodes of a local cluster.
fn loopback(base: u16) -> Vec<String> {
    (1..=3).map(|node| format!("127.0.0.1:{}", base + node)).collect()
}

/// Certificates, as PEM text. Ignored in a simulation, which has no TLS.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// Authorities that sign the servers' certificates.
    pub ca_pem: String,
    /// This client's certificate and key, if the servers ask for one.
    pub identity_pem: Option<(String, String)>,
    /// The name to expect in the servers' certificates, if it is not the host of the endpoint.
    pub server_name: Option<String>,
}

impl std::fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsOptions")
            .field("identity", &self.identity_pem.is_some())
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// What one call wants different. The default wants nothing different.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// Deadline of this call, all attempts together.
    pub deadline: Option<Duration>,
    /// The idempotency key of a mutation whose message has none. Give it to repeat a call whose outcome is
    /// unknown; a fresh one is drawn otherwise.
    pub request_id: Option<RequestId>,
    /// How fresh a read must be, if its message does not say.
    pub consistency: Option<v1::Consistency>,
    /// W3C `traceparent` to send; a fresh trace begins otherwise.
    pub traceparent: Option<String>,
    /// The most attempts of this call, if not the client's; 1: do not repeat it.
    pub attempts_max: Option<u32>,
}

impl CallOptions {
    /// With this deadline.
    pub fn deadline(deadline: Duration) -> Self {
        CallOptions {
            deadline: Some(deadline),
            ..CallOptions::default()
        }
    }
}
