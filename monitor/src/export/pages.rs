//! What is answered: four pages for GET and HEAD, each small or made in one piece.

use std::{io::Write as _, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    body::Body,
    extract::{Query, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{
            ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use flate2::{Compression, write::GzEncoder};
use futures_util::future::BoxFuture;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use super::http::App;

/// The paths served, as the label `handler` knows them.
const PATHS: [&str; 4] = ["/", "/metrics", "/-/healthy", "/-/ready"];

/// Below this many bytes gzip saves no packet.
const WORTH_GZIP: usize = 1024;

const PLAIN: &str = "text/plain; charset=utf-8";
/// The one format there is; always a legal answer, whatever the client prefers.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

struct Pages {
    app: App,
    scrapes: Arc<Semaphore>,
}

pub(super) fn router(app: App) -> Router {
    let pages = Arc::new(Pages { scrapes: Arc::new(Semaphore::new(app.limits.scrapes)), app });
    Router::new()
        .route("/", get(landing))
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(|| async { text(StatusCode::OK, "The agent lives.\n") }))
        .route("/-/ready", get(ready))
        .fallback(|| async { text(StatusCode::NOT_FOUND, "No such page; / lists what there is.\n") })
        .method_not_allowed_fallback(|| async {
            text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are answered here.\n")
        })
        .layer(middleware::from_fn_with_state(pages.clone(), around))
        .with_state(pages)
}

/// Around every page: the limit on time, the headers all answers have, the count.
async fn around(State(pages): State<Arc<Pages>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let handler = PATHS.into_iter().find(|served| *served == path).unwrap_or("other");
    let mut response = match timeout(pages.app.limits.answer, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            tracing::warn!(handler, "no answer within {:?}", pages.app.limits.answer);
            text(StatusCode::SERVICE_UNAVAILABLE, "The answer took too long.\n")
        }
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    );
    pages.app.requests.count(handler, response.status().as_u16());
    response
}

async fn metrics(
    State(pages): State<Arc<Pages>>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let named = |key| -> Vec<&str> {
        query.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str()).collect()
    };
    let collectors = match pages.app.collectors.ask(&named("collect[]"), &named("exclude[]")) {
        Ok(collectors) => collectors,
        Err(why) => return text(StatusCode::BAD_REQUEST, format!("{why}\n")),
    };
    let Ok(permit) = pages.scrapes.clone().try_acquire_owned() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "Too many scrapes at one time.\n");
    };
    let rendering = (pages.app.metrics)(collectors);
    let gzip = takes_gzip(&headers);
    // In a task of its own, so that the permit is held until the work is done, also when the client has gone.
    let work = tokio::spawn(async move {
        let rendered = rendered(rendering, gzip).await;
        drop(permit);
        rendered
    });
    let (body, compressed) = match work.await.map_err(anyhow::Error::new).flatten() {
        Ok(rendered) => rendered,
        Err(error) => {
            tracing::error!("render the metrics: {error:#}");
            let answer = "The metrics could not be rendered; the agent's log says why.\n";
            return text(StatusCode::INTERNAL_SERVER_ERROR, answer);
        }
    };
    let mut response = Body::from(body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EXPOSITION));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if compressed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// The metrics, and whether they are compressed: off the runtime's threads, as they may be megabytes.
async fn rendered(
    rendering: BoxFuture<'static, Result<Vec<u8>, String>>,
    gzip: bool,
) -> anyhow::Result<(Vec<u8>, bool)> {
    let body = rendering.await.map_err(anyhow::Error::msg)?;
    if gzip && body.len() >= WORTH_GZIP {
        let compressed = spawn_blocking(move || compress(&body)).await?.context("gzip")?;
        return Ok((compressed, true));
    }
    Ok((body, false))
}

async fn ready(State(pages): State<Arc<Pages>>) -> Response {
    match (pages.app.ready)() {
        Ok(()) => text(StatusCode::OK, "The agent is ready.\n"),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("The agent is not ready: {why}\n")),
    }
}

async fn landing() -> Response {
    const PAGE: &str = concat!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
        "<meta name=\"viewport\" content=\"width=device-width\">\n",
        "<meta name=\"color-scheme\" content=\"light dark\">\n<title>netns-monitor</title>\n</head>\n<body>\n",
        "<h1>netns-monitor</h1>\n<p>Counts every packet of the network namespaces it keeps on this host. Version ",
        env!("CARGO_PKG_VERSION"),
        ".</p>\n<ul>\n",
        "<li><a href=\"/metrics\">/metrics</a>: the counts, for Prometheus</li>\n",
        "<li><a href=\"/-/healthy\">/-/healthy</a>: whether the agent lives</li>\n",
        "<li><a href=\"/-/ready\">/-/ready</a>: whether it counts, and if not, why</li>\n",
        "</ul>\n</body>\n</html>\n",
    );
    let mut response = PAGE.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = (status, body.into()).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PLAIN));
    response
}

/// Whether `Accept-Encoding` names gzip with a weight above 0 (RFC 9110, 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let weight = |coding: &str| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case("gzip").then(|| weight.unwrap_or(0.0))
    };
    values.flat_map(|value| value.split(',')).filter_map(weight).any(|weight| weight > 0.0)
}

fn compress(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
    gzip.write_all(body)?;
    gzip.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_taken_when_named_with_a_weight_above_zero() {
        let takes = |value: &'static str| {
            takes_gzip(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };
        assert!(takes("gzip") && takes("deflate, GZIP;q=0.5") && takes("br;q=1.0, gzip ; q=0.001"));
        assert!(!takes("gzip;q=0") && !takes("br") && !takes("") && !takes("xgzip") && !takes("gzip;q=no"));
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
