//! What the schema's tests share: fixed realms, and strategies for every record.

use std::collections::BTreeMap;
use std::fmt::Write;

use holdfast_accounts::{ChangeEvent, ChangeKind, Claim, ClaimState, Outcome, RequestRecord};
use holdfast_types::{
    Account, AccountId, AccountState, Actor, Attribute, AttributeValue, CanonicalIdentifier, ClaimKey,
    Deletion, Identifier, IdentifierKind, Millis, Realm, RealmConfig, RealmId, RealmNumber, Refusal,
    RequestId, Restriction, UnverifiedPolicy, Verification,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A realm with fixed keys; its name and number follow from `number`.
pub(super) fn realm(number: u32) -> Realm {
    Realm {
        id: RealmId::new(format!("r{number}")).unwrap(),
        number: RealmNumber(number),
        slot_key: [number as u8; 32],
        claim_keys: vec![ClaimKey {
            id: 1,
            key: [0xc0 | number as u8; 32],
        }],
        config: RealmConfig {
            quarantine_ms: 1,
            deletion_grace_ms: 2,
            request_window_ms: 3,
            max_record_bytes: 4,
            unverified: UnverifiedPolicy::HoldOnly,
            email_local_part_case_insensitive: true,
            default_phone_region: "CH".into(),
        },
        revision: 1,
    }
}

/// An account without anything.
pub(super) fn plain_account(id: &str) -> Account {
    Account {
        id: AccountId::new(id).unwrap(),
        revision: 1,
        display_name: String::new(),
        locale: String::new(),
        time_zone: String::new(),
        identifiers: Vec::new(),
        attributes: BTreeMap::new(),
        labels: BTreeMap::new(),
        restrictions: Vec::new(),
        deletion: None,
        create_time: Millis(1),
        update_time: Millis(1),
    }
}

pub(super) fn account_id() -> impl Strategy<Value = AccountId> {
    vec(select((b'!'..=b'~').collect::<Vec<u8>>()), 1..64).prop_filter_map("account ids", |bytes| {
        AccountId::new(String::from_utf8(bytes).unwrap()).ok()
    })
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

fn millis() -> impl Strategy<Value = Millis> {
    any::<u64>().prop_map(Millis)
}

fn kind() -> impl Strategy<Value = IdentifierKind> {
    select(vec![
        IdentifierKind::Email,
        IdentifierKind::Phone,
        IdentifierKind::Username,
        IdentifierKind::External,
    ])
}

/// Short texts of few letters, so that equal ones turn up.
pub(super) fn canonical() -> impl Strategy<Value = CanonicalIdentifier> {
    (kind(), "[ab]{0,2}", "[ab]{0,2}", 0..3_u32).prop_map(|(kind, issuer, text, normalizer)| {
        CanonicalIdentifier {
            kind,
            issuer,
            text,
            normalizer,
        }
    })
}

fn identifier() -> impl Strategy<Value = Identifier> {
    let verification = (text(), millis()).prop_map(|(method, time)| Verification { method, time });
    (
        text(),
        canonical(),
        any::<bool>(),
        any::<bool>(),
        option::of(verification),
        millis(),
    )
        .prop_map(
            |(value, canonical, primary, login_enabled, verification, create_time)| Identifier {
                value,
                canonical,
                primary,
                login_enabled,
                verification,
                create_time,
            },
        )
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let value = prop_oneof![
        text().prop_map(AttributeValue::String),
        any::<i64>().prop_map(AttributeValue::Int64),
        any::<f64>().prop_map(AttributeValue::Double),
        any::<bool>().prop_map(AttributeValue::Bool),
        any::<Vec<u8>>().prop_map(AttributeValue::Bytes),
        (any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| AttributeValue::Timestamp(seconds, nanos)),
        vec(text(), 0..4).prop_map(AttributeValue::Strings),
    ];
    (value, text(), millis()).prop_map(|(value, source, update_time)| Attribute {
        value,
        source,
        update_time,
    })
}

pub(super) fn account() -> impl Strategy<Value = Account> {
    let restriction = (text(), millis()).prop_map(|(code, create_time)| Restriction { code, create_time });
    let deletion =
        (millis(), millis(), any::<bool>()).prop_map(|(request_time, purge_time, purged)| Deletion {
            request_time,
            purge_time,
            purged,
        });
    let body = (
        (text(), text(), text()),
        vec(identifier(), 0..4),
        btree_map(text(), attribute(), 0..6),
        btree_map(text(), text(), 0..4),
    );
    let header = (
        account_id(),
        any::<u64>(),
        vec(restriction, 0..3),
        option::of(deletion),
        millis(),
        millis(),
    );
    (header, body).prop_map(
        |(
            (id, revision, restrictions, deletion, create_time, update_time),
            ((display_name, locale, time_zone), identifiers, attributes, labels),
        )| Account {
            id,
            revision,
            display_name,
            locale,
            time_zone,
            identifiers,
            attributes,
            labels,
            restrictions,
            deletion,
            create_time,
            update_time,
        },
    )
}

pub(super) fn claim() -> impl Strategy<Value = Claim> {
    let state = prop_oneof![
        any::<bool>().prop_map(|verified| ClaimState::Held { verified }),
        millis().prop_map(|until| ClaimState::Quarantined { until }),
    ];
    (account_id(), state).prop_map(|(owner, state)| Claim { owner, state })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let state = select(vec![
        AccountState::Active,
        AccountState::Suspended,
        AccountState::PendingDeletion,
        AccountState::Deleted,
        AccountState::Merged,
    ]);
    prop_oneof![
        Just(Refusal::AccountExists),
        Just(Refusal::AccountNotFound),
        Just(Refusal::AccountPurged),
        state.prop_map(|state| Refusal::StateForbids { state }),
        (kind(), any::<u32>()).prop_map(|(kind, index)| Refusal::IdentifierUnavailable { kind, index }),
        any::<u32>().prop_map(|index| Refusal::IdentifierNotFound { index }),
        (text(), any::<u64>(), any::<u64>()).prop_map(|(what, limit, actual)| Refusal::LimitExceeded {
            what,
            limit,
            actual
        }),
    ]
}

pub(super) fn request_record() -> impl Strategy<Value = RequestRecord> {
    let outcome = prop_oneof![
        (account_id(), any::<u64>()).prop_map(|(account, revision)| Outcome::Done { account, revision }),
        (account_id(), refusal()).prop_map(|(account, refusal)| Outcome::Refused { account, refusal }),
    ];
    (any::<[u8; 32]>(), outcome).prop_map(|(digest, outcome)| RequestRecord { digest, outcome })
}

pub(super) fn change_event() -> impl Strategy<Value = ChangeEvent> {
    let what = select(vec![
        ChangeKind::Created,
        ChangeKind::Updated,
        ChangeKind::IdentifiersChanged,
        ChangeKind::DeletionRequested,
        ChangeKind::Undeleted,
        ChangeKind::Purged,
    ]);
    let actor = (text(), text(), text()).prop_map(|(actor, reason, trace_id)| Actor {
        actor,
        reason,
        trace_id,
    });
    let request = (0..1_u64 << 48, any::<[u8; 10]>())
        .prop_map(|(birth, entropy)| RequestId::from_parts(Millis(birth), entropy));
    (
        what,
        account_id(),
        any::<u64>(),
        vec(text(), 0..4),
        vec(kind(), 0..4),
        actor,
        option::of(request),
    )
        .prop_map(
            |(kind, account, revision, fields, identifier_kinds, actor, request_id)| ChangeEvent {
                kind,
                account,
                revision,
                fields,
                identifier_kinds,
                actor,
                request_id,
            },
        )
}

pub(super) fn any_realm() -> impl Strategy<Value = Realm> {
    let claim_key = (any::<u8>(), any::<[u8; 32]>()).prop_map(|(id, key)| ClaimKey { id, key });
    let policy = select(vec![UnverifiedPolicy::LookupAndHold, UnverifiedPolicy::HoldOnly]);
    let config = (any::<[u64; 3]>(), any::<u32>(), policy, any::<bool>(), text()).prop_map(
        |(
            [quarantine_ms, deletion_grace_ms, request_window_ms],
            max_record_bytes,
            unverified,
            fold,
            region,
        )| {
            RealmConfig {
                quarantine_ms,
                deletion_grace_ms,
                request_window_ms,
                max_record_bytes,
                unverified,
                email_local_part_case_insensitive: fold,
                default_phone_region: region,
            }
        },
    );
    (
        "[a-z][a-z0-9]{0,8}",
        any::<u32>(),
        any::<[u8; 32]>(),
        vec(claim_key, 1..4),
        config,
        any::<u64>(),
    )
        .prop_map(|(id, number, slot_key, claim_keys, config, revision)| Realm {
            id: RealmId::new(id).unwrap(),
            number: RealmNumber(number),
            slot_key,
            claim_keys,
            config,
            revision,
        })
}
