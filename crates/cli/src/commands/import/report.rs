//! What became of each line: counts, the list of rejections, the progress bar.
//!
//! Lines are reported in the order of the file. A line that cannot be parsed is never sent, so it waits here
//! until the lines before it have their results.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_client::v1;
use holdfast_types::RequestId;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure, code_name};
use crate::output::{self, Format};
use crate::progress::{Progress, thousands};

/// The reason given for a line that is not an account.
const MALFORMED: &str = "MALFORMED_LINE";

/// How many rejected lines are shown where no file lists them.
const SAID_MAX: u64 = 20;

/// A line that was read and has no result yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) line: u64,
    pub(super) end: u64,
    /// The line as it was, without the white space around it.
    pub(super) text: Vec<u8>,
    /// What is wrong with it, if it could not be parsed.
    pub(super) wrong: Option<String>,
}

/// The report of one run.
pub(super) struct Report {
    import_id: RequestId,
    rejects_path: Option<PathBuf>,
    rejects: Option<BufWriter<File>>,
    progress: Progress,
    pending: VecDeque<Pending>,
    resumed_after_line: u64,
    last_line: u64,
    created: u64,
    updated: u64,
    skipped: u64,
    rejected: BTreeMap<String, u64>,
    /// Rejected lines that no file lists.
    unlisted: u64,
    failure: Option<Failure>,
}

impl Report {
    pub(super) fn new(
        import_id: RequestId,
        rejects_path: Option<PathBuf>,
        bytes_total: Option<u64>,
        visible: bool,
    ) -> Self {
        Report {
            import_id,
            rejects_path,
            rejects: None,
            progress: Progress::new(bytes_total, visible),
            pending: VecDeque::new(),
            resumed_after_line: 0,
            last_line: 0,
            created: 0,
            updated: 0,
            skipped: 0,
            rejected: BTreeMap::new(),
            unlisted: 0,
            failure: None,
        }
    }

    /// The import is open: an earlier run settled everything up to this line.
    pub(super) fn begin(&mut self, after_line: u64) -> Result<(), Failure> {
        self.resumed_after_line = after_line;
        if after_line > 0 {
            self.progress
                .say(&format!("resuming after line {}", thousands(after_line)));
        }
        if let Some(path) = &self.rejects_path {
            let file = open_rejects(path, after_line).map_err(|error| Failure::io(path.display(), &error))?;
            self.rejects = Some(BufWriter::new(file));
        }
        Ok(())
    }

    /// A line of an earlier run.
    pub(super) fn passed_over(&mut self, line: u64, end: u64) {
        self.last_line = line;
        self.progress.resume_at(end);
    }

    /// A line was read.
    pub(super) fn read(&mut self, pending: Pending) {
        self.last_line = pending.line;
        self.pending.push_back(pending);
        self.settle_unsent();
    }

    /// Reading failed: nothing more comes.
    pub(super) fn failed(&mut self, failure: Failure) {
        self.failure = Some(failure);
    }

