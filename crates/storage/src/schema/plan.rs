//! A plan's typed rows become the keys and bytes that the log carries.

use bytes::Bytes;
use holdfast_accounts::{Plan, Row, RowKey};
use holdfast_machine::{Expect, Guard, Mutation, Write};
use holdfast_types::{CanonicalIdentifier, Family, Realm};

use super::{RowView, change, claim, encode, inhabited, key, realm};
use crate::engine::EngineError;

/// What to propose for a plan that was evaluated on this view.
///
/// Claims are the only rows with more than one possible place (see [`claim`]): an absent claim is absent under
/// every claim key, a claim that is there is guarded where it was read, and a claim that is written leaves
/// nothing under older keys.
///
/// Two things are added that the rules need not know. The last guard holds the realm's rules and keys as they
/// were. And a realm's first account is remembered (see [`inhabited`]).
pub fn encode_plan(view: &RowView, plan: &Plan) -> Result<Mutation, EngineError> {
    let realm = view.realm();
    let mut keys = Keys::default();
    let mut guards = Vec::with_capacity(plan.guards.len() + 1);
    for (row, expect) in &plan.guards {
        match row {
            RowKey::Claim(identifier) => {
                let (_, newest) = keys.of(realm, row);
                guard_claim(view, identifier, newest, *expect, &mut guards);
            }
            row => {
                let (family, key) = keys.of(realm, row);
                guards.push(Guard {
                    family,
                    key,
                    expect: *expect,
                });
            }
        }
    }
    guards.push(realm::guard(view.realm_as_read()));
    let mut writes = Vec::with_capacity(plan.writes.len() + 1);
    for (row, value) in &plan.writes {
        let (family, key) = keys.of(realm, row);
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
            let older = claim::older_keys(realm, identifier);
            writes.extend(older.map(|key| Write::Delete {
                family: Family::Claim,
                key,
            }));
        }
    }
    if creates(plan) && !view.is_inhabited()? {
        writes.push(inhabited::write(realm.number));
    }
    Ok(Mutation {
        request_birth: plan.request_birth,
        guards,
        writes,
        events: plan
            .events
            .iter()
            .map(|event| change::encode(realm.number, event))
            .collect(),
    })
}

/// Whether the plan brings an account into being: that has revision 1, and nothing else has.
fn creates(plan: &Plan) -> bool {
    plan.writes
        .iter()
        .any(|(_, row)| matches!(row, Some(Row::Account(account)) if account.revision == 1))
}

/// The keys of a plan's rows. Most rows are guarded and written, and their keys are hashes.
#[derive(Default)]
struct Keys<'p>(Vec<(&'p RowKey, (Family, Bytes))>);

impl<'p> Keys<'p> {
    fn of(&mut self, realm: &Realm, row: &'p RowKey) -> (Family, Bytes) {
        if let Some((_, found)) = self.0.iter().find(|(known, _)| *known == row) {
            return found.clone();
        }
        let made = key(realm, row);
        self.0.push((row, made.clone()));
        made
    }
}

