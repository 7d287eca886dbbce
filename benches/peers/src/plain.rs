//! Holdfast through a plain gRPC client: what people have who use another language than the SDK's.
//!
//! Such a client knows the published service config (`proto/holdfast/v1/service_config.json`) and nothing else of Holdfast: it
//! takes the nodes in turns, of which two of three pass a call on to the leader, and makes calls again as the config says.
//! tonic does neither, so it is here, as the specifications of gRPC have it:
//!
//! - *round robin* over the connections that are ready. One that cannot be opened is left alone for a second, then for longer
//!   (gRPC's connection back-off); a call that was not sent for it goes to another one and counts as no attempt;
//! - *retries* (gRFC A6): as many attempts, codes and waits as the config says, all within its deadline, and none while more
//!   of the last calls fail than its throttling allows. What a connection that breaks leaves behind is UNAVAILABLE;
//! - *transparent retry*: a call of which a node says that it never saw it, because it closed the connection (HTTP/2's GOAWAY), is
//!   made again at once, once, and that counts as no attempt;
//! - *wait for ready*: while no connection is ready a call waits for one, until its deadline.
//!
//! What it does not know: who leads, what an error's details say, that an unknown outcome can be asked about.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_bench::{Change, Class, Existing, Failure, Found, Record, Session, Store, Updated, messages};
use holdfast_client::v1::account_service_client::AccountServiceClient;
use holdfast_client::{ClientError, Outcome, new_request_id};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::Setup;
use crate::service_config::ServiceConfig;
use crate::status::channels;

/// gRPC's connection back-off.
const RECONNECT_FIRST: Duration = Duration::from_secs(1);
const RECONNECT_FACTOR: f64 = 1.6;
const RECONNECT_MAX: Duration = Duration::from_secs(120);

/// The realm.
const PARENT: &str = "realms/default";

/// A cluster.
pub(crate) struct Plain {
    channel: Arc<Balanced>,
}

impl Plain {
    /// Prepares the connections, one for each node.
    pub(crate) fn new(setup: &Setup) -> Result<Self, Failure> {
        let config = ServiceConfig::published().map_err(|why| Failure::new(Class::Other, why))?;
        let subchannels = channels(&setup.endpoints, setup.endpoints.len())?
            .into_iter()
            .map(Subchannel::new)
            .collect();
        Ok(Plain {
            channel: Arc::new(Balanced {
                subchannels,
                next: AtomicUsize::new(0),
                tokens: Mutex::new(config.tokens_max),
                config,
            }),
        })
    }
}

impl Store for Plain {
    type Session = PlainSession;

    fn name(&self) -> &str {
        "holdfast-plain"
    }

    fn settings(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(
            "connections".to_owned(),
            self.channel.subchannels.len().to_string(),
        )])
    }

    async fn session(&self, _client: usize) -> Result<PlainSession, Failure> {
        let mut session = PlainSession {
            channel: self.channel.clone(),
        };
        session.get("bench-nobody").await?;
        Ok(session)
    }
}

/// One client.
pub(crate) struct PlainSession {
    channel: Arc<Balanced>,
}

impl Session for PlainSession {
    async fn create(&mut self, record: Record) -> Result<u64, Failure> {
        let mut request = messages::create(PARENT, record);
        request.request_id = new_request_id().to_string();
        let response = self
            .channel
            .call("CreateAccount", request, |mut service, request| async move {
                service.create_account(request).await
            })
            .await;
        Ok(response.map_err(messages::failure)?.revision)
    }

    async fn update(&mut self, change: Change<'_>) -> Result<Updated, Failure> {
        let mut request = messages::update(PARENT, change);
        request.request_id = new_request_id().to_string();
        let response = self
            .channel
            .call("UpdateAccount", request, |mut service, request| async move {
                service.update_account(request).await
            })
            .await;
        messages::updated(response)
    }

    async fn get(&mut self, id: &str) -> Result<Option<Found>, Failure> {
        let response = self
            .channel
            .call(
                "GetAccount",
                messages::get(PARENT, id),
                |mut service, request| async move { service.get_account(request).await },
            )
            .await;
        messages::found(response.map(|response| response.account))
    }

