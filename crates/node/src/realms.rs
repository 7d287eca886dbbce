//! Realms: finding one, and what the leader does to bring the first one into being or change its rules.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use holdfast_accounts::Versioned;
use holdfast_machine::{Expect, Mutation};
use holdfast_storage::engine::{EngineError, View};
use holdfast_storage::schema;
use holdfast_types::{ClaimKey, Realm, RealmConfig, RealmId, RealmNumber};
use holdfast_wire::status::Reason;

use crate::core::Core;
use crate::driver::unreadable;
use crate::failure::Failure;

/// The number of the realm that exists from the start.
pub(crate) const DEFAULT: RealmNumber = RealmNumber(1);

/// Realms as they were last read. Every call asks for one; its row is read once a view, and decoded again only when it
/// has changed.
#[derive(Default)]
pub(crate) struct Known(Mutex<BTreeMap<RealmNumber, LastRead>>);

struct LastRead {
    realm: Arc<Versioned<Realm>>,
    /// Whether it is known to have had an account.
    inhabited: Arc<AtomicBool>,
    /// Where. While this is held, no other view has its address.
    view: Weak<dyn View>,
}

impl Known {
    /// The realm in this view.
    fn read(
        &self,
        view: &Arc<dyn View>,
        number: RealmNumber,
    ) -> Result<Option<Arc<Versioned<Realm>>>, EngineError> {
        let known = match self.lock().get(&number) {
            Some(last) if std::ptr::addr_eq(last.view.as_ptr(), Arc::as_ptr(view)) => {
                return Ok(Some(last.realm.clone()));
            }
            last => last.map(|last| last.realm.clone()),
        };
        let found = schema::realm::read_again(&**view, number, known.as_ref())?;
        if let Some(realm) = &found {
            let mut known = self.lock();
            let inhabited = known.get(&number).map(|last| last.inhabited.clone());
            let last = LastRead {
                realm: realm.clone(),
                inhabited: inhabited.unwrap_or_default(),
                view: Arc::downgrade(view),
            };
            known.insert(number, last);
        }
        Ok(found)
    }

    /// Where it is remembered that the realm has had an account.
    pub(crate) fn inhabited(&self, number: RealmNumber) -> Arc<AtomicBool> {
        let known = self.lock();
        known
            .get(&number)
            .map(|last| last.inhabited.clone())
            .unwrap_or_default()
    }

    /// The number of the realm with this name, if it was read before. Realms keep their names.
    fn number(&self, name: &RealmId) -> Option<RealmNumber> {
        let known = self.lock();
        let named = known.values().find(|last| last.realm.value.id == *name)?;
        Some(named.realm.value.number)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RealmNumber, LastRead>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The realm with this number.
pub(crate) fn by_number(
    core: &Core,
    view: &Arc<dyn View>,
    number: RealmNumber,
) -> Result<Arc<Versioned<Realm>>, Failure> {
    let found = core
        .realms
        .read(view, number)
        .map_err(|error| unreadable(core, &error))?;
    found.ok_or_else(|| Failure::new(Reason::RealmNotFound, "there is no such realm"))
}

/// The realm with this name.
pub(crate) fn by_name(
    core: &Core,
    view: &Arc<dyn View>,
    name: &RealmId,
) -> Result<Arc<Versioned<Realm>>, Failure> {
    if let Some(number) = core.realms.number(name) {
        return by_number(core, view, number);
    }
    for realm in schema::realm::all(&**view) {
        let realm = realm.map_err(|error| unreadable(core, &error))?;
        if realm.value.id == *name {
            return by_number(core, view, realm.value.number);
        }
    }
    // A cluster is given its first realm by its first leader; until then there is none.
    if *name == RealmId::default_realm() {
        return Err(Failure::new(
            Reason::NodeNotServing,
            "the cluster is being set up; try again",
        ));
    }
    Err(Failure::new(
        Reason::RealmNotFound,
        format!("there is no realm {name}"),
    ))
}

/// The proposal that founds the default realm, with fresh keys. It has no effect if there is one already.
pub(crate) fn found_default() -> Result<Mutation, getrandom::Error> {
    let mut slot_key = [0; 32];
    let mut claim_key = [0; 32];
    getrandom::fill(&mut slot_key)?;
    getrandom::fill(&mut claim_key)?;
    let realm = Realm {
        id: RealmId::default_realm(),
        number: DEFAULT,
        slot_key,
        claim_keys: vec![ClaimKey {
            id: 1,
            key: claim_key,
        }],
        config: RealmConfig::default(),
        revision: 1,
    };
    Ok(schema::realm::mutation(&realm, Expect::Absent))
}
