//! A plan in the making: reads rows and remembers each as a guard, collects writes.

use holdfast_markers::planted;
use holdfast_types::{Account, CanonicalIdentifier, Expect, Refusal, Rejection, RequestId};

use crate::check::Check;
use crate::{
    ChangeKind, Claim, Context, DueAction, DueKey, Outcome, Plan, Request, RequestKey, RequestRecord, Row,
    RowKey, Versioned, View,
};

/// Why an operation stops without an effect.
pub(crate) enum Stop<E> {
    Refused(Refusal),
    Rejected(Rejection),
    View(E),
    Inconsistent(String),
}

impl<E> From<Refusal> for Stop<E> {
    fn from(refusal: Refusal) -> Self {
        Stop::Refused(refusal)
    }
}

impl<E> From<Rejection> for Stop<E> {
    fn from(rejection: Rejection) -> Self {
        Stop::Rejected(rejection)
    }
}

/// What an operation does to its account. Revision and update time are set by whoever receives this.
pub(crate) struct Effect {
    /// The account as it was read.
    pub(crate) before: Option<Account>,
    /// The account as it shall be.
    pub(crate) after: Account,
    /// What to call it; none: the account stays as it is, and that is what was asked for.
    pub(crate) kind: Option<ChangeKind>,
}

impl Effect {
    pub(crate) fn new(kind: ChangeKind, before: Option<Account>, after: Account) -> Self {
        Effect {
            before,
            after,
            kind: Some(kind),
        }
    }

    pub(crate) fn none(account: Account) -> Self {
        Effect {
            before: None,
            after: account,
            kind: None,
        }
    }
}

pub(crate) struct Draft<'a, V: View> {
    view: &'a V,
    pub(crate) ctx: &'a Context<'a>,
    pub(crate) request: &'a Request,
    pub(crate) check: Check<'a>,
    guards: Vec<(RowKey, Expect)>,
    writes: Vec<(RowKey, Option<Row>)>,
}

impl<'a, V: View> Draft<'a, V> {
    pub(crate) fn new(view: &'a V, ctx: &'a Context<'a>, request: &'a Request) -> Self {
        Draft {
            view,
            ctx,
            request,
            check: Check::new(ctx),
            guards: Vec::new(),
            writes: Vec::new(),
        }
    }

    /// The request's account, tombstones included.
    pub(crate) fn account(&mut self) -> Result<Option<Account>, Stop<V::Error>> {
        let id = &self.request.account;
        let row = self.view.account(id).map_err(Stop::View)?;
        Ok(self.guard(RowKey::Account(id.clone()), row))
    }

    pub(crate) fn claim(
        &mut self,
        identifier: &CanonicalIdentifier,
    ) -> Result<Option<Claim>, Stop<V::Error>> {
        let row = self.view.claim(identifier).map_err(Stop::View)?;
        Ok(self.guard(RowKey::Claim(identifier.clone()), row))
    }

    pub(crate) fn record(&mut self, key: RequestKey) -> Result<Option<RequestRecord>, V::Error> {
        let row = self.view.request(&key)?;
        Ok(self.guard(RowKey::Request(key), row))
    }

    pub(crate) fn due(&mut self, key: DueKey) -> Result<Option<DueAction>, Stop<V::Error>> {
        let row = self.view.due(&key).map_err(Stop::View)?;
        Ok(self.guard(RowKey::Due(key), row))
    }

    pub(crate) fn put(&mut self, key: RowKey, row: Row) {
        self.writes.push((key, Some(row)));
    }

    pub(crate) fn delete(&mut self, key: RowKey) {
        self.writes.push((key, None));
    }

    /// Drops what was to be written; what was read stays guarded.
    pub(crate) fn discard_writes(&mut self) {
        self.writes.clear();
    }

    /// The plan, as far as it can be told from here.
    pub(crate) fn into_plan(self, outcome: Outcome) -> Plan {
        Plan {
            guards: self.guards,
            writes: self.writes,
            events: Vec::new(),
            outcome,
            account_after: None,
            request_birth: self.request.request_id.map(RequestId::birth),
        }
    }

    fn guard<T>(&mut self, key: RowKey, row: Option<Versioned<T>>) -> Option<T> {
        debug_assert!(
            self.guards.iter().all(|(guarded, _)| *guarded != key),
            "each row is read once"
        );
        let (expect, value) = match row {
            None => (Expect::Absent, None),
            Some(Versioned { value, stamp }) => (Expect::Stamp(stamp), Some(value)),
        };
        if matches!(expect, Expect::Absent) && planted!("absence-guard-dropped") {
            return value;
        }
        self.guards.push((key, expect));
        value
    }
}
