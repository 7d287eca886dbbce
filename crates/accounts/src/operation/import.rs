//! Import: one item of an import, as a create, as a replacement, or not at all if the account is there.

use holdfast_types::{Account, AccountState, Refusal};

use crate::draft::{Draft, Effect, Stop};
use crate::identifiers::List;
use crate::operation::create::bring_into_being;
use crate::{ChangeKind, ImportMode, NewAccount, View};

pub(crate) fn import<V: View>(
    draft: &mut Draft<'_, V>,
    mode: ImportMode,
    new: &NewAccount,
) -> Result<Effect, Stop<V::Error>> {
    let identifiers = draft.check.account(new);
    draft.check.finish()?;
    let Some(found) = draft.account()? else {
        return bring_into_being(draft, new, identifiers);
    };
    match mode {
        ImportMode::Create => return Err(Stop::Refused(Refusal::AccountExists)),
        _ if found.state() == AccountState::Deleted => return Err(Stop::Refused(Refusal::AccountPurged)),
        ImportMode::Skip => return Ok(Effect::none(found)),
        ImportMode::Upsert => super::require_changeable(&found)?,
    }
    let now = draft.ctx.now;
    let mut had = List::of(&found.identifiers);
    let mut list = List::default();
    for wanted in identifiers {
        let before = had.remove(&wanted.canonical);
        list.push(wanted, before, now);
    }
    let after = Account {
        display_name: new.display_name.clone(),
        locale: new.locale.clone(),
        time_zone: new.time_zone.clone(),
        identifiers: list.finish(draft, &found.identifiers)?,
        attributes: super::attributes(&new.attributes, now),
        labels: new.labels.clone(),
        restrictions: super::restrictions(&new.restrictions, &found.restrictions, now),
        ..found.clone()
    };
    Ok(Effect::new(ChangeKind::Updated, Some(found), after))
}
