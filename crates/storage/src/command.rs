//! The stored form of a [`Command`]: a format byte, then `holdfast.storage.v1.Command`.
//!
//! These are the bytes that a leader proposes once and every replica keeps in its log. Decoding is strict:
//! a replica that skips what it does not know diverges from those that know it, so every surprise is an
//! error and the error is fatal.

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_machine::{Body, Command, Expect, FEATURE_LEVEL, Guard, Mutation, Write};
use holdfast_types::{Bucket, Family, Millis, ShardEpoch, Stamp};
use prost::Message;

use crate::proto;

/// The only format so far.
pub const FORMAT: u8 = 1;

/// The bytes are no command that this build can apply. Fatal: another replica may have managed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UndecodableCommand {
    /// The format byte is missing or of another release.
    #[error("a log entry has format {found:?}; this build knows format {FORMAT}")]
    Format {
        /// The byte found.
        found: Option<u8>,
    },
    /// The command needs a newer release.
    #[error(
        "a log entry needs feature level {level}, this build has {FEATURE_LEVEL}; install a newer release"
    )]
    Level {
        /// The level it needs.
        level: u32,
    },
    /// The body is damaged or of a kind this build does not know.
    #[error("a log entry cannot be read: {0}")]
    Body(String),
}

/// The bytes of a command.
pub fn encode(command: &Command) -> Bytes {
    use proto::command::Body as Kind;

    let body = match &command.body {
        Body::Mutate(mutation) => Kind::Mutate(mutation_to_proto(mutation)),
        Body::Tick => Kind::Tick(proto::Tick {}),
        Body::ExpireRequests { before, first, last } => Kind::ExpireRequests(proto::ExpireRequests {
            before_ms: before.0,
            first_bucket: first.0.into(),
            last_bucket: last.0.into(),
        }),
        Body::TrimChanges { index } => Kind::TrimChanges(proto::TrimChanges { index: *index }),
        Body::RaiseFeatureLevel { level } => {
            Kind::RaiseFeatureLevel(proto::RaiseFeatureLevel { level: *level })
        }
    };
    let message = proto::Command {
        level: command.body.level(),
        epoch: command.epoch.0,
        wall_ms: command.wall.0,
        body: Some(body),
    };
    let mut out = BytesMut::with_capacity(1 + message.encoded_len());
    out.put_u8(FORMAT);
    message.encode(&mut out).expect("a growing buffer has room");
    out.freeze()
}

/// Reads a command; its keys and bodies share the buffer.
pub fn decode(bytes: &Bytes) -> Result<Command, UndecodableCommand> {
    use proto::command::Body as Kind;

    match bytes.first() {
        Some(&FORMAT) => {}
        other => {
            return Err(UndecodableCommand::Format {
                found: other.copied(),
            });
        }
    }
    let message = proto::Command::decode(bytes.slice(1..)).map_err(|error| body(error.to_string()))?;
    if message.level > FEATURE_LEVEL {
        return Err(UndecodableCommand::Level { level: message.level });
    }
    let body = match message
        .body
        .ok_or_else(|| body("its kind is not known to this build"))?
    {
        Kind::Mutate(mutation) => Body::Mutate(mutation_from_proto(mutation)?),
        Kind::Tick(proto::Tick {}) => Body::Tick,
        Kind::ExpireRequests(expire) => Body::ExpireRequests {
            before: Millis(expire.before_ms),
            first: bucket(expire.first_bucket)?,
            last: bucket(expire.last_bucket)?,
        },
        Kind::TrimChanges(trim) => Body::TrimChanges { index: trim.index },
        Kind::RaiseFeatureLevel(raise) => Body::RaiseFeatureLevel { level: raise.level },
    };
    if message.level != body.level() {
        return Err(UndecodableCommand::Body(format!(
            "it says level {}, its kind needs {}",
            message.level,
            body.level()
        )));
    }
    Ok(Command {
        epoch: ShardEpoch(message.epoch),
        wall: Millis(message.wall_ms),
        body,
    })
}

fn body(what: impl Into<String>) -> UndecodableCommand {
    UndecodableCommand::Body(what.into())
}

fn mutation_to_proto(mutation: &Mutation) -> proto::Mutation {
    proto::Mutation {
        request_birth_ms: mutation.request_birth.map(|birth| birth.0),
        guards: mutation.guards.iter().map(guard_to_proto).collect(),
        writes: mutation.writes.iter().map(write_to_proto).collect(),
        events: mutation.events.clone(),
    }
}

