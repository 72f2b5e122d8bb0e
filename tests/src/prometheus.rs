//! A real Prometheus on the test's host, and its `promtool`.

use std::{
    env, fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::Value;

use crate::{
    agent::repository,
    http,
    poll::{SOON, until},
};

/// The test's host is its own, so the port is free.
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 9090);

/// A running Prometheus with its data on the test's own `/run`. Killed when dropped.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    home: PathBuf,
    address: SocketAddr,
}

/// The folder of `prometheus` and `promtool`: `PROMETHEUS_DIR`, or where the set-up unpacks Debian's package.
#[must_use]
pub fn directory() -> PathBuf {
    let unpacked = || repository("target/tools/prometheus/usr/bin");
    env::var_os("PROMETHEUS_DIR").map_or_else(unpacked, PathBuf::from)
}

/// Runs `promtool ARGS` with `input`; returns its exit code and all it said.
///
/// # Panics
/// When there is no promtool.
#[must_use]
pub fn promtool(args: &[&str], input: &str) -> (Option<i32>, String) {
    let mut child = Command::new(directory().join("promtool"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: cargo xtask setup unpacks it");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("its input");
    let output = child.wait_with_output().expect("its output");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

impl Prometheus {
    /// Starts it: scrapes `targets` as job `netns-monitor` and evaluates `rules` (paths), both five times a second.
    ///
    /// # Panics
    /// When it is not ready soon.
    #[must_use]
    pub fn start(targets: &[SocketAddr], rules: &[&Path]) -> Self {
        Self::start_every("200ms", targets, rules)
    }

    /// The same at another pace.
    ///
    /// # Panics
    /// When it is not ready soon.
    #[must_use]
    pub fn start_every(pace: &str, targets: &[SocketAddr], rules: &[&Path]) -> Self {
        let rules: String = rules.iter().map(|path| format!("  - {}\n", path.display())).collect();
        let targets: Vec<_> = targets.iter().map(|target| format!("'{target}'")).collect();
        let targets = targets.join(", ");
        let config = format!(
            "global:\n  scrape_interval: {pace}\n  scrape_timeout: {pace}\n  evaluation_interval: {pace}\n\
             rule_files:\n{rules}\
             scrape_configs:\n  - job_name: netns-monitor\n    static_configs:\n      - targets: [{targets}]\n"
        );
        Self::run(Path::new("/run/prometheus"), ADDRESS.into(), &config, &[])
    }

    /// Starts one with that file, written to its folder, on that address, with further arguments.
    ///
    /// # Panics
    /// When it is not ready soon.
    #[must_use]
    pub fn run(home: &Path, address: SocketAddr, config: &str, args: &[&str]) -> Self {
        fs::create_dir_all(home).expect("its folder");
        fs::write(home.join("prometheus.yml"), config).expect("its file");
        let log = fs::File::create(home.join("log")).expect("its log");
        let child = Command::new(directory().join("prometheus"))
            .arg(format!("--config.file={}/prometheus.yml", home.display()))
            .arg(format!("--storage.tsdb.path={}/data", home.display()))
            .arg(format!("--web.listen-address={address}"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus: cargo xtask setup unpacks it");
        let mut prometheus = Self { child, home: home.to_owned(), address };
        until(SOON, "Prometheus is ready", || {
            if let Some(status) = prometheus.child.try_wait().expect("its status") {
                panic!("Prometheus ended with {status}");
            }
            http::get(address, "/-/ready").ok().filter(|answer| answer.status == 200)
        });
        prometheus
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks its HTTP interface, `query?query=up` for example, and returns `data`.
    ///
    /// # Errors
    /// What it says is wrong.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn ask(&self, path: &str) -> Result<Value, String> {
        let answer = http::get(self.address, &format!("/api/v1/{path}")).expect("an answer of Prometheus");
        let mut json: Value = serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
        match json["status"].as_str() {
            Some("success") => Ok(json["data"].take()),
            _ => Err(json["error"].to_string()),
        }
    }

    /// Evaluates an expression now; returns the series of the answer, or its one value.
    ///
    /// # Errors
    /// What Prometheus says is wrong with it.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let mut data = self.ask(&format!("query?query={}", http::escape(expression)))?;
        let result = data["result"].take();
        Ok(match data["resultType"].as_str() {
            Some("scalar" | "string") => vec![result],
            _ => result.as_array().cloned().unwrap_or_default(),
        })
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("its status");
        if thread::panicking() {
            let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
            eprintln!("--- log of Prometheus ---\n{log}---");
        }
    }
}
