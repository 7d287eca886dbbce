//! Requests that change nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_accounts::IdentifierRef;
use holdfast_types::{AccountId, AccountState, ConsistencyToken, RealmId, Rejection};

use super::accounts::{identifier_ref, states};
use super::check::Check;
use super::page::{self, Parameters, Position};
use super::time;
use crate::v1;

/// The most names in one BatchGetAccounts.
pub const BATCH_NAMES_MAX: usize = 100;
/// The page size when none is given.
pub const PAGE_SIZE_DEFAULT: usize = 50;
/// The largest page.
pub const PAGE_SIZE_MAX: usize = 1_000;

/// How fresh an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freshness {
    /// What may be missing.
    pub mode: ReadMode,
    /// A position that must be reflected all the same. Whether it is of this cluster is for the node to check,
    /// and if not to report as [`AT_LEAST_FIELD`].
    pub at_least: Option<ConsistencyToken>,
}

/// The field to blame for a token of another cluster.
pub const AT_LEAST_FIELD: &str = "consistency.at_least_token";

/// What may be missing from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadMode {
    /// Nothing that was acknowledged before the read began.
    #[default]
    Linearizable,
    /// What was acknowledged within this time; any time if there is no bound.
    Stale(Option<Duration>),
}

fn freshness(check: &mut Check, message: Option<v1::Consistency>) -> Freshness {
    use v1::consistency::Mode;
    let Some(message) = message else {
        return Freshness::default();
    };
    let mode = match message.mode {
        None | Some(Mode::Linearizable(_)) => ReadMode::Linearizable,
        Some(Mode::Stale(stale)) => ReadMode::Stale(
            stale
                .max_staleness
                .and_then(|bound| time::not_negative(check, "consistency.stale.max_staleness", bound)),
        ),
    };
    let mut at_least = None;
    if !message.at_least_token.is_empty() {
        match ConsistencyToken::decode(&message.at_least_token) {
            Ok(token) => at_least = Some(token),
            Err(error) => check.wrong(AT_LEAST_FIELD, error.to_string()),
        }
    }
    Freshness { mode, at_least }
}

/// GetAccount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetAccount {
    /// The realm.
    pub realm: RealmId,
    /// The account.
    pub account: AccountId,
    /// How fresh.
    pub freshness: Freshness,
}

/// Reads a GetAccount.
pub fn get_account(message: v1::GetAccountRequest) -> Result<GetAccount, Rejection> {
    let mut check = Check::new();
    let name = check.account_name("name", &message.name);
    let freshness = freshness(&mut check, message.consistency);
    check.finish(name.map(|(realm, account)| GetAccount {
        realm,
        account,
        freshness,
    }))
}

/// BatchGetAccounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchGetAccounts {
    /// The realm.
    pub realm: RealmId,
    /// The accounts, as asked for.
    pub accounts: Vec<AccountId>,
    /// How fresh.
    pub freshness: Freshness,
}

/// Reads a BatchGetAccounts.
pub fn batch_get_accounts(message: v1::BatchGetAccountsRequest) -> Result<BatchGetAccounts, Rejection> {
    let mut check = Check::new();
    let realm = check.realm_name("parent", &message.parent);
    let count = message.names.len();
    if count == 0 || count > BATCH_NAMES_MAX {
        check.wrong(
            "names",
            format!("must be 1 to {BATCH_NAMES_MAX}, here are {count}"),
        );
    }
    let mut accounts = Vec::with_capacity(count.min(BATCH_NAMES_MAX));
    let mut seen = BTreeSet::new();
    for (at, name) in message.names.iter().enumerate().take(BATCH_NAMES_MAX) {
        let field = format!("names[{at}]");
        let Some((its_realm, account)) = check.account_name(&field, name) else {
            continue;
        };
        if realm.as_ref().is_some_and(|realm| *realm != its_realm) {
            check.wrong(&field, "is not in the realm named by `parent`");
        }
        if !seen.insert(account.clone()) {
            check.wrong(&field, "occurs twice");
        }
        accounts.push(account);
    }
    let freshness = freshness(&mut check, message.consistency);
    check.finish(realm.map(|realm| BatchGetAccounts {
        realm,
        accounts,
        freshness,
    }))
}

