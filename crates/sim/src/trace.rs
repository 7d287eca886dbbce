//! The trace: what happened, in order, with simulated times. Two runs of one seed must print the same bytes.

use std::fmt;
use std::sync::{Mutex, TryLockError};

use tracing::Level;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Simulated nanoseconds since the run began.
pub(crate) fn now() -> u64 {
    let elapsed = madsim::time::TimeHandle::try_current().map(|handle| handle.elapsed());
    elapsed.map_or(0, |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

/// Simulated milliseconds since the run began.
pub(crate) fn now_ms() -> u64 {
    now() / 1_000_000
}

/// Adds a line. `facts` are `key=value` pairs without anything that differs between runs of one seed.
pub fn event(what: &str, facts: &str) {
    let mut lines = LINES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    lines.push(format!("{:>14} {what} {facts}", now()));
}

/// Takes all lines so far. Whoever panics while it adds a line has none to take.
pub fn take() -> Vec<String> {
    match LINES.try_lock() {
        Ok(mut lines) => std::mem::take(&mut lines),
        Err(TryLockError::Poisoned(lines)) => std::mem::take(&mut lines.into_inner()),
        Err(TryLockError::WouldBlock) => vec!["the trace is lost: it was being written".to_owned()],
    }
}

/// Sends what the nodes log at `level` and above into the trace, with simulated times.
pub fn capture_logs(level: Level) {
    struct SimTime;
    impl FormatTime for SimTime {
        fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
            write!(w, "{:>14}", now())
        }
    }
    struct Sink;
    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let mut lines = LINES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            lines.push(String::from_utf8_lossy(bytes).trim_end().to_owned());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_timer(SimTime)
        .with_thread_ids(false)
        .with_writer(|| Sink);
    // What openraft warns of again and again while a peer is away says nothing that the faults do not say.
    let quiet = if level <= Level::WARN {
        ",openraft=error"
    } else {
        ""
    };
    let filter = tracing_subscriber::EnvFilter::new(format!("{level}{quiet}"));
    tracing_subscriber::registry().with(layer).with(filter).init();
}
