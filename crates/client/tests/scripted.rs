//! The client against servers that follow a script: which node gets which attempt, under which request id, and
//! how long all of it may take.
// Helpers of tests may panic like tests.
#![allow(clippy::unwrap_used)]
#![cfg(not(madsim))]

#[path = "scripted/gather.rs"]
mod gather;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use holdfast_client::{
    Backoff, CallOptions, Client, ClientConfig, ClientError, ImportEvent, ImportOptions, Outcome,
    new_request_id, v1,
};
use holdfast_wire::status::{Problem, Reason};
use holdfast_wire::v1::account_service_client::AccountServiceClient;
use holdfast_wire::v1::account_service_server::{AccountService, AccountServiceServer};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};

/// What a server does with one call.
#[derive(Clone)]
enum Act {
    Answer,
    Fail(Status),
    /// Answer, and name this address as the leader.
    NameLeader(String),
    /// Never answer, like a frozen node.
    Freeze,
    /// An import: give results for this many items, then break the stream.
    BreakAfter(usize),
}

/// What a server saw of one call.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    request_id: String,
    caller: String,
    has_timeout: bool,
    traceparent: String,
}

/// A server with a script; when that is over, it answers.
#[derive(Clone, Default)]
struct Scripted {
    script: Arc<Mutex<VecDeque<Act>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Results given by imports, by index, over all streams.
    settled: Arc<Mutex<std::collections::BTreeMap<u64, u64>>>,
    address: String,
}

impl Scripted {
    async fn start(script: impl IntoIterator<Item = Act>) -> Self {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap().to_string();
        let scripted = Scripted {
            script: Arc::new(Mutex::new(script.into_iter().collect())),
            address,
            ..Self::default()
        };
        let service = AccountServiceServer::new(scripted.clone());
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        scripted
    }

    fn note<T>(&self, request: &Request<T>, request_id: &str) -> Act {
        let text = |key: &str| {
            request
                .metadata()
                .get(key)
                .map_or("", |value| value.to_str().unwrap())
                .to_owned()
        };
        self.seen.lock().unwrap().push(Seen {
            request_id: request_id.to_owned(),
            caller: text("holdfast-caller"),
            has_timeout: !text("grpc-timeout").is_empty(),
            traceparent: text("traceparent"),
        });
        self.script.lock().unwrap().pop_front().unwrap_or(Act::Answer)
    }

    async fn perform<R: Default>(&self, act: Act) -> Result<Response<R>, Status> {
        match act {
            Act::Answer | Act::BreakAfter(_) => Ok(Response::new(R::default())),
            Act::Fail(status) => Err(status),
            Act::NameLeader(leader) => {
                let mut response = Response::new(R::default());
                response
                    .metadata_mut()
                    .insert("holdfast-leader", leader.parse().unwrap());
                Ok(response)
            }
            Act::Freeze => std::future::pending().await,
        }
    }

    fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

type Results<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AccountService for Scripted {
    async fn create_account(
        &self,
        request: Request<v1::CreateAccountRequest>,
    ) -> Result<Response<v1::CreateAccountResponse>, Status> {
        let act = self.note(&request, &request.get_ref().request_id);
        self.perform(act).await
    }

    async fn get_account(
        &self,
        request: Request<v1::GetAccountRequest>,
    ) -> Result<Response<v1::GetAccountResponse>, Status> {
        let act = self.note(&request, "");
        self.perform(act).await
    }

    type ImportAccountsStream = Results<v1::ImportAccountsResponse>;

    async fn import_accounts(
        &self,
        request: Request<Streaming<v1::ImportAccountsRequest>>,
    ) -> Result<Response<Self::ImportAccountsStream>, Status> {
        let act = self.note(&request, "");
        if let Act::Fail(status) = act {
            return Err(status);
        }
        let limit = if let Act::BreakAfter(count) = &act {
            *count
        } else {
            usize::MAX
        };
        let settled = self.settled.clone();
        let highest = settled.lock().unwrap().keys().next_back().copied().unwrap_or(0);
        let header = v1::ImportHeader {
            resume_after_index: highest,
        };
        let header = v1::ImportAccountsResponse {
            payload: Some(v1::import_accounts_response::Payload::Header(header)),
            resume_after_index: highest,
        };
        let items = request.into_inner().flat_map(|message| {
            let items = match message.map(|message| message.payload) {
                Ok(Some(v1::import_accounts_request::Payload::Batch(batch))) => batch.items,
                _ => Vec::new(),
            };
            futures::stream::iter(items)
        });
        // One result an answer, whatever came together.
        let results = items.filter_map(move |item| {
            let settled = settled.clone();
            async move {
                // Settled once; sent again, it gets the same result again.
                let revision = *settled
                    .lock()
                    .unwrap()
                    .entry(item.index)
                    .or_insert(item.index * 10);
                let result = v1::ImportItemResult {
                    index: item.index,
                    revision,
                    ..Default::default()
                };
                Some(Ok(v1::ImportAccountsResponse {
                    payload: Some(v1::import_accounts_response::Payload::Batch(
                        v1::ImportResultBatch {
                            results: vec![result],
                        },
                    )),
                    resume_after_index: item.index,
                }))
            }
        });
        let broken =
            futures::stream::iter((limit != usize::MAX).then(|| Err(Status::unavailable("connection lost"))));
        let answers = futures::stream::iter([Ok(header)])
            .chain(results.take(limit))
            .chain(broken);
        let mut response: Response<Self::ImportAccountsStream> = Response::new(Box::pin(answers));
        if let Act::NameLeader(leader) = act {
            response
                .metadata_mut()
                .insert("holdfast-leader", leader.parse().unwrap());
        }
        Ok(response)
    }

    type ExportAccountsStream = Results<v1::ExportAccountsResponse>;

    async fn export_accounts(
        &self,
        request: Request<v1::ExportAccountsRequest>,
    ) -> Result<Response<Self::ExportAccountsStream>, Status> {
        let act = self.note(&request, "");
        if let Act::Fail(status) = act {
            return Err(status);
        }
        let batch = v1::ExportBatch {
            accounts: vec![v1::Account::default(); 2],
        };
        let messages = [
            v1::export_accounts_response::Payload::Header(v1::ExportHeader::default()),
            v1::export_accounts_response::Payload::Batch(batch),
        ];
        let mut answers: Vec<Result<v1::ExportAccountsResponse, Status>> = messages
            .into_iter()
            .map(|payload| {
                Ok(v1::ExportAccountsResponse {
                    payload: Some(payload),
                })
            })
            .collect();
        if let Act::BreakAfter(_) = act {
            answers.push(Err(Status::unavailable("connection lost")));
        }
        Ok(Response::new(Box::pin(futures::stream::iter(answers))))
    }

    async fn batch_get_accounts(
        &self,
        request: Request<v1::BatchGetAccountsRequest>,
    ) -> Result<Response<v1::BatchGetAccountsResponse>, Status> {
        let act = self.note(&request, "");
        let template = self.perform(act).await?;
        Ok(gather::answer(request.into_inner(), template))
    }

    async fn lookup_account(
        &self,
        _: Request<v1::LookupAccountRequest>,
    ) -> Result<Response<v1::LookupAccountResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn update_account(
        &self,
        _: Request<v1::UpdateAccountRequest>,
    ) -> Result<Response<v1::UpdateAccountResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn change_identifiers(
        &self,
        _: Request<v1::ChangeIdentifiersRequest>,
    ) -> Result<Response<v1::ChangeIdentifiersResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn delete_account(
        &self,
        _: Request<v1::DeleteAccountRequest>,
    ) -> Result<Response<v1::DeleteAccountResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn undelete_account(
        &self,
        _: Request<v1::UndeleteAccountRequest>,
    ) -> Result<Response<v1::UndeleteAccountResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn list_accounts(
        &self,
        _: Request<v1::ListAccountsRequest>,
    ) -> Result<Response<v1::ListAccountsResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
}

/// A client of these servers, quick to retry.
fn client(addresses: &[&str]) -> Client {
    Client::connect(ClientConfig {
        endpoints: addresses.iter().map(|address| (*address).to_owned()).collect(),
        admin_endpoints: Vec::new(),
        caller: "tests".to_owned(),
        deadline: Duration::from_secs(5),
        attempt_timeout: Duration::from_millis(300),
        backoff: Backoff {
            base_ms: 1,
            wait_ms_max: 10,
        },
        ..ClientConfig::default()
    })
    .unwrap()
}

fn unknown() -> Act {
    Act::Fail(
        Problem::outcome_unknown()
            .retry_after(Duration::from_millis(1))
            .to_status(),
    )
}

fn problem(reason: Reason) -> Act {
    Act::Fail(Problem::new(reason, "scripted").to_status())
}

#[tokio::test]
async fn every_attempt_of_a_mutation_has_the_same_request_id() {
    let broken = Act::Fail(Status::unavailable("connection reset"));
    let server = Scripted::start([unknown(), broken, unknown()]).await;
    let client = client(&[&server.address]);
    client
        .create_account(v1::CreateAccountRequest::default(), &CallOptions::default())
        .await
        .unwrap();
    let seen = server.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 4);
    assert!(
        seen.iter().all(|call| *call == seen[0]),
        "the same id, caller and trace each time: {seen:?}"
    );
    assert!(
        holdfast_types::RequestId::parse(&seen[0].request_id).is_ok(),
        "{}",
        seen[0].request_id
    );
    assert_eq!((seen[0].caller.as_str(), seen[0].has_timeout), ("tests", true));
    assert!(seen[0].traceparent.starts_with("00-"));
}

