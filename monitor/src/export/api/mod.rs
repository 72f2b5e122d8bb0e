//! `/api/v1`: what the agent knows, as JSON, for programs and for the page. Read only, and bounded.
//!
//! All answers are made of one reading that all clients share; a request enters no namespace and asks netlink nothing.

mod build;
mod feed;
mod shapes;
mod symptoms;

use std::{sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use tokio::{
    sync::{Semaphore, oneshot, watch},
    task::spawn_blocking,
};

use self::{
    feed::Feed,
    shapes::{HeldBy, List, Refusal, Row},
};
use super::{
    App, Hold, Snapshot,
    pages::{encoded, takes_gzip},
};

/// The paths, beside those of one namespace.
pub(super) const PATHS: [&str; 6] = [
    "/api/v1/status",
    "/api/v1/namespaces",
    "/api/v1/topology",
    "/api/v1/symptoms",
    "/api/v1/events",
    "/api/v1/schema",
];
/// The path of one namespace, and of who holds it.
pub(super) const ONE: &str = "/api/v1/namespaces/{netns}";
/// See [`ONE`].
pub(super) const HELD_BY: &str = "/api/v1/namespaces/{netns}/holders";

const JSON: &str = "application/json";
/// How many namespaces are listed unless asked otherwise, and at most.
const LIMIT: (usize, usize) = (1000, 5000);
/// How many holders are told at most.
const HOLDERS: usize = 1000;
/// After looking for holders, nobody may for as many times as long as it took.
const REST: u32 = 4;

/// The API.
pub(super) struct Api {
    feed: Arc<Feed>,
    hold: Hold,
    holding: Arc<Semaphore>,
}

impl Api {
    pub(super) fn new(app: &App, stopping: watch::Receiver<()>) -> Self {
        let limits = app.limits;
        Self {
            feed: Feed::new(Arc::clone(&app.snapshot), limits.reading, limits.watchers, stopping),
            hold: Arc::clone(&app.hold),
            holding: Arc::new(Semaphore::new(1)),
        }
    }
}

type Shared = State<Arc<Api>>;

pub(super) async fn status(State(api): Shared, headers: HeaderMap) -> Response {
    api.of_snapshot(headers, |snapshot| Ok(build::status(snapshot))).await
}

pub(super) async fn list(
    State(api): Shared,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let (offset, limit) = match (number(&query, "offset", 0, usize::MAX), limit(&query)) {
        (Ok(offset), Ok(limit)) => (offset, limit),
        (Err(why), _) | (_, Err(why)) => return refuse(StatusCode::BAD_REQUEST, why),
    };
    let contains = query.into_iter().find(|(key, _)| key == "contains").map(|(_, value)| value);
    api.of_snapshot(headers, move |snapshot| {
        let has = |text: &String| contains.as_ref().is_none_or(|part| text.contains(part.as_str()));
        let is_it = |row: &Row| has(&row.netns) || row.aliases.iter().any(has);
        let all: Vec<Row> = build::rows(snapshot).into_iter().filter(is_it).collect();
        let (time, total) = (snapshot.time, all.len());
        Ok(List { time, total, offset, namespaces: all.into_iter().skip(offset).take(limit).collect() })
    })
    .await
}

pub(super) async fn one(State(api): Shared, Path(netns): Path<String>, headers: HeaderMap) -> Response {
    api.of_snapshot(headers, move |snapshot| build::detail(snapshot, &netns).ok_or(NONE)).await
}

pub(super) async fn topology(
    State(api): Shared,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    match limit(&query) {
        Ok(limit) => api.of_snapshot(headers, move |snapshot| Ok(build::topology(snapshot, limit))).await,
        Err(why) => refuse(StatusCode::BAD_REQUEST, why),
    }
}

pub(super) async fn known_symptoms(headers: HeaderMap) -> Response {
    json(headers, symptoms::all).await
}

pub(super) async fn schema(headers: HeaderMap) -> Response {
    json(headers, schemas).await
}

/// Who holds a namespace: one look at a time, and a rest after it.
pub(super) async fn held_by(State(api): Shared, Path(netns): Path<String>, headers: HeaderMap) -> Response {
    let snapshot = match api.feed.snapshot().await {
        Ok(snapshot) => snapshot,
        Err(why) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, why),
    };
    let found = snapshot.sample.namespaces.iter().find(|found| found.label == netns);
    let Some(inode) = found.and_then(|found| found.inode) else { return refuse(StatusCode::NOT_FOUND, NONE) };
    let Ok(permit) = Arc::clone(&api.holding).try_acquire_owned() else {
        let why = "Somebody else looks for holders, or did just now; try again in a moment.";
        let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, why);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return response;
    };
    let holding = (api.hold)(inode);
    let (tell, told) = oneshot::channel();
    // In a task of its own: the permit is held until the work is done, also when the client has gone.
    tokio::spawn(async move {
        let began = Instant::now();
        // Who asked may have gone.
        let _gone = tell.send(holding.await);
        tokio::time::sleep(began.elapsed() * REST).await;
        drop(permit);
    });
    match told.await.map_err(|error| error.to_string()).flatten() {
        Ok(super::Holders { mut holders, mut notes }) => {
            if holders.len() > HOLDERS {
                notes.push(format!("{} more are not shown", holders.len() - HOLDERS));
                holders.truncate(HOLDERS);
            }
            let time = snapshot.time;
            json(headers, move || HeldBy { time, netns, holders, notes }).await
        }
        Err(error) => {
            tracing::error!("look for holders: {error}");
            let why = "Holders could not be looked for; the agent's log says why.";
            refuse(StatusCode::INTERNAL_SERVER_ERROR, why)
        }
    }
}

