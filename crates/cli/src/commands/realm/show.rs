//! How a realm is shown.

use holdfast_client::v1;
use serde_json::json;

use crate::args::{Global, token_text};
use crate::exit::{Exit, Failure};
use crate::output;

/// Prints the realm of an answer.
pub(super) fn realm(
    global: &Global,
    realm: Option<v1::Realm>,
    token: &[u8],
    validate_only: bool,
) -> Result<(), Failure> {
    let realm = realm.ok_or_else(|| Failure::new(Exit::Internal, "the answer holds no realm"))?;
    let config = realm.config.clone().unwrap_or_default();
    let unverified = config
        .unverified()
        .as_str_name()
        .trim_start_matches("UNVERIFIED_POLICY_");
    let document = json!({
        "realm": {
            "name": realm.name,
            "etag": realm.etag,
            "revision": realm.revision,
            "config": {
                "quarantine": seconds_text(config.quarantine),
                "deletion_grace": seconds_text(config.deletion_grace),
                "request_window": seconds_text(config.request_window),
                "max_record_bytes": config.max_record_bytes,
                "unverified": unverified,
                "email_local_part_case_insensitive": config.email_local_part_case_insensitive,
                "default_phone_region": config.default_phone_region,
            },
        },
        "consistency_token": token_text(token),
        "validate_only": validate_only,
    });
    output::result(global.output, &document, || {
        let fields = [
            ("name", realm.name.clone()),
            ("etag", realm.etag.clone()),
            ("quarantine", duration_text(config.quarantine)),
            ("deletion_grace", duration_text(config.deletion_grace)),
            ("request_window", duration_text(config.request_window)),
            ("max_record_bytes", config.max_record_bytes.to_string()),
            ("unverified", unverified.to_owned()),
            (
                "email_local_part_case_insensitive",
                config.email_local_part_case_insensitive.to_string(),
            ),
            ("default_phone_region", config.default_phone_region.clone()),
        ];
        let mut text = output::fields(&fields);
        if validate_only {
            text.push_str("nothing was changed (--validate-only)");
        }
        text
    })
}

/// As protobuf's JSON has it: `604800s`, `1.500s`.
fn seconds_text(duration: Option<prost_types::Duration>) -> String {
    let duration = duration.unwrap_or_default();
    match duration.nanos / 1_000_000 {
        0 => format!("{}s", duration.seconds),
        millis => format!("{}.{millis:03}s", duration.seconds),
    }
}

/// As people write it: `7d`. `--quarantine` and its like read both.
fn duration_text(duration: Option<prost_types::Duration>) -> String {
    let duration = duration.unwrap_or_default();
    let millis = duration.seconds * 1_000 + i64::from(duration.nanos) / 1_000_000;
    for (unit, ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis % ms == 0 && millis > 0 {
            return format!("{}{unit}", millis / ms);
        }
    }
    format!("{millis}ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{duration, duration_message};

    #[test]
    fn durations_are_shown_as_they_are_given() {
        for text in ["30d", "36h", "90m", "15s", "1500ms", "0ms"] {
            let message = Some(duration_message(duration(text).unwrap()));
            assert_eq!(duration_text(message), text);
            assert_eq!(duration(&seconds_text(message)), duration(text));
        }
    }
}
