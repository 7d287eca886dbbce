//! A run that panics leaves what every failing run leaves: its result as the last line, and a report.
#![cfg(madsim)]

use std::process::Command;

#[test]
fn a_run_that_panics_leaves_its_result_and_a_report() {
    let directory = std::env::temp_dir().join(format!("holdfast-sim-panic-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    // No client can be set up for a cluster of nobody.
    let stored = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions/leader-clock-jumps.toml");
    let text = std::fs::read_to_string(stored).unwrap();
    let nobody = directory.join("nobody.toml");
    std::fs::write(&nobody, text.replace("nodes = 3", "nodes = 0")).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_holdfast-sim"))
        .args(["run", "--quiet", "--configuration"])
        .arg(&nobody)
        .arg("--reports")
        .arg(&directory)
        .output()
        .expect("the simulation's program starts");
    assert_eq!(run.status.code(), Some(1));
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    let result = said.lines().last().unwrap();
    assert!(
        result.starts_with("RESULT ") && result.contains("no endpoint was given"),
        "{said}"
    );
    let report = std::fs::read_to_string(directory.join("seed-103.txt")).unwrap();
    for part in [
        "VIOLATION process: panicked at",
        "The trace around them",
        "clock-offset",
        "Where it panicked",
    ] {
        assert!(report.contains(part), "no {part} in\n{report}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
