//! A plan's typed rows become the keys and bytes that the log carries.

use bytes::Bytes;
use holdfast_accounts::{Plan, Row, RowKey};
use holdfast_machine::{Expect, Guard, Mutation, Write};
use holdfast_types::{CanonicalIdentifier, Family};

use super::{RowView, change, claim, encode, key};

/// What to propose for a plan that was evaluated on this view.
///
/// Claims are the only rows with more than one possible place (see [`claim`]): an absent claim is absent under
/// every claim key, a claim that is there is guarded where it was read, and a claim that is written leaves
/// nothing under older keys.
pub fn encode_plan(view: &RowView, plan: &Plan) -> Mutation {
    let realm = view.realm();
    let mut guards = Vec::with_capacity(plan.guards.len());
    for (row, expect) in &plan.guards {
        match row {
            RowKey::Claim(identifier) => guard_claim(view, identifier, *expect, &mut guards),
            row => {
                let (family, key) = key(realm, row);
                guards.push(Guard {
                    family,
                    key,
                    expect: *expect,
                });
            }
        }
    }
    let mut writes = Vec::with_capacity(plan.writes.len());
    for (row, value) in &plan.writes {
        let (family, key) = key(realm, row);
        writes.push(match value {
            Some(value) => Write::Put {
                family,
                key,
                key_id: 0,
                body: checked(row, value),
            },
            None => Write::Delete { family, key },
        });
        if let RowKey::Claim(identifier) = row {
            let older = claim::keys(realm, identifier).skip(1);
            writes.extend(older.map(|key| Write::Delete {
                family: Family::Claim,
                key,
            }));
        }
    }
    Mutation {
        request_birth: plan.request_birth,
        guards,
        writes,
        events: plan
            .events
            .iter()
            .map(|event| change::encode(realm.number, event))
            .collect(),
    }
}

fn guard_claim(view: &RowView, identifier: &CanonicalIdentifier, expect: Expect, guards: &mut Vec<Guard>) {
    let realm = view.realm();
    let guard = |key| Guard {
        family: Family::Claim,
        key,
        expect,
    };
    match expect {
        Expect::Absent => guards.extend(claim::keys(realm, identifier).map(guard)),
        Expect::Stamp(_) => {
            let newest = || claim::key(realm, claim::newest(realm), identifier);
            guards.push(guard(view.older_claim(identifier).unwrap_or_else(newest)));
        }
    }
}

