//! What is wrong with a request is said all at once, each thing with the path of its field.

use std::time::Duration;

use holdfast_accounts::{IdentifierChange, ImportMode, NewVerification, Operation};
use holdfast_types::{
    AccountState, Caller, ConsistencyToken, Millis, Placement, Realm, RealmConfig, RealmId, RealmNumber,
    Rejection, RequestId, ShardEpoch, ShardId, Slot,
};
use holdfast_wire::convert::mutations::AccountChoice;
use holdfast_wire::convert::page::{self, Position};
use holdfast_wire::convert::reads::{Freshness, ReadMode};
use holdfast_wire::convert::{import, members, mutations, reads, realms};
use holdfast_wire::v1;

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const NAME: &str = "realms/default/accounts/a";

/// The fields that are wrong, in order.
#[track_caller]
fn wrong<T: std::fmt::Debug>(result: Result<T, Rejection>) -> Vec<String> {
    match result {
        Err(Rejection::Invalid(violations)) => {
            assert!(
                violations
                    .iter()
                    .all(|violation| !violation.description.is_empty())
            );
            violations.into_iter().map(|violation| violation.field).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn email(value: &str) -> v1::Identifier {
    v1::Identifier {
        kind: v1::IdentifierKind::Email.into(),
        value: value.into(),
        ..Default::default()
    }
}

fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask {
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
    })
}

fn default_realm() -> Realm {
    Realm {
        id: RealmId::default_realm(),
        number: RealmNumber(1),
        slot_key: [7; 32],
        claim_keys: Vec::new(),
        config: RealmConfig::default(),
        revision: 3,
    }
}

#[test]
fn an_empty_request_lacks_what_is_required() {
    let create = mutations::create_account(v1::CreateAccountRequest::default());
    assert_eq!(wrong(create), ["parent", "account", "request_id"]);
    let update = mutations::update_account(v1::UpdateAccountRequest::default());
    assert_eq!(wrong(update), ["account", "account.name", "request_id"]);
    assert_eq!(
        wrong(mutations::delete_account(v1::DeleteAccountRequest::default())),
        ["name", "request_id"]
    );
    assert_eq!(
        wrong(mutations::undelete_account(v1::UndeleteAccountRequest::default())),
        ["name", "request_id"]
    );
    assert_eq!(
        wrong(reads::get_account(v1::GetAccountRequest::default())),
        ["name"]
    );
    assert_eq!(
        wrong(reads::lookup_account(v1::LookupAccountRequest::default())),
        ["parent", "identifier"]
    );
    assert_eq!(
        wrong(reads::batch_get_accounts(v1::BatchGetAccountsRequest::default())),
        ["parent", "names"]
    );
    let add = members::add_learner(v1::AddLearnerRequest::default());
    assert_eq!(wrong(add), ["node_id", "addresses"]);
    let realm = realms::update_realm(v1::UpdateRealmRequest::default());
    assert_eq!(
        wrong(realm),
        ["realm", "realm.name", "realm.config", "update_mask", "etag"]
    );
}

#[test]
fn names_must_have_their_form() {
    for bad in [
        "",
        "a",
        "realms/default",
        "realms/default/accounts/",
        "realms//accounts/a",
        "realms/Default/accounts/a",
        "realms/default/accounts/a/b",
        "realms/default/accounts/a b",
        "realms/default/accounts/-",
        "/realms/default/accounts/a",
        "realms/default/users/a",
    ] {
        let request = v1::GetAccountRequest {
            name: bad.into(),
            consistency: None,
        };
        assert_eq!(wrong(reads::get_account(request)), ["name"], "{bad:?}");
    }
    let good = v1::GetAccountRequest {
        name: NAME.into(),
        consistency: None,
    };
    assert_eq!(reads::get_account(good).unwrap().account.as_str(), "a");
}

#[test]
fn request_ids_are_uuids_of_version_7() {
    for bad in ["", "x", "67e55044-10b1-426f-9247-bb680e5fe0c8"] {
        let request = v1::DeleteAccountRequest {
            name: NAME.into(),
            request_id: bad.into(),
            ..Default::default()
        };
        assert_eq!(
            wrong(mutations::delete_account(request)),
            ["request_id"],
            "{bad:?}"
        );
    }
}

#[test]
fn a_bad_account_is_described_in_full() {
    let bad_time = prost_types::Timestamp {
        seconds: i64::MAX,
        nanos: 0,
    };
    let verification = |state: v1::VerificationState, method: &str| {
        Some(v1::Verification {
            state: state.into(),
            method: method.into(),
            verify_time: None,
        })
    };
    let account = v1::Account {
        identifiers: vec![
            email("a@example.org"),
            v1::Identifier {
                kind: 99,
                ..email("x")
            },
            v1::Identifier {
                verification: verification(v1::VerificationState::Unspecified, ""),
                ..email("x")
            },
            v1::Identifier {
                verification: verification(v1::VerificationState::Unverified, "sms"),
                ..email("x")
            },
        ],
        attributes: [
            ("empty".to_owned(), v1::Attribute::default()),
            (
                "when".to_owned(),
                v1::Attribute {
                    value: Some(v1::attribute::Value::TimestampValue(bad_time)),
                    ..Default::default()
                },
            ),
        ]
        .into_iter()
        .collect(),
        restrictions: vec![
            v1::Restriction {
                code: "fraud".into(),
                create_time: None,
            },
            v1::Restriction {
                code: "fraud".into(),
                create_time: None,
            },
        ],
        ..Default::default()
    };
    let request = v1::CreateAccountRequest {
        parent: "realms/default".into(),
        account_id: "a/b".into(),
        account: Some(account),
        request_id: ID.into(),
        context: Some(v1::RequestContext {
            actor: "x".repeat(257),
            reason: "y".repeat(1_025),
            trace_id: "0".repeat(32),
        }),
    };
    assert_eq!(
        wrong(mutations::create_account(request)),
        [
            "account_id",
            "account.identifiers[1].kind",
            "account.identifiers[2].verification.state",
            "account.identifiers[3].verification",
            "account.attributes[\"empty\"]",
            "account.attributes[\"when\"].timestamp_value",
            "account.restrictions[1].code",
            "context.trace_id",
            "context.actor",
            "context.reason",
        ]
    );
}

#[test]
fn unknown_mask_paths_are_named_and_known_ones_clear() {
    let request = v1::UpdateAccountRequest {
        account: Some(v1::Account {
            name: NAME.into(),
            locale: "de".into(),
            ..Default::default()
        }),
        update_mask: mask(&["display_name", "*", "identifiers", "account.locale"]),
        request_id: ID.into(),
        ..Default::default()
    };
    let paths = [
        "update_mask.paths[1]",
        "update_mask.paths[2]",
        "update_mask.paths[3]",
    ];
    assert_eq!(wrong(mutations::update_account(request.clone())), paths);

    let request = v1::UpdateAccountRequest {
        update_mask: mask(&["display_name", "labels"]),
        etag: "4".into(),
        remove_attributes: vec!["tier".into()],
        ..request
    };
    let mutation = mutations::update_account(request).unwrap();
    let Operation::Update(update) = mutation.operation else {
        panic!("not an update")
    };
    assert_eq!(update.display_name.as_deref(), Some(""));
    assert_eq!(update.labels, Some(Default::default()));
    assert_eq!((update.locale, update.restrictions), (None, None));
    assert_eq!(update.etag.as_deref(), Some("4"));
    assert!(update.remove_attributes.contains("tier"));
}

#[test]
fn identifier_changes_are_read_one_by_one() {
    use v1::identifier_change::Change;
    let reference = |kind: v1::IdentifierKind| v1::IdentifierReference {
        kind: kind.into(),
        issuer: String::new(),
        value: "a@example.org".into(),
    };
    let change = |change| v1::IdentifierChange { change };
    let request = |changes| v1::ChangeIdentifiersRequest {
        name: NAME.into(),
        changes,
        request_id: ID.into(),
        ..Default::default()
    };
    let replace = |old, new| {
        change(Some(Change::Replace(v1::IdentifierReplacement {
            old_identifier: old,
            new_identifier: new,
        })))
    };
    let bad = request(vec![
        change(None),
        change(Some(Change::Add(v1::Identifier::default()))),
        change(Some(Change::Remove(reference(v1::IdentifierKind::Unspecified)))),
        replace(None, Some(v1::Identifier::default())),
        replace(Some(reference(v1::IdentifierKind::Email)), None),
    ]);
    assert_eq!(
        wrong(mutations::change_identifiers(bad)),
        [
            "changes[0]",
            "changes[1].add.kind",
            "changes[2].remove.kind",
            "changes[3].replace.old_identifier",
            "changes[3].replace.new_identifier.kind",
            "changes[4].replace.new_identifier",
        ]
    );

    let verified = v1::Verification {
        state: v1::VerificationState::Verified.into(),
        method: "email_link".into(),
        verify_time: Some(prost_types::Timestamp {
            seconds: 2,
            nanos: 3_999_999,
        }),
    };
    let good = request(vec![replace(
        Some(reference(v1::IdentifierKind::Email)),
        Some(v1::Identifier {
            verification: Some(verified),
            login_enabled: Some(false),
            ..email("b@example.org")
        }),
    )]);
    let Operation::ChangeIdentifiers(change) = mutations::change_identifiers(good).unwrap().operation else {
        panic!("not a change of identifiers");
    };
    let [IdentifierChange::Replace { new, .. }] = change.changes.as_slice() else {
        panic!("not one replacement")
    };
    assert_eq!((new.primary, new.login_enabled), (None, Some(false)));
    let verification = NewVerification::Verified {
        method: "email_link".into(),
        time: Some(Millis(2_003)),
    };
    assert_eq!(new.verification, Some(verification));
}

#[test]
fn consistency_defaults_to_linearizable_and_is_checked() {
    let read = |consistency| {
        reads::get_account(v1::GetAccountRequest {
            name: NAME.into(),
            consistency,
        })
        .map(|get| get.freshness)
    };
    let stale = |seconds| {
        let max_staleness = Some(prost_types::Duration { seconds, nanos: 0 });
        Some(v1::consistency::Mode::Stale(v1::StaleRead { max_staleness }))
    };
    assert_eq!(read(None).unwrap(), Freshness::default());
    let none_chosen = v1::Consistency {
        mode: None,
        at_least_token: Default::default(),
    };
    assert_eq!(
        read(Some(none_chosen.clone())).unwrap().mode,
        ReadMode::Linearizable
    );
    let token = ConsistencyToken {
        cluster: [1; 8],
        realm: RealmNumber(1),
        placement: Placement(0),
        shard: ShardId(0),
        epoch: ShardEpoch(1),
        index: 9,
    };
    let both = v1::Consistency {
        mode: stale(3),
        at_least_token: token.encode(),
    };
    let expected = Freshness {
        mode: ReadMode::Stale(Some(Duration::from_secs(3))),
        at_least: Some(token),
    };
    assert_eq!(read(Some(both)).unwrap(), expected);
    let bad = v1::Consistency {
        mode: stale(-1),
        at_least_token: "x".into(),
    };
    assert_eq!(
        wrong(read(Some(bad))),
        ["consistency.stale.max_staleness", "consistency.at_least_token"]
    );
}

#[test]
fn lists_have_sizes_states_and_tokens_of_their_own() {
    let request = v1::ListAccountsRequest {
        parent: "realms/default".into(),
        ..Default::default()
    };
    let list = reads::list_accounts(request.clone()).unwrap();
    assert_eq!(
        (list.page_size, list.after.as_ref()),
        (reads::PAGE_SIZE_DEFAULT, None)
    );
    assert!(!list.parameters.states.contains(&AccountState::Deleted));
    assert!(list.parameters.states.contains(&AccountState::PendingDeletion));

    let position = Position {
        slot: Slot(3),
        account: holdfast_types::AccountId::new("a").unwrap(),
    };
    let page_token = page::encode(&list.parameters, &position);
    let next = v1::ListAccountsRequest {
        page_token,
        page_size: 5_000,
        ..request.clone()
    };
    let list = reads::list_accounts(next.clone()).unwrap();
    assert_eq!(
        (list.page_size, list.after),
        (reads::PAGE_SIZE_MAX, Some(position))
    );

    let other = v1::ListAccountsRequest {
        states: vec![v1::AccountState::Deleted.into()],
        ..next
    };
    assert_eq!(wrong(reads::list_accounts(other)), ["page_token"]);
    let bad = v1::ListAccountsRequest {
        page_size: -1,
        states: vec![1, 0, 77],
        page_token: "?".into(),
        ..request
    };
    assert_eq!(
        wrong(reads::list_accounts(bad)),
        ["page_size", "states[1]", "states[2]", "page_token"]
    );
}

#[test]
fn a_batch_names_each_account_once_in_one_realm() {
    let batch = |names: &[&str]| {
        reads::batch_get_accounts(v1::BatchGetAccountsRequest {
            parent: "realms/default".into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            consistency: None,
        })
    };
    assert_eq!(
        batch(&[NAME, "realms/default/accounts/b"])
            .unwrap()
            .accounts
            .len(),
        2
    );
    assert_eq!(
        wrong(batch(&[NAME, "?", "realms/other/accounts/b", NAME])),
        ["names[1]", "names[2]", "names[3]"]
    );
    let many: Vec<String> = (0..101)
        .map(|at| format!("realms/default/accounts/{at}"))
        .collect();
    assert_eq!(
        wrong(batch(&many.iter().map(String::as_str).collect::<Vec<_>>())),
        ["names"]
    );
}

#[test]
fn derived_ids_stay_the_same_whenever_an_item_is_sent() {
    let realm = default_realm();
    let caller = Caller::new("importer");
    let options = import::options(v1::ImportOptions {
        parent: "realms/default".into(),
        import_id: ID.into(),
        mode: v1::ImportMode::Upsert.into(),
        context: None,
    })
    .unwrap();
    let item = |index, birth| {
        let item = v1::ImportItem {
            index,
            account: Some(v1::Account::default()),
            ..Default::default()
        };
        import::item(&options, Millis(birth), item).unwrap()
    };
    let (first, again, other) = (item(1, 1_000), item(1, 2_000), item(2, 1_000));
    assert_eq!(
        first.account_in(&realm, &caller),
        again.account_in(&realm, &caller)
    );
    assert_ne!(
        first.account_in(&realm, &caller),
        other.account_in(&realm, &caller)
    );
    assert_ne!(first.request_id, again.request_id);
    assert_ne!(first.request_id, other.request_id);
    assert_eq!(first.request_id.birth(), Millis(1_000));
    assert!(matches!(
        first.operation,
        Operation::Import {
            mode: ImportMode::Upsert,
            ..
        }
    ));

    let created = mutations::create_account(v1::CreateAccountRequest {
        parent: "realms/default".into(),
        account: Some(v1::Account::default()),
        request_id: ID.into(),
        ..Default::default()
    })
    .unwrap();
    assert_eq!(
        created.account,
        AccountChoice::Derived(RequestId::parse(ID).unwrap())
    );
    assert_eq!(
        created.account_in(&realm, &caller),
        created.clone().into_request(&realm, caller).account
    );

    let bad = v1::ImportItem {
        index: 0,
        account_id: "a b".into(),
        account: None,
    };
    assert_eq!(
        wrong(import::item(&options, Millis(0), bad)),
        ["index", "account_id", "account"]
    );
    assert_eq!(
        wrong(import::options(v1::ImportOptions::default())),
        ["options.parent", "options.import_id", "options.mode"]
    );
}

#[test]
fn realm_rules_change_by_mask_and_within_bounds() {
    let realm = default_realm();
    let request = |paths: &[&str], config| v1::UpdateRealmRequest {
        realm: Some(v1::Realm {
            name: "realms/default".into(),
            config: Some(config),
            ..Default::default()
        }),
        update_mask: mask(paths),
        etag: realms::etag(&realm),
        ..Default::default()
    };
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let config = v1::RealmConfig {
        quarantine: seconds(60),
        default_phone_region: "CH".into(),
        ..Default::default()
    };
    let update = realms::update_realm(request(
        &["config.quarantine", "config.default_phone_region"],
        config,
    ))
    .unwrap();
    let after = update.apply(&realm.config);
    let expected = RealmConfig {
        quarantine_ms: 60_000,
        default_phone_region: "CH".into(),
        ..RealmConfig::default()
    };
    assert_eq!((after, update.etag.as_str()), (expected, "3"));

    let bad = v1::RealmConfig {
        quarantine: Some(prost_types::Duration { seconds: 1, nanos: 1 }),
        deletion_grace: seconds(-1),
        request_window: seconds(59),
        max_record_bytes: 1_023,
        default_phone_region: "ch".into(),
        ..Default::default()
    };
    let fields = [
        "config.quarantine",
        "config.deletion_grace",
        "config.request_window",
        "config.max_record_bytes",
        "config.unverified",
        "config.default_phone_region",
    ];
    let expected: Vec<String> = fields.iter().map(|field| format!("realm.{field}")).collect();
    assert_eq!(wrong(realms::update_realm(request(&fields, bad))), expected);
    let unknown = realms::update_realm(request(&["quarantine"], v1::RealmConfig::default()));
    assert_eq!(wrong(unknown), ["update_mask.paths[0]"]);
}

#[test]
fn an_answered_realm_can_be_set_again() {
    let realm = default_realm();
    let message = realms::to_message(&realm);
    let paths = [
        "config.quarantine",
        "config.deletion_grace",
        "config.request_window",
        "config.max_record_bytes",
        "config.unverified",
        "config.email_local_part_case_insensitive",
        "config.default_phone_region",
    ];
    let update = realms::update_realm(v1::UpdateRealmRequest {
        etag: message.etag.clone(),
        realm: Some(message),
        update_mask: mask(&paths),
        ..Default::default()
    });
    assert_eq!(update.unwrap().apply(&RealmConfig::default()), realm.config);
}

#[test]
fn a_member_is_not_replaced_by_itself() {
    let addresses = v1::MemberAddresses {
        peer: "a:1".into(),
        client: "a:2".into(),
        admin: "a".into(),
    };
    let request = v1::ReplaceMemberRequest {
        old_node_id: 3,
        new_node_id: 3,
        addresses: Some(addresses),
        ..Default::default()
    };
    assert_eq!(
        wrong(members::replace_member(request)),
        ["new_node_id", "addresses.admin"]
    );
}

#[test]
fn time_zones_are_names_of_the_database() {
    let create = |time_zone: &str| {
        mutations::create_account(v1::CreateAccountRequest {
            parent: "realms/default".into(),
            account: Some(v1::Account {
                time_zone: time_zone.into(),
                identifiers: vec![email("ann@example.com")],
                ..Default::default()
            }),
            request_id: ID.into(),
            ..Default::default()
        })
    };
    for good in [
        "",
        "Europe/Zurich",
        "America/Argentina/Buenos_Aires",
        "UTC",
        "Etc/GMT+3",
    ] {
        create(good).unwrap_or_else(|why| panic!("{good}: {why:?}"));
    }
    for bad in ["Europe/Atlantis", "europe/zurich", "CET1", "+01:00"] {
        assert_eq!(wrong(create(bad)), ["account.time_zone"], "{bad}");
    }
    let update = mutations::update_account(v1::UpdateAccountRequest {
        account: Some(v1::Account {
            name: NAME.into(),
            time_zone: "Mars/Olympus".into(),
            ..Default::default()
        }),
        update_mask: mask(&["time_zone"]),
        request_id: ID.into(),
        ..Default::default()
    });
    assert_eq!(wrong(update), ["account.time_zone"]);
}
