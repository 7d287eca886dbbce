//! Which request a message or an entry belongs to, for the log at `debug`.
//!
//! A change carries its trace id in its change event, so every member finds it where the entry arrives and where it
//! is applied. For what has no entry (a barrier that is asked of the leader, a transfer of leadership) the caller's
//! trace goes with the message. A round serves many readers; it goes under the trace of the first.

use std::future::Future;

use bytes::Bytes;
use holdfast_machine::{Body, Command};
use holdfast_storage::{command, schema};
use holdfast_types::NodeId;

use crate::type_config::{LogEntry, Payload};

tokio::task_local! {
    /// The W3C trace parent of what the current task works for.
    static PARENT: String;
}

/// Runs work of a request, so that the messages it causes carry the request's W3C trace parent.
pub async fn traced<F: Future>(trace_parent: String, work: F) -> F::Output {
    PARENT.scope(trace_parent, work).await
}

/// The trace parent of what the current task works for; empty: none is known.
pub(crate) fn current() -> String {
    PARENT.try_with(String::clone).unwrap_or_default()
}

/// The trace id in a trace parent; empty: there is none.
pub(crate) fn id(trace_parent: &str) -> &str {
    trace_parent.split('-').nth(1).unwrap_or_default()
}

/// The trace id of the request that a command came from.
pub(crate) fn of_command(command: &Command) -> Option<String> {
    let Body::Mutate(mutation) = &command.body else {
        return None;
    };
    let (_, event) = schema::change::decode(mutation.events.first()?.clone()).ok()?;
    Some(event.actor.trace_id).filter(|id| !id.is_empty())
}

fn of_entry(entry: &LogEntry) -> Option<String> {
    let Payload::Normal(encoded) = &entry.payload else {
        return None;
    };
    let encoded: &Bytes = &encoded.0;
    of_command(&command::decode(encoded).ok()?)
}

/// The trace parent for a message with these entries: that of the newest change among them. Its parent id is the
/// log index.
pub(crate) fn of_entries(entries: &[LogEntry]) -> String {
    let newest = entries
        .iter()
        .rev()
        .find_map(|entry| Some((of_entry(entry)?, entry.log_id.index)));
    newest.map_or_else(String::new, |(id, index)| {
        format!("00-{id}-{:016x}-00", index.max(1))
    })
}

/// Notes which changes have arrived at `node`.
pub(crate) fn arrived(node: NodeId, entries: &[LogEntry]) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    for entry in entries {
        if let Some(trace_id) = of_entry(entry) {
            tracing::debug!(node, index = entry.log_id.index, trace_id, "an entry has arrived");
        }
    }
}
