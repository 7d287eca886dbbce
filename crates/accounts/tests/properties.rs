//! Random requests, some evaluated on stale rows: whatever happens, the rules hold.
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

use std::collections::{BTreeMap, BTreeSet};

use holdfast_accounts::testing::MemoryView;
use holdfast_accounts::*;
use holdfast_types::*;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const ACCOUNTS: [&str; 4] = ["ann", "bob", "cid", "dee"];
/// Two spellings of each.
const IDENTIFIERS: [(IdentifierKind, [&str; 2]); 7] = [
    (IdentifierKind::Email, ["a@example.com", "A@EXAMPLE.com"]),
    (IdentifierKind::Email, ["b@example.com", "B@EXAMPLE.com"]),
    (IdentifierKind::Email, ["c@example.com", "C@EXAMPLE.com"]),
    (IdentifierKind::Phone, ["+41446681800", "+41 44 668 18 00"]),
    (IdentifierKind::Phone, ["+41446681801", "+41 (0)44 668 18 01"]),
    (IdentifierKind::Username, ["ann", "ANN"]),
    (IdentifierKind::Username, ["bob", "ＢＯＢ"]),
];
const HOUR_MS: u64 = 3_600_000;

#[derive(Debug, Clone)]
struct Step {
    account: &'static str,
    operation: Operation,
    /// One of a few request ids, so that they are used again.
    request: u8,
    /// How many plans ago the rows were read.
    stale: usize,
    wait_hours: u64,
}

fn reference() -> impl Strategy<Value = IdentifierRef> {
    (select(&IDENTIFIERS[..]), 0..2_usize).prop_map(|((kind, spellings), spelling)| IdentifierRef {
        kind,
        issuer: String::new(),
        value: spellings[spelling].into(),
    })
}

fn identifier() -> impl Strategy<Value = NewIdentifier> {
    let verification = prop_oneof![
        2 => Just(None),
        1 => Just(Some(NewVerification::Unverified)),
        1 => Just(Some(NewVerification::Verified { method: "link".into(), time: None })),
    ];
    let primary = select(vec![None, None, Some(true), Some(false)]);
    (reference(), primary, any::<Option<bool>>(), verification).prop_map(
        |(IdentifierRef { kind, issuer, value }, primary, login_enabled, verification)| NewIdentifier {
            kind,
            issuer,
            value,
            primary,
            login_enabled,
            verification,
        },
    )
}

fn new_account() -> impl Strategy<Value = NewAccount> {
    ("[a-z]{0,3}", proptest::collection::vec(identifier(), 0..4)).prop_map(|(display_name, identifiers)| {
        NewAccount {
            display_name,
            identifiers,
            ..NewAccount::default()
        }
    })
}

