//! What the clients of a run saw: one [`Operation`] for each call, with simulated times.
//!
//! The workload writes it, the judges read it, reports print it as lines of JSON. Nothing here needs the
//! simulator, so the judges are tested in a normal build.
//!
//! How to record:
//!
//! - One call of the client is one operation, however often the client tried behind the scenes. If the workload
//!   itself sends a request again (a storm, a late duplicate), that is a further operation with the same
//!   `request_id` and the same input; the judges put them together.
//! - *Ok* for what was answered, *definitely not* for what the answer says had no effect and never will have,
//!   *unknown* for everything else, for ever. A look-up or a get that finds nothing is *ok*, with
//!   [`Output::NotFound`] or [`Output::Purged`]. A read that failed is *definitely not*, whatever the reason.
//! - Accounts are named by the workload (never derived by the service), and each display name that is written
//!   is unique to its request: that is its *fingerprint*.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All operations of a run, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The operations; ids are unique.
    pub operations: Vec<Operation>,
}

impl History {
    /// One operation a line.
    pub fn to_lines(&self) -> Result<String, serde_json::Error> {
        let mut lines = String::new();
        for operation in &self.operations {
            lines.push_str(&serde_json::to_string(operation)?);
            lines.push('\n');
        }
        Ok(lines)
    }

    /// The same history where the network may deliver a request twice: what a server says about the copy that it has
    /// turned away is no proof about the other one, so unless a "no" was recorded under the request id, the outcome
    /// is unknown.
    pub fn with_twins(mut self) -> Self {
        for operation in &mut self.operations {
            if let Outcome::DefinitelyNot(reason) = &operation.outcome
                && operation.input.changes().is_some()
                && !reason.is_recorded()
                && !matches!(reason, Reason::EtagMismatch { .. })
            {
                operation.outcome = Outcome::Unknown;
            }
        }
        self
    }

    /// How many operations there are by outcome: `ok`, `not`, `unknown`.
    pub fn outcomes(&self) -> BTreeMap<String, u64> {
        let mut outcomes = BTreeMap::new();
        for operation in &self.operations {
            let outcome = match operation.outcome {
                Outcome::Ok { .. } => "ok",
                Outcome::DefinitelyNot(_) => "not",
                Outcome::Unknown => "unknown",
            };
            *outcomes.entry(outcome.to_owned()).or_default() += 1;
        }
        outcomes
    }

    /// Reads what [`History::to_lines`] wrote.
    pub fn from_lines(lines: &str) -> Result<Self, serde_json::Error> {
        let operations = lines
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        Ok(History { operations })
    }
}

