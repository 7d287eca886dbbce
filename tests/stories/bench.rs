//! The load generator against a real cluster: what it says is what happened.

use holdfast_tests::cli;
use holdfast_tests::cluster::Cluster;
use serde_json::Value;

/// Runs `holdfast bench ARGS` with 8 clients, and returns what it measured.
async fn bench(cluster: &Cluster, args: &str) -> Value {
    let words = ["bench", "--clients", "8", "--warm-up", "0", "--output", "json"];
    let args: Vec<&str> = words.into_iter().chain(args.split_whitespace()).collect();
    cli::run(cluster, &args).await.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_without_an_error_is_reported_as_it_was() {
    let cluster = Cluster::start().await;

    // A storm of new people: each step of it succeeds, and what was created can be exported.
    let storm = bench(&cluster, "--workload sign-up-storm --seconds 2").await;
    assert_eq!(storm["errors"], 0, "{storm}");
    assert_eq!(storm["store"], "holdfast");
    let count = |seen: &Value, operation: &str| seen["operations"][operation]["count"].as_u64().unwrap_or(0);
    let people = count(&storm, "sign_up");
    assert!(people > 0, "{storm}");
    for step in ["lookup_absent", "create", "get"] {
        // The last of each client may have begun its later steps after the end, and those do not count.
        let steps = count(&storm, step);
        assert!(
            steps <= people && steps + 8 >= people,
            "{steps} x {step} in {storm}"
        );
    }
    let windows = storm["windows"].as_array().unwrap();
    let done: u64 = windows
        .iter()
        .map(|window| window["done"].as_u64().unwrap())
        .sum();
    assert!(
        windows.len() == 2 && done <= people && done + 8 >= people,
        "{storm}"
    );
    assert_eq!(storm["throughput"].as_f64().unwrap(), done as f64 / 2.0);
    let latency = &storm["all"];
    let percentile = |name: &str| latency[name].as_u64().unwrap();
    assert!(
        percentile("p50_us") <= percentile("p99_us") && percentile("p99_us") <= percentile("max_us"),
        "{storm}"
    );

    let exported = cluster.path().join("exported.jsonl");
    let said = cli::run(&cluster, &["export", "--out", exported.to_str().unwrap()]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    let lines = std::fs::read_to_string(&exported).unwrap();
    assert_eq!(
        lines.lines().count() as u64,
        people,
        "as many accounts as it says it made"
    );
    assert!(lines.lines().all(|line| line.contains("bench-1-")));

    // The same for a filled store, in an open loop.
    let filled = bench(
        &cluster,
        "--workload login-storm --prepare 500 --distribution zipf --rate 100 --seconds 2",
    )
    .await;
    assert_eq!(
        (&filled["errors"], &filled["accounts"]),
        (&0.into(), &500.into()),
        "{filled}"
    );
    assert_eq!(
        filled["all"]["count"], 200,
        "all that were due in two seconds: {filled}"
    );
    assert!(count(&filled, "lookup") > count(&filled, "update"), "{filled}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_the_accounts_is_not_measured() {
    let cluster = Cluster::start().await;
    let args = ["bench", "--workload", "get", "--accounts", "10", "--seconds", "1"];
    let said = cli::run(&cluster, &args).await;
    assert_eq!(said.code, Some(3), "{}{}", said.out, said.err);
    assert!(said.err.contains("--prepare 10"), "{}", said.err);
}
