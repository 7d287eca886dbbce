//! The driver of Holdfast: the Rust SDK, as a program in production uses it.
//!
//! Clients share connections, as gRPC wants it: one HTTP/2 connection carries any number of calls, and what waits is
//! written to its socket together. More than one helps only where a single task that reads and writes it is the limit.

use std::collections::BTreeMap;

use holdfast_client::{CallOptions, Client, Gather, ImportEvent, ImportOptions, new_request_id, v1};

use crate::messages::{self, account, failure, found};
use crate::record::Record;
use crate::target::{Change, Class, Existing, Failure, Found, Session, Store, Updated};

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

impl Session for HoldfastSession {
    async fn create(&mut self, record: Record) -> Result<u64, Failure> {
        let request = messages::create(&self.parent, record);
        let response = self.client.create_account(request, &self.options).await;
        Ok(response.map_err(failure)?.revision)
    }

    async fn update(&mut self, change: Change<'_>) -> Result<Updated, Failure> {
        let request = messages::update(&self.parent, change);
        messages::updated(self.client.update_account(request, &self.options).await)
    }

    async fn get(&mut self, id: &str) -> Result<Option<Found>, Failure> {
        let request = messages::get(&self.parent, id);
        let response = self.client.get_account(request, &self.options).await;
        found(response.map(|response| response.account))
    }

    async fn lookup(&mut self, email: &str) -> Result<Option<Found>, Failure> {
        let request = messages::lookup(&self.parent, email);
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
