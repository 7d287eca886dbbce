//! What goes out comes back: accounts through messages and bytes, and an exported account as a request.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;

use holdfast_accounts::{NewVerification, Operation};
use holdfast_types::{
    Account, AccountId, Attribute, AttributeValue, CanonicalIdentifier, Deletion, Identifier, IdentifierKind,
    Millis, RealmId, Restriction, Verification,
};
use holdfast_wire::convert::{accounts, mutations};
use holdfast_wire::v1;
use proptest::prelude::*;
use prost::Message as _;

fn millis() -> impl Strategy<Value = Millis> {
    (0..=253_402_300_799_999u64).prop_map(Millis)
}

fn value() -> impl Strategy<Value = AttributeValue> {
    prop_oneof![
        ".{0,12}".prop_map(AttributeValue::String),
        any::<i64>().prop_map(AttributeValue::Int64),
        prop::num::f64::NORMAL.prop_map(AttributeValue::Double),
        any::<bool>().prop_map(AttributeValue::Bool),
        prop::collection::vec(any::<u8>(), 0..12).prop_map(AttributeValue::Bytes),
        (-62_135_596_800i64..=253_402_300_799, 0..1_000_000_000i32)
            .prop_map(|(seconds, nanos)| AttributeValue::Timestamp(seconds, nanos)),
        prop::collection::vec(".{0,6}", 0..4).prop_map(AttributeValue::Strings),
    ]
}

fn attribute() -> impl Strategy<Value = Attribute> {
    (value(), "[a-z]{0,8}", millis()).prop_map(|(value, source, update_time)| Attribute {
        value,
        source,
        update_time,
    })
}

fn identifier() -> impl Strategy<Value = Identifier> {
    let kind = prop_oneof![
        Just(IdentifierKind::Email),
        Just(IdentifierKind::Phone),
        Just(IdentifierKind::Username),
        Just(IdentifierKind::External),
    ];
    let verification = prop::option::of(("[a-z]{1,8}", millis()))
        .prop_map(|proof| proof.map(|(method, time)| Verification { method, time }));
    (
        kind,
        ".{1,12}",
        ".{0,8}",
        ".{1,12}",
        any::<u32>(),
        any::<(bool, bool)>(),
        verification,
        millis(),
    )
        .prop_map(
            |(kind, value, issuer, text, normalizer, (primary, login_enabled), verification, create_time)| {
                Identifier {
                    value,
                    canonical: CanonicalIdentifier {
                        kind,
                        issuer,
                        text,
                        normalizer,
                    },
                    primary,
                    login_enabled,
                    verification,
                    create_time,
                }
            },
        )
}

fn account() -> impl Strategy<Value = Account> {
    let deletion = prop::option::of((millis(), millis(), any::<bool>())).prop_map(|deletion| {
        deletion.map(|(request_time, purge_time, purged)| Deletion {
            request_time,
            purge_time,
            purged,
        })
    });
    let restrictions = prop::collection::btree_map("[a-z]{1,6}", millis(), 0..3).prop_map(|restrictions| {
        restrictions
            .into_iter()
            .map(|(code, create_time)| Restriction { code, create_time })
            .collect()
    });
    (
        (
            "[a-zA-Z0-9@._-]{3,40}",
            any::<u64>(),
            ".{0,12}",
            "[a-z]{0,4}",
            "(UTC|Europe/Zurich|)",
        ),
        prop::collection::vec(identifier(), 0..4),
        prop::collection::btree_map("[a-z]{1,6}", attribute(), 0..4),
        prop::collection::btree_map("[a-z]{1,6}", "[a-z]{0,6}", 0..4),
        restrictions,
        deletion,
        (millis(), millis()),
    )
        .prop_map(
            |(fixed, identifiers, attributes, labels, restrictions, deletion, times)| Account {
                id: AccountId::new(fixed.0).unwrap(),
                revision: fixed.1,
                display_name: fixed.2,
                locale: fixed.3,
                time_zone: fixed.4,
                identifiers,
                attributes,
                labels,
                restrictions,
                deletion,
                create_time: times.0,
                update_time: times.1,
            },
        )
}

proptest! {
    #[test]
    fn accounts_survive_the_wire(account in account()) {
        let realm = RealmId::default_realm();
        let message = accounts::to_message(&realm, account.clone());
        let bytes = message.encode_to_vec();
        let read = v1::Account::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(&read, &message);
        let (its_realm, back) = accounts::from_message(read).unwrap();
        prop_assert_eq!(its_realm, realm);
        prop_assert_eq!(back, account);
    }

    #[test]
    fn an_answered_account_can_be_asked_for(account in account()) {
        let realm = RealmId::default_realm();
        let request = v1::CreateAccountRequest {
            parent: "realms/default".into(),
            account_id: account.id.to_string(),
            account: Some(accounts::to_message(&realm, account.clone())),
            request_id: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
            context: None,
        };
        let mutation = mutations::create_account(request).unwrap();
        let Operation::Create(new) = mutation.operation else { panic!("not a create") };
        prop_assert_eq!(new.display_name, account.display_name);
        prop_assert_eq!(new.labels, account.labels);
        prop_assert_eq!(new.restrictions.len(), account.restrictions.len());
        let values: BTreeMap<_, _> = new.attributes.into_iter().map(|(name, new)| (name, new.value)).collect();
        let expected: BTreeMap<_, _> = account.attributes.into_iter().map(|(name, old)| (name, old.value)).collect();
        prop_assert_eq!(values, expected);
        prop_assert_eq!(new.identifiers.len(), account.identifiers.len());
        for (new, old) in new.identifiers.into_iter().zip(account.identifiers) {
            prop_assert_eq!((new.kind, new.issuer, new.value), (old.canonical.kind, old.canonical.issuer, old.value));
            prop_assert_eq!((new.primary, new.login_enabled), (Some(old.primary), Some(old.login_enabled)));
            let verification = match old.verification {
                Some(proof) => NewVerification::Verified { method: proof.method, time: Some(proof.time) },
                None => NewVerification::Unverified,
            };
            prop_assert_eq!(new.verification, Some(verification));
        }
    }

    #[test]
    fn no_request_bytes_make_the_conversions_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = v1::CreateAccountRequest::decode(bytes.as_slice()) {
            let _ = mutations::create_account(message);
        }
        if let Ok(message) = v1::UpdateAccountRequest::decode(bytes.as_slice()) {
            let _ = mutations::update_account(message);
        }
        if let Ok(message) = v1::ChangeIdentifiersRequest::decode(bytes.as_slice()) {
            let _ = mutations::change_identifiers(message);
        }
        if let Ok(message) = v1::Account::decode(bytes.as_slice()) {
            let _ = accounts::from_message(message);
        }
    }
}
