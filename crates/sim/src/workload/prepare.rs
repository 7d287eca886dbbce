//! Before a run: the realm's rules, so short that a run sees quarantines and graces end.

use std::time::Duration;

use holdfast_client::{CallOptions, Client, ClientError, v1};
use tokio::time::{Instant, sleep};

use super::request::REALM;
use crate::cluster::Cluster;
use crate::config::{Configuration, RealmRules};
use crate::trace;

/// How long a healthy cluster may take to accept them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sets the realm's rules, trying until they are in force.
///
/// # Errors
/// What the last attempt said, if the cluster did not do it within a minute.
pub async fn prepare(cluster: &Cluster, configuration: &Configuration) -> Result<(), String> {
    let client = Client::connect(cluster.client_config()).map_err(|error| error.to_string())?;
    let rules = configuration.realm.clone();
    let work = cluster
        .office()
        .spawn(async move { insist(&client, &rules).await });
    work.await.map_err(|error| error.to_string())?
}

async fn insist(client: &Client, rules: &RealmRules) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    loop {
        match Box::pin(set(client, rules)).await {
            Ok(()) => {
                trace::event("prepared", "");
                return Ok(());
            }
            Err(error) if Instant::now() >= until => return Err(error.to_string()),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Reads the rules and changes them. A change whose outcome is not known is met by the next read.
async fn set(client: &Client, rules: &RealmRules) -> Result<(), ClientError> {
    let options = CallOptions::deadline(Duration::from_secs(10));
    let request = v1::GetRealmRequest {
        name: REALM.into(),
        consistency: None,
    };
    let realm = client
        .get_realm(request, &options)
        .await?
        .realm
        .unwrap_or_default();
    let wanted = v1::RealmConfig {
        quarantine: Some(duration(rules.quarantine_ms)),
        deletion_grace: Some(duration(rules.deletion_grace_ms)),
        request_window: Some(duration(rules.request_window_ms)),
        ..realm.config.clone().unwrap_or_default()
    };
    if realm.config.as_ref() == Some(&wanted) {
        return Ok(());
    }
    let request = v1::UpdateRealmRequest {
        realm: Some(v1::Realm {
            name: REALM.into(),
            config: Some(wanted),
            ..v1::Realm::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: ["quarantine", "deletion_grace", "request_window"]
                .map(|field| format!("config.{field}"))
                .to_vec(),
        }),
        etag: realm.etag,
        ..v1::UpdateRealmRequest::default()
    };
    client.update_realm(request, &options).await.map(|_| ())
}

fn duration(ms: u64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: (ms / 1_000) as i64,
        nanos: (ms % 1_000) as i32 * 1_000_000,
    }
}
