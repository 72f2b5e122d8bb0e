//! The image for container engines: loaded by the real Podman and Docker, and run as the manifest for Kubernetes runs it.

use std::{fs, path::Path, rc::Rc, time::Duration};

use monitor_tests::{
    agent::repository,
    engines::Engine,
    exposition::Metrics,
    host::{TestHost, ip},
    http,
    ledger::Count,
    package::package,
    pid_namespace::PidNamespace,
    poll::{SOON, until, until_equal, until_stable},
    scene::{kernels, know_each_other, ours, silence},
};

/// The options of `run` that give what the manifest gives: no more capabilities, and the host's folders.
fn as_in_the_manifest(unknown: &[&str]) -> String {
    let manifest =
        fs::read_to_string(repository("xtask/package/kubernetes/daemonset.yaml")).expect("the manifest");
    let added = manifest.lines().find_map(|line| line.trim().strip_prefix("add: [")?.strip_suffix(']'));
    let added = added.expect("capabilities").split(", ").filter(|name| !unknown.contains(name));
    let added: String = added.map(|name| format!(" --cap-add {name}")).collect();
    assert!(manifest.contains("readOnlyRootFilesystem: true"));
    format!(
        "--network host --pid host --read-only --cap-drop all{added} --volume /sys/fs/bpf:/sys/fs/bpf \
         --volume /run/netns:/run/netns:rslave --volume /run/netns-monitor:/run/netns-monitor"
    )
}

fn scrape() -> Metrics {
    let answer = http::get(([127, 0, 0, 1], 10490).into(), "/metrics").expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    Metrics::parse(&answer.body)
}

fn ready() -> bool {
    http::get(([127, 0, 0, 1], 10490).into(), "/-/ready").is_ok_and(|answer| answer.status == 200)
}

/// Packets of both namespaces, receive and transmit of each: as the agent counts them, and as the kernel does.
fn both() -> ([u64; 4], [u64; 4]) {
    let metrics = scrape();
    let packets = |[receive, transmit]: [Count; 2]| [receive.packets, transmit.packets];
    let [before, after] = ["before", "after"].map(|netns| packets(ours(&metrics, netns)));
    let kernel = ["before-eth0", "after-eth0"].map(|end| packets(kernels(end)));
    ([before, after].concat().try_into().expect("four"), kernel.concat().try_into().expect("four"))
}

fn risen(from: ([u64; 4], [u64; 4]), to: ([u64; 4], [u64; 4])) -> ([u64; 4], [u64; 4]) {
    let rise = |from: [u64; 4], to: [u64; 4]| std::array::from_fn(|at| to[at] - from[at]);
    (rise(from.0, to.0), rise(from.1, to.1))
}

fn attached(netns: &str) -> Option<f64> {
    let with = [("netns", netns), ("interface", "eth0"), ("mode", "tcx")];
    scrape().value("netns_interface_attached", &with)
}

/// The agent in a container counts what others make on the host, before it and after it, to the packet.
fn watches_from_a_container(engine: &Engine, unknown: &[&str]) {
    let made = |name: &str, number: u8| {
        ip(&format!("netns add {name}"));
        silence(&[name]);
        ip(&format!("link add {name}-eth0 type veth peer name eth0 netns {name}"));
        ip(&format!("link set {name}-eth0 master bridge up"));
        ip(&format!("-n {name} addr add 198.51.100.{number}/24 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
    };
    // Docker drops what its own bridges do not forward, and lets its rules see what any bridge does.
    let filtered = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
    if filtered.exists() {
        fs::write(filtered, "0").expect("a sysctl");
    }
    ip("link add bridge type bridge mcast_snooping 0");
    ip("link set bridge up");
    made("before", 2);
    fs::create_dir_all("/run/netns-monitor").expect("its directory");
    let version = env!("CARGO_PKG_VERSION");
    engine.run("load --input /run/image.tar");
    engine.run(&format!(
        "run --detach --name agent {} netns-monitor:{version} agent",
        as_in_the_manifest(unknown)
    ));
    until(SOON, "the agent is ready", || ready().then_some(()));
    until(SOON, "what was there is counted", || attached("before"));
    made("after", 3);
    until(SOON, "what came later is counted", || attached("after"));
    know_each_other("before", "after", "eth0");
    let begun = until_stable(SOON, Duration::from_millis(500), "no packet moves", both);
    ip("netns exec before ping -q -c 20 -i 0.01 -W 5 198.51.100.3");
    until_equal(SOON, "what the agent and what the kernel counted", || risen(begun, both()));
    assert!(risen(begun, both()).0.iter().all(|packets| *packets >= 20), "each of them, both ways");
    let failed: Vec<_> = scrape()
        .select("netns_monitor_scrape_collector_success", &[])
        .filter(|(_, success)| *success != 1.0)
        .map(|(labels, _)| labels.clone())
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    // Programs and counts outlive the container: its next one goes on.
    let last = until_stable(SOON, Duration::from_millis(500), "no packet moves", both);
    engine.run("stop --time 10 agent");
    ip("netns exec before ping -q -c 5 -i 0.01 -W 5 198.51.100.3");
    engine.run("start agent");
    until(SOON, "the next one is ready", || ready().then_some(()));
    until_equal(SOON, "what passed while no agent ran, too", || risen(last, both()));
    assert!(risen(last, both()).0.iter().all(|packets| *packets >= 5), "each of them, both ways");
    let log = engine.run("logs agent");
    assert!(!log.contains(" ERROR "), "{log}");
    engine.run("rm --force agent");
    assert_eq!(engine.run("ps --all --quiet"), "");
}

#[test]
fn podman_runs_the_image_and_the_agent_in_it_counts_the_host() {
    let host = TestHost::with_cgroups();
    package(&["--oci", "/run/image.tar"]);
    let processes = Rc::new(PidNamespace::new(&host));
    let engine = Engine::podman(&processes, "192.0.2.0/24");
    watches_from_a_container(&engine, &[]);
}

#[test]
fn docker_runs_the_image_and_the_agent_in_it_counts_the_host() {
    let host = TestHost::with_cgroups();
    package(&["--oci", "/run/image.tar"]);
    let processes = Rc::new(PidNamespace::new(&host));
    let engine = Engine::docker(&processes, "192.0.2.1/24");
    // Debian 12's Docker has not heard of them; SYS_ADMIN includes both.
    watches_from_a_container(&engine, &["BPF", "PERFMON"]);
}

#[test]
fn an_image_is_the_same_bytes_twice_and_a_root_file_system_has_no_more_than_it_needs() {
    let _host = TestHost::new();
    let [one, other] = ["/run/a.tar", "/run/b.tar"].map(|file| package(&["--oci", file]));
    assert!(fs::read(one).expect("an image") == fs::read(other).expect("an image"));
    let root = package(&["--rootfs", "/run/rootfs"]);
    let entries: Vec<_> =
        fs::read_dir(&root).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    for name in ["bin", "sbin", "etc", "var", "home"] {
        assert!(!entries.iter().any(|entry| entry == name), "{entries:?}");
    }
    // All it needs is in it.
    let version = monitor_tests::host::run("chroot", "/run/rootfs /netns-monitor --version");
    assert_eq!(version.trim(), concat!("netns-monitor ", env!("CARGO_PKG_VERSION")));
}
