//! Create: an account comes to be, under an id that was never used before.

use holdfast_markers::reached;
use holdfast_types::{Account, AccountState, FieldViolation, Refusal, Rejection};

use crate::check::Wanted;
use crate::draft::{Draft, Effect, Stop};
use crate::identifiers::List;
use crate::size::record_bytes;
use crate::{ChangeKind, NewAccount, View};

pub(crate) fn create<V: View>(draft: &mut Draft<'_, V>, new: &NewAccount) -> Result<Effect, Stop<V::Error>> {
    let identifiers = draft.check.account(new);
    draft.check.finish()?;
    if let Some(found) = draft.account()? {
        if found.state() == AccountState::Deleted {
            reached!("account.id-of-tombstone-refused");
        }
        return Err(Stop::Refused(Refusal::AccountExists));
    }
    bring_into_being(draft, new, identifiers)
}

/// The effect of a create whose id was found to be free.
pub(super) fn bring_into_being<V: View>(
    draft: &mut Draft<'_, V>,
    new: &NewAccount,
    identifiers: Vec<Wanted<'_>>,
) -> Result<Effect, Stop<V::Error>> {
    let now = draft.ctx.now;
    let mut list = List::default();
    for wanted in identifiers {
        list.push(wanted, None, now);
    }
    let account = Account {
        id: draft.request.account.clone(),
        revision: 0,
        display_name: new.display_name.clone(),
        locale: new.locale.clone(),
        time_zone: new.time_zone.clone(),
        identifiers: list.finish(draft, &[])?,
        attributes: super::attributes(&new.attributes, now),
        labels: new.labels.clone(),
        restrictions: super::restrictions(&new.restrictions, &[], now),
        deletion: None,
        create_time: now,
        update_time: now,
    };
    // Here the size follows from the request alone, so this is the caller's mistake and not a refusal.
    let (size, limit) = (
        record_bytes(&account),
        u64::from(draft.ctx.realm.config.max_record_bytes),
    );
    if size > limit {
        let too_large = format!("a record has at most {limit} bytes, this one would have {size}");
        return Err(Stop::Rejected(Rejection::Invalid(vec![FieldViolation::new(
            "account", too_large,
        )])));
    }
    Ok(Effect::new(ChangeKind::Created, None, account))
}
