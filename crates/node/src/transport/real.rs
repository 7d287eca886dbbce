//! The transport in production: TLS, health, reflection and HTTP; sockets are in [`super::accept`], and what is
//! done about the errors that tonic makes in [`super::explain`].

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use holdfast_consensus::PeerTls;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::{Router, TcpConnectInfo, TlsConnectInfo};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Extensions, Request, Status};
use tower_layer::{Identity as Plain, Stack};

use super::accept::{Connections, Patience};
use super::explain::ExplainLayer;
use super::{Probe, TransportError, http};
use crate::config::TlsSection;
use crate::telemetry;

/// How often a connection that is silent is sent a ping, and how long the answer may take.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);
/// A TLS handshake, or the first byte, may take this long; a connection that answers no ping is closed.
const PATIENCE: Patience = Patience {
    first: Duration::from_secs(10),
    silence: Duration::from_secs(45),
};

/// What a port's services are wrapped in.
type Wrapped = Stack<ExplainLayer, Plain>;

/// A bound socket. Bound before anything else starts, so that a taken port is a clear error.
pub(crate) struct Listener {
    connections: Connections,
    address: SocketAddr,
}

impl Listener {
    pub(crate) async fn bind(
        port: &'static str,
        address: SocketAddr,
        connections_max: usize,
    ) -> Result<Self, TransportError> {
        let failed = |error: std::io::Error| TransportError::Listen {
            address,
            message: error.to_string(),
        };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let connections = Connections::new(socket, port, connections_max, PATIENCE);
        Ok(Listener { connections, address })
    }

    /// Where it listens; with port 0 configured, the port the system chose.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The node's certificates, read.
#[derive(Clone)]
pub(crate) struct Tls {
    certificate: String,
    key: String,
    authority: Option<String>,
    peer_name: String,
    require_client_certificate: bool,
}

impl Tls {
    pub(crate) fn load(section: &TlsSection) -> Result<Self, TransportError> {
        let read = |what: &str, path: &Path| {
            fs::read_to_string(path).map_err(|error| TransportError::Certificate {
                what: format!("cannot read {what} {}", path.display()),
                message: error.to_string(),
            })
        };
        Ok(Tls {
            certificate: read("tls.cert", &section.cert)?,
            key: read("tls.key", &section.key)?,
            authority: section
                .ca
                .as_deref()
                .map(|path| read("tls.ca", path))
                .transpose()?,
            peer_name: section.peer_name.clone(),
            require_client_certificate: section.require_client_cert,
        })
    }

    /// What consensus needs; none without an authority, that is in a cluster of one.
    pub(crate) fn for_peers(&self) -> Option<PeerTls> {
        Some(PeerTls {
            ca_pem: self.authority.clone()?,
            certificate_pem: self.certificate.clone(),
            key_pem: self.key.clone(),
            domain: self.peer_name.clone(),
        })
    }
}

/// A server as every port has it. On the peer port (`peers`) a certificate of the authority is always asked for.
pub(crate) fn server(tls: Option<&Tls>, peers: bool) -> Result<Server<Wrapped>, TransportError> {
    let server = Server::builder()
        .layer(ExplainLayer { public: !peers })
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PONG))
        .max_concurrent_streams(4096);
    let Some(tls) = tls else { return Ok(server) };
    let mut config = ServerTlsConfig::new()
        .identity(Identity::from_pem(&tls.certificate, &tls.key))
        .timeout(PATIENCE.first);
    if let Some(authority) = &tls.authority {
        config = config
            .client_ca_root(Certificate::from_pem(authority))
            .client_auth_optional(!(peers || tls.require_client_certificate));
    }
    server
        .tls_config(config)
        .map_err(|error| TransportError::Certificate {
            what: "the [tls] section cannot be used".into(),
            message: error.to_string(),
        })
}

/// Serves until `stop`, then lets calls under way finish.
pub(crate) async fn serve_grpc(
    router: Router<Wrapped>,
    listener: Listener,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), String> {
    router
        .serve_with_incoming_shutdown(listener.connections.into_stream(), stop)
        .await
        .map_err(|error| error.to_string())
}

/// Tells load balancers through `grpc.health.v1` whether this node serves.
#[derive(Clone)]
pub(crate) struct Health {
    reporter: tonic_health::server::HealthReporter,
}

const HEALTH_SERVICES: [&str; 4] = [
    "",
    "holdfast.v1.AccountService",
    "holdfast.v1.ClusterService",
    "holdfast.v1.RealmService",
];

