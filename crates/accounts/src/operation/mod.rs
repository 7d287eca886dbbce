//! The operations, one a file. Each reads what it needs through the draft, says how the account shall look, or
//! stops.

mod change_identifiers;
mod create;
mod delete;
mod import;
mod purge;
mod undelete;
mod update;

use std::collections::{BTreeMap, BTreeSet};

use holdfast_markers::reached;
use holdfast_types::{Account, AccountState, Attribute, Millis, Refusal, Rejection, Restriction};

use crate::draft::{Draft, Stop};
use crate::{NewAttribute, View};

pub(crate) use change_identifiers::change_identifiers;
pub(crate) use create::create;
pub(crate) use delete::delete;
pub(crate) use import::import;
pub(crate) use purge::purge;
pub(crate) use undelete::undelete;
pub(crate) use update::update;

/// The account that a change is about: it exists, may be changed, and is as the caller has seen it.
fn changeable<V: View>(draft: &mut Draft<'_, V>, etag: Option<&str>) -> Result<Account, Stop<V::Error>> {
    let account = existing(draft)?;
    require_changeable(&account)?;
    check_etag(&account, etag)?;
    Ok(account)
}

/// The account, if it was created and not purged.
fn existing<V: View>(draft: &mut Draft<'_, V>) -> Result<Account, Stop<V::Error>> {
    match draft.account()? {
        None => Err(Stop::Refused(Refusal::AccountNotFound)),
        Some(account) if account.state() == AccountState::Deleted => {
            reached!("account.tombstone-refused");
            Err(Stop::Refused(Refusal::AccountPurged))
        }
        Some(account) => Ok(account),
    }
}

/// A suspended account may be changed; one that waits for its purge may only be undeleted.
fn require_changeable(account: &Account) -> Result<(), Refusal> {
    match account.state() {
        AccountState::Active | AccountState::Suspended => Ok(()),
        state => {
            reached!("account.state-forbids");
            Err(Refusal::StateForbids { state })
        }
    }
}

fn check_etag(account: &Account, etag: Option<&str>) -> Result<(), Rejection> {
    match etag {
        Some(etag) if etag != account.etag() => {
            reached!("account.etag-stale");
            Err(Rejection::EtagMismatch {
                current: account.etag(),
            })
        }
        _ => Ok(()),
    }
}

fn attributes(new: &BTreeMap<String, NewAttribute>, now: Millis) -> BTreeMap<String, Attribute> {
    let set = |(name, new): (&String, &NewAttribute)| {
        let NewAttribute { value, source } = new.clone();
        (
            name.clone(),
            Attribute {
                value,
                source,
                update_time: now,
            },
        )
    };
    new.iter().map(set).collect()
}

/// Restrictions with these codes; those that stood before keep their time.
fn restrictions(codes: &BTreeSet<String>, before: &[Restriction], now: Millis) -> Vec<Restriction> {
    let place = |code: &String| {
        let stands = before.iter().find(|restriction| restriction.code == *code);
        stands.cloned().unwrap_or_else(|| Restriction {
            code: code.clone(),
            create_time: now,
        })
    };
    codes.iter().map(place).collect()
}
