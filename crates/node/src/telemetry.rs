//! What every public call passes through: a span with its trace id, a permit, a deadline, and numbers.
//!
//! No personal data at any level: spans carry the method and the trace id, metrics the method and the code.
//! The thirty-odd series are described in one place, [`describe`].

use std::future::Future;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::{Code, Response, Status};

use crate::admission::Work;
use crate::failure::Failure;
use crate::methods::Method;
use crate::trace::{TRACEPARENT, TraceContext};

/// A method's series, looked up once: that costs as much as reading an account.
#[derive(Debug)]
pub(crate) struct Series {
    in_flight: Gauge,
    duration: Histogram,
    ok: Counter,
}

impl Series {
    fn of(method: &'static str) -> Self {
        Series {
            in_flight: gauge!("holdfast_rpc_in_flight", "method" => method),
            duration: histogram!("holdfast_rpc_duration_seconds", "method" => method),
            ok: requests(method, Code::Ok),
        }
    }
}

fn requests(method: &'static str, code: Code) -> Counter {
    counter!("holdfast_rpc_requests_total", "method" => method, "code" => code_name(code))
}

/// Counts a call while it runs and when it ends, also when the caller goes away in the middle.
struct Observed {
    method: &'static str,
    series: &'static Series,
    started: Instant,
    code: Code,
}

impl Observed {
    fn begin(method: &'static Method) -> Self {
        let series = method.series.get_or_init(|| Series::of(method.name));
        series.in_flight.increment(1);
        Observed {
            method: method.name,
            series,
            started: Instant::now(),
            code: Code::Cancelled,
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.series.in_flight.decrement(1);
        match self.code {
            Code::Ok => self.series.ok.increment(1),
            code => requests(self.method, code).increment(1),
        }
        self.series.duration.record(seconds);
    }
}

/// The response metadata in which a node names the leader's address, for clients that save themselves a hop.
const LEADER: &str = "holdfast-leader";

/// What goes back to the caller with the answer, error or not.
pub(crate) struct Said<L> {
    /// The trace, if the caller does not know it.
    pub(crate) traceparent: Option<String>,
    /// The leader's address, if one is known.
    pub(crate) leader: L,
}

/// Runs a call in its span and counts it.
pub(crate) async fn observe<T>(
    method: &'static Method,
    trace: &TraceContext,
    said: Said<impl FnOnce() -> Option<String>>,
    call: impl Future<Output = Result<T, Failure>>,
) -> Result<Response<T>, Status> {
    use tracing::Instrument;

    let span = span(method, trace);
    let mut observed = Observed::begin(method);
    let result = call.instrument(span.clone()).await.map_err(Status::from);
    observed.code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
    if let Err(status) = &result {
        let (method, trace_id) = (method.name, &trace.trace_id);
        match status.code() {
            Code::Internal | Code::Unknown | Code::DataLoss => {
                tracing::error!(
                    method,
                    trace_id,
                    code = code_name(status.code()),
                    message = status.message(),
                    "call failed"
                );
            }
            code => tracing::debug!(method, trace_id, code = code_name(code), "call refused"),
        }
    }
    let mut answer = result.map(Response::new);
    let metadata = match &mut answer {
        Ok(response) => response.metadata_mut(),
        Err(status) => status.metadata_mut(),
    };
    if let Some(Ok(mut value)) = said.traceparent.map(MetadataValue::try_from) {
        // No two are alike: kept out of the header tables of both ends, where it would only drive out what repeats.
        value.set_sensitive(true);
        metadata.insert(TRACEPARENT, value);
    }
    if let Some(value) = (said.leader)().and_then(|leader| MetadataValue::try_from(leader).ok()) {
        metadata.insert(LEADER, value);
    }
    answer
}

/// Reads and changes of accounts come by the thousands a second, and a span is formatted for each: only who asks for
/// `debug` has theirs. Whoever does anything else is seen in the log doing it.
fn span(method: &Method, trace: &TraceContext) -> tracing::Span {
    match method.work {
        Some(Work::Read | Work::Write) if method.is_about_accounts() => {
            tracing::debug_span!("rpc", method = method.name, trace_id = %trace.trace_id)
        }
        _ => tracing::info_span!("rpc", method = method.name, trace_id = %trace.trace_id),
    }
}

/// A code's name as gRPC writes it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Says what this room's series mean. Those of consensus and storage are described there.
#[cfg_attr(madsim, allow(dead_code, reason = "nobody scrapes a simulation"))]
pub(crate) fn describe() {
    describe_counter!(
        "holdfast_rpc_requests_total",
        "Public calls ended, by method and code"
    );
    describe_counter!(
        "holdfast_rpc_unread_total",
        "Calls answered before a method saw them (not decodable, too large, unknown method), by code"
    );
    describe_histogram!(
        "holdfast_rpc_duration_seconds",
        Unit::Seconds,
        "Time a public call took, by method"
    );
    describe_gauge!("holdfast_rpc_in_flight", "Public calls under way, by method");
    describe_counter!(
        "holdfast_connections_refused_total",
        "Connections closed at once because the port had its largest number"
    );
    describe_counter!(
        "holdfast_connections_silent_total",
        "Connections closed because nothing was heard from them"
    );
    describe_counter!(
        "holdfast_accept_errors_total",
        "Connections that could not be accepted, as when the process may open no more files"
    );
    describe_counter!(
        "holdfast_admission_refused_total",
        "Calls refused because too much was under way"
    );
    describe_gauge!("holdfast_admission_in_flight", "Permits taken, by kind of work");
    describe_counter!(
        "holdfast_evaluations_total",
        "Evaluations of mutations, by what came out"
    );
    describe_histogram!(
        "holdfast_latch_wait_seconds",
        Unit::Seconds,
        "Time mutations waited for latches"
    );
    describe_counter!(
        "holdfast_forwarded_total",
        "Mutations handed to the leader, by code"
    );
    describe_counter!("holdfast_import_items_total", "Import items finished, by action");
    describe_counter!(
        "holdfast_purged_accounts_total",
        "Accounts purged after their grace period"
    );
    describe_gauge!(
        "holdfast_clock_offset_milliseconds",
        "This clock less the median of the peers' clocks"
    );
    describe_gauge!(
        "holdfast_disk_nearly_full",
        "1 while creates and imports are refused"
    );
    describe_gauge!("holdfast_up_info", "1; labels say which release and node this is");
}
