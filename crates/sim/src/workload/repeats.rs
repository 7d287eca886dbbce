//! The same request more than once: many times at once, and again long after it was answered.

use std::time::Duration;

use tokio::time::sleep;

use super::call::Via;
use super::request::{Mutation, future_request_id};
use super::worker::{Step, Worker, found};

/// A request to be sent once more when all is over. Whatever it came to the first time, it must do nothing now.
#[derive(Debug, Clone)]
pub(super) struct Late {
    /// Whose it was.
    pub(super) client: u32,
    pub(super) mutation: Mutation,
}

impl Late {
    pub(super) fn new(client: u32, mutation: Mutation) -> Self {
        Late { client, mutation }
    }
}

impl Worker {
    /// Sends one request to several nodes at once, as impatient middleware does.
    pub(super) async fn retry_storm(&mut self) -> bool {
        let mutation = self.any_mutation(0).await;
        let mut copies = Vec::new();
        for copy in 0..self.dice.between(3, 8) {
            let via = if copy == 0 { Via::Client } else { self.somewhere() };
            let delay = Duration::from_millis(match self.dice.below(3) {
                0 => 0,
                1 => self.dice.between(0, 30),
                _ => self.dice.between(0, 300),
            });
            let (caller, mutation) = (self.caller.clone(), mutation.clone());
            copies.push(tokio::spawn(async move {
                sleep(delay).await;
                caller.mutate(&mutation, &via).await
            }));
        }
        let mut done = false;
        for copy in copies {
            done |= copy.await.is_ok_and(|outcome| found(&outcome));
        }
        done
    }

    /// Sends a request, and again seconds after its answer: while it is remembered, and when its id is so old
    /// that it can have been forgotten. Sometimes the id is also sent with other content, and sometimes one that is not
    /// born yet.
    pub(super) async fn late_duplicate(&mut self) -> bool {
        // The window is at least a minute; an id that is born old reaches its end within the run.
        let window_ms = self.rules.request_window_ms;
        if self.dice.percent(10) {
            // The other end of the window: an id of a client whose clock is far ahead.
            let account = self.account().await;
            let ahead_ms = self.dice.between(1_000, 600_000);
            let id = future_request_id(&mut self.dice, ahead_ms);
            let fingerprint = self.caller.recorder.fingerprint(self.caller.number);
            let early = Mutation::update(id, account, fingerprint, None);
            self.send(&early).await;
        }
        let age_ms = match self.dice.below(3) {
            0 => window_ms.saturating_sub(self.dice.between(500, 6_000)),
            _ => 0,
        };
        let mutation = self.any_mutation(age_ms).await;
        let done = self.send(&mutation).await;
        if done && self.dice.percent(30) {
            let via = self.somewhere();
            self.caller.reuse(&mutation, &via).await;
        }
        for _ in 0..self.dice.between(1, 3) {
            let after_ms = self.dice.between(100, 12_000);
            self.put_off(after_ms, Step::Again(Box::new(mutation.clone())));
        }
        done
    }
}
