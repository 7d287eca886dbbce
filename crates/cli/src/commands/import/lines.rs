//! Lines of a file as items of an import. Reading and parsing happen on a thread of their own, a bounded number
//! of lines ahead.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use holdfast_client::v1;
use tokio::sync::mpsc;

use super::report::{Pending, Report};
use super::wrong;
use crate::exit::Failure;
use crate::json::AccountJson;

/// How many lines are read ahead.
const AHEAD: usize = 1_024;

/// The longest line; longer ones are rejected. No account is that large.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One line, read.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: u64,
    /// Offset of the byte after it.
    pub(super) end: u64,
    /// The line itself, for the report of a rejection.
    pub(super) text: Vec<u8>,
    /// The item, or what is wrong with the line.
    pub(super) item: Result<v1::ImportItem, String>,
}

/// The items of `path`. What is wrong with a line is told to `report`, which also learns of each item before it
/// is sent. Lines up to `resume_after` (known before the first item is asked for) are passed over.
pub(super) fn items(
    path: &Path,
    report: Arc<Mutex<Report>>,
    resume_after: Arc<AtomicU64>,
) -> Result<impl Stream<Item = v1::ImportItem> + Send + 'static, Failure> {
    let input: Box<dyn Read + Send> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(|error| Failure::io(path.display(), &error))?)
    };
    let (sender, receiver) = mpsc::channel(AHEAD);
    let name = path.display().to_string();
    tokio::task::spawn_blocking(move || {
        let mut input = BufReader::with_capacity(1 << 20, input);
        let mut position = Position::default();
        loop {
            let message = match read(&mut input, &mut position) {
                Ok(None) => return,
                Ok(Some(line)) => Ok(line),
                Err(error) => Err(Failure::io(&name, &error)),
            };
            let failed = message.is_err();
            if sender.blocking_send(message).is_err() || failed {
                return;
            }
        }
    });
    Ok(futures::stream::unfold(
        receiver,
        move |mut receiver: mpsc::Receiver<Result<Line, Failure>>| {
            let (report, resume_after) = (report.clone(), resume_after.clone());
            async move {
                loop {
                    let line = receiver.recv().await?;
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    match line {
                        // The import ends here, and says why.
                        Err(failure) => {
                            report.failed(failure);
                            return None;
                        }
                        Ok(line) if line.number <= resume_after.load(Ordering::Relaxed) => {
                            report.passed_over(line.number, line.end)
                        }
                        Ok(Line {
                            number,
                            end,
                            text,
                            item,
                        }) => {
                            let pending = Pending {
                                line: number,
                                end,
                                text,
                                wrong: item.as_ref().err().cloned(),
                            };
                            report.read(pending);
                            if let Ok(item) = item {
                                drop(report);
                                return Some((item, receiver));
                            }
                        }
                    }
                }
            }
        },
    ))
}

#[derive(Default)]
struct Position {
    line: u64,
    byte: u64,
}

/// The next line that is not blank.
fn read(input: &mut impl BufRead, position: &mut Position) -> std::io::Result<Option<Line>> {
    loop {
        let mut bytes = Vec::new();
        let count = input.read_until(b'\n', &mut bytes)?;
        if count == 0 {
            return Ok(None);
        }
        position.line += 1;
        position.byte += count as u64;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let item = parse(&bytes, position.line);
        let text = match bytes.trim_ascii() {
            long if long.len() > LINE_BYTES_MAX => Vec::new(),
            text => without_mark(text).to_owned(),
        };
        return Ok(Some(Line {
            number: position.line,
            end: position.byte,
            text,
            item,
        }));
    }
}

/// A byte order mark at the start of a file is not part of its first line.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

