//! Tables of identifiers from several countries and scripts: what becomes of them, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test stops at whatever it does not expect")]

use holdfast_accounts::{canonicalize, normalize::NORMALIZER_VERSION};
use holdfast_types::{IdentifierKind, RealmConfig};
use proptest::prelude::*;

use IdentifierKind::{Email, External, Phone, Username};

fn config() -> RealmConfig {
    RealmConfig {
        default_phone_region: "CH".into(),
        ..RealmConfig::default()
    }
}

fn check(kind: IdentifierKind, table: &[(&str, &str)]) {
    for (value, expected) in table {
        match canonicalize(kind, value, "", &config()) {
            Ok(canonical) => {
                assert_eq!(canonical.text, *expected, "{value:?}");
                assert_eq!(canonical.normalizer, NORMALIZER_VERSION);
                let again = canonicalize(kind, expected, "", &config()).unwrap();
                assert_eq!(again, canonical, "{value:?} twice");
            }
            Err(reason) => panic!("{value:?} was refused: {reason}"),
        }
    }
}

fn refused(kind: IdentifierKind, table: &[&str]) {
    for value in table {
        let result = canonicalize(kind, value, "", &config());
        let reason = result.map(|canonical| canonical.text).expect_err(value);
        let bare = value.trim();
        assert!(
            bare.len() < 4 || !reason.contains(bare),
            "the reason repeats the value: {reason}"
        );
    }
}

#[test]
fn emails() {
    check(
        Email,
        &[
            ("ann@example.com", "ann@example.com"),
            ("  Ann.Lee+News@Example.COM ", "ann.lee+news@example.com"),
            (
                "o'hara!#$%&*/=?^_`{|}~-@example.co.uk",
                "o'hara!#$%&*/=?^_`{|}~-@example.co.uk",
            ),
            // Domains become A-labels, however they were typed.
            ("info@müller.example", "info@xn--mller-kva.example"),
            ("info@MÜLLER.example", "info@xn--mller-kva.example"),
            ("info@mu\u{308}ller.example", "info@xn--mller-kva.example"),
            ("info@xn--mller-kva.example", "info@xn--mller-kva.example"),
            ("info@straße.example", "info@xn--strae-oqa.example"),
            ("info@例え.テスト", "info@xn--r8jz45g.xn--zckzah"),
            ("info@пример.рф", "info@xn--e1afmkfd.xn--p1ai"),
            ("info@ｅｘａｍｐｌｅ。com", "info@example.com"),
            // Local parts beyond ASCII (RFC 6531), composed and in lower case.
            ("JOSÉ@example.es", "josé@example.es"),
            ("jose\u{301}@example.es", "josé@example.es"),
            // Lower-casing İ brings out a dot that has to be put in order again with the mark below.
            ("\u{130}\u{316}@example.com", "i\u{316}\u{307}@example.com"),
            ("Ωμέγα@example.gr", "ωμέγα@example.gr"),
            ("用户@example.cn", "用户@example.cn"),
            ("प्रिया@example.in", "प्रिया@example.in"),
        ],
    );
    refused(
        Email,
        &[
            "",
            "   ",
            "nonsense",
            "@example.com",
            "ann@",
            "ann@localhost",
            "ann@127.0.0.1",
            "ann@[127.0.0.1]",
            "ann@example..com",
            "ann@example.com.",
            "ann@-example.com",
            "ann@exa mple.com",
            "ann@exam_ple.com",
            ".ann@example.com",
            "ann.@example.com",
            "a..nn@example.com",
            "a nn@example.com",
            "\"a nn\"@example.com",
            "ann@lee@example.com",
            "ann\u{200b}@example.com",
            "ann\u{202e}@example.com",
            "ann,bob@example.com",
            "Ann <ann@example.com>",
            "ann\u{7}@example.com",
        ],
    );
    let long_local = format!("{}@example.com", "x".repeat(65));
    let long_domain = format!("ann@{}.com", ["x".repeat(62).as_str(); 4].join("."));
    let long_address = format!(
        "{}@{}.com",
        "x".repeat(64),
        ["x".repeat(62).as_str(); 3].join(".")
    );
    let long_label = format!("ann@{}.com", "x".repeat(64));
    refused(Email, &[&long_local, &long_domain, &long_label, &long_address]);
}

#[test]
fn case_of_local_parts_is_the_realms_policy() {
    let sensitive = RealmConfig {
        email_local_part_case_insensitive: false,
        ..config()
    };
    let canonical = canonicalize(Email, "Ann@Example.COM", "", &sensitive).unwrap();
    assert_eq!(canonical.text, "Ann@example.com");
}

