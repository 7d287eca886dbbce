//! The client: configuration, the two sets of endpoints, and how methods are called through them.

use std::future::Future;
use std::sync::Arc;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::call::{Call, Effect};
use crate::config::{CallOptions, ClientConfig};
use crate::endpoints::Endpoints;
use crate::error::ClientError;
use crate::request_id::new_request_id;
use crate::transport::{Connector, InvalidEndpoint};

/// The largest answer accepted, bytes. The service keeps its own well below.
pub(crate) const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A connection to a cluster. Cheap to clone; clones share connections and what is known about the leader.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) config: ClientConfig,
    pub(crate) connector: Connector,
    pub(crate) accounts: Endpoints,
    pub(crate) admin: Option<Endpoints>,
    pub(crate) caller: Option<MetadataValue<Ascii>>,
}

impl Client {
    /// Prepares connections; none is opened before the first call needs it. Must run within a Tokio runtime.
    pub fn connect(config: ClientConfig) -> Result<Self, InvalidEndpoint> {
        let connector = Connector::new(&config)?;
        let start = crate::backoff::draw_index(config.endpoints.len());
        let accounts = Endpoints::new(&config.endpoints, connector.clone(), start)?;
        let admin = if config.admin_endpoints.is_empty() {
            None
        } else {
            Some(Endpoints::new(&config.admin_endpoints, connector.clone(), start)?)
        };
        let caller = if config.caller.is_empty() {
            None
        } else {
            let value = config.caller.parse().map_err(|_| InvalidEndpoint {
                endpoint: config.caller.clone(),
                why: "a caller's name is printable ASCII".into(),
            })?;
            Some(value)
        };
        Ok(Client {
            shared: Arc::new(Shared {
                config,
                connector,
                accounts,
                admin,
                caller,
            }),
        })
    }

    /// The admin ports this client was given.
    pub fn admin_endpoints(&self) -> &[String] {
        &self.shared.config.admin_endpoints
    }

    /// A call of AccountService.
    pub(crate) fn call<'a>(&'a self, options: &'a CallOptions, effect: Effect) -> Call<'a> {
        let shared = &*self.shared;
        Call {
            config: &shared.config,
            endpoints: &shared.accounts,
            caller: shared.caller.as_ref(),
            options,
            effect,
            attempt_timeout: Some(shared.config.attempt_timeout),
            on_client_port: true,
            opens_stream: false,
        }
    }

    /// A call on the admin port of any node.
    pub(crate) fn admin_call<'a>(
        &'a self,
        options: &'a CallOptions,
        effect: Effect,
    ) -> Result<Call<'a>, ClientError> {
        let shared = &*self.shared;
        let endpoints = shared.admin.as_ref().ok_or_else(|| {
            ClientError::local(
                tonic::Code::FailedPrecondition,
                "this client was given no admin endpoints",
                crate::Outcome::NotApplied,
            )
        })?;
        // Membership changes wait for data to move; reads do not.
        let attempt_timeout = (effect == Effect::Read).then_some(shared.config.attempt_timeout);
        Ok(Call {
            endpoints,
            attempt_timeout,
            on_client_port: false,
            ..self.call(options, effect)
        })
    }

    /// Reads, from any node.
    pub(crate) async fn read<M, R, F, S>(
        &self,
        message: M,
        options: &CallOptions,
        send: S,
    ) -> Result<R, ClientError>
    where
        M: Clone,
        S: Fn(Channel, Request<M>) -> F,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.call(options, Effect::Read).run(message, send).await
    }

    /// Changes something, at most once for the request id, which is filled in if it is missing.
    pub(crate) async fn mutate<M, R, F, S>(
        &self,
        mut message: M,
        request_id: fn(&mut M) -> &mut String,
        options: &CallOptions,
        send: S,
    ) -> Result<R, ClientError>
    where
        M: Clone,
        S: Fn(Channel, Request<M>) -> F,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let field = request_id(&mut message);
        if field.is_empty() {
            *field = options.request_id.unwrap_or_else(new_request_id).to_string();
        }
        let effect = Effect::Once {
            request_id: field.clone(),
        };
        self.call(options, effect).run(message, send).await
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("endpoints", &self.shared.config.endpoints)
            .finish_non_exhaustive()
    }
}