fn change() -> impl Strategy<Value = IdentifierChange> {
    prop_oneof![
        identifier().prop_map(IdentifierChange::Add),
        reference().prop_map(IdentifierChange::Remove),
        (reference(), identifier()).prop_map(|(old, new)| IdentifierChange::Replace { old, new }),
        identifier().prop_map(|new| {
            let old = IdentifierRef {
                kind: new.kind,
                issuer: String::new(),
                value: new.value.clone(),
            };
            IdentifierChange::Replace { old, new }
        }),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let etag = prop_oneof![3 => Just(None), 1 => (1..6_u64).prop_map(|etag| Some(etag.to_string()))];
    let mode = select(vec![ImportMode::Create, ImportMode::Upsert, ImportMode::Skip]);
    let changes = proptest::collection::vec(change(), 1..4);
    prop_oneof![
        3 => new_account().prop_map(Operation::Create),
        3 => (mode, new_account()).prop_map(|(mode, account)| Operation::Import { mode, account }),
        2 => ("[a-z]{1,3}", etag.clone()).prop_map(|(name, etag)| {
            Operation::Update(Update { etag, display_name: Some(name), ..Update::default() })
        }),
        8 => (changes, etag.clone()).prop_map(|(changes, etag)| {
            Operation::ChangeIdentifiers(ChangeIdentifiers { etag, changes })
        }),
        2 => etag.clone().prop_map(|etag| Operation::Delete { etag }),
        1 => etag.prop_map(|etag| Operation::Undelete { etag }),
        // The deadline is filled in when its turn comes.
        2 => Just(Operation::Purge { deadline: Millis(0) }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let stale = prop_oneof![4 => Just(0_usize), 1 => 1..4_usize];
    let wait = prop_oneof![3 => Just(0), 1 => 1..40_u64];
    (select(&ACCOUNTS[..]), operation(), any::<u8>(), stale, wait).prop_map(
        |(account, operation, request, stale, wait_hours)| Step {
            account,
            operation,
            request: request % 64,
            stale,
            wait_hours,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rules_hold(
        steps in proptest::collection::vec(step(), 1..60),
        quarantine_hours in select(vec![0, 20, 100]),
        pick in any::<Index>(),
    ) {
        let config = RealmConfig {
            quarantine_ms: quarantine_hours * HOUR_MS,
            deletion_grace_ms: 30 * HOUR_MS,
            request_window_ms: 1_000 * HOUR_MS,
            ..RealmConfig::default()
        };
        let mut history = History::new(config);
        for step in steps {
            history.run(step);
        }
        history.retry_any(&pick);
    }
}

/// Everything that happened, to check the next thing against.
struct History {
    realm: Realm,
    /// The rows after each plan; the last one is the present.
    views: Vec<MemoryView>,
    wall: Millis,
    start: Millis,
    effects: BTreeMap<RequestId, u32>,
    applied: Vec<(Request, Outcome)>,
    /// Until when nobody but the former owner may hold an identifier.
    resting: BTreeMap<Vec<u8>, (AccountId, Millis)>,
}

impl History {
    fn new(config: RealmConfig) -> Self {
        let start = Millis(1_800_000_000_000);
        let mut view = MemoryView::default();
        view.tick(start);
        History {
            realm: Realm {
                id: RealmId::default_realm(),
                number: RealmNumber(1),
                slot_key: [1; 32],
                claim_keys: vec![],
                config,
                revision: 1,
            },
            views: vec![view],
            wall: start,
            start,
            effects: BTreeMap::new(),
            applied: Vec::new(),
            resting: BTreeMap::new(),
        }
    }

    fn now(&self) -> &MemoryView {
        self.views.last().expect("there is always a present")
    }

    fn run(&mut self, step: Step) {
        self.wall = self.wall.plus(step.wait_hours * HOUR_MS);
        let account = AccountId::new(step.account).unwrap();
        let request_id = RequestId::from_parts(self.start, [step.request; 10]);
        let (operation, request_id) = match step.operation {
            Operation::Purge { .. } => {
                let due = self.now().deadlines().find(|due| due.subject == account);
                (
                    Operation::Purge {
                        deadline: due.map_or(self.wall, |due| due.deadline),
                    },
                    None,
                )
            }
            operation => (operation, Some(request_id)),
        };
        let request = Request {
            realm: self.realm.number,
            caller: Caller::new("test"),
            actor: Actor::default(),
            request_id,
            account,
            operation,
        };
        let at = self.views.len().saturating_sub(1 + step.stale);
        let evaluation = self.evaluate(&self.views[at], &request);
        let Ok(Evaluation::Propose(plan)) = evaluation else {
            assert!(
                !matches!(evaluation, Err(EvaluateError::Inconsistent(_))),
                "{evaluation:?}"
            );
            return;
        };
        let mut after = self.now().clone();
        let applied = after.apply(&plan, self.wall);
        if applied.is_ok() {
            self.check_step(&request, &plan, &after);
            self.applied.push((request, plan.outcome));
        } else {
            assert!(
                step.stale > 0,
                "a guard fails only if rows changed after they were read"
            );
        }
        self.views.push(after);
        self.check_rows();
    }

    fn evaluate(
        &self,
        view: &MemoryView,
        request: &Request,
    ) -> Result<Evaluation, EvaluateError<std::convert::Infallible>> {
        let log_clock = view.log_clock();
        let ctx = Context {
            realm: &self.realm,
            now: self.wall.max(log_clock),
            log_clock,
        };
        evaluate(view, &ctx, request)
    }

    /// Compares the rows before and after a plan.
    fn check_step(&mut self, request: &Request, plan: &Plan, after: &MemoryView) {
        if let Some(id) = request.request_id {
            let effects = self.effects.entry(id).or_default();
            *effects += plan.events.len() as u32;
            // The same id may have run on several accounts: it is remembered with each.
            assert!(*effects <= ACCOUNTS.len() as u32);
            let key = RequestKey::of(request).unwrap();
            assert!(
                !self.now().records().any(|(known, _)| *known == key),
                "a request ran twice"
            );
            assert!(
                after
                    .records()
                    .any(|(known, record)| *known == key && record.outcome == plan.outcome)
            );
        }
        let latched: BTreeSet<RowKey> = latch_keys(request, &self.realm.config).into_iter().collect();
        assert!(latched.contains(&RowKey::Account(request.account.clone())));
        let before = self.now();
        for old in before.accounts() {
            let new = after
                .accounts()
                .find(|new| new.id == old.id)
                .expect("accounts never vanish");
            if new == old {
                continue;
            }
            assert_eq!(new.id, request.account, "only the request's account changes");
            assert_eq!(new.revision, old.revision + 1);
            assert_ne!(old.state(), AccountState::Deleted, "a tombstone never changes");
            assert!(new.update_time >= old.update_time);
            assert_eq!(new.create_time, old.create_time);
            let event = &plan.events[0];
            assert_eq!((plan.events.len(), event.revision), (1, new.revision));
        }
        if matches!(plan.outcome, Outcome::Refused { .. }) {
            assert!(before.accounts().eq(after.accounts()) && before.claims().eq(after.claims()));
        }
        // A quarantine is respected, by what the log clock showed when it ended.
        let log_clock = before.log_clock();
        for (bytes, claim) in after.claims() {
            match claim.state {
                ClaimState::Quarantined { until } => {
                    self.resting.insert(bytes.to_vec(), (claim.owner.clone(), until));
                }
                ClaimState::Held { .. } => {
                    if let Some((owner, until)) = self.resting.remove(bytes) {
                        assert!(
                            owner == claim.owner || log_clock >= until,
                            "taken before its time"
                        );
                    }
                }
            }
        }
    }

    /// What is true of the rows at any moment.
    fn check_rows(&self) {
        let view = self.now();
        let mut listed: BTreeMap<Vec<u8>, (&AccountId, bool)> = BTreeMap::new();
        for account in view.accounts() {
            let mut primaries: BTreeMap<IdentifierKind, u32> = BTreeMap::new();
            for identifier in &account.identifiers {
                *primaries.entry(identifier.canonical.kind).or_default() += u32::from(identifier.primary);
                let bytes = identifier.canonical.claim_bytes();
                let other = listed.insert(bytes, (&account.id, identifier.verification.is_some()));
                assert_eq!(other, None, "an identifier belongs to one account");
            }
            assert!(
                primaries.values().all(|count| *count == 1),
                "one primary a kind: {primaries:?}"
            );
            assert!(account.identifiers.is_sorted_by(|a, b| a.canonical < b.canonical));
            if account.state() == AccountState::Deleted {
                assert!(account.identifiers.is_empty() && account.display_name.is_empty());
            }
        }
        let held: BTreeMap<Vec<u8>, (&AccountId, bool)> = view
            .claims()
            .filter_map(|(bytes, claim)| match claim.state {
                ClaimState::Held { verified } => Some((bytes.to_vec(), (&claim.owner, verified))),
                ClaimState::Quarantined { .. } => None,
            })
            .collect();
        assert_eq!(held, listed, "claims and accounts agree");
        let due: BTreeSet<DueKey> = view.deadlines().cloned().collect();
        let pending = view
            .accounts()
            .filter(|account| account.state() == AccountState::PendingDeletion);
        let promised = pending.map(|account| DueKey {
            deadline: account.deletion.unwrap().purge_time,
            subject: account.id.clone(),
        });
        assert_eq!(
            due,
            promised.collect(),
            "each deletion has its deadline and no other is left"
        );
    }

    /// A retry of anything that ran gets the same outcome and proposes nothing.
    fn retry_any(&self, pick: &Index) {
        let with_id: Vec<_> = self
            .applied
            .iter()
            .filter(|(request, _)| request.request_id.is_some())
            .collect();
        if with_id.is_empty() {
            return;
        }
        let (request, outcome) = with_id[pick.index(with_id.len())];
        match self.evaluate(self.now(), request) {
            Ok(Evaluation::Replay(record)) => assert_eq!(record.outcome, *outcome),
            other => panic!("a retry was not recognised: {other:?}"),
        }
    }
}
