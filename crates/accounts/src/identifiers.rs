//! The list of an account's identifiers and the claims that stand behind it.
//!
//! Operations only say how the list shall look; [`reconcile`] moves the claims accordingly. That is the one
//! place where claims are written, so they cannot come to disagree with the accounts.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_markers::{planted, reached};
use holdfast_types::{CanonicalIdentifier, Identifier, Millis, Refusal, Verification};

use crate::check::Wanted;
use crate::draft::{Draft, Stop};
use crate::limits::IDENTIFIERS_MAX;
use crate::{Claim, ClaimState, NewVerification, Row, RowKey, View};

/// A list in the making: identifiers in the order that decides about primaries, and what the request says
/// about being primary.
#[derive(Default)]
pub(crate) struct List {
    entries: Vec<Entry>,
}

struct Entry {
    identifier: Identifier,
    wish: Option<bool>,
    /// The request's place for it, for those that it brings.
    index: Option<u32>,
}

impl List {
    /// The identifiers that an account has.
    pub(crate) fn of(identifiers: &[Identifier]) -> Self {
        let entry = |identifier: &Identifier| Entry {
            identifier: identifier.clone(),
            wish: None,
            index: None,
        };
        List {
            entries: identifiers.iter().map(entry).collect(),
        }
    }

    /// Adds what a request asks for. `before` is the identifier that it replaces: primary if that one was, and
    /// if the two are the same identifier, as old and, unless the request says otherwise, as it was.
    pub(crate) fn push(&mut self, wanted: Wanted<'_>, before: Option<Identifier>, now: Millis) {
        let Wanted {
            canonical,
            new,
            index,
        } = wanted;
        let primary = before.as_ref().is_some_and(|before| before.primary);
        let same = before.filter(|before| before.canonical.claim_bytes() == canonical.claim_bytes());
        let verification = match &new.verification {
            None => same.as_ref().and_then(|same| same.verification.clone()),
            Some(NewVerification::Unverified) => None,
            Some(NewVerification::Verified { method, time }) => Some(Verification {
                method: method.clone(),
                time: time.unwrap_or(now),
            }),
        };
        let same_login = same.as_ref().is_none_or(|same| same.login_enabled);
        let identifier = Identifier {
            value: new.value.clone(),
            canonical,
            primary,
            login_enabled: new.login_enabled.unwrap_or(same_login),
            verification,
            create_time: same.map_or(now, |same| same.create_time),
        };
        self.entries.push(Entry {
            identifier,
            wish: new.primary,
            index: Some(index),
        });
    }

    /// Takes an identifier out; none if it is not there.
    pub(crate) fn remove(&mut self, canonical: &CanonicalIdentifier) -> Option<Identifier> {
        let at = self.position(canonical)?;
        Some(self.entries.remove(at).identifier)
    }

    /// Whether the identifier is there.
    pub(crate) fn contains(&self, canonical: &CanonicalIdentifier) -> bool {
        self.position(canonical).is_some()
    }

    fn position(&self, canonical: &CanonicalIdentifier) -> Option<usize> {
        let bytes = canonical.claim_bytes();
        self.entries
            .iter()
            .position(|entry| entry.identifier.canonical.claim_bytes() == bytes)
    }

    /// Settles which are primary, sorts, and moves the claims from `before`, what the account has, to this.
    pub(crate) fn finish<V: View>(
        mut self,
        draft: &mut Draft<'_, V>,
        before: &[Identifier],
    ) -> Result<Vec<Identifier>, Stop<V::Error>> {
        if self.entries.len() > IDENTIFIERS_MAX {
            return Err(Stop::Refused(Refusal::LimitExceeded {
                what: "identifiers".into(),
                limit: IDENTIFIERS_MAX as u64,
                actual: self.entries.len() as u64,
            }));
        }
        self.choose_primaries();
        self.reconcile(draft, before)?;
        let mut identifiers: Vec<Identifier> =
            self.entries.into_iter().map(|entry| entry.identifier).collect();
        identifiers.sort_by(|a, b| a.canonical.cmp(&b.canonical));
        Ok(identifiers)
    }

