//! What is served without a certificate, on loopback by default: `/metrics`, `/healthz`, `/readyz`. None of it
//! changes anything or shows a secret.

use std::sync::Arc;

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse as _,
    routing::get,
};

use super::Metrics;

/// Media type of the answer to `/metrics`.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes. `ready` says what is missing until the coordinator can do its work, as a leader or as a standby:
/// liveness is a matter of the process alone, so that an outage elsewhere does not get it restarted.
pub fn router(metrics: Metrics, ready: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Router {
    let ready = Arc::new(ready);
    let show = move || {
        let metrics = metrics.clone();
        async move { ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.encode()) }
    };
    let is_ready = move || {
        let ready = Arc::clone(&ready);
        async move {
            match ready() {
                Ok(()) => "ready\n".into_response(),
                Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")).into_response(),
            }
        }
    };
    Router::new()
        .route("/metrics", get(show))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(is_ready))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };

    use bytes::Bytes;
    use http_body_util::Full;
    use smartscale_proto::time::SystemClock;

    use super::*;
    use crate::observe::web::WebClient;

    #[tokio::test]
    async fn readiness_says_what_is_missing_and_liveness_does_not_care() {
        let ready = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&ready);
        let app = router(Metrics::new("1"), move || {
            if asked.load(Ordering::Relaxed) {
                Ok(())
            } else {
                Err("no answer of the store yet".into())
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let client = WebClient::new(None, Duration::from_secs(5), 1 << 20, Arc::new(SystemClock)).unwrap();
        let fetch = async |path: &str| {
            let uri = format!("http://{address}{path}");
            let request = http::Request::get(uri).body(Full::new(Bytes::new())).unwrap();
            let response = client.send(request).await.unwrap();
            (
                response.status().as_u16(),
                String::from_utf8(response.body().to_vec()).unwrap(),
            )
        };
        assert_eq!(fetch("/healthz").await, (200, "alive\n".into()));
        assert_eq!(
            fetch("/readyz").await,
            (503, "no answer of the store yet\n".into())
        );
        ready.store(true, Ordering::Relaxed);
        assert_eq!(fetch("/readyz").await, (200, "ready\n".into()));
        let (status, text) = fetch("/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("smartscale_build_info"));
    }
}
