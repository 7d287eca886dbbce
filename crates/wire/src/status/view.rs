//! The way back: what a status says, for clients.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_types::FieldViolation;
use tonic::Status;
use tonic_types::StatusExt;

use super::{DOMAIN, OUTCOME_KEY, OutcomeView, Reason};

/// The details of a status of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorView {
    /// The name of a [`Reason`] without its prefix; a newer server may send one that this build does not know.
    pub reason: String,
    /// Whether the request may have taken effect.
    pub outcome: OutcomeView,
    /// After how long the server thinks that the same request may succeed.
    pub retry_after: Option<Duration>,
    /// What is wrong with the request. Not all, if there are very many.
    pub violations: Vec<FieldViolation>,
    /// Further facts, without the outcome.
    pub metadata: BTreeMap<String, String>,
}

impl ErrorView {
    /// Reads a status; none if it was not made by Holdfast (but by a proxy, or by the transport).
    pub fn of(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let mut metadata: BTreeMap<String, String> = info.metadata.clone().into_iter().collect();
        // Only a clear "it was not applied" is one.
        let outcome = match metadata.remove(OUTCOME_KEY).as_deref() {
            Some("NOT_APPLIED") => OutcomeView::NotApplied,
            _ => OutcomeView::Unknown,
        };
        let violations = details.bad_request().map_or_else(Vec::new, |bad| {
            bad.field_violations
                .iter()
                .map(|violation| FieldViolation::new(&violation.field, &violation.description))
                .collect()
        });
        Some(ErrorView {
            reason: info.reason.clone(),
            outcome,
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            violations,
            metadata,
        })
    }

    /// The reason as a value; [`Reason::Unspecified`] if this build does not know it.
    pub fn known_reason(&self) -> Reason {
        Reason::from_str_name(&format!("REASON_{}", self.reason)).unwrap_or(Reason::Unspecified)
    }
}
