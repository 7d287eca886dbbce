//! Which marks of production code, and which faults, no run has reached.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{Failure, Totals};

/// What no run here can be expected to reach: the mark, why, and where it is tested.
const NOT_HERE: &[(&str, &str, &str)] = &[
    (
        "barrier.index-never-committed",
        "a leader must name an entry that it has not committed to a follower's reader, and die before anybody has it; one run in thousands",
        "crates/consensus/src/barrier.rs: an_index_that_is_never_committed_is_not_waited_for",
    ),
    (
        "driver.request-expired-at-apply",
        "the log clock would have to pass a tenth of a request window between evaluation and apply; the least window is \
         a minute, and no clock that is believed jumps by seconds",
        "crates/machine/tests/story.rs: what apply answers then",
    ),
    (
        "machine.request-below-floor",
        "the same",
        "crates/machine/tests/story.rs",
    ),
    (
        "membership.leader-is-no-member",
        "a leader confirms that it leads before it changes the membership, and one that removed itself has stepped down by \
         then; this is behind that",
        "crates/consensus/tests/cluster.rs: a_leader_that_removed_itself_changes_nothing_more",
    ),
    (
        "peer.stranger-refused",
        "a node of another cluster is told so by its founders and stops before it sends Raft messages",
        "crates/consensus/tests/cluster.rs: a_directory_keeps_its_owner_and_strangers_are_refused",
    ),
    (
        "peer.wiped-refused",
        "who lost its directory has no data and sends nothing before it is told; this is for directories that were swapped",
        "crates/consensus/src/identity.rs: a_directory_is_remembered_over_restarts_and_another_is_refused",
    ),
    (
        "account.purge-not-due-any-more",
        "a deletion must be undone just while its purge is under way; one run in thousands",
        "crates/accounts/tests/scripts/delete_undelete_purge.txt",
    ),
    (
        "log.failed-elsewhere-during-sync",
        "something else must fail just while a sync is under way that succeeds; one run in thousands",
        "crates/consensus/src/log_store.rs: nothing_is_reported_after_a_failure_elsewhere",
    ),
    (
        "apply.silent-after-failure",
        "the failure must come in the moments between the sync of the log and the apply; one run in thousands",
        "crates/consensus/src/apply.rs: nothing_is_applied_after_a_failure",
    ),
    (
        "engine.closed-after-failure",
        "whoever writes has looked whether the node failed; the failure must come between that look and the write",
        "crates/consensus/src/fail_stop.rs: a_node_that_failed_of_something_else_writes_nothing_either",
    ),
    (
        "log.purged-before-it-was-sent",
        "a stream ends with its replies, before the log is purged that it reads; this is behind that",
        "crates/consensus/src/log_store.rs: entries_can_be_read_while_the_disk_hangs_and_never_once_truncated",
    ),
    (
        "network.nobody-hears-the-replies",
        "a stream's carrier must ask for more in the moment between the end of the replies and its own; here both end in one \
         step of the scheduler",
        "crates/consensus/src/network.rs: a_stream_ends_when_nobody_hears_its_replies",
    ),
    (
        "peer.unknown-without-data",
        "a stranger or a member of long ago must speak to a node that was started a moment ago; one run in thousands",
        "crates/consensus/tests/cluster.rs: a_node_without_data_votes_for_nobody_who_does_not_know_its_directory",
    ),
    (
        "roster.waits-for-who-voted",
        "it is said when a founder has waited for ten seconds; if one has voted, the founding is over by then",
        "nothing: it is a sentence in the log",
    ),
    (
        "start.others-founded-first",
        "another founder must complete the founding between this one's last question and its own; one run in a thousand",
        "crates/consensus/tests/one_node.rs: what_is_founded_is_not_founded_again",
    ),
    (
        "snapshot.not-flushed-in-time",
        "syncs must hang for longer than the operator waits, just then; one run in thousands",
        "crates/consensus/tests/one_node.rs",
    ),
];

/// Faults that no run here can be expected to have, and why.
const NEVER_DRAWN: &[(&str, &str)] = &[];

/// All marks in the sources (`reached!("…")`, `crash_point!("…")` and `unlucky!("…")`) with the files that hold them.
///
/// # Errors
/// If the sources cannot be read: the program must run where it was built.
pub fn marks() -> Result<BTreeMap<String, String>, Failure> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = BTreeMap::new();
    let mut directories = vec![crates.clone()];
    while let Some(directory) = directories.pop() {
        let entries =
            fs::read_dir(&directory).map_err(|why| format!("cannot read {}: {why}", directory.display()))?;
        for entry in entries {
            let path = entry.map_err(|why| why.to_string())?.path();
            if path.is_dir() {
                // The marks' own crate only talks about them.
                if !path.ends_with("markers") && !path.ends_with("sim") && !path.ends_with("tests") {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path)
                    .map_err(|why| format!("cannot read {}: {why}", path.display()))?;
                let name = path.strip_prefix(&crates).unwrap_or(&path).display().to_string();
                for mark in marks_in(&text) {
                    found.insert(mark.to_owned(), name.clone());
                }
            }
        }
    }
    Ok(found)
}

fn marks_in(text: &str) -> impl Iterator<Item = &str> {
    ["reached!(", "crash_point!(", "unlucky!("]
        .into_iter()
        .flat_map(move |call| {
            text.split(call)
                .skip(1)
                .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
        })
}

/// The marks that the runs never reached and those of `varieties` of faults that never happened, one line each; with
/// the reason where there is one.
///
/// # Errors
/// If the sources cannot be read.
pub fn missing(totals: &Totals, varieties: &BTreeSet<String>) -> Result<Vec<String>, Failure> {
    let mut lines: Vec<String> = marks()?
        .into_iter()
        .filter(|(mark, _)| !totals.reached.contains_key(mark))
        .map(
            |(mark, file)| match NOT_HERE.iter().find(|(name, ..)| *name == mark) {
                Some((_, why, tested)) => format!("not reached here: {mark} ({file}): {why}; see {tested}"),
                None => format!("never reached: {mark} ({file})"),
            },
        )
        .collect();
    lines.extend(
        varieties
            .iter()
            .filter(|variety| !totals.faults.contains_key(*variety))
            .map(
                |variety| match NEVER_DRAWN.iter().find(|(name, _)| name == variety) {
                    Some((_, why)) => format!("does not happen here: {variety}: {why}"),
                    None => format!("never happened: {variety}"),
                },
            ),
    );
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_however_they_are_broken_into_lines() {
        let text = "reached!(\"a.b\"); x(crash_point!(\n    \"c.d\"\n).await) reached!(other)";
        assert_eq!(marks_in(text).collect::<Vec<_>>(), ["a.b", "c.d"]);
    }

    #[test]
    fn the_sources_have_marks() {
        let marks = marks().unwrap();
        assert!(marks.len() > 50);
        for (mark, ..) in NOT_HERE {
            assert!(marks.contains_key(*mark), "there is no mark {mark} any more");
        }
    }
}
