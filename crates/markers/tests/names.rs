//! Every mark's name says one place, so that a report of branches never taken, and a power cut at a named moment,
//! mean what they say.
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The macros, and whether a name may stand in more than one place: some bugs need two hands.
const MACROS: [(&str, bool); 4] = [
    ("reached!(", false),
    ("crash_point!(", false),
    ("unlucky!(", false),
    ("planted!(", true),
];

/// Every source file of the crates, less the two that talk about marks and have none.
fn sources() -> Vec<PathBuf> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut waiting: Vec<PathBuf> = fs::read_dir(crates)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with("markers") && !path.ends_with("sim"))
        .map(|path| path.join("src"))
        .filter(|path| path.is_dir())
        .collect();
    let mut files = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// What follows each call of a macro, with its file and line. Strings and comments that mention one do not call it.
fn calls<'s>(text: &'s str, call: &'static str) -> impl Iterator<Item = (usize, &'s str)> {
    text.match_indices(call).filter_map(move |(at, _)| {
        let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let before = &text[line_start..at];
        let called = !before.contains("//")
            && !before.ends_with(|last: char| last == '"' || last == '_' || last.is_alphanumeric());
        let line = text[..at].matches('\n').count() + 1;
        called.then(|| (line, text[at + call.len()..].trim_start()))
    })
}

/// Where each name stands, and with which macro.
fn marks() -> BTreeMap<String, Vec<(&'static str, String)>> {
    let mut found: BTreeMap<String, Vec<(&'static str, String)>> = BTreeMap::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        for (call, _) in MACROS {
            for (line, rest) in calls(&text, call) {
                let place = format!("{}:{line}", path.display());
                let name = rest
                    .strip_prefix('"')
                    .and_then(|rest| rest.split('"').next())
                    .unwrap_or_else(|| {
                        panic!("{place}: a mark's name is a literal, so that it can be searched for")
                    });
                found.entry(name.to_owned()).or_default().push((call, place));
            }
        }
    }
    found
}

#[test]
fn a_name_says_one_place() {
    let marks = marks();
    assert!(marks.len() > 100, "only {} marks were found", marks.len());
    for (name, places) in marks {
        let several = places.iter().all(|(call, _)| MACROS.contains(&(*call, true)));
        assert!(
            places.len() == 1 || several,
            "{name} marks more than one place: {places:?}"
        );
    }
}

#[test]
fn a_name_says_room_and_event() {
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    for (name, places) in marks() {
        let parts: Vec<&str> = name.split('.').collect();
        let rooms = match places[0].0 {
            "planted!(" => 0,
            _ => 1,
        };
        assert!(
            parts.len() == rooms + 1 && parts.iter().all(|part| plain(part)),
            "{name} at {places:?} is not called as marks are"
        );
    }
}

#[test]
fn only_calls_are_marks() {
    let text = "reached!(\"a.b\"); // reached!(\"c.d\")\n    split(\"reached!(\") unreached!(\"e.f\")\n{ reached!(\n \"g.h\") }";
    let found: Vec<_> = calls(text, "reached!(")
        .map(|(line, rest)| (line, &rest[..5]))
        .collect();
    assert_eq!(found, [(1, "\"a.b\""), (3, "\"g.h\"")]);
}