/// One call and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Unique within the run; from 1.
    pub id: u64,
    /// The client that called. A client's calls may overlap; its session is what it saw in the order of returns.
    pub client: u32,
    /// When it called, simulated nanoseconds since the run began.
    pub invoked: u64,
    /// When the answer came. None: the run ended before.
    pub returned: Option<u64>,
    /// The request id of a mutation. None for reads and for items of imports.
    pub request_id: Option<String>,
    /// What was asked.
    pub input: Input,
    /// What came of it.
    pub outcome: Outcome,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Input {
    /// CreateAccount.
    Create {
        /// The account's id.
        account: String,
        /// Its display name.
        fingerprint: String,
        /// Its identifiers, canonical.
        identifiers: Vec<String>,
    },
    /// UpdateAccount of the display name.
    Update {
        /// The account's id.
        account: String,
        /// The revision that the etag names.
        if_etag: Option<u64>,
        /// The new display name.
        fingerprint: String,
    },
    /// ChangeIdentifiers. A replacement is one to remove and one to add.
    ChangeIdentifiers {
        /// The account's id.
        account: String,
        /// The revision that the etag names.
        if_etag: Option<u64>,
        /// Identifiers to add, canonical.
        add: Vec<String>,
        /// Identifiers to remove, canonical.
        remove: Vec<String>,
    },
    /// DeleteAccount.
    Delete {
        /// The account's id.
        account: String,
        /// The revision that the etag names.
        if_etag: Option<u64>,
    },
    /// UndeleteAccount.
    Undelete {
        /// The account's id.
        account: String,
        /// The revision that the etag names.
        if_etag: Option<u64>,
    },
    /// One item of an import. It is a mutation, and its request is named by import and index.
    ImportItem {
        /// The import's id.
        import: String,
        /// The item's index.
        index: u64,
        /// What to do about an account that exists.
        mode: ImportMode,
        /// The account's id.
        account: String,
        /// Its display name.
        fingerprint: String,
        /// Its identifiers, canonical.
        identifiers: Vec<String>,
    },
    /// GetAccount.
    Get {
        /// The account's id.
        account: String,
        /// How fresh.
        consistency: Consistency,
    },
    /// BatchGetAccounts.
    BatchGet {
        /// The accounts' ids, each once.
        accounts: Vec<String>,
        /// How fresh.
        consistency: Consistency,
    },
    /// LookupAccount.
    Lookup {
        /// The identifier, canonical.
        identifier: String,
        /// How fresh.
        consistency: Consistency,
    },
    /// ListAccounts: one page of a scan, without a filter (every state except DELETED).
    List {
        /// Names the scan; its pages share it.
        scan: u64,
        /// The page's place in the scan, from 0.
        page: u32,
        /// How fresh.
        consistency: Consistency,
    },
    /// ExportAccounts without a filter: every account of one view. Its answer is a page that is the last.
    Export {
        /// How fresh.
        consistency: Consistency,
    },
}

impl Input {
    /// The account that a mutation changes. None: this is a read.
    pub fn changes(&self) -> Option<&str> {
        match self {
            Input::Create { account, .. }
            | Input::Update { account, .. }
            | Input::ChangeIdentifiers { account, .. }
            | Input::Delete { account, .. }
            | Input::Undelete { account, .. }
            | Input::ImportItem { account, .. } => Some(account),
            Input::Get { .. }
            | Input::BatchGet { .. }
            | Input::Lookup { .. }
            | Input::List { .. }
            | Input::Export { .. } => None,
        }
    }

    /// What it writes into every field that there is for it, so that it can be told who wrote them.
    pub fn fingerprint(&self) -> Option<&str> {
        match self {
            Input::Create { fingerprint, .. }
            | Input::Update { fingerprint, .. }
            | Input::ImportItem { fingerprint, .. } => Some(fingerprint),
            _ => None,
        }
    }

    /// The revision that its etag names.
    pub fn if_etag(&self) -> Option<u64> {
        match self {
            Input::Update { if_etag, .. }
            | Input::ChangeIdentifiers { if_etag, .. }
            | Input::Delete { if_etag, .. }
            | Input::Undelete { if_etag, .. } => *if_etag,
            _ => None,
        }
    }

    /// The identifiers that it gives to its account.
    pub fn adds(&self) -> &[String] {
        match self {
            Input::Create { identifiers, .. } | Input::ImportItem { identifiers, .. } => identifiers,
            Input::ChangeIdentifiers { add, .. } => add,
            _ => &[],
        }
    }

    /// How fresh a read must be.
    pub fn consistency(&self) -> Option<Consistency> {
        match self {
            Input::Get { consistency, .. }
            | Input::BatchGet { consistency, .. }
            | Input::Lookup { consistency, .. }
            | Input::List { consistency, .. }
            | Input::Export { consistency } => Some(*consistency),
            _ => None,
        }
    }
}

/// What an import does about an account that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportMode {
    /// It is an error.
    Create,
    /// It becomes what the item says.
    Upsert,
    /// It stays as it is.
    Skip,
}