fn mutation_from_proto(mutation: proto::Mutation) -> Result<Mutation, UndecodableCommand> {
    Ok(Mutation {
        request_birth: mutation.request_birth_ms.map(Millis),
        guards: mutation
            .guards
            .into_iter()
            .map(guard_from_proto)
            .collect::<Result<_, _>>()?,
        writes: mutation
            .writes
            .into_iter()
            .map(write_from_proto)
            .collect::<Result<_, _>>()?,
        events: mutation.events,
    })
}

fn guard_to_proto(guard: &Guard) -> proto::Guard {
    use proto::guard::Expect as Kind;
    proto::Guard {
        family: guard.family as i32,
        key: guard.key.clone(),
        expect: Some(match guard.expect {
            Expect::Absent => Kind::Absent(proto::Absent {}),
            Expect::Stamp(stamp) => Kind::Stamp(stamp.0),
        }),
    }
}

fn guard_from_proto(guard: proto::Guard) -> Result<Guard, UndecodableCommand> {
    use proto::guard::Expect as Kind;
    Ok(Guard {
        family: family(guard.family)?,
        key: guard.key,
        expect: match guard
            .expect
            .ok_or_else(|| body("a guard is of an unknown kind"))?
        {
            Kind::Absent(proto::Absent {}) => Expect::Absent,
            Kind::Stamp(stamp) => Expect::Stamp(Stamp(stamp)),
        },
    })
}

fn write_to_proto(write: &Write) -> proto::Write {
    use proto::write::Action;
    match write {
        Write::Put {
            family,
            key,
            key_id,
            body,
        } => proto::Write {
            family: *family as i32,
            key: key.clone(),
            action: Some(Action::Put(proto::Put {
                key_id: (*key_id).into(),
                body: body.clone(),
            })),
        },
        Write::Delete { family, key } => proto::Write {
            family: *family as i32,
            key: key.clone(),
            action: Some(Action::Delete(proto::Delete {})),
        },
    }
}

fn write_from_proto(write: proto::Write) -> Result<Write, UndecodableCommand> {
    use proto::write::Action;
    let family = family(write.family)?;
    let key = write.key;
    match write
        .action
        .ok_or_else(|| body("a write is of an unknown kind"))?
    {
        Action::Put(put) => {
            let key_id = u8::try_from(put.key_id)
                .map_err(|_| UndecodableCommand::Body(format!("{} is no key id", put.key_id)))?;
            Ok(Write::Put {
                family,
                key,
                key_id,
                body: put.body,
            })
        }
        Action::Delete(proto::Delete {}) => Ok(Write::Delete { family, key }),
    }
}

fn family(number: i32) -> Result<Family, UndecodableCommand> {
    u8::try_from(number)
        .ok()
        .and_then(Family::from_u8)
        .ok_or_else(|| UndecodableCommand::Body(format!("{number} is no family")))
}

