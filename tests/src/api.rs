//! Requests, said briefly; and plain gRPC clients to one chosen node, which neither retry nor look for the leader.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_wire::v1;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// The realm that exists from the start.
pub const REALM: &str = "realms/default";

/// How long one plain call may take.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);

/// A client of AccountService at `address`.
pub type Accounts = v1::account_service_client::AccountServiceClient<Channel>;

/// A client of ClusterService at `address`.
pub type ClusterAdmin = v1::cluster_service_client::ClusterServiceClient<Channel>;

/// A connection to `address`.
pub async fn channel(address: &str) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(Duration::from_secs(2))
        .connect()
        .await
}

/// AccountService at `address`.
pub async fn accounts(address: &str) -> Result<Accounts, tonic::transport::Error> {
    Ok(Accounts::new(channel(address).await?))
}

/// ClusterService at `address`.
pub async fn cluster_service(address: &str) -> Result<ClusterAdmin, tonic::transport::Error> {
    Ok(ClusterAdmin::new(channel(address).await?))
}

/// RealmService at `address`.
pub async fn realm_service(
    address: &str,
) -> Result<v1::realm_service_client::RealmServiceClient<Channel>, tonic::transport::Error> {
    Ok(v1::realm_service_client::RealmServiceClient::new(
        channel(address).await?,
    ))
}

/// `message` with a deadline, from the caller the stories use.
pub fn request<M>(message: M, deadline: Duration) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
        .metadata_mut()
        .insert("holdfast-caller", "stories".parse().unwrap());
    request
}

/// True when the node at `address` answers a linearizable read: there is a leader, and it has passed a barrier.
pub async fn answers(address: &str) -> bool {
    let Ok(mut client) = accounts(address).await else {
        return false;
    };
    let read = v1::GetAccountRequest {
        name: account_name("nobody"),
        ..Default::default()
    };
    matches!(client.get_account(request(read, Duration::from_secs(2))).await, Err(status) if status.code() == Code::NotFound)
}

/// The resource name of an account.
pub fn account_name(id: &str) -> String {
    format!("{REALM}/accounts/{id}")
}

/// A fresh request id.
pub fn request_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// An identifier as a caller gives it.
pub fn identifier(kind: v1::IdentifierKind, value: &str) -> v1::Identifier {
    v1::Identifier {
        kind: kind.into(),
        value: value.to_owned(),
        primary: Some(true),
        ..Default::default()
    }
}

/// An identifier as a lookup gives it.
pub fn reference(kind: v1::IdentifierKind, value: &str) -> v1::IdentifierReference {
    v1::IdentifierReference {
        kind: kind.into(),
        value: value.to_owned(),
        ..Default::default()
    }
}

/// Creates account `id` (empty: derived) with one email.
pub fn create(id: &str, email: &str, request_id: &str) -> v1::CreateAccountRequest {
    v1::CreateAccountRequest {
        parent: REALM.to_owned(),
        account_id: id.to_owned(),
        account: Some(v1::Account {
            display_name: format!("Owner of {email}"),
            identifiers: vec![identifier(v1::IdentifierKind::Email, email)],
            ..Default::default()
        }),
        request_id: request_id.to_owned(),
        context: None,
    }
}

/// Reads account `id`, linearizably.
pub fn get(id: &str) -> v1::GetAccountRequest {
    v1::GetAccountRequest {
        name: account_name(id),
        consistency: None,
    }
}

/// Looks an email up, linearizably.
pub fn lookup(email: &str) -> v1::LookupAccountRequest {
    v1::LookupAccountRequest {
        parent: REALM.to_owned(),
        identifier: Some(reference(v1::IdentifierKind::Email, email)),
        consistency: None,
    }
}

/// Sets attribute `counter` of account `id`.
pub fn set_counter(id: &str, value: i64, request_id: &str) -> v1::UpdateAccountRequest {
    let attribute = v1::Attribute {
        value: Some(v1::attribute::Value::Int64Value(value)),
        ..Default::default()
    };
    v1::UpdateAccountRequest {
        account: Some(v1::Account {
            name: account_name(id),
            ..Default::default()
        }),
        set_attributes: [("counter".to_owned(), attribute)].into(),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}

/// Attribute `counter` of an account; 0 if it has none.
pub fn counter(account: &v1::Account) -> i64 {
    match account
        .attributes
        .get("counter")
        .and_then(|attribute| attribute.value.as_ref())
    {
        Some(v1::attribute::Value::Int64Value(value)) => *value,
        _ => 0,
    }
}

/// The reason and metadata of the one `google.rpc.ErrorInfo` that every error carries.
pub fn error_info(status: &Status) -> (String, BTreeMap<String, String>) {
    let view = holdfast_wire::status::ErrorView::of(status)
        .unwrap_or_else(|| panic!("no ErrorInfo of Holdfast in {status:?}"));
    (view.reason, view.metadata)
}

/// Whether the failed call may have had its effect.
pub fn outcome(status: &Status) -> holdfast_wire::status::OutcomeView {
    holdfast_wire::status::ErrorView::of(status)
        .unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"))
        .outcome
}

/// The reason of an error.
pub fn reason(status: &Status) -> String {
    error_info(status).0
}

/// Asserts code and reason of an error.
pub fn assert_status<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, expected: &str) -> Status {
    let status = answer.expect_err("an error was expected");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (code, expected),
        "{status:?}"
    );
    status
}

/// Sets how long a removed identifier stays reserved.
pub async fn set_quarantine(admin_address: &str, quarantine: Duration) {
    let mut client = realm_service(admin_address).await.unwrap();
    let realm = client
        .get_realm(request(
            v1::GetRealmRequest {
                name: REALM.to_owned(),
                consistency: None,
            },
            CALL_LIMIT,
        ))
        .await
        .unwrap()
        .into_inner()
        .realm
        .unwrap();
    let config = v1::RealmConfig {
        quarantine: Some(prost_types::Duration {
            seconds: quarantine.as_secs() as i64,
            nanos: quarantine.subsec_nanos() as i32,
        }),
        ..Default::default()
    };
    let update = v1::UpdateRealmRequest {
        realm: Some(v1::Realm {
            name: REALM.to_owned(),
            config: Some(config),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["config.quarantine".to_owned()],
        }),
        etag: realm.etag,
        ..Default::default()
    };
    client.update_realm(request(update, CALL_LIMIT)).await.unwrap();
}
