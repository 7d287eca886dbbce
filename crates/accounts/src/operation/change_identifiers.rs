//! ChangeIdentifiers: add, remove and replace, all or none.
//!
//! The changes happen as if at once. Since no identifier may occur in two of them, their order cannot matter,
//! save that a refusal names the first one that cannot be made.

use holdfast_types::{IdentifierKind, Refusal};

use crate::check::WantedChange;
use crate::draft::{Draft, Effect, Stop};
use crate::identifiers::List;
use crate::{ChangeIdentifiers, ChangeKind, View};

pub(crate) fn change_identifiers<V: View>(
    draft: &mut Draft<'_, V>,
    change: &ChangeIdentifiers,
) -> Result<Effect, Stop<V::Error>> {
    let changes = draft.check.changes(change);
    draft.check.finish()?;
    let before = super::changeable(draft, change.etag.as_deref())?;
    let now = draft.ctx.now;
    let unavailable = |kind: IdentifierKind, index| Refusal::IdentifierUnavailable { kind, index };
    let mut list = List::of(&before.identifiers);
    for change in changes {
        match change {
            WantedChange::Add(new) => {
                if list.contains(&new.canonical) {
                    return Err(Stop::Refused(unavailable(new.canonical.kind, new.index)));
                }
                list.push(new, None, now);
            }
            WantedChange::Remove { old, index } => {
                list.remove(&old).ok_or(Refusal::IdentifierNotFound { index })?;
            }
            WantedChange::Replace { old, new } => {
                let old = list
                    .remove(&old)
                    .ok_or(Refusal::IdentifierNotFound { index: new.index })?;
                if list.contains(&new.canonical) {
                    return Err(Stop::Refused(unavailable(new.canonical.kind, new.index)));
                }
                list.push(new, Some(old), now);
            }
        }
    }
    let mut after = before.clone();
    after.identifiers = list.finish(draft, &before.identifiers)?;
    Ok(Effect::new(ChangeKind::IdentifiersChanged, Some(before), after))
}