fn parse(bytes: &[u8], number: u64) -> Result<v1::ImportItem, String> {
    if bytes.len() > LINE_BYTES_MAX {
        return Err(format!("the line has more than {LINE_BYTES_MAX} bytes"));
    }
    let bytes = without_mark(bytes);
    // serde would take an array for the fields in order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err("the line is not a JSON object".to_owned());
    }
    let mut text = serde_json::Deserializer::from_slice(bytes);
    let mut json: AccountJson =
        serde_path_to_error::deserialize(&mut text).map_err(|error| wrong::told(&error))?;
    text.end().map_err(|error| wrong::not_json(&error))?;
    let account_id = std::mem::take(&mut json.account_id);
    let account = json.into_account().map_err(|why| wrong::of_field(&why))?;
    Ok(v1::ImportItem {
        index: number,
        account_id,
        account: Some(account),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_numbers_and_bytes() {
        let text = "\u{feff}{\"account_id\":\"a\"}\n\n  \r\n{\"nonsense\":1}\n{\"account_id\":\"b\"}";
        let mut input = text.as_bytes();
        let mut position = Position::default();
        let mut lines = Vec::new();
        while let Some(line) = read(&mut input, &mut position).unwrap() {
            lines.push(line);
        }
        let shape: Vec<_> = lines
            .iter()
            .map(|line| {
                (
                    line.number,
                    line.item
                        .as_ref()
                        .map(|item| (item.index, item.account_id.as_str()))
                        .ok(),
                )
            })
            .collect();
        assert_eq!(shape, [(1, Some((1, "a"))), (4, None), (5, Some((5, "b")))]);
        assert_eq!(lines[2].end, text.len() as u64);
        assert_eq!(lines[0].text, b"{\"account_id\":\"a\"}");
        let why = lines[1].item.as_ref().unwrap_err();
        assert!(why.contains("nonsense") && !why.contains("line 1"), "{why}");
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_who_wrote_it() {
        for (line, words) in [
            (
                r#"{"identifiers":[{"kind":"mail","value":"a@b.example"}]}"#,
                r#"field `identifiers[0].kind`: unknown kind "mail"; use email, phone, username or external"#,
            ),
            (
                r#"{"identifiers":[{"kind":"email"}]}"#,
                "field `identifiers[0].value` is missing",
            ),
            (
                r#"{"identifiers":[{"kind":"email","valeu":"a@b.example"}]}"#,
                "field `identifiers[0].valeu` is not known; known are kind, issuer, value,",
            ),
            (
                r#"{"nonsense":1}"#,
                "field `nonsense` is not known; known are account_id,",
            ),
            (r#"{"locale":"a","locale":"b"}"#, "field `locale` is there twice"),
            (
                r#"{"display_name":5}"#,
                "field `display_name`: expected a text, found the number 5",
            ),
            (
                r#"{"identifiers":{}}"#,
                "field `identifiers`: expected a list, found an object",
            ),
            (
                r#"{"labels":["a"]}"#,
                "field `labels`: expected an object, found a list",
            ),
            (
                r#"{"identifiers":[{"kind":"email","value":"a@b.example","primary":"yes"}]}"#,
                "field `identifiers[0].primary`: expected true or false, found the text \"yes\"",
            ),
            (
                r#"{"attributes":{"plan":null}}"#,
                "field `attributes.plan`: an attribute cannot be null",
            ),
            (
                r#"{"attributes":{"plan":{}}}"#,
                "field `attributes.plan`: needs exactly one of string,",
            ),
            (
                r#"{"display_name":"a" "locale":"b"}"#,
                "not valid JSON: expected `,` or `}` at column 21",
            ),
            (r#"{"display_name":"a""#, "not valid JSON: "),
            (
                r#"{"display_name":"a"} x"#,
                "not valid JSON: trailing characters at column 22",
            ),
            ("[]", "the line is not a JSON object"),
        ] {
            let why = parse(line.as_bytes(), 1).unwrap_err();
            assert!(why.starts_with(words), "{line}\n{why}\n{words}");
            assert!(!why.contains("line 1") && !why.contains("struct"), "{why}");
        }
    }
}
