//! The simulated network does to calls what a real one does.
#![cfg(madsim)]

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use holdfast_rpc::client::Grpc;
use holdfast_rpc::codegen::http::uri::PathAndQuery;
use holdfast_rpc::codegen::{BoxFuture, BoxMessage, BoxMessageStream, Service};
use holdfast_rpc::transport::{Channel, Endpoint, NamedService, Server};
use holdfast_rpc::{Code, Request, Response, Status, Streaming, network};
use madsim::runtime::{Handle, NodeHandle, Runtime};
use tokio::time::{Instant, sleep};

const PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 1);
const CONNECT: Duration = Duration::from_secs(1);
const PING: Duration = Duration::from_secs(2);

/// Adds one to a number after a while, or counts from it.
#[derive(Clone, Default)]
struct Counting(Arc<Counts>);

#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    done: AtomicU64,
    told: AtomicU64,
}

impl NamedService for Counting {
    const NAME: &'static str = "holdfast.v1.Counting";
}

impl Service<(PathAndQuery, Request<BoxMessageStream>)> for Counting {
    type Response = Response<BoxMessageStream>;
    type Error = Status;
    type Future = BoxFuture<Self::Response, Status>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (path, request): (PathAndQuery, Request<BoxMessageStream>)) -> Self::Future {
        let counts = Arc::clone(&self.0);
        Box::pin(async move {
            counts.begun.fetch_add(1, Ordering::SeqCst);
            let first = request.into_inner().next().await.unwrap()?;
            let number = *first.downcast::<u64>().unwrap();
            if path.path().ends_with("/Add") {
                sleep(Duration::from_millis(100)).await;
                counts.done.fetch_add(1, Ordering::SeqCst);
                let answer: BoxMessage = Box::new(number + 1);
                return Ok(Response::new(stream::iter([Ok(answer)]).boxed()));
            }
            let numbers = stream::iter(number..).map(move |number| {
                counts.told.fetch_add(1, Ordering::SeqCst);
                Ok(Box::new(number) as BoxMessage)
            });
            Ok(Response::new(numbers.boxed()))
        })
    }
}

/// A server, a client's machine, and a channel between them.
struct Scene {
    server: NodeHandle,
    client: NodeHandle,
    counts: Arc<Counts>,
    channel: Channel,
}

fn play<T: 'static, F: Future<Output = T> + 'static>(act: impl FnOnce(Scene) -> F + 'static) -> T {
    Runtime::with_seed_and_config(1, madsim::Config::default()).block_on(async {
        let handle = Handle::current();
        let service = Counting::default();
        let counts = Arc::clone(&service.0);
        let server = handle
            .create_node()
            .ip(PORT.ip())
            .init(move || {
                let router = Server::builder().add_service(service.clone());
                async move { router.serve(PORT).await.unwrap() }
            })
            .build();
        let client = handle.create_node().ip(Ipv4Addr::new(10, 0, 1, 1).into()).build();
        let endpoint = Endpoint::from_shared(format!("http://{PORT}")).unwrap();
        let channel = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .connect_lazy();
        sleep(Duration::from_millis(1)).await;
        act(Scene {
            server,
            client,
            counts,
            channel,
        })
        .await
    })
}

impl Scene {
    /// One call from the client's machine, and how long it took.
    async fn add(&self, number: u64) -> (Result<u64, Status>, Duration) {
        let mut calls = Grpc::new(self.channel.clone());
        let call = self.client.spawn(async move {
            let began = Instant::now();
            let path = PathAndQuery::from_static("/holdfast.v1.Counting/Add");
            let answer = calls.unary::<u64, u64, ()>(Request::new(number), path, ()).await;
            (answer.map(Response::into_inner), began.elapsed())
        });
        call.await.unwrap()
    }