impl Health {
    pub(crate) fn new() -> Self {
        Health {
            reporter: tonic_health::server::HealthReporter::new(),
        }
    }

    pub(crate) async fn set(&self, serving: bool) {
        use tonic_health::ServingStatus::{NotServing, Serving};
        for service in HEALTH_SERVICES {
            let status = if serving { Serving } else { NotServing };
            self.reporter.set_service_status(service, status).await;
        }
    }
}

/// Adds health and reflection, so that grpcurl and load balancers work without files.
pub(crate) fn with_standard(router: Router<Wrapped>, health: &Health) -> Router<Wrapped> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(holdfast_wire::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let health = tonic_health::server::HealthService::from_health_reporter(health.reporter.clone());
    router
        .add_service(tonic_health::pb::health_server::HealthServer::new(health))
        .add_service(
            reflection()
                .build_v1()
                .expect("the descriptors were compiled with this program"),
        )
        .add_service(
            reflection()
                .build_v1alpha()
                .expect("the descriptors were compiled with this program"),
        )
}

/// A channel to another node's port. It connects when it is first used, and again after it broke.
pub(crate) fn connect(address: &str, tls: Option<&Tls>) -> Result<Channel, String> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(|error| error.to_string())?
        .connect_timeout(Duration::from_millis(1_000))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5));
    if let Some(tls) = tls {
        let mut config = ClientTlsConfig::new()
            .domain_name(&tls.peer_name)
            .identity(Identity::from_pem(&tls.certificate, &tls.key));
        if let Some(authority) = &tls.authority {
            config = config.ca_certificate(Certificate::from_pem(authority));
        }
        endpoint = endpoint.tls_config(config).map_err(|error| error.to_string())?;
    }
    Ok(tonic::connect_lazy(&endpoint))
}

/// The first DNS name of the certificate that the client showed.
pub(crate) fn client_certificate(extensions: &Extensions) -> Option<String> {
    certificate_names(extensions).into_iter().next()
}

fn certificate_names(extensions: &Extensions) -> Vec<String> {
    let certificates = extensions
        .get::<TlsConnectInfo<TcpConnectInfo>>()
        .and_then(TlsConnectInfo::peer_certs);
    let Some(first) = certificates
        .as_ref()
        .and_then(|certificates| certificates.first())
    else {
        return Vec::new();
    };
    // The handshake has already checked signature and validity.
    match webpki::EndEntityCert::try_from(first) {
        Ok(certificate) => certificate.valid_dns_names().map(str::to_owned).collect(),
        Err(_) => Vec::new(),
    }
}

/// Lets only holders of a node's certificate call `service`. Without TLS the network itself is trusted.
pub(crate) fn only_peers<S>(service: S, tls: Option<&Tls>) -> InterceptedService<S, PeerCheck> {
    InterceptedService::new(
        service,
        PeerCheck {
            peer_name: tls.map(|tls| tls.peer_name.clone()),
        },
    )
}

/// Checks that a caller on the peer port is a node.
#[derive(Clone)]
pub(crate) struct PeerCheck {
    peer_name: Option<String>,
}

impl Interceptor for PeerCheck {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        match &self.peer_name {
            Some(name) if !certificate_names(request.extensions()).contains(name) => Err(
                Status::permission_denied("the peer port is for this cluster's nodes"),
            ),
            _ => Ok(request),
        }
    }
}

/// Serves metrics and probes until `stop`.
pub(crate) async fn serve_http(
    listener: Listener,
    probe: impl Probe,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    let metrics = recorder();
    let router = http::router(metrics.clone(), probe);
    let upkeep = async {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            metrics.run_upkeep();
        }
    };
    tokio::select! {
        biased;
        served = async { axum::serve(listener.connections, router).with_graceful_shutdown(stop).await } => {
            served.map_err(|error| error.to_string())
        }
        () = upkeep => Ok(()),
    }
}

/// The process-wide recorder, installed by whoever asks first.
fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    // A sync takes 0.1 ms on a good disk, a call through a failover seconds.
    const SECONDS: [f64; 16] = [
        0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
        10.0,
    ];
    const COUNTS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
    RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_entries".into()), &COUNTS))
            .expect("the lists of buckets are not empty");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed already; /metrics stays empty");
        }
        telemetry::describe();
        handle
    })
}

/// Puts the recorder in place before anything counts.
pub(crate) fn install_recorder() {
    recorder();
}
