//! A realm in memory, for tests: holds rows, applies plans as the replicated machine does.

use std::collections::BTreeMap;
use std::convert::Infallible;

use holdfast_types::{Account, AccountId, CanonicalIdentifier, Expect, Millis, RealmNumber, Stamp};

use crate::{Claim, DueAction, DueKey, Plan, RequestKey, RequestRecord, Row, RowKey, Versioned, View};

/// One realm's rows and its log clock.
#[derive(Debug, Clone, Default)]
pub struct MemoryView {
    rows: BTreeMap<Name, Versioned<Row>>,
    clock: Stamp,
}

/// A row's name as storage sees it: claims by what their hash covers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Account(AccountId),
    Claim(Vec<u8>),
    Request(RequestKey),
    Due(DueKey),
    Realm(RealmNumber),
}

impl Name {
    fn of(key: &RowKey) -> Self {
        match key {
            RowKey::Account(id) => Name::Account(id.clone()),
            RowKey::Claim(identifier) => Name::Claim(identifier.claim_bytes()),
            RowKey::Request(key) => Name::Request(key.clone()),
            RowKey::Due(key) => Name::Due(key.clone()),
            RowKey::Realm(number) => Name::Realm(*number),
        }
    }
}

impl MemoryView {
    /// The log clock: of the last plan applied or tick.
    pub fn log_clock(&self) -> Millis {
        self.clock.millis()
    }

    /// Moves the log clock, as an entry without writes does.
    pub fn tick(&mut self, wall: Millis) {
        self.clock = self.clock.next(wall);
    }

    /// Applies a plan proposed at `wall`: all of it, or nothing and the first guard that does not hold. The
    /// clock moves either way.
    ///
    /// # Panics
    /// If the plan writes a row twice, which no plan may.
    pub fn apply(&mut self, plan: &Plan, wall: Millis) -> Result<Stamp, RowKey> {
        self.tick(wall);
        for (key, expect) in &plan.guards {
            let stamp = self.rows.get(&Name::of(key)).map(|row| row.stamp);
            if stamp.map_or(Expect::Absent, Expect::Stamp) != *expect {
                return Err(key.clone());
            }
        }
        let writes: BTreeMap<Name, &Option<Row>> = plan
            .writes
            .iter()
            .map(|(key, row)| (Name::of(key), row))
            .collect();
        assert_eq!(writes.len(), plan.writes.len(), "a plan writes each row once");
        for (name, row) in writes {
            match row {
                Some(row) => self.rows.insert(
                    name,
                    Versioned {
                        value: row.clone(),
                        stamp: self.clock,
                    },
                ),
                None => self.rows.remove(&name),
            };
        }
        Ok(self.clock)
    }

    /// Every account, tombstones included, by id.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.rows.values().filter_map(|row| match &row.value {
            Row::Account(account) => Some(account),
            _ => None,
        })
    }

    /// Every claim, with the bytes that name its identifier.
    pub fn claims(&self) -> impl Iterator<Item = (&[u8], &Claim)> {
        self.rows
            .iter()
            .filter_map(|(name, row)| match (name, &row.value) {
                (Name::Claim(bytes), Row::Claim(claim)) => Some((&bytes[..], claim)),
                _ => None,
            })
    }

    /// Every deadline.
    pub fn deadlines(&self) -> impl Iterator<Item = &DueKey> {
        self.rows.keys().filter_map(|name| match name {
            Name::Due(key) => Some(key),
            _ => None,
        })
    }

    /// Every request record.
    pub fn records(&self) -> impl Iterator<Item = (&RequestKey, &RequestRecord)> {
        self.rows
            .iter()
            .filter_map(|(name, row)| match (name, &row.value) {
                (Name::Request(key), Row::Request(record)) => Some((key, record)),
                _ => None,
            })
    }

    fn get<T>(&self, name: Name, unwrap: impl Fn(&Row) -> Option<&T>) -> Option<Versioned<T>>
    where
        T: Clone,
    {
        let row = self.rows.get(&name)?;
        Some(Versioned {
            value: unwrap(&row.value)?.clone(),
            stamp: row.stamp,
        })
    }
}

impl View for MemoryView {
    type Error = Infallible;

    fn account(&self, id: &AccountId) -> Result<Option<Versioned<Account>>, Infallible> {
        Ok(self.get(Name::Account(id.clone()), |row| match row {
            Row::Account(account) => Some(account),
            _ => None,
        }))
    }

    fn claim(&self, identifier: &CanonicalIdentifier) -> Result<Option<Versioned<Claim>>, Infallible> {
        Ok(self.get(Name::Claim(identifier.claim_bytes()), |row| match row {
            Row::Claim(claim) => Some(claim),
            _ => None,
        }))
    }

    fn request(&self, key: &RequestKey) -> Result<Option<Versioned<RequestRecord>>, Infallible> {
        Ok(self.get(Name::Request(key.clone()), |row| match row {
            Row::Request(record) => Some(record),
            _ => None,
        }))
    }

    fn due(&self, key: &DueKey) -> Result<Option<Versioned<DueAction>>, Infallible> {
        Ok(self.get(Name::Due(key.clone()), |row| match row {
            Row::Due(action) => Some(action),
            _ => None,
        }))
    }
}
