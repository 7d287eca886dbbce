//! What the benchmarks share: a realm, requests, and a leader's work without a network or a disk.
//!
//! `cargo xtask bench` runs them. `write_path` times the parts of a write that the processor pays for:
//! normalising, evaluating, encoding, decoding, applying; `engine` the storage engine on a real directory; `consensus` one node's Raft
//! on it: entries appended and applied, barriers passed. Networks are measured on whole clusters.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_accounts::{
    Context, Evaluation, NewAccount, NewIdentifier, Operation, Request, Versioned, evaluate,
};
use holdfast_machine::{Body, Command, Expect, Mutation, Reply, State, apply};
use holdfast_storage::engine::{Batch, Engine};
use holdfast_storage::faulty::{FaultyDisk, FaultyEngine};
use holdfast_storage::overlay::Staged;
use holdfast_storage::{command, schema};
use holdfast_types::{
    AccountId, Actor, Caller, ClaimKey, IdentifierKind, Millis, Realm, RealmConfig, RealmId, RealmNumber,
    RequestId, ShardEpoch, ShardId, Stamp,
};

/// When everything happens.
pub const NOW: Millis = Millis(1_790_000_000_000);

/// One shard on the engine in memory, with the default realm's rules.
pub struct Shard {
    engine: FaultyEngine,
    realm: Arc<Versioned<Realm>>,
    state: State,
    index: u64,
}

impl Default for Shard {
    fn default() -> Self {
        let realm = Realm {
            id: RealmId::default_realm(),
            number: RealmNumber(1),
            slot_key: [7; 32],
            claim_keys: vec![ClaimKey { id: 1, key: [9; 32] }],
            config: RealmConfig::default(),
            revision: 1,
        };
        let engine = FaultyDisk::new(1).open().expect("a fresh disk opens");
        let mut shard = Shard {
            engine,
            realm: Arc::new(Versioned {
                value: realm.clone(),
                stamp: Stamp(0),
            }),
            state: State::new(ShardId(0)),
            index: 0,
        };
        shard.apply(&[encoded(schema::realm::mutation(&realm, Expect::Absent))]);
        let stored = schema::realm::read(&*shard.engine.view(), realm.number).expect("memory does not fail");
        shard.realm = Arc::new(stored.expect("it was just applied"));
        shard
    }
}

impl Shard {
    /// The realm.
    pub fn realm(&self) -> &Realm {
        &self.realm.value
    }

    /// Evaluates a request on what is applied and encodes the command to propose.
    pub fn propose(&self, request: &Request) -> Bytes {
        let rows = schema::RowView::new(Arc::from(self.engine.view()), self.realm.clone());
        let context = Context {
            realm: self.realm(),
            now: NOW,
            log_clock: self.state.stamp.millis(),
        };
        let plan = match evaluate(&rows, &context, request) {
            Ok(Evaluation::Propose(plan)) => plan,
            other => panic!("the benchmark's request is new and well formed, but gave {other:?}"),
        };
        encoded(schema::encode_plan(&rows, &plan).expect("memory does not fail"))
    }

    /// Decodes and applies commands as one batch, as a replica does.
    pub fn apply(&mut self, commands: &[Bytes]) {
        let mut batch = Batch::default();
        {
            let view = self.engine.view();
            let mut staged = Staged::new(&*view);
            for bytes in commands {
                self.index += 1;
                let command = command::decode(bytes).expect("it was encoded here");
                let reply =
                    apply(&mut self.state, &mut staged, self.index, &command).expect("memory does not fail");
                assert!(matches!(reply, Reply::Applied { .. }), "{reply:?}");
            }
            staged.drain(&mut batch);
        }
        self.engine.write(batch).expect("memory does not fail");
    }
}

fn encoded(mutation: Mutation) -> Bytes {
    command::encode(&Command {
        epoch: ShardEpoch(1),
        wall: NOW,
        body: Body::Mutate(mutation),
    })
}

/// Creates an account with two identifiers; each `number` another one.
pub fn create(number: u64) -> Request {
    let mut entropy = [0; 10];
    entropy[2..].copy_from_slice(&number.to_be_bytes());
    let identifier = |kind, value: String| NewIdentifier {
        kind,
        issuer: String::new(),
        value,
        primary: None,
        login_enabled: None,
        verification: None,
    };
    Request {
        realm: RealmNumber(1),
        caller: Caller::new("bench"),
        actor: Actor::default(),
        request_id: Some(RequestId::from_parts(NOW, entropy)),
        account: AccountId::new(format!("account-{number}")).expect("well formed"),
        operation: Operation::Create(NewAccount {
            display_name: format!("Listener {number}"),
            identifiers: vec![
                identifier(IdentifierKind::Email, format!("Listener.{number}@Example.com")),
                identifier(
                    IdentifierKind::Username,
                    format!("listener_{}_x", letters(number)),
                ),
            ],
            ..NewAccount::default()
        }),
    }
}

/// A number in letters, so that the username does not look like a phone number.
fn letters(mut number: u64) -> String {
    let mut text = String::new();
    loop {
        text.push(char::from(b'a' + (number % 26) as u8));
        number /= 26;
        if number == 0 {
            return text;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_timed_works() {
        let mut shard = Shard::default();
        let commands: Vec<_> = (0..100).map(|number| shard.propose(&create(number))).collect();
        let before = shard.index;
        shard.apply(&commands);
        assert_eq!(shard.index, before + 100);
    }
}
