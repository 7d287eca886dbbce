//! Import steps and checkpoints, as the leader carries them out.
//!
//! A request id is only good for the request window, but an import may take longer. So its items are divided
//! into *segments*, each with a birth of its own for the request ids of its items; the progress row remembers
//! them, so that an item sent again is given the same id. A new segment begins above every index that may have
//! been tried (`reserved_through_index`), so no item ever changes segment while its record is remembered.
//!
//! Only an import that lay still for most of a window is different: what had been tried behind its position
//! cannot be recognised any more. Those items get new request ids; their account ids do not depend on the
//! birth, so they cannot be created twice, but they may be reported as existing.

use std::sync::Arc;

use holdfast_machine::Expect;
use holdfast_markers::reached;
use holdfast_storage::schema::import::{self as row, ImportProgress, ImportSegment};
use holdfast_types::{Millis, RequestId};
use holdfast_wire::convert::{accounts, import};
use holdfast_wire::internal::{self, ImportCheckpoint, ImportState, ImportStep};
use holdfast_wire::status::{Problem, Reason};
use holdfast_wire::v1;
use tonic::Code;

use super::mutations::{carry_out, room_to_grow};
use crate::admission::Permit;
use crate::call::Call;
use crate::core::Core;
use crate::driver::{self, Action, Settled, propose, settled, unreadable};
use crate::failure::Failure;
use crate::realms;
use crate::router::Mutation;

/// How often a checkpoint is tried against a concurrent one.
const ATTEMPTS: u32 = 5;
/// Segments remembered; with the default window they reach back over a day.
const SEGMENTS_MAX: usize = 64;

impl Mutation for ImportStep {
    type Response = v1::ImportItemResult;
    const NAME: &'static str = "holdfast.internal.v1.ImportStep";
    const REPEATABLE: bool = true;

    async fn run(
        self,
        core: &Arc<Core>,
        call: &Call,
        permit: Option<Arc<Permit>>,
    ) -> Result<v1::ImportItemResult, Failure> {
        room_to_grow(core)?;
        let mode = self.mode;
        let options = import::options(v1::ImportOptions {
            parent: self.parent,
            import_id: self.import_id,
            mode,
            context: self.context,
        })?;
        let item = self.item.unwrap_or_default();
        let index = item.index;
        let mutation = import::item(&options, Millis(self.birth_ms), item);
        let carried_out = async { carry_out(core, mutation?, call, permit).await };
        match carried_out.await {
            Ok((realm, done)) => {
                let action = match done.action {
                    Action::Created => v1::ImportAction::Created,
                    Action::Updated => v1::ImportAction::Updated,
                    Action::Skipped => v1::ImportAction::Skipped,
                };
                Ok(v1::ImportItemResult {
                    index,
                    action: action.into(),
                    name: accounts::account_name(&realm, &done.account.id),
                    revision: done.revision,
                    ..v1::ImportItemResult::default()
                })
            }
            Err(Failure::Here(problem)) if is_final(&problem) => Ok(import::rejected(index, &problem)),
            Err(failure) => Err(failure),
        }
    }
}

/// Whether a problem is the item's own, so that trying again would say the same.
fn is_final(problem: &Problem) -> bool {
    let own = matches!(
        problem.code(),
        Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition
    );
    // An expired id says nothing about the item: the stream ends, and a resumed one gives it a new birth.
    own && !matches!(problem.reason, Reason::RealmNotFound | Reason::RequestIdExpired)
}

impl Mutation for ImportCheckpoint {
    type Response = ImportState;
    const NAME: &'static str = "holdfast.internal.v1.ImportCheckpoint";
    const REPEATABLE: bool = true;

    async fn run(
        self,
        core: &Arc<Core>,
        call: &Call,
        _permit: Option<Arc<Permit>>,
    ) -> Result<ImportState, Failure> {
        let options = import::options(v1::ImportOptions {
            parent: self.parent.clone(),
            import_id: self.import_id.clone(),
            mode: v1::ImportMode::Create.into(),
            context: None,
        })?;
        for _ in 0..ATTEMPTS {
            let term = driver::leading(core)?;
            let view = core.group.view();
            let realm = &realms::by_name(core, &view, &options.realm)?.value;
            let found = row::read(&*view, realm, options.import_id, &call.caller);
            let found = found.map_err(|error| unreadable(core, &error))?;
            let now = core.clock.now().max(core.group.state().stamp.millis());
            let window_ms = realm.config.request_window_ms;
            let before = found.as_ref().map(|found| &found.value);
            import::same_mode(before.and_then(|before| before.mode), import::mode(self.mode()))?;
            let progress = advanced(before, options.import_id, &self, now, window_ms);
            if before.is_some_and(|before| same(before, &progress)) {
                return Ok(state(&progress));
            }
            let expect = found
                .as_ref()
                .map_or(Expect::Absent, |found| Expect::Stamp(found.stamp));
            let mutation = row::mutation(realm, options.import_id, &call.caller, &progress, expect);
            match settled(propose(core, mutation, term, ()).await)? {
                Settled::Applied { .. } => return Ok(state(&progress)),
                Settled::LookAgain => reached!("import.position-contended"),
            }
        }
        Err(Failure::new(
            Reason::Contention,
            "several streams of this import keep moving its position",
        ))
    }
}