    async fn count(&self) -> Result<Streaming<u64>, Status> {
        let mut calls = Grpc::new(self.channel.clone());
        let call = self.client.spawn(async move {
            let path = PathAndQuery::from_static("/holdfast.v1.Counting/Count");
            calls
                .server_streaming::<u64, u64, ()>(Request::new(1), path, ())
                .await
        });
        call.await.unwrap().map(Response::into_inner)
    }

    fn cut_requests(&self) {
        network::cut(self.client.id(), self.server.id());
    }

    fn mend_requests(&self) {
        network::mend(self.client.id(), self.server.id());
    }

    fn cut_answers(&self) {
        network::cut(self.server.id(), self.client.id());
    }

    fn done(&self) -> u64 {
        self.counts.done.load(Ordering::SeqCst)
    }
}

#[test]
fn a_call_is_answered() {
    play(async |scene: Scene| {
        let (answer, took) = scene.add(1).await;
        assert_eq!(answer.unwrap(), 2);
        // The handler's tenth of a second, a round trip to connect and one for the call.
        assert!(
            (Duration::from_millis(104)..Duration::from_millis(145)).contains(&took),
            "{took:?}"
        );
        assert_eq!(scene.add(2).await.0.unwrap(), 3);
    });
}

#[test]
fn a_cut_link_is_silent_or_refuses() {
    play(async |scene: Scene| {
        scene.cut_requests();
        let (answer, took) = scene.add(1).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
        assert_eq!(took.as_secs(), CONNECT.as_secs());
        network::change_weather(|weather| weather.silent = 0.0);
        let (answer, took) = scene.add(1).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
        assert!(took < CONNECT / 10, "{took:?}");
        assert_eq!(scene.counts.begun.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_request_waits_in_a_cut_link_until_it_is_mended() {
    play(async |scene: Scene| {
        scene.add(1).await.0.unwrap();
        scene.cut_requests();
        let (answer, ()) = tokio::join!(scene.add(2), async {
            sleep(Duration::from_millis(1_500)).await;
            assert_eq!(scene.done(), 1);
            scene.mend_requests();
        });
        assert_eq!(answer.0.unwrap(), 3);
    });
}

#[test]
fn an_answer_may_be_lost_after_the_request_was_carried_out() {
    play(async |scene: Scene| {
        scene.add(1).await.0.unwrap();
        scene.cut_answers();
        let (answer, took) = scene.add(2).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
        assert_eq!(scene.done(), 2);
        // Pings are not answered either.
        assert!(took <= PING * 3, "{took:?}");
    });
}

#[test]
fn a_killed_process_is_noticed_at_once_and_a_dark_machine_is_not() {
    let kill = |power_cut: bool| {
        play(async move |scene: Scene| {
            scene.add(1).await.0.unwrap();
            let (answer, ()) = tokio::join!(scene.add(2), async {
                sleep(Duration::from_millis(50)).await;
                if power_cut {
                    network::power_off(scene.server.id());
                }
                Handle::current().kill(scene.server.id());
            });
            assert_eq!(answer.0.unwrap_err().code(), Code::Unavailable);
            answer.1
        })
    };
    assert!(kill(false) < Duration::from_millis(100));
    assert!(kill(true) > PING);
}

#[test]
fn a_reset_breaks_what_is_under_way_and_no_more() {
    play(async |scene: Scene| {
        let mut numbers = scene.count().await.unwrap();
        assert_eq!(numbers.message().await.unwrap(), Some(1));
        network::reset(scene.server.id());
        assert_eq!(numbers.message().await.unwrap_err().code(), Code::Unavailable);
        assert_eq!(scene.add(1).await.0.unwrap(), 2);
    });
}

#[test]
fn a_client_that_was_told_of_the_end_of_a_connection_opens_another() {
    play(async |scene: Scene| {
        scene.add(1).await.0.unwrap();
        // The news of the server's death is sent now, and takes an hour.
        let hour = Duration::from_secs(3600);
        network::change_weather(|weather| (weather.latency_min, weather.latency_max) = (hour, hour));
        Handle::current().restart(scene.server.id());
        sleep(Duration::from_millis(1)).await;
        let swift = Duration::from_millis(1);
        network::change_weather(|weather| (weather.latency_min, weather.latency_max) = (swift, swift));
        assert_eq!(scene.add(1).await.0.unwrap_err().code(), Code::Unavailable);
        assert_eq!(scene.add(1).await.0.unwrap(), 2);
    });
}

#[test]
fn a_handler_is_dropped_when_its_caller_has_gone() {
    play(async |scene: Scene| {
        scene.add(1).await.0.unwrap();
        let gave_up = tokio::time::timeout(Duration::from_millis(90), async {
            let mut calls = Grpc::new(scene.channel.clone());
            let path = PathAndQuery::from_static("/holdfast.v1.Counting/Add");
            calls.unary::<u64, u64, ()>(Request::new(1), path, ()).await
        });
        assert!(gave_up.await.is_err());
        sleep(Duration::from_secs(1)).await;
        assert_eq!(scene.counts.begun.load(Ordering::SeqCst), 2);
        assert_eq!(scene.done(), 1);
    });
}

#[test]
fn a_slow_reader_holds_the_writer_up() {
    play(async |scene: Scene| {
        let mut numbers = scene.count().await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let ahead = scene.counts.told.load(Ordering::SeqCst);
        assert!(ahead < 100, "{ahead}");
        for number in 1..1_000 {
            assert_eq!(numbers.message().await.unwrap(), Some(number));
        }
    });
}

#[test]
fn requests_of_clients_may_arrive_twice() {
    play(async |scene: Scene| {
        network::change_weather(|weather| weather.duplicates = 1.0);
        assert_eq!(scene.add(1).await.0.unwrap(), 2);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(scene.done(), 2);
    });
}

#[test]
fn a_connection_whose_opener_gave_up_ends() {
    play(async |scene: Scene| {
        let tasks = || Handle::current().metrics().num_tasks();
        let idle = tasks();
        scene.cut_answers();
        // Accepted, but its opener never learns of that.
        assert!(scene.add(1).await.0.is_err());
        network::mend(scene.server.id(), scene.client.id());
        sleep(Duration::from_secs(5)).await;
        assert_eq!(tasks(), idle);
    });
}

#[test]
fn a_caller_who_is_not_polled_while_the_connection_is_opened_keeps_nobody_waiting() {
    play(async |scene: Scene| {
        let call = || {
            let mut calls = Grpc::new(scene.channel.clone());
            let path = PathAndQuery::from_static("/holdfast.v1.Counting/Add");
            async move { calls.unary::<u64, u64, ()>(Request::new(1), path, ()).await }
        };
        let mut idle = Box::pin(call());
        assert!(futures::poll!(&mut idle).is_pending());
        let other = tokio::time::timeout(Duration::from_secs(10), call()).await;
        assert_eq!(other.unwrap().unwrap().into_inner(), 2);
        assert_eq!(idle.await.unwrap().into_inner(), 2);
    });
}

#[test]
fn a_connection_that_a_dying_process_had_not_taken_up_ends_with_it() {
    play(async |scene: Scene| {
        let (handle, server) = (Handle::current(), scene.server.id());
        handle.pause(server);
        network::freeze(server);
        let (answer, ()) = tokio::join!(scene.add(1), async {
            // By now the kernel has accepted the connection, and the request waits for the process.
            sleep(Duration::from_millis(500)).await;
            network::thaw(server);
            handle.resume(server);
            handle.kill(server);
        });
        assert_eq!(answer.0.unwrap_err().code(), Code::Unavailable);
        assert_eq!(scene.counts.begun.load(Ordering::SeqCst), 0);
        handle.restart(server);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(scene.add(1).await.0.unwrap(), 2);
    });
}
