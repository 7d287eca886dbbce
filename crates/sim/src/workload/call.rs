//! One call, recorded: through the production client, or as one attempt at a chosen node.
//!
//! The production client repeats, moves on and follows leaders by itself, and what it returns is the outcome of
//! all its attempts together. What it would never do (ask a certain node, send one request to several at once,
//! send it again long after it was answered) goes through a bare stub of the same service, and each such
//! attempt is an operation of its own.
//!
//! Nothing waits for ever: a client that is still busy [`GRACE`] after its deadline is a violation by itself.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_client::v1::account_service_client::AccountServiceClient;
use holdfast_client::{CallOptions, Client, ClientConfig, ClientError, Outcome as Known, v1};
use tonic::transport::{Channel, Endpoint as Address};
use tonic::{Code, Request, Response, Status};

use super::Endpoint;
use super::convert::{self, failed_mutation, failed_read, position};
use super::record::{Call, Recorder};
use super::request::{Message, Mutation, REALM, Typed, name};
use super::world::{Token, World};
use crate::history::{Consistency, Input, Outcome, Output, Reason};

/// How long after its deadline a call may end.
pub(super) const GRACE: Duration = Duration::from_secs(5);

type Service = AccountServiceClient<Channel>;

/// By which way a call goes.
#[derive(Debug, Clone)]
pub(super) enum Via {
    /// The production client, with everything it does.
    Client,
    /// One attempt at this node.
    Node(Endpoint),
}

/// One client's connections.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) number: u32,
    pub(super) client: Client,
    pub(super) recorder: Recorder,
    pub(super) world: World,
    pub(super) deadline: Duration,
    /// Whether the last call was answered, with whatever.
    answered: Arc<AtomicBool>,
    /// Stubs by address.
    services: Arc<Mutex<BTreeMap<String, Service>>>,
}

/// How fresh a read must be, with what is needed to ask for it.
#[derive(Debug, Clone)]
pub(super) struct Freshness {
    pub(super) recorded: Consistency,
    asked: Option<v1::Consistency>,
}

impl Freshness {
    /// Everything acknowledged before.
    pub(super) fn linearizable() -> Self {
        Freshness {
            recorded: Consistency::Linearizable,
            asked: None,
        }
    }

    /// May be behind, within a bound.
    pub(super) fn stale(max_ms: Option<u64>) -> Self {
        Freshness {
            recorded: Consistency::Stale { max_ms },
            asked: Some(v1::Consistency {
                mode: Some(stale(max_ms)),
                ..v1::Consistency::default()
            }),
        }
    }

    /// May be behind, but not behind a token.
    pub(super) fn at_least(token: &Token) -> Self {
        Freshness {
            recorded: Consistency::AtLeast {
                operation: token.operation,
                position: token.position,
            },
            asked: Some(v1::Consistency {
                mode: Some(stale(None)),
                at_least_token: token.bytes.clone().into(),
            }),
        }
    }
}

fn stale(max_ms: Option<u64>) -> v1::consistency::Mode {
    let max_staleness = max_ms.map(|ms| prost_types::Duration {
        seconds: (ms / 1_000) as i64,
        nanos: (ms % 1_000) as i32 * 1_000_000,
    });
    v1::consistency::Mode::Stale(v1::StaleRead { max_staleness })
}

/// Sends one message by the chosen way. The production client's methods and the stub's have the same names. Their
/// futures are boxed, because they are large and every action holds some.
macro_rules! send {
    ($caller:expr, $via:expr, $method:ident, $message:expr) => {
        match $via {
            Via::Client => {
                let options = $caller.options();
                $caller
                    .patiently(Box::pin($caller.client.$method($message, &options)))
                    .await
            }
            Via::Node(node) => match $caller.service(node) {
                Ok(mut service) => {
                    let request = $caller.request($message);
                    $caller.once(Box::pin(service.$method(request))).await
                }
                Err(error) => Err(error),
            },
        }
    };
}

