//! What the judges are tested with: short notations for small histories, and a correct service in miniature that
//! makes large ones.

use std::collections::BTreeMap;

use proptest::test_runner::Config as ProptestConfig;

use super::model::{self, Account, No, Present, Verdict};
use crate::history::*;

/// This many cases, and no files about failures: a failing case prints its seed.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// An account that is there and active.
pub(crate) fn view(account: &str, revision: u64, fingerprint: &str, identifiers: &[&str]) -> AccountView {
    AccountView {
        account: account.into(),
        revision,
        fingerprint: fingerprint.into(),
        identifiers: strings(identifiers),
        state: State::Active,
        update_time_ms: 0,
        purge_time_ms: None,
    }
}

pub(crate) fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub(crate) fn create(account: &str, fingerprint: &str, identifiers: &[&str]) -> Input {
    Input::Create {
        account: account.into(),
        fingerprint: fingerprint.into(),
        identifiers: strings(identifiers),
    }
}

pub(crate) fn update(account: &str, fingerprint: &str) -> Input {
    Input::Update {
        account: account.into(),
        if_etag: None,
        fingerprint: fingerprint.into(),
    }
}

pub(crate) fn change(account: &str, add: &[&str], remove: &[&str]) -> Input {
    Input::ChangeIdentifiers {
        account: account.into(),
        if_etag: None,
        add: strings(add),
        remove: strings(remove),
    }
}

pub(crate) fn delete(account: &str) -> Input {
    Input::Delete {
        account: account.into(),
        if_etag: None,
    }
}

pub(crate) fn get(account: &str) -> Input {
    Input::Get {
        account: account.into(),
        consistency: Consistency::Linearizable,
    }
}

pub(crate) fn get_with(account: &str, consistency: Consistency) -> Input {
    Input::Get {
        account: account.into(),
        consistency,
    }
}

pub(crate) fn lookup(identifier: &str) -> Input {
    Input::Lookup {
        identifier: identifier.into(),
        consistency: Consistency::Linearizable,
    }
}

pub(crate) fn batch(accounts: &[&str]) -> Input {
    Input::BatchGet {
        accounts: strings(accounts),
        consistency: Consistency::Linearizable,
    }
}

/// A mutation's answer.
pub(crate) fn made(view: AccountView) -> Output {
    Output::Changed {
        revision: view.revision,
        account: view,
    }
}

pub(crate) fn found(accounts: Vec<AccountView>) -> Output {
    Output::Batch {
        accounts,
        not_found: Vec::new(),
        unread: Vec::new(),
    }
}

impl History {
    /// Adds a call by client 1 between two times, with a request id of its own if it is a mutation.
    pub(crate) fn call(&mut self, times: (u64, u64), input: Input, outcome: Outcome) -> &mut Operation {
        let id = self.operations.len() as u64 + 1;
        let operation = Operation {
            id,
            client: 1,
            invoked: times.0,
            returned: Some(times.1),
            request_id: input.changes().map(|_| format!("r{id}")),
            input,
            outcome,
        };
        self.operations.push(operation);
        self.operations.last_mut().expect("just pushed")
    }

    /// Adds a call that was answered.
    pub(crate) fn ok(&mut self, times: (u64, u64), input: Input, output: Output) -> &mut Operation {
        let position = None;
        self.call(times, input, Outcome::Ok { output, position })
    }

    /// Adds a call that was answered with a token.
    pub(crate) fn ok_at(
        &mut self,
        times: (u64, u64),
        position: u64,
        input: Input,
        output: Output,
    ) -> &mut Operation {
        let position = Some(position);
        self.call(times, input, Outcome::Ok { output, position })
    }

    /// Adds a call that had no effect.
    pub(crate) fn no(&mut self, times: (u64, u64), input: Input, reason: Reason) -> &mut Operation {
        self.call(times, input, Outcome::DefinitelyNot(reason))
    }

    /// Adds a call of unknown outcome.
    pub(crate) fn unknown(&mut self, times: (u64, u64), input: Input) -> &mut Operation {
        self.call(times, input, Outcome::Unknown)
    }
}

/// Steele, Lea & Flood's SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

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

/// A correct service with one thread.
#[derive(Default)]
pub(crate) struct Service {
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
            Some(account) => self.mutate(account, operation, at, now_ms),
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

