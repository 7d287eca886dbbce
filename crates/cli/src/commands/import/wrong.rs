//! What is wrong with a line of an import, in the words of whoever wrote the line: the field by its path, and
//! JSON's names for what is there and what should be.

use serde_json::error::Category;

/// What the parser found.
pub(super) fn told(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let inner = error.inner();
    if inner.classify() != Category::Data {
        return not_json(inner);
    }
    let path = match error.path().to_string() {
        root if root == "." => String::new(),
        path => path,
    };
    let said = inner.to_string();
    let said = said.split(" at line ").next().unwrap_or(&said);
    if let Some((name, known)) = named(said, "unknown field ") {
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        return format!(
            "field `{}` is not known; known are {}",
            below(&path, name),
            known.join(", ")
        );
    }
    if let Some((name, _)) = named(said, "missing field ") {
        return format!("field `{}` is missing", below(&path, name));
    }
    if let Some((name, _)) = named(said, "duplicate field ") {
        return format!("field `{}` is there twice", below(&path, name));
    }
    let expectation = said
        .strip_prefix("invalid type: ")
        .or_else(|| said.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "));
    match expectation {
        Some((found, expected)) => format!(
            "field `{path}`: expected {}, found {}",
            expected_form(expected),
            found_form(found)
        ),
        None => of_field(&format!("{path}: {said}")),
    }
}

/// The line breaks off, or is no JSON.
pub(super) fn not_json(error: &serde_json::Error) -> String {
    // The line within the line is always 1.
    let said = error.to_string().replace(" at line 1 column", " at column");
    format!("not valid JSON: {said}")
}

/// Marks the field in `path: why`.
pub(super) fn of_field(why: &str) -> String {
    match why.split_once(": ") {
        Some((path, why)) if !path.is_empty() => format!("field `{path}`: {why}"),
        _ => why.trim_start_matches(": ").to_owned(),
    }
}

/// The name in a message such as "unknown field `name`, ...", and the rest.
fn named<'a>(said: &'a str, what: &str) -> Option<(&'a str, &'a str)> {
    said.strip_prefix(what)?.strip_prefix('`')?.split_once('`')
}

/// The path of a field of the object at `path`, which may be its own path already.
fn below(path: &str, name: &str) -> String {
    if path.is_empty() || path == name || path.ends_with(&format!(".{name}")) {
        if path.is_empty() { name } else { path }.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn expected_form(expected: &str) -> &str {
    match expected {
        "a string" => "a text",
        "a sequence" => "a list",
        "a map" => "an object",
        "a boolean" => "true or false",
        "u32" | "u64" | "i64" => "a whole number",
        "f64" => "a number",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

fn found_form(found: &str) -> String {
    let (kind, value) = found.split_once(' ').unwrap_or((found, ""));
    match kind {
        "sequence" => "a list".to_owned(),
        "map" => "an object".to_owned(),
        "string" => format!("the text {value}"),
        "integer" => format!("the number {}", value.trim_matches('`')),
        "boolean" => value.trim_matches('`').to_owned(),
        "floating" => format!(
            "the number {}",
            value.trim_start_matches("point ").trim_matches('`')
        ),
        _ => found.to_owned(),
    }
}