    /// Exactly one of each kind is primary: the one that the request names, else the one that was, else the
    /// oldest; one that the request wants not to be primary only if there is no other.
    fn choose_primaries(&mut self) {
        let kinds: BTreeSet<_> = self
            .entries
            .iter()
            .map(|entry| entry.identifier.canonical.kind)
            .collect();
        for kind in kinds {
            let of_kind = |entry: &&mut Entry| entry.identifier.canonical.kind == kind;
            let mut best: Option<&mut Entry> = None;
            for entry in self.entries.iter_mut().filter(of_kind) {
                // The first of equals wins, so that the request's order decides among its own.
                let better = best.as_ref().is_none_or(|best| entry.rank() < best.rank());
                entry.identifier.primary &= better;
                if better && let Some(best) = best.replace(entry) {
                    best.identifier.primary = false;
                }
            }
            if let Some(best) = best {
                best.identifier.primary = true;
            }
        }
    }

    /// Gives up the claims of identifiers that are in `before` only and takes those that are here only.
    fn reconcile<V: View>(
        &self,
        draft: &mut Draft<'_, V>,
        before: &[Identifier],
    ) -> Result<(), Stop<V::Error>> {
        let by_claim = |identifier: &Identifier| (identifier.canonical.claim_bytes(), identifier.clone());
        let mut had: BTreeMap<Vec<u8>, Identifier> = before.iter().map(by_claim).collect();
        // In the request's order: a refusal names the first identifier that is not available.
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by_key(|entry| entry.index);
        for entry in entries {
            let identifier = &entry.identifier;
            match had.remove(&identifier.canonical.claim_bytes()) {
                None => take(draft, identifier, entry.index.unwrap_or_default())?,
                Some(had) if had.verification.is_some() != identifier.verification.is_some() => {
                    own_claim(draft, &identifier.canonical)?;
                    hold(draft, identifier);
                }
                Some(_) => {}
            }
        }
        for identifier in had.values() {
            give_up(draft, &identifier.canonical)?;
        }
        Ok(())
    }
}

impl Entry {
    /// Lower is a better candidate for primary.
    fn rank(&self) -> (u8, Millis) {
        let by_wish = match (self.wish, self.identifier.primary) {
            (Some(true), _) => 0,
            (None, true) => 1,
            (None, false) => 2,
            (Some(false), _) => 3,
        };
        (by_wish, self.identifier.create_time)
    }
}

fn take<V: View>(
    draft: &mut Draft<'_, V>,
    identifier: &Identifier,
    index: u32,
) -> Result<(), Stop<V::Error>> {
    let (account, log_clock) = (draft.request.account.clone(), draft.ctx.log_clock);
    match draft.claim(&identifier.canonical)? {
        Some(claim) if !claim.free_for(&account, log_clock) => {
            if matches!(claim.state, ClaimState::Quarantined { .. }) {
                reached!("claim.in-quarantine");
            }
            return Err(Stop::Refused(Refusal::IdentifierUnavailable {
                kind: identifier.canonical.kind,
                index,
            }));
        }
        Some(claim) if claim.owner == account => reached!("claim.taken-back"),
        Some(_) => reached!("claim.quarantine-over"),
        None => {}
    }
    hold(draft, identifier);
    Ok(())
}

fn hold<V: View>(draft: &mut Draft<'_, V>, identifier: &Identifier) {
    let state = ClaimState::Held {
        verified: identifier.verification.is_some(),
    };
    let claim = Claim {
        owner: draft.request.account.clone(),
        state,
    };
    draft.put(RowKey::Claim(identifier.canonical.clone()), Row::Claim(claim));
}

/// Leaves the claim in quarantine, or removes it where the realm has none.
fn give_up<V: View>(draft: &mut Draft<'_, V>, canonical: &CanonicalIdentifier) -> Result<(), Stop<V::Error>> {
    own_claim(draft, canonical)?;
    if planted!("claim-not-released") {
        return Ok(());
    }
    let key = RowKey::Claim(canonical.clone());
    match draft.ctx.realm.config.quarantine_ms {
        0 => draft.delete(key),
        quarantine_ms => {
            let state = ClaimState::Quarantined {
                until: draft.ctx.now.plus(quarantine_ms),
            };
            let claim = Claim {
                owner: draft.request.account.clone(),
                state,
            };
            draft.put(key, Row::Claim(claim));
        }
    }
    Ok(())
}

/// Reads the claim of an identifier that the account lists, and so must hold.
fn own_claim<V: View>(
    draft: &mut Draft<'_, V>,
    canonical: &CanonicalIdentifier,
) -> Result<(), Stop<V::Error>> {
    let account = draft.request.account.clone();
    match draft.claim(canonical)? {
        Some(Claim {
            owner,
            state: ClaimState::Held { .. },
        }) if owner == account => Ok(()),
        _ => Err(Stop::Inconsistent(format!(
            "account {account} lists an identifier of kind {} that it does not hold",
            canonical.kind.name()
        ))),
    }
}