#[test]
fn phones() {
    check(
        Phone,
        &[
            ("+41 44 668 18 00", "+41446681800"),
            ("044 668 18 00", "+41446681800"),
            ("+41(0)44-668-18-00", "+41446681800"),
            ("+41/44/6681800", "+41446681800"),
            ("+44 (0)20 7946 0018", "+442079460018"),
            ("+44 7700 900123", "+447700900123"),
            ("+1 (202) 555-0143", "+12025550143"),
            ("+1.555.555.0143", "+15555550143"),
            ("+49 151 12345678", "+4915112345678"),
            ("+33 6 12 34 56 78", "+33612345678"),
            // Italy keeps its leading zero.
            ("+39 02 3661 8300", "+390236618300"),
            ("+91 98765 43210", "+919876543210"),
            ("+86 138 1234 5678", "+8613812345678"),
            ("+81 3-1234-5678", "+81312345678"),
            ("+55 11 98765-4321", "+5511987654321"),
            ("+54 9 11 2345 6789", "+5491123456789"),
            ("+380 50 123 45 67", "+380501234567"),
            ("+234 801 234 5678", "+2348012345678"),
            ("+358 40 1234567", "+358401234567"),
            // Digits as keyboards in Cairo, Tehran, Delhi and Tokyo type them.
            ("+٤١٤٤٦٦٨١٨٠٠", "+41446681800"),
            ("+۴۱۴۴۶۶۸۱۸۰۰", "+41446681800"),
            ("+४१४४६६८१८००", "+41446681800"),
            ("＋４１４４６６８１８００", "+41446681800"),
            ("\u{a0}+41\u{202f}44\u{2011}668 18 00", "+41446681800"),
        ],
    );
    refused(
        Phone,
        &[
            "",
            "+",
            "12",
            "+999123456",
            "+0123456789",
            "+4144",
            "+1202555014",
            "+120255501433",
            "+41446681800123456",
            "1-800-FLOWERS",
            "+41 44 668 18 00 ext. 5",
            "tel:+41446681800",
            "41+446681800",
            "++41446681800",
            "+41446681800;x",
            "ann",
        ],
    );
    // Without a default region, only the international form will do.
    let nowhere = RealmConfig::default();
    assert!(canonicalize(Phone, "044 668 18 00", "", &nowhere).is_err());
    assert!(canonicalize(Phone, "+41 44 668 18 00", "", &nowhere).is_ok());
}

#[test]
fn usernames() {
    check(
        Username,
        &[
            ("ann", "ann"),
            ("  Ann.Lee-7_x ", "ann.lee-7_x"),
            ("ＡＮＮ", "ann"),
            ("Jose\u{301}", "josé"),
            ("STRAẞE", "straße"),
            ("Иван", "иван"),
            ("Ωμέγα", "ωμέγα"),
            ("משה", "משה"),
            ("أحمد", "أحمد"),
            ("田中さくら", "田中さくら"),
            ("김철수", "김철수"),
            ("プリヤ7", "プリヤ7"),
            ("0xcafe", "0xcafe"),
            ("a", "a"),
        ],
    );
    refused(
        Username,
        &[
            "",
            " ",
            "ann lee",
            "ann@example.com",
            "ann＠example",
            "12345",
            "+41446681800",
            "+ann",
            "079-666 12 34",
            "٤١٤٤",
            "...",
            // A Cyrillic а among Latin letters; Greek and Latin.
            "p\u{430}ypal",
            "αlpha",
            "ann\u{200b}",
            "ann\u{202e}lee",
            "ann\u{7}",
            "☃snow",
            "ann\u{ad}lee",
        ],
    );
    refused(Username, &[&"x".repeat(65)]);
    check(Username, &[(&"x".repeat(64), &"x".repeat(64))]);
}

#[test]
fn external_identifiers_are_exact() {
    let config = config();
    let subject = canonicalize(External, " Sub|7 ", "https://idp.example/", &config).unwrap();
    assert_eq!(
        (subject.issuer.as_str(), subject.text.as_str()),
        ("https://idp.example/", " Sub|7 ")
    );
    assert!(canonicalize(External, "sub", "", &config).is_err());
    assert!(canonicalize(External, "", "https://idp.example", &config).is_err());
    assert!(canonicalize(External, "a\nb", "https://idp.example", &config).is_err());
    assert!(canonicalize(External, "sub", &"x".repeat(256), &config).is_err());
    assert!(canonicalize(External, &"x".repeat(321), "i", &config).is_err());
    assert!(canonicalize(Email, "ann@example.com", "https://idp.example", &config).is_err());
}

/// Text from the alphabets, marks and traps that identifiers are made of.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z0-9]{1,4}",
        1 => "[.+@_ ()/-]",
        1 => "[éÉßẞİıſσςΣΩάǅﬁ]{1,2}",
        1 => "[\u{300}-\u{308}\u{345}]",
        1 => "[а-яА-Яא-תء-ي०-९٠-٩々ぁ-んァ-ヶ가-힣ａ-ｚＡ-Ｚ０-９]{1,3}",
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn value(kind: IdentifierKind) -> BoxedStrategy<String> {
    match kind {
        Email => (text(), text())
            .prop_map(|(local, domain)| format!("{local}@{domain}.example"))
            .boxed(),
        Phone => "[+]?[0-9 ()/.-]{0,18}".boxed(),
        _ => text().boxed(),
    }
}

fn kind_and_value() -> impl Strategy<Value = (IdentifierKind, String)> {
    prop_oneof![Just(Email), Just(Phone), Just(Username)]
        .prop_flat_map(|kind| value(kind).prop_map(move |value| (kind, value)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is accepted is its own canonical form, and no two kinds can mean the same claim.
    #[test]
    fn canonical_forms_are_stable_and_apart((kind, value) in kind_and_value(), sensitive: bool) {
        let config = RealmConfig { email_local_part_case_insensitive: !sensitive, ..config() };
        if let Ok(canonical) = canonicalize(kind, &value, "", &config) {
            let again = canonicalize(kind, &canonical.text, "", &config);
            prop_assert_eq!(again.as_ref(), Ok(&canonical));
            for other in [Email, Phone, Username].into_iter().filter(|other| *other != kind) {
                let other = canonicalize(other, &canonical.text, "", &config);
                prop_assert!(other.is_err(), "{:?} is also {:?}", canonical, other);
            }
        }
    }
}