/// The record, after a look that the rules put a row of the right kind under the name.
fn checked(name: &RowKey, row: &Row) -> Bytes {
    let fits = match (name, row) {
        (RowKey::Account(id), Row::Account(account)) => *id == account.id,
        (RowKey::Realm(number), Row::Realm(realm)) => *number == realm.number,
        (RowKey::Claim(_), Row::Claim(_))
        | (RowKey::Request(_), Row::Request(_))
        | (RowKey::Due(_), Row::Due(_)) => true,
        _ => false,
    };
    assert!(fits, "a plan puts another row under a name than the name says");
    encode(row)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use holdfast_accounts::{Claim, ClaimState, Outcome, RequestKey, RequestRecord, Versioned, View as _};
    use holdfast_machine::{Body, Command, Reply, State, apply};
    use holdfast_types::{
        AccountId, Caller, ClaimKey, IdentifierKind, Millis, Realm, RequestId, ShardEpoch, ShardId,
    };

    use super::*;
    use crate::engine::Engine;
    use crate::faulty::{FaultyDisk, FaultyEngine};
    use crate::overlay::Staged;
    use crate::schema::arbitrary;

    fn view(engine: &FaultyEngine, realm: &Realm) -> RowView {
        RowView::new(Arc::from(engine.view()), Arc::new(realm.clone()))
    }

    fn run(engine: &FaultyEngine, state: &mut State, mutation: Mutation) -> Reply {
        let command = Command {
            epoch: ShardEpoch(1),
            wall: Millis(1),
            body: Body::Mutate(mutation),
        };
        let view = engine.view();
        let mut staged = Staged::new(&*view);
        let reply = apply(state, &mut staged, 1, &command).unwrap();
        engine.write(staged.into_batch()).unwrap();
        reply
    }

    fn plan(guards: Vec<(RowKey, Expect)>, writes: Vec<(RowKey, Option<Row>)>) -> Plan {
        let account = AccountId::new("ann").unwrap();
        Plan {
            guards,
            writes,
            events: Vec::new(),
            outcome: Outcome::Done { account, revision: 1 },
            account_after: None,
            request_birth: None,
        }
    }

    fn identifier() -> CanonicalIdentifier {
        CanonicalIdentifier {
            kind: IdentifierKind::Email,
            issuer: String::new(),
            text: "a@x".into(),
            normalizer: 1,
        }
    }

    fn held(verified: bool) -> Claim {
        Claim {
            owner: AccountId::new("ann").unwrap(),
            state: ClaimState::Held { verified },
        }
    }

    #[test]
    fn what_a_plan_writes_is_read_back() {
        let engine = FaultyDisk::new(0).open().unwrap();
        let realm = arbitrary::realm(1);
        let mut state = State::new(ShardId(0));
        let account = arbitrary::plain_account("ann");
        let request = RequestKey {
            home: account.id.clone(),
            request: RequestId::from_parts(Millis(5), [0; 10]),
            caller: Caller::new("c"),
        };
        let outcome = Outcome::Done {
            account: account.id.clone(),
            revision: 1,
        };
        let record = RequestRecord {
            digest: [1; 32],
            outcome,
        };
        let names = [
            RowKey::Account(account.id.clone()),
            RowKey::Claim(identifier()),
            RowKey::Request(request.clone()),
        ];
        let rows = [
            Row::Account(account.clone()),
            Row::Claim(held(true)),
            Row::Request(record.clone()),
        ];
        let create = plan(
            names.clone().map(|name| (name, Expect::Absent)).into(),
            names.clone().into_iter().zip(rows.map(Some)).collect(),
        );
        let empty = view(&engine, &realm);
        let reply = run(&engine, &mut state, encode_plan(&empty, &create));
        let Reply::Applied { stamp } = reply else {
            panic!("{reply:?}")
        };
        // A second time the guards see that it is there.
        let again = run(&engine, &mut state, encode_plan(&empty, &create));
        assert_eq!(again, Reply::GuardFailed { guard: 0 });

        let rows = view(&engine, &realm);
        let found = rows.account(&account.id).unwrap().unwrap();
        assert_eq!((found.value, found.stamp), (account.clone(), stamp));
        assert_eq!(rows.claim(&identifier()).unwrap().unwrap().value, held(true));
        assert_eq!(rows.request(&request).unwrap().unwrap().value, record);
        let stranger = AccountId::new("bob").unwrap();
        let both = rows.accounts(&[stranger, account.id.clone()]).unwrap();
        assert_eq!(
            both,
            [
                None,
                Some(Versioned {
                    value: account.clone(),
                    stamp
                })
            ]
        );

        let delete = plan(
            names.clone().map(|name| (name, Expect::Stamp(stamp))).into(),
            names.map(|name| (name, None)).into(),
        );
        assert!(matches!(
            run(&engine, &mut state, encode_plan(&rows, &delete)),
            Reply::Applied { .. }
        ));
        let rows = view(&engine, &realm);
        assert_eq!(rows.account(&account.id).unwrap(), None);
        assert_eq!(rows.claim(&identifier()).unwrap(), None);
        assert_eq!(rows.request(&request).unwrap(), None);
    }

    /// A claim written before its key rotated is found, guarded where it is, and moves when written.
    #[test]
    fn claims_outlive_a_rotation_of_their_key() {
        let engine = FaultyDisk::new(0).open().unwrap();
        let old = arbitrary::realm(1);
        let mut state = State::new(ShardId(0));
        let name = || RowKey::Claim(identifier());
        let put = |expect, verified| {
            plan(
                vec![(name(), expect)],
                vec![(name(), Some(Row::Claim(held(verified))))],
            )
        };
        run(
            &engine,
            &mut state,
            encode_plan(&view(&engine, &old), &put(Expect::Absent, false)),
        );

        let mut new = old.clone();
        new.claim_keys.push(ClaimKey { id: 2, key: [8; 32] });
        let rows = view(&engine, &new);
        // Absent means under no generation.
        let refused = run(
            &engine,
            &mut state,
            encode_plan(&rows, &put(Expect::Absent, true)),
        );
        assert_eq!(refused, Reply::GuardFailed { guard: 1 });

        let stamp = rows.claim(&identifier()).unwrap().unwrap().stamp;
        let moved = run(
            &engine,
            &mut state,
            encode_plan(&rows, &put(Expect::Stamp(stamp), true)),
        );
        assert!(matches!(moved, Reply::Applied { .. }), "{moved:?}");
        assert_eq!(view(&engine, &old).claim(&identifier()).unwrap(), None);
        let rows = view(&engine, &new);
        let found = rows.claim(&identifier()).unwrap().unwrap();
        assert_eq!(found.value, held(true));

        let delete = plan(vec![(name(), Expect::Stamp(found.stamp))], vec![(name(), None)]);
        let deleted = run(&engine, &mut state, encode_plan(&rows, &delete));
        assert!(matches!(deleted, Reply::Applied { .. }), "{deleted:?}");
        assert_eq!(view(&engine, &new).claim(&identifier()).unwrap(), None);
    }
}
