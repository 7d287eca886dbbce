//! `holdfast import`: accounts from JSON Lines, each line settled exactly once.
//!
//! A line's number is its index in the import, so the same file under the same import id continues where an
//! earlier run stopped. For a file the id is kept beside it (`FILE.import-id`) until the import is complete, with a
//! digest of what the file held: running the same command again is all it takes to resume, and another file under
//! the same name is refused.

mod lines;
mod report;
mod wrong;

use std::fs::File;
use std::io::{BufReader, IsTerminal, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clap::{Args, ValueEnum};
use holdfast_client::{ImportEvent, ImportOptions, new_request_id, v1};
use holdfast_types::RequestId;

use self::report::Report;
use crate::args::{Global, Why};
use crate::exit::{Exit, Failure};
use crate::output::Format;

/// Import accounts from JSON Lines: one account a line, in the form that `export` writes.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The file; `-`: standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// UUIDv7 of the import, the same to resume it. If not given it is drawn, and for a file kept in
    /// FILE.import-id until the import is complete.
    #[arg(long, value_name = "UUID", value_parser = import_id)]
    import_id: Option<RequestId>,
    /// What to do about accounts that exist.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Write rejected lines to this file, as JSON Lines with `line` (its number), `code`, `reason`, `message`,
    /// `violations` and `input`, the line itself byte for byte; a line that is not JSON is a string there, and one that is
    /// not UTF-8 is `input_base64`. Otherwise number and reason of the first 20 go to standard error. A resumed import
    /// appends.
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Show no progress bar. There is none either if standard error is not a terminal.
    #[arg(long)]
    no_progress: bool,
    /// Accounts under way at any time.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = window)]
    window: usize,
    #[command(flatten)]
    why: Why,
}

/// What to do about accounts that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Mode {
    /// Reject the line.
    #[default]
    Create,
    /// Make the account what the line says.
    Upsert,
    /// Leave the account as it is.
    Skip,
}

impl From<Mode> for v1::ImportMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Create => v1::ImportMode::Create,
            Mode::Upsert => v1::ImportMode::Upsert,
            Mode::Skip => v1::ImportMode::Skip,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(import: &Import, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let from_stdin = import.file.as_os_str() == "-";
    let bytes_total = if from_stdin {
        None
    } else {
        Some(file_size(&import.file)?)
    };
    if let (false, Some(rejects)) = (from_stdin, &import.rejects) {
        refuse_same_file(&import.file, rejects)?;
    }
    let reminder = (!from_stdin).then(|| reminder_path(&import.file));
    let import_id = match (import.import_id, &reminder) {
        (Some(id), _) => id,
        (None, Some(path)) => remembered_id(path, &import.file)?,
        (None, None) => new_request_id(),
    };
    let human = global.output == Format::Human;
    if human {
        let again = if from_stdin {
            format!(" --import-id {import_id}")
        } else {
            String::new()
        };
        eprintln!("import {import_id}; to resume it, run the same command again{again}");
    }

    let mut options = ImportOptions::new(global.realm_name(), import_id, import.mode.into());
    options.context = import.why.context();
    options.window = import.window;
    if let Some(timeout) = global.timeout {
        options.patience = timeout;
    }
    let visible = human && !import.no_progress && std::io::stderr().is_terminal();
    let report = Arc::new(Mutex::new(Report::new(
        import_id,
        import.rejects.clone(),
        bytes_total,
        visible,
    )));
    let resume_after = Arc::new(AtomicU64::new(0));
    let source = lines::items(&import.file, report.clone(), resume_after.clone())?;
    let mut events = client.import_accounts(options, source);
    let report = || report.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = loop {
        match events.next().await {
            Some(Ok(ImportEvent::Resumed { after_index })) => {
                resume_after.store(after_index, Ordering::Relaxed);
                report().begin(after_index)?;
            }
            Some(Ok(ImportEvent::Result(result))) => report().settled(result)?,
            Some(Err(error)) => break Some(Failure::from(error)),
            None => {
                let failure = report().take_failure();
                break failure.or_else(|| report().check_end().err());
            }
        }
    };
    if let Some(mut failure) = failed {
        report().stop();
        failure.hint.get_or_insert_with(|| {
            "what was settled stays settled; run the same command again to resume".to_owned()
        });
        return Err(failure);
    }
    let rejected = report().finish(global.output)?;
    if let Some(path) = &reminder
        && import.import_id.is_none()
    {
        // A new run of the same file is a new import from now on.
        let _ = std::fs::remove_file(path);
    }
    if rejected > 0 {
        let why = format!("{rejected} lines were rejected");
        let failure = Failure::new(Exit::PartlyRejected, why);
        return Err(match &import.rejects {
            Some(path) => failure.hint(format!("they are in {}", path.display())),
            None => failure,
        });
    }
    Ok(())
}

fn file_size(path: &Path) -> Result<u64, Failure> {
    let metadata = std::fs::metadata(path).map_err(|error| Failure::io(path.display(), &error))?;
    if metadata.is_dir() {
        return Err(Failure::usage(format!(
            "{} is a directory; name the JSON Lines file to import",
            path.display()
        )));
    }
    Ok(metadata.len())
}

