//! Where what is measured goes, and the words above it: by which command, of which build, when, on what machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use super::install::Programs;
use crate::{Failure, workspace};

/// The words, in a results directory.
const ABOUT: &str = "about.md";

/// Of one call of a command.
#[derive(Debug)]
pub(super) struct Results {
    directory: PathBuf,
}

impl Results {
    /// A new directory in `home`. `title`: what is measured, by `cargo xtask bench` with this command and these options.
    pub(super) fn create(
        home: &Path,
        title: &str,
        command: &str,
        options: &[String],
        programs: &Programs,
    ) -> Result<Results, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let directory = home.join(format!("results-{}", now.as_secs()));
        fs::create_dir_all(&directory)
            .map_err(|why| format!("cannot create {}: {why}", directory.display()))?;
        let results = Results { directory };
        let command = format!("{command} {}", options.join(" "));
        results.write(ABOUT, &about(title, command.trim(), programs))?;
        Ok(results)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the file of this name is.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// What goes above the tables.
    pub(super) fn about(&self) -> PathBuf {
        self.file(ABOUT)
    }

    /// Says something more above the tables.
    pub(super) fn say_also(&self, text: &str) -> Result<(), Failure> {
        let path = self.about();
        let said =
            fs::read_to_string(&path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
        self.write(ABOUT, &format!("{said}{text}\n\n"))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.file(name);
        fs::write(&path, text).map_err(|why| format!("cannot write {}: {why}", path.display()))
    }
}

/// Copies the reports and the plots of a results directory.
pub(super) fn copy_pages(from: &Path, into: &Path) -> Result<(), Failure> {
    let entries =
        fs::read_dir(from).map_err(|why| format!("cannot read the directory {}: {why}", from.display()))?;
    let mut pages: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_page(path))
        .collect();
    if pages.is_empty() {
        return Err(format!("{} has no reports", from.display()));
    }
    pages.sort();
    for page in pages {
        let name = page.file_name().unwrap_or_default();
        fs::copy(&page, into.join(name)).map_err(|why| format!("cannot copy {}: {why}", page.display()))?;
        println!("{}", into.join(name).display());
    }
    Ok(())
}

fn is_page(path: &Path) -> bool {
    let ends = |with: &str| path.extension().is_some_and(|extension| extension == with);
    ends("svg") || ends("md") && path.file_name().is_some_and(|name| name != ABOUT)
}

fn about(title: &str, command: &str, programs: &Programs) -> String {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().next().unwrap_or_default().replace("MemTotal:", "");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let build = match programs {
        Programs::Release => "release build".to_owned(),
        Programs::Debug => "debug build, not for figures".to_owned(),
        Programs::In(directory) => format!("built before, from {}", directory.display()),
    };
    format!(
        "# {title}\n\n\
         `cargo xtask bench {}` on {}: Holdfast {} ({build}). The nodes and the load share one machine: {cores} cores, {} of memory, {}.\n\n",
        command,
        first_line("date", &["-u", "+%Y-%m-%d"]),
        commit(),
        memory.trim(),
        first_line("uname", &["-sr"]),
    )
}

/// What is measured. Pages that an earlier part has just written are no change of it.
fn commit() -> String {
    let unchanged = Command::new("git")
        .args([
            "diff",
            "--quiet",
            "HEAD",
            "--",
            ".",
            ":(exclude)benches/peers/figures",
        ])
        .current_dir(workspace::root())
        .status()
        .is_ok_and(|status| status.success());
    let name = first_line("git", &["describe", "--always"]);
    if unchanged { name } else { format!("{name}-dirty") }
}

/// What a program says first; "unknown" if it does not.
pub(super) fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(workspace::root())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_and_plots_are_copied_and_nothing_else() {
        let home = std::env::temp_dir().join(format!("holdfast-results-{}", std::process::id()));
        let into = home.join("figures");
        fs::create_dir_all(&into).unwrap();
        let results = Results::create(
            &home,
            "Growth",
            "growth",
            &["--seconds".to_owned(), "1".to_owned()],
            &Programs::Debug,
        )
        .unwrap();
        assert!(
            copy_pages(results.directory(), &into).is_err(),
            "nothing was measured"
        );
        results.say_also("Of one round.").unwrap();
        let about = fs::read_to_string(results.about()).unwrap();
        assert!(
            about.starts_with("# Growth\n\n`cargo xtask bench growth --seconds 1` on 2"),
            "{about}"
        );
        assert!(about.ends_with(".\n\nOf one round.\n\n"), "{about}");
        for name in ["growth.md", "growth-nodes.svg", "growth.jsonl", "create.stacks"] {
            fs::write(results.file(name), name).unwrap();
        }
        copy_pages(results.directory(), &into).unwrap();
        let mut copied: Vec<_> = fs::read_dir(&into)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        copied.sort();
        assert_eq!(copied, ["growth-nodes.svg", "growth.md"]);
        fs::remove_dir_all(&home).unwrap();
    }
}
