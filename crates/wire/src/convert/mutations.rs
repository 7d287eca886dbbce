//! Requests that change one account.
//!
//! Each becomes a [`Mutation`]: what the accounts crate needs, except for what only the replicated realm knows.
//! [`Mutation::into_request`] adds that.

use holdfast_accounts::{ChangeIdentifiers, IdentifierChange, Operation, Request, Update};
use holdfast_types::{AccountId, Actor, Caller, Realm, RealmId, Rejection, RequestId};

use super::accounts::{
    identifier_ref, new_account, new_attributes, new_identifier, restriction_codes, time_zone,
};
use super::check::{Check, etag, shown};
use crate::v1;

/// The paths that UpdateAccount's mask may hold.
const UPDATE_PATHS: &str = "display_name, labels, locale, restrictions, time_zone";

/// A request to change one account, well formed.
#[derive(Debug, Clone, PartialEq)]
pub struct Mutation {
    /// The realm.
    pub realm: RealmId,
    /// The account.
    pub account: AccountChoice,
    /// The idempotency key.
    pub request_id: RequestId,
    /// On whose behalf and why.
    pub actor: Actor,
    /// What to do.
    pub operation: Operation,
}

/// Which account a mutation is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountChoice {
    /// The caller named it.
    Named(AccountId),
    /// A new one, whose id is derived from this request id: the same whenever the request is sent again.
    Derived(RequestId),
}

impl AccountChoice {
    pub(super) fn new(named: Option<AccountId>, otherwise: RequestId) -> Self {
        named.map_or(AccountChoice::Derived(otherwise), AccountChoice::Named)
    }
}

impl Mutation {
    /// The account that this is about. `realm` must be the one that is named.
    pub fn account_in(&self, realm: &Realm, caller: &Caller) -> AccountId {
        match &self.account {
            AccountChoice::Named(account) => account.clone(),
            AccountChoice::Derived(request_id) => {
                AccountId::derive(&realm.slot_key, realm.number, caller, *request_id)
            }
        }
    }

    /// The request as the accounts crate takes it.
    pub fn into_request(self, realm: &Realm, caller: Caller) -> Request {
        let account = self.account_in(realm, &caller);
        Request {
            realm: realm.number,
            caller,
            actor: self.actor,
            request_id: Some(self.request_id),
            account,
            operation: self.operation,
        }
    }
}

/// CreateAccount.
pub fn create_account(message: v1::CreateAccountRequest) -> Result<Mutation, Rejection> {
    let mut check = Check::new();
    let realm = check.realm_name("parent", &message.parent);
    let account = check.optional_account_id("account_id", &message.account_id);
    let new = check
        .required("account", message.account)
        .map(|new| new_account(&mut check, "account", new));
    let request_id = check.request_id("request_id", &message.request_id);
    let actor = check.actor(message.context);
    let mutation = (|| {
        let request_id = request_id?;
        Some(Mutation {
            realm: realm?,
            account: AccountChoice::new(account?, request_id),
            request_id,
            actor,
            operation: Operation::Create(new?),
        })
    })();
    check.finish(mutation)
}

/// UpdateAccount.
pub fn update_account(message: v1::UpdateAccountRequest) -> Result<Mutation, Rejection> {
    let mut check = Check::new();
    let account = check.required("account", message.account).unwrap_or_default();
    let name = check.account_name("account.name", &account.name);
    let mut update = Update {
        etag: etag(message.etag),
        set_attributes: new_attributes(&mut check, "set_attributes", message.set_attributes),
        remove_attributes: message.remove_attributes.into_iter().collect(),
        ..Update::default()
    };
    for (at, path) in message.update_mask.unwrap_or_default().paths.iter().enumerate() {
        match path.as_str() {
            "display_name" => update.display_name = Some(account.display_name.clone()),
            "locale" => update.locale = Some(account.locale.clone()),
            "time_zone" => {
                time_zone(&mut check, "account.time_zone", &account.time_zone);
                update.time_zone = Some(account.time_zone.clone());
            }
            "labels" => update.labels = Some(account.labels.clone()),
            "restrictions" => {
                let restrictions = account.restrictions.clone();
                update.restrictions = Some(restriction_codes(
                    &mut check,
                    "account.restrictions",
                    restrictions,
                ));
            }
            unknown => check.wrong(
                format!("update_mask.paths[{at}]"),
                format!("`{}` cannot be updated; what can: {UPDATE_PATHS}", shown(unknown)),
            ),
        }
    }
    let request_id = check.request_id("request_id", &message.request_id);
    let actor = check.actor(message.context);
    finish(check, name, request_id, actor, Some(Operation::Update(update)))
}

