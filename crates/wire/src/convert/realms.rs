//! A realm's rules, both ways.

use std::time::Duration;

use holdfast_types::{Actor, Realm, RealmConfig, RealmId, Rejection, UnverifiedPolicy};

use super::accounts::realm_name;
use super::check::{Check, shown};
use super::time;
use crate::v1;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;

/// The paths that UpdateRealm's mask may hold.
const UPDATE_PATHS: &str = "config.quarantine, config.deletion_grace, config.request_window, \
     config.max_record_bytes, config.unverified, config.email_local_part_case_insensitive, \
     config.default_phone_region";

/// A realm as it is answered. Its keys stay where they are.
pub fn to_message(realm: &Realm) -> v1::Realm {
    let config = &realm.config;
    let unverified = match config.unverified {
        UnverifiedPolicy::LookupAndHold => v1::UnverifiedPolicy::LookupAndHold,
        UnverifiedPolicy::HoldOnly => v1::UnverifiedPolicy::HoldOnly,
    };
    v1::Realm {
        name: realm_name(&realm.id),
        etag: etag(realm),
        revision: realm.revision,
        config: Some(v1::RealmConfig {
            quarantine: Some(time::duration_ms(config.quarantine_ms)),
            deletion_grace: Some(time::duration_ms(config.deletion_grace_ms)),
            request_window: Some(time::duration_ms(config.request_window_ms)),
            max_record_bytes: config.max_record_bytes,
            unverified: unverified.into(),
            email_local_part_case_insensitive: config.email_local_part_case_insensitive,
            default_phone_region: config.default_phone_region.clone(),
        }),
    }
}

/// A realm's etag.
pub fn etag(realm: &Realm) -> String {
    realm.revision.to_string()
}

/// UpdateRealm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateRealm {
    /// The realm.
    pub realm: RealmId,
    /// The etag that it must have.
    pub etag: String,
    /// Only say what would be.
    pub validate_only: bool,
    /// On whose behalf and why.
    pub actor: Actor,
    changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    QuarantineMs(u64),
    DeletionGraceMs(u64),
    RequestWindowMs(u64),
    MaxRecordBytes(u32),
    Unverified(UnverifiedPolicy),
    EmailLocalPartCaseInsensitive(bool),
    DefaultPhoneRegion(String),
}

impl UpdateRealm {
    /// The rules after the change.
    pub fn apply(&self, config: &RealmConfig) -> RealmConfig {
        let mut config = config.clone();
        for change in &self.changes {
            match change.clone() {
                Change::QuarantineMs(ms) => config.quarantine_ms = ms,
                Change::DeletionGraceMs(ms) => config.deletion_grace_ms = ms,
                Change::RequestWindowMs(ms) => config.request_window_ms = ms,
                Change::MaxRecordBytes(bytes) => config.max_record_bytes = bytes,
                Change::Unverified(policy) => config.unverified = policy,
                Change::EmailLocalPartCaseInsensitive(yes) => config.email_local_part_case_insensitive = yes,
                Change::DefaultPhoneRegion(region) => config.default_phone_region = region,
            }
        }
        config
    }
}

/// Reads an UpdateRealm.
pub fn update_realm(message: v1::UpdateRealmRequest) -> Result<UpdateRealm, Rejection> {
    let mut check = Check::new();
    let realm = check.required("realm", message.realm).unwrap_or_default();
    let name = check.realm_name("realm.name", &realm.name);
    let config = check.required("realm.config", realm.config).unwrap_or_default();
    let paths = message.update_mask.unwrap_or_default().paths;
    if paths.is_empty() {
        check.wrong("update_mask", format!("must name at least one of {UPDATE_PATHS}"));
    }
    let changes = paths
        .iter()
        .enumerate()
        .filter_map(|(at, path)| change(&mut check, &format!("update_mask.paths[{at}]"), path, &config))
        .collect();
    if message.etag.is_empty() {
        check.wrong(
            "etag",
            "is required: read the realm and give the etag that the change was decided on",
        );
    }
    let actor = check.actor(message.context);
    let update = name.map(|realm| UpdateRealm {
        realm,
        etag: message.etag,
        validate_only: message.validate_only,
        actor,
        changes,
    });
    check.finish(update)
}

fn change(check: &mut Check, mask_field: &str, path: &str, config: &v1::RealmConfig) -> Option<Change> {
    let field = format!("realm.{path}");
    match path {
        "config.quarantine" => {
            whole_ms(check, &field, config.quarantine, 0, 3_650 * DAY_MS).map(Change::QuarantineMs)
        }
        "config.deletion_grace" => {
            whole_ms(check, &field, config.deletion_grace, 0, 3_650 * DAY_MS).map(Change::DeletionGraceMs)
        }
        "config.request_window" => {
            whole_ms(check, &field, config.request_window, MINUTE_MS, 7 * DAY_MS).map(Change::RequestWindowMs)
        }
        "config.max_record_bytes" => {
            let ok = (1_024..=1_048_576).contains(&config.max_record_bytes);
            if !ok {
                check.wrong(&field, "must be 1,024 to 1,048,576");
            }
            ok.then_some(Change::MaxRecordBytes(config.max_record_bytes))
        }
        "config.unverified" => match config.unverified() {
            v1::UnverifiedPolicy::LookupAndHold => Some(Change::Unverified(UnverifiedPolicy::LookupAndHold)),
            v1::UnverifiedPolicy::HoldOnly => Some(Change::Unverified(UnverifiedPolicy::HoldOnly)),
            v1::UnverifiedPolicy::Unspecified => {
                check.wrong(&field, "must be LOOKUP_AND_HOLD or HOLD_ONLY");
                None
            }
        },
        "config.email_local_part_case_insensitive" => Some(Change::EmailLocalPartCaseInsensitive(
            config.email_local_part_case_insensitive,
        )),
        "config.default_phone_region" => {
            let region = config.default_phone_region.clone();
            let ok = region.is_empty() || region.len() == 2 && region.bytes().all(|b| b.is_ascii_uppercase());
            if !ok {
                check.wrong(
                    &field,
                    "must be two capital letters (ISO 3166-1 alpha-2), or empty",
                );
            }
            ok.then_some(Change::DefaultPhoneRegion(region))
        }
        unknown => {
            check.wrong(
                mask_field,
                format!("`{}` cannot be updated; what can: {UPDATE_PATHS}", shown(unknown)),
            );
            None
        }
    }
}

fn whole_ms(
    check: &mut Check,
    field: &str,
    duration: Option<prost_types::Duration>,
    min_ms: u64,
    max_ms: u64,
) -> Option<u64> {
    let duration = check.required(field, duration)?;
    let duration = time::not_negative(check, field, duration)?;
    let ms = u64::try_from(duration.as_millis())
        .ok()
        .filter(|ms| (min_ms..=max_ms).contains(ms) && Duration::from_millis(*ms) == duration);
    if ms.is_none() {
        let (min_s, max_s) = (min_ms / 1_000, max_ms / 1_000);
        check.wrong(
            field,
            format!("must be {min_s} to {max_s} seconds, in whole milliseconds"),
        );
    }
    ms
}