impl Caller {
    /// The client with this number. Its name scopes its request ids.
    pub(super) fn new(
        number: u32,
        endpoints: Vec<String>,
        deadline: Duration,
        recorder: Recorder,
        world: World,
    ) -> Result<Self, String> {
        let config = ClientConfig {
            endpoints,
            admin_endpoints: Vec::new(),
            caller: caller_name(number),
            deadline,
            ..ClientConfig::default()
        };
        Ok(Caller {
            number,
            client: Client::connect(config).map_err(|error| error.to_string())?,
            recorder,
            world,
            deadline,
            answered: Arc::new(AtomicBool::new(true)),
            services: Arc::default(),
        })
    }

    /// Sends a mutation once, by this way.
    pub(super) async fn mutate(&self, mutation: &Mutation, via: &Via) -> Outcome {
        let call = self
            .recorder
            .invoked(self.number, Some(mutation.request_id), mutation.input.clone());
        let answer = match &mutation.message {
            Message::Create(m) => send!(self, via, create_account, m.clone()).map(Changed::from),
            Message::Update(m) => send!(self, via, update_account, m.clone()).map(Changed::from),
            Message::Change(m) => send!(self, via, change_identifiers, m.clone()).map(Changed::from),
            Message::Delete(m) => send!(self, via, delete_account, m.clone()).map(Changed::from),
            Message::Undelete(m) => send!(self, via, undelete_account, m.clone()).map(Changed::from),
        };
        let outcome = match answer {
            Ok(Changed {
                account,
                revision,
                token,
            }) => match account.as_ref().and_then(convert::view) {
                Some(account) => self.ok(call, Output::Changed { revision, account }, &token),
                None => self.senseless(call),
            },
            Err(error) => failed_mutation(&error, &mutation.places),
        };
        self.settle(call, Some(&mutation.account), outcome)
    }

    /// Sends the id of a request that was carried out once more, with other content. Whatever the answer is, it is not
    /// yes. This is no operation of the history: it must do nothing.
    pub(super) async fn reuse(&self, mutation: &Mutation, via: &Via) {
        let (id, account) = (mutation.request_id, mutation.account.clone());
        let other = Mutation::update(id, account, format!("reused-{id}"), None);
        let Message::Update(message) = other.message else {
            return;
        };
        if send!(self, via, update_account, message).is_ok() {
            self.recorder.violation(format!(
                "request id {id} was carried out for {} and then answered with yes for other content",
                mutation.account
            ));
        }
    }

    /// Reads an account.
    pub(super) async fn get(&self, account: &str, fresh: &Freshness, via: &Via) -> Outcome {
        let call = self.recorder.invoked(
            self.number,
            None,
            Input::Get {
                account: account.to_owned(),
                consistency: fresh.recorded,
            },
        );
        let message = v1::GetAccountRequest {
            name: name(account),
            consistency: fresh.asked.clone(),
        };
        let answer = send!(self, via, get_account, message);
        let answer = answer.map(|answer| (answer.account, answer.consistency_token));
        self.found(call, Some(account), answer)
    }

    /// Reads the account that has an identifier.
    pub(super) async fn lookup(&self, identifier: &Typed, fresh: &Freshness, via: &Via) -> Outcome {
        let call = self.recorder.invoked(
            self.number,
            None,
            Input::Lookup {
                identifier: identifier.canonical.clone(),
                consistency: fresh.recorded,
            },
        );
        let message = v1::LookupAccountRequest {
            parent: REALM.into(),
            identifier: Some(identifier.to_reference()),
            consistency: fresh.asked.clone(),
        };
        let answer = send!(self, via, lookup_account, message);
        let answer = answer.map(|answer| (answer.account, answer.consistency_token));
        self.found(call, None, answer)
    }

    fn found(
        &self,
        call: Call,
        account: Option<&str>,
        answer: Result<(Option<v1::Account>, bytes::Bytes), ClientError>,
    ) -> Outcome {
        let outcome = match answer {
            Ok((found, token)) => match found.as_ref().and_then(convert::view) {
                Some(found) => self.ok(call, Output::Account(found), &token),
                None => self.senseless(call),
            },
            Err(error) => failed_read(&error),
        };
        self.settle(call, account, outcome)
    }

