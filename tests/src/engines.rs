//! Real container engines: Docker and Podman, each in the test's host and PID namespace.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    rc::Rc,
    thread,
};

use crate::{
    agent::repository,
    pid_namespace::PidNamespace,
    poll::{SOON, until},
};

const DOCKER_SOCKET: &str = "unix:///run/docker.sock";
const PODMAN_SOCKET: &str = "unix:///run/podman/podman.sock";
const HOME: &str = "/run/home";

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
    command.env("DOCKER_HOST", DOCKER_SOCKET).env("TMPDIR", "/run").env("HOME", HOME);
    command.env("CONTAINERS_CONF", format!("{HOME}/containers.conf"));
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
        for name in ["sh", "cat", "ip", "sleep", "ping", "httpd"] {
            symlink("busybox", root.join("bin").join(name)).expect("a link");
        }
    }
    root
}

/// A running engine, and an image `box`. Killed when dropped, with its containers.
#[derive(Debug)]
pub struct Engine {
    processes: Rc<PidNamespace>,
    /// The command of its user.
    client: &'static [&'static str],
    /// The control group of its containers.
    group: &'static str,
    daemon: Child,
}

const PODMAN: [&str; 7] = [
    "podman",
    "--root",
    "/run/containers/root",
    "--runroot",
    "/run/containers/run",
    "--storage-driver",
    "vfs",
];

impl Engine {
    /// Docker, its bridge `docker0` with that address. The test's host must have been made with control groups.
    ///
    /// # Panics
    /// When it does not answer soon.
    #[must_use]
    pub fn docker(processes: &Rc<PidNamespace>, bridge: &str) -> Self {
        let mut command = program("dockerd");
        command.args(["--data-root", "/run/dockerd", "--exec-root", "/run/docker", "--host", DOCKER_SOCKET]);
        command.args(["--pidfile", "/run/dockerd.pid", "--bip", bridge]);
        Self::start(processes, command, &["docker"], "docker")
    }

    /// Podman with the CNI plugins, and the service that tells names; its bridge `cni-podman0` has that network.
    ///
    /// # Panics
    /// When it does not answer soon.
    #[must_use]
    pub fn podman(processes: &Rc<PidNamespace>, network: &str) -> Self {
        let engines = directory();
        let at = |path: &str| engines.join(path).display().to_string();
        for folder in [&format!("{HOME}/.config/containers"), "/run/cni", "/run/podman"] {
            fs::create_dir_all(folder).expect(folder);
        }
        let policy = at("etc/containers/policy.json");
        fs::copy(&policy, format!("{HOME}/.config/containers/policy.json"))
            .unwrap_or_else(|error| panic!("{policy}: {error}: cargo xtask setup unpacks it"));
        let config = format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\n\
             conmon_path = [\"{}\"]\n[engine.runtimes]\nrunc = [\"{}\"]\n\
             [network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"{}\"]\nnetwork_config_dir = \"/run/cni\"\n\
             default_subnet = \"{network}\"\n",
            at("usr/bin/conmon"),
            at("usr/sbin/runc"),
            at("usr/lib/cni")
        );
        fs::write(format!("{HOME}/containers.conf"), config).expect("its file");
        let mut command = program(PODMAN[0]);
        command.args(&PODMAN[1..]).args(["system", "service", "--time=0", PODMAN_SOCKET]);
        Self::start(processes, command, &PODMAN, "libpod_parent")
    }

    fn start(
        processes: &Rc<PidNamespace>,
        mut daemon: Command,
        client: &'static [&'static str],
        group: &'static str,
    ) -> Self {
        let log = fs::File::create(log(group)).expect("its log");
        daemon.stdin(Stdio::null()).stdout(log.try_clone().expect("its log")).stderr(log);
        let daemon = processes.spawn(&mut daemon);
        let mut engine = Self { processes: Rc::clone(processes), client, group, daemon };
        until(SOON, "the engine answers", || {
            if let Some(status) = engine.daemon.try_wait().expect("its status") {
                panic!("{} ended with {status}", client[0]);
            }
            engine.ask(&["ps"], Stdio::null()).status.success().then_some(())
        });
        let mut tar = program("tar");
        let mut tar =
            tar.arg("-C").arg(busybox()).args(["-c", "."]).stdout(Stdio::piped()).spawn().expect("tar");
        let image = tar.stdout.take().expect("its output");
        let import = engine.ask(&["import", "-", "box"], image);
        assert!(tar.wait().expect("its status").success() && import.status.success(), "{import:?}");
        engine
    }

    fn ask(&self, args: &[&str], input: impl Into<Stdio>) -> Output {
        let mut command = program(self.client[0]);
        command.args(&self.client[1..]).args(args);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.processes.spawn(&mut command).wait_with_output().expect("its output")
    }

    /// Runs the engine's command with these arguments (split at spaces) and returns what it printed, trimmed.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub fn run(&self, args: &str) -> String {
        let words: Vec<&str> = args.split_whitespace().collect();
        let output = self.ask(&words, Stdio::null());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {args}: {said}", self.client[0]);
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }
}

fn log(group: &str) -> String {
    format!("/run/{group}.log")
}

impl Drop for Engine {
    fn drop(&mut self) {
        let all = self.ask(&["ps", "--all", "--quiet"], Stdio::null()).stdout;
        for id in String::from_utf8_lossy(&all).lines() {
            self.ask(&["rm", "--force", "--time", "0", id], Stdio::null());
            self.ask(&["rm", "--force", id], Stdio::null());
        }
        self.daemon.kill().expect("killed");
        self.daemon.wait().expect("its status");
        for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("control groups").flatten() {
            // Empty now, or that of another test's engine.
            let group = hierarchy.path().join(self.group);
            for inner in fs::read_dir(&group).into_iter().flatten().flatten() {
                let _removed = fs::remove_dir(inner.path());
            }
            let _removed = fs::remove_dir(group);
        }
        if thread::panicking() {
            let name = log(self.group);
            eprintln!("--- {name} ---\n{}---", fs::read_to_string(&name).unwrap_or_default());
        }
    }
}
