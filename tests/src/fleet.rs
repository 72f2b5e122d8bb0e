//! Several hosts with an agent each, and what beside Prometheus a fleet needs: a server that lists hosts, one that is told of alerts, and
//! the Alertmanager.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
};

use nix::mount::{MsFlags, mount};
use serde_json::Value;

use crate::{
    agent::{Agent, repository},
    host::{TestHost, ip},
    http,
    poll::{SOON, until},
};

/// What the hosts are wired to, on the host of the test.
const BRIDGE: &str = "fleet0";
/// Port of each host's agent.
const PORT: u16 = 10490;

type Job = Box<dyn FnOnce(&mut Agent) + Send>;

/// A host on a thread of its own: its own network, mounts and agent, and a link to the host of the test.
#[derive(Debug)]
pub struct Member {
    /// As dashboards call it.
    pub name: String,
    /// Where its agent is scraped.
    pub address: SocketAddr,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// The bridge that members are wired to, with this host's own address.
pub fn wire() {
    ip(&format!("link add {BRIDGE} type bridge mcast_snooping 0"));
    ip(&format!("addr add 203.0.113.1/24 dev {BRIDGE}"));
    ip(&format!("link set {BRIDGE} up"));
}

impl Member {
    /// A host of that number with an agent that keeps what the file says. Waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready soon.
    #[must_use]
    pub fn start(number: u8, config: &str) -> Self {
        let name = format!("host-{number}");
        let address = SocketAddr::from(([203, 0, 113, 10 + number], PORT));
        let (jobs, work) = channel::<Job>();
        let (tell, told) = channel::<PathBuf>();
        let (wired, until_wired) = channel::<()>();
        let config = config.to_owned();
        let run = move || {
            let host = TestHost::quiet();
            let task = fs::read_link("/proc/thread-self").expect("the thread's own name");
            tell.send(Path::new("/proc").join(task).join("ns/net")).expect("somebody waits");
            until_wired.recv().expect("it is wired");
            ip(&format!("addr add {}/24 dev uplink", address.ip()));
            ip("link set uplink up");
            let mut agent = Agent::start(&config, &["--web.listen-address", &address.to_string()]);
            work.into_iter().for_each(|job| job(&mut agent));
            drop(agent);
            drop(host);
        };
        let thread = thread::Builder::new().name(name.clone()).spawn(run).expect("a thread");
        let netns = told.recv().expect("it tells its namespace");
        ip(&format!("link add {name} type veth peer name uplink"));
        ip(&format!("link set uplink netns {}", netns.display()));
        ip(&format!("link set {name} master {BRIDGE} up"));
        wired.send(()).expect("it waits");
        let member = Self { name, address, jobs: Some(jobs), thread: Some(thread) };
        // It answers once it is ready.
        member.on(|_agent| ());
        member
    }

    /// Does something on that host, and returns what it returns.
    ///
    /// # Panics
    /// When that panicked.
    pub fn on<T: Send + 'static>(&self, act: impl FnOnce(&mut Agent) -> T + Send + 'static) -> T {
        let (answer, answered) = channel();
        let job: Job = Box::new(move |agent| answer.send(act(agent)).expect("somebody waits"));
        self.jobs.as_ref().expect("it lives").send(job).unwrap_or_else(|_gone| panic!("{} ended", self.name));
        answered.recv().unwrap_or_else(|_gone| panic!("{} panicked", self.name))
    }

    /// It dies: nothing of it can be reached any more.
    ///
    /// # Panics
    /// When it had died already.
    pub fn die(&self) {
        ip(&format!("link set {} down", self.name));
        self.on(Agent::kill9);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Err(panic)) = ended
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// A server that gives one answer to whoever asks, and keeps what was sent to it. Ends with its test's host.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// One that answers with this JSON.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn answering(answer: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let bodies = Arc::<Mutex<Vec<String>>>::default();
        let (kept, answer) = (Arc::clone(&bodies), answer.to_string());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(&stream);
                let (mut line, mut length) = (String::new(), 0);
                while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                    let lower = line.to_lowercase();
                    length = lower
                        .strip_prefix("content-length:")
                        .map_or(length, |n| n.trim().parse().expect("a length"));
                    line.clear();
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).expect("a body");
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(String::from_utf8(body).expect("UTF-8"));
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
                let _it_may_have_gone =
                    write!(&stream, "{head}\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
            }
        });
        Self { address, bodies }
    }

    /// What was sent to it so far.
    #[must_use]
    pub fn received(&self) -> Vec<String> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A running Alertmanager. Killed when dropped.
#[derive(Debug)]
pub struct Alertmanager(Child);

impl Alertmanager {
    /// Starts one with this file on that address.
    ///
    /// # Panics
    /// When it is not ready soon.
    #[must_use]
    pub fn start(address: SocketAddr, config: &str) -> Self {
        fs::create_dir_all("/run/alertmanager").expect("its folder");
        fs::write("/run/alertmanager/config.yml", config).expect("its file");
        let log = fs::File::create("/run/alertmanager/log").expect("its log");
        let tools = std::env::var_os("ALERTMANAGER_DIR").map(PathBuf::from);
        let tools = tools.unwrap_or_else(|| repository("target/tools/alertmanager"));
        // It looks for its templates where the package would be installed: in the test's own mounts they are there.
        let below = format!("lowerdir={}/usr/share:/usr/share", tools.display());
        mount(Some("overlay"), "/usr/share", Some("overlay"), MsFlags::MS_RDONLY, Some(below.as_str()))
            .expect("an overlay");
        let child = Command::new(tools.join("usr/bin/prometheus-alertmanager"))
            .args(["--config.file=/run/alertmanager/config.yml", "--storage.path=/run/alertmanager/data"])
            .args([&format!("--web.listen-address={address}"), "--cluster.listen-address="])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the Alertmanager: cargo xtask setup unpacks it");
        let alertmanager = Self(child);
        until(SOON, "the Alertmanager is ready", || {
            http::get(address, "/-/ready").ok().filter(|answer| answer.status == 200)
        });
        alertmanager
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("its status");
        if thread::panicking() {
            let log = fs::read_to_string("/run/alertmanager/log").unwrap_or_default();
            eprintln!("--- log of the Alertmanager ---\n{log}---");
        }
    }
}
