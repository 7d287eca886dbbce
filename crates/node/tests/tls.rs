//! Certificates: between nodes, for clients, and what a caller is called.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic, too")]

mod common;

use common::{Cluster, create, eventually};
use holdfast_node::config::TlsSection;
use holdfast_wire::internal::ReportRequest;
use holdfast_wire::internal::forward_service_client::ForwardServiceClient;
use holdfast_wire::v1;
use holdfast_wire::v1::account_service_client::AccountServiceClient;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const PEER: &str = "node.holdfast.internal";

/// An authority that signs certificates for a test.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// Certificate and key with these names.
    fn sign(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn channel(&self, address: std::net::SocketAddr, identity: Option<&(String, String)>) -> Channel {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.pem))
            .domain_name("localhost");
        if let Some((certificate, key)) = identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        endpoint.tls_config(tls).unwrap().connect_lazy()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_trust_nodes_and_clients_have_names() {
    let authority = Authority::new();
    let directory = std::env::temp_dir().join(format!("holdfast-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let (certificate, key) = authority.sign(&[PEER, "localhost"]);
    let tls = TlsSection {
        cert: file("node.pem", &certificate),
        key: file("node.key", &key),
        ca: Some(file("ca.pem", &authority.pem)),
        peer_name: PEER.into(),
        require_client_cert: true,
    };
    let mut cluster = Cluster::new(3);
    for config in cluster.configs.values_mut() {
        config.tls = Some(tls.clone());
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    std::fs::remove_dir_all(&directory).unwrap();

    let billing = authority.sign(&["billing.example"]);
    let support = authority.sign(&["support.example"]);
    let client = |id: u64, identity| {
        AccountServiceClient::new(authority.channel(cluster.configs[&id].listen_client(), identity))
    };
    let request = create("ann@example.com");
    eventually("the cluster serves over TLS", || async {
        client(1, Some(&billing))
            .create_account(request.clone())
            .await
            .is_ok()
    })
    .await;
    // Through every node, forwarded or not, the caller is the certificate's: the same request id of another one is
    // another request.
    for id in 1..=3 {
        let again = client(id, Some(&billing))
            .create_account(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(again.revision, 1);
        let error = client(id, Some(&support))
            .create_account(request.clone())
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::AlreadyExists, "{error:?}");
    }
    // Nobody without a certificate, and nobody in clear.
    assert!(client(1, None).create_account(request.clone()).await.is_err());
    assert!(
        cluster
            .accounts(1)
            .get_account(v1::GetAccountRequest::default())
            .await
            .is_err()
    );
    // A client's certificate does not open the peer port.
    let peer = cluster.configs[&1].listen_peer();
    let report = |identity| {
        let mut client = ForwardServiceClient::new(authority.channel(peer, Some(identity)));
        async move { client.report(ReportRequest { header: None }).await.unwrap_err() }
    };
    let stranger = report(&billing).await;
    assert_eq!(
        (stranger.code(), stranger.message()),
        (
            Code::PermissionDenied,
            "the peer port is for this cluster's nodes"
        )
    );
    let node = (certificate, key);
    assert_ne!(report(&node).await.message(), stranger.message());
}