/// LookupAccount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupAccount {
    /// The realm.
    pub realm: RealmId,
    /// The identifier, as typed: its canonical form depends on the realm's rules. What is wrong with it is to
    /// be reported as [`LOOKUP_VALUE_FIELD`].
    pub identifier: IdentifierRef,
    /// How fresh.
    pub freshness: Freshness,
}

/// The field to blame for an identifier without a canonical form.
pub const LOOKUP_VALUE_FIELD: &str = "identifier.value";

/// Reads a LookupAccount.
pub fn lookup_account(message: v1::LookupAccountRequest) -> Result<LookupAccount, Rejection> {
    let mut check = Check::new();
    let realm = check.realm_name("parent", &message.parent);
    let identifier = check
        .required("identifier", message.identifier)
        .and_then(|identifier| identifier_ref(&mut check, "identifier", identifier));
    let freshness = freshness(&mut check, message.consistency);
    let lookup = realm.zip(identifier).map(|(realm, identifier)| LookupAccount {
        realm,
        identifier,
        freshness,
    });
    check.finish(lookup)
}

/// ListAccounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListAccounts {
    /// What the list is of; also what its page tokens are made with.
    pub parameters: Parameters,
    /// The most accounts to answer, 1 to [`PAGE_SIZE_MAX`].
    pub page_size: usize,
    /// Where the page before ended; none: begin.
    pub after: Option<Position>,
    /// How fresh.
    pub freshness: Freshness,
}

/// Reads a ListAccounts.
pub fn list_accounts(message: v1::ListAccountsRequest) -> Result<ListAccounts, Rejection> {
    let mut check = Check::new();
    let realm = check.realm_name("parent", &message.parent);
    let page_size = match usize::try_from(message.page_size) {
        Ok(0) => PAGE_SIZE_DEFAULT,
        Ok(size) => size.min(PAGE_SIZE_MAX),
        Err(_) => {
            check.wrong("page_size", "must not be negative");
            PAGE_SIZE_DEFAULT
        }
    };
    let states = states(&mut check, "states", &message.states);
    let parameters = realm.map(|realm| Parameters { realm, states });
    let mut after = None;
    if let (Some(parameters), false) = (&parameters, message.page_token.is_empty()) {
        match page::decode(parameters, &message.page_token) {
            Ok(position) => after = Some(position),
            Err(problem) => check.wrong("page_token", problem),
        }
    }
    let freshness = freshness(&mut check, message.consistency);
    check.finish(parameters.map(|parameters| ListAccounts {
        parameters,
        page_size,
        after,
        freshness,
    }))
}

/// ExportAccounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportAccounts {
    /// The realm.
    pub realm: RealmId,
    /// The states asked for.
    pub states: BTreeSet<AccountState>,
    /// How fresh.
    pub freshness: Freshness,
}

/// Reads an ExportAccounts.
pub fn export_accounts(message: v1::ExportAccountsRequest) -> Result<ExportAccounts, Rejection> {
    let mut check = Check::new();
    let realm = check.realm_name("parent", &message.parent);
    let states = states(&mut check, "states", &message.states);
    let freshness = freshness(&mut check, message.consistency);
    check.finish(realm.map(|realm| ExportAccounts {
        realm,
        states,
        freshness,
    }))
}

/// GetRealm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetRealm {
    /// The realm.
    pub realm: RealmId,
    /// How fresh.
    pub freshness: Freshness,
}

/// Reads a GetRealm.
pub fn get_realm(message: v1::GetRealmRequest) -> Result<GetRealm, Rejection> {
    let mut check = Check::new();
    let realm = check.realm_name("name", &message.name);
    let freshness = freshness(&mut check, message.consistency);
    check.finish(realm.map(|realm| GetRealm { realm, freshness }))
}