/// `newest` is where the claim is written.
fn guard_claim(
    view: &RowView,
    identifier: &CanonicalIdentifier,
    newest: Bytes,
    expect: Expect,
    guards: &mut Vec<Guard>,
) {
    let guard = |key| Guard {
        family: Family::Claim,
        key,
        expect,
    };
    match expect {
        Expect::Absent => {
            guards.push(guard(newest));
            guards.extend(claim::older_keys(view.realm(), identifier).map(guard));
        }
        Expect::Stamp(_) => guards.push(guard(view.older_claim(identifier).unwrap_or(newest))),
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
        AccountId, Caller, ClaimKey, IdentifierKind, Millis, Realm, RealmNumber, RequestId, ShardEpoch,
        ShardId,
    };

    use super::*;
    use crate::engine::{self, Engine};
    use crate::faulty::{FaultyDisk, FaultyEngine};
    use crate::overlay::Staged;
    use crate::schema::arbitrary;

    /// The realm's rows; its own is there.
    fn view(engine: &FaultyEngine) -> RowView {
        let view: Arc<dyn engine::View> = Arc::from(engine.view());
        let realm = realm::read(&*view, RealmNumber(1)).unwrap().unwrap();
        RowView::new(view, Arc::new(realm))
    }

    /// An engine with one realm.
    fn founded() -> (FaultyEngine, State) {
        let engine = FaultyDisk::new(0).open().unwrap();
        let mut state = State::new(ShardId(0));
        let founded = realm::mutation(&arbitrary::realm(1), Expect::Absent);
        assert!(matches!(run(&engine, &mut state, founded), Reply::Applied { .. }));
        (engine, state)
    }

    /// Proposes what the plan says on this view, and applies it.
    fn carry_out(engine: &FaultyEngine, state: &mut State, view: &RowView, plan: &Plan) -> Reply {
        run(engine, state, encode_plan(view, plan).unwrap())
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
        let (engine, mut state) = founded();
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
        let empty = view(&engine);
        let reply = carry_out(&engine, &mut state, &empty, &create);
        let Reply::Applied { stamp } = reply else {
            panic!("{reply:?}")
        };
        // A second time the guards see that it is there.
        let again = carry_out(&engine, &mut state, &empty, &create);
        assert_eq!(again, Reply::GuardFailed { guard: 0 });

        let rows = view(&engine);
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
        let deleted = carry_out(&engine, &mut state, &rows, &delete);
        assert!(matches!(deleted, Reply::Applied { .. }), "{deleted:?}");
        let rows = view(&engine);
        assert_eq!(rows.account(&account.id).unwrap(), None);
        assert_eq!(rows.claim(&identifier()).unwrap(), None);
        assert_eq!(rows.request(&request).unwrap(), None);
    }

    /// A claim written before its key rotated is found, guarded where it is, and moves when written.
    #[test]
    fn claims_outlive_a_rotation_of_their_key() {
        let (engine, mut state) = founded();
        let name = || RowKey::Claim(identifier());
        let put = |expect, verified| {
            plan(
                vec![(name(), expect)],
                vec![(name(), Some(Row::Claim(held(verified))))],
            )
        };
        let under_the_old = view(&engine);
        let first = carry_out(&engine, &mut state, &under_the_old, &put(Expect::Absent, false));
        assert!(matches!(first, Reply::Applied { .. }), "{first:?}");
        let old = claim::key(
            under_the_old.realm(),
            claim::newest(under_the_old.realm()),
            &identifier(),
        );

        let before = under_the_old.realm_as_read();
        let mut rotated = before.value.clone();
        rotated.claim_keys.push(ClaimKey { id: 2, key: [8; 32] });
        let changed = run(&engine, &mut state, realm::change(before, &rotated));
        assert!(matches!(changed, Reply::Applied { .. }), "{changed:?}");
        let rows = view(&engine);
        // Absent means under no generation.
        let refused = carry_out(&engine, &mut state, &rows, &put(Expect::Absent, true));
        assert_eq!(refused, Reply::GuardFailed { guard: 1 });

        let stamp = rows.claim(&identifier()).unwrap().unwrap().stamp;
        let moved = carry_out(&engine, &mut state, &rows, &put(Expect::Stamp(stamp), true));
        assert!(matches!(moved, Reply::Applied { .. }), "{moved:?}");
        let rows = view(&engine);
        assert_eq!(engine.view().get(Family::Claim, &old).unwrap(), None);
        let found = rows.claim(&identifier()).unwrap().unwrap();
        assert_eq!(found.value, held(true));

        let delete = plan(vec![(name(), Expect::Stamp(found.stamp))], vec![(name(), None)]);
        let deleted = carry_out(&engine, &mut state, &rows, &delete);
        assert!(matches!(deleted, Reply::Applied { .. }), "{deleted:?}");
        assert_eq!(view(&engine).claim(&identifier()).unwrap(), None);
    }

    fn create(id: &str) -> Plan {
        let account = arbitrary::plain_account(id);
        let name = || RowKey::Account(account.id.clone());
        plan(
            vec![(name(), Expect::Absent)],
            vec![(name(), Some(Row::Account(account.clone())))],
        )
    }

    /// The same realm under another rule for emails.
    fn other_emails(realm: &Realm) -> Realm {
        let mut realm = realm.clone();
        realm.revision += 1;
        let folded = &mut realm.config.email_local_part_case_insensitive;
        *folded = !*folded;
        realm
    }

    #[test]
    fn what_was_evaluated_under_other_rules_has_no_effect() {
        let (engine, mut state) = founded();
        let evaluated = view(&engine);
        let before = evaluated.realm_as_read();
        let changed = run(
            &engine,
            &mut state,
            realm::change(before, &other_emails(&before.value)),
        );
        assert!(matches!(changed, Reply::Applied { .. }), "{changed:?}");
        let late = carry_out(&engine, &mut state, &evaluated, &create("ann"));
        assert_eq!(late, Reply::GuardFailed { guard: 1 });
        let again = carry_out(&engine, &mut state, &view(&engine), &create("ann"));
        assert!(matches!(again, Reply::Applied { .. }), "{again:?}");
    }

    /// A rule that names claims and the first account were both evaluated on an empty realm; the account came first.
    #[test]
    fn claims_are_not_renamed_once_there_was_an_account() {
        let (engine, mut state) = founded();
        let evaluated = view(&engine);
        let before = evaluated.realm_as_read();
        // Two first creates do not get in each other's way.
        for id in ["ann", "bob"] {
            let created = carry_out(&engine, &mut state, &evaluated, &create(id));
            assert!(matches!(created, Reply::Applied { .. }), "{created:?}");
        }
        let renames = realm::change(before, &other_emails(&before.value));
        assert_eq!(run(&engine, &mut state, renames), Reply::GuardFailed { guard: 1 });
        // Other rules may change, and a second create need not say again what is known.
        let rows = view(&engine);
        let mut longer = rows.realm().clone();
        longer.config.quarantine_ms += 1;
        let changed = run(&engine, &mut state, realm::change(rows.realm_as_read(), &longer));
        assert!(matches!(changed, Reply::Applied { .. }), "{changed:?}");
        assert_eq!(
            encode_plan(&view(&engine), &create("cid")).unwrap().writes.len(),
            1
        );
    }
}
