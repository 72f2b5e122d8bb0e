//! The Debian package: the same bytes twice, installed, updated, removed and purged by the real dpkg, and its service run with what the
//! unit leaves it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::MetadataExt as _, net::UnixDatagram},
    path::Path,
    process::{Child, Command, Stdio},
    rc::Rc,
    time::Duration,
};

use monitor_tests::{
    agent::{repository, run, write_config},
    exposition::Metrics,
    host::{TestHost, ip},
    http,
    package::{contents, package, settings},
    pid_namespace::PidNamespace,
    poll::{SOON, until},
    scene::TWO,
};
use nix::mount::{MsFlags, mount};

/// Where this machine's own Debian is, with what the test changes in it.
const ROOT: &str = "/mnt";
const CHANGES: &str = "/run/changes";
const CONFIG: &str = "etc/netns-monitor/netns-monitor.toml";
const PINS: &str = "/sys/fs/bpf/netns-monitor";

/// Binds this machine's Debian, as it is, to a folder: what is written there goes to the test's own `/run`. Nothing of the machine changes.
fn copy_of_this_debian() {
    for folder in ["upper", "work"] {
        fs::create_dir_all(Path::new(CHANGES).join(folder)).expect("a folder");
    }
    let options = format!("lowerdir=/,upperdir={CHANGES}/upper,workdir={CHANGES}/work");
    mount(Some("overlay"), ROOT, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .expect("an overlay");
    for folder in ["dev", "proc", "sys", "run"] {
        let (from, to) = (format!("/{folder}"), format!("{ROOT}/{folder}"));
        mount(
            Some(from.as_str()),
            to.as_str(),
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .expect(folder);
    }
}

fn there(program: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new("chroot")
        .args([ROOT, program])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .expect("chroot");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn dpkg(args: &[&str]) -> String {
    let (done, said) = there("dpkg", args);
    assert!(done, "dpkg {args:?}: {said}");
    said
}

/// Files that the test's changes left, without the records and logs of dpkg, and the index of the manual that man-db keeps.
fn changed_files() -> BTreeSet<String> {
    fn walk(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => walk(&path, found),
                false => {
                    found.insert(format!(
                        "/{}",
                        path.strip_prefix(format!("{CHANGES}/upper")).expect("in it").display()
                    ));
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&Path::new(CHANGES).join("upper"), &mut found);
    found.retain(|file| {
        !["/var/lib/dpkg/", "/var/log/", "/var/cache/man/"].iter().any(|own| file.starts_with(own))
    });
    found
}

#[test]
fn a_package_is_the_same_bytes_twice_and_its_files_are_roots() {
    let _host = TestHost::new();
    let [one, other] = ["/run/a", "/run/b"].map(|out| package(&["--compress", "none", "--out", out]));
    assert!(fs::read(&one).expect("a package") == fs::read(&other).expect("a package"), "the same bytes");
    // The twin: another revision is another package.
    let next = package(&["--compress", "none", "--out", "/run/a", "--revision", "2"]);
    assert!(fs::read(&one).expect("a package") != fs::read(&next).expect("a package"));

    let files = contents(&one);
    let find = |path: &str| {
        let found =
            files.iter().find(|(.., name)| name == path).unwrap_or_else(|| panic!("no {path}: {files:#?}"));
        (found.0.as_str(), found.1.as_str())
    };
    assert_eq!(find("/usr/sbin/netns-monitor"), ("-rwxr-xr-x", "root/root"));
    assert_eq!(find("/etc/netns-monitor/netns-monitor.toml"), ("-rw-r--r--", "root/root"));
    for path in [
        "/usr/lib/systemd/system/netns-monitor.service",
        "/usr/share/doc/netns-monitor/copyright",
        "/usr/share/doc/netns-monitor/changelog.gz",
        "/usr/share/doc/netns-monitor/changelog.Debian.gz",
        "/usr/share/netns-monitor/dashboards/overview.json",
        "/usr/share/netns-monitor/dashboards/rules/alerts.yml",
        "/usr/share/netns-monitor/kubernetes/daemonset.yaml",
    ] {
        assert_eq!(find(path), ("-rw-r--r--", "root/root"), "{path}");
    }
    // What the program writes of itself is in it as soon as it can: pages and completions.
    let help = run(&["--help"]).stdout;
    let can = |name: &str| help.lines().any(|line| line.trim_start().starts_with(&format!("{name} ")));
    let has = |start: &str| files.iter().any(|(.., name)| name.starts_with(start) && !name.ends_with('/'));
    assert_eq!(can("man"), has("/usr/share/man/man"));
    for folder in
        ["bash-completion/completions/netns-monitor", "zsh/vendor-completions/", "fish/vendor_completions.d/"]
    {
        assert_eq!(can("completions"), has(&format!("/usr/share/{folder}")), "{folder}");
    }
}

#[test]
fn a_package_is_installed_updated_removed_and_purged_by_dpkg_without_a_trace() {
    let _host = TestHost::new();
    let deb = |revision| {
        let file = package(&["--compress", "none", "--out", "/run", "--revision", revision]);
        file.to_str().expect("UTF-8").to_owned()
    };
    let (first, second) = (deb("1"), deb("2"));
    copy_of_this_debian();
    assert_eq!(changed_files(), BTreeSet::new());
    dpkg(&["--install", &first]);
    assert_eq!(dpkg(&["--verify", "netns-monitor"]), "", "every file is as it was packed");
    assert!(there("netns-monitor", &["--version"]).1.starts_with("netns-monitor "));
    assert!(
        there("netns-monitor", &["config", "check", &format!("/{CONFIG}")]).0,
        "the file it brings is fine"
    );
    let enabled =
        Path::new(CHANGES).join("upper/etc/systemd/system/multi-user.target.wants/netns-monitor.service");
    assert!(!enabled.exists(), "installing starts nothing, now and at boot");

    // The administrator's file outlives an update and removing.
    let config = Path::new(ROOT).join(CONFIG);
    fs::write(&config, "# mine\n").expect("the administrator's");
    dpkg(&["--install", &second]);
    assert!(dpkg(&["--status", "netns-monitor"]).contains("-2\n"));
    assert_eq!(fs::read_to_string(&config).expect("it stays"), "# mine\n");
    // The twin of --verify above.
    assert!(dpkg(&["--verify", "netns-monitor"]).contains(CONFIG));

    // An agent that only watched: what it counted goes with the package.
    ip("netns add watched");
    ip("link add host0 type veth peer name eth0 netns watched");
    let counted = there("netns-monitor", &["--watch.source", "named", "agent", "--once"]);
    assert!(counted.0, "{}", counted.1);
    assert!(Path::new(PINS).exists());
    dpkg(&["--remove", "netns-monitor"]);
    assert!(!Path::new(PINS).exists(), "nothing counts any more");
    assert!(ip("-br link").contains("host0"), "what is not ours stays");
    assert!(config.exists() && !Path::new(ROOT).join("usr/sbin/netns-monitor").exists());

    dpkg(&["--purge", "netns-monitor"]);
    assert_eq!(changed_files(), BTreeSet::new(), "nothing is left");
    assert!(!Path::new(ROOT).join("etc/netns-monitor").exists());
    assert!(!there("dpkg", &["--status", "netns-monitor"]).0);
}

/// A process that ends with its test, and shows its log when that failed.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _it_may_have_ended = self.0.kill();
        self.0.wait().expect("its status");
        if std::thread::panicking() {
            eprintln!("--- log of the service ---\n{}---", fs::read_to_string(LOG).unwrap_or_default());
        }
    }
}

const LOG: &str = "/run/log";

fn unit() -> String {
    fs::read_to_string(repository("xtask/package/netns-monitor.service")).expect("the unit")
}

#[test]
fn the_unit_is_what_systemd_understands_and_hides_no_mount_of_the_agents() {
    let unit = unit();
    // Each of these gives a service a mount namespace: namespaces it makes would be seen by nobody else.
    for name in [
        "ProtectSystem",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectProc",
        "ProcSubset",
        "PrivateMounts",
        "ReadWritePaths",
        "ReadOnlyPaths",
        "InaccessiblePaths",
        "BindPaths",
        "TemporaryFileSystem",
        "RootDirectory",
        "MountFlags",
        "PrivateNetwork",
        "ProtectHostname",
        "DynamicUser",
    ] {
        assert_eq!(settings(&unit, name), [""; 0], "{name}");
    }
    // Whose namespaces are is written there.
    assert_eq!(settings(&unit, "RuntimeDirectoryPreserve"), ["yes"]);
    let _host = TestHost::new();
    let file = package(&["--compress", "none", "--out", "/run"]);
    copy_of_this_debian();
    dpkg(&["--install", file.to_str().expect("UTF-8")]);
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        return;
    }
    let verify =
        |path: &str| there("systemd-analyze", &["--man=no", "--recursive-errors=no", "verify", path]);
    assert_eq!(verify("/usr/lib/systemd/system/netns-monitor.service"), (true, String::new()));
    let broken = unit.replace("Restart=on-failure", "Restart=perhaps");
    fs::write(Path::new(ROOT).join("etc/netns-monitor/broken.service"), broken).expect("a unit");
    assert!(verify("/etc/netns-monitor/broken.service").1.contains("perhaps"), "the twin");
}

#[test]
fn the_service_does_its_work_with_the_capabilities_that_its_unit_leaves() {
    let host = TestHost::quiet();
    let processes = Rc::new(PidNamespace::new(&host));
    let unit = unit();
    let mut set = "-all".to_owned();
    for name in settings(&unit, "CapabilityBoundingSet")[0].split(' ') {
        set += &format!(",+{}", name.trim_start_matches("CAP_").to_lowercase());
    }
    // One that somebody else's process holds by a descriptor alone.
    ip("netns add held");
    ip("link add held0 type veth peer name eth0 netns held");
    let holder = processes.start(
        "setpriv --reuid 65534 --clear-groups sleep 1000",
        fs::File::open("/run/netns/held").expect("open"),
    );
    ip("netns delete held");

    let told = UnixDatagram::bind("/run/notify").expect("a socket");
    told.set_read_timeout(Some(SOON)).expect("a deadline");
    let [start] = settings(&unit, "ExecStart")[..] else { panic!("one program") };
    let start = start.replace("/usr/sbin/netns-monitor", processes.binary().to_str().expect("UTF-8"));
    let start = start.replace(&format!("/{CONFIG}"), write_config(TWO)).replace("$ARGS", "");
    let log = fs::File::create(LOG).expect("its log");
    let mut command = Command::new("setpriv");
    command
        .args(["--no-new-privs", "--bounding-set", &set, "--inh-caps", "-all"])
        .args(start.split_whitespace());
    command.env("NOTIFY_SOCKET", "/run/notify").env_remove("RUST_LOG").env("NO_COLOR", "1");
    let mut agent = Service(processes.spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log)));

    let mut message = [0; 256];
    let length = told.recv(&mut message).expect("systemd is told");
    assert_eq!(std::str::from_utf8(&message[..length]), Ok("READY=1\n"));
    // Ready means that what is ordered after it finds what the file names.
    assert!(Path::new("/run/netns/blue").exists() && Path::new("/run/netns/red").exists());
    let status = fs::read_to_string(format!("/proc/{}/status", agent.0.id())).expect("its status");
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).expect("its bounding set");
    let count = u64::from_str_radix(bounding, 16).expect("a number").count_ones();
    assert_eq!(count as usize, set.matches('+').count(), "no more than the unit leaves");

    let scrape = || http::get(([127, 0, 0, 1], 10490).into(), "/metrics").expect("an answer").body;
    let held = until(SOON, "the held one is found and counted", || {
        let metrics = Metrics::parse(&scrape());
        let found = metrics.select("netns_interface_attached", &[("interface", "eth0"), ("mode", "tcx")]);
        let labels: BTreeSet<_> = found.map(|(labels, _)| labels["netns"].clone()).collect();
        (labels.len() == 3).then_some(metrics)
    });
    for (labels, success) in held.select("netns_monitor_scrape_collector_success", &[]) {
        assert_eq!(success, 1.0, "{labels:?}");
    }
    ip("netns exec blue ping -q -c 5 -i 0.01 -W 5 198.51.100.3");
    until(SOON, "echoes are counted", || {
        let with = [("netns", "blue"), ("protocol", "icmp"), ("direction", "transmit")];
        (Metrics::parse(&scrape()).count("netns_protocol_packets_total", &with) == 5).then_some(())
    });
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(agent.0.id().cast_signed()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .expect("SIGTERM");
    until(Duration::from_secs(20), "it ends", || agent.0.try_wait().expect("its status"));
    let log = fs::read_to_string(LOG).expect("its log");
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
    assert_eq!(fs::metadata("/run/netns-monitor").expect("its directory").mode() & 0o777, 0o700);
    drop(holder);
}
