//! What is sent to Holdfast for an operation, and what the answer says: the same for its SDK and for clients without it.

use std::collections::BTreeMap;

use holdfast_client::{ClientError, Outcome, v1};
use tonic::Code;

use crate::record::Record;
use crate::target::{Change, Class, Failure, Found, Updated};

/// The attribute that holds the payload.
const PAYLOAD: &str = "payload";

/// An account to create in a realm, `realms/…`. Whoever sends it adds a request id, or lets the SDK do that.
pub fn create(parent: &str, record: Record) -> v1::CreateAccountRequest {
    v1::CreateAccountRequest {
        parent: parent.to_owned(),
        account_id: record.id.clone(),
        account: Some(account(record)),
        ..v1::CreateAccountRequest::default()
    }
}

/// A new payload. Without a request id, as [`create`].
pub fn update(parent: &str, change: Change<'_>) -> v1::UpdateAccountRequest {
    v1::UpdateAccountRequest {
        account: Some(v1::Account {
            name: name(parent, change.id),
            ..v1::Account::default()
        }),
        set_attributes: payload(change.payload),
        etag: change.version.to_string(),
        ..v1::UpdateAccountRequest::default()
    }
}

/// A linearizable read by id.
pub fn get(parent: &str, id: &str) -> v1::GetAccountRequest {
    v1::GetAccountRequest {
        name: name(parent, id),
        consistency: None,
    }
}

/// A linearizable read by email.
pub fn lookup(parent: &str, email: &str) -> v1::LookupAccountRequest {
    v1::LookupAccountRequest {
        parent: parent.to_owned(),
        identifier: Some(v1::IdentifierReference {
            kind: v1::IdentifierKind::Email.into(),
            issuer: String::new(),
            value: email.to_owned(),
        }),
        consistency: None,
    }
}

/// What became of an update.
pub fn updated(response: Result<v1::UpdateAccountResponse, ClientError>) -> Result<Updated, Failure> {
    match response {
        Ok(response) => Ok(Updated::To(response.revision)),
        Err(error) if error.reason == "ETAG_MISMATCH" && error.outcome == Outcome::NotApplied => {
            let current = error.metadata.get("current_etag");
            Ok(Updated::Conflict {
                current: current.and_then(|etag| etag.parse().ok()),
            })
        }
        Err(error) => Err(failure(error)),
    }
}

/// What a read found.
pub fn found(response: Result<Option<v1::Account>, ClientError>) -> Result<Option<Found>, Failure> {
    let account = match response {
        Ok(account) => account,
        Err(error) if error.code == Code::NotFound => return Ok(None),
        Err(error) => return Err(failure(error)),
    };
    Ok(account.map(|account| Found {
        payload_bytes: match account.attributes.get(PAYLOAD).map(|attribute| &attribute.value) {
            Some(Some(v1::attribute::Value::BytesValue(bytes))) => bytes.len(),
            _ => 0,
        },
        id: account.account_id,
        version: account.revision,
    }))
}

/// What an error says about the operation.
pub fn failure(error: ClientError) -> Failure {
    let class = match error.code {
        _ if error.outcome == Outcome::Unknown => Class::Unknown,
        Code::ResourceExhausted => Class::Overloaded,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Class::Unavailable,
        Code::NotFound => Class::Missing,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted | Code::InvalidArgument => {
            Class::Refused
        }
        _ => Class::Other,
    };
    let reason = if error.reason.is_empty() {
        format!("{:?}", error.code)
    } else {
        error.reason.clone()
    };
    Failure::new(class, format!("{error} ({reason})"))
}

/// A resource name.
fn name(parent: &str, id: &str) -> String {
    format!("{parent}/accounts/{id}")
}

pub(crate) fn account(record: Record) -> v1::Account {
    let identifier = |kind: v1::IdentifierKind, value| v1::Identifier {
        kind: kind.into(),
        value,
        ..v1::Identifier::default()
    };
    v1::Account {
        identifiers: vec![
            identifier(v1::IdentifierKind::Email, record.email),
            identifier(v1::IdentifierKind::Username, record.username),
        ],
        attributes: payload(record.payload),
        ..v1::Account::default()
    }
}

fn payload(bytes: Vec<u8>) -> BTreeMap<String, v1::Attribute> {
    let attribute = v1::Attribute {
        value: Some(v1::attribute::Value::BytesValue(bytes.into())),
        ..v1::Attribute::default()
    };
    BTreeMap::from([(PAYLOAD.to_owned(), attribute)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart() {
        let table = [
            (Code::AlreadyExists, Outcome::NotApplied, Class::Refused),
            (Code::ResourceExhausted, Outcome::NotApplied, Class::Overloaded),
            (Code::Unavailable, Outcome::NotApplied, Class::Unavailable),
            (Code::Unavailable, Outcome::Unknown, Class::Unknown),
            (Code::Internal, Outcome::NotApplied, Class::Other),
        ];
        for (code, outcome, class) in table {
            let error = ClientError::local(code, "scripted", outcome);
            assert_eq!(failure(error).class, class, "{code:?} {outcome:?}");
        }
        let absent = ClientError::local(Code::NotFound, "scripted", Outcome::NotApplied);
        assert_eq!(found(Err(absent)), Ok(None));
    }
}
