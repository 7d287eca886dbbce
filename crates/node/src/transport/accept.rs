//! How connections come in, how many there may be, and when one that says nothing is closed.
//!
//! Each open connection holds a file descriptor, whoever opened it and whatever it is good for. So a port has a
//! largest number of them; one more is closed at once, and its client goes to another node. A connection that does
//! not begin to speak is closed soon. One that did and then fell silent is dead: HTTP/2 pings are sent
//! often enough that a living client is heard, even if it has nothing to ask.
//!
//! When the process has no descriptor left, accepting pauses and goes on: those that are connected are served
//! meanwhile, and some will leave.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tonic::gathered::Gathered;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// The pause after an accept that failed.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a connection may be silent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until its first byte.
    pub(super) first: Duration,
    /// After that.
    pub(super) silence: Duration,
}

/// What comes in on one port.
pub(super) struct Connections {
    socket: TcpListener,
    port: &'static str,
    places: Arc<Semaphore>,
    patience: Patience,
    /// The last accept failed; said once, not each time.
    failing: bool,
}

impl Connections {
    pub(super) fn new(
        socket: TcpListener,
        port: &'static str,
        connections_max: usize,
        patience: Patience,
    ) -> Self {
        Connections {
            socket,
            port,
            places: Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS))),
            patience,
            failing: false,
        }
    }

    /// The next connection. Failing to accept one is no reason to stop.
    async fn next(&mut self) -> (Connection, SocketAddr) {
        loop {
            let (stream, from) = match self.socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.failed(&error).await;
                    continue;
                }
            };
            self.failing = false;
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                metrics::counter!("holdfast_connections_refused_total", "port" => self.port).increment(1);
                continue;
            };
            // A connection that is broken already says so when it is read.
            let _ = stream.set_nodelay(true);
            return (Connection::new(stream, place, self.port, self.patience), from);
        }
    }

    async fn failed(&mut self, error: &io::Error) {
        metrics::counter!("holdfast_accept_errors_total", "port" => self.port).increment(1);
        // The client left before it was served.
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
        ) {
            return;
        }
        if !self.failing {
            tracing::warn!(
                %error, port = self.port,
                "connections cannot be accepted for now; if there are too many open files, raise the limit (ulimit -n) \
                 or lower limits.max_connections"
            );
        }
        self.failing = true;
        tokio::time::sleep(PAUSE).await;
    }

    /// All of them, one after the other.
    pub(super) fn into_stream(self) -> impl Stream<Item = io::Result<Connection>> {
        futures::stream::unfold(self, async |mut connections| {
            let (connection, _) = connections.next().await;
            Some((Ok(connection), connections))
        })
    }
}

impl axum::serve::Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A connection with its place, which is closed when it is silent for too long.
pub(super) struct Connection {
    stream: Gathered<TcpStream>,
    port: &'static str,
    silence: Duration,
    /// When it is closed unless something is heard. The timer may run behind: it is set again when it goes off.
    due: Instant,
    timer: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit, port: &'static str, patience: Patience) -> Self {
        let due = Instant::now() + patience.first;
        Connection {
            stream: Gathered::new(stream),
            port,
            silence: patience.silence,
            due,
            timer: Box::pin(tokio::time::sleep_until(due)),
            _place: place,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, buffer) {
            this.due = Instant::now() + this.silence;
            return Poll::Ready(read);
        }
        while this.timer.as_mut().poll(context).is_ready() {
            if this.due <= Instant::now() {
                metrics::counter!("holdfast_connections_silent_total", "port" => this.port).increment(1);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            this.timer.as_mut().reset(this.due);
        }
        Poll::Pending
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.get_ref().connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SHORT: Patience = Patience {
        first: Duration::from_millis(50),
        silence: Duration::from_millis(200),
    };

    async fn port(connections_max: usize, patience: Patience) -> (Connections, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        (
            Connections::new(socket, "test", connections_max, patience),
            address,
        )
    }

    #[tokio::test]
    async fn whoever_says_nothing_is_shown_out() {
        let (mut connections, address) = port(8, SHORT).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        let (mut connection, _) = connections.next().await;
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let mut speaking = TcpStream::connect(address).await.unwrap();
        let (mut connection, _) = connections.next().await;
        speaking.write_u8(7).await.unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), 7);
        // Longer than the first byte may take, and not too long for a connection that has spoken.
        let from = Instant::now();
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(from.elapsed() >= SHORT.silence - Duration::from_millis(20));
    }

    #[tokio::test]
    async fn a_full_port_closes_at_once_and_has_room_again_later() {
        let long = Patience {
            first: Duration::from_secs(60),
            silence: Duration::from_secs(60),
        };
        let (mut connections, address) = port(1, long).await;
        let _inside = TcpStream::connect(address).await.unwrap();
        let (held, _) = connections.next().await;
        let mut outside = TcpStream::connect(address).await.unwrap();
        let refused = tokio::time::timeout(Duration::from_millis(200), connections.next()).await;
        assert!(refused.is_err(), "there was one place, and it is taken");
        assert_eq!(outside.read(&mut [0]).await.unwrap_or(0), 0, "closed");
        drop(held);
        let _next = TcpStream::connect(address).await.unwrap();
        let (_connection, _) = connections.next().await;
    }
}