    async fn lookup(&mut self, email: &str) -> Result<Option<Found>, Failure> {
        let request = messages::lookup(PARENT, email);
        let response = self
            .channel
            .call("LookupAccount", request, |mut service, request| async move {
                service.lookup_account(request).await
            })
            .await;
        messages::found(response.map(|response| response.account))
    }

    async fn import(&mut self, _records: Vec<Record>, _existing: Existing) -> Result<(), Failure> {
        Err(Failure::new(
            Class::Unsupported,
            "the SDK fills the cluster: an import is resumed by more than a plain client does",
        ))
    }
}

/// Connections to all nodes, and what calls over them have in common.
struct Balanced {
    subchannels: Vec<Subchannel>,
    next: AtomicUsize,
    config: ServiceConfig,
    /// Of the throttling: what fails takes one, what succeeds gives some back.
    tokens: Mutex<f64>,
}

/// A connection to one node.
struct Subchannel {
    channel: Channel,
    /// While it could not be opened.
    failing: Mutex<Option<Failing>>,
}

/// When to try again, and how long the wait was.
#[derive(Debug, Clone, Copy)]
struct Failing {
    until: Instant,
    wait: Duration,
}

impl Subchannel {
    fn new(channel: Channel) -> Self {
        Subchannel {
            channel,
            failing: Mutex::new(None),
        }
    }

    /// When it may be used: at once, or later.
    fn ready_at(&self) -> Option<Instant> {
        let failing = *self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing
            .map(|failing| failing.until)
            .filter(|until| *until > Instant::now())
    }

    fn opened(&self) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn not_opened(&self) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let wait = match *failing {
            // Another call has just found the same.
            Some(failing) if failing.until > now => return,
            Some(failing) => failing.wait.mul_f64(RECONNECT_FACTOR).min(RECONNECT_MAX),
            None => RECONNECT_FIRST,
        };
        *failing = Some(Failing {
            until: now + wait.mul_f64(jitter()),
            wait,
        });
    }
}

impl Balanced {
    /// A call, with its retries.
    async fn call<M, R, F>(
        &self,
        method: &str,
        message: M,
        send: impl Fn(AccountServiceClient<Channel>, Request<M>) -> F + Send + Sync,
    ) -> Result<R, ClientError>
    where
        M: Clone + Send + Sync,
        F: Future<Output = Result<Response<R>, Status>> + Send,
    {
        let policy = self.config.method(method);
        let deadline = Instant::now() + policy.timeout;
        let (mut unknown, mut never_seen) = (false, false);
        for attempt in 1.. {
            let error = match self.attempt(deadline, &mut never_seen, &message, &send).await {
                Ok(response) => {
                    self.succeeded();
                    return Ok(response);
                }
                Err(error) => error,
            };
            unknown |= error.outcome == Outcome::Unknown;
            let again = policy.repeats(error.code) && self.may_repeat() && attempt < policy.attempts_max;
            let wait = policy.wait(attempt, jitter());
            if !again || Instant::now() + wait >= deadline {
                return Err(settled(method, error, unknown));
            }
            tokio::time::sleep(wait).await;
        }
        unreachable!("attempts are limited")
    }

