//! The bugs that can be planted (`cargo xtask sim --planted`), to see whether the judges notice.
//!
//! Each is a mistake that a tired engineer makes and a reviewer overlooks, behind `planted!` in the production code
//! where it would be made. It exists only in a simulated build with the feature `planted`, and only in the run that
//! chose it.

/// A bug behind `holdfast_markers::planted!`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planted {
    /// Its name in the sources.
    pub name: &'static str,
    /// What the code does wrong.
    pub what: &'static str,
    /// The judges that should notice.
    pub caught_by: &'static str,
    /// What must happen in a run for it to show.
    pub needs: &'static str,
    /// Within how many seeds the swarm must notice.
    pub within: u64,
}

/// All of them.
pub const PLANTED: &[Planted] = &[
    Planted {
        name: "flush-reported-before-sync",
        what: "the log writer tells Raft that entries are durable once they are written",
        caught_by: "quorum, durability, leader completeness",
        needs: "writes; power cuts, best at `log.written-not-synced`, or slow syncs",
        within: 20,
    },
    Planted {
        name: "vote-not-synced",
        what: "a vote is given once it is queued to be written",
        caught_by: "monotonic (the term goes back over a restart), election safety",
        needs: "power cut of a voter right after an election: at `leadership.changed`, or while its syncs are slow",
        within: 400,
    },
    Planted {
        name: "stale-follower-read",
        what: "a follower answers linearizable reads from what it has applied, without asking the leader",
        caught_by: "linearizability, order by tokens",
        needs: "reads through followers that lag: partitions, slow or lossy links, slow syncs, pauses",
        within: 20,
    },
    Planted {
        name: "barrier-skipped",
        what: "a leader answers linearizable reads without asking a quorum whether it still leads",
        caught_by: "linearizability, order by tokens",
        needs: "a leader that is cut off or paused while another is elected, and clients that still reach it",
        within: 100,
    },
    Planted {
        name: "later-vote-overlooked",
        what: "a voter's answer confirms a leader, whatever term its vote is of",
        caught_by: "linearizability, order by tokens",
        needs: "a leader that is paused, or hears answers and no more, while another is elected, and clients that still reach it",
        within: 400,
    },
    Planted {
        name: "read-before-own-entry-committed",
        what: "a new leader takes for committed what it knew to be committed when it was elected",
        caught_by: "linearizability, order by tokens",
        needs: "reads of a leader that was just elected and had not heard of the last commit",
        within: 400,
    },
    Planted {
        name: "round-answers-later-readers",
        what: "a round for readers also answers those that came after it began",
        caught_by: "linearizability, order by tokens",
        needs: "a write that is acknowledged while a round is under way, and a read of it at a node that lags",
        within: 400,
    },
    Planted {
        name: "hot-row-outlives-its-write",
        what: "an account or claim that is kept in memory is not marked when it is written",
        caught_by: "linearizability, order by tokens, exactly once (changes of what was read too early)",
        needs: "a row that is read, changed and read again at one node",
        within: 5,
    },
    Planted {
        name: "leader-restored-before-reapplied",
        what: "a restarted leader leads on without an election and serves before it has applied its log again",
        caught_by: "linearizability, durability (reads miss what was acknowledged), replicas",
        needs: "power cut of the leader or of all, up again before an election timeout, and reads at once",
        within: 400,
    },
    Planted {
        name: "request-record-forgotten-after-leader-change",
        what: "a new leader's first entry clears the request records, as if they were its memory",
        caught_by: "exactly once, linearizability",
        needs: "a change of leader between a request and its repetition: retry storms, late duplicates",
        within: 20,
    },
    Planted {
        name: "refusal-not-recorded",
        what: "a refusal is answered but not stored under its request id",
        caught_by: "exactly once (an effect after a definite no)",
        needs: "a refused request sent again after what stood in its way has gone: freed identifiers, undeletions",
        within: 50,
    },
    Planted {
        name: "applied-id-written-apart",
        what: "the applied log id goes into a batch of its own behind the data",
        caught_by: "replicas (an entry applied twice), exactly once",
        needs: "power cuts under writes, such that the data survives and the id does not",
        within: 50,
    },
    Planted {
        name: "claim-not-released",
        what: "an identifier that is removed keeps its claim",
        caught_by: "uniqueness (orphan claims), linearizability per identifier",
        needs: "identifiers removed and wanted by others after the quarantine; no fault",
        within: 10,
    },
    Planted {
        name: "absence-guard-dropped",
        what: "a plan guards the rows it found, not those it found missing",
        caught_by: "uniqueness, exactly once, linearizability per identifier",
        needs: "creates with the same identifier, or the same request, at the same time, while the unlikely turn \
                `driver.latches-skipped` is taken: latches hide it otherwise",
        within: 50,
    },
    Planted {
        name: "change-event-dropped-at-leader-change",
        what: "a new leader's change log begins at its own first entry, and the entry before that is lost",
        caught_by: "watch: the change log has a gap in an account's revisions",
        needs: "a change of leader under writes, and nothing trimmed since",
        within: 20,
    },
    Planted {
        name: "double-apply-on-restart",
        what: "a batch is stored with the applied id of the batch before it",
        caught_by: "replicas",
        needs: "a restart of any kind under writes",
        within: 10,
    },
    Planted {
        name: "retry-after-failed-sync",
        what: "a failed sync is tried again, and the second answer is believed",
        caught_by: "fail-stop, durability, quorum",
        needs: "failed syncs; a restart or power cut of that node later for the loss itself",
        within: 50,
    },
    Planted {
        name: "membership-lost-on-snapshot-install",
        what: "an installed snapshot's membership is not stored",
        caught_by: "replicas (memberships differ), liveness (a node waits for a cluster it does not know)",
        needs: "an absence long enough for a snapshot, and a restart of that node after it",
        within: 300,
    },
    Planted {
        name: "damage-taken-for-absence",
        what: "a read that fails because what is stored is damaged is taken for a row that is not there",
        caught_by: "fail-stop (the disk said that it is damaged, and the node goes on)",
        needs: "a bit flipped in an account that is read or written again",
        within: 300,
    },
    Planted {
        name: "doors-left-open-after-failure",
        what: "a node that has to stop goes on serving until somebody ends its process",
        caught_by: "fail-stop (an answer after the disk's failure)",
        needs: "a failing disk, and a reader who is content with stale answers",
        within: 100,
    },
    Planted {
        name: "memory-of-calls-kept",
        what: "each call leaves a quarter of a mebibyte behind",
        caught_by: "bounds (memory)",
        needs: "calls; no fault",
        within: 5,
    },
    Planted {
        name: "calls-leave-tasks-behind",
        what: "each call leaves a task behind that never ends",
        caught_by: "bounds (tasks)",
        needs: "calls; no fault",
        within: 5,
    },
    Planted {
        name: "half-an-install-accepted",
        what: "the applied id of a snapshot is stored, and its mark removed, before its rows are in",
        caught_by: "replicas, durability, uniqueness",
        needs: "a snapshot being installed, and power cut at `install.cleared`, `install.partly-ingested` or \
                `install.ingested`",
        within: 300,
    },
    Planted {
        name: "expiry-by-local-clock",
        what: "each replica expires request records up to its own clock less the window",
        caught_by: "replicas, exactly once",
        needs: "expiry: log time beyond the request window; clock offsets make it worse",
        within: 20,
    },
    Planted {
        name: "digest-of-request-ignored",
        what: "a request id that is used again with another content is answered with the first one's outcome",
        caught_by: "exactly once, linearizability (an acknowledged write that nobody ever sees)",
        needs: "a request id sent again with another content; no fault",
        within: 50,
    },
    Planted {
        name: "unknown-said-to-be-definite",
        what: "a caller whose deadline passes after the proposal is told that nothing happened",
        caught_by: "exactly once, linearizability (an effect after a definite no)",
        needs: "short deadlines against slow syncs, slow links or elections",
        within: 200,
    },
    Planted {
        name: "lookup-without-recheck",
        what: "a look-up reads the claim while the barrier is under way and then the account, and compares nothing",
        caught_by: "linearizability per identifier, uniqueness (an answer that does not list the identifier)",
        needs: "identifiers moved and looked up at the same time, through followers that lag",
        within: 50,
    },
    Planted {
        name: "jumped-clock-believed",
        what: "a leader stamps with a wall clock that has jumped since it was last compared with others",
        caught_by: "liveness (every request id is older than the window), uniqueness (quarantines end early)",
        needs: "a leader's clock that jumps ahead by more than the window",
        within: 400,
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The names in every `planted!("…")` of the crates, this one aside.
    fn in_sources() -> BTreeSet<String> {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut found = BTreeSet::new();
        let mut waiting = vec![crates];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    // These two talk about planted bugs.
                    if !path.ends_with("markers") && !path.ends_with("sim") {
                        waiting.push(path);
                    }
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(path).unwrap();
                    let names = text.split("planted!(\"").skip(1);
                    found.extend(names.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
                }
            }
        }
        found
    }

    #[test]
    fn the_table_is_what_the_sources_can_do() {
        let listed: BTreeSet<String> = PLANTED.iter().map(|bug| bug.name.to_owned()).collect();
        assert_eq!(listed.len(), PLANTED.len(), "each is listed once");
        assert_eq!(listed, in_sources());
    }
}
