//! The agent as a user runs it: the built binary, its log, its exit codes, its `/metrics`.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    exposition::Metrics,
    http,
    pid_namespace::PidNamespace,
    poll::{SOON, until},
};

const CONFIG: &str = "/run/test.toml";

/// A running `netns-monitor agent`, on a free port of the test's host. Killed when dropped; its log is shown when the
/// test fails.
#[derive(Debug)]
pub struct Agent {
    args: Vec<String>,
    processes: Option<Rc<PidNamespace>>,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    address: Option<SocketAddr>,
}

/// What a command that ended has left.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit code; absent when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The binary under test: `NETNS_MONITOR`, or the one built beside the tests.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn binary() -> PathBuf {
    let path = env::var_os("NETNS_MONITOR").map(PathBuf::from).unwrap_or_else(|| {
        let test = env::current_exe().expect("the test's own path");
        test.ancestors().nth(2).expect("target/debug/deps").join("netns-monitor")
    });
    assert!(path.exists(), "{} is not built: cargo build -p monitor", path.display());
    path
}

/// Writes the file that [`Agent::start`] uses, and returns its path.
///
/// # Panics
/// When it cannot be written.
pub fn write_config(text: &str) -> &'static str {
    fs::write(CONFIG, text).expect("the agent's file");
    CONFIG
}

/// Runs `netns-monitor ARGS` to its end.
///
/// # Panics
/// When it has not ended soon.
pub fn run(args: &[&str]) -> Outcome {
    let mut child = command(&binary(), &NAMED, args).stdout(Stdio::piped()).spawn().expect("netns-monitor");
    // Read beside waiting, or a full pipe would block it.
    let stdout = collect(child.stdout.take().expect("its output"));
    let stderr = collect(child.stderr.take().expect("its messages"));
    let status = wait(&mut child, SOON, &format!("netns-monitor {args:?} ends"));
    let text = |thread: JoinHandle<String>| thread.join().expect("text");
    Outcome { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// Runs `netns-monitor ARGS` and demands exit code 0.
///
/// # Panics
/// When it ends with another one.
pub fn run_well(args: &[&str]) -> Outcome {
    let outcome = run(args);
    assert_eq!(outcome.code, Some(0), "netns-monitor {args:?}: {outcome:#?}");
    outcome
}

/// What keeps a test about wiring from waiting for programs to be attached.
pub const UNCOUNTED: [&str; 2] = ["--attach", "none"];

/// Applies a file without counting; once is enough.
///
/// # Panics
/// When that fails, or leaves something to do.
pub fn apply(file: &str) {
    let [flag, value] = UNCOUNTED;
    run_well(&[flag, value, "apply", write_config(file)]);
    assert_eq!(run_well(&[flag, value, "plan", write_config(file)]).stdout, "", "once is enough");
}

/// Destroys what [`apply`] made.
///
/// # Panics
/// When that fails.
pub fn destroy(file: &str) {
    let [flag, value] = UNCOUNTED;
    run_well(&[flag, value, "destroy", write_config(file)]);
}

/// All tests share one /proc: by names alone an agent sees no more than its own host.
const NAMED: [&str; 2] = ["--watch.source", "named"];

fn command(binary: &Path, sources: &[&str], args: &[&str]) -> Command {
    let mut command = Command::new(binary);
    if !args.contains(&NAMED[0]) {
        command.args(sources);
    }
    command.args(args).stdin(Stdio::null()).stderr(Stdio::piped());
    // Whatever the developer's shell says, the tests read the log as it is by default.
    command.env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).expect("a pipe");
        String::from_utf8_lossy(&text).into_owned()
    })
}

