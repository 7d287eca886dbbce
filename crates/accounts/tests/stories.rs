//! Runs every script in `tests/scripts` and compares what happens with what it says happens.
//!
//! A script tells a story: comments (`#`), commands at the start of a line, and indented below each command
//! what came of it. `UPDATE_SCRIPTS=1 cargo test -p holdfast-accounts --test stories` writes the outcome into
//! the scripts; read the difference before you keep it.
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

mod support;

use std::fs;
use std::path::Path;

use support::World;

#[test]
fn stories() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    let update = std::env::var_os("UPDATE_SCRIPTS").is_some();
    for path in paths {
        let script = fs::read_to_string(&path).unwrap();
        let transcript = play(&script);
        if update {
            fs::write(&path, transcript).unwrap();
        } else {
            assert_eq!(transcript, script, "{} tells another story", path.display());
        }
    }
}

fn play(script: &str) -> String {
    let mut world = World::new();
    let mut transcript = String::new();
    // Indented lines are outcomes; they are told anew.
    for line in script.lines().filter(|line| !line.starts_with("    ")) {
        transcript.push_str(line);
        transcript.push('\n');
        if !line.is_empty() && !line.starts_with('#') {
            for fact in world.run(line) {
                transcript.push_str("    ");
                transcript.push_str(&fact);
                transcript.push('\n');
            }
        }
    }
    transcript
}
