//! etcd: an account is three keys, written together or not at all.
//!
//! `account/ID` holds the account, `email/…` and `username/…` hold the id of its owner. A create is one transaction,
//! guarded by the absence of all three. An update is one transaction, guarded by the key's version, which etcd counts
//! from 1: it costs etcd the same as comparing `mod_revision`, and unlike that one need not be read first. A lookup is
//! two linearizable reads, because etcd cannot follow a key to another.
//!
//! Its Go client spreads calls over the endpoints it is given, in one connection each; so does this. In the comparison it
//! is given the leader alone, several times, which is what etcd does best with.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use holdfast_bench::{Change, Class, Existing, Failure, Found, Record, Session, Store, Updated};
use prost::Message;
use tonic::transport::{Channel, Endpoint};

use crate::Setup;
use crate::generated::etcdserverpb as pb;
use crate::generated::etcdserverpb::kv_client::KvClient;
use crate::generated::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::status::{channels, failure};

/// Its default `--max-txn-ops` is 128: 42 accounts of three keys in one transaction.
const ACCOUNTS_PER_TRANSACTION: usize = 42;

/// How long one call may take. etcd's own limit for a proposal is 7 s at these settings.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// What `account/ID` holds. A team would not store less.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bytes = "vec", tag = "2")]
    payload: Vec<u8>,
}

/// A cluster of etcd.
pub(crate) struct Etcd {
    setup: Setup,
    channels: Vec<Channel>,
}

impl Etcd {
    /// Prepares the connections; they are opened by the first call.
    pub(crate) fn new(setup: Setup) -> Result<Self, Failure> {
        let channels = channels(&setup.endpoints, setup.connections)?;
        Ok(Etcd { setup, channels })
    }
}

impl Store for Etcd {
    type Session = EtcdSession;

    fn name(&self) -> &str {
        "etcd"
    }

    fn settings(&self) -> BTreeMap<String, String> {
        self.setup.describe()
    }

    async fn session(&self, client: usize) -> Result<EtcdSession, Failure> {
        let mut session = EtcdSession {
            channels: self.channels.clone(),
            next: client,
        };
        // Opens the connection, so that the first measured call does not.
        session.read("account/".into()).await?;
        Ok(session)
    }
}

/// One client.
pub(crate) struct EtcdSession {
    channels: Vec<Channel>,
    next: usize,
}

impl EtcdSession {
    fn client(&self) -> KvClient<Channel> {
        KvClient::new(self.channels[self.next % self.channels.len()].clone())
    }

    /// After a failure of the node the next call goes elsewhere, as with etcd's own client.
    fn failed(&mut self, status: &tonic::Status) -> Failure {
        self.next += 1;
        failure(status)
    }

    async fn read(&mut self, key: Bytes) -> Result<Option<pb::KeyValue>, Failure> {
        let mut request = tonic::Request::new(pb::RangeRequest { key });
        request.set_timeout(CALL_LIMIT);
        match self.client().range(request).await {
            Ok(answer) => Ok(answer.into_inner().kvs.pop()),
            Err(status) => Err(self.failed(&status)),
        }
    }

    async fn transact(&mut self, transaction: pb::TxnRequest) -> Result<pb::TxnResponse, Failure> {
        let mut request = tonic::Request::new(transaction);
        request.set_timeout(CALL_LIMIT);
        match self.client().txn(request).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(self.failed(&status)),
        }
    }
}

impl Session for EtcdSession {
    async fn create(&mut self, record: Record) -> Result<u64, Failure> {
        let answer = self.transact(creation([record])).await?;
        if answer.succeeded {
            Ok(1)
        } else {
            Err(Failure::new(
                Class::Refused,
                "the account or an identifier exists",
            ))
        }
    }

    async fn update(&mut self, change: Change<'_>) -> Result<Updated, Failure> {
        let key = account_key(change.id);
        let stored = Stored {
            id: change.id.to_owned(),
            payload: change.payload,
        };
        let transaction = pb::TxnRequest {
            compare: vec![version_is(key.clone(), change.version)],
            success: vec![put(key.clone(), stored.encode_to_vec().into())],
            failure: vec![pb::RequestOp {
                request: Some(pb::request_op::Request::RequestRange(pb::RangeRequest { key })),
            }],
        };
        let mut answer = self.transact(transaction).await?;
        if answer.succeeded {
            return Ok(Updated::To(change.version + 1));
        }
        let found = match answer.responses.pop().and_then(|operation| operation.response) {
            Some(pb::response_op::Response::ResponseRange(mut range)) => range.kvs.pop(),
            _ => None,
        };
        match found {
            Some(pair) => Ok(Updated::Conflict {
                current: Some(pair.version.unsigned_abs()),
            }),
            None => Err(Failure::new(Class::Missing, "no such account")),
        }
    }

