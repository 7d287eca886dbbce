//! One story about the machine, told once with every rule in it.
//!
//! `story.txt` has a line for each command and below it the reply and the rows that changed. The tables are a
//! map in memory. If the story reads differently one day, replicas do something else with the same log.
//! `UPDATE_SCRIPTS=1 cargo test -p holdfast-machine` writes it anew.
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;

use bytes::Bytes;
use holdfast_machine::{
    ApplyError, Body, Command, Expect, FEATURE_LEVEL, Guard, Mutation, Reply, State, Tables, Write, apply,
    envelope, layout,
};
use holdfast_types::{Bucket, Family, Millis, ShardEpoch, ShardId, Stamp};

#[derive(Default, Clone, PartialEq, Debug)]
struct Memory(BTreeMap<(Family, Vec<u8>), Bytes>);

impl Tables for Memory {
    type Error = Infallible;

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Infallible> {
        Ok(self.0.get(&(family, key.to_vec())).cloned())
    }

    fn put(&mut self, family: Family, key: Bytes, value: Bytes) {
        self.0.insert((family, key.to_vec()), value);
    }

    fn delete(&mut self, family: Family, key: Bytes) {
        self.0.remove(&(family, key.to_vec()));
    }

    fn delete_range(&mut self, family: Family, from: Bytes, to: Bytes) {
        self.0
            .retain(|(row, key), _| *row != family || key[..] < from[..] || key[..] >= to[..]);
    }
}

/// A replica: its state, its rows, and what was told about it.
struct Replica {
    state: State,
    tables: Memory,
    index: u64,
    told: String,
}

impl Replica {
    fn new() -> Self {
        Replica {
            state: State::new(ShardId(1)),
            tables: Memory::default(),
            index: 0,
            told: String::new(),
        }
    }

    /// Applies the next entry and tells what came of it.
    fn apply(&mut self, what: &str, wall: u64, body: Body) {
        self.apply_at_epoch(what, self.state.epoch, wall, body);
    }

    fn apply_at_epoch(&mut self, what: &str, epoch: ShardEpoch, wall: u64, body: Body) {
        self.index += 1;
        let (state, tables) = (self.state.clone(), self.tables.clone());
        let command = Command {
            epoch,
            wall: Millis(wall),
            body,
        };
        let reply = apply(&mut self.state, &mut self.tables, self.index, &command).unwrap();
        assert!(
            self.state.stamp > state.stamp,
            "each entry has a stamp of its own, and a later one"
        );
        assert_ne!(self.state.digest, state.digest, "each entry is in the digest");
        if !matches!(reply, Reply::Applied { .. }) {
            assert_eq!(self.tables, tables, "anything but Applied leaves the rows alone");
        }
        writeln!(self.told, "{what}\n    {}", tell_reply(&reply)).unwrap();
        for (key, value) in self
            .tables
            .0
            .iter()
            .filter(|(key, value)| tables.0.get(*key) != Some(*value))
        {
            writeln!(self.told, "    {} = {}", tell_key(key), tell_value(value)).unwrap();
        }
        for key in tables.0.keys().filter(|key| !self.tables.0.contains_key(*key)) {
            writeln!(self.told, "    {} deleted", tell_key(key)).unwrap();
        }
    }

    fn stamp_of(&self, family: Family, key: &str) -> Stamp {
        let value = &self.tables.0[&(family, key.as_bytes().to_vec())];
        envelope::decode(value).unwrap().stamp
    }
}

fn tell_reply(reply: &Reply) -> String {
    match reply {
        Reply::Applied { stamp } => format!("applied at {}", tell_stamp(*stamp)),
        Reply::GuardFailed { guard } => format!("guard {guard} failed"),
        Reply::RequestExpired { floor } => format!("request expired, the floor is {}", floor.0),
        Reply::WrongEpoch { current } => format!("wrong epoch, it is {}", current.0),
    }
}

fn tell_key((family, key): &(Family, Vec<u8>)) -> String {
    match (family, layout::decode_change_key(key)) {
        (Family::Change, Some((shard, index, sequence))) => {
            format!("change shard {} entry {index} event {sequence}", shard.0)
        }
        (Family::Request, _) => {
            let bucket = u16::from_be_bytes([key[0], key[1]]);
            let birth = key[2..8]
                .iter()
                .fold(0_u64, |birth, byte| birth << 8 | u64::from(*byte));
            format!("request bucket {bucket} born {birth}")
        }
        _ => format!("{} {}", family.name(), String::from_utf8_lossy(key)),
    }
}

fn tell_value(value: &Bytes) -> String {
    let envelope = envelope::decode(value).unwrap();
    let key = match envelope.key_id {
        0 => String::new(),
        key_id => format!(" under key {key_id}"),
    };
    format!(
        "{:?} at {}{key}",
        String::from_utf8_lossy(&envelope.body),
        tell_stamp(envelope.stamp)
    )
}

