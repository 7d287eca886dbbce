//! Which rules a realm may have.

use holdfast_types::{FieldViolation, RealmConfig};

use crate::normalize::is_region;

const DAY_MS: u64 = 86_400_000;
const MINUTE_MS: u64 = 60_000;

/// What is wrong with these rules; nothing: they may be proposed. Paths are those of the public `Realm` message.
pub fn check_config(config: &RealmConfig) -> Vec<FieldViolation> {
    let RealmConfig {
        quarantine_ms,
        deletion_grace_ms,
        request_window_ms,
        max_record_bytes,
        unverified: _,
        email_local_part_case_insensitive: _,
        default_phone_region,
    } = config;
    let region = default_phone_region;
    let region_ok = region.is_empty()
        || (region.len() == 2 && region.bytes().all(|b| b.is_ascii_uppercase()) && is_region(region));
    let checks = [
        (*quarantine_ms <= 3_650 * DAY_MS, "quarantine", "0 to 3,650 days"),
        (
            *deletion_grace_ms <= 3_650 * DAY_MS,
            "deletion_grace",
            "0 to 3,650 days",
        ),
        (
            (MINUTE_MS..=7 * DAY_MS).contains(request_window_ms),
            "request_window",
            "1 minute to 7 days",
        ),
        (
            (1_024..=1_048_576).contains(max_record_bytes),
            "max_record_bytes",
            "1,024 to 1,048,576",
        ),
        (
            region_ok,
            "default_phone_region",
            "an ISO 3166-1 alpha-2 code with phone numbers of its own, or empty",
        ),
    ];
    let violations = checks.into_iter().filter(|(ok, _, _)| !ok);
    violations
        .map(|(_, field, rule)| FieldViolation::new(format!("realm.config.{field}"), rule))
        .collect()
}

/// Whether claims would have other names under the new rules. Then they may change only before the realm has had an
/// account: the same address would get a second name, and with it perhaps a second owner.
pub fn renames_claims(before: &RealmConfig, after: &RealmConfig) -> bool {
    before.email_local_part_case_insensitive != after.email_local_part_case_insensitive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_rules_are_fine_and_nonsense_is_not() {
        assert_eq!(check_config(&RealmConfig::default()), vec![]);
        let swiss = RealmConfig {
            default_phone_region: "CH".into(),
            ..RealmConfig::default()
        };
        assert_eq!(check_config(&swiss), vec![]);
        let nonsense = RealmConfig {
            quarantine_ms: u64::MAX,
            deletion_grace_ms: u64::MAX,
            request_window_ms: 0,
            max_record_bytes: 0,
            default_phone_region: "XQ".into(),
            ..RealmConfig::default()
        };
        let fields: Vec<String> = check_config(&nonsense)
            .into_iter()
            .map(|violation| violation.field)
            .collect();
        let names = [
            "quarantine",
            "deletion_grace",
            "request_window",
            "max_record_bytes",
            "default_phone_region",
        ];
        assert_eq!(fields, names.map(|name| format!("realm.config.{name}")));
    }
}
