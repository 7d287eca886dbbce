//! The public gRPC services. Each handler reads the message, lets the other rooms do the work, and puts the
//! answer together; what all calls have in common is in [`Service::call`].

mod account;
mod checkpoint;
mod cluster;
mod export;
mod import;
mod list;
mod mutations;
mod realm;

pub(crate) use cluster::hand_over;

use std::future::Future;
use std::sync::Arc;

use futures::Stream;
use holdfast_types::Rejection;
use prost::Message;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use crate::admission::{Permit, Work};
use crate::call::Call;
use crate::core::Core;
use crate::failure::Failure;
use crate::methods::Method;
use crate::router::{self, Mutation};
use crate::telemetry::{Said, observe};
use crate::trace::TraceContext;

/// A stream's answers as they come, until there are no more or the node has failed: what waits to be sent then is not.
fn answers<T: Send + 'static>(
    core: Arc<Core>,
    receiver: mpsc::Receiver<Result<T, Status>>,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
    futures::stream::unfold(Some((core, receiver)), |state| async {
        let (core, mut receiver) = state?;
        let answer = receiver.recv().await?;
        match core.silence() {
            Some(silence) => Some((Err(silence.into()), None)),
            None => Some((answer, Some((core, receiver)))),
        }
    })
}

/// The implementation of all public services.
#[derive(Clone)]
pub(crate) struct Service {
    core: Arc<Core>,
}

impl Service {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Service { core }
    }

    /// Observes a call and gives it a deadline and, if its method needs one, a permit.
    async fn call<M, T, W>(
        &self,
        method: &'static Method,
        request: Request<M>,
        work: impl FnOnce(M, Call, Option<Permit>) -> W,
    ) -> Result<Response<T>, Status>
    where
        M: Message,
        W: Future<Output = Result<T, Failure>>,
    {
        let trace = TraceContext::of_call(request.metadata());
        let body = async {
            let call = Call::of(&request, method, &trace)?;
            let message = request.into_inner();
            let permit = match method.work {
                Some(kind) => Some(self.core.admit(kind, message.encoded_len())?),
                None => None,
            };
            let ended = work(message, call, permit).await;
            self.core.unless_failed(ended)
        };
        // Boxed: each layer around it would hold a copy.
        let header = trace.to_header();
        let body = holdfast_consensus::traced(header.clone(), Box::pin(body));
        let said = Said {
            traceparent: trace.drawn.then_some(header),
            leader: || self.leader_for(method),
        };
        observe(method, &trace, said, body).await
    }

    /// A mutation: checked for its shape here, carried out by the leader.
    async fn mutate<M: Mutation, Checked>(
        &self,
        method: &'static Method,
        request: Request<M>,
        check: fn(M) -> Result<Checked, Rejection>,
    ) -> Result<Response<M::Response>, Status> {
        self.call(method, request, async |message: M, call, permit| {
            // A malformed request is told so even while nobody leads. Whoever leads finds out by carrying it out.
            let leadership = self.core.leadership();
            if !(leadership.is_me && leadership.ready) {
                check(message.clone())?;
            }
            router::route(&self.core, message, &call, permit.map(Arc::new)).await
        })
        .await
    }

    /// The leader's address for the port on which this method is served.
    fn leader_for(&self, method: &Method) -> Option<String> {
        match method.work {
            Some(Work::Read | Work::Write | Work::Stream) if method.is_about_accounts() => {
                self.core.leader_client_address()
            }
            _ => self.core.leader_admin_address(),
        }
    }
}
