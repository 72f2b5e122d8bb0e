//! Names of containers. Podman's and CRI-O's stand in the command line of the `conmon` that watches each; others are asked
//! from the engine's socket, one container at a time, and only where a socket is. Podman's service is asked last: whatever it is
//! asked about a container makes it open the container's namespace, which it then keeps alive until it collects its garbage.

use std::{
    collections::HashMap,
    fs,
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

    /// Whether it was asked for, whatever the answer.
    pub fn is_asked(&self, id: &str) -> bool {
        self.names.contains_key(id)
    }

    /// Of these containers, those whose names are to be asked for; what is known of others is forgotten.
    pub fn questions<'a>(&mut self, ids: impl Iterator<Item = &'a str>) -> Questions {
        let mut before = std::mem::take(&mut self.names);
        let fresh = |(name, asked): &(Option<String>, Instant)| name.is_some() || asked.elapsed() < AGAIN;
        let mut asked = Vec::new();
        for id in ids {
            match before.remove(id).filter(fresh) {
                Some(known) => drop(self.names.insert(id.to_owned(), known)),
                None => asked.push(id.to_owned()),
            }
        }
        Questions { sockets: self.sockets.clone(), ids: asked }
    }

    /// Notes what was answered; says whether there are names among it.
    pub fn note(&mut self, Answers(answers): Answers) -> bool {
        let named = answers.iter().any(|(_, name)| name.is_some());
        self.names.extend(answers.into_iter().map(|(id, name)| (id, (name, Instant::now()))));
        named
    }
}

/// Containers whose names are to be asked for.
#[derive(Debug)]
pub struct Questions {
    sockets: Vec<PathBuf>,
    ids: Vec<String>,
}

/// What engines answered.
#[derive(Debug)]
pub struct Answers(Vec<(String, Option<String>)>);

impl Questions {
    /// Asks. Blocks, for seconds where an engine does not answer.
    pub fn ask(self) -> Answers {
        let Self { sockets, ids } = self;
        let watched = if ids.is_empty() { HashMap::new() } else { watched() };
        let there: Vec<_> = sockets.iter().filter(|path| path.exists()).collect();
        let ask = |id: String| {
            let by_socket = || there.iter().find_map(|socket| ask(socket, &id));
            let name = watched.get(&id).cloned().or_else(by_socket);
            (id, name)
        };
        Answers(ids.into_iter().map(ask).collect())
    }
}

/// Names of the containers that a `conmon` watches, by their numbers.
fn watched() -> HashMap<String, String> {
    let Ok(processes) = fs::read_dir("/proc") else { return HashMap::new() };
    let of = |process: fs::DirEntry| {
        // What has no number is no process, and has no such file.
        let path = process.path();
        let command = fs::read_to_string(path.join("comm")).ok()?;
        (command.trim_end() == "conmon").then(|| fs::read(path.join("cmdline")).ok()).flatten()
    };
    processes.flatten().filter_map(of).filter_map(|line| monitored(&line)).collect()
}

/// Number and name in a command line of `conmon` (conmon(8): `-c, --cid` and `-n, --name`).
fn monitored(line: &[u8]) -> Option<(String, String)> {
    let words: Vec<&str> =
        line.split(|byte| *byte == 0).map(std::str::from_utf8).collect::<Result<_, _>>().ok()?;
    let value = |short: &str, long: &str| {
        let at = words.iter().position(|word| [short, long].contains(word))?;
        words.get(at + 1).filter(|value| !value.is_empty()).map(|value| (*value).to_owned())
    };
    Some((value("-c", "--cid")?, value("-n", "--name")?))
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

#[cfg(test)]
mod tests {
    use super::monitored;

    #[test]
    fn the_name_stands_in_the_command_line_of_what_watches_a_container() {
        let line = |words: &str| words.replace(' ', "\0").into_bytes();
        let podman = line(
            "/usr/bin/conmon --api-version 1 -c 0abc -u 0abc -r /usr/bin/runc -b /x -p /y -n web --exit-dir /z ",
        );
        assert_eq!(monitored(&podman), Some(("0abc".to_owned(), "web".to_owned())));
        let crio = line("/usr/bin/conmon -b /x --cid 0abc --name k8s_web_pod ");
        assert_eq!(monitored(&crio), Some(("0abc".to_owned(), "k8s_web_pod".to_owned())));
        for other in ["/usr/bin/conmon --version ", "/usr/bin/conmon -c ", "/usr/bin/conmon -c 0abc -n "] {
            assert_eq!(monitored(&line(other)), None, "{other}");
        }
    }
}
