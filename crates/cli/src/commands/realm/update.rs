//! `holdfast realm update`

use std::time::Duration;

use clap::{Args, ValueEnum};
use holdfast_client::v1;

use super::show;
use crate::args::{Global, Why, duration, duration_message};
use crate::exit::Failure;

/// Change rules. They hold for requests evaluated afterwards; deadlines already set stay.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// How long nobody else can claim an identifier after it was removed, as in 30d.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    quarantine: Option<Duration>,
    /// How long a deletion can be undone.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    deletion_grace: Option<Duration>,
    /// How old a request id may be.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    request_window: Option<Duration>,
    /// The largest account record.
    #[arg(long, value_name = "BYTES")]
    max_record_bytes: Option<u32>,
    /// What an identifier that nobody has verified may do.
    #[arg(long, value_enum)]
    unverified: Option<Unverified>,
    /// Whether the local part of an email address is compared without regard to case. Fixed by the first account.
    #[arg(long, value_name = "BOOL")]
    email_local_part_case_insensitive: Option<bool>,
    /// Region in which phone numbers without + are read, as in CH; empty: refuse them.
    #[arg(long, value_name = "REGION")]
    default_phone_region: Option<String>,
    /// The etag of the rules this was decided on; if not given, the present one.
    #[arg(long, value_name = "ETAG")]
    etag: Option<String>,
    /// Check the change and show what would be, but change nothing.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    why: Why,
}

/// What an identifier that nobody has verified may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Unverified {
    /// It is reserved, and lookups find it.
    LookupAndHold,
    /// It is reserved, but lookups do not find it.
    HoldOnly,
}

/// Runs the command.
pub(super) async fn run(update: &Update, global: &Global) -> Result<(), Failure> {
    let (config, paths) = changes(update);
    if paths.is_empty() {
        return Err(Failure::usage(
            "nothing to change; see `holdfast realm update --help`",
        ));
    }
    let client = global.client()?;
    let etag = match &update.etag {
        Some(etag) => etag.clone(),
        None => {
            let request = v1::GetRealmRequest {
                name: global.realm_name(),
                consistency: None,
            };
            client
                .get_realm(request, &global.call())
                .await?
                .realm
                .unwrap_or_default()
                .etag
        }
    };
    let realm = v1::Realm {
        name: global.realm_name(),
        config: Some(config),
        ..v1::Realm::default()
    };
    let request = v1::UpdateRealmRequest {
        realm: Some(realm),
        update_mask: Some(prost_types::FieldMask { paths }),
        etag,
        context: update.why.context(),
        validate_only: update.validate_only,
    };
    let response = client.update_realm(request, &global.call()).await?;
    show::realm(
        global,
        response.realm,
        &response.consistency_token,
        update.validate_only,
    )
}

fn changes(update: &Update) -> (v1::RealmConfig, Vec<String>) {
    let mut config = v1::RealmConfig::default();
    let mut paths = Vec::new();
    let mut path = |name: &str| paths.push(format!("config.{name}"));
    for (name, field, value) in [
        ("quarantine", &mut config.quarantine, update.quarantine),
        (
            "deletion_grace",
            &mut config.deletion_grace,
            update.deletion_grace,
        ),
        (
            "request_window",
            &mut config.request_window,
            update.request_window,
        ),
    ] {
        if let Some(value) = value {
            *field = Some(duration_message(value));
            path(name);
        }
    }
    if let Some(bytes) = update.max_record_bytes {
        config.max_record_bytes = bytes;
        path("max_record_bytes");
    }
    if let Some(unverified) = update.unverified {
        config.unverified = match unverified {
            Unverified::LookupAndHold => v1::UnverifiedPolicy::LookupAndHold,
            Unverified::HoldOnly => v1::UnverifiedPolicy::HoldOnly,
        }
        .into();
        path("unverified");
    }
    if let Some(insensitive) = update.email_local_part_case_insensitive {
        config.email_local_part_case_insensitive = insensitive;
        path("email_local_part_case_insensitive");
    }
    if let Some(region) = &update.default_phone_region {
        config.default_phone_region.clone_from(region);
        path("default_phone_region");
    }
    (config, paths)
}
