//! Typed reads for the account rules, and the way back from a plan to bytes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use holdfast_accounts::{self as accounts, Claim, DueAction, DueKey, RequestKey, RequestRecord, Versioned};
use holdfast_markers::planted;
use holdfast_types::{Account, AccountId, CanonicalIdentifier, Family, Realm};

use super::{account, claim, due, inhabited, request};
use crate::engine::{EngineError, View};

/// One realm's rows in a frozen view. The rules evaluate on it, and it then turns their plan into a mutation.
pub struct RowView {
    view: Arc<dyn View>,
    realm: Arc<Versioned<Realm>>,
    /// Where claims were found that are still under an older claim key. A plan names a claim by its identifier;
    /// its guard must ask for the row that was read.
    older_claims: Mutex<BTreeMap<Vec<u8>, Bytes>>,
    /// Whether the realm is known to have had an account.
    inhabited: Arc<AtomicBool>,
}

impl RowView {
    /// The rows of `realm` in `view`.
    pub fn new(view: Arc<dyn View>, realm: Arc<Versioned<Realm>>) -> Self {
        RowView {
            view,
            realm,
            older_claims: Mutex::default(),
            inhabited: Arc::default(),
        }
    }

    /// Remembers with others whether this realm has had an account. Once true it stays true, so it need not be read again.
    pub fn sharing(self, inhabited: Arc<AtomicBool>) -> Self {
        RowView { inhabited, ..self }
    }

    /// Whether the realm has had an account, in this view or in another that was asked.
    pub(super) fn is_inhabited(&self) -> Result<bool, EngineError> {
        let known =
            self.inhabited.load(Ordering::Relaxed) || inhabited::read(&*self.view, self.realm().number)?;
        self.inhabited.fetch_or(known, Ordering::Relaxed);
        Ok(known)
    }

    /// The realm.
    pub fn realm(&self) -> &Realm {
        &self.realm.value
    }

    /// The realm as it was read.
    pub(super) fn realm_as_read(&self) -> &Versioned<Realm> {
        &self.realm
    }

    /// Several accounts in one read, in the order of the ids.
    pub fn accounts(&self, ids: &[AccountId]) -> Result<Vec<Option<Versioned<Account>>>, EngineError> {
        let keys: Vec<Bytes> = ids.iter().map(|id| account::key(self.realm(), id)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let values = self.view.multi_get(Family::Account, &keys)?;
        let read = |(id, value): (&AccountId, Option<Bytes>)| {
            Ok(value.map(|value| account::read(id.clone(), &value)).transpose()?)
        };
        ids.iter().zip(values).map(read).collect()
    }

    /// Where the claim was read, if that was under an older claim key.
    pub(super) fn older_claim(&self, identifier: &CanonicalIdentifier) -> Option<Bytes> {
        let older = self.older_claims.lock().unwrap_or_else(PoisonError::into_inner);
        older.get(&identifier.claim_bytes()).cloned()
    }
}

impl accounts::View for RowView {
    type Error = EngineError;

    fn account(&self, id: &AccountId) -> Result<Option<Versioned<Account>>, EngineError> {
        let value = match self.view.get(Family::Account, &account::key(self.realm(), id)) {
            Err(EngineError::Damaged { .. }) if planted!("damage-taken-for-absence") => None,
            read => read?,
        };
        Ok(value.map(|value| account::read(id.clone(), &value)).transpose()?)
    }

    fn claim(&self, identifier: &CanonicalIdentifier) -> Result<Option<Versioned<Claim>>, EngineError> {
        for (age, key) in claim::keys(self.realm(), identifier).enumerate() {
            if let Some(value) = self.view.get(Family::Claim, &key)? {
                if age > 0 {
                    let mut older = self.older_claims.lock().unwrap_or_else(PoisonError::into_inner);
                    older.insert(identifier.claim_bytes(), key);
                }
                return Ok(Some(claim::read(&value)?));
            }
        }
        Ok(None)
    }

    fn request(&self, key: &RequestKey) -> Result<Option<Versioned<RequestRecord>>, EngineError> {
        let value = self.view.get(Family::Request, &request::key(self.realm(), key))?;
        Ok(value.map(|value| request::read(&value)).transpose()?)
    }

    fn due(&self, key: &DueKey) -> Result<Option<Versioned<DueAction>>, EngineError> {
        let value = self.view.get(Family::Due, &due::key(self.realm(), key))?;
        Ok(value.map(|value| due::read(&value)).transpose()?)
    }
}
