//! One trace id through all rooms and hops, after W3C Trace Context.
//!
//! A caller may send `traceparent`; otherwise the id is drawn here, and comes back in the answer's `traceparent`. It is a
//! field of the request's span, it goes with a forwarded request, and it is recorded with each change event.

use tonic::metadata::MetadataMap;
use uuid::Uuid;

/// The metadata key, at the edge and between nodes.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// A trace, as far as this node takes part in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceContext {
    /// 32 lower-case hex digits, not all zero.
    pub(crate) trace_id: String,
    sampled: bool,
    /// Whether the id was drawn here, so that nobody else knows it yet.
    pub(crate) drawn: bool,
}

impl TraceContext {
    /// The caller's trace, or a new one.
    pub(crate) fn of_call(metadata: &MetadataMap) -> Self {
        metadata
            .get(TRACEPARENT)
            .and_then(|value| value.to_str().ok())
            .and_then(Self::parse)
            .unwrap_or_else(Self::fresh)
    }

    /// Reads a `traceparent`, or starts a new trace.
    pub(crate) fn of_header(text: &str) -> Self {
        Self::parse(text).unwrap_or_else(Self::fresh)
    }

    fn fresh() -> Self {
        TraceContext {
            trace_id: Uuid::now_v7().simple().to_string(),
            sampled: false,
            drawn: true,
        }
    }

    /// Version 00, or a later one read as far as 00 goes.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace_id, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, len: usize| {
            text.len() == len
                && text
                    .bytes()
                    .all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
        };
        let known = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        let shaped = hex(trace_id, 32) && hex(parent, 16) && hex(flags, 2);
        let set = |text: &str| text.bytes().any(|b| b != b'0');
        if !(known && shaped && set(trace_id) && set(parent)) {
            return None;
        }
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(TraceContext {
            trace_id: trace_id.to_owned(),
            sampled,
            drawn: false,
        })
    }

    /// The `traceparent` for whatever this node calls next: the same trace, a parent of its own.
    pub(crate) fn to_header(&self) -> String {
        // Zero would be no id.
        let parent = rand::random::<u64>().max(1);
        format!("00-{}-{parent:016x}-0{}", self.trace_id, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_survives_a_hop() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = TraceContext::of_header(given);
        assert_eq!(trace.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
        let next = trace.to_header();
        assert_ne!(next, given);
        assert_eq!(TraceContext::of_header(&next), trace);
    }

    #[test]
    fn nonsense_starts_a_new_trace() {
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad:?}");
            assert_eq!(TraceContext::of_header(bad).trace_id.len(), 32);
        }
    }
}
