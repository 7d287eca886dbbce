//! What commands print on standard output: text for people, or one JSON document a line.

use std::io::Write;

use serde_json::Value;

use crate::exit::{Exit, Failure};

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Text for people.
    #[default]
    Human,
    /// One JSON document a line.
    Json,
}

/// Writes a line to standard output. A closed pipe (`| head`) is a quiet end, not a panic.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::new(Exit::Internal, format!("standard output: {error}"))),
    }
}

/// Prints a result: `json` where JSON was asked for, else the text that `human` makes.
pub(crate) fn result(format: Format, json: &Value, human: impl FnOnce() -> String) -> Result<(), Failure> {
    match format {
        Format::Json => line(&json.to_string()),
        Format::Human => line(human().trim_end()),
    }
}

/// Aligned `name: value` lines; entries without a value are left out.
pub(crate) fn fields(entries: &[(&str, String)]) -> String {
    let width = entries
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, _)| name.len())
        .max();
    let width = width.unwrap_or_default() + 1;
    let mut text = String::new();
    for (name, value) in entries.iter().filter(|(_, value)| !value.is_empty()) {
        let label = format!("{name}:");
        let value = value.replace('\n', &format!("\n{:width$}  ", ""));
        text.push_str(&format!("{label:<width$}  {value}\n"));
    }
    text
}

/// A table without frames, as `cluster status` and `account list` show it.
pub(crate) fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_header(head.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_aligned_and_empty_ones_left_out() {
        let text = fields(&[
            ("name", "a".into()),
            ("none", String::new()),
            ("display_name", "b\nc".into()),
        ]);
        assert_eq!(text, "name:          a\ndisplay_name:  b\n               c\n");
    }

    #[test]
    fn tables_have_no_trailing_space() {
        let text = table(&["ID", "NAME"], vec![vec!["1".into(), "x".into()]]);
        assert!(text.lines().all(|line| line == line.trim_end()), "{text:?}");
        assert!(text.contains("NAME"));
    }
}
