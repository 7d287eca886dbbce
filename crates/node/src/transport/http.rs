//! The HTTP endpoint: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever supervises the process.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

use super::Probe;
use crate::lifecycle::Phase;

/// The endpoint's routes.
pub(crate) fn router<P: Probe>(metrics: PrometheusHandle, probe: P) -> Router {
    let ready = probe.clone();
    Router::new()
        .route(
            "/metrics",
            get(move || async move {
                (
                    [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
                    metrics.render(),
                )
            }),
        )
        .route("/healthz", get(move || async move { health(&probe) }))
        .route("/readyz", get(move || async move { readiness(&ready) }))
}

/// Alive: a restart would not help.
fn health(probe: &impl Probe) -> (StatusCode, String) {
    match probe.fatal() {
        None => (StatusCode::OK, "ok\n".into()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("stopped: {reason}\n")),
    }
}

/// Ready: worth sending clients to.
fn readiness(probe: &impl Probe) -> (StatusCode, String) {
    let why_not = match (probe.fatal(), probe.phase(), probe.has_leader()) {
        (Some(reason), _, _) => format!("stopped: {reason}"),
        (None, Phase::Serving, true) => return (StatusCode::OK, "ready\n".into()),
        (None, Phase::Serving, false) => "no leader".into(),
        (None, Phase::Starting, _) => "starting".into(),
        (None, Phase::Draining, _) => "draining".into(),
        (None, Phase::Stopping, _) => "stopping".into(),
        (None, Phase::Stopped, _) => "stopped".into(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why_not}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Fixed(Option<&'static str>, Phase, bool);

    impl Probe for Fixed {
        fn fatal(&self) -> Option<String> {
            self.0.map(str::to_owned)
        }
        fn phase(&self) -> Phase {
            self.1
        }
        fn has_leader(&self) -> bool {
            self.2
        }
    }

    #[test]
    fn ready_means_worth_sending_clients_to() {
        let table = [
            (Fixed(None, Phase::Serving, true), 200, 200, "ready\n"),
            (Fixed(None, Phase::Serving, false), 200, 503, "no leader\n"),
            (Fixed(None, Phase::Starting, true), 200, 503, "starting\n"),
            (Fixed(None, Phase::Draining, true), 200, 503, "draining\n"),
            (
                Fixed(Some("sync failed"), Phase::Stopped, false),
                503,
                503,
                "stopped: sync failed\n",
            ),
        ];
        for (probe, healthy, ready, text) in table {
            assert_eq!(health(&probe).0.as_u16(), healthy);
            let (code, body) = readiness(&probe);
            assert_eq!((code.as_u16(), body.as_str()), (ready, text));
        }
    }
}