/// What changes, about once a second, as server-sent events.
pub(super) async fn events(State(api): Shared) -> Response {
    let Some(stream) = api.feed.watch() else {
        let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, "As many watch as may at one time.");
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        return response;
    };
    let mut response = Body::from_stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // What stands between shall pass each event on at once.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

pub(super) async fn unknown() -> Response {
    refuse(StatusCode::NOT_FOUND, "There is nothing of that name below /api/v1; / lists what there is.")
}

const NONE: &str = "There is no namespace of that label; /api/v1/namespaces lists them.";

impl Api {
    /// What somebody makes of the last reading, off the runtime's threads.
    async fn of_snapshot<T: Serialize + Send + 'static>(
        &self,
        headers: HeaderMap,
        make: impl FnOnce(&Snapshot) -> Result<T, &'static str> + Send + 'static,
    ) -> Response {
        let snapshot = match self.feed.snapshot().await {
            Ok(snapshot) => snapshot,
            Err(why) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, why),
        };
        match spawn_blocking(move || make(&snapshot)).await {
            Ok(Ok(value)) => json(headers, move || value).await,
            Ok(Err(why)) => refuse(StatusCode::NOT_FOUND, why),
            Err(error) => {
                tracing::error!("put an answer together: {error}");
                refuse(StatusCode::INTERNAL_SERVER_ERROR, feed::UNREAD)
            }
        }
    }
}

async fn json<T: Serialize>(headers: HeaderMap, make: impl FnOnce() -> T + Send + 'static) -> Response {
    let gzip = takes_gzip(&headers);
    let made = spawn_blocking(move || anyhow::Ok(serde_json::to_vec(&make())?)).await;
    match made.map_err(anyhow::Error::new).flatten() {
        Ok(body) => encoded(body, HeaderValue::from_static(JSON), gzip).await,
        Err(error) => {
            tracing::error!("an answer as JSON: {error:#}");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, feed::UNREAD)
        }
    }
}

fn refuse(code: StatusCode, why: impl Into<String>) -> Response {
    let text = serde_json::to_string(&Refusal { error: why.into() }).unwrap_or_default();
    let mut response = (code, text).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

fn limit(query: &[(String, String)]) -> Result<usize, String> {
    number(query, "limit", LIMIT.0, LIMIT.1)
}

/// A number of the query; absent, the usual one.
fn number(query: &[(String, String)], key: &str, usual: usize, most: usize) -> Result<usize, String> {
    let Some((_, value)) = query.iter().find(|(name, _)| name == key) else { return Ok(usual) };
    let number = value.parse().ok().filter(|number| *number <= most);
    let most = if most == usize::MAX { String::new() } else { format!(" up to {most}") };
    number.ok_or_else(|| format!("`{key}` is a number{most}, not {value:?}"))
}

/// The JSON schema of each answer, by path, and of each event.
fn schemas() -> serde_json::Value {
    use schemars::schema_for;
    serde_json::json!({
        "/api/v1/status": schema_for!(shapes::Status),
        "/api/v1/namespaces?offset=N&limit=N&contains=TEXT": schema_for!(List),
        "/api/v1/namespaces/{netns}": schema_for!(shapes::Detail),
        "/api/v1/namespaces/{netns}/holders": schema_for!(HeldBy),
        "/api/v1/topology?limit=N": schema_for!(shapes::Topology),
        "/api/v1/symptoms": schema_for!(Vec<shapes::Symptom>),
        "/api/v1/events: all": schema_for!(shapes::All),
        "/api/v1/events: change": schema_for!(shapes::Change),
        "/api/v1/events: trouble": schema_for!(Refusal),
        "every answer that is not 200": schema_for!(Refusal),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_the_query_is_taken_as_it_is_or_refused() {
        let query = |value: &str| vec![("limit".to_owned(), value.to_owned())];
        assert_eq!(limit(&[]), Ok(LIMIT.0));
        assert_eq!(limit(&query("7")), Ok(7));
        for bad in ["", "-1", "5001", "1e3", "<b>"] {
            let why = limit(&query(bad)).expect_err(bad);
            assert!(why.starts_with("`limit` is a number up to 5000, not "), "{why}");
        }
    }
}
