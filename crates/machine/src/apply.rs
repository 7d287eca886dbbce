//! Applying one command.

use bytes::Bytes;
use holdfast_markers::reached;
use holdfast_types::{Bucket, Family, Millis, ShardEpoch, Stamp};
use xxhash_rust::xxh3::Xxh3;

use crate::{Body, Command, Expect, FEATURE_LEVEL, Guard, Mutation, State, Tables, Write, envelope, layout};

/// What applying a command came to. Everything but [`Reply::Applied`] left the rows as they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done, with this stamp on every row written.
    Applied {
        /// The entry's stamp.
        stamp: Stamp,
    },
    /// A guard did not hold: someone else wrote first. Evaluate again.
    GuardFailed {
        /// The guard's place in the command.
        guard: u32,
    },
    /// The request id was born before the floor, so its record may be gone. Never run it.
    RequestExpired {
        /// The floor.
        floor: Millis,
    },
    /// The shard has another epoch. Look up the shard map again.
    WrongEpoch {
        /// The shard's epoch.
        current: ShardEpoch,
    },
}

/// Why a command could not be applied at all. The node must stop: another replica may have managed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError<E> {
    /// Reading a row failed.
    #[error("reading state failed: {0}")]
    Tables(E),
    /// A row's frame is damaged.
    #[error(transparent)]
    Envelope(#[from] envelope::UnknownEnvelope),
    /// The cluster agreed on a feature level above this build's.
    #[error(
        "the cluster runs at feature level {level}, this build knows up to {FEATURE_LEVEL}; install a newer release"
    )]
    FeatureLevel {
        /// The level.
        level: u32,
    },
}

/// Applies `command`, committed at log index `index`, to `tables`.
///
/// The caller saves `state` in the same atomic batch as the rows.
pub fn apply<T: Tables>(
    state: &mut State,
    tables: &mut T,
    index: u64,
    command: &Command,
) -> Result<Reply, ApplyError<T::Error>> {
    let stamp = state.stamp.next(command.wall);
    state.stamp = stamp;
    if stamp.millis() > command.wall {
        reached!("machine.wall-behind-log-clock");
    }
    let reply = if command.epoch == state.epoch {
        match &command.body {
            Body::Mutate(mutation) => mutate(state, tables, index, stamp, mutation)?,
            Body::Tick => Reply::Applied { stamp },
            Body::ExpireRequests { before, first, last } => {
                expire_requests(state, tables, *before, *first, *last);
                Reply::Applied { stamp }
            }
            Body::TrimChanges { index } => {
                trim_changes(state, tables, *index);
                Reply::Applied { stamp }
            }
            Body::RaiseFeatureLevel { level } => {
                if *level > FEATURE_LEVEL {
                    return Err(ApplyError::FeatureLevel { level: *level });
                }
                state.feature_level = state.feature_level.max(*level);
                Reply::Applied { stamp }
            }
        }
    } else {
        Reply::WrongEpoch { current: state.epoch }
    };
    extend_digest(state, index, command, &reply);
    Ok(reply)
}

fn mutate<T: Tables>(
    state: &State,
    tables: &mut T,
    index: u64,
    stamp: Stamp,
    mutation: &Mutation,
) -> Result<Reply, ApplyError<T::Error>> {
    if mutation
        .request_birth
        .is_some_and(|birth| birth < state.request_floor)
    {
        reached!("machine.request-below-floor");
        return Ok(Reply::RequestExpired {
            floor: state.request_floor,
        });
    }
    for (at, guard) in mutation.guards.iter().enumerate() {
        if !holds(tables, guard)? {
            reached!("machine.guard-failed");
            return Ok(Reply::GuardFailed { guard: at as u32 });
        }
    }
    for write in &mutation.writes {
        match write {
            Write::Put {
                family,
                key,
                key_id,
                body,
            } => {
                tables.put(*family, key.clone(), envelope::encode(*key_id, stamp, body));
            }
            Write::Delete { family, key } => tables.delete(*family, key.clone()),
        }
    }
    for (sequence, event) in mutation.events.iter().enumerate() {
        let key = layout::change_key(state.shard, index, sequence as u32);
        tables.put(Family::Change, key, envelope::encode(0, stamp, event));
    }
    Ok(Reply::Applied { stamp })
}

fn holds<T: Tables>(tables: &T, guard: &Guard) -> Result<bool, ApplyError<T::Error>> {
    let value = tables.get(guard.family, &guard.key).map_err(ApplyError::Tables)?;
    Ok(match (&guard.expect, value) {
        (Expect::Absent, None) => true,
        (Expect::Stamp(stamp), Some(value)) => envelope::decode(&value)?.stamp == *stamp,
        _ => false,
    })
}

fn expire_requests<T: Tables>(
    state: &mut State,
    tables: &mut T,
    before: Millis,
    first: Bucket,
    last: Bucket,
) {
    reached!("machine.requests-expired");
    state.request_floor = state.request_floor.max(before);
    for bucket in first.0..=last.0 {
        let bucket = Bucket(bucket);
        tables.delete_range(
            Family::Request,
            layout::request_birth_key(bucket, Millis(0)),
            layout::request_birth_key(bucket, before),
        );
    }
}

fn trim_changes<T: Tables>(state: &mut State, tables: &mut T, index: u64) {
    if index > state.change_floor {
        reached!("machine.changes-trimmed");
        let from = layout::change_key(state.shard, state.change_floor, 0);
        tables.delete_range(Family::Change, from, layout::change_key(state.shard, index, 0));
        state.change_floor = index;
    }
}

/// Chains the entry's index, stamp, outcome and rows into the digest. It is there to notice accidents, so a fast hash will do.
fn extend_digest(state: &mut State, index: u64, command: &Command, reply: &Reply) {
    let mut hasher = Xxh3::new();
    hasher.update(&state.digest);
    hasher.update(&index.to_be_bytes());
    hasher.update(&state.stamp.0.to_be_bytes());
    match reply {
        Reply::Applied { .. } => hasher.update(&[1]),
        Reply::GuardFailed { guard } => {
            hasher.update(&[2]);
            hasher.update(&guard.to_be_bytes());
        }
        Reply::RequestExpired { floor } => {
            hasher.update(&[3]);
            hasher.update(&floor.0.to_be_bytes());
        }
        Reply::WrongEpoch { current } => {
            hasher.update(&[4]);
            hasher.update(&current.0.to_be_bytes());
        }
    }
    if let (Reply::Applied { .. }, Body::Mutate(mutation)) = (reply, &command.body) {
        let mut field = |family: u8, bytes: &Bytes| {
            hasher.update(&[family]);
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        for write in &mutation.writes {
            match write {
                Write::Put {
                    family, key, body, ..
                } => {
                    field(*family as u8, key);
                    field(0, body);
                }
                Write::Delete { family, key } => field(*family as u8 | 0x80, key),
            }
        }
        for event in &mutation.events {
            field(Family::Change as u8, event);
        }
    }
    hasher.update(&state.request_floor.0.to_be_bytes());
    hasher.update(&state.change_floor.to_be_bytes());
    state.digest = hasher.digest128().to_be_bytes();
}