    fn mutate(&mut self, account: &str, operation: &Operation, at: u64, now_ms: u64) -> Outcome {
        let id = operation.request_id.clone().unwrap_or_default();
        let key = (account.to_owned(), id.clone());
        let input = &operation.input;
        let result = match self.records.get(&key) {
            Some(result) => result.clone(),
            None => {
                let mut rows = self.rows();
                let row = rows.accounts.get(account);
                let before = row.map_or(Account::Absent, |row| row.account.clone());
                let purge_time_ms = row.and_then(|row| row.purge_time_ms);
                let result = match decide(&rows, account, &before, input, now_ms) {
                    Ok(after) => {
                        let revision = after.revision().expect("no request purges");
                        move_claims(&mut rows, account, &before, &after, now_ms);
                        let (kind, purge_time_ms) = match input {
                            Input::Create { .. } | Input::ImportItem { .. } => (ChangeKind::Created, None),
                            Input::ChangeIdentifiers { .. } => {
                                (ChangeKind::IdentifiersChanged, purge_time_ms)
                            }
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
                        rows.accounts.insert(account.to_owned(), row);
                        self.commit(at, rows, account, Some((revision, kind)), Some(id));
                        Ok(revision)
                    }
                    Err(reason @ Reason::EtagMismatch { .. }) => return Outcome::DefinitelyNot(reason),
                    Err(reason) => {
                        self.commit(at, rows, account, None, None);
                        Err(reason)
                    }
                };
                self.records.insert(key, result.clone());
                result
            }
        };
        match result {
            Err(reason) => Outcome::DefinitelyNot(reason),
            Ok(revision) => Outcome::Ok {
                output: Output::Changed {
                    revision,
                    account: show(account, &self.rows().accounts[account]),
                },
                position: Some(self.index()),
            },
        }
    }

    fn read(&self, operation: &Operation, at: u64, random: &mut Random) -> Outcome {
        let least = match operation.input.consistency().expect("a read") {
            Consistency::Linearizable => self.versions.len(),
            Consistency::Stale { max_ms } => {
                let oldest = max_ms.map_or(0, |max| at.saturating_sub(max * 1_000_000));
                self.versions.partition_point(|(time, _)| *time <= oldest)
            }
            Consistency::AtLeast { position, .. } => position as usize,
        };
        let version = least + random.below((self.versions.len() - least) as u64 + 1) as usize;
        let empty = Rows::default();
        let rows = version.checked_sub(1).map_or(&empty, |at| &self.versions[at].1);
        let one = |account: &str| match rows.accounts.get(account) {
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
                let (there, gone): (Vec<_>, Vec<_>) = accounts
                    .iter()
                    .partition(|account| matches!(one(account), Output::Account(_)));
                Output::Batch {
                    accounts: there
                        .iter()
                        .map(|account| show(account, &rows.accounts[*account]))
                        .collect(),
                    not_found: gone.into_iter().cloned().collect(),
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
            _ => Some(version as u64),
        };
        Outcome::Ok { output, position }
    }

    fn end_state(&self) -> EndState {
        let rows = self.rows();
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
        }
    }
}

fn decide(
    rows: &Rows,
    account: &str,
    before: &Account,
    input: &Input,
    now_ms: u64,
) -> Result<Account, Reason> {
    let after = match model::decide(before, input) {
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
            let Input::ChangeIdentifiers { add, .. } = input else {
                unreachable!("only changes of identifiers come to this");
            };
            return Err(match add.iter().find(|one| before.holds(one)) {
                Some(one) => Reason::IdentifierUnavailable {
                    identifier: Some(one.clone()),
                },
                None => Reason::IdentifierNotFound { identifier: None },
            });
        }
    };
    let taken = input.adds().iter().find(|one| {
        rows.claims.get(*one).is_some_and(|(owner, until)| match until {
            None => owner != account || !before.holds(one),
            Some(until) => owner != account && now_ms < *until,
        })
    });
    match taken {
        Some(one) => Err(Reason::IdentifierUnavailable {
            identifier: Some(one.clone()),
        }),
        None => Ok(after),
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
            match present.pending {
                true => State::PendingDeletion,
                false => State::Active,
            },
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

/// A random run of the correct service: what its clients saw, and its rows at the end.
pub(crate) struct Run {
    pub(crate) history: History,
    pub(crate) end: EndState,
}

/// A run with this many calls by five clients on a few accounts and identifiers, some of unknown outcome, some sent
/// again; at the end every account is read.
pub(crate) fn random_run(seed: u64, calls: usize) -> Run {
    let mut random = Random(seed);
    let accounts = ["a", "b", "c", "d"];
    let mut clients = [0_u64; 5];
    // What is to be executed, and when.
    let mut plan: Vec<(u64, Operation)> = Vec::new();
    for id in 1..=calls as u64 {
        let client = random.below(clients.len() as u64) as usize;
        let invoked = clients[client] + random.below(20_000_000) + 1;
        let executed = invoked + random.below(8_000_000) + 1;
        let mut operation = Operation {
            id,
            client: client as u32,
            invoked,
            returned: Some(executed + random.below(8_000_000) + 1),
            request_id: None,
            input: random_input(&mut random, id, &accounts),
            outcome: Outcome::Unknown,
        };
        clients[client] = operation.returned.unwrap_or(invoked);
        if operation.input.changes().is_some() {
            operation.request_id = Some(format!("r{id}"));
            let again: Vec<&Operation> = plan
                .iter()
                .map(|(_, other)| other)
                .filter(|other| other.request_id.is_some())
                .collect();
            if !again.is_empty() && random.chance(15) {
                let other = *random.pick(&again);
                operation.request_id.clone_from(&other.request_id);
                operation.input = other.input.clone();
            }
        }
        plan.push((executed, operation));
    }
    let mut service = Service::default();
    let mut done: Vec<Operation> = Vec::new();
    let lost = |random: &mut Random| random.chance(12);
    // A call whose answer is lost may run long after its caller has left.
    for (executed, operation) in &mut plan {
        if operation.input.changes().is_some() && lost(&mut random) {
            operation.client = u32::MAX;
            if random.chance(50) {
                *executed += random.below(60_000_000);
            }
        }
    }
    plan.sort_by_key(|(executed, operation)| (*executed, operation.id));
    let mut end = 0;
    for (executed, mut operation) in plan {
        end = end.max(executed).max(operation.returned.unwrap_or(0));
        if operation.client == u32::MAX {
            operation.client = 9;
            if random.chance(50) {
                service.run(&operation, executed, &mut random);
            }
            done.push(operation);
            continue;
        }
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
        if let Input::Get { consistency, .. } | Input::BatchGet { consistency, .. } = &mut operation.input {
            match random.below(6) {
                0 => {
                    *consistency = Consistency::Stale {
                        max_ms: Some(random.below(30)),
                    }
                }
                1 => *consistency = Consistency::Stale { max_ms: None },
                2 if !tokens.is_empty() => {
                    let (token_of, position) = *random.pick(&tokens);
                    *consistency = Consistency::AtLeast {
                        operation: token_of,
                        position,
                    };
                }
                _ => {}
            }
        }
        operation.outcome = service.run(&operation, executed, &mut random);
        done.push(operation);
    }
    let mut id = calls as u64;
    for account in accounts {
        id += 1;
        let mut operation = Operation {
            id,
            client: 0,
            invoked: end + 1,
            returned: Some(end + 3),
            request_id: None,
            input: get(account),
            outcome: Outcome::Unknown,
        };
        end += 4;
        operation.outcome = service.run(&operation, end - 2, &mut random);
        done.push(operation);
    }
    done.sort_by_key(|operation| operation.id);
    Run {
        history: History { operations: done },
        end: service.end_state(),
    }
}

fn random_input(random: &mut Random, id: u64, accounts: &[&str]) -> Input {
    let identifiers = ["x", "y", "z"];
    let fingerprint = format!("f{id}");
    let account = (*random.pick(accounts)).to_owned();
    let identifier = (*random.pick(&identifiers)).to_owned();
    let if_etag = random.chance(30).then(|| random.below(6) + 1);
    let consistency = Consistency::Linearizable;
    match random.below(16) {
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
            accounts: strings(accounts),
            consistency,
        },
        13 => Input::Export { consistency },
        _ => Input::Get { account, consistency },
    }
}