/// ChangeIdentifiers.
pub fn change_identifiers(message: v1::ChangeIdentifiersRequest) -> Result<Mutation, Rejection> {
    let mut check = Check::new();
    let name = check.account_name("name", &message.name);
    let changes: Option<Vec<_>> = message
        .changes
        .into_iter()
        .enumerate()
        .map(|(at, change)| identifier_change(&mut check, &format!("changes[{at}]"), change))
        // All of them are looked at before any that is wrong ends it.
        .collect::<Vec<_>>()
        .into_iter()
        .collect();
    let request_id = check.request_id("request_id", &message.request_id);
    let actor = check.actor(message.context);
    let operation = changes.map(|changes| {
        Operation::ChangeIdentifiers(ChangeIdentifiers {
            etag: etag(message.etag),
            changes,
        })
    });
    finish(check, name, request_id, actor, operation)
}

fn identifier_change(
    check: &mut Check,
    path: &str,
    message: v1::IdentifierChange,
) -> Option<IdentifierChange> {
    use v1::identifier_change::Change;
    match message.change {
        Some(Change::Add(new)) => {
            new_identifier(check, &format!("{path}.add"), new).map(IdentifierChange::Add)
        }
        Some(Change::Remove(old)) => {
            identifier_ref(check, &format!("{path}.remove"), old).map(IdentifierChange::Remove)
        }
        Some(Change::Replace(replacement)) => {
            let old_path = format!("{path}.replace.old_identifier");
            let old = check
                .required(&old_path, replacement.old_identifier)
                .and_then(|old| identifier_ref(check, &old_path, old));
            let new_path = format!("{path}.replace.new_identifier");
            let new = check
                .required(&new_path, replacement.new_identifier)
                .and_then(|new| new_identifier(check, &new_path, new));
            Some(IdentifierChange::Replace { old: old?, new: new? })
        }
        None => {
            check.wrong(path, "must be one of add, remove and replace");
            None
        }
    }
}

/// DeleteAccount.
pub fn delete_account(message: v1::DeleteAccountRequest) -> Result<Mutation, Rejection> {
    let mut check = Check::new();
    let name = check.account_name("name", &message.name);
    let request_id = check.request_id("request_id", &message.request_id);
    let actor = check.actor(message.context);
    let operation = Operation::Delete {
        etag: etag(message.etag),
    };
    finish(check, name, request_id, actor, Some(operation))
}

/// UndeleteAccount.
pub fn undelete_account(message: v1::UndeleteAccountRequest) -> Result<Mutation, Rejection> {
    let mut check = Check::new();
    let name = check.account_name("name", &message.name);
    let request_id = check.request_id("request_id", &message.request_id);
    let actor = check.actor(message.context);
    let operation = Operation::Undelete {
        etag: etag(message.etag),
    };
    finish(check, name, request_id, actor, Some(operation))
}

fn finish(
    check: Check,
    name: Option<(RealmId, AccountId)>,
    request_id: Option<RequestId>,
    actor: Actor,
    operation: Option<Operation>,
) -> Result<Mutation, Rejection> {
    let mutation = (|| {
        let (realm, account) = name?;
        Some(Mutation {
            realm,
            account: AccountChoice::Named(account),
            request_id: request_id?,
            actor,
            operation: operation?,
        })
    })();
    check.finish(mutation)
}