    /// Everything was read: an input that ends before what an earlier run settled is another input.
    pub(super) fn check_end(&self) -> Result<(), Failure> {
        if self.last_line >= self.resumed_after_line {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "the input ends at line {}, but an earlier run of import {} settled lines up to {}: this is not the input \
             that import began with, and nothing of it was imported",
            self.last_line, self.import_id, self.resumed_after_line
        ))
        .hint("begin a new import: without --import-id, and without FILE.import-id"))
    }

    /// Why reading, or reporting, failed.
    pub(super) fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// A result arrived. It is that of the oldest line that was sent.
    pub(super) fn settled(&mut self, result: v1::ImportItemResult) -> Result<(), Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let Some(pending) = self
            .pending
            .pop_front()
            .filter(|pending| pending.line == result.index)
        else {
            return Err(Failure::new(
                Exit::Internal,
                format!("a result for line {}, which has one", result.index),
            ));
        };
        let action = result.action();
        if result.code == 0 {
            match action {
                v1::ImportAction::Updated => self.updated += 1,
                v1::ImportAction::Skipped => self.skipped += 1,
                _ => self.created += 1,
            }
        } else {
            let code = code_name(tonic::Code::from_i32(result.code));
            let reason = match result.reason() {
                v1::Reason::Unspecified => code,
                reason => reason.as_str_name().trim_start_matches("REASON_"),
            };
            let violations: Vec<Value> = result
                .violations
                .iter()
                .map(|violation| json!({ "field": violation.field, "description": violation.description }))
                .collect();
            self.reject(&pending, code, reason, &result.message, violations);
        }
        self.progress.settled(result.code == 0, pending.end);
        self.settle_unsent();
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Lines at the front that were never sent have their result: they are rejected.
    fn settle_unsent(&mut self) {
        while self
            .pending
            .front()
            .is_some_and(|pending| pending.wrong.is_some())
        {
            let Some(pending) = self.pending.pop_front() else {
                break;
            };
            let why = pending.wrong.clone().unwrap_or_default();
            self.reject(&pending, "INVALID_ARGUMENT", MALFORMED, &why, Vec::new());
            self.progress.settled(false, pending.end);
        }
    }

    fn reject(&mut self, pending: &Pending, code: &str, reason: &str, message: &str, violations: Vec<Value>) {
        *self.rejected.entry(reason.to_owned()).or_default() += 1;
        let Some(rejects) = &mut self.rejects else {
            self.unlisted += 1;
            if self.unlisted <= SAID_MAX {
                self.progress
                    .say(&format!("line {}: {reason}: {message}", pending.line));
            }
            return;
        };
        let mut entry = json!({
            "line": pending.line, "code": code, "reason": reason, "message": message,
        });
        if !violations.is_empty() {
            entry["violations"] = Value::from(violations);
        }
        let entry = with_input(&entry, &pending.text);
        // Flushed at once: when this process dies, the cluster still remembers the line as settled.
        if let Err(error) = writeln!(rejects, "{entry}").and_then(|()| rejects.flush()) {
            self.failure = Some(Failure::io("the file of rejected lines", &error));
        }
    }

    /// Says how many rejected lines were neither shown nor listed, if any were.
    fn more_unlisted(&self) -> Option<String> {
        let more = self.unlisted.checked_sub(SAID_MAX).filter(|more| *more > 0)?;
        Some(format!(
            "… and {} more; --rejects FILE lists them all",
            thousands(more)
        ))
    }

    /// Ends the bar; what was rejected so far is in its file.
    pub(super) fn stop(&mut self) {
        self.progress.finish();
        if let Some(more) = self.more_unlisted() {
            self.progress.say(&more);
        }
        if let Some(rejects) = &mut self.rejects {
            let _ = rejects.flush();
        }
    }

    /// Prints the summary. Returns how many lines were rejected.
    pub(super) fn finish(&mut self, format: Format) -> Result<u64, Failure> {
        self.progress.finish();
        if let Some(more) = self.more_unlisted() {
            self.progress.say(&more);
        }
        if let Some(rejects) = &mut self.rejects {
            rejects
                .flush()
                .map_err(|error| Failure::io("the file of rejected lines", &error))?;
        }
        let rejected: u64 = self.rejected.values().sum();
        let accepted = self.created + self.updated + self.skipped;
        let document = json!({
            "import_id": self.import_id.to_string(),
            "lines": accepted + rejected,
            "accepted": accepted,
            "created": self.created,
            "updated": self.updated,
            "skipped": self.skipped,
            "rejected": rejected,
            "rejected_by_reason": self.rejected,
            "resumed_after_line": self.resumed_after_line,
            "elapsed_ms": self.progress.elapsed().as_millis() as u64,
        });
        output::result(format, &document, || self.summary(accepted, rejected))?;
        Ok(rejected)
    }

    fn summary(&self, accepted: u64, rejected: u64) -> String {
        let mut parts = vec![format!("{} created", thousands(self.created))];
        for (count, what) in [(self.updated, "updated"), (self.skipped, "skipped")] {
            if count > 0 {
                parts.push(format!("{} {what}", thousands(count)));
            }
        }
        let mut text = format!(
            "{} accepted ({}), {} rejected, in {:.1} s ({:.0}/s)",
            thousands(accepted),
            parts.join(", "),
            thousands(rejected),
            self.progress.elapsed().as_secs_f64(),
            self.progress.rate()
        );
        if self.resumed_after_line > 0 {
            let line = thousands(self.resumed_after_line);
            text.push_str(&format!("; lines up to {line} were settled by an earlier run"));
        }
        for (reason, count) in &self.rejected {
            text.push_str(&format!("\n  {:>10}  {reason}", thousands(*count)));
        }
        text
    }
}

/// An entry of the file of rejected lines, with the line as its last field: byte for byte if it is JSON, which goes into
/// JSON as it is; else as a string, or, if no string can hold it, in Base64.
fn with_input(entry: &Value, line: &[u8]) -> String {
    let entry = entry.to_string();
    let before = entry.strip_suffix('}').unwrap_or(&entry);
    match std::str::from_utf8(line) {
        Ok(text) if serde_json::from_str::<Value>(text).is_ok() => format!("{before},\"input\":{text}}}"),
        Ok(text) => format!("{before},\"input\":{}}}", Value::from(text)),
        Err(_) => format!("{before},\"input_base64\":\"{}\"}}", STANDARD.encode(line)),
    }
}

