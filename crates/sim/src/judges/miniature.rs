//! A service in miniature: correct, or with one planted bug, so that the judges can be judged.
//!
//! It has one thread and keeps its rows at every log index. [`random_run`] lets five clients loose on it, loses some
//! answers, sends some requests again and carries some out long after their caller has left.

use std::collections::BTreeMap;

use super::model::{self, Account, No, Present, Verdict};
use super::testing::{Random, get, strings};
use crate::history::*;

/// The rules of the miniature service, milliseconds.
pub(crate) const RULES: Rules = Rules {
    quarantine_ms: 40,
    deletion_grace_ms: 60,
};

/// Milliseconds since the epoch when a run begins.
const EPOCH_MS: u64 = 1_000_000;

#[derive(Debug, Clone)]
struct Row {
    account: Account,
    revision: u64,
    update_time_ms: u64,
    purge_time_ms: Option<u64>,
}

/// The rows of the service at one log index.
#[derive(Debug, Clone, Default)]
struct Rows {
    accounts: BTreeMap<String, Row>,
    /// Owner, and the end of the quarantine if it was given up.
    claims: BTreeMap<String, (String, Option<u64>)>,
}

/// A bug that the service can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A linearizable read is answered from any earlier rows.
    StaleRead,
    /// So is a read with a bound.
    BoundIgnored,
    /// So is a read with a token.
    TokenIgnored,
    /// The accounts of one answer come from different rows.
    TornAnswer,
    /// A change is acknowledged and now and then not made.
    LostWrite,
    /// A request that is sent again is now and then carried out again.
    DoubleEffect,
    /// A refusal is not remembered, so a repetition may succeed.
    RefusalForgotten,
    /// A change is made, and the answer is that it was not.
    NoButDone,
    /// The etag is not looked at.
    EtagIgnored,
    /// Nobody asks whether an identifier is taken.
    IdentifierShared,
    /// Identifiers that were given up are free at once.
    QuarantineSkipped,
    /// Claims stay held although their account gives them up.
    ClaimKept,
    /// The token of a read names a later index than its rows have.
    TokenAhead,
    /// The last changes are not there at the end.
    EndForgotten,
}

/// A service with one thread.
#[derive(Default)]
pub(crate) struct Service {
    bug: Option<Bug>,
    /// Rows by log index; the last are the present ones.
    versions: Vec<(u64, Rows)>,
    records: BTreeMap<(String, String), Result<u64, Reason>>,
    changes: Vec<Change>,
}

impl Service {
    fn rows(&self) -> Rows {
        self.versions
            .last()
            .map(|(_, rows)| rows.clone())
            .unwrap_or_default()
    }

    fn index(&self) -> u64 {
        self.versions.len() as u64
    }

    /// Runs a call at a time (nanoseconds), on the rows of an earlier time if it may.
    fn run(&mut self, operation: &Operation, at: u64, random: &mut Random) -> Outcome {
        let now_ms = EPOCH_MS + at / 1_000_000;
        self.purge(at, now_ms);
        match operation.input.changes() {
            Some(account) => self.mutate(account, operation, at, random),
            None => self.read(operation, at, random),
        }
    }

    fn purge(&mut self, at: u64, now_ms: u64) {
        let due: Vec<String> = self
            .rows()
            .accounts
            .iter()
            .filter(|(_, row)| {
                row.purge_time_ms.is_some_and(|due| due <= now_ms) && row.account != Account::Purged
            })
            .map(|(account, _)| account.clone())
            .collect();
        for account in due {
            let mut rows = self.rows();
            let row = rows.accounts.get_mut(&account).expect("it is there");
            let before = std::mem::replace(&mut row.account, Account::Purged);
            row.revision += 1;
            row.update_time_ms = now_ms;
            let change = (row.revision, ChangeKind::Purged);
            move_claims(&mut rows, &account, &before, &Account::Purged, now_ms);
            self.commit(at, rows, &account, Some(change), None);
        }
    }