#[tokio::test]
async fn the_callers_own_request_id_is_kept() {
    let server = Scripted::start([]).await;
    let client = client(&[&server.address]);
    let id = new_request_id();
    let options = CallOptions {
        request_id: Some(id),
        ..CallOptions::default()
    };
    client
        .create_account(v1::CreateAccountRequest::default(), &options)
        .await
        .unwrap();
    let message = v1::CreateAccountRequest {
        request_id: "in the message".into(),
        ..Default::default()
    };
    client.create_account(message, &options).await.unwrap();
    let seen = server.seen.lock().unwrap().clone();
    assert_eq!(seen[0].request_id, id.to_string());
    assert_eq!(
        seen[1].request_id, "in the message",
        "the message goes before the options"
    );
}

#[tokio::test]
async fn definite_answers_are_not_repeated() {
    for (reason, code) in [
        (Reason::IdentifierUnavailable, Code::AlreadyExists),
        (Reason::EtagMismatch, Code::Aborted),
        (Reason::InvalidField, Code::InvalidArgument),
        (Reason::DiskFull, Code::ResourceExhausted),
    ] {
        let server = Scripted::start([problem(reason)]).await;
        let client = client(&[&server.address]);
        let error = client
            .create_account(v1::CreateAccountRequest::default(), &CallOptions::default())
            .await
            .unwrap_err();
        assert_eq!(
            (error.code, error.outcome, server.calls()),
            (code, Outcome::NotApplied, 1),
            "{error:?}"
        );
        assert!(error.request_id.is_some());
    }
}

#[tokio::test]
async fn the_deadline_is_obeyed_and_the_outcome_is_unknown() {
    let server = Scripted::start(vec![Act::Freeze; 100]).await;
    let client = client(&[&server.address]);
    let began = Instant::now();
    let options = CallOptions::deadline(Duration::from_millis(700));
    let error = client
        .create_account(v1::CreateAccountRequest::default(), &options)
        .await
        .unwrap_err();
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(600) && took < Duration::from_millis(1_200),
        "{took:?}"
    );
    assert_eq!(error.outcome, Outcome::Unknown, "{error:?}");
    assert!(
        server.calls() >= 2,
        "a frozen attempt is given up before the deadline"
    );

    // A read that fails has changed nothing, whatever happened.
    let error = client
        .get_account(v1::GetAccountRequest::default(), &options)
        .await
        .unwrap_err();
    assert_eq!(error.outcome, Outcome::NotApplied);
}

/// tonic ends a call at its own deadline with CANCELLED, which says something else.
#[tokio::test]
async fn a_deadline_of_the_transport_is_a_deadline() {
    let server = Scripted::start([Act::Freeze]).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut request = Request::new(v1::CreateAccountRequest::default());
    request.set_timeout(Duration::from_millis(100));
    let status = AccountServiceClient::new(channel)
        .create_account(request)
        .await
        .unwrap_err();
    let error = ClientError::from_status(&status);
    assert_eq!(
        (error.code, error.outcome),
        (Code::DeadlineExceeded, Outcome::Unknown),
        "{status:?}"
    );
    assert!(
        error.message.contains("deadline") && error.is_retryable(),
        "{error}"
    );
}