fn bucket(number: u32) -> Result<Bucket, UndecodableCommand> {
    u16::try_from(number)
        .ok()
        .filter(|number| *number < Bucket::COUNT)
        .map(Bucket)
        .ok_or_else(|| UndecodableCommand::Body(format!("{number} is no bucket")))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn command(body: Body) -> Command {
        Command {
            epoch: ShardEpoch(1),
            wall: Millis(1_000),
            body,
        }
    }

    fn arbitrary_bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..20).prop_map(Bytes::from)
    }

    fn arbitrary_family() -> impl Strategy<Value = Family> {
        proptest::sample::select(Family::ALL.to_vec())
    }

    fn arbitrary_guard() -> impl Strategy<Value = Guard> {
        (arbitrary_family(), arbitrary_bytes(), any::<Option<u64>>()).prop_map(|(family, key, stamp)| Guard {
            family,
            key,
            expect: stamp.map_or(Expect::Absent, |stamp| Expect::Stamp(Stamp(stamp))),
        })
    }

    fn arbitrary_write() -> impl Strategy<Value = Write> {
        (
            arbitrary_family(),
            arbitrary_bytes(),
            any::<Option<u8>>(),
            arbitrary_bytes(),
        )
            .prop_map(|(family, key, put, body)| match put {
                Some(key_id) => Write::Put {
                    family,
                    key,
                    key_id,
                    body,
                },
                None => Write::Delete { family, key },
            })
    }

    fn arbitrary_body() -> impl Strategy<Value = Body> {
        let mutation = (
            any::<Option<u64>>(),
            vec(arbitrary_guard(), 0..4),
            vec(arbitrary_write(), 0..4),
            vec(arbitrary_bytes(), 0..3),
        )
            .prop_map(|(birth, guards, writes, events)| {
                Body::Mutate(Mutation {
                    request_birth: birth.map(Millis),
                    guards,
                    writes,
                    events,
                })
            });
        prop_oneof![
            4 => mutation,
            1 => Just(Body::Tick),
            1 => (any::<u64>(), 0..4096_u16, 0..4096_u16).prop_map(|(before, first, last)| {
                Body::ExpireRequests { before: Millis(before), first: Bucket(first), last: Bucket(last) }
            }),
            1 => any::<u64>().prop_map(|index| Body::TrimChanges { index }),
            1 => any::<u32>().prop_map(|level| Body::RaiseFeatureLevel { level }),
        ]
    }

    proptest! {
        #[test]
        fn round_trips(epoch: u64, wall: u64, body in arbitrary_body()) {
            let command = Command { epoch: ShardEpoch(epoch), wall: Millis(wall), body };
            prop_assert_eq!(decode(&encode(&command)), Ok(command));
        }

        #[test]
        fn damage_never_panics(bytes in vec(any::<u8>(), 0..200)) {
            let _ = decode(&Bytes::from(bytes));
        }
    }

    #[test]
    fn golden_bytes() {
        let mutation = Mutation {
            request_birth: Some(Millis(5)),
            guards: vec![
                Guard {
                    family: Family::Account,
                    key: Bytes::from_static(b"a"),
                    expect: Expect::Absent,
                },
                Guard {
                    family: Family::Claim,
                    key: Bytes::from_static(b"c"),
                    expect: Expect::Stamp(Stamp(0)),
                },
            ],
            writes: vec![
                Write::Put {
                    family: Family::Account,
                    key: Bytes::from_static(b"a"),
                    key_id: 0,
                    body: Bytes::from_static(b"x"),
                },
                Write::Delete {
                    family: Family::Due,
                    key: Bytes::from_static(b"d"),
                },
            ],
            events: vec![Bytes::from_static(b"e")],
        };
        let golden: &[u8] = &[
            1, // format
            8, 1, // level
            16, 1, // epoch
            24, 232, 7, // wall
            34, 44, // mutate
            8, 5, // request birth
            18, 7, 8, 1, 18, 1, b'a', 26, 0, // guard: absent
            18, 7, 8, 4, 18, 1, b'c', 32, 0, // guard: stamp 0, which is written although it is zero
            26, 10, 8, 1, 18, 1, b'a', 26, 3, 18, 1, b'x', // put
            26, 7, 8, 6, 18, 1, b'd', 34, 0, // delete
            34, 1, b'e', // event
        ];
        assert_eq!(&encode(&command(Body::Mutate(mutation)))[..], golden);
        assert_eq!(
            &encode(&command(Body::Tick))[..],
            &[1, 8, 1, 16, 1, 24, 232, 7, 42, 0]
        );
    }

    #[test]
    fn what_is_not_known_is_fatal() {
        assert_eq!(
            decode(&Bytes::new()),
            Err(UndecodableCommand::Format { found: None })
        );
        assert_eq!(
            decode(&Bytes::from_static(&[2, 8, 1])),
            Err(UndecodableCommand::Format { found: Some(2) })
        );
        // A kind of a later release: a oneof member with field number 9.
        let later = Bytes::from_static(&[1, 8, 1, 16, 1, 74, 0]);
        assert!(matches!(decode(&later), Err(UndecodableCommand::Body(_))));
        // A known kind that a later release gave a new meaning.
        let later = Bytes::from_static(&[1, 8, 2, 16, 1, 42, 0]);
        assert_eq!(decode(&later), Err(UndecodableCommand::Level { level: 2 }));
        // A guard, a write and a family of a later release.
        for entry in [
            &[1, 8, 1, 34, 6, 18, 4, 8, 1, 72, 1][..],
            &[1, 8, 1, 34, 6, 26, 4, 8, 1, 72, 1],
            &[1, 8, 1, 34, 6, 18, 4, 8, 99, 26, 0],
        ] {
            assert!(matches!(
                decode(&Bytes::copy_from_slice(entry)),
                Err(UndecodableCommand::Body(_))
            ));
        }
    }
}
