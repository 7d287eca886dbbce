//! Undelete: a deletion is taken back, as long as its purge is not due.

use holdfast_markers::reached;
use holdfast_types::{Deletion, Refusal};

use crate::draft::{Draft, Effect, Stop};
use crate::{ChangeKind, DueKey, RowKey, View};

pub(crate) fn undelete<V: View>(
    draft: &mut Draft<'_, V>,
    etag: Option<&str>,
) -> Result<Effect, Stop<V::Error>> {
    draft.check.finish()?;
    let before = super::existing(draft)?;
    let forbidden = Refusal::StateForbids {
        state: before.state(),
    };
    let purge_time = match before.deletion {
        // Once the purge is due it may happen at any moment: the promise has an exact end.
        Some(Deletion { purge_time, .. }) if draft.ctx.log_clock < purge_time => purge_time,
        Some(_) => {
            reached!("account.undelete-too-late");
            return Err(Stop::Refused(forbidden));
        }
        None => return Err(Stop::Refused(forbidden)),
    };
    super::check_etag(&before, etag)?;
    let mut after = before.clone();
    after.deletion = None;
    draft.delete(RowKey::Due(DueKey {
        deadline: purge_time,
        subject: before.id.clone(),
    }));
    Ok(Effect::new(ChangeKind::Undeleted, Some(before), after))
}
