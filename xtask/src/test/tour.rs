//! The README's tour, word for word: what a newcomer types is typed here, so it cannot go stale.

use std::fs;
use std::process::Command;

use crate::{Failure, local, workspace};

/// The script of all `sh` blocks under the README's heading `## Tour`.
pub(crate) fn script() -> Result<String, Failure> {
    let path = workspace::root().join("README.md");
    let readme = fs::read_to_string(&path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
    let script = blocks(&readme);
    if script.is_empty() {
        Err("README.md has no `sh` block under `## Tour`".to_owned())
    } else {
        Ok(script)
    }
}

/// Why the tour cannot be taken now, if it cannot: it starts from nothing, and must not touch anybody's data.
pub(crate) fn obstacle() -> Option<String> {
    local::home()
        .exists()
        .then(|| "a local cluster is in .holdfast/ (`cargo xtask down --wipe` removes it)".to_owned())
}

/// The shell that takes it: every line is shown, and the first failing one ends it.
pub(crate) fn command(script: &str) -> Command {
    let mut command = Command::new("bash");
    command
        .args(["-euxo", "pipefail", "-c", script])
        .current_dir(workspace::root());
    command
}

/// Leaves nothing behind, however the tour ended.
pub(crate) fn clean_up() {
    let _ = crate::down::run(&["--wipe".to_owned()]);
    for file in [
        "accounts.jsonl",
        "rejected.jsonl",
        "exported.jsonl",
        "exported.jsonl.position.json",
    ] {
        let _ = fs::remove_file(workspace::root().join(file));
    }
}

fn blocks(readme: &str) -> String {
    let mut script = String::new();
    let (mut in_tour, mut in_block) = (false, false);
    for line in readme.lines() {
        if in_block {
            if line == "```" {
                in_block = false;
            } else {
                script.push_str(line);
                script.push('\n');
            }
        } else if line.starts_with("## ") {
            in_tour = line == "## Tour";
        } else if in_tour && line == "```sh" {
            in_block = true;
        }
    }
    script
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_shell_blocks_of_the_tour_are_taken() {
        let readme = "# X\n```sh\nno\n```\n## Tour\nText.\n```sh\none\n  two\n```\n```json\nno\n```\n## Next\n```sh\nno\n```\n";
        assert_eq!(super::blocks(readme), "one\n  two\n");
    }
}