/// `accounts.jsonl.import-id` for `accounts.jsonl`.
fn reminder_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".import-id");
    PathBuf::from(name)
}

/// The file of rejected lines is emptied before it is written: it must not be the input under any of its names.
fn refuse_same_file(input: &Path, rejects: &Path) -> Result<(), Failure> {
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    if identity(input).is_some_and(|input| identity(rejects) == Some(input)) {
        return Err(Failure::usage(format!(
            "{} is the input itself; writing rejected lines there would destroy it",
            rejects.display()
        )));
    }
    Ok(())
}

/// The id of the import that was begun with this file, or a new one, which is written down before it is used,
/// with what the file held then: a line's number is its index, so lines may be added, but none may change.
fn remembered_id(path: &Path, input: &Path) -> Result<RequestId, Failure> {
    let delete = || format!("delete {} to begin a new import", path.display());
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let damaged = |why: String| Failure::usage(format!("{}: {why}", path.display())).hint(delete());
            let mut words = text.split_whitespace();
            let id = import_id(words.next().unwrap_or_default()).map_err(damaged)?;
            let (length, digest) = words
                .next()
                .and_then(|length| length.parse::<u64>().ok())
                .zip(words.next())
                .ok_or_else(|| {
                    damaged("it does not say what the file held when the import began".to_owned())
                })?;
            if beginning(input, length)?.1 != digest {
                let what = format!(
                    "{} is not what it was when import {id} began: its first {length} bytes have changed",
                    input.display()
                );
                return Err(Failure::usage(what).hint(format!(
                    "put back what it held then to resume that import, or {}",
                    delete()
                )));
            }
            Ok(id)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let id = new_request_id();
            let (length, digest) = beginning(input, u64::MAX)?;
            std::fs::write(path, format!("{id} {length} {digest}\n")).map_err(|error| {
                Failure::io(path.display(), &error).hint(format!("give --import-id {id} instead"))
            })?;
            Ok(id)
        }
        Err(error) => Err(Failure::io(path.display(), &error)),
    }
}

/// The first bytes of a file, at most `length`: how many there are, and their BLAKE3 digest in hexadecimal.
fn beginning(file: &Path, length: u64) -> Result<(u64, String), Failure> {
    let read = || -> std::io::Result<(u64, String)> {
        let mut hasher = blake3::Hasher::new();
        let mut source = BufReader::with_capacity(1 << 20, File::open(file)?).take(length);
        let mut total = 0;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = source.read(&mut buffer)?;
            if count == 0 {
                return Ok((total, hasher.finalize().to_hex().to_string()));
            }
            hasher.update(&buffer[..count]);
            total += count as u64;
        }
    };
    read().map_err(|error| Failure::io(file.display(), &error))
}

fn import_id(text: &str) -> Result<RequestId, String> {
    RequestId::parse(text).map_err(|error| format!("an import id is a request id: {error}"))
}

fn window(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(window @ 1..=4096) => Ok(window),
        _ => Err("a number from 1 to 4096".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_remembers_its_import() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("accounts.jsonl");
        std::fs::write(&file, "one\ntwo\n").unwrap();
        let path = reminder_path(&file);
        assert!(path.ends_with("accounts.jsonl.import-id"));
        let first = remembered_id(&path, &file).unwrap();
        assert_eq!(remembered_id(&path, &file).unwrap(), first);
        std::fs::write(&file, "one\ntwo\nthree\n").unwrap();
        assert_eq!(remembered_id(&path, &file).unwrap(), first, "lines were added");
        for other in ["one\n", "one\ntoo\nthree\n", ""] {
            std::fs::write(&file, other).unwrap();
            let refused = remembered_id(&path, &file).unwrap_err();
            assert_eq!(refused.exit, Exit::Usage, "{other:?}");
            assert!(
                refused.message.contains("is not what it was"),
                "{}",
                refused.message
            );
        }
        std::fs::write(&path, "damaged").unwrap();
        assert_eq!(remembered_id(&path, &file).unwrap_err().exit, Exit::Usage);
        std::fs::remove_file(&path).unwrap();
        assert_ne!(remembered_id(&path, &file).unwrap(), first);
    }

    #[test]
    fn rejected_lines_never_go_into_the_input() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("accounts.jsonl");
        std::fs::write(&file, "one\n").unwrap();
        let (soft, hard) = (directory.path().join("soft"), directory.path().join("hard"));
        std::os::unix::fs::symlink(&file, &soft).unwrap();
        std::fs::hard_link(&file, &hard).unwrap();
        for same in [&file, &soft, &hard] {
            assert_eq!(refuse_same_file(&file, same).unwrap_err().exit, Exit::Usage);
        }
        std::fs::write(directory.path().join("other"), "one\n").unwrap();
        assert!(refuse_same_file(&file, &directory.path().join("other")).is_ok());
        assert!(refuse_same_file(&file, &directory.path().join("absent")).is_ok());
    }
}