#[tokio::test]
async fn nobody_there_is_known_to_have_done_nothing() {
    let client = client(&["127.0.0.1:1", "127.0.0.1:2"]);
    let options = CallOptions::deadline(Duration::from_millis(200));
    let error = client
        .create_account(v1::CreateAccountRequest::default(), &options)
        .await
        .unwrap_err();
    assert_eq!(
        (error.code, error.outcome),
        (Code::Unavailable, Outcome::NotApplied),
        "{error:?}"
    );
    assert!(
        error.attempts >= 2 && error.message.contains("refused"),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_unknown_attempt_is_not_forgotten() {
    // The first attempt may have done it; that the second surely did not changes nothing about that.
    let mut script = vec![unknown()];
    script.extend(vec![problem(Reason::NoLeader); 100]);
    let server = Scripted::start(script).await;
    let options = CallOptions::deadline(Duration::from_millis(600));
    let error = client(&[&server.address])
        .create_account(v1::CreateAccountRequest::default(), &options)
        .await
        .unwrap_err();
    assert_eq!(
        (error.reason.as_str(), error.outcome),
        ("NO_LEADER", Outcome::Unknown)
    );

    // A considered answer is one: the service looked the request id up.
    let server = Scripted::start([unknown(), problem(Reason::AccountExists)]).await;
    let error = client(&[&server.address])
        .create_account(v1::CreateAccountRequest::default(), &options)
        .await
        .unwrap_err();
    assert_eq!(
        (error.reason.as_str(), error.outcome),
        ("ACCOUNT_EXISTS", Outcome::NotApplied)
    );

    // One that was given before any record was looked for, or because it may be forgotten, is not.
    for reason in [
        Reason::RequestIdExpired,
        Reason::RequestIdFromFuture,
        Reason::Contention,
    ] {
        let server = Scripted::start([unknown(), problem(reason)]).await;
        let options = CallOptions {
            attempts_max: Some(2),
            ..options.clone()
        };
        let error = client(&[&server.address])
            .create_account(v1::CreateAccountRequest::default(), &options)
            .await
            .unwrap_err();
        assert_eq!(
            (server.calls(), error.outcome),
            (2, Outcome::Unknown),
            "{reason:?}"
        );
    }
}

#[tokio::test]
async fn a_dead_or_frozen_node_is_passed_by() {
    let alive = Scripted::start([]).await;
    let frozen = Scripted::start(vec![Act::Freeze; 100]).await;
    for other in ["127.0.0.1:1", &frozen.address] {
        let client = client(&[other, &alive.address]);
        for _ in 0..4 {
            let began = Instant::now();
            client
                .get_account(v1::GetAccountRequest::default(), &CallOptions::default())
                .await
                .unwrap();
            assert!(began.elapsed() < Duration::from_millis(900));
        }
    }
    assert!(
        frozen.calls() <= 1,
        "once found frozen, it is not asked first again"
    );
}

#[tokio::test]
async fn the_leader_that_a_node_names_is_asked_next() {
    let leader = Scripted::start([]).await;
    let follower = Scripted::start([Act::NameLeader(leader.address.clone())]).await;
    let client_of_follower = client(&[&follower.address]);
    for _ in 0..3 {
        client_of_follower
            .get_account(v1::GetAccountRequest::default(), &CallOptions::default())
            .await
            .unwrap();
    }
    assert_eq!(
        (follower.calls(), leader.calls()),
        (1, 2),
        "learned from an answer"
    );

    let redirect = Problem::new(Reason::NoLeader, "ask the leader").fact("leader", &leader.address);
    let follower = Scripted::start([Act::Fail(redirect.to_status())]).await;
    let began = Instant::now();
    client(&[&follower.address])
        .create_account(v1::CreateAccountRequest::default(), &CallOptions::default())
        .await
        .unwrap();
    assert_eq!(
        (follower.calls(), leader.calls()),
        (1, 3),
        "learned from an error"
    );
    assert!(
        began.elapsed() < Duration::from_millis(200),
        "a redirection is followed at once"
    );
}

#[tokio::test]
async fn overload_is_waited_out() {
    let refused = Problem::new(Reason::Overloaded, "too much").retry_after(Duration::from_millis(150));
    let server = Scripted::start([Act::Fail(refused.to_status())]).await;
    let began = Instant::now();
    client(&[&server.address])
        .get_account(v1::GetAccountRequest::default(), &CallOptions::default())
        .await
        .unwrap();
    assert!(
        began.elapsed() >= Duration::from_millis(150),
        "RetryInfo is honoured"
    );
}

fn items(count: u64) -> impl Stream<Item = v1::ImportItem> + Send + 'static {
    futures::stream::iter((1..=count).map(|index| v1::ImportItem {
        index,
        ..Default::default()
    }))
}

async fn results(mut import: holdfast_client::Import) -> (u64, Vec<u64>) {
    let mut after = None;
    let mut indexes = Vec::new();
    while let Some(event) = import.next().await {
        match event.unwrap() {
            ImportEvent::Resumed { after_index } => assert_eq!(after.replace(after_index), None),
            ImportEvent::Result(result) => {
                assert_eq!(result.revision, result.index * 10);
                indexes.push(result.index);
            }
        }
    }
    (after.unwrap(), indexes)
}

#[tokio::test]
async fn an_import_gives_each_item_one_result_across_broken_streams() {
    let script = [
        Act::BreakAfter(3),
        Act::Fail(Status::unavailable("restarting")),
        Act::BreakAfter(0),
        Act::BreakAfter(70),
    ];
    let server = Scripted::start(script).await;
    let mut options = ImportOptions::new("realms/default", new_request_id(), v1::ImportMode::Create);
    options.window = 16;
    let (after, indexes) =
        results(client(&[&server.address]).import_accounts(options.clone(), items(200))).await;
    assert_eq!((after, indexes), (0, (1..=200).collect()));
    assert_eq!(server.calls(), 5);

    // Another run of the same import passes over what is settled.
    let (after, indexes) = results(client(&[&server.address]).import_accounts(options, items(203))).await;
    assert_eq!((after, indexes), (200, vec![201, 202, 203]));
}

#[tokio::test]
async fn an_import_goes_to_the_leader() {
    let leader = Scripted::start([]).await;
    let follower = Scripted::start([Act::NameLeader(leader.address.clone())]).await;
    let options = ImportOptions::new("realms/default", new_request_id(), v1::ImportMode::Create);
    let import = client(&[&follower.address]).import_accounts(options, items(20));
    assert_eq!(results(import).await, (0, (1..=20).collect()));
    assert_eq!(leader.settled.lock().unwrap().len(), 20);
    assert!(follower.settled.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_import_ends_with_the_error_that_stays() {
    let server = Scripted::start([problem(Reason::InvalidField)]).await;
    let options = ImportOptions::new("realms/default", new_request_id(), v1::ImportMode::Create);
    let mut import = client(&[&server.address]).import_accounts(options, items(1));
    let error = import.next().await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(import.next().await.is_none());

    let mut options = ImportOptions::new("realms/default", new_request_id(), v1::ImportMode::Create);
    options.patience = Duration::from_millis(200);
    let mut import = client(&["127.0.0.1:1"]).import_accounts(options.clone(), items(1));
    let error = import.next().await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::Unavailable, "{error:?}");

    // A full disk asks for a longer wait than anybody has patience for.
    let server = Scripted::start([problem(Reason::DiskFull)]).await;
    let mut import = client(&[&server.address]).import_accounts(options, items(1));
    let error = tokio::time::timeout(Duration::from_secs(5), import.next()).await;
    let error = error.expect("not waited for").unwrap().unwrap_err();
    assert_eq!(error.reason, "DISK_FULL", "{error:?}");
}

#[tokio::test]
async fn an_export_is_opened_again_but_not_pieced_together() {
    let server = Scripted::start([problem(Reason::NodeNotServing), Act::Answer, Act::BreakAfter(0)]).await;
    let client = client(&[&server.address]);
    let request = v1::ExportAccountsRequest {
        parent: "realms/default".into(),
        ..Default::default()
    };
    let mut export = client
        .export_accounts(request.clone(), &CallOptions::default())
        .await
        .unwrap();
    assert_eq!(
        export.next_batch().await.unwrap().map(|batch| batch.len()),
        Some(2)
    );
    assert_eq!(export.next_batch().await.unwrap(), None);

    let mut export = client
        .export_accounts(request, &CallOptions::default())
        .await
        .unwrap();
    assert!(export.next_batch().await.unwrap().is_some());
    let error = export.next_batch().await.unwrap_err();
    assert_eq!(
        (error.code, error.outcome),
        (Code::Unavailable, Outcome::NotApplied)
    );
    assert!(
        server.seen.lock().unwrap().iter().all(|call| !call.has_timeout),
        "a long stream has no deadline"
    );
}
