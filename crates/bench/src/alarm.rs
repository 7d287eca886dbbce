//! Sleeping to the microsecond.
//!
//! Tokio's timers tick in milliseconds, so a client woken by one begins up to a millisecond late, which is more than
//! many of the operations take that an open loop is to measure. The kernel's timers do better, and Tokio can wait for
//! them as for any descriptor. Linux only, like the rest.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A timer of one client.
pub(crate) struct Alarm {
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// A timer that rings at no time yet.
    #[allow(
        deprecated,
        reason = "for types whose descriptor may change or close under it, which an OwnedFd's cannot; the successor is unsafe"
    )]
    pub(crate) fn new() -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        Ok(Alarm {
            timer: AsyncFd::with_interest(timer, Interest::READABLE)?,
        })
    }

    /// Waits until `when`; not at all if it has passed.
    pub(crate) async fn wait_until(&mut self, when: Instant) -> io::Result<()> {
        let wait = when.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: timespec(Duration::ZERO),
            it_value: timespec(wait),
        };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.timer.readable().await?;
            let rang = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0; 8])?));
            match rang {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs() as i64,
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_rings_after_its_time_and_again() {
        let mut alarm = Alarm::new().unwrap();
        let start = Instant::now();
        for step in 1..=20 {
            let when = start + Duration::from_micros(700) * step;
            alarm.wait_until(when).await.unwrap();
            assert!(Instant::now() >= when, "it rang early");
        }
        alarm.wait_until(start).await.unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "what has passed is not waited for"
        );
    }
}
