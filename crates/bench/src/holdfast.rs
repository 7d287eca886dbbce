//! The driver of Holdfast: the Rust SDK, as a program in production uses it.
//!
//! Clients share connections, as gRPC wants it: one HTTP/2 connection carries any number of calls, and what waits is
//! written to its socket together. More than one helps only where a single task that reads and writes it is the limit.

use std::collections::BTreeMap;

use holdfast_client::{
    CallOptions, Client, ClientError, Gather, ImportEvent, ImportOptions, Outcome, new_request_id, v1,
};
use tonic::Code;

use crate::record::Record;
use crate::target::{Change, Class, Existing, Failure, Found, Session, Store, Updated};

/// The attribute that holds the payload.
const PAYLOAD: &str = "payload";

/// A cluster under load.
pub struct Holdfast {
    clients: Vec<Client>,
    /// One for each client.
    gathers: Vec<Gather>,
    parent: String,
    options: CallOptions,
}

impl Holdfast {
    /// A cluster, reached through `clients`, of which each has connections of its own.
    pub fn new(clients: Vec<Client>, realm: &str, options: CallOptions) -> Self {
        assert!(
            !clients.is_empty(),
            "a cluster is reached through at least one client"
        );
        let parent = format!("realms/{realm}");
        let gather = |client: &Client| client.gather(parent.clone(), options.clone());
        Holdfast {
            gathers: clients.iter().map(gather).collect(),
            clients,
            parent,
            options,
        }
    }
}

impl Store for Holdfast {
    type Session = HoldfastSession;

    fn name(&self) -> &str {
        "holdfast"
    }

    fn settings(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("connections".to_owned(), self.clients.len().to_string()),
            ("reads".to_owned(), "linearizable".to_owned()),
        ])
    }

    async fn session(&self, client: usize) -> Result<HoldfastSession, Failure> {
        let which = client % self.clients.len();
        let mut session = HoldfastSession {
            client: self.clients[which].clone(),
            gather: self.gathers[which].clone(),
            parent: self.parent.clone(),
            options: self.options.clone(),
        };
        // Connects, and learns who leads.
        session.get("bench-nobody").await?;
        Ok(session)
    }
}

/// One client of a cluster.
pub struct HoldfastSession {
    client: Client,
    gather: Gather,
    parent: String,
    options: CallOptions,
}

impl HoldfastSession {
    fn name(&self, id: &str) -> String {
        format!("{}/accounts/{id}", self.parent)
    }
}

impl Session for HoldfastSession {
    async fn create(&mut self, record: Record) -> Result<u64, Failure> {
        let request = v1::CreateAccountRequest {
            parent: self.parent.clone(),
            account_id: record.id.clone(),
            account: Some(account(record)),
            ..v1::CreateAccountRequest::default()
        };
        let response = self.client.create_account(request, &self.options).await;
        Ok(response.map_err(failure)?.revision)
    }

    async fn update(&mut self, change: Change<'_>) -> Result<Updated, Failure> {
        let request = v1::UpdateAccountRequest {
            account: Some(v1::Account {
                name: self.name(change.id),
                ..v1::Account::default()
            }),
            set_attributes: payload(change.payload),
            etag: change.version.to_string(),
            ..v1::UpdateAccountRequest::default()
        };
        match self.client.update_account(request, &self.options).await {
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

    async fn get(&mut self, id: &str) -> Result<Option<Found>, Failure> {
        let request = v1::GetAccountRequest {
            name: self.name(id),
            consistency: None,
        };
        let response = self.client.get_account(request, &self.options).await;
        found(response.map(|response| response.account))
    }

    async fn lookup(&mut self, email: &str) -> Result<Option<Found>, Failure> {
        let request = v1::LookupAccountRequest {
            parent: self.parent.clone(),
            identifier: Some(v1::IdentifierReference {
                kind: v1::IdentifierKind::Email.into(),
                issuer: String::new(),
                value: email.to_owned(),
            }),
            consistency: None,
        };
        let response = self.client.lookup_account(request, &self.options).await;
        found(response.map(|response| response.account))
    }

    async fn gathered_get(&mut self, id: &str) -> Result<Option<Found>, Failure> {
        found(self.gather.get_account(id).await)
    }

    async fn import(&mut self, records: Vec<Record>, existing: Existing) -> Result<(), Failure> {
        let mode = match existing {
            Existing::Refuse => v1::ImportMode::Create,
            Existing::Keep => v1::ImportMode::Skip,
        };
        let mut options = ImportOptions::new(self.parent.clone(), new_request_id(), mode);
        options.window = records.len();
        let items = (1..).zip(records).map(|(index, record)| v1::ImportItem {
            index,
            account_id: record.id.clone(),
            account: Some(account(record)),
        });
        let mut import = self
            .client
            .import_accounts(options, futures::stream::iter(items.collect::<Vec<_>>()));
        while let Some(event) = import.next().await {
            if let ImportEvent::Result(result) = event.map_err(failure)?
                && result.code != 0
            {
                let what = format!("item {}: {}", result.index, result.message);
                return Err(Failure::new(Class::Refused, what));
            }
        }
        Ok(())
    }
}

fn account(record: Record) -> v1::Account {
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

fn found(response: Result<Option<v1::Account>, ClientError>) -> Result<Option<Found>, Failure> {
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

fn failure(error: ClientError) -> Failure {
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
