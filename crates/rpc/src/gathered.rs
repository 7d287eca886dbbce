//! A connection whose small writes travel together.
//!
//! HTTP/2 as `h2` speaks it writes each message of some size to the socket by itself, and flushes whenever one task has
//! something to say. When the answers to twenty calls become ready in the same moment, as they do after a read barrier or
//! a sync of the log, that is twenty system calls, twenty packets, and twenty times that the other side wakes up; together
//! they cost more than all else that an answer takes.
//!
//! So what is written stays here until the runtime's thread has run all tasks that are ready, or until there is
//! [`GATHERED_MAX`] of it, and goes out at once then. That delays nothing but what would have waited for the same thread
//! anyway: a thread that has nothing else to do sends at once. Nagle's algorithm has the same aim and waits for the
//! network, which does not know whether more will come; the runtime does.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::{Buf, BytesMut};
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is kept back at most, bytes.
pub const GATHERED_MAX: usize = 64 * 1024;

/// Wraps a connection. A flush promises that what was written is sent soon, not that it is sent: that happens when the
/// connection is polled next, for which its task is woken. Errors are told then.
#[derive(Debug)]
pub struct Gathered<Io> {
    io: Io,
    written: BytesMut,
    turn: Arc<Turn>,
    /// Whether a turn was asked for.
    waiting: bool,
}

/// Becomes true once all tasks have run that were ready when it was asked for.
#[derive(Debug, Default)]
struct Turn {
    come: AtomicBool,
    connection: AtomicWaker,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.come.store(true, Ordering::Release);
        self.connection.wake();
    }
}

impl<Io> Gathered<Io> {
    /// Gathers what is written to `io`.
    pub fn new(io: Io) -> Self {
        Gathered {
            io,
            written: BytesMut::new(),
            turn: Arc::default(),
            waiting: false,
        }
    }

    /// The connection itself. What is written to it directly passes what waits here.
    pub fn get_ref(&self) -> &Io {
        &self.io
    }

    /// Asks to be polled again when the others have run.
    fn wait_for_turn(&mut self, context: &Context<'_>) {
        self.turn.connection.register(context.waker());
        if self.waiting {
            return;
        }
        self.waiting = true;
        self.turn.come.store(false, Ordering::Release);
        let told = Waker::from(Arc::clone(&self.turn));
        // It hands the waker to the runtime, which keeps it; the future itself has no further use.
        let asked = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&told));
        debug_assert!(asked.is_pending(), "a yield takes a turn");
    }
}

impl<Io: AsyncWrite + Unpin> Gathered<Io> {
    /// Sends what has waited for its turn.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.written.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if self.waiting && !self.turn.come.load(Ordering::Acquire) {
            self.turn.connection.register(context.waker());
            // It may have come between the look and the registration.
            if !self.turn.come.load(Ordering::Acquire) {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_send(context)
    }

    /// Sends all that is here.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.written.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(context, &self.written))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written.advance(sent);
        }
        self.waiting = false;
        Poll::Ready(Ok(()))
    }

    /// Makes room for more.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.written.len() < GATHERED_MAX {
            return Poll::Ready(Ok(()));
        }
        self.poll_send(context)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<Io> {
    /// Whoever is woken by the turn reads before anything else.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(sent) = this.poll_turn(context) {
            sent?;
        }
        Pin::new(&mut this.io).poll_read(context, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Gathered<Io> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_room(context))?;
        let before = this.written.len();
        for slice in slices {
            let room = GATHERED_MAX - this.written.len();
            this.written.extend_from_slice(&slice[..room.min(slice.len())]);
        }
        this.wait_for_turn(context);
        Poll::Ready(Ok(this.written.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What the socket does not take yet it takes later: its readiness wakes whoever polled last.
        match self.poll_turn(context) {
            Poll::Ready(sent) => Poll::Ready(sent),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// Counts how often something is written.
    struct Counting(DuplexStream, Arc<std::sync::atomic::AtomicUsize>);

    impl AsyncRead for Counting {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.0).poll_write(context, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(context)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(context)
        }
    }

    fn connection(
        room: usize,
    ) -> (
        Gathered<Counting>,
        DuplexStream,
        Arc<std::sync::atomic::AtomicUsize>,
    ) {
        let (near, far) = tokio::io::duplex(room);
        let count = Arc::default();
        (Gathered::new(Counting(near, Arc::clone(&count))), far, count)
    }

    #[tokio::test]
    async fn many_small_writes_are_one() {
        let (mut near, mut far, count) = connection(1 << 20);
        let writing = tokio::spawn(async move {
            for _ in 0..100 {
                near.write_all(b"word ").await.unwrap();
                near.flush().await.unwrap();
            }
            // As a connection's task does: it always reads, too.
            near.read_u8().await
        });
        let mut words = [0; 500];
        far.read_exact(&mut words).await.unwrap();
        assert_eq!(&words[495..], b"word ");
        assert_eq!(count.load(Ordering::Relaxed), 1);
        far.write_u8(7).await.unwrap();
        assert_eq!(writing.await.unwrap().unwrap(), 7);
    }

    #[tokio::test]
    async fn nothing_is_lost_or_reordered_when_the_other_side_is_slow() {
        let (mut near, mut far, _) = connection(1000);
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
        let sent = bytes.clone();
        let writing = tokio::spawn(async move {
            for part in sent.chunks(3000) {
                near.write_all(part).await.unwrap();
                near.flush().await.unwrap();
            }
            near.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        assert!(received == bytes);
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_kept_back_is_bounded() {
        let (mut near, _far, _) = connection(1000);
        let mut taken = 0;
        loop {
            let write = near.write(&[0; 1000]);
            match tokio::time::timeout(std::time::Duration::from_millis(50), write).await {
                Ok(written) => taken += written.unwrap(),
                Err(_) => break,
            }
        }
        assert!((GATHERED_MAX..=GATHERED_MAX + 1000).contains(&taken), "{taken}");
    }

    #[tokio::test]
    async fn a_broken_connection_is_told_of() {
        let (mut near, far, _) = connection(1000);
        drop(far);
        near.write_all(b"anybody?").await.unwrap();
        assert!(near.read_u8().await.is_err());
        near.write_all(b"anybody?").await.unwrap();
        assert!(near.shutdown().await.is_err());
    }
}