/// How fresh the answer to a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Everything acknowledged before.
    Linearizable,
    /// May be behind.
    Stale {
        /// By this much, milliseconds. None: by any age.
        max_ms: Option<u64>,
    },
    /// Stale by any age, but with the token of an earlier answer.
    AtLeast {
        /// The operation whose answer held the token.
        operation: u64,
        /// The log index in the token.
        position: u64,
    },
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was carried out.
    Ok {
        /// The answer.
        output: Output,
        /// The log index in the answer's consistency token, if it had one. For a read: its view includes at
        /// least that much. For a mutation: the index of its entry, or above if this answers a repetition.
        position: Option<u64>,
    },
    /// It had no effect and will have none.
    DefinitelyNot(Reason),
    /// It may have had its effect, or may have it yet.
    Unknown,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// A mutation took effect.
    Changed {
        /// The revision that it made.
        revision: u64,
        /// The account in the answer; in that of a repetition it may be newer.
        account: AccountView,
    },
    /// An import's item was carried out.
    Imported {
        /// What was done.
        action: ImportAction,
        /// The revision that it made, or for a skipped one the revision found.
        revision: u64,
    },
    /// The account.
    Account(AccountView),
    /// No account has this id or identifier.
    NotFound,
    /// The account was purged.
    Purged,
    /// Several accounts of one view.
    Batch {
        /// Those found.
        accounts: Vec<AccountView>,
        /// Those that never were, or were purged.
        not_found: Vec<String>,
        /// Those that did not fit into the answer.
        unread: Vec<String>,
    },
    /// A page of a list.
    Page {
        /// The accounts.
        accounts: Vec<AccountView>,
        /// Whether it was the last page.
        last: bool,
    },
}

/// What was done with an item of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportAction {
    /// The account was created.
    Created,
    /// The account was there and was changed.
    Updated,
    /// The account was there and stays as it was.
    Skipped,
}

/// An account as somebody saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// Its id.
    pub account: String,
    /// Its revision.
    pub revision: u64,
    /// Its display name. Empty in a tombstone.
    pub fingerprint: String,
    /// Its identifiers, canonical, sorted.
    pub identifiers: Vec<String>,
    /// Its state.
    pub state: State,
    /// When it last changed by the log's hybrid clock, milliseconds since the Unix epoch; 0: not known.
    pub update_time_ms: u64,
    /// While it waits for its purge, and once it is purged: when that is due, log time.
    pub purge_time_ms: Option<u64>,
}

/// Whether what writes this fingerprint also restricts the account. (Every attempt replaces the restrictions that there
/// were.)
pub fn restricts(fingerprint: &str) -> bool {
    fingerprint.ends_with(RESTRICTING)
}

/// How the fingerprints end of those attempts that restrict the account.
pub const RESTRICTING: &str = "-r";

/// Where an account is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// May be used.
    Active,
    /// A restriction stands.
    Suspended,
    /// Waits for its purge.
    PendingDeletion,
    /// A tombstone.
    Deleted,
}

/// Why not. Facts that the answer does not carry are left out, not guessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The id is in use, or was.
    AccountExists,
    /// There is no such account.
    AccountNotFound,
    /// The account was purged.
    AccountPurged,
    /// The account's state forbids it.
    StateForbids {
        /// The state.
        state: Option<State>,
    },
    /// An identifier is held by another account, or in quarantine, or (when added) held by this one.
    IdentifierUnavailable {
        /// Which.
        identifier: Option<String>,
    },
    /// The account does not have an identifier that was to be removed.
    IdentifierNotFound {
        /// Which.
        identifier: Option<String>,
    },
    /// A limit of the record.
    LimitExceeded,
    /// The etag is stale. Not recorded under the request id.
    EtagMismatch {
        /// The current revision.
        current: Option<u64>,
    },
    /// The request id was used with other content. Says nothing about that use.
    RequestIdReused,
    /// The request id is older than the window. Says nothing about other calls with it.
    RequestIdExpired,
    /// The request id is from the future.
    RequestIdFromFuture,
    /// Anything else without effect: overload, no leader, a full disk, the API's name of the reason.
    Other(String),
}

impl Reason {
    /// Whether this is a "no" that the service recorded under the request id: it holds for every repetition.
    pub fn is_recorded(&self) -> bool {
        matches!(
            self,
            Reason::AccountExists
                | Reason::AccountNotFound
                | Reason::AccountPurged
                | Reason::StateForbids { .. }
                | Reason::IdentifierUnavailable { .. }
                | Reason::IdentifierNotFound { .. }
                | Reason::LimitExceeded
        )
    }
}

