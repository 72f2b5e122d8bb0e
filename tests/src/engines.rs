//! Real container engines: Docker and Podman, each in the test's host and PID namespace.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Child, Command, Stdio},
    rc::Rc,
    thread,
};

use crate::{
    agent::repository,
    pid_namespace::PidNamespace,
    poll::{SOON, until},
};

const SOCKET: &str = "unix:///run/docker.sock";
const LOG: &str = "/run/dockerd.log";

/// The folder that Debian's packages of the engines are unpacked in: `ENGINES_DIR`, or where the set-up does it.
#[must_use]
pub fn directory() -> PathBuf {
    env::var_os("ENGINES_DIR").map_or_else(|| repository("target/tools/engines"), PathBuf::from)
}

/// A program of an engine, or the shell for one, that finds the others and their libraries.
fn program(name: &str) -> Command {
    let engines = directory();
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = ["usr/bin", "usr/sbin"].iter().map(|folder| engines.join(folder));
    let path = env::join_paths(folders.chain(env::split_paths(&path))).expect("folders without a colon");
    let mut command = Command::new("env");
    // Found by the path it gets, not by the test's own.
    command.arg(name).env("PATH", path).env("LD_LIBRARY_PATH", engines.join("usr/lib/x86_64-linux-gnu"));
    command.env("DOCKER_HOST", SOCKET).env("TMPDIR", "/run");
    command
}

/// A root file system with nothing but busybox.
fn busybox() -> PathBuf {
    let root = PathBuf::from("/run/busybox");
    if !root.exists() {
        fs::create_dir_all(root.join("bin")).expect("a folder");
        let binary = directory().join("bin/busybox");
        fs::copy(&binary, root.join("bin/busybox"))
            .unwrap_or_else(|error| panic!("{}: {error}: cargo xtask setup unpacks it", binary.display()));
        for name in ["sh", "sleep", "ping", "nc", "wget", "httpd"] {
            symlink("busybox", root.join("bin").join(name)).expect("a link");
        }
    }
    root
}

/// A running dockerd, its bridge `docker0` at the address it is told, and an image `box`. Killed when dropped.
#[derive(Debug)]
pub struct Docker {
    processes: Rc<PidNamespace>,
    daemon: Child,
}

impl Docker {
    /// Starts it in the test's host, which must have been made with control groups.
    ///
    /// # Panics
    /// When it does not answer soon.
    #[must_use]
    pub fn start(processes: &Rc<PidNamespace>, bridge: &str) -> Self {
        let log = fs::File::create(LOG).expect("its log");
        let mut command = program("dockerd");
        command
            .args(["--data-root", "/run/dockerd", "--exec-root", "/run/docker", "--host", SOCKET])
            .args(["--pidfile", "/run/dockerd.pid", "--bip", bridge])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("its log"))
            .stderr(log);
        let mut docker = Self { processes: Rc::clone(processes), daemon: processes.spawn(&mut command) };
        until(SOON, "Docker answers", || {
            if let Some(status) = docker.daemon.try_wait().expect("its status") {
                panic!("dockerd ended with {status}");
            }
            let version = program("docker").arg("version").output().expect("docker");
            version.status.success().then_some(())
        });
        let mut tar = program("tar");
        tar.arg("-C").arg(busybox()).args(["-c", "."]);
        let mut tar = tar.stdout(Stdio::piped()).spawn().expect("tar");
        let image = tar.stdout.take().expect("its output");
        let import = program("docker").args(["import", "-", "box"]).stdin(image).output().expect("docker");
        assert!(tar.wait().expect("its status").success() && import.status.success(), "{import:?}");
        docker
    }

    /// Runs `docker ARGS` (split at spaces) and returns what it printed, trimmed.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub fn run(&self, args: &str) -> String {
        let mut command = program("docker");
        command
            .args(args.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = self.processes.spawn(&mut command).wait_with_output().expect("docker");
        assert!(output.status.success(), "docker {args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let mut all = program("sh");
        all.args(["-c", "docker ps --all --quiet | xargs -r docker rm --force"]);
        all.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.processes.spawn(&mut all).wait().expect("their status");
        self.daemon.kill().expect("killed");
        self.daemon.wait().expect("its status");
        for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("control groups").flatten() {
            // Empty now, or that of another test's engine.
            let _removed = fs::remove_dir(hierarchy.path().join("docker"));
        }
        if thread::panicking() {
            eprintln!("--- log of dockerd ---\n{}---", fs::read_to_string(LOG).unwrap_or_default());
        }
    }
}