    fn commit(
        &mut self,
        at: u64,
        rows: Rows,
        account: &str,
        change: Option<(u64, ChangeKind)>,
        request_id: Option<String>,
    ) {
        self.versions.push((at, rows));
        if let Some((revision, kind)) = change {
            self.changes.push(Change {
                position: self.index(),
                account: account.to_owned(),
                revision,
                kind,
                request_id,
            });
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn mutate(&mut self, account: &str, operation: &Operation, at: u64, random: &mut Random) -> Outcome {
        let input = &operation.input;
        let id = match input {
            Input::ImportItem { import, index, .. } => format!("{import} {index}"),
            _ => operation.request_id.clone().unwrap_or_default(),
        };
        let key = (account.to_owned(), id.clone());
        let again = self.has(Bug::DoubleEffect) && random.chance(50);
        let forgotten = |result: &Result<u64, Reason>| self.has(Bug::RefusalForgotten) && result.is_err();
        let record = self
            .records
            .get(&key)
            .filter(|result| !again && !forgotten(result));
        let (result, action) = match record.cloned() {
            Some(result) => {
                let skip = matches!(
                    input,
                    Input::ImportItem {
                        mode: ImportMode::Skip,
                        ..
                    }
                );
                let action = match result {
                    Ok(1) => ImportAction::Created,
                    _ if skip => ImportAction::Skipped,
                    _ => ImportAction::Updated,
                };
                (result, action)
            }
            None => match self.carry_out(account, input, id, at, random) {
                Ok((revision, action)) => (Ok(revision), action),
                Err(reason @ Reason::EtagMismatch { .. }) => return Outcome::DefinitelyNot(reason),
                Err(reason) => (Err(reason), ImportAction::Skipped),
            },
        };
        self.records.insert(key, result.clone());
        if self.has(Bug::NoButDone) && random.chance(10) {
            return Outcome::DefinitelyNot(Reason::Other("OVERLOADED".into()));
        }
        match result {
            Err(reason) => Outcome::DefinitelyNot(reason),
            Ok(revision) if matches!(input, Input::ImportItem { .. }) => Outcome::Ok {
                output: Output::Imported { action, revision },
                position: None,
            },
            Ok(revision) => Outcome::Ok {
                output: Output::Changed {
                    revision,
                    account: show(account, &self.rows().accounts[account]),
                },
                position: Some(self.index()),
            },
        }
    }

    fn carry_out(
        &mut self,
        account: &str,
        input: &Input,
        id: String,
        at: u64,
        random: &mut Random,
    ) -> Result<(u64, ImportAction), Reason> {
        let now_ms = EPOCH_MS + at / 1_000_000;
        let mut rows = self.rows();
        let row = rows.accounts.get(account);
        let before = row.map_or(Account::Absent, |row| row.account.clone());
        let purge_time_ms = row.and_then(|row| row.purge_time_ms);
        let decided = self.decide(&rows, account, &before, input, now_ms);
        let after = match decided {
            Ok(after) => after,
            Err(reason) => {
                self.commit(at, rows, account, None, None);
                return Err(reason);
            }
        };
        let revision = after.revision().expect("no request purges");
        if after == before {
            self.commit(at, rows, account, None, None);
            return Ok((revision, ImportAction::Skipped));
        }
        if !self.has(Bug::ClaimKept) {
            move_claims(&mut rows, account, &before, &after, now_ms);
        }
        let created = before == Account::Absent;
        let (kind, purge_time_ms) = match input {
            _ if created => (ChangeKind::Created, None),
            Input::ChangeIdentifiers { .. } => (ChangeKind::IdentifiersChanged, purge_time_ms),
            Input::Delete { .. } => (
                ChangeKind::DeletionRequested,
                Some(now_ms + RULES.deletion_grace_ms),
            ),
            Input::Undelete { .. } => (ChangeKind::Undeleted, None),
            _ => (ChangeKind::Updated, purge_time_ms),
        };
        let row = Row {
            account: after,
            revision,
            update_time_ms: now_ms,
            purge_time_ms,
        };
        if self.has(Bug::LostWrite) && !created && random.chance(20) {
            return Ok((revision, ImportAction::Updated));
        }
        rows.accounts.insert(account.to_owned(), row);
        self.commit(at, rows, account, Some((revision, kind)), Some(id));
        let action = if created {
            ImportAction::Created
        } else {
            ImportAction::Updated
        };
        Ok((revision, action))
    }

    fn read(&self, operation: &Operation, at: u64, random: &mut Random) -> Outcome {
        let consistency = operation.input.consistency().expect("a read");
        let least = match consistency {
            Consistency::Linearizable if self.has(Bug::StaleRead) => 0,
            Consistency::Linearizable => self.versions.len(),
            Consistency::Stale { max_ms: Some(_) } if self.has(Bug::BoundIgnored) => 0,
            Consistency::Stale { max_ms } => {
                let oldest = max_ms.map_or(0, |max| at.saturating_sub(max * 1_000_000));
                self.versions.partition_point(|(time, _)| *time <= oldest)
            }
            Consistency::AtLeast { .. } if self.has(Bug::TokenIgnored) => 0,
            Consistency::AtLeast { position, .. } => position as usize,
        };
        let version = least + random.below((self.versions.len() - least) as u64 + 1) as usize;
        let empty = Rows::default();
        let rows = version.checked_sub(1).map_or(&empty, |at| &self.versions[at].1);
        // Every other account from some rows before.
        let torn = match self.has(Bug::TornAnswer) {
            true => version.checked_sub(1 + random.below(4) as usize),
            false => None,
        };
        let before = torn
            .and_then(|at| self.versions.get(at))
            .map_or(rows, |(_, rows)| rows);
        let row = |account: &str| match account {
            "b" | "d" => before.accounts.get(account),
            _ => rows.accounts.get(account),
        };
        let one = |account: &str| match row(account) {
            None => Output::NotFound,
            Some(row) if row.account == Account::Purged => Output::Purged,
            Some(row) => Output::Account(show(account, row)),
        };
        let listed = || {
            let there = rows
                .accounts
                .iter()
                .filter(|(_, row)| row.account != Account::Purged);
            there.map(|(account, row)| show(account, row)).collect::<Vec<_>>()
        };
        let output = match &operation.input {
            Input::Get { account, .. } => one(account),
            Input::Lookup { identifier, .. } => match rows.claims.get(identifier) {
                Some((owner, None)) => one(owner),
                _ => Output::NotFound,
            },
            Input::BatchGet { accounts, .. } => {
                let mut batch = (Vec::new(), Vec::new());
                for account in accounts {
                    match one(account) {
                        Output::Account(view) => batch.0.push(view),
                        _ => batch.1.push(account.clone()),
                    }
                }
                Output::Batch {
                    accounts: batch.0,
                    not_found: batch.1,
                    unread: Vec::new(),
                }
            }
            _ => Output::Page {
                accounts: listed(),
                last: true,
            },
        };
        let position = match output {
            Output::NotFound | Output::Purged => None,
            _ if self.has(Bug::TokenAhead) => Some(self.index()),
            _ => Some(version as u64),
        };
        Outcome::Ok { output, position }
    }

    fn end_state(&self) -> EndState {
        let last = self
            .versions
            .len()
            .checked_sub(if self.has(Bug::EndForgotten) { 6 } else { 1 });
        let rows = last
            .and_then(|at| self.versions.get(at))
            .map(|(_, rows)| rows.clone());
        let rows = rows.unwrap_or_default();
        let accounts = rows.accounts.iter().map(|(account, row)| show(account, row));
        let claims = rows.claims.iter().map(|(identifier, (owner, until))| ClaimView {
            identifier: Some(identifier.clone()),
            owner: owner.clone(),
            quarantined_until_ms: *until,
        });
        EndState {
            node: 1,
            applied: self.index(),
            accounts: accounts.collect(),
            claims: claims.collect(),
            changes: self.changes.clone(),
            changes_from: 0,
            rows: BTreeMap::new(),
        }
    }
}

impl Service {
    fn decide(
        &self,
        rows: &Rows,
        account: &str,
        before: &Account,
        input: &Input,
        now_ms: u64,
    ) -> Result<Account, Reason> {
        let mut input = input.clone();
        if let (true, Input::Update { if_etag, .. }) = (self.has(Bug::EtagIgnored), &mut input) {
            *if_etag = None;
        }
        let after = match model::decide(before, &input) {
            Verdict::Becomes(after) => after,
            Verdict::Stays => before.clone(),
            Verdict::No(No::Exists) => return Err(Reason::AccountExists),
            Verdict::No(No::NotFound) => return Err(Reason::AccountNotFound),
            Verdict::No(No::Purged) => return Err(Reason::AccountPurged),
            Verdict::No(No::Forbidden) => return Err(Reason::StateForbids { state: None }),
            Verdict::No(No::Etag) => {
                return Err(Reason::EtagMismatch {
                    current: before.revision(),
                });
            }
            Verdict::No(No::Identifiers) => {
                let own = input.adds().iter().find(|one| before.holds(one)).cloned();
                return Err(match own {
                    Some(_) => Reason::IdentifierUnavailable { identifier: own },
                    None => Reason::IdentifierNotFound { identifier: None },
                });
            }
        };
        let taken = input.adds().iter().find(|one| {
            rows.claims.get(*one).is_some_and(|(owner, until)| match until {
                None => !before.holds(one) && !self.has(Bug::IdentifierShared),
                Some(until) => owner != account && now_ms < *until && !self.has(Bug::QuarantineSkipped),
            })
        });
        match taken {
            Some(one) if after != *before => Err(Reason::IdentifierUnavailable {
                identifier: Some(one.clone()),
            }),
            _ => Ok(after),
        }
    }
}

fn move_claims(rows: &mut Rows, account: &str, before: &Account, after: &Account, now_ms: u64) {
    let identifiers = |account: &Account| match account {
        Account::Present(Present { identifiers, .. }) => identifiers.clone(),
        Account::Absent | Account::Purged => Default::default(),
    };
    let (had, has) = (identifiers(before), identifiers(after));
    for left in had.difference(&has) {
        let until = Some(now_ms + RULES.quarantine_ms);
        rows.claims.insert(left.clone(), (account.to_owned(), until));
    }
    for taken in has.difference(&had) {
        rows.claims.insert(taken.clone(), (account.to_owned(), None));
    }
}

fn show(account: &str, row: &Row) -> AccountView {
    let (fingerprint, identifiers, state) = match &row.account {
        Account::Present(present) => (
            present.fingerprint.clone(),
            present.identifiers.iter().cloned().collect(),
            present.state(),
        ),
        Account::Absent | Account::Purged => (String::new(), Vec::new(), State::Deleted),
    };
    AccountView {
        account: account.to_owned(),
        revision: row.revision,
        fingerprint,
        identifiers,
        state,
        update_time_ms: row.update_time_ms,
        purge_time_ms: row.purge_time_ms,
    }
}

/// A random run of a service: what its clients saw, and its rows at the end.
pub(crate) struct Run {
    pub(crate) history: History,
    pub(crate) end: EndState,
}

/// A run of the correct service.
pub(crate) fn random_run(seed: u64, calls: usize) -> Run {
    run_with(None, seed, calls)
}

/// A run with this many calls by five clients on a few accounts and identifiers; at the end every account is read.
pub(crate) fn run_with(bug: Option<Bug>, seed: u64, calls: usize) -> Run {
    let mut random = Random(seed);
    let mut service = Service {
        bug,
        ..Service::default()
    };
    let mut done: Vec<Operation> = Vec::new();
    let mut end = 0;
    for Planned {
        executed,
        lost,
        mut operation,
    } in plan(&mut random, calls)
    {
        end = end.max(executed).max(operation.returned.unwrap_or(0));
        if lost {
            if random.chance(50) {
                service.run(&operation, executed, &mut random);
            }
        } else {
            weaken(&mut operation, &done, &mut random);
            operation.outcome = service.run(&operation, executed, &mut random);
        }
        done.push(operation);
    }
    for (at, account) in ACCOUNTS.into_iter().enumerate() {
        let mut operation = Operation {
            id: (calls + at) as u64 + 1,
            client: 0,
            invoked: end + 1,
            returned: Some(end + 3),
            request_id: None,
            input: get(account),
            outcome: Outcome::Unknown,
        };
        operation.outcome = service.run(&operation, end + 2, &mut random);
        end += 4;
        done.push(operation);
    }
    done.sort_by_key(|operation| operation.id);
    Run {
        history: History { operations: done },
        end: service.end_state(),
    }
}

/// A call that is to be carried out at a time.
struct Planned {
    executed: u64,
    /// Its answer is lost, and perhaps it as well.
    lost: bool,
    operation: Operation,
}

const ACCOUNTS: [&str; 4] = ["a", "b", "c", "d"];

/// The calls, in the order in which they are carried out.
fn plan(random: &mut Random, calls: usize) -> Vec<Planned> {
    let mut clients = [0_u64; 5];
    let mut plan: Vec<Planned> = Vec::new();
    for id in 1..=calls as u64 {
        let client = random.below(clients.len() as u64) as usize;
        let invoked = clients[client] + random.below(20_000_000) + 1;
        let mut executed = invoked + random.below(8_000_000) + 1;
        let returned = executed + random.below(8_000_000) + 1;
        clients[client] = returned;
        let mut input = random_input(random, id);
        let is_named =
            |input: &Input| input.changes().is_some() && !matches!(input, Input::ImportItem { .. });
        let mut request_id = is_named(&input).then(|| format!("r{id}"));
        let changes = input.changes().is_some();
        let earlier: Vec<&Operation> = plan
            .iter()
            .map(|planned| &planned.operation)
            .filter(|other| other.input.changes().is_some())
            .collect();
        if changes && !earlier.is_empty() && random.chance(15) {
            let other = *random.pick(&earlier);
            request_id.clone_from(&other.request_id);
            input = other.input.clone();
        }
        let lost = changes && random.chance(12);
        // It may be carried out long after its caller has left.
        if lost && random.chance(50) {
            executed += random.below(60_000_000);
        }
        plan.push(Planned {
            executed,
            lost,
            operation: Operation {
                id,
                client: client as u32,
                invoked,
                returned: Some(returned),
                request_id,
                input,
                outcome: Outcome::Unknown,
            },
        });
    }
    plan.sort_by_key(|planned| (planned.executed, planned.operation.id));
    plan
}

/// Lets some reads be old, or ask for an earlier answer's token.
fn weaken(operation: &mut Operation, done: &[Operation], random: &mut Random) {
    let (Input::Get { consistency, .. } | Input::BatchGet { consistency, .. }) = &mut operation.input else {
        return;
    };
    let tokens: Vec<(u64, u64)> = done
        .iter()
        .filter_map(|other| match other.outcome {
            Outcome::Ok {
                position: Some(position),
                ..
            } if other.returned < Some(operation.invoked) => Some((other.id, position)),
            _ => None,
        })
        .collect();
    *consistency = match random.below(6) {
        0 => Consistency::Stale {
            max_ms: Some(random.below(30)),
        },
        1 => Consistency::Stale { max_ms: None },
        2 if !tokens.is_empty() => {
            let (token_of, position) = *random.pick(&tokens);
            Consistency::AtLeast {
                operation: token_of,
                position,
            }
        }
        _ => return,
    };
}

fn random_input(random: &mut Random, id: u64) -> Input {
    let identifiers = ["x", "y", "z"];
    let fingerprint = format!("f{id}");
    let account = (*random.pick(&ACCOUNTS)).to_owned();
    let identifier = (*random.pick(&identifiers)).to_owned();
    let if_etag = random.chance(30).then(|| random.below(6) + 1);
    let consistency = Consistency::Linearizable;
    match random.below(18) {
        0..=2 => Input::Create {
            account,
            fingerprint,
            identifiers: if random.chance(60) {
                vec![identifier]
            } else {
                Vec::new()
            },
        },
        3..=5 => Input::Update {
            account,
            if_etag,
            fingerprint,
        },
        6 | 7 => Input::ChangeIdentifiers {
            account,
            if_etag: None,
            add: vec![identifier],
            remove: Vec::new(),
        },
        8 => Input::ChangeIdentifiers {
            account,
            if_etag,
            add: Vec::new(),
            remove: vec![identifier],
        },
        9 => Input::Delete { account, if_etag },
        10 => Input::Undelete {
            account,
            if_etag: None,
        },
        11 => Input::Lookup {
            identifier,
            consistency,
        },
        12 => Input::BatchGet {
            accounts: strings(&ACCOUNTS),
            consistency,
        },
        13 => Input::Export { consistency },
        14 | 15 => Input::ImportItem {
            import: "i".into(),
            index: id,
            mode: *random.pick(&[ImportMode::Create, ImportMode::Upsert, ImportMode::Skip]),
            account,
            fingerprint,
            identifiers: vec![identifier],
        },
        _ => Input::Get { account, consistency },
    }
}
