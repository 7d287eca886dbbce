//! Questions to another node on a stream that stays open, with an answer to each, in order.
//!
//! For what is asked many times a second and answered in microseconds a call of its own would cost several times as much as the
//! question.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Response, Status, Streaming};

/// Questions that may wait for their answers at a time.
const OWED_MAX: usize = 64;

/// A stream of questions `Q` and answers `A`. Whatever goes wrong ends it.
pub(crate) struct Lane<Q, A> {
    questions: mpsc::Sender<Q>,
    answers: Answers<A>,
    /// When those questions were asked that have no answer yet.
    owed: VecDeque<Instant>,
}

/// The questions, as they are asked.
pub(crate) struct Questions<Q>(mpsc::Receiver<Q>);

impl<Q> Stream for Questions<Q> {
    type Item = Q;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Q>> {
        self.0.poll_recv(context)
    }
}

enum Answers<A> {
    Opening(BoxFuture<'static, Result<Response<Streaming<A>>, Status>>),
    Open(Box<Streaming<A>>),
}

impl<Q: Send + 'static, A> Lane<Q, A> {
    /// `call` makes the call, for which the first question need not have been asked. It begins when somebody waits for an answer.
    pub(crate) fn open<F>(call: impl FnOnce(Questions<Q>) -> F) -> Self
    where
        F: Future<Output = Result<Response<Streaming<A>>, Status>> + Send + 'static,
    {
        let (questions, asked) = mpsc::channel(OWED_MAX);
        Lane {
            questions,
            answers: Answers::Opening(Box::pin(call(Questions(asked)))),
            owed: VecDeque::new(),
        }
    }

    /// Asks; false: the lane has ended, or takes no more questions.
    pub(crate) fn ask(&mut self, question: Q) -> bool {
        let sent = self.questions.try_send(question).is_ok();
        if sent {
            self.owed.push_back(Instant::now());
        }
        sent
    }

    /// How long the oldest question has been waiting for its answer.
    pub(crate) fn silent_for(&self) -> Duration {
        self.owed.front().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// The next answer. After an error the lane is of no use any more.
    pub(crate) fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Result<A, Status>> {
        loop {
            match &mut self.answers {
                Answers::Opening(opening) => match ready!(opening.poll_unpin(context)) {
                    Ok(answers) => self.answers = Answers::Open(Box::new(answers.into_inner())),
                    Err(status) => return Poll::Ready(Err(status)),
                },
                Answers::Open(answers) => {
                    let answer = ready!(answers.poll_next_unpin(context));
                    self.owed.pop_front();
                    return Poll::Ready(
                        answer.unwrap_or_else(|| Err(Status::unavailable("the stream has ended"))),
                    );
                }
            }
        }
    }

    /// Waits for the next answer.
    pub(crate) async fn answer(&mut self) -> Result<A, Status> {
        poll_fn(|context| self.poll_answer(context)).await
    }
}