    /// One attempt, over the first connection that is ready and can be used.
    async fn attempt<M, R, F>(
        &self,
        deadline: Instant,
        never_seen: &mut bool,
        message: &M,
        send: &(impl Fn(AccountServiceClient<Channel>, Request<M>) -> F + Send + Sync),
    ) -> Result<R, ClientError>
    where
        M: Clone + Send + Sync,
        F: Future<Output = Result<Response<R>, Status>> + Send,
    {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = "no connection was ready before the deadline";
                return Err(ClientError::local(
                    Code::DeadlineExceeded,
                    what,
                    Outcome::NotApplied,
                ));
            }
            let subchannel = match self.pick() {
                Ok(subchannel) => subchannel,
                Err(ready_at) => {
                    tokio::time::sleep_until(ready_at.min(deadline).into()).await;
                    continue;
                }
            };
            let mut request = Request::new(message.clone());
            request.set_timeout(left);
            let answer = send(AccountServiceClient::new(subchannel.channel.clone()), request).await;
            let mut error = match answer {
                Ok(response) => {
                    subchannel.opened();
                    return Ok(response.into_inner());
                }
                Err(status) if !*never_seen && was_never_seen(&status) => {
                    *never_seen = true;
                    continue;
                }
                Err(status) => ClientError::from_status(&status),
            };
            let of_transport = error.reason.is_empty();
            if of_transport && error.outcome == Outcome::NotApplied && error.code == Code::Unavailable {
                subchannel.not_opened();
                continue;
            }
            // tonic has other names for a connection that broke under a call.
            if of_transport && matches!(error.code, Code::Unknown | Code::Internal | Code::Cancelled) {
                error.code = Code::Unavailable;
            }
            return Err(error);
        }
    }

    /// The next connection that is ready, or when one will be worth a try.
    fn pick(&self) -> Result<&Subchannel, Instant> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut earliest: Option<Instant> = None;
        for offset in 0..self.subchannels.len() {
            let subchannel = &self.subchannels[(first + offset) % self.subchannels.len()];
            match subchannel.ready_at() {
                None => return Ok(subchannel),
                Some(at) => earliest = Some(earliest.map_or(at, |earliest| earliest.min(at))),
            }
        }
        Err(earliest.unwrap_or_else(Instant::now))
    }

    fn succeeded(&self) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        *tokens = (*tokens + self.config.token_ratio).min(self.config.tokens_max);
    }

    /// Takes note of a failure that may be repeated. More than half of the tokens must be left.
    fn may_repeat(&self) -> bool {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        *tokens = (*tokens - 1.0).max(0.0);
        *tokens > self.config.tokens_max / 2.0
    }
}

/// Whether the node closed the connection in an orderly way and said that it had not seen this call.
fn was_never_seen(status: &Status) -> bool {
    let mut error = std::error::Error::source(status);
    while let Some(cause) = error {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return h2.is_go_away() && h2.is_remote() && h2.reason() == Some(h2::Reason::NO_ERROR);
        }
        error = cause.source();
    }
    false
}

/// What is known after all attempts: one that may have changed something leaves that open. Reads change nothing.
fn settled(method: &str, mut error: ClientError, unknown: bool) -> ClientError {
    let reads = method.starts_with("Get") || method.starts_with("Lookup");
    error.outcome = match unknown && !reads {
        true => Outcome::Unknown,
        false => Outcome::NotApplied,
    };
    error
}

/// gRPC draws waits a fifth longer or shorter.
fn jitter() -> f64 {
    // The clock's nanoseconds are random enough to tell clients apart.
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .subsec_nanos();
    0.8 + 0.4 * f64::from(nanos % 1_009) / 1_009.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balanced(nodes: usize) -> Balanced {
        let addresses = vec!["127.0.0.1:9".to_owned(); nodes];
        let subchannels = channels(&addresses, nodes).unwrap();
        let config = ServiceConfig::published().unwrap();
        Balanced {
            subchannels: subchannels.into_iter().map(Subchannel::new).collect(),
            next: AtomicUsize::new(0),
            tokens: Mutex::new(config.tokens_max),
            config,
        }
    }

    fn place(balanced: &Balanced, picked: &Subchannel) -> usize {
        let same = |one: &Subchannel| std::ptr::eq(one, picked);
        balanced.subchannels.iter().position(same).unwrap()
    }

    #[tokio::test]
    async fn who_cannot_be_reached_is_left_alone_for_a_while() {
        let balanced = balanced(3);
        let picks = |count: usize| -> Vec<usize> {
            let picked = (0..count).map(|_| balanced.pick().ok().unwrap());
            picked.map(|picked| place(&balanced, picked)).collect()
        };
        assert_eq!(picks(4), [0, 1, 2, 0]);
        balanced.subchannels[1].not_opened();
        assert!(!picks(6).contains(&1));
        balanced.subchannels[1].opened();
        assert!(picks(3).contains(&1));
        balanced.subchannels.iter().for_each(Subchannel::not_opened);
        let ready_at = balanced.pick().err().unwrap();
        assert!(ready_at > Instant::now());
    }

    #[tokio::test]
    async fn too_many_failures_end_the_retries() {
        let balanced = balanced(1);
        let repeated = (0..100).filter(|_| balanced.may_repeat()).count();
        assert_eq!(repeated, 49, "of a hundred tokens more than half must be left");
        (0..20).for_each(|_| balanced.succeeded());
        assert!(!balanced.may_repeat());
        (0..500).for_each(|_| balanced.succeeded());
        assert!(balanced.may_repeat());
    }
}