/// The rules and circumstances of a run, as far as the judges need them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// How long nobody else can claim an identifier that was given up, log milliseconds.
    pub quarantine_ms: u64,
    /// How long a deletion can be undone, log milliseconds.
    pub deletion_grace_ms: u64,
}

/// One replica after the run has come to rest, read from its disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndState {
    /// The node.
    pub node: u64,
    /// The last log index applied.
    pub applied: u64,
    /// Every account, tombstones included.
    pub accounts: Vec<AccountView>,
    /// Every claim.
    pub claims: Vec<ClaimView>,
    /// The change log, in order.
    pub changes: Vec<Change>,
    /// The change log is complete from this log index on; 0: it was never trimmed.
    pub changes_from: u64,
    /// All rows of the replicated state, by family, request records and due actions and what the group knows of itself
    /// included: how many, and a checksum over keys and values.
    pub rows: BTreeMap<String, (u64, u64)>,
}

/// A claim as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimView {
    /// The identifier, canonical. None: no identifier that occurs in the run leads to this row.
    pub identifier: Option<String>,
    /// The account that holds it, or held it last.
    pub owner: String,
    /// In quarantine until this log time, milliseconds; none: held.
    pub quarantined_until_ms: Option<u64>,
}

/// One change event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its log index.
    pub position: u64,
    /// The account.
    pub account: String,
    /// The account's revision after it.
    pub revision: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// The request behind it. None for a purge. For an import's item this is a derived id, not recorded in the
    /// history.
    pub request_id: Option<String>,
}

/// What happened to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It came to be.
    Created,
    /// Its fields changed, or an import replaced it.
    Updated,
    /// Its identifiers changed.
    IdentifiersChanged,
    /// Its deletion was asked for.
    DeletionRequested,
    /// The deletion was taken back.
    Undeleted,
    /// It was purged.
    Purged,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twin_casts_doubt_on_what_was_not_recorded() {
        let outcome = |reason| {
            let operation = Operation {
                id: 1,
                client: 1,
                invoked: 5,
                returned: Some(9),
                request_id: Some("r".into()),
                input: Input::Delete {
                    account: "a".into(),
                    if_etag: Some(1),
                },
                outcome: Outcome::DefinitelyNot(reason),
            };
            let history = History {
                operations: vec![operation],
            };
            history.with_twins().operations.remove(0).outcome
        };
        assert_eq!(outcome(Reason::Other("NO_LEADER".into())), Outcome::Unknown);
        assert_eq!(outcome(Reason::RequestIdExpired), Outcome::Unknown);
        let recorded = Reason::AccountNotFound;
        assert_eq!(outcome(recorded.clone()), Outcome::DefinitelyNot(recorded));
        let stale = Reason::EtagMismatch { current: Some(2) };
        assert_eq!(outcome(stale.clone()), Outcome::DefinitelyNot(stale));
    }

    #[test]
    fn a_history_survives_being_written_as_lines() {
        let operation = |id, input, outcome| Operation {
            id,
            client: 1,
            invoked: 5,
            returned: (id == 1).then_some(9),
            request_id: Some("r".into()),
            input,
            outcome,
        };
        let create = Input::Create {
            account: "a".into(),
            fingerprint: "line\nbreak".into(),
            identifiers: vec!["x".into()],
        };
        let get = Input::Get {
            account: "a".into(),
            consistency: Consistency::AtLeast {
                operation: 1,
                position: 7,
            },
        };
        let reason = Reason::IdentifierUnavailable {
            identifier: Some("x".into()),
        };
        let history = History {
            operations: vec![
                operation(1, create, Outcome::DefinitelyNot(reason)),
                operation(2, get, Outcome::Unknown),
            ],
        };
        let lines = history.to_lines().unwrap();
        assert_eq!(lines.lines().count(), 2);
        assert_eq!(History::from_lines(&lines).unwrap(), history);
    }
}
