//! Which rows a request may touch, known before anything is read.

use std::collections::BTreeMap;

use holdfast_types::{IdentifierKind, RealmConfig};

use crate::normalize::canonicalize;
use crate::{IdentifierChange, NewAccount, Operation, Request, RowKey};

/// The rows to latch before a request is evaluated, sorted, each once: its account and the claims on the
/// identifiers that it names.
///
/// Latches only make failed guards rare, so this may leave rows out: the request record and deadlines (they
/// stand and fall with the account), and claims on identifiers that only the account's record knows. An
/// identifier that is not well formed has no claim.
pub fn latch_keys(request: &Request, config: &RealmConfig) -> Vec<RowKey> {
    let mut claims = BTreeMap::new();
    let mut name = |kind: IdentifierKind, value: &str, issuer: &str| {
        if let Ok(canonical) = canonicalize(kind, value, issuer, config) {
            claims.insert(canonical.claim_bytes(), canonical);
        }
    };
    match &request.operation {
        Operation::Create(account) | Operation::Import { account, .. } => {
            let NewAccount { identifiers, .. } = account;
            identifiers
                .iter()
                .for_each(|new| name(new.kind, &new.value, &new.issuer));
        }
        Operation::ChangeIdentifiers(change) => {
            for change in &change.changes {
                match change {
                    IdentifierChange::Add(new) => name(new.kind, &new.value, &new.issuer),
                    IdentifierChange::Remove(old) => name(old.kind, &old.value, &old.issuer),
                    IdentifierChange::Replace { old, new } => {
                        name(old.kind, &old.value, &old.issuer);
                        name(new.kind, &new.value, &new.issuer);
                    }
                }
            }
        }
        Operation::Update(_)
        | Operation::Delete { .. }
        | Operation::Undelete { .. }
        | Operation::Purge { .. } => {}
    }
    let account = RowKey::Account(request.account.clone());
    std::iter::once(account)
        .chain(claims.into_values().map(RowKey::Claim))
        .collect()
}