fn wait(child: &mut Child, within: Duration, what: &str) -> ExitStatus {
    let end = std::time::Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait().expect("its status") {
            return status;
        }
        if std::time::Instant::now() > end {
            child.kill().expect("killed");
            child.wait().expect("its status");
            panic!("after {within:?} still not: {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

impl Agent {
    /// Starts the agent with this file and further arguments, and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready soon.
    #[must_use]
    pub fn start(config: &str, args: &[&str]) -> Self {
        let mut agent = Self::spawn(config, args);
        agent.wait_ready();
        agent
    }

    /// Starts the agent and waits for nothing.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(config: &str, args: &[&str]) -> Self {
        let own = ["agent", "--config", write_config(config), "--web.listen-address", "127.0.0.1:0"];
        let args: Vec<String> = own.iter().chain(args).map(|&arg| arg.to_owned()).collect();
        Self::launch_first(args, None)
    }

    /// Starts the agent without a file, and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready soon.
    #[must_use]
    pub fn watching(args: &[&str]) -> Self {
        let own = ["agent", "--web.listen-address", "127.0.0.1:0"];
        let args = own.iter().chain(args).map(|&arg| arg.to_owned()).collect();
        let mut agent = Self::launch_first(args, None);
        agent.wait_ready();
        agent
    }

    /// Starts the agent among the processes of a PID namespace, without a file, and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready soon.
    #[must_use]
    pub fn start_among(processes: &Rc<PidNamespace>, args: &[&str]) -> Self {
        let own = ["agent", "--web.listen-address", "127.0.0.1:0"];
        let args = own.iter().chain(args).map(|&arg| arg.to_owned()).collect();
        let mut agent = Self::launch_first(args, Some(Rc::clone(processes)));
        agent.wait_ready();
        agent
    }

    fn launch_first(args: Vec<String>, processes: Option<Rc<PidNamespace>>) -> Self {
        let log = Arc::default();
        let (child, readers) = launch(&args, processes.as_deref(), &log);
        Self { args, processes, child, log, readers, address: None }
    }

    /// Starts it again with the same arguments after it ended. Does not wait.
    ///
    /// # Panics
    /// When it cannot be started, or still runs.
    pub fn respawn(&mut self) {
        assert!(self.child.try_wait().expect("its status").is_some(), "it still runs");
        self.readers.drain(..).for_each(|reader| reader.join().expect("the log's reader"));
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.address = None;
        (self.child, self.readers) = launch(&self.args, self.processes.as_deref(), &self.log);
    }

    /// Starts it again with the same arguments, and waits until it is ready.
    ///
    /// # Panics
    /// When it cannot be started, or still runs.
    pub fn restart(&mut self) {
        self.respawn();
        self.wait_ready();
    }

    /// Waits until `/-/ready` says so.
    ///
    /// # Panics
    /// When it does not soon, or the agent ended.
    pub fn wait_ready(&mut self) {
        self.wait_ready_within(SOON);
    }

    /// As [`Agent::wait_ready`] with another deadline.
    ///
    /// # Panics
    /// When it is not ready by then, or the agent ended.
    pub fn wait_ready_within(&mut self, within: Duration) {
        until(within, "the agent is ready", || {
            if let Some(status) = self.child.try_wait().expect("its status") {
                panic!("the agent ended with {status}");
            }
            let address = self.find_address()?;
            self.address = Some(address);
            http::get(address, "/-/ready").ok().filter(|answer| answer.status == 200)
        });
    }

    /// Whether `/-/ready` says so at this moment.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let answer = self.find_address().and_then(|address| http::get(address, "/-/ready").ok());
        answer.is_some_and(|answer| answer.status == 200)
    }

    fn find_address(&self) -> Option<SocketAddr> {
        self.log().iter().find_map(|line| {
            let (_, rest) = line.split_once("listening on http://")?;
            rest.split_once("/metrics")?.0.parse().ok()
        })
    }

    /// Where it listens.
    ///
    /// # Panics
    /// When it was not ready yet.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address.expect("an agent that is ready")
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The body of `/metrics`.
    ///
    /// # Panics
    /// When it does not answer with 200.
    #[must_use]
    pub fn scrape(&self) -> String {
        let answer = http::get(self.address(), "/metrics").expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// What `/metrics` says, parsed.
    ///
    /// # Panics
    /// When it does not answer, or with something that is no exposition.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.scrape())
    }

    /// The lines it has logged since it was last started.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it with SIGKILL.
    ///
    /// # Panics
    /// When that fails.
    pub fn kill9(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("its status");
    }

    /// Asks it to end with SIGTERM and waits for that.
    ///
    /// # Panics
    /// When it does not end soon.
    pub fn terminate(&mut self) -> ExitStatus {
        self.terminate_within(SOON)
    }

    /// As [`Agent::terminate`] with another deadline.
    ///
    /// # Panics
    /// When it has not ended by then.
    pub fn terminate_within(&mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        wait(&mut self.child, within, "the agent ends after SIGTERM")
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it does not soon.
    pub fn wait_end(&mut self) -> ExitStatus {
        wait(&mut self.child, SOON, "the agent ends by itself")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("a signal");
    }
}

fn launch(
    args: &[String],
    processes: Option<&PidNamespace>,
    log: &Arc<Mutex<Vec<String>>>,
) -> (Child, Vec<JoinHandle<()>>) {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut child = match processes {
        None => command(&binary(), &NAMED, &args).stdout(Stdio::piped()).spawn().expect("the agent"),
        Some(there) => there.spawn(command(there.binary(), &[], &args).stdout(Stdio::piped())),
    };
    let pipes: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stderr.take().expect("its messages")),
        Box::new(child.stdout.take().expect("its output")),
    ];
    let reader = |pipe| {
        let log = Arc::clone(log);
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        })
    };
    (child, pipes.into_iter().map(reader).collect())
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.kill9();
        }
        if thread::panicking() {
            eprintln!("--- log of the agent ---\n{}\n---", self.log().join("\n"));
        }
    }
}

/// A file of this repository.
///
/// # Panics
/// Never: the path is only put together.
#[must_use]
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package stands in a workspace").join(path)
}
