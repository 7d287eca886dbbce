//! What is known about a call besides its message: who calls, in which trace, until when.

use std::time::Duration;

use holdfast_types::{Actor, Caller, FieldViolation};
use holdfast_wire::status::Problem;
use tonic::Request;
use tonic::metadata::MetadataMap;

use crate::deadline::Deadline;
use crate::methods::Method;
use crate::trace::TraceContext;
use crate::transport;

/// The metadata key with which a caller without a certificate names itself.
const CALLER: &str = "holdfast-caller";
/// The longest such name, bytes.
const CALLER_BYTES_MAX: usize = 128;
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
    ///
    /// # Errors
    /// If the caller's name for itself cannot be one.
    pub(crate) fn of<T>(
        request: &Request<T>,
        method: &Method,
        trace: &TraceContext,
    ) -> Result<Self, Problem> {
        Ok(Call {
            caller: caller(
                transport::client_certificate(request.extensions()),
                request.metadata(),
            )?,
            trace: trace.clone(),
            deadline: Deadline::of_call(request.metadata(), method.default, method.most),
        })
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

/// A certificate's name counts more than what a caller says of itself. A name that cannot be one is refused: as
/// somebody else, the caller would not meet the records of its own request ids.
fn caller(certificate: Option<String>, metadata: &MetadataMap) -> Result<Caller, Problem> {
    if let Some(name) = certificate {
        return Ok(Caller::new(name));
    }
    let Some(value) = metadata.get(CALLER) else {
        return Ok(Caller::new(ANONYMOUS));
    };
    match value.to_str() {
        Ok(name) if (1..=CALLER_BYTES_MAX).contains(&name.len()) => Ok(Caller::new(name)),
        _ => {
            let otherwise = format!("must be 1 to {CALLER_BYTES_MAX} bytes of printable ASCII");
            Err(Problem::invalid(vec![FieldViolation::new(CALLER, otherwise)]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_named_by_certificate_then_by_themselves() {
        let mut metadata = MetadataMap::new();
        let named = |certificate: Option<&str>, metadata: &MetadataMap| {
            caller(certificate.map(str::to_owned), metadata).map(|caller| caller.as_str().to_owned())
        };
        assert_eq!(named(None, &metadata).unwrap(), "anonymous");
        metadata.insert(CALLER, "billing".parse().unwrap());
        assert_eq!(named(None, &metadata).unwrap(), "billing");
        assert_eq!(named(Some("crm.example"), &metadata).unwrap(), "crm.example");
        for bad in [String::new(), "x".repeat(129)] {
            metadata.insert(CALLER, bad.parse().unwrap());
            let problem = named(None, &metadata).unwrap_err();
            assert_eq!(problem.violations[0].field, CALLER);
            assert_eq!(named(Some("crm.example"), &metadata).unwrap(), "crm.example");
        }
    }
}
