//! Calling programs and keeping what they said: what the comparison, the days, the growth and the profile of Holdfast
//! have in common.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Instant;

use super::results::Results;
use crate::Failure;

/// What a command printed that must succeed.
pub(super) fn finished(what: &str, output: std::io::Result<Output>) -> Result<String, Failure> {
    let output = output.map_err(|why| format!("{what}: {why}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("{what} failed: {}", why.trim()))
}

/// Has `holdfast-bench-peers` make this report of these lines, and says where it is.
pub(super) fn report_of(
    peers: &Path,
    report_name: &str,
    lines: &Path,
    results: &Results,
    files: &str,
) -> Result<(), Failure> {
    let mut command = Command::new(peers);
    command.arg(report_name).arg("--results").arg(lines);
    command.arg("--preface").arg(results.about());
    command.arg("--into").arg(results.directory());
    report(command, results, files)
}

/// Has the report made, and says where it is.
pub(super) fn report(mut command: Command, results: &Results, files: &str) -> Result<(), Failure> {
    let status = command
        .status()
        .map_err(|why| format!("cannot make the report: {why}"))?;
    println!("\nIn {}: {files}.", results.directory().display());
    if status.success() {
        Ok(())
    } else {
        Err("see above".to_owned())
    }
}

/// A load that runs while something happens.
pub(super) struct Running {
    child: Child,
    /// What it prints: at last, what it measured.
    stdout: BufReader<ChildStdout>,
    /// When what is measured began.
    pub(super) began: Instant,
}

/// What a load prints when its measured time begins.
const ANNOUNCEMENT: &str = "measuring";

/// Starts a load and waits until it is measured. What it measured is in its file afterwards. `errors`: where it says what failed.
pub(super) fn begin(mut load: Command, errors: Stdio) -> Result<Running, Failure> {
    let mut child = load
        .arg("--announce")
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(|why| format!("cannot start the load: {why}"))?;
    let mut stdout = BufReader::new(child.stdout.take().ok_or("the load has no output")?);
    let mut line = String::new();
    while line.trim() != ANNOUNCEMENT {
        line.clear();
        if !matches!(stdout.read_line(&mut line), Ok(1..)) {
            return Err(format!("the load did not begin: {:?}", child.wait()));
        }
    }
    Ok(Running {
        child,
        stdout,
        began: Instant::now(),
    })
}

/// Waits until a load has ended, and returns what it said of what it measured.
pub(super) fn ended(mut load: Running) -> Result<String, Failure> {
    let mut said = String::new();
    load.stdout
        .read_to_string(&mut said)
        .map_err(|why| format!("cannot hear the load: {why}"))?;
    match load.child.wait() {
        Ok(status) if status.success() => Ok(said.trim().to_owned()),
        Ok(status) => Err(format!("the load measured nothing: {status}")),
        Err(why) => Err(format!("cannot wait for the load: {why}")),
    }
}

/// The lines that a call appended to this file, which is removed.
pub(super) fn taken(path: &Path) -> Result<Vec<String>, Failure> {
    let text = fs::read_to_string(path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
    fs::remove_file(path).map_err(|why| format!("cannot remove {}: {why}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Operations a second, as the first thing that a load says.
pub(super) fn per_second(said: &str) -> Result<f64, Failure> {
    let first = said.split_whitespace().next();
    first
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("the load said `{}`, not how much it did", said.trim()))
}

/// Adds a line to a file.
pub(super) fn append(path: &Path, line: &str) -> Result<(), Failure> {
    use std::io::Write;
    let problem = |why: std::io::Error| format!("cannot write {}: {why}", path.display());
    let mut file = fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(problem)?;
    writeln!(file, "{line}").map_err(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_says_first_how_much_it_did() {
        assert_eq!(per_second("1234 a second, p50 7 us\n"), Ok(1234.0));
        assert!(per_second("nothing").is_err());
    }

    #[test]
    fn lines_are_taken_once() {
        let path = std::env::temp_dir().join(format!("holdfast-lines-{}", std::process::id()));
        append(&path, "one").expect("a temporary file can be written");
        append(&path, "two").expect("and again");
        assert_eq!(taken(&path), Ok(vec!["one".to_owned(), "two".to_owned()]));
        assert!(taken(&path).is_err());
    }
}
