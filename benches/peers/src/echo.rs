//! The ceiling: a server that does nothing, and the driver for it.
//!
//! What a call costs before a store has done anything: the same gRPC library on both sides, a message as long as an
//! account. A read asks with the id and gets the payload; everything else sends the payload there and back. Whatever a
//! store does comes on top.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use holdfast_bench::{Change, Existing, Failure, Found, Record, Session, Store, Updated};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

use crate::Setup;
use crate::generated::echo as pb;
use crate::generated::echo::echo_client::EchoClient;
use crate::generated::echo::echo_server::{Echo, EchoServer};
use crate::status::{channels, failure};

/// Serves until the process is stopped.
pub(crate) async fn serve(address: SocketAddr, payload_bytes: usize) -> Result<(), tonic::transport::Error> {
    let population = holdfast_bench::Population {
        seed: 1,
        payload_bytes,
    };
    let answer = Bytes::from(population.record(0).payload);
    Server::builder()
        .tcp_nodelay(true)
        .add_service(EchoServer::new(Nothing { answer }))
        .serve(address)
        .await
}

struct Nothing {
    answer: Bytes,
}

#[tonic::async_trait]
impl Echo for Nothing {
    async fn exchange(&self, request: Request<pb::Record>) -> Result<Response<pb::Record>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn answer(&self, request: Request<pb::Question>) -> Result<Response<pb::Record>, Status> {
        Ok(Response::new(pb::Record {
            id: request.into_inner().id,
            payload: self.answer.clone(),
        }))
    }
}

/// The driver.
pub(crate) struct EchoStore {
    setup: Setup,
    channels: Vec<Channel>,
}

impl EchoStore {
    /// Prepares the connections.
    pub(crate) fn new(setup: Setup) -> Result<Self, Failure> {
        let channels = channels(&setup.endpoints, setup.connections)?;
        Ok(EchoStore { setup, channels })
    }
}

impl Store for EchoStore {
    type Session = EchoSession;

    fn name(&self) -> &str {
        "echo"
    }

    fn settings(&self) -> BTreeMap<String, String> {
        self.setup.describe()
    }

    async fn session(&self, client: usize) -> Result<EchoSession, Failure> {
        let mut session = EchoSession(EchoClient::new(
            self.channels[client % self.channels.len()].clone(),
        ));
        session.ask("").await?;
        Ok(session)
    }
}

/// One client.
pub(crate) struct EchoSession(EchoClient<Channel>);

impl EchoSession {
    async fn exchange(&mut self, id: &str, payload: Vec<u8>) -> Result<(), Failure> {
        let record = pb::Record {
            id: id.to_owned(),
            payload: payload.into(),
        };
        self.0.exchange(record).await.map_err(|status| failure(&status))?;
        Ok(())
    }

    async fn ask(&mut self, id: &str) -> Result<Option<Found>, Failure> {
        let answer = self.0.answer(pb::Question { id: id.to_owned() }).await;
        let record = answer.map_err(|status| failure(&status))?.into_inner();
        Ok(Some(Found {
            id: record.id,
            version: 1,
            payload_bytes: record.payload.len(),
        }))
    }
}

impl Session for EchoSession {
    async fn create(&mut self, record: Record) -> Result<u64, Failure> {
        self.exchange(&record.id, record.payload).await?;
        Ok(1)
    }

    async fn update(&mut self, change: Change<'_>) -> Result<Updated, Failure> {
        self.exchange(change.id, change.payload).await?;
        Ok(Updated::To(change.version + 1))
    }

    async fn get(&mut self, id: &str) -> Result<Option<Found>, Failure> {
        self.ask(id).await
    }

    async fn lookup(&mut self, email: &str) -> Result<Option<Found>, Failure> {
        self.ask(email).await
    }

    async fn import(&mut self, _: Vec<Record>, _: Existing) -> Result<(), Failure> {
        Ok(())
    }
}
