//! Purge: what is personal goes, a tombstone stays so that the id is never used again, and the identifiers'
//! claims go into quarantine.
//!
//! Sent for a deadline that fell due. Its row is read and guarded, so a purge that is sent twice happens once.

use std::collections::BTreeMap;

use holdfast_markers::reached;
use holdfast_types::{Account, AccountState, Deletion, Millis, Refusal};

use crate::draft::{Draft, Effect, Stop};
use crate::identifiers::List;
use crate::{ChangeKind, DueAction, DueKey, RowKey, View};

pub(crate) fn purge<V: View>(draft: &mut Draft<'_, V>, deadline: Millis) -> Result<Effect, Stop<V::Error>> {
    draft.check.finish()?;
    let before = super::existing(draft)?;
    let due = DueKey {
        deadline,
        subject: before.id.clone(),
    };
    let planned = matches!(draft.due(due.clone())?, Some(DueAction::PurgeAccount));
    if !planned || draft.ctx.log_clock < deadline {
        reached!("account.purge-not-due-any-more");
        return Err(Stop::Refused(Refusal::StateForbids {
            state: before.state(),
        }));
    }
    if before.state() != AccountState::PendingDeletion {
        return Err(Stop::Inconsistent(format!(
            "account {} is to be purged but is not deleted",
            before.id
        )));
    }
    let deletion = before.deletion.map(|deletion| Deletion {
        purged: true,
        ..deletion
    });
    let after = Account {
        id: before.id.clone(),
        revision: before.revision,
        display_name: String::new(),
        locale: String::new(),
        time_zone: String::new(),
        identifiers: List::default().finish(draft, &before.identifiers)?,
        attributes: BTreeMap::new(),
        labels: BTreeMap::new(),
        restrictions: Vec::new(),
        deletion,
        create_time: before.create_time,
        update_time: before.update_time,
    };
    draft.delete(RowKey::Due(due));
    Ok(Effect::new(ChangeKind::Purged, Some(before), after))
}
