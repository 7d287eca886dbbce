//! Delete: the account waits for its purge. It keeps its identifiers, so that undoing it always works.

use holdfast_types::Deletion;

use crate::draft::{Draft, Effect, Stop};
use crate::{ChangeKind, DueAction, DueKey, Row, RowKey, View};

pub(crate) fn delete<V: View>(
    draft: &mut Draft<'_, V>,
    etag: Option<&str>,
) -> Result<Effect, Stop<V::Error>> {
    draft.check.finish()?;
    let before = super::changeable(draft, etag)?;
    let now = draft.ctx.now;
    let purge_time = now.plus(draft.ctx.realm.config.deletion_grace_ms);
    let mut after = before.clone();
    after.deletion = Some(Deletion {
        request_time: now,
        purge_time,
        purged: false,
    });
    let due = DueKey {
        deadline: purge_time,
        subject: before.id.clone(),
    };
    draft.put(RowKey::Due(due), Row::Due(DueAction::PurgeAccount));
    Ok(Effect::new(ChangeKind::DeletionRequested, Some(before), after))
}