    async fn get(&mut self, id: &str) -> Result<Option<Found>, Failure> {
        let Some(pair) = self.read(account_key(id)).await? else {
            return Ok(None);
        };
        let stored = Stored::decode(pair.value)
            .map_err(|why| Failure::new(Class::WrongAnswer, format!("the value is no account: {why}")))?;
        Ok(Some(Found {
            id: stored.id,
            version: pair.version.unsigned_abs(),
            payload_bytes: stored.payload.len(),
        }))
    }

    async fn lookup(&mut self, email: &str) -> Result<Option<Found>, Failure> {
        let Some(owner) = self.read(email_key(email)).await? else {
            return Ok(None);
        };
        let id = String::from_utf8_lossy(&owner.value).into_owned();
        self.get(&id).await
    }

    async fn import(&mut self, records: Vec<Record>, existing: Existing) -> Result<(), Failure> {
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let chunk: Vec<Record> = records.by_ref().take(ACCOUNTS_PER_TRANSACTION).collect();
            if self.transact(creation(chunk.iter().cloned())).await?.succeeded {
                continue;
            }
            if existing == Existing::Refuse {
                return Err(Failure::new(Class::Refused, "an account or an identifier exists"));
            }
            // Some exist. The others are stored one by one.
            for record in chunk {
                self.transact(creation([record])).await?;
            }
        }
        Ok(())
    }
}

/// All of these accounts and their identifiers, unless one exists.
fn creation(records: impl IntoIterator<Item = Record>) -> pb::TxnRequest {
    let mut transaction = pb::TxnRequest::default();
    for record in records {
        let owner = Bytes::from(record.id.clone());
        let keys = [
            (email_key(&record.email), owner.clone()),
            (Bytes::from(format!("username/{}", record.username)), owner),
        ];
        let account = account_key(&record.id);
        let stored = Stored {
            id: record.id,
            payload: record.payload,
        };
        let pairs = [(account, Bytes::from(stored.encode_to_vec()))]
            .into_iter()
            .chain(keys);
        for (key, value) in pairs {
            // A key that does not exist has version 0.
            transaction.compare.push(version_is(key.clone(), 0));
            transaction.success.push(put(key, value));
        }
    }
    transaction
}

fn account_key(id: &str) -> Bytes {
    format!("account/{id}").into()
}

fn email_key(email: &str) -> Bytes {
    format!("email/{email}").into()
}

fn put(key: Bytes, value: Bytes) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(pb::PutRequest { key, value })),
    }
}

fn version_is(key: Bytes, version: u64) -> pb::Compare {
    pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: pb::compare::CompareTarget::Version.into(),
        key,
        target_union: Some(pb::compare::TargetUnion::Version(
            i64::try_from(version).unwrap_or(i64::MAX),
        )),
    }
}

/// The place in `endpoints`, from 1, of the node that leads; `None` while none does, or it does not answer.
pub(crate) async fn leader(endpoints: &[String]) -> Option<usize> {
    for (place, address) in endpoints.iter().enumerate() {
        let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else {
            continue;
        };
        let channel = endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy();
        let Ok(answer) = MaintenanceClient::new(channel).status(pb::StatusRequest {}).await else {
            continue;
        };
        let status = answer.into_inner();
        if status
            .header
            .is_some_and(|header| header.member_id == status.leader)
        {
            return Some(place + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(number: u64) -> Record {
        holdfast_bench::Population {
            seed: 1,
            payload_bytes: 1024,
        }
        .record(number)
    }

    #[test]
    fn a_create_is_three_guarded_puts() {
        let transaction = creation([person(7)]);
        assert_eq!((transaction.compare.len(), transaction.success.len()), (3, 3));
        for (guard, write) in transaction.compare.iter().zip(&transaction.success) {
            let Some(pb::request_op::Request::RequestPut(write)) = &write.request else {
                panic!("{write:?} is no put");
            };
            assert_eq!(guard.key, write.key);
            assert_eq!(guard.target_union, Some(pb::compare::TargetUnion::Version(0)));
        }
        assert!(transaction.failure.is_empty());
    }

    #[test]
    fn an_import_stays_within_what_one_transaction_may_hold() {
        let transaction = creation((0..ACCOUNTS_PER_TRANSACTION as u64).map(person));
        assert!(transaction.success.len() <= 128, "{}", transaction.success.len());
        assert!(transaction.compare.len() <= 128);
    }
}