/// Milliseconds and counter.
fn tell_stamp(stamp: Stamp) -> String {
    format!("{}.{}", stamp.millis().0, stamp.0 & 0xffff)
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(family: Family, key: &str, body: &str) -> Write {
    Write::Put {
        family,
        key: bytes(key),
        key_id: 0,
        body: bytes(body),
    }
}

fn delete(family: Family, key: &str) -> Write {
    Write::Delete {
        family,
        key: bytes(key),
    }
}

fn guard(family: Family, key: &str, expect: Expect) -> Guard {
    Guard {
        family,
        key: bytes(key),
        expect,
    }
}

/// A request record in the shape that the storage schema gives it.
fn record(bucket: u16, birth: u64) -> Write {
    let mut key = layout::request_birth_key(Bucket(bucket), Millis(birth)).to_vec();
    key.extend_from_slice(b"rest of the id");
    Write::Put {
        family: Family::Request,
        key: key.into(),
        key_id: 0,
        body: bytes("done"),
    }
}

fn writes(writes: Vec<Write>) -> Mutation {
    Mutation {
        writes,
        ..Mutation::default()
    }
}

fn guarded(guards: Vec<Guard>, writes: Vec<Write>) -> Body {
    Body::Mutate(Mutation {
        guards,
        writes,
        ..Mutation::default()
    })
}

fn born(birth: u64, writes: Vec<Write>) -> Body {
    Body::Mutate(Mutation {
        request_birth: Some(Millis(birth)),
        writes,
        ..Mutation::default()
    })
}

#[test]
fn story() {
    let mut replica = Replica::new();
    guards_and_stamps(&mut replica);
    expiry_of_requests(&mut replica);
    trimming_and_levels(&mut replica);

    if std::env::var_os("UPDATE_SCRIPTS").is_some() {
        std::fs::write(
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/story.txt"),
            &replica.told,
        )
        .unwrap();
    } else {
        assert_eq!(
            replica.told,
            include_str!("story.txt"),
            "the machine tells another story"
        );
    }
}

fn guards_and_stamps(replica: &mut Replica) {
    let (account, claim) = (Family::Account, Family::Claim);

    // An account and its claim come to be, guarded by their absence, with two events. One stamp for all.
    let email = Write::Put {
        family: claim,
        key: bytes("email"),
        key_id: 3,
        body: bytes("ann's"),
    };
    let create = Mutation {
        request_birth: Some(Millis(900)),
        guards: vec![
            guard(account, "ann", Expect::Absent),
            guard(claim, "email", Expect::Absent),
        ],
        writes: vec![put(account, "ann", "Ann"), email, record(5, 900)],
        events: vec![bytes("created"), bytes("claimed")],
    };
    replica.apply("create ann with her email", 1_000, Body::Mutate(create));

    // The second guard fails: nothing is written, not even the request record or the event.
    let again = Mutation {
        guards: vec![
            guard(claim, "other", Expect::Absent),
            guard(account, "ann", Expect::Absent),
        ],
        writes: vec![
            put(claim, "other", "ann's"),
            put(account, "ann", "Imposter"),
            record(5, 950),
        ],
        events: vec![bytes("created")],
        ..Mutation::default()
    };
    replica.apply("create ann again", 1_001, Body::Mutate(again));

    // A change guarded by what was read. The clock of the new leader is slow; stamps rise all the same.
    let read = replica.stamp_of(account, "ann");
    let rename = |key: &str, name: &str| {
        guarded(
            vec![guard(account, key, Expect::Stamp(read))],
            vec![put(account, key, name)],
        )
    };
    replica.apply(
        "rename ann, by a leader whose clock is slow",
        400,
        rename("ann", "Anne"),
    );
    replica.apply("rename ann by what was read before", 1_002, rename("ann", "Anna"));
    replica.apply("rename bob, who is not there", 1_003, rename("bob", "Bob"));

    // Delete and recreate with the same body, in the same millisecond: whoever read the first is not fooled.
    let read = replica.stamp_of(claim, "email");
    let give_up = guarded(
        vec![guard(claim, "email", Expect::Stamp(read))],
        vec![delete(claim, "email")],
    );
    replica.apply("delete the claim", 1_004, give_up.clone());
    let recreate = guarded(
        vec![guard(claim, "email", Expect::Absent)],
        vec![put(claim, "email", "ann's")],
    );
    replica.apply("recreate the claim", 1_004, recreate);
    replica.apply("delete the claim by what was read before", 1_004, give_up);

    // Deleting nothing is no mistake; a tick moves the clock and nothing else.
    let nothing = Body::Mutate(writes(vec![delete(claim, "nobody's")]));
    replica.apply("delete a row that is not there", 1_005, nothing);
    replica.apply("tick", 5_000, Body::Tick);
}

fn expiry_of_requests(replica: &mut Replica) {
    // Records go by birth, in the buckets that are swept; the floor holds for all buckets at once.
    for (bucket, birth) in [(4, 5_000), (5, 5_999), (5, 6_000), (6, 5_000)] {
        replica.apply("a request runs", 5_001, born(birth, vec![record(bucket, birth)]));
    }
    let expire = |before, first, last| Body::ExpireRequests {
        before: Millis(before),
        first: Bucket(first),
        last: Bucket(last),
    };
    replica.apply(
        "expire requests born before 6000 in buckets 4 and 5",
        9_000,
        expire(6_000, 4, 5),
    );
    let late = || vec![put(Family::Account, "late", "Late")];
    replica.apply("a request born before the floor", 9_001, born(5_999, late()));
    replica.apply("a request born at the floor", 9_002, born(6_000, late()));
    replica.apply(
        "a mutation without a request",
        9_003,
        Body::Mutate(writes(late())),
    );

    // A later sweep with an older bound does not lower the floor.
    replica.apply(
        "expire requests born before 5500 in bucket 6",
        9_004,
        expire(5_500, 6, 6),
    );
    replica.apply(
        "a request born before the floor, still",
        9_005,
        born(5_999, late()),
    );
}

fn trimming_and_levels(replica: &mut Replica) {
    // The change log is trimmed from its start; its floor only rises.
    let event = Mutation {
        events: vec![bytes("renamed")],
        ..Mutation::default()
    };
    replica.apply("an event", 9_006, Body::Mutate(event));
    let event_index = replica.index;
    replica.apply(
        "trim changes before entry 2",
        9_007,
        Body::TrimChanges { index: 2 },
    );
    replica.apply(
        "trim changes before entry 1",
        9_008,
        Body::TrimChanges { index: 1 },
    );
    assert_eq!(replica.state.change_floor, 2);
    replica.apply(
        "trim changes before the event's entry",
        9_009,
        Body::TrimChanges { index: event_index },
    );
    assert_eq!(replica.state.change_floor, event_index);

    // A command of another epoch does nothing, but it is in the log, so it has a stamp and is in the digest.
    let late = || Body::Mutate(writes(vec![put(Family::Account, "late", "Later")]));
    replica.apply_at_epoch("a mutation of the last epoch", ShardEpoch(0), 9_010, late());
    replica.apply_at_epoch("a tick of the next epoch", ShardEpoch(2), 9_011, Body::Tick);

    // The feature level never falls.
    let raise = |level| Body::RaiseFeatureLevel { level };
    replica.apply(
        "raise the feature level to this build's",
        9_012,
        raise(FEATURE_LEVEL),
    );
    replica.apply("raise the feature level to 0", 9_013, raise(0));
    assert_eq!(replica.state.feature_level, FEATURE_LEVEL);
}

/// A level above the build's is fatal and not a reply: another replica may know it.
#[test]
fn an_unknown_feature_level_stops_the_node() {
    let body = Body::RaiseFeatureLevel {
        level: FEATURE_LEVEL + 1,
    };
    let command = Command {
        epoch: ShardEpoch(1),
        wall: Millis(1),
        body,
    };
    let result = apply(&mut State::new(ShardId(1)), &mut Memory::default(), 1, &command);
    assert!(matches!(result, Err(ApplyError::FeatureLevel { level }) if level == FEATURE_LEVEL + 1));
}

/// A row that a guard cannot read is damage, not a guard that failed.
#[test]
fn a_damaged_row_stops_the_node() {
    let mut tables = Memory::default();
    tables.put(Family::Account, bytes("ann"), bytes("no envelope"));
    let body = guarded(
        vec![guard(Family::Account, "ann", Expect::Stamp(Stamp(1)))],
        vec![],
    );
    let command = Command {
        epoch: ShardEpoch(1),
        wall: Millis(1),
        body,
    };
    let result = apply(&mut State::new(ShardId(1)), &mut tables, 1, &command);
    assert!(matches!(result, Err(ApplyError::Envelope(_))));
}

/// Two replicas that apply the same entries have the same digest; any difference between entries shows.
#[test]
fn digests_agree_and_differ() {
    let run = |mutation: &Mutation, wall: u64| {
        let mut replica = Replica::new();
        replica.apply("", wall, Body::Mutate(mutation.clone()));
        replica.apply("", wall, Body::Tick);
        replica.state.digest
    };
    let base = Mutation {
        writes: vec![
            put(Family::Account, "ann", "Ann"),
            put(Family::Claim, "email", "ann's"),
        ],
        events: vec![bytes("created")],
        ..Mutation::default()
    };
    let digest = run(&base, 1);
    assert_eq!(digest, run(&base, 1));
    assert_ne!(digest, run(&base, 2), "time");
    type Change = fn(&mut Mutation);
    let changes: [(&str, Change); 6] = [
        ("a body", |mutation| {
            mutation.writes[1] = put(Family::Claim, "email", "bob's")
        }),
        ("where the key ends", |mutation| {
            mutation.writes[0] = put(Family::Account, "an", "nAnn")
        }),
        ("a delete", |mutation| {
            mutation.writes[1] = delete(Family::Claim, "email")
        }),
        ("a family", |mutation| {
            mutation.writes[0] = put(Family::Due, "ann", "Ann")
        }),
        ("an event", |mutation| mutation.events[0] = bytes("updated")),
        ("the outcome", |mutation| {
            mutation.guards = vec![guard(Family::Due, "x", Expect::Stamp(Stamp(1)))]
        }),
    ];
    for (what, change) in changes {
        let mut mutation = base.clone();
        change(&mut mutation);
        assert_ne!(digest, run(&mutation, 1), "{what}");
    }
}
