//! The command as scripts see it where no cluster is needed: exit codes, and what goes to which stream.
// Helpers of tests may panic like tests.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn holdfast(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    // What is set where the tests run must not matter.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HOLDFAST_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Endpoints where nobody listens.
const NOBODY: [&str; 4] = [
    "--endpoints",
    "127.0.0.1:1,127.0.0.1:2",
    "--admin-endpoints",
    "127.0.0.1:1",
];

#[test]
fn help_lists_the_exit_codes() {
    let help = holdfast(&["--help"]);
    assert_eq!(code(&help), 0);
    let help = text(&help.stdout);
    for words in ["Exit codes:", "6  outcome unknown", "serve", "import", "export"] {
        assert!(help.contains(words), "{words} is missing in\n{help}");
    }
    assert_eq!(code(&holdfast(&["--version"])), 0);
}

#[test]
fn a_wrong_command_is_2() {
    let lines: [&[&str]; 9] = [
        &[],
        &["acount"],
        &["account", "get"],
        &["account", "get", "a", "--timeout", "soon"],
        &["account", "lookup", "fax", "1"],
        &["account", "update", "a"],
        &["account", "identifiers", "a", "--add", "email"],
        &["import", "no-such-file.jsonl"],
        &["import", "-", "--import-id", "first"],
    ];
    for line in lines {
        let output = holdfast(line);
        assert_eq!(code(&output), 2, "{line:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{line:?} has no result");
    }
}

#[test]
fn a_node_is_named_by_its_id_or_its_admin_address() {
    for command in ["drain", "snapshot"] {
        let output = holdfast(&[&["cluster", command, "foo"][..], &NOBODY].concat());
        let said = text(&output.stderr);
        assert_eq!(code(&output), 2, "{said}");
        assert!(
            said.contains("foo") && said.contains("name it by its id"),
            "{said}"
        );

        let line = ["cluster", command, "127.0.0.1:1", "--timeout", "300ms"];
        let output = holdfast(&[&line[..], &NOBODY].concat());
        let said = text(&output.stderr);
        assert_eq!(code(&output), 5, "{said}");
        assert!(
            said.contains("127.0.0.1:1 its admin address") && !said.contains("--endpoints"),
            "{said}"
        );
    }
}

#[test]
fn nobody_there_is_5_within_the_time_out() {
    let lines: [&[&str]; 5] = [
        &["account", "get", "a"],
        &["account", "create", "--id", "a"],
        &["account", "list"],
        &["cluster", "status"],
        &["export"],
    ];
    for line in lines {
        let began = Instant::now();
        let output = holdfast(&[line, &NOBODY, &["--timeout", "300ms"]].concat());
        assert_eq!(code(&output), 5, "{line:?}: {}", text(&output.stderr));
        assert!(began.elapsed() < Duration::from_secs(3), "{line:?}");
        assert!(
            text(&output.stderr).contains("hint:"),
            "{line:?}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn errors_are_json_where_json_was_asked_for() {
    let line = [
        "account",
        "create",
        "--id",
        "a",
        "--timeout",
        "200ms",
        "--output",
        "json",
    ];
    let output = holdfast(&[&line[..], &NOBODY].concat());
    let error: serde_json::Value =
        serde_json::from_str(text(&output.stderr).lines().last().unwrap()).unwrap();
    let error = &error["error"];
    assert_eq!(
        (error["exit_code"].as_u64(), error["code"].as_str()),
        (Some(5), Some("UNAVAILABLE"))
    );
    assert_eq!(error["outcome"], "NOT_APPLIED");
    assert!(error["request_id"].is_string(), "{error}");
    assert_eq!(error["retryable"], true, "{error}");
}

#[test]
fn a_directory_is_no_file_and_nothing_is_left_beside_it() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("accounts");
    std::fs::create_dir(&directory).unwrap();
    let directory = directory.to_str().unwrap();
    for line in [&["import", directory][..], &["export", "--out", directory]] {
        let output = holdfast(&[line, &NOBODY, &["--timeout", "200ms"]].concat());
        assert_eq!(code(&output), 2, "{line:?}: {}", text(&output.stderr));
        assert!(
            text(&output.stderr).contains("is a directory; name the"),
            "{line:?}: {}",
            text(&output.stderr)
        );
    }
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
}

#[test]
fn the_options_of_all_commands_are_below_the_commands_own() {
    let short = text(&holdfast(&["account", "get", "-h"]).stdout);
    assert!(!short.contains("--tls-ca") && short.contains("--help"), "{short}");
    let long = text(&holdfast(&["account", "get", "--help"]).stdout);
    let place = |words: &str| {
        long.find(words)
            .unwrap_or_else(|| panic!("{words} is missing in\n{long}"))
    };
    assert_eq!(long.matches("Connection:").count(), 1, "{long}");
    assert!(place("--stale") < place("Connection:") && place("Connection:") < place("--tls-ca"));
}

#[test]
fn a_failed_import_keeps_its_id() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("accounts.jsonl");
    std::fs::write(&file, "{\"account_id\":\"a\"}\n").unwrap();
    let line = ["import", file.to_str().unwrap(), "--timeout", "200ms"];
    let first = holdfast(&[&line[..], &NOBODY].concat());
    assert_eq!(code(&first), 5, "{}", text(&first.stderr));
    let reminder = std::fs::read_to_string(directory.path().join("accounts.jsonl.import-id")).unwrap();
    let id = reminder.split_whitespace().next().unwrap();
    assert!(text(&first.stderr).contains(id), "{}", text(&first.stderr));
    let again = holdfast(&[&line[..], &NOBODY].concat());
    assert!(
        text(&again.stderr).contains(id),
        "running it again resumes: {}",
        text(&again.stderr)
    );
}

