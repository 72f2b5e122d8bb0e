//! What is answered, for GET and HEAD only: the metrics, the probes, the page and its API.

use std::{io::Write as _, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{
            ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
            VARY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use flate2::{Compression, write::GzEncoder};
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
    time::timeout,
};

use super::{
    api::{self, Api},
    http::App,
    page,
};

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

pub(super) fn router(app: App, stopping: watch::Receiver<()>) -> Router {
    let api = Arc::new(Api::new(&app, stopping));
    let pages = Arc::new(Pages { scrapes: Arc::new(Semaphore::new(app.limits.scrapes)), app });
    let [status, namespaces, topology, symptoms, events, schema] = api::PATHS;
    let api = Router::new()
        .route(status, get(api::status))
        .route(namespaces, get(api::list))
        .route(api::ONE, get(api::one))
        .route(api::HELD_BY, get(api::held_by))
        .route(topology, get(api::topology))
        .route(symptoms, get(api::known_symptoms))
        .route(events, get(api::events))
        .route(schema, get(api::schema))
        .route("/api/{*rest}", get(api::unknown))
        .with_state(api);
    Router::new()
        .route("/", get(landing))
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(|| async { text(StatusCode::OK, "The agent lives.\n") }))
        .route("/-/ready", get(ready))
        .route("/page/{file}", get(part))
        .with_state(pages.clone())
        .merge(api)
        .fallback(|| async { text(StatusCode::NOT_FOUND, "No such page; / lists what there is.\n") })
        .method_not_allowed_fallback(|| async {
            text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are answered here.\n")
        })
        .layer(middleware::from_fn_with_state(pages, around))
}

/// The path as the label `handler` knows it: no client can add a value.
fn handler(path: &str) -> &'static str {
    if let Some(served) = PATHS.into_iter().chain(api::PATHS).find(|served| *served == path) {
        return served;
    }
    match path.strip_prefix("/api/v1/namespaces/") {
        Some(rest) if rest.ends_with("/holders") => api::HELD_BY,
        Some(_) => api::ONE,
        None if page::part(path.strip_prefix("/page/").unwrap_or_default()).is_some() => "/page",
        None => "other",
    }
}

/// Around every page: the limit on time, the headers all answers have, the count.
async fn around(State(pages): State<Arc<Pages>>, request: Request, next: Next) -> Response {
    let handler = handler(request.uri().path());
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
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
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
        let rendered = rendering.await;
        let response = match rendered {
            Ok(body) => Ok(encoded(body, HeaderValue::from_static(EXPOSITION), gzip).await),
            Err(error) => Err(anyhow::Error::msg(error)),
        };
        drop(permit);
        response
    });
    work.await.map_err(anyhow::Error::new).flatten().unwrap_or_else(|error| {
        tracing::error!("render the metrics: {error:#}");
        let answer = "The metrics could not be rendered; the agent's log says why.\n";
        text(StatusCode::INTERNAL_SERVER_ERROR, answer)
    })
}

/// An answer, compressed where that is asked for and worth it: off the runtime's threads, as it may be megabytes.
pub(super) async fn encoded(body: Vec<u8>, kind: HeaderValue, gzip: bool) -> Response {
    let gzip = gzip && body.len() >= WORTH_GZIP;
    let body = match gzip {
        false => Ok(body),
        true => spawn_blocking(move || compress(&body))
            .await
            .map_err(anyhow::Error::new)
            .and_then(|done| done.context("gzip")),
    };
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            tracing::error!("{error:#}");
            return text(StatusCode::INTERNAL_SERVER_ERROR, "The answer could not be compressed.\n");
        }
    };
    let mut response = Body::from(body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

async fn ready(State(pages): State<Arc<Pages>>) -> Response {
    match (pages.app.ready)() {
        Ok(()) => text(StatusCode::OK, "The agent is ready.\n"),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("The agent is not ready: {why}\n")),
    }
}

/// The page for who takes HTML; a list of what there is for who does not say so, `curl` for example.
async fn landing(headers: HeaderMap) -> Response {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let html = values.flat_map(|value| value.split(',')).any(|kind| kind.trim().starts_with("text/html"));
    match html {
        true => whole(&page::PAGE, takes_gzip(&headers)).await,
        false => encoded(page::LIST.into(), HeaderValue::from_static(PLAIN), false).await,
    }
}

/// A part that the page loads.
async fn part(Path(file): Path<String>, headers: HeaderMap) -> Response {
    match page::part(&file) {
        Some(part) => whole(part, takes_gzip(&headers)).await,
        None => text(StatusCode::NOT_FOUND, "No such page; / lists what there is.\n"),
    }
}

async fn whole(part: &page::Part, gzip: bool) -> Response {
    encoded(part.text.into(), HeaderValue::from_static(part.kind), gzip).await
}

fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = (status, body.into()).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PLAIN));
    response
}

/// Whether `Accept-Encoding` names gzip with a weight above 0 (RFC 9110, 12.5.3).
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
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