    /// Reads several accounts in one view.
    pub(super) async fn batch_get(&self, accounts: &[String], fresh: &Freshness, via: &Via) -> Outcome {
        let call = self.recorder.invoked(
            self.number,
            None,
            Input::BatchGet {
                accounts: accounts.to_vec(),
                consistency: fresh.recorded,
            },
        );
        let message = v1::BatchGetAccountsRequest {
            parent: REALM.into(),
            names: accounts.iter().map(|account| name(account)).collect(),
            consistency: fresh.asked.clone(),
        };
        let outcome = match send!(self, via, batch_get_accounts, message) {
            Ok(answer) => match views(&answer.accounts) {
                Some(accounts) => {
                    let output = Output::Batch {
                        accounts,
                        not_found: ids(&answer.not_found_names),
                        unread: ids(&answer.unread_names),
                    };
                    self.ok(call, output, &answer.consistency_token)
                }
                None => self.senseless(call),
            },
            Err(error) => failed_read(&error),
        };
        self.settle(call, None, outcome)
    }

    /// Reads a page of a list. The second value is the next page's token; empty: there is none.
    pub(super) async fn page(
        &self,
        (scan, page): (u64, u32),
        (size, token): (i32, String),
        fresh: &Freshness,
        via: &Via,
    ) -> (Outcome, String) {
        let call = self.recorder.invoked(
            self.number,
            None,
            Input::List {
                scan,
                page,
                consistency: fresh.recorded,
            },
        );
        let message = v1::ListAccountsRequest {
            parent: REALM.into(),
            page_size: size,
            page_token: token,
            states: Vec::new(),
            consistency: fresh.asked.clone(),
        };
        let mut next = String::new();
        let outcome = match send!(self, via, list_accounts, message) {
            Ok(answer) => match views(&answer.accounts) {
                Some(accounts) => {
                    next = answer.next_page_token;
                    let last = next.is_empty();
                    self.ok(call, Output::Page { accounts, last }, &answer.consistency_token)
                }
                None => self.senseless(call),
            },
            Err(error) => failed_read(&error),
        };
        (self.settle(call, None, outcome), next)
    }

    /// Reads all accounts as a stream. Broken off: it failed, since half an export is none.
    pub(super) async fn export(&self, fresh: &Freshness) -> Outcome {
        let call = self.recorder.invoked(
            self.number,
            None,
            Input::Export {
                consistency: fresh.recorded,
            },
        );
        let message = v1::ExportAccountsRequest {
            parent: REALM.into(),
            states: Vec::new(),
            consistency: fresh.asked.clone(),
        };
        let options = self.options();
        let answer = match self
            .patiently(Box::pin(self.client.export_accounts(message, &options)))
            .await
        {
            Ok(mut export) => {
                let token = export.header.consistency_token.clone();
                let mut accounts = Vec::new();
                let read = async {
                    while let Some(batch) = export.next_batch().await? {
                        accounts.extend(batch);
                    }
                    Ok::<_, ClientError>(())
                };
                let read = self.within(Box::pin(read)).await;
                read.map(|()| (accounts, token))
            }
            Err(error) => Err(error),
        };
        let outcome = match answer {
            Ok((accounts, token)) => match views(&accounts) {
                Some(accounts) => self.ok(call, Output::Page { accounts, last: true }, &token),
                None => self.senseless(call),
            },
            Err(error) => failed_read(&error),
        };
        self.settle(call, None, outcome)
    }

    /// *Ok*, and the token is kept.
    fn ok(&self, call: Call, output: Output, token: &[u8]) -> Outcome {
        let position = position(token);
        if let Some(position) = position {
            let account = match &output {
                Output::Changed { account, .. } | Output::Account(account) => Some(account.account.clone()),
                _ => None,
            };
            self.world.keep(Token {
                operation: call.0,
                position,
                account,
                bytes: token.to_vec(),
            });
        } else {
            self.recorder.violation(format!(
                "operation {} was answered without a token of ours",
                call.0
            ));
        }
        Outcome::Ok { output, position }
    }

    fn senseless(&self, call: Call) -> Outcome {
        self.recorder.violation(format!(
            "operation {} was answered with an account that is none",
            call.0
        ));
        Outcome::Unknown
    }

