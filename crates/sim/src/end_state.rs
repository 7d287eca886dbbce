//! Reads one replica's whole state from its engine, for the judges that look inside.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;

use bytes::Bytes;
use holdfast_accounts::{ChangeKind as StoredKind, ClaimState};
use holdfast_machine::envelope;
use holdfast_storage::engine::{Direction, EngineError, View};
use holdfast_storage::schema;
use holdfast_types::{
    Account, AccountState, CanonicalIdentifier, Family, IdentifierKind, Realm, RealmNumber, ShardId,
};

use crate::history::{AccountView, Change, ChangeKind, ClaimView, EndState, State};

/// The realm that runs work in.
const REALM: RealmNumber = RealmNumber(1);
const SHARD: ShardId = ShardId(0);

/// What is on the disk of `node` in `view`, which has applied everything up to `applied`. `identifiers` are the
/// canonical identifiers that occur in the run: claims hold none, so theirs are found by trying.
///
/// # Errors
/// If something stored cannot be read.
pub fn read(
    node: u64,
    view: &dyn View,
    applied: u64,
    changes_from: u64,
    identifiers: &BTreeSet<String>,
) -> Result<EndState, EngineError> {
    let realm = schema::realm::read(view, REALM)?.ok_or_else(|| EngineError::Damaged {
        message: "there is no realm".into(),
    })?;
    let realm = realm.value;
    Ok(EndState {
        node,
        applied,
        accounts: schema::account::accounts_after(view, &realm, None)
            .map(|account| Ok(account_view(account?.value)))
            .collect::<Result<_, EngineError>>()?,
        claims: claims(view, &realm, identifiers)?,
        changes: schema::change::changes_from(view, SHARD, 0, 0)
            .map(|row| {
                let row = row?;
                Ok(Change {
                    position: row.index,
                    account: row.event.value.account.as_str().to_owned(),
                    revision: row.event.value.revision,
                    kind: change_kind(row.event.value.kind),
                    request_id: row.event.value.request_id.map(|id| id.to_string()),
                })
            })
            .collect::<Result<_, EngineError>>()?,
        changes_from,
        rows: Family::STATE
            .into_iter()
            .map(|family| Ok((family.name().to_owned(), checksum(view, family)?)))
            .collect::<Result<_, EngineError>>()?,
    })
}

/// How many rows a family has, and a checksum over all of them.
fn checksum(view: &dyn View, family: Family) -> Result<(u64, u64), EngineError> {
    // Without keys of its own: the same in every process.
    let mut hasher = DefaultHasher::new();
    let mut count = 0;
    for row in view.scan(family, Bound::Unbounded, Bound::Unbounded, Direction::Forward) {
        row?.hash(&mut hasher);
        count += 1;
    }
    Ok((count, hasher.finish()))
}

fn claims(
    view: &dyn View,
    realm: &Realm,
    identifiers: &BTreeSet<String>,
) -> Result<Vec<ClaimView>, EngineError> {
    let names: BTreeMap<Bytes, &String> = identifiers
        .iter()
        .flat_map(|text| {
            // The kind is no part of the key: all login identifiers share one namespace.
            let identifier = CanonicalIdentifier {
                kind: IdentifierKind::Email,
                issuer: String::new(),
                text: text.clone(),
                normalizer: 1,
            };
            schema::claim::keys(realm, &identifier)
                .map(move |key| (key, text))
                .collect::<Vec<_>>()
        })
        .collect();
    view.scan(
        Family::Claim,
        Bound::Unbounded,
        Bound::Unbounded,
        Direction::Forward,
    )
    .map(|row| {
        let (key, value) = row?;
        let body = envelope::decode(&value)
            .map_err(|error| EngineError::Damaged {
                message: error.to_string(),
            })?
            .body;
        let claim = schema::claim::decode(body)?;
        Ok(ClaimView {
            identifier: names.get(&key).map(|text| (*text).clone()),
            owner: claim.owner.as_str().to_owned(),
            quarantined_until_ms: match claim.state {
                ClaimState::Held { .. } => None,
                ClaimState::Quarantined { until } => Some(until.0),
            },
        })
    })
    .collect()
}

/// An account as the history shows it.
fn account_view(account: Account) -> AccountView {
    let state = match account.state() {
        AccountState::Active => State::Active,
        AccountState::Suspended => State::Suspended,
        AccountState::PendingDeletion => State::PendingDeletion,
        AccountState::Deleted | AccountState::Merged => State::Deleted,
    };
    let mut identifiers: Vec<_> = account
        .identifiers
        .into_iter()
        .map(|identifier| identifier.canonical.text)
        .collect();
    identifiers.sort();
    AccountView {
        account: account.id.as_str().to_owned(),
        revision: account.revision,
        fingerprint: account.display_name,
        identifiers,
        state,
        update_time_ms: account.update_time.0,
        purge_time_ms: account.deletion.map(|deletion| deletion.purge_time.0),
    }
}

fn change_kind(kind: StoredKind) -> ChangeKind {
    match kind {
        StoredKind::Created => ChangeKind::Created,
        StoredKind::Updated => ChangeKind::Updated,
        StoredKind::IdentifiersChanged => ChangeKind::IdentifiersChanged,
        StoredKind::DeletionRequested => ChangeKind::DeletionRequested,
        StoredKind::Undeleted => ChangeKind::Undeleted,
        StoredKind::Purged => ChangeKind::Purged,
    }
}