/// The file of rejected lines, ready for more. An earlier run may have got further than it could make durable:
/// what it reported beyond `after_line` comes again, and a last line torn by its death with it.
fn open_rejects(path: &Path, after_line: u64) -> std::io::Result<File> {
    let earlier = match std::fs::read_to_string(path) {
        Ok(text) if after_line > 0 => text,
        _ => String::new(),
    };
    let mut kept = String::new();
    for line in earlier.lines() {
        let number = serde_json::from_str::<Value>(line)
            .ok()
            .and_then(|entry| entry["line"].as_u64());
        if number.is_some_and(|number| number <= after_line) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    let mut file = File::create(path)?;
    file.write_all(kept.as_bytes())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(line: u64, wrong: Option<&str>) -> Pending {
        Pending {
            line,
            end: line * 10,
            text: format!("{{\"n\":{line}}}").into_bytes(),
            wrong: wrong.map(str::to_owned),
        }
    }

    fn result(line: u64, code: i32) -> v1::ImportItemResult {
        let reason = if code == 0 {
            v1::Reason::Unspecified
        } else {
            v1::Reason::IdentifierUnavailable
        };
        v1::ImportItemResult {
            index: line,
            code,
            reason: reason.into(),
            message: "taken".into(),
            action: if code == 0 {
                v1::ImportAction::Created
            } else {
                v1::ImportAction::Rejected
            }
            .into(),
            ..v1::ImportItemResult::default()
        }
    }

    #[test]
    fn rejections_are_listed_in_the_order_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rejects.jsonl");
        let mut report = Report::new(
            holdfast_client::new_request_id(),
            Some(path.clone()),
            Some(100),
            false,
        );
        report.begin(0).unwrap();
        report.read(pending(1, Some("no JSON")));
        report.read(pending(2, None));
        report.read(pending(3, Some("no JSON either")));
        report.read(pending(4, None));
        report.settled(result(2, 6)).unwrap();
        report.settled(result(4, 0)).unwrap();
        assert!(report.settled(result(4, 0)).is_err(), "no line has two results");
        assert_eq!(report.finish(Format::Json).unwrap(), 3);
        let text = std::fs::read_to_string(&path).unwrap();
        let entries: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let listed: Vec<_> = entries
            .iter()
            .map(|e| (e["line"].as_u64(), e["reason"].as_str().unwrap()))
            .collect();
        assert_eq!(
            listed,
            [
                (Some(1), MALFORMED),
                (Some(2), "IDENTIFIER_UNAVAILABLE"),
                (Some(3), MALFORMED)
            ]
        );
        assert_eq!(entries[1]["input"]["n"], 2);
    }

    #[test]
    fn a_rejected_line_is_written_as_it_was() {
        let entry = json!({ "line": 1 });
        // Neither the order of fields nor a number's digits are ours to change.
        let texts: [(&[u8], &str); 4] = [
            (
                br#"{"z": 1.50,  "a":"\u0041","a":2}"#,
                r#"{"line":1,"input":{"z": 1.50,  "a":"\u0041","a":2}}"#,
            ),
            (b"{\"a\" \tb", r#"{"line":1,"input":"{\"a\" \tb"}"#),
            (b"a\xff", r#"{"line":1,"input_base64":"Yf8="}"#),
            (b"", r#"{"line":1,"input":""}"#),
        ];
        for (line, written) in texts {
            let found = with_input(&entry, line);
            assert_eq!(found, written);
            assert_eq!(serde_json::from_str::<Value>(&found).unwrap()["line"], 1);
        }
    }

    #[test]
    fn rejections_that_no_file_lists_are_counted_after_the_first_few() {
        let mut report = Report::new(holdfast_client::new_request_id(), None, Some(100), false);
        report.begin(0).unwrap();
        for line in 1..=SAID_MAX {
            report.read(pending(line, Some("no JSON")));
        }
        assert_eq!(report.more_unlisted(), None);
        for line in 1..=1_234 {
            report.read(pending(SAID_MAX + line, Some("no JSON")));
        }
        let more = report.more_unlisted().unwrap();
        assert_eq!(more, "… and 1,234 more; --rejects FILE lists them all");
        assert_eq!(report.finish(Format::Json).unwrap(), SAID_MAX + 1_234);
    }

    #[test]
    fn a_resumed_import_reports_no_line_twice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rejects.jsonl");
        std::fs::write(&path, "{\"line\":3}\n{\"line\":8}\n{\"li").unwrap();
        let lines = |after| {
            drop(open_rejects(&path, after).unwrap());
            std::fs::read_to_string(&path).unwrap()
        };
        assert_eq!(lines(5), "{\"line\":3}\n");
        assert_eq!(lines(0), "", "a new import begins a new list");
    }
}
