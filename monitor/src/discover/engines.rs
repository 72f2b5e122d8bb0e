//! Names of containers, asked from their engines: Docker's and Podman's socket, which speak the same HTTP. Only names are
//! asked, one container at a time, and only where a socket is.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Where engines listen, unless they were told otherwise.
pub const SOCKETS: [&str; 2] = ["/run/docker.sock", "/run/podman/podman.sock"];

/// How long an engine may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// What an engine did not know, or did not answer, is asked again after that.
const AGAIN: Duration = Duration::from_secs(30);

/// What was asked.
#[derive(Debug)]
pub struct Engines {
    sockets: Vec<PathBuf>,
    names: HashMap<String, (Option<String>, Instant)>,
}

impl Engines {
    /// Asks nothing yet.
    pub fn new(sockets: Vec<PathBuf>) -> Self {
        Self { sockets, names: HashMap::new() }
    }

    /// The name of a container, as far as it was learned.
    pub fn name(&self, id: &str) -> Option<String> {
        self.names.get(id).and_then(|(name, _)| name.clone())
    }

    /// Asks for the names of containers that are not known yet, and forgets those of others. Blocks.
    pub fn learn<'a>(&mut self, ids: impl Iterator<Item = &'a str>) {
        let mut before = std::mem::take(&mut self.names);
        let sockets: Vec<_> = self.sockets.iter().filter(|path| path.exists()).cloned().collect();
        for id in ids {
            if self.names.contains_key(id) {
                continue;
            }
            let known = before.remove(id);
            let fresh = |(name, asked): &(Option<String>, Instant)| name.is_some() || asked.elapsed() < AGAIN;
            let known = known.filter(fresh);
            let asked = known.unwrap_or_else(|| {
                let name = sockets.iter().find_map(|socket| ask(socket, id));
                (name, Instant::now())
            });
            self.names.insert(id.to_owned(), asked);
        }
    }
}

/// Nothing where the engine does not know it, or does not answer.
fn ask(socket: &Path, id: &str) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let answer = runtime.block_on(async { tokio::time::timeout(DEADLINE, get(socket, id)).await });
    match answer {
        Ok(Ok(name)) => name,
        Ok(Err(error)) => {
            tracing::debug!("{}: {error:#}", socket.display());
            None
        }
        Err(_late) => {
            tracing::debug!("{} does not answer", socket.display());
            None
        }
    }
}

async fn get(socket: &Path, id: &str) -> anyhow::Result<Option<String>> {
    let stream = TokioIo::new(UnixStream::connect(socket).await?);
    let (mut sender, connection) = http1::handshake(stream).await?;
    tokio::spawn(connection);
    let request = Request::get(format!("/containers/{id}/json"))
        .header("host", "localhost")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Ok(None);
    }
    let body = response.into_body().collect().await?.to_bytes();
    let about: serde_json::Value = serde_json::from_slice(&body)?;
    let name = about.get("Name").and_then(serde_json::Value::as_str);
    Ok(name.map(|name| name.trim_start_matches('/').to_owned()).filter(|name| !name.is_empty()))
}