fn config(directory: &Path, listen: &str) -> String {
    let path = directory.join("node.toml");
    let text = format!(
        "[node]\nid = 1\ndata_dir = \"{}\"\n[cluster]\nid = \"8c1f1e0c-6d0b-4b57-9a42-6f3f0d2f5a10\"\n\
         [listen]\nclient = \"{listen}:7101\"\n",
        directory.join("data").display()
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_configuration_is_checked_without_starting_anything() {
    let directory = tempfile::tempdir().unwrap();
    let path = config(directory.path(), "127.0.0.1");
    let fine = holdfast(&["serve", "--check-config", "--config", &path]);
    assert_eq!(code(&fine), 0, "{}", text(&fine.stderr));
    assert!(text(&fine.stdout).contains("configuration is fine"));

    let wrong = holdfast(&[
        "serve",
        "--check-config",
        "--config",
        &path,
        "--set",
        "raft.heartbeat_ms=0",
    ]);
    assert_eq!(code(&wrong), 2);
    assert!(
        text(&wrong.stderr).contains("raft.heartbeat_ms"),
        "{}",
        text(&wrong.stderr)
    );
    assert!(!directory.path().join("data").exists());

    let mut settings = std::fs::read_to_string(&path).unwrap();
    settings.push_str(
        "\n[tls]\ncert = \"/nowhere/node.pem\"\nkey = \"/nowhere/node.key\"\nca = \"/nowhere/ca.pem\"\n",
    );
    std::fs::write(&path, settings).unwrap();
    let missing = holdfast(&["serve", "--check-config", "--config", &path]);
    assert_eq!(code(&missing), 2);
    assert!(
        text(&missing.stderr).contains("tls.cert /nowhere/node.pem"),
        "{}",
        text(&missing.stderr)
    );
}

#[test]
fn open_ports_without_tls_need_an_explicit_word() {
    let directory = tempfile::tempdir().unwrap();
    let path = config(directory.path(), "0.0.0.0");
    let refused = holdfast(&["serve", "--config", &path]);
    assert_eq!(code(&refused), 2);
    assert!(
        text(&refused.stderr).contains("--insecure"),
        "{}",
        text(&refused.stderr)
    );
    let allowed = holdfast(&["serve", "--check-config", "--insecure", "--config", &path]);
    assert_eq!(code(&allowed), 0, "{}", text(&allowed.stderr));
}

#[test]
fn a_data_directory_that_cannot_be_made_is_a_mistake_in_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = config(directory.path(), "127.0.0.1");
    std::fs::write(directory.path().join("file"), "").unwrap();
    let below_a_file = directory.path().join("file/data");
    for data_dir in [below_a_file.to_str().unwrap(), "/proc/holdfast"] {
        let refused = holdfast(&["serve", "--config", &path, "--data-dir", data_dir]);
        let said = text(&refused.stderr);
        assert_eq!(code(&refused), 2, "{said}");
        assert!(
            said.contains("node.data_dir") && said.contains(data_dir),
            "{said}"
        );
    }
}