    fn settle(&self, call: Call, account: Option<&str>, outcome: Outcome) -> Outcome {
        match (&outcome, account) {
            (Outcome::Ok { output, .. }, account) => self.world.answered(account, output),
            (Outcome::DefinitelyNot(reason), Some(account)) => self.world.refused(account, reason),
            _ => {}
        }
        let silence = matches!(
            outcome,
            Outcome::Unknown | Outcome::DefinitelyNot(Reason::Other(_))
        );
        self.answered.store(!silence, Ordering::Relaxed);
        self.recorder.returned(call, outcome.clone());
        outcome
    }

    /// Whether the last call was answered: with *ok*, or with a refusal of the service as a whole.
    pub(super) fn was_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    fn options(&self) -> CallOptions {
        CallOptions::deadline(self.deadline)
    }

    /// A call of the production client, which keeps its deadline by itself.
    async fn patiently<R>(
        &self,
        call: impl Future<Output = Result<R, ClientError>>,
    ) -> Result<R, ClientError> {
        let limit = self.deadline + GRACE;
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer,
            Err(_) => {
                self.hung(limit);
                Err(given_up(limit))
            }
        }
    }

    /// Something without a deadline of its own, broken off at the client's.
    async fn within<R>(&self, work: impl Future<Output = Result<R, ClientError>>) -> Result<R, ClientError> {
        match tokio::time::timeout(self.deadline, work).await {
            Ok(answer) => answer,
            Err(_) => Err(given_up(self.deadline)),
        }
    }

    /// One attempt.
    async fn once<R>(
        &self,
        call: impl Future<Output = Result<Response<R>, Status>>,
    ) -> Result<R, ClientError> {
        match tokio::time::timeout(self.deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(ClientError::from_status(&status)),
            Err(_) => Err(given_up(self.deadline)),
        }
    }

    /// A client that did not give up when it should have.
    pub(super) fn hung(&self, limit: Duration) {
        self.recorder.violation(format!(
            "client {} was still busy after {} ms with a deadline of {} ms",
            self.number,
            limit.as_millis(),
            self.deadline.as_millis()
        ));
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        if let Ok(caller) = caller_name(self.number).parse() {
            request.metadata_mut().insert("holdfast-caller", caller);
        }
        request
    }

    fn service(&self, node: &Endpoint) -> Result<Service, ClientError> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(service) = services.get(&node.client) {
            return Ok(service.clone());
        }
        let address = Address::from_shared(format!("http://{}", node.client)).map_err(|error| {
            ClientError::local(Code::InvalidArgument, error.to_string(), Known::NotApplied)
        })?;
        let service = Service::new(address.connect_lazy());
        services.insert(node.client.clone(), service.clone());
        Ok(service)
    }
}

fn caller_name(number: u32) -> String {
    format!("client-{number}")
}

fn given_up(after: Duration) -> ClientError {
    let message = format!("no answer within {} ms", after.as_millis());
    ClientError::local(Code::DeadlineExceeded, message, Known::Unknown)
}

/// What all answers to mutations hold.
struct Changed {
    account: Option<v1::Account>,
    revision: u64,
    token: bytes::Bytes,
}

macro_rules! changed {
    ($($response:ident),*) => {
        $(
            impl From<v1::$response> for Changed {
                fn from(answer: v1::$response) -> Self {
                    Changed {
                        account: answer.account,
                        revision: answer.revision,
                        token: answer.consistency_token,
                    }
                }
            }
        )*
    };
}

changed!(
    CreateAccountResponse,
    UpdateAccountResponse,
    ChangeIdentifiersResponse,
    DeleteAccountResponse,
    UndeleteAccountResponse
);

fn views(accounts: &[v1::Account]) -> Option<Vec<crate::history::AccountView>> {
    accounts.iter().map(convert::view).collect()
}

/// The accounts' ids in resource names.
fn ids(names: &[String]) -> Vec<String> {
    let id = |name: &String| name.rsplit('/').next().unwrap_or_default().to_owned();
    names.iter().map(id).collect()
}
