//! Beyond loopback only with certificates; and with certificates, all the way: between nodes, for clients, for
//! operators.

use std::fs;

use holdfast_tests::cli;
use holdfast_tests::cluster::{Cluster, Options, binary};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// An authority and what it signed, in a directory.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
        }
    }

    fn ca_pem(&self) -> String {
        self.issuer.pem()
    }

    /// Certificate and key for `names` (host names or addresses), good for both ends of a connection.
    fn sign(&self, names: Vec<String>) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        (
            params.signed_by(&key, &self.issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_not_listen_beyond_loopback_without_tls() {
    let cluster = Cluster::lay_out(Options {
        nodes: 1,
        ..Options::default()
    });
    let config = fs::read_to_string(cluster.config_path(1)).unwrap();
    let open = config.replace(
        &format!("client = \"{}\"\nadmin", cluster.client_address(1)),
        "client = \"0.0.0.0:7199\"\nadmin",
    );
    assert_ne!(config, open);
    fs::write(cluster.config_path(1), open).unwrap();

    let (_, said) = cluster.expect_refusal(1);
    assert!(
        said.contains("listen.client") && said.contains("--insecure"),
        "{said}"
    );

    let check = |args: &[&str]| {
        let mut command = std::process::Command::new(binary());
        command
            .args(["serve", "--check-config", "--config"])
            .arg(cluster.config_path(1))
            .args(args);
        cli::Said::from(command.output().unwrap())
    };
    let said = check(&[]);
    assert_ne!(said.code, Some(0), "{}{}", said.out, said.err);
    let said = check(&["--insecure"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_with_certificates_refuses_those_without() {
    let authority = Authority::new();
    let certificates = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = certificates.path().join(name);
        fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let address = holdfast_tests::cluster::fresh_address();
    let (cert, key) = authority.sign(vec![
        address.to_string(),
        "localhost".to_owned(),
        "node.holdfast.internal".to_owned(),
    ]);
    let (ca, cert, key) = (
        file("ca.pem", &authority.ca_pem()),
        file("node.pem", &cert),
        file("node.key", &key),
    );
    let extra =
        format!("[tls]\ncert = \"{cert}\"\nkey = \"{key}\"\nca = \"{ca}\"\nrequire_client_cert = true\n");
    let mut cluster = Cluster::lay_out(Options {
        extra,
        address: Some(address),
        ..Options::default()
    });
    for id in cluster.founders() {
        cluster.spawn(id);
    }

    let (client_cert, client_key) = authority.sign(vec!["shop".to_owned()]);
    let (client_cert, client_key) = (file("client.pem", &client_cert), file("client.key", &client_key));
    let with = [
        "--tls-ca",
        &ca,
        "--tls-cert",
        &client_cert,
        "--tls-key",
        &client_key,
        "--output",
        "json",
    ];
    let call = |args: &[&str], tls: &[&str]| {
        let args: Vec<&str> = args.iter().chain(tls).copied().collect();
        let mut command = cli::command(&cluster, &args);
        cli::Said::from(command.output().unwrap())
    };
    let create = [
        "account",
        "create",
        "--id",
        "secret",
        "--email",
        "secret@example.com",
        "--timeout",
        "40s",
    ];
    let created = call(&create, &with).json();
    assert_eq!(
        created["account"]["name"], "realms/default/accounts/secret",
        "{created}"
    );
    call(&["account", "get", "secret"], &with).json();
    call(&["cluster", "status"], &with).json();

    // Without TLS at all; with TLS but no certificate; with a certificate of somebody else's authority.
    let get = ["account", "get", "secret", "--timeout", "2s"];
    assert_ne!(call(&get, &[]).code, Some(0));
    assert_ne!(call(&get, &["--tls-ca", &ca]).code, Some(0));
    let other = Authority::new();
    let (cert, key) = other.sign(vec!["shop".to_owned()]);
    let (cert, key) = (file("stranger.pem", &cert), file("stranger.key", &key));
    assert_ne!(
        call(&get, &["--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key]).code,
        Some(0)
    );
}
