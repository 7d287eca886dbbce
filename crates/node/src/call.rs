//! What is known about a call besides its message: who calls, in which trace, until when.

use std::time::Duration;

use holdfast_types::{Actor, Caller};
use tonic::Request;
use tonic::metadata::MetadataMap;

use crate::deadline::Deadline;
use crate::methods::Method;
use crate::trace::TraceContext;
use crate::transport;

/// The metadata key with which a caller without a certificate names itself.
const CALLER: &str = "holdfast-caller";
/// The name of whoever does neither.
const ANONYMOUS: &str = "anonymous";

/// A call's circumstances.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Who calls. Request ids are scoped by it.
    pub(crate) caller: Caller,
    /// The trace it belongs to.
    pub(crate) trace: TraceContext,
    /// When it must have its answer.
    pub(crate) deadline: Deadline,
}

impl Call {
    /// Reads the circumstances of a public call.
    pub(crate) fn of<T>(request: &Request<T>, method: &Method) -> Self {
        Call {
            caller: caller(
                transport::client_certificate(request.extensions()),
                request.metadata(),
            ),
            trace: TraceContext::of_call(request.metadata()),
            deadline: Deadline::of_call(request.metadata(), method.default, method.most),
        }
    }

    /// The same call with at most `budget` from now.
    pub(crate) fn at_most(&self, budget: Duration) -> Self {
        Call {
            deadline: self.deadline.at_most(budget),
            ..self.clone()
        }
    }

    /// What goes to the change log: the caller's own words, and this trace if it names none.
    pub(crate) fn complete(&self, actor: &mut Actor) {
        if actor.trace_id.is_empty() {
            actor.trace_id.clone_from(&self.trace.trace_id);
        }
    }
}

/// A certificate's name counts more than what a caller says of itself.
fn caller(certificate: Option<String>, metadata: &MetadataMap) -> Caller {
    let said = || {
        metadata
            .get(CALLER)
            .and_then(|value| value.to_str().ok())
            .filter(|name| (1..=128).contains(&name.len()))
            .map(str::to_owned)
    };
    Caller::new(certificate.or_else(said).unwrap_or_else(|| ANONYMOUS.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_named_by_certificate_then_by_themselves() {
        let mut metadata = MetadataMap::new();
        assert_eq!(caller(None, &metadata).as_str(), "anonymous");
        metadata.insert(CALLER, "billing".parse().unwrap());
        assert_eq!(caller(None, &metadata).as_str(), "billing");
        assert_eq!(
            caller(Some("crm.example".into()), &metadata).as_str(),
            "crm.example"
        );
        metadata.insert(CALLER, "x".repeat(129).parse().unwrap());
        assert_eq!(caller(None, &metadata).as_str(), "anonymous");
    }
}