/// The progress after a checkpoint.
fn advanced(
    before: Option<&ImportProgress>,
    import: RequestId,
    checkpoint: &ImportCheckpoint,
    now: Millis,
    window_ms: u64,
) -> ImportProgress {
    let Some(before) = before else {
        // A young import's items are born with it.
        let young = import.birth().plus(window_ms / 2) > now && import.birth() <= now;
        let birth = if young { import.birth() } else { now };
        return ImportProgress {
            resume_after_index: checkpoint.resume_after_index,
            reserved_through_index: checkpoint.reserve_through_index,
            segments: vec![ImportSegment { from_index: 1, birth }],
            update_time: now,
            mode: import::mode(checkpoint.mode()),
        };
    };
    let mut progress = ImportProgress {
        resume_after_index: before.resume_after_index.max(checkpoint.resume_after_index),
        reserved_through_index: before
            .reserved_through_index
            .max(checkpoint.reserve_through_index),
        segments: before.segments.clone(),
        update_time: now,
        mode: before.mode,
    };
    let age_ms =
        |segment: Option<&ImportSegment>| now.0.saturating_sub(segment.map_or(0, |segment| segment.birth.0));
    let in_use = progress
        .segments
        .iter()
        .rev()
        .find(|segment| segment.from_index <= progress.resume_after_index + 1);
    // A quarter of the window is left for what was tried already under the segment in use. A slow import gets
    // here with most of its reservation untried: that must not wait for a birth to expire.
    let from_index = if age_ms(in_use) >= window_ms / 4 * 3 {
        Some(progress.resume_after_index + 1)
    } else if age_ms(progress.segments.last()) >= window_ms / 2 {
        Some(before.reserved_through_index + 1)
    } else {
        None
    };
    if let Some(from_index) = from_index {
        reached!("import.new-segment");
        progress
            .segments
            .retain(|segment| segment.from_index < from_index);
        progress.segments.push(ImportSegment {
            from_index,
            birth: now,
        });
        let surplus = progress.segments.len().saturating_sub(SEGMENTS_MAX);
        progress.segments.drain(..surplus);
    }
    progress
}

/// Whether storing the one over the other would change nothing that matters.
fn same(before: &ImportProgress, after: &ImportProgress) -> bool {
    (
        before.resume_after_index,
        before.reserved_through_index,
        &before.segments,
    ) == (
        after.resume_after_index,
        after.reserved_through_index,
        &after.segments,
    )
}

fn state(progress: &ImportProgress) -> ImportState {
    ImportState {
        resume_after_index: progress.resume_after_index,
        reserved_through_index: progress.reserved_through_index,
        segments: progress
            .segments
            .iter()
            .map(|segment| internal::ImportSegment {
                from_index: segment.from_index,
                birth_ms: segment.birth.0,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 1_000;

    fn checkpoint(resume_after_index: u64, reserve_through_index: u64) -> ImportCheckpoint {
        ImportCheckpoint {
            resume_after_index,
            reserve_through_index,
            ..ImportCheckpoint::default()
        }
    }

    fn births(progress: &ImportProgress) -> Vec<(u64, u64)> {
        progress
            .segments
            .iter()
            .map(|segment| (segment.from_index, segment.birth.0))
            .collect()
    }

    #[test]
    fn no_item_changes_segment_while_its_record_is_remembered() {
        let import = RequestId::from_parts(Millis(10_000), [0; 10]);
        // Begun at once: the items are born with the import.
        let first = advanced(None, import, &checkpoint(0, 100), Millis(10_100), WINDOW);
        assert_eq!(births(&first), [(1, 10_000)]);
        // Positions never go back.
        let second = advanced(Some(&first), import, &checkpoint(50, 20), Millis(10_200), WINDOW);
        assert_eq!(
            (second.resume_after_index, second.reserved_through_index),
            (50, 100)
        );
        assert_eq!(births(&second), [(1, 10_000)]);
        // Half a window later a new segment begins above everything that may have been tried.
        let third = advanced(
            Some(&second),
            import,
            &checkpoint(60, 200),
            Millis(10_600),
            WINDOW,
        );
        assert_eq!(births(&third), [(1, 10_000), (101, 10_600)]);
        // After a long rest what was tried cannot be recognised: the segment begins behind the position.
        let fourth = advanced(Some(&third), import, &checkpoint(0, 300), Millis(99_000), WINDOW);
        assert_eq!(births(&fourth), [(1, 10_000), (61, 99_000)]);
    }

    #[test]
    fn a_slow_import_outlives_its_births() {
        let import = RequestId::from_parts(Millis(0), [0; 10]);
        let mut progress = advanced(None, import, &checkpoint(0, 20_000), Millis(0), WINDOW);
        for item in 1..100_u64 {
            let now = Millis(item * WINDOW / 10);
            let segment = progress
                .segments
                .iter()
                .rev()
                .find(|segment| segment.from_index <= item);
            let age_ms = now.0 - segment.unwrap().birth.0;
            assert!(
                age_ms < WINDOW,
                "item {item} would be tried with an id of {age_ms} ms"
            );
            progress = advanced(
                Some(&progress),
                import,
                &checkpoint(item, item + 20_000),
                now,
                WINDOW,
            );
        }
    }

    #[test]
    fn an_old_import_id_is_no_obstacle() {
        let import = RequestId::from_parts(Millis(5), [0; 10]);
        let begun = advanced(None, import, &checkpoint(0, 100), Millis(10_000), WINDOW);
        assert_eq!(births(&begun), [(1, 10_000)]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let import = RequestId::from_parts(Millis(0), [0; 10]);
        let mut progress = advanced(None, import, &checkpoint(0, 1), Millis(0), WINDOW);
        for round in 1..500_u64 {
            let moved = checkpoint(round * 10, round * 10 + 5);
            progress = advanced(Some(&progress), import, &moved, Millis(round * 600), WINDOW);
        }
        assert_eq!(progress.segments.len(), SEGMENTS_MAX);
        assert!(progress.segments.is_sorted_by(|a, b| a.from_index < b.from_index));
    }
}
