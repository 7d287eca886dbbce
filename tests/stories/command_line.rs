//! The command line as scripts use it: JSON out, exit codes they can branch on; and as people do: tables.

use holdfast_tests::cli::{self, Said};
use holdfast_tests::cluster::{Cluster, Options};
use serde_json::{Value, json};

async fn account(cluster: &Cluster, args: &[&str]) -> Said {
    let args: Vec<&str> = ["account"]
        .iter()
        .chain(args)
        .chain(&["--output", "json"])
        .copied()
        .collect();
    cli::run(cluster, &args).await
}

fn account_of(said: &Said) -> Value {
    said.json()["account"].clone()
}

/// From creation to the end and back, each step with its exit code.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_an_account_in_commands() {
    let cluster = Cluster::start().await;
    let create = [
        "create",
        "--id",
        "ada",
        "--display-name",
        "Ada Lovelace",
        "--email",
        "Ada@Example.com",
        "--phone",
        "+44 20 7946 0958",
        "--attribute",
        "tier=gold",
        "--label",
        "team=analytics",
    ];
    let created = account_of(&account(&cluster, &create).await);
    assert_eq!(
        (&created["account_id"], &created["state"]),
        (&json!("ada"), &json!("ACTIVE")),
        "{created}"
    );

    for (kind, spelling) in [("email", "ADA@example.COM"), ("phone", "+442079460958")] {
        let found = account_of(&account(&cluster, &["lookup", kind, spelling]).await);
        assert_eq!(found["account_id"], "ada");
    }
    let etag = created["etag"].as_str().unwrap();
    let updated = account_of(
        &account(
            &cluster,
            &["update", "ada", "--display-name", "Countess", "--etag", etag],
        )
        .await,
    );
    assert_eq!(updated["display_name"], "Countess");

    let changes = [
        "identifiers",
        "ada",
        "--add",
        "username=ada_l",
        "--remove",
        "phone=+442079460958",
    ];
    let changed = account_of(&account(&cluster, &changes).await);
    let kinds: Vec<&Value> = changed["identifiers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["kind"])
        .collect();
    assert_eq!(kinds, [&json!("email"), &json!("username")], "{changed}");

    // 3: not there. 4: taken, or stale. 2: malformed.
    assert_eq!(account(&cluster, &["get", "nobody"]).await.code, Some(3));
    assert_eq!(
        account(&cluster, &["lookup", "phone", "+442079460958"])
            .await
            .code,
        Some(3)
    );
    assert_eq!(
        account(&cluster, &["create", "--email", "ada@example.com"])
            .await
            .code,
        Some(4)
    );
    let stale = account(
        &cluster,
        &["update", "ada", "--display-name", "Late", "--etag", etag],
    )
    .await;
    assert_eq!(stale.code, Some(4), "{}", stale.err);
    let malformed = account(&cluster, &["create", "--email", "no-at-sign"]).await;
    assert_eq!(malformed.code, Some(2), "{}", malformed.err);
    let error: Value = serde_json::from_str(malformed.err.lines().last().unwrap()).unwrap();
    assert_eq!(
        error["error"]["field_violations"][0]["field"], "account.identifiers[0].value",
        "{error}"
    );

    let deleted = account_of(&account(&cluster, &["delete", "ada"]).await);
    assert_eq!(deleted["state"], "PENDING_DELETION");
    assert_eq!(
        account(&cluster, &["update", "ada", "--display-name", "Ghost"])
            .await
            .code,
        Some(4)
    );
    let back = account_of(&account(&cluster, &["undelete", "ada"]).await);
    assert_eq!(back["state"], "ACTIVE");

    let listed = account(&cluster, &["list"]).await;
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    assert!(listed.out.contains("ada"), "{}", listed.out);
}

/// The table an operator looks at, and the same for programs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_is_shown_as_a_table_and_as_json() {
    let mut cluster = Cluster::start().await;
    let said = cli::run(&cluster, &["cluster", "status"]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    for id in cluster.founders() {
        assert!(
            said.out.contains(&cluster.admin_address(id)) || said.out.contains(&id.to_string()),
            "{}",
            said.out
        );
    }
    let document = cli::run(&cluster, &["cluster", "status", "--output", "json"])
        .await
        .json();
    assert_eq!(document["nodes"].as_array().unwrap().len(), 3, "{document}");

    // Two nodes down: the third still answers, and the exit code says that there is no leader.
    let leader = cluster.leader().await;
    for id in cluster.founders().into_iter().filter(|id| *id != leader) {
        cluster.kill(id);
    }
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let said = cli::run(&cluster, &["cluster", "status"]).await;
        if said.code == Some(5) {
            break;
        }
        assert!(
            std::time::Instant::now() < end,
            "{:?}\n{}{}",
            said.code,
            said.out,
            said.err
        );
    }
}

/// Rules are replicated: changed through one node, they hold on all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_realms_rules_are_changed_for_all_nodes_at_once() {
    let cluster = Cluster::start().await;
    let said = cli::run(&cluster, &["realm", "update", "--quarantine", "7d"]).await;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    for id in cluster.founders() {
        let args = [
            "realm",
            "get",
            "--output",
            "json",
            "--admin-endpoints",
            &cluster.admin_address(id),
        ];
        let said = cli::run(&cluster, &args).await;
        assert!(said.json().to_string().contains("604800"), "{}", said.out);
    }
}

/// `--check-config` reports everything that is wrong at once, and starts nothing.
#[test]
fn a_configuration_is_checked_without_starting_anything() {
    let extra = "[raft]\nheartbeat_ms = 0\n".to_owned();
    let cluster = Cluster::lay_out(Options {
        nodes: 1,
        extra,
        ..Options::default()
    });
    let check = || {
        let mut command = std::process::Command::new(holdfast_tests::cluster::binary());
        command
            .args(["serve", "--check-config", "--config"])
            .arg(cluster.config_path(1));
        Said::from(command.output().unwrap())
    };
    let said = check();
    assert_eq!(said.code, Some(2), "{}{}", said.out, said.err);
    assert!(
        said.err.contains("raft.heartbeat_ms") || said.out.contains("raft.heartbeat_ms"),
        "{}{}",
        said.out,
        said.err
    );
    assert!(!cluster.data_dir(1).exists());

    let config = std::fs::read_to_string(cluster.config_path(1))
        .unwrap()
        .replace("heartbeat_ms = 0", "hartbeat_ms = 100");
    std::fs::write(cluster.config_path(1), config).unwrap();
    let said = check();
    assert_eq!(
        said.code,
        Some(2),
        "a misspelt setting was taken:\n{}{}",
        said.out,
        said.err
    );
}

/// Prometheus' endpoint has what one judges speed and health by, and no personal data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_show_speed_and_health_and_no_personal_data() {
    let cluster = Cluster::start().await;
    let create = [
        "create",
        "--id",
        "measured",
        "--email",
        "private.person@example.com",
    ];
    account_of(&account(&cluster, &create).await);
    let leader = cluster.leader().await;
    let text = http_get(&cluster.metrics_address(leader), "/metrics").await;
    let series = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert!(series >= 15, "only {series} series:\n{text}");
    for word in ["rpc", "propos", "apply", "sync", "barrier", "leader"] {
        assert!(text.contains(word), "nothing about {word} in\n{text}");
    }
    assert!(!text.contains("private.person"), "{text}");
    for id in cluster.founders() {
        assert!(
            !cluster.log(id).contains("private.person"),
            "an email is in node {id}'s log"
        );
    }
}

/// One HTTP/1.1 request, without a client library.
async fn http_get(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    text
}
