//! The server over a real loopback socket with closures in place of the agent, and a client by hand.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use monitor::{
    export::{App, Holders, Limits, Metrics, Ready, Requests, Snapshot, serve},
    metrics::Collectors,
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinHandle,
};

/// How long a test waits for what should come at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

// ---- the server

pub struct Server {
    runtime: Option<Runtime>,
    pub address: SocketAddr,
    pub requests: Arc<Requests>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Server {
    pub fn start(metrics: Metrics, limits: Limits) -> Self {
        Self::start_with(metrics, Arc::new(|| Ok(())), limits)
    }

    pub fn start_with(metrics: Metrics, ready: Ready, limits: Limits) -> Self {
        Self::serving(App { ready, limits, ..app(metrics) })
    }

    pub fn serving(app: App) -> Self {
        // One worker: what a connection does after its last byte is done before the next one is accepted.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let listener = runtime.block_on(listener());
        let address = listener.local_addr().expect("address");
        let requests = app.requests.clone();
        let (stop, stopped) = oneshot::channel();
        let serving = runtime.spawn(serve(vec![listener], app, async {
            let _dropped = stopped.await;
        }));
        Self { runtime: Some(runtime), address, requests, stop: Some(stop), serving: Some(serving) }
    }

    pub fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(self.address).expect("connect");
        connection.set_read_timeout(Some(PATIENCE)).expect("timeout");
        connection
    }

    pub fn client(&self) -> Client {
        Client::on(self.connect())
    }

    pub fn stop(&mut self) {
        self.stop.take().expect("not stopped yet").send(()).expect("serving");
    }

    pub fn ended(&self) -> bool {
        self.serving.as_ref().is_none_or(JoinHandle::is_finished)
    }

    pub fn wait(&mut self) {
        let serving = self.serving.take().expect("not waited for yet");
        let runtime = self.runtime.as_ref().expect("until dropped");
        let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, serving).await });
        ended.expect("in time").expect("no panic").expect("no error");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.runtime.take().expect("once").shutdown_background();
    }
}

pub async fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind")
}

pub fn app(metrics: Metrics) -> App {
    App {
        metrics,
        collectors: Collectors::all(),
        snapshot: Arc::new(|| Box::pin(async { Ok(Snapshot::default()) })),
        hold: Arc::new(|_| Box::pin(async { Ok(Holders::default()) })),
        ready: Arc::new(|| Ok(())),
        requests: Arc::default(),
        limits: Limits::default(),
    }
}

pub fn fixed(body: &str) -> Metrics {
    let body = body.as_bytes().to_vec();
    Arc::new(move |_| {
        let body = body.clone();
        Box::pin(async { Ok(body) })
    })
}

// ---- the client

pub struct Client(pub BufReader<TcpStream>);

pub struct Answer {
    pub code: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Client {
    pub fn on(connection: TcpStream) -> Self {
        Self(BufReader::new(connection))
    }

    pub fn ask(&mut self, head: &str) -> Answer {
        self.send(head);
        self.answer(!head.starts_with("HEAD"))
    }

    /// The code of the answer; none where the connection was closed.
    pub fn try_ask(&mut self, head: &str) -> Option<u16> {
        let request = format!("{head}\r\nHost: localhost\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).ok()?;
        self.try_answer().map(|answer| answer.code)
    }

    pub fn send(&mut self, head: &str) {
        let request = format!("{head}\r\nHost: localhost\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).expect("send");
    }

    pub fn answer(&mut self, body: bool) -> Answer {
        let mut answer = self.try_answer().expect("an answer");
        if body {
            let length = answer.header("content-length").expect("a length").parse().expect("a number");
            answer.body = vec![0; length];
            self.0.read_exact(&mut answer.body).expect("the body");
        }
        answer
    }

    /// Status and headers.
    pub fn try_answer(&mut self) -> Option<Answer> {
        let mut line = || {
            let mut line = String::new();
            self.0.read_line(&mut line).ok().filter(|&read| read > 0)?;
            Some(line.trim_end().to_owned())
        };
        let code = line()?.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let header = line()?;
            if header.is_empty() {
                return Some(Answer { code, headers, body: Vec::new() });
            }
            let (name, value) = header.split_once(": ")?;
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }
}

/// Reads until the other side closed and says how much came.
pub fn drained(connection: &mut TcpStream) -> usize {
    let mut buffer = vec![0; 1 << 16];
    let mut all = 0;
    loop {
        match connection.read(&mut buffer) {
            Ok(0) => return all,
            Ok(read) => all += read,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("the other side did not close: {error}"),
        }
    }
}
