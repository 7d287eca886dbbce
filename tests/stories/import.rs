//! A migration: accounts by the hundred thousand, mistakes included, while things break.
//!
//! `HOLDFAST_IMPORT_ACCOUNTS` says how many (default 100,000).

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_tests::cli::{self, Said};
use holdfast_tests::cluster::{Cluster, binary};
use serde_json::Value;

/// What the generator says about its own file.
struct Generated {
    path: PathBuf,
    /// Lines in the file.
    lines: usize,
    /// Lines with an identifier of an earlier line.
    taken: usize,
    /// Lines with a malformed identifier.
    malformed: usize,
}

fn accounts_wanted() -> usize {
    std::env::var("HOLDFAST_IMPORT_ACCOUNTS").map_or(100_000, |text| text.parse().unwrap())
}

fn generate(directory: &Path, lines: usize, flags: &[&str]) -> Generated {
    let path = directory.join("accounts.jsonl");
    // Built already when `cargo xtask test` runs this; cargo would wait for anybody's build that is under way.
    let built = binary().with_file_name("xtask");
    let mut command = if built.exists() {
        Command::new(built)
    } else {
        let mut cargo = Command::new("cargo");
        cargo.arg("xtask").current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo
    };
    command
        .args(["generate", &lines.to_string(), "--out", path.to_str().unwrap()])
        .args(flags);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    // 1000 accounts: 17 with an identifier of an earlier line, 9 malformed, seed 1
    let line = said.lines().last().unwrap();
    let number_before = |words: &str| -> usize {
        let before = line.split(words).next().unwrap();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let (taken, malformed) = (number_before(" with an identifier"), number_before(" malformed"));
    Generated {
        path,
        lines,
        taken,
        malformed,
    }
}

fn start_import(cluster: &Cluster, generated: &Generated, import_id: &str, rejects: &Path) -> Child {
    let mut command = cli::command(cluster, &["import"]);
    command
        .arg(&generated.path)
        .args([
            "--import-id",
            import_id,
            "--mode",
            "create",
            "--output",
            "json",
            "--rejects",
        ])
        .arg(rejects)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits until about `share` of an import's lines are in the log, each an entry of its own.
async fn imported(cluster: &Cluster, lines: usize, share: f64) {
    let goal = (lines as f64 * share) as u64;
    loop {
        let leader = cluster.leader().await;
        if cluster
            .shard(leader)
            .await
            .is_some_and(|shard| shard.committed_index >= goal)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn finish(import: Child) -> Said {
    tokio::task::spawn_blocking(move || Said::from(import.wait_with_output().unwrap()))
        .await
        .unwrap()
}

/// Everything in the realm, by the email as it was typed.
async fn export(cluster: &Cluster, directory: &Path) -> HashMap<String, Value> {
    let path = directory.join("export.jsonl");
    let said = cli::run(cluster, &["export", "--out", path.to_str().unwrap()]).await;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let mut accounts = HashMap::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let account: Value = serde_json::from_str(line).unwrap();
        let previous = accounts.insert(email(&account).to_owned(), account);
        assert!(previous.is_none(), "exported twice: {previous:?}");
    }
    accounts
}

fn identifiers(account: &Value) -> &Vec<Value> {
    account["identifiers"]
        .as_array()
        .unwrap_or_else(|| panic!("no identifiers in {account}"))
}

fn email(account: &Value) -> &str {
    identifiers(account)
        .iter()
        .find(|identifier| identifier["kind"] == "email")
        .unwrap()["value"]
        .as_str()
        .unwrap()
}

/// Asserts that what was exported is what the line said.
fn assert_same(line: &Value, exported: &Value) {
    for field in ["display_name", "locale", "time_zone", "labels"] {
        assert_eq!(line[field], exported[field], "{field} of {exported}");
    }
    for (name, value) in line["attributes"].as_object().unwrap() {
        // An export may say the type that the line leaves out.
        let typed = match value {
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            Value::Number(_) => "int64",
            _ => "string_list",
        };
        let found = &exported["attributes"][name];
        assert!(
            value == found || *value == found[typed],
            "attribute {name} of {exported}"
        );
    }
    let values = |account: &Value| -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        identifiers(account)
            .iter()
            .map(|one| (text(&one["kind"]), text(&one["value"])))
            .collect()
    };
    assert_eq!(values(line), values(exported));
}

/// Every accepted line is there exactly once and as it was said; every other line is reported with its reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_survives_the_death_of_two_leaders() {
    let mut cluster = Cluster::start().await;
    let directory = tempfile::tempdir().unwrap();
    let generated = generate(directory.path(), accounts_wanted(), &[]);
    let rejects = directory.path().join("rejected.jsonl");
    let began = std::time::Instant::now();
    let mut import = start_import(&cluster, &generated, &uuid::Uuid::now_v7().to_string(), &rejects);

    for share in [0.2, 0.5] {
        imported(&cluster, generated.lines, share).await;
        let leader = cluster.leader().await;
        assert!(
            import.try_wait().unwrap().is_none(),
            "the import ended before the leader could be killed"
        );
        cluster.kill(leader);
        cluster.leader_other_than(leader).await;
        cluster.spawn(leader);
    }
    let said = finish(import).await;
    println!("{} lines in {:?}", generated.lines, began.elapsed());
    // 7: done, but some items were rejected.
    let summary = said.json_with_code(7);

    let mut rejected = BTreeMap::new();
    for line in fs::read_to_string(&rejects).unwrap().lines() {
        let reject: Value = serde_json::from_str(line).unwrap();
        assert!(!reject["message"].as_str().unwrap().is_empty(), "{reject}");
        rejected.insert(reject["line"].as_u64().unwrap() as usize, reject);
    }
    let with_code = |code: &str| rejected.values().filter(|reject| reject["code"] == code).count();
    let (malformed, taken) = (with_code("INVALID_ARGUMENT"), with_code("ALREADY_EXISTS"));
    assert_eq!(
        malformed + taken,
        rejected.len(),
        "other codes: {:?}",
        rejected.values().take(3).collect::<Vec<_>>()
    );
    assert_eq!(malformed, generated.malformed);
    // Of two lines with one identifier, either may come first within a window. The loser may have held a second
    // identifier that a third line then gets: a handful fewer rejections than collisions, never more.
    assert!(
        taken <= generated.taken && taken + 5 >= generated.taken,
        "{taken} of {} collisions",
        generated.taken
    );
    let accepted = generated.lines - rejected.len();
    assert_eq!(summary["lines"], generated.lines, "{summary}");
    assert_eq!(summary["accepted"], accepted, "{summary}");
    assert_eq!(summary["rejected"], rejected.len(), "{summary}");

    let exported = export(&cluster, directory.path()).await;
    assert_eq!(exported.len(), accepted);
    for (at, text) in fs::read_to_string(&generated.path).unwrap().lines().enumerate() {
        if !rejected.contains_key(&(at + 1)) {
            let line: Value = serde_json::from_str(text).unwrap();
            let account = exported
                .get(email(&line))
                .unwrap_or_else(|| panic!("line {} is missing: {text}", at + 1));
            assert_same(&line, account);
        }
    }
}

/// The machine that imports dies. The same command again goes on where the cluster knows it stood.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_is_resumed_after_its_client_died() {
    let cluster = Cluster::start().await;
    let directory = tempfile::tempdir().unwrap();
    let generated = generate(directory.path(), accounts_wanted() / 5, &["--clean"]);
    let rejects = directory.path().join("rejected.jsonl");
    let import_id = uuid::Uuid::now_v7().to_string();

    let mut import = start_import(&cluster, &generated, &import_id, &rejects);
    imported(&cluster, generated.lines, 0.3).await;
    assert!(
        import.try_wait().unwrap().is_none(),
        "the import ended before its client could be killed"
    );
    import.kill().unwrap();
    import.wait().unwrap();
    let before = export(&cluster, directory.path()).await.len();
    assert!(
        before > 0 && before < generated.lines,
        "{before} of {} accounts",
        generated.lines
    );

    let said = finish(start_import(&cluster, &generated, &import_id, &rejects)).await;
    let summary = said.json();
    println!("{before} accounts before, then {summary}");
    let exported = export(&cluster, directory.path()).await;
    assert_eq!(exported.len(), generated.lines, "{}", said.err);
    for text in fs::read_to_string(&generated.path).unwrap().lines() {
        let line: Value = serde_json::from_str(text).unwrap();
        let account = &exported[email(&line)];
        assert_same(&line, account);
        assert_eq!(account["revision"], 1, "imported twice: {account}");
    }
}
