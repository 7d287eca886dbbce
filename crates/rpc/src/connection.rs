//! One connection between two processes.
//!
//! Each end can be over without the other knowing: because its process died, because it gave up on a peer that
//! does not answer pings, because it was reset. The news travels over the network like everything else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use madsim::task::NodeId as Place;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use crate::Status;
use crate::network;
use crate::pipe::Call;

/// When an end gives up on a peer: a ping that often, unanswered for so long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeepAlive {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

/// A connection.
pub(crate) struct Connection {
    pub(crate) client: Place,
    pub(crate) server: Place,
    /// Calls that the client opened, for the server to take up.
    calls: mpsc::UnboundedSender<Call>,
    client_end: End,
    server_end: End,
    /// The server takes no more calls.
    draining: AtomicBool,
    /// One machine lost its power: what it had sent and nobody received is gone.
    severed: AtomicBool,
}

/// A connection as long as its client wants it: when the last channel and the last call that use it are gone, so
/// is the client's end.
pub(crate) struct Held(pub(crate) Arc<Connection>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.client_end.finish();
    }
}

/// One end of a connection in the hands of its process, from the first instant on: while it still waits in the queue of
/// a port, while a task waits to be run. Dropping it, as the death of the process does, ends it.
pub(crate) struct Kept {
    connection: Arc<Connection>,
    side: Side,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.connection.finish(self.side);
    }
}

impl Kept {
    fn new(connection: &Arc<Connection>, side: Side) -> Self {
        Kept {
            connection: Arc::clone(connection),
            side,
        }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Keeps this end until it is over.
    pub(crate) async fn watch(self, keep_alive: Option<KeepAlive>) {
        let (connection, side) = (&self.connection, self.side);
        let (here, there) = (connection.place(side), connection.place(side.other()));
        let news = async {
            connection.end(side.other()).finished().await;
            network::travel(there, here).await;
        };
        let pings = async {
            match keep_alive {
                Some(keep_alive) => unanswered(here, there, keep_alive).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = connection.over(side) => {}
            () = news => {}
            () = pings => {}
        }
    }
}

/// What one of the two processes knows.
#[derive(Default)]
struct End {
    over: AtomicBool,
    changed: Notify,
}

impl End {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn finish(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    async fn finished(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_over() {
                return;
            }
            changed.await;
        }
    }
}

/// Which of the two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

impl Connection {
    /// Opens a connection from this machine.
    pub(crate) async fn open(
        address: SocketAddr,
        patience: Option<Duration>,
        keep_alive: Option<KeepAlive>,
    ) -> Result<Arc<Held>, Status> {
        let attempt = Self::shake_hands(address, keep_alive);
        match patience {
            None => attempt.await,
            Some(patience) => timeout(patience, attempt)
                .await
                .unwrap_or_else(|_| Err(not_connected(io::ErrorKind::TimedOut, "nobody answered in time"))),
        }
    }

    async fn shake_hands(address: SocketAddr, keep_alive: Option<KeepAlive>) -> Result<Arc<Held>, Status> {
        let refused = || {
            Err(not_connected(
                io::ErrorKind::ConnectionRefused,
                "connection refused",
            ))
        };
        let client = madsim::plugin::node();
        let Some(server) = network::place_of(address.ip()) else {
            return refused();
        };
        if network::refuses(client, server) {
            return refused();
        }
        network::travel(client, server).await;
        let (calls, opened) = mpsc::unbounded_channel();
        let connection = Arc::new(Connection {
            client,
            server,
            calls,
            client_end: End::default(),
            server_end: End::default(),
            draining: AtomicBool::new(false),
            severed: AtomicBool::new(false),
        });
        let accepted = network::accept(address, Kept::new(&connection, Side::Server), opened);
        // From here on: if nobody waits for the server's answer any more, that is the end of the connection.
        let held = Arc::new(Held(connection));
        network::travel(server, client).await;
        if !accepted {
            return refused();
        }
        madsim::task::spawn(Kept::new(&held.0, Side::Client).watch(keep_alive));
        Ok(held)
    }

    /// Opens a call. A client that is told here that the server has gone needs no other news of it: the next call gets a
    /// connection of its own, also while that news is still on its way.
    pub(crate) fn call(&self, call: Call) -> Result<(), Status> {
        if self.end(Side::Client).is_over() {
            return Err(broken());
        }
        self.calls.send(call).map_err(|_| {
            self.finish(Side::Client);
            broken()
        })
    }

    /// Whether the client may open calls here.
    pub(crate) fn is_usable(&self) -> bool {
        !self.client_end.is_over() && !self.draining.load(Ordering::SeqCst)
    }

    /// The server takes no more calls; those under way go on.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Waits until this end is over.
    pub(crate) async fn over(&self, side: Side) {
        self.end(side).finished().await;
    }

    /// This end is over; the other will hear of it.
    pub(crate) fn finish(&self, side: Side) {
        self.end(side).finish();
    }

    /// Both ends are over, at once.
    pub(crate) fn reset(&self) {
        self.client_end.finish();
        self.server_end.finish();
    }

    pub(crate) fn sever(&self) {
        self.severed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_severed(&self) -> bool {
        self.severed.load(Ordering::SeqCst)
    }

    pub(crate) fn touches(&self, place: Place) -> bool {
        self.client == place || self.server == place
    }

    pub(crate) fn place(&self, side: Side) -> Place {
        match side {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }

    fn end(&self, side: Side) -> &End {
        match side {
            Side::Client => &self.client_end,
            Side::Server => &self.server_end,
        }
    }
}

/// Waits until pings from here to there have been unanswered for too long.
async fn unanswered(here: Place, there: Place, keep_alive: KeepAlive) {
    loop {
        sleep(keep_alive.interval).await;
        if !network::answers(here, there) {
            sleep(keep_alive.timeout).await;
            if !network::answers(here, there) {
                return;
            }
        }
    }
}

/// What a caller is told whose connection broke: the request may have arrived.
pub(crate) fn broken() -> Status {
    Status::from(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset"))
}

/// What a caller is told who got no connection: the request did not leave this machine.
fn not_connected(kind: io::ErrorKind, why: &'static str) -> Status {
    let mut status = Status::unavailable(why);
    status.set_source(Arc::new(io::Error::new(kind, why)));
    status
}
