//! Update: fields other than identifiers.

use holdfast_types::Refusal;

use crate::draft::{Draft, Effect, Stop};
use crate::limits::ATTRIBUTES_MAX;
use crate::{ChangeKind, Update, View};

pub(crate) fn update<V: View>(draft: &mut Draft<'_, V>, update: &Update) -> Result<Effect, Stop<V::Error>> {
    draft.check.update(update);
    draft.check.finish()?;
    let before = super::changeable(draft, update.etag.as_deref())?;
    let now = draft.ctx.now;
    let mut after = before.clone();
    if let Some(name) = &update.display_name {
        after.display_name.clone_from(name);
    }
    if let Some(locale) = &update.locale {
        after.locale.clone_from(locale);
    }
    if let Some(time_zone) = &update.time_zone {
        after.time_zone.clone_from(time_zone);
    }
    if let Some(labels) = &update.labels {
        after.labels.clone_from(labels);
    }
    if let Some(codes) = &update.restrictions {
        after.restrictions = super::restrictions(codes, &before.restrictions, now);
    }
    for name in &update.remove_attributes {
        after.attributes.remove(name);
    }
    after
        .attributes
        .extend(super::attributes(&update.set_attributes, now));
    if after.attributes.len() > ATTRIBUTES_MAX {
        return Err(Stop::Refused(Refusal::LimitExceeded {
            what: "attributes".into(),
            limit: ATTRIBUTES_MAX as u64,
            actual: after.attributes.len() as u64,
        }));
    }
    Ok(Effect::new(ChangeKind::Updated, Some(before), after))
}
