//! Why a call has no answer: a problem found here, or the status another node gave.

use holdfast_types::Rejection;
use holdfast_wire::status::{ErrorView, OutcomeView, Problem, Reason};
use tonic::Status;

/// A failure on its way to the caller.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// Found on this node.
    Here(Box<Problem>),
    /// Said by the node that the call was forwarded to, passed on as it is.
    There(Box<Status>),
}

impl Failure {
    /// A failure without effect.
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Problem::new(reason, message).into()
    }

    /// No leader is known, or none could confirm.
    pub(crate) fn no_leader(why: impl std::fmt::Display) -> Self {
        Failure::new(
            Reason::NoLeader,
            format!("the shard has no leader that can answer: {why}"),
        )
    }

    /// No leader is known, and none will be: this node belongs to no cluster, or does not any more.
    pub(crate) fn not_a_member() -> Self {
        Self::no_leader("this node is no member of a cluster; ask one that is")
    }

    /// The reason.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Failure::Here(problem) => problem.reason,
            Failure::There(status) => {
                ErrorView::of(status).map_or(Reason::Unspecified, |view| view.known_reason())
            }
        }
    }

    /// Whether the request may have taken effect all the same.
    pub(crate) fn may_have_applied(&self) -> bool {
        match self {
            Failure::Here(problem) => problem.outcome == OutcomeView::Unknown,
            Failure::There(status) => {
                ErrorView::of(status).is_none_or(|view| view.outcome == OutcomeView::Unknown)
            }
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Failure::Here(Box::new(problem))
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Problem::rejected(&rejection).into()
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Here(problem) => problem.to_status(),
            Failure::There(status) => *status,
        }
    }
}
