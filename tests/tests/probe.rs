//! Counting for real: programs on real veths, judged by the kernel's own counters.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    net::{SocketAddr, UdpSocket},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{NlOptions, TcAttachOptions, TcHandle},
    },
};
use monitor::{
    ledger,
    probe::{AttachChoice, Enter, Options, ProbeError, Probes, Side, Target, object::BASELINE},
    sample::{AttachMode, Counts},
    topology::names::Cookie,
};
use monitor_ebpf::LAYOUT;
use monitor_tests::host::{TestHost, ip, run};
use nix::sched::{CloneFlags, setns};

const PIN_DIR: &str = "/sys/fs/bpf/netns-monitor";

/// Makes a namespace with a veth pair, both ends down; returns the target of the host end.
fn veth(netns: &str, host_end: &str, interface: &str, index: Option<u32>) -> Target {
    if !Path::new("/run/netns").join(netns).exists() {
        ip(&format!("netns add {netns}"));
    }
    let index = index.map(|index| format!("index {index}")).unwrap_or_default();
    ip(&format!("link add {host_end} {index} type veth peer name {interface} netns {netns}"));
    host_target(netns, host_end, interface)
}

fn host_target(netns: &str, host_end: &str, interface: &str) -> Target {
    Target {
        cookie: cookie(netns),
        netns: netns.to_owned(),
        interface: interface.to_owned(),
        side: Side::HostEnd { ifindex: link("", host_end)["ifindex"].as_u64().expect("an index") as u32 },
    }
}

/// Addresses and sets up both ends of a pair: `.1` at the host, `.2` inside.
fn up(netns: &str, host_end: &str, interface: &str, net: &str) {
    ip(&format!("addr add {net}.1/24 dev {host_end}"));
    ip(&format!("-n {netns} addr add {net}.2/24 dev {interface}"));
    ip(&format!("-n {netns} link set {interface} up"));
    ip(&format!("link set {host_end} up"));
    running(netns, interface);
    running("", host_end);
}

/// Waits until an interface may send. Before, what it sends passes the programs and is dropped behind them.
fn running(netns: &str, interface: &str) {
    let until = Instant::now() + Duration::from_secs(60);
    while link(netns, interface)["operstate"] != "UP" {
        assert!(Instant::now() < until, "{netns}/{interface} does not come up");
        thread::sleep(Duration::from_millis(5));
    }
}

fn link(netns: &str, interface: &str) -> serde_json::Value {
    let netns = if netns.is_empty() { String::new() } else { format!("-n {netns}") };
    let text = ip(&format!("{netns} -j -s link show dev {interface}"));
    let links: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    links[0].clone()
}

/// Packets and bytes the kernel counted: received, then sent by the device.
fn kernel(netns: &str, interface: &str) -> [u64; 4] {
    let link = link(netns, interface);
    let stats = |direction: &str, what: &str| link["stats64"][direction][what].as_u64().expect("a number");
    [stats("rx", "packets"), stats("rx", "bytes"), stats("tx", "packets"), stats("tx", "bytes")]
}

/// The same as counted by the programs, in the order of the host end: what it received the namespace transmitted.
fn ours(counts: &Counts) -> [u64; 4] {
    let (transmit, receive) = (counts.transmit.total(), counts.receive.total());
    [transmit.skbs, transmit.skb_bytes, receive.skbs, receive.skb_bytes]
}

fn cookie(netns: &str) -> Cookie {
    inside(netns, || {
        let socket = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
        let (mut cookie, mut length) = (0_u64, 8);
        // SAFETY: the kernel writes at most the eight bytes of `cookie`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        Cookie(cookie)
    })
}

/// Runs something on a thread of its own inside a namespace.
fn inside<R: Send>(netns: &str, act: impl FnOnce() -> R + Send) -> R {
    let file = File::open(Path::new("/run/netns").join(netns)).expect("a namespace");
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("setns");
            act()
        });
        thread.join().expect("no panic inside")
    })
}

fn enter() -> Enter {
    Box::new(|target, act| {
        if !Path::new("/run/netns").join(&target.netns).exists() {
            return Err("no such namespace".into());
        }
        inside(&target.netns, act);
        Ok(())
    })
}

fn options(pin_dir: Option<&str>, attach: AttachChoice) -> Options {
    Options { pin_dir: pin_dir.map(PathBuf::from), attach, log_level: log::LevelFilter::Off, enter: enter() }
}

fn open() -> Probes {
    Probes::open(options(Some(PIN_DIR), AttachChoice::Auto)).expect("probes")
}

fn open_clsact() -> Probes {
    Probes::open(options(Some(PIN_DIR), AttachChoice::Clsact)).expect("probes")
}

fn counts(probes: &Probes, target: &Target) -> Counts {
    let readings = probes.read();
    let reading = readings.interfaces.into_iter().find(|reading| reading.target.is(target));
    reading.expect("a slot").counts.expect("readable")
}

fn retired(probes: &Probes, cookie: Cookie) -> Counts {
    let readings = probes.read();
    let total = readings.retired.into_iter().find(|(of, _)| *of == cookie);
    total.map(|(_, retired)| retired.counts).unwrap_or_default()
}

/// Everything counted anywhere.
fn all(probes: &Probes) -> Counts {
    let readings = probes.read();
    let live = readings.interfaces.into_iter().map(|reading| reading.counts.expect("readable"));
    let retired = readings.retired.into_iter().map(|(_, retired)| retired.counts);
    live.chain(retired).fold(readings.gone, |total, counts| ledger::sum(&total, &counts))
}

/// Sends UDP datagrams from the namespace to the host and as many back.
fn talk(netns: &str, net: &str, datagrams: usize) {
    let host: SocketAddr = format!("{net}.1:0").parse().expect("an address");
    let here = UdpSocket::bind(host).expect("a socket at the host");
    here.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let to = here.local_addr().expect("an address");
    let from = inside(netns, || UdpSocket::bind(format!("{net}.2:0")).expect("a socket inside"));
    from.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let mut buffer = [0; 512];
    for size in 0..datagrams {
        from.send_to(&buffer[..size % 400], to).expect("sent from inside");
        let (_, back) = here.recv_from(&mut buffer).expect("arrived at the host");
        here.send_to(&buffer[..(2 * size) % 400], back).expect("sent back");
        from.recv_from(&mut buffer).expect("arrived inside");
    }
}

/// Floods in both directions until dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Flood {
    fn start(netns: &str, net: &str) -> Self {
        let here = UdpSocket::bind(format!("{net}.1:9000")).expect("a socket at the host");
        let there = inside(netns, || UdpSocket::bind(format!("{net}.2:9000")).expect("a socket inside"));
        let stop = Arc::new(AtomicBool::new(false));
        let ways = [(here, format!("{net}.2:9000")), (there, format!("{net}.1:9000"))];
        let threads = ways.into_iter().map(|(socket, to)| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..50 {
                        // A full or absent queue at the receiver does not concern the sender's ledger.
                        drop(socket.send_to(&[0; 64], &to));
                    }
                    thread::yield_now();
                }
            })
        });
        Self { stop: Arc::clone(&stop), threads: threads.collect() }
    }

    fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("the flood ended"));
    }
}

/// Waits until nothing passes an interface any more (neighbour discovery of a new link goes on for seconds).
fn equal(probes: &Probes, target: &Target, host_end: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let before = kernel("", host_end);
        let counted = ours(&counts(probes, target));
        if before == kernel("", host_end) {
            assert_eq!(counted, before, "ours and the kernel's [rx packets, bytes, tx packets, bytes]");
            return;
        }
        assert!(Instant::now() < until, "traffic never paused");
    }
}

fn complete(probes: &Probes) -> Vec<(String, bool)> {
    let attached = probes.attached(|_| true).into_iter();
    attached.map(|attached| (attached.target.interface, attached.complete)).collect()
}

/// Kernel's id of a pinned link.
fn link_id(pin: &Path) -> u32 {
    let link = PinnedLink::from_pin(pin).expect("a pinned link");
    FdLink::from(link).info().expect("its info").id()
}

/// Ids of the pinned links of a slot.
fn link_ids(target: &Target) -> Vec<u32> {
    let links =
        ["ingress", "egress"].map(|hook| format!("{PIN_DIR}/v{LAYOUT}/links/{}-{hook}", target.ifindex()));
    links.iter().map(|link| link_id(Path::new(link))).collect()
}

/// A program of somebody else's, loaded and ready to be attached.
fn foreign() -> Ebpf {
    let mut ebpf = Ebpf::load(BASELINE).expect("the baseline object");
    foreign_program(&mut ebpf).load().expect("loaded");
    ebpf
}

fn foreign_program(ebpf: &mut Ebpf) -> &mut SchedClassifier {
    ebpf.program_mut("empty").expect("in the baseline").try_into().expect("a classifier")
}

fn filters(netns: &str, interface: &str, hook: &str) -> usize {
    let netns = if netns.is_empty() { String::new() } else { format!("-n {netns}") };
    run("tc", &format!("{netns} filter show dev {interface} {hook}")).matches("handle 0x").count()
}

fn pins() -> Vec<PathBuf> {
    fn walk(path: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => walk(&path, found),
                path => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new(PIN_DIR), &mut found);
    found
}

#[test]
fn counts_equal_the_kernels_in_both_directions_when_attached_before_the_link_is_up() {
    let _host = TestHost::new();
    for (attach, net) in [(AttachChoice::Auto, "198.51.100"), (AttachChoice::Clsact, "203.0.113")] {
        let (netns, end) = (format!("{attach:?}"), format!("v{attach:?}"));
        let probes = Probes::open(options(Some(PIN_DIR), attach)).expect("probes");
        let target = veth(&netns, &end, "eth0", None);
        probes.attach(&target).expect("attached");
        up(&netns, &end, "eth0", net);
        talk(&netns, net, 100);
        equal(&probes, &target, &end);
        assert!(ours(&counts(&probes, &target)).iter().all(|&count| count >= 100));
    }
}

#[test]
fn packets_before_the_attachment_are_what_is_missing() {
    let _host = TestHost::new();
    let target = veth("blue", "v0", "eth0", None);
    up("blue", "v0", "eth0", "198.51.100");
    talk("blue", "198.51.100", 10);
    let probes = open();
    probes.attach(&target).expect("attached");
    talk("blue", "198.51.100", 10);
    let [received, ..] = kernel("", "v0");
    let [counted, ..] = ours(&counts(&probes, &target));
    assert!(counted < received, "counted {counted} of {received}");
}

#[test]
fn killed_and_restarted_under_a_flood_nothing_is_lost_and_nothing_doubled() {
    let _host = TestHost::new();
    for (open, netns, net) in
        [(open as fn() -> Probes, "blue", "198.51.100"), (open_clsact, "red", "203.0.113")]
    {
        let end = format!("v{netns}");
        let target = veth(netns, &end, "eth0", None);
        let mut probes = open();
        probes.attach(&target).expect("attached");
        up(netns, &end, "eth0", net);
        let flood = Flood::start(netns, net);
        let mut last = [0; 4];
        for _ in 0..20 {
            // As after SIGKILL: nothing but file descriptors goes.
            drop(probes);
            probes = open();
            assert_eq!(
                probes.attached(|_| true).iter().filter(|attached| attached.complete).count(),
                probes.attached(|_| true).len()
            );
            let now = ours(&counts(&probes, &target));
            assert!(now.iter().zip(last).all(|(now, last)| *now >= last), "{last:?} fell to {now:?}");
            last = now;
        }
        flood.stop();
        equal(&probes, &target, &end);
    }
}

#[test]
fn reopening_adopts_the_links_and_attaching_again_changes_nothing() {
    let _host = TestHost::new();
    let target = veth("blue", "v0", "eth0", None);
    let probes = open();
    probes.attach(&target).expect("attached");
    let before = link_ids(&target);
    probes.attach(&target).expect("attached already");
    assert_eq!(link_ids(&target), before);
    drop(probes);
    let probes = open();
    assert_eq!(complete(&probes), [("eth0".to_owned(), true)]);
    probes.attach(&target).expect("attached already");
    assert_eq!(link_ids(&target), before);
    probes.detach(&target).expect("detached");
    probes.attach(&target).expect("attached anew");
    assert_ne!(link_ids(&target), before, "a new attachment has new links");
}

#[test]
fn a_pinned_map_of_another_size_is_refused_and_not_used() {
    let _host = TestHost::new();
    let target = veth("blue", "v0", "eth0", None);
    let probes = open();
    probes.attach(&target).expect("attached");
    drop(probes);
    let totals = format!("{PIN_DIR}/v{LAYOUT}/totals");
    fs::remove_file(&totals).expect("unpinned");
    let wrong = HashMap::<_, u64, [u64; 4]>::create(65_536, 1).expect("a map");
    wrong.pin(&totals).expect("pinned");
    let probes = open();
    assert_eq!(complete(&probes), [], "counting starts anew");
    probes.attach(&target).expect("attached");
    drop(probes);
    let probes = open();
    assert_eq!(complete(&probes), [("eth0".to_owned(), true)], "and is adopted as ever");
}

#[test]
fn a_restart_with_clsact_leaves_one_filter_on_each_hook() {
    let _host = TestHost::new();
    let target = veth("blue", "v0", "eth0", None);
    for _ in 0..3 {
        let probes = open_clsact();
        probes.attach(&target).expect("attached");
        assert_eq!(probes.mode(), AttachMode::Clsact);
        assert_eq!(complete(&probes), [("eth0".to_owned(), true)]);
        assert_eq!((filters("", "v0", "ingress"), filters("", "v0", "egress")), (1, 1));
    }
    // Also where the pins are lost and the filters are not.
    fs::remove_dir_all(PIN_DIR).expect("unpinned");
    let probes = open_clsact();
    assert_eq!(complete(&probes), []);
    probes.attach(&target).expect("attached");
    assert_eq!((filters("", "v0", "ingress"), filters("", "v0", "egress")), (1, 1));
    up("blue", "v0", "eth0", "198.51.100");
    talk("blue", "198.51.100", 10);
    equal(&probes, &target, "v0");
    probes.detach(&target).expect("detached");
    assert_eq!((filters("", "v0", "ingress"), filters("", "v0", "egress")), (0, 0));
}

#[test]
fn programs_and_filters_of_others_stay_and_do_not_hide_packets() {
    let _host = TestHost::new();
    let target = veth("blue", "v0", "eth0", None);
    let mut ebpf = foreign();
    let program = foreign_program(&mut ebpf);
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    program.attach_with_options("v0", TcAttachType::Ingress, first).expect("a foreign TCX program");
    aya::programs::tc::qdisc_add_clsact("v0").expect("a foreign qdisc");
    let filter =
        TcAttachOptions::Netlink(NlOptions { priority: 1, handle: TcHandle::new(0, 1), classid: None });
    program.attach_with_options("v0", TcAttachType::Ingress, filter).expect("a foreign filter");
    for open in [open as fn() -> Probes, open_clsact] {
        let probes = open();
        probes.attach(&target).expect("attached");
        assert_eq!(complete(&probes), [("eth0".to_owned(), true)]);
        if probes.mode() == AttachMode::Clsact {
            assert_eq!(filters("", "v0", "ingress"), 2);
        }
        probes.remove_everything().expect("removed");
        assert_eq!(filters("", "v0", "ingress"), 1, "the foreign filter and its qdisc stay");
        let (_, programs) = SchedClassifier::query_tcx("v0", TcAttachType::Ingress).expect("a query");
        assert_eq!(programs.len(), 1, "the foreign TCX program stays");
    }
    assert!(!Path::new(PIN_DIR).exists(), "nothing of ours stays");
}

#[test]
fn what_a_dead_interface_and_a_dead_namespace_counted_moves_once_and_is_conserved() {
    let _host = TestHost::new();
    for (open, netns, net) in
        [(open as fn() -> Probes, "blue", "198.51.100"), (open_clsact, "red", "203.0.113")]
    {
        let end = format!("v{netns}");
        let target = veth(netns, &end, "eth0", None);
        let probes = open();
        let gone_before = probes.read().gone;
        probes.attach(&target).expect("attached");
        up(netns, &end, "eth0", net);
        talk(netns, net, 50);
        equal(&probes, &target, &end);
        ip(&format!("link set {end} down"));
        let before = all(&probes);
        let counted = counts(&probes, &target);
        ip(&format!("link del {end}"));
        assert_eq!(counts(&probes, &target), counted, "a dead interface keeps its count until it is moved");
        assert_eq!(complete(&probes), [("eth0".to_owned(), false)]);
        let live = BTreeSet::from([target.cookie]);
        for _ in 0..2 {
            probes.retire_dead(&|_| false, &live).expect("retired");
            assert_eq!(probes.read().interfaces.len(), 0);
            assert_eq!(retired(&probes, target.cookie), counted);
            assert_eq!(all(&probes), before);
        }
        for _ in 0..2 {
            probes.retire_dead(&|_| false, &BTreeSet::new()).expect("retired");
            assert_eq!(probes.read().retired, []);
            assert_eq!(probes.read().gone, ledger::sum(&gone_before, &counted));
        }
        drop(probes);
        let probes = self::open();
        assert_eq!(all(&probes), before, "totals outlive the agent");
        assert!(
            !pins()
                .iter()
                .any(|pin| pin.parent().is_some_and(|dir| dir.ends_with("links") || dir.ends_with("chunks")))
        );
    }
}

#[test]
fn an_interface_that_died_while_the_agent_was_down_is_in_the_totals() {
    let _host = TestHost::new();
    let target = veth("blue", "v0", "eth0", None);
    let probes = open();
    probes.attach(&target).expect("attached");
    up("blue", "v0", "eth0", "198.51.100");
    talk("blue", "198.51.100", 5);
    drop(probes);
    talk("blue", "198.51.100", 20);
    ip("link set v0 down");
    let last = kernel("", "v0");
    ip("link del v0");
    let probes = open();
    assert_eq!(probes.read().interfaces.len(), 0);
    assert_eq!(ours(&retired(&probes, target.cookie)), last);
}

#[test]
fn an_interface_index_used_again_inherits_nothing() {
    let _host = TestHost::new();
    let probes = open();
    let mut sum = [0; 4];
    for round in 0..3 {
        let target = veth("blue", "v0", "eth0", Some(7777));
        probes.attach(&target).expect("attached");
        assert_eq!(counts(&probes, &target), Counts::default(), "starts at 0 in round {round}");
        up("blue", "v0", "eth0", "198.51.100");
        talk("blue", "198.51.100", 10 * (round + 1));
        ip("link set v0 down");
        let last = kernel("", "v0");
        assert_eq!(ours(&counts(&probes, &target)), last);
        sum.iter_mut().zip(last).for_each(|(sum, last)| *sum += last);
        ip("link del v0");
    }
    assert_eq!(ours(&all(&probes)), sum);
    // Another namespace's interface in the same slot.
    let target = veth("red", "v0", "eth0", Some(7777));
    probes.attach(&target).expect("attached");
    assert_eq!(counts(&probes, &target), Counts::default());
    assert_eq!(ours(&retired(&probes, cookie("blue"))), sum);
}

#[test]
fn a_slot_is_zeroed_before_it_is_used() {
    let _host = TestHost::new();
    let neighbour = veth("blue", "v0", "eth0", Some(7777));
    let target = veth("blue", "v1", "eth1", Some(7778));
    let probes = open();
    // The neighbour keeps the chunk of 64 slots in use while the slot beside it changes hands.
    probes.attach(&neighbour).expect("attached");
    probes.attach(&target).expect("attached");
    up("blue", "v1", "eth1", "198.51.100");
    talk("blue", "198.51.100", 10);
    ip("link set v1 down");
    probes.detach(&target).expect("detached");
    probes.attach(&target).expect("attached");
    assert_eq!(counts(&probes, &target), Counts::default());
    assert_eq!(ours(&all(&probes)), kernel("", "v1"));
}

#[test]
fn one_of_two_programs_detached_by_somebody_comes_back_and_counts_on() {
    let _host = TestHost::new();
    let target = veth("blue", "v0", "eth0", None);
    let probes = open();
    probes.attach(&target).expect("attached");
    up("blue", "v0", "eth0", "198.51.100");
    talk("blue", "198.51.100", 10);
    equal(&probes, &target, "v0");
    let before = counts(&probes, &target);
    fs::remove_file(format!("{PIN_DIR}/v{LAYOUT}/links/{}-egress", target.ifindex())).expect("unpinned");
    assert_eq!(complete(&probes), [("eth0".to_owned(), false)]);
    probes.attach(&target).expect("attached again");
    assert_eq!(complete(&probes), [("eth0".to_owned(), true)]);
    let after = counts(&probes, &target);
    let [was, is] = [ours(&before), ours(&after)];
    assert!(is.iter().zip(was).all(|(is, was)| *is >= was), "{was:?} fell to {is:?}");
    talk("blue", "198.51.100", 10);
    assert!(ours(&counts(&probes, &target))[2] >= is[2] + 10);
}

#[test]
fn interfaces_with_one_index_in_two_namespaces_are_counted_apart() {
    let _host = TestHost::new();
    for open in [open as fn() -> Probes, open_clsact] {
        ip("netns add blue");
        ip("netns add red");
        ip("link add eth0 index 9 netns blue type veth peer name eth0 index 9 netns red");
        let target = |netns: &str| Target {
            cookie: cookie(netns),
            netns: netns.to_owned(),
            interface: "eth0".to_owned(),
            side: Side::Inside { ifindex: 9 },
        };
        let mut probes = open();
        for netns in ["blue", "red"] {
            probes.attach(&target(netns)).expect("attached");
            let host = if netns == "blue" { 1 } else { 2 };
            // What is sent while the peer is still down would be counted, and by the kernel as dropped.
            inside(netns, || fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("written"));
            ip(&format!("-n {netns} addr add 198.51.100.{host}/24 dev eth0"));
            ip(&format!("-n {netns} link set eth0 up"));
        }
        ["blue", "red"].iter().for_each(|netns| running(netns, "eth0"));
        let send = |probes: &Probes| {
            inside("blue", || {
                let socket = UdpSocket::bind("198.51.100.1:0").expect("a socket");
                (0..30).for_each(|_| drop(socket.send_to(&[0; 10], "198.51.100.2:9")));
            });
            for netns in ["blue", "red"] {
                let until = Instant::now() + Duration::from_secs(10);
                loop {
                    let [rx, rx_bytes, tx, tx_bytes] = kernel(netns, "eth0");
                    let found = ours(&counts(probes, &target(netns)));
                    if [rx, rx_bytes, tx, tx_bytes] == kernel(netns, "eth0") {
                        assert_eq!(found, [tx, tx_bytes, rx, rx_bytes], "{netns}");
                        break;
                    }
                    assert!(Instant::now() < until, "traffic never paused");
                }
            }
        };
        send(&probes);
        assert_eq!(complete(&probes).iter().filter(|(_, complete)| *complete).count(), 2);
        drop(probes);
        probes = open();
        assert_eq!(complete(&probes).iter().filter(|(_, complete)| *complete).count(), 2);
        send(&probes);
        ip("-n blue link set eth0 down");
        ip("-n red link set eth0 down");
        let before = all(&probes);
        probes.detach(&target("blue")).expect("detached");
        probes.detach(&target("red")).expect("detached");
        assert_eq!(all(&probes), before);
        ip("netns del blue");
        ip("netns del red");
        probes.remove_everything().expect("removed");
    }
}

#[test]
fn an_index_beyond_the_chunks_is_counted_by_a_program_of_its_own() {
    let _host = TestHost::new();
    let target = veth("blue", "v0", "eth0", Some(monitor_ebpf::CHUNKS * monitor_ebpf::CHUNK_SLOTS + 5));
    let probes = open();
    probes.attach(&target).expect("attached");
    up("blue", "v0", "eth0", "198.51.100");
    talk("blue", "198.51.100", 10);
    equal(&probes, &target, "v0");
    drop(probes);
    let probes = open();
    assert_eq!(complete(&probes), [("eth0".to_owned(), true)]);
    talk("blue", "198.51.100", 10);
    equal(&probes, &target, "v0");
}

#[test]
fn without_a_bpffs_it_counts_from_start_and_leaves_nothing() {
    let _host = TestHost::new();
    let target = veth("blue", "v0", "eth0", None);
    up("blue", "v0", "eth0", "198.51.100");
    for attach in [AttachChoice::Auto, AttachChoice::Clsact] {
        let probes = Probes::open(options(None, attach)).expect("probes");
        assert!(!probes.pinned());
        probes.attach(&target).expect("attached");
        assert_eq!(complete(&probes), [("eth0".to_owned(), true)]);
        talk("blue", "198.51.100", 10);
        assert!(ours(&counts(&probes, &target)).iter().all(|&count| count >= 10));
        drop(probes);
        let (_, programs) = SchedClassifier::query_tcx("v0", TcAttachType::Ingress).expect("a query");
        assert_eq!((programs.len(), filters("", "v0", "ingress")), (0, 0));
    }
    assert_eq!(pins(), [] as [PathBuf; 0]);
    let error = Probes::open(options(Some("/run/netns-monitor/pins"), AttachChoice::Auto)).err();
    assert!(matches!(error, Some(ProbeError::NotBpffs { .. })), "{error:?}");
}

#[test]
fn a_renamed_interface_keeps_its_count_under_its_new_name() {
    let _host = TestHost::new();
    let target = veth("blue", "v0", "eth0", None);
    let probes = open();
    probes.attach(&target).expect("attached");
    up("blue", "v0", "eth0", "198.51.100");
    talk("blue", "198.51.100", 10);
    let before = counts(&probes, &target);
    let renamed = Target { interface: "lan0".to_owned(), ..target.clone() };
    probes.rename(&renamed).expect("renamed");
    drop(probes);
    let probes = open();
    assert_eq!(complete(&probes), [("lan0".to_owned(), true)]);
    let after = counts(&probes, &renamed);
    assert!(ours(&after)[0] >= ours(&before)[0]);
}

#[test]
fn a_host_end_moved_to_another_namespace_is_no_longer_attached() {
    let _host = TestHost::new();
    let target = veth("blue", "v0", "eth0", None);
    let probes = open();
    probes.attach(&target).expect("attached");
    ip("netns add red");
    ip("link set v0 netns red");
    assert_eq!(complete(&probes), [("eth0".to_owned(), false)], "the link follows the device, and says so");
    probes.retire_dead(&|_| false, &BTreeSet::from([target.cookie])).expect("retired");
    let left =
        inside("red", || SchedClassifier::query_tcx("v0", TcAttachType::Ingress).expect("a query").1.len());
    assert_eq!(left, 0, "no program of ours stays behind");
}

#[test]
fn another_layout_is_carried_over_once_under_a_flood() {
    let _host = TestHost::new();
    for (open, netns, net) in
        [(open as fn() -> Probes, "blue", "198.51.100"), (open_clsact, "red", "203.0.113")]
    {
        let end = format!("v{netns}");
        let target = veth(netns, &end, "eth0", None);
        let dead = veth(netns, &format!("d{netns}"), "eth9", None);
        let mut probes = open();
        probes.attach(&target).expect("attached");
        probes.attach(&dead).expect("attached");
        up(netns, &end, "eth0", net);
        ip(&format!("link del d{netns}"));
        let flood = Flood::start(netns, net);
        let mut last = [0; 4];
        for layout in 100..105 {
            drop(probes);
            fs::rename(format!("{PIN_DIR}/v{LAYOUT}"), format!("{PIN_DIR}/v{layout}"))
                .expect("another layout");
            probes = open();
            assert!(!Path::new(&format!("{PIN_DIR}/v{layout}")).exists());
            assert_eq!(complete(&probes), [("eth0".to_owned(), true)]);
            let now = ours(&counts(&probes, &target));
            assert!(now.iter().zip(last).all(|(now, last)| *now >= last), "{last:?} fell to {now:?}");
            last = now;
        }
        flood.stop();
        equal(&probes, &target, &end);
        ip(&format!("link del {end}"));
        probes.retire_dead(&|_| false, &BTreeSet::new()).expect("retired");
    }
}

#[test]
fn a_thousand_interfaces_are_adopted_in_under_two_seconds() {
    let _host = TestHost::new();
    const PAIRS: u32 = 1000;
    ip("netns add blue");
    let links = (0..PAIRS).map(|i| format!("link add v{i} type veth peer name e{i} netns blue\n"));
    fs::write("/run/links", links.collect::<String>()).expect("a batch");
    ip("-batch /run/links");
    let cookie = cookie("blue");
    let all: serde_json::Value = serde_json::from_str(&ip("-j link show type veth")).expect("JSON");
    let probes = open();
    let target = |link: &serde_json::Value| Target {
        cookie,
        netns: "blue".to_owned(),
        interface: link["ifname"].as_str().expect("a name").to_owned(),
        side: Side::HostEnd { ifindex: link["ifindex"].as_u64().expect("an index") as u32 },
    };
    let links = all.as_array().expect("a list").iter();
    links.for_each(|link| probes.attach(&target(link)).expect("attached"));
    drop(probes);
    let start = Instant::now();
    let probes = open();
    let took = start.elapsed();
    assert_eq!(complete(&probes).iter().filter(|(_, complete)| *complete).count(), PAIRS as usize);
    let descriptors = fs::read_dir("/proc/self/fd").expect("a list").count();
    println!("adopted {PAIRS} in {took:?}, {descriptors} file descriptors");
    assert!(descriptors < 200, "{descriptors} file descriptors");
}

/// A pinned map of records as plain numbers.
fn records<const N: usize>(name: &str) -> HashMap<MapData, u64, [u64; N]> {
    let map = MapData::from_pin(format!("{PIN_DIR}/v{LAYOUT}/{name}")).expect("a pinned map");
    Map::from_map_data(map).and_then(HashMap::try_from).expect("a map of records")
}

#[test]
fn a_move_of_counts_survives_a_crash_after_each_write() {
    let _host = TestHost::new();
    let target = veth("blue", "v0", "eth0", None);
    let slot = u64::from(target.ifindex());
    let probes = open();
    probes.attach(&target).expect("attached");
    up("blue", "v0", "eth0", "198.51.100");
    talk("blue", "198.51.100", 20);
    ip("link set v0 down");
    let last = kernel("", "v0");
    let record: [u64; 168] = records("slots").get(&slot, 0).expect("a slot");
    ip("link del v0");
    probes.detach(&target).expect("moved");
    assert_eq!(ours(&retired(&probes, target.cookie)), last);
    drop(probes);
    let total: [u64; 160] = records("totals").get(&target.cookie.0, 0).expect("a total");
    // The journal's record: total, account, source, kind of source and layout, name.
    let mut journal = [0; 163];
    journal[..128].copy_from_slice(&total[..128]);
    journal[128..131].copy_from_slice(&[target.cookie.0, slot, 1]);
    journal[131..].copy_from_slice(&total[128..]);
    // After the journal, the total, and the slot were written or deleted.
    for writes in 1..=3 {
        let (mut slots, mut totals) = (records::<168>("slots"), records::<160>("totals"));
        totals.remove(&target.cookie.0).expect("removed");
        if writes >= 2 {
            totals.insert(target.cookie.0, total, 0).expect("written");
        }
        if writes < 3 {
            slots.insert(slot, record, 0).expect("written");
        }
        let map = MapData::from_pin(format!("{PIN_DIR}/v{LAYOUT}/journal")).expect("a pinned map");
        let mut entries: HashMap<MapData, u32, [u64; 163]> =
            Map::from_map_data(map).and_then(HashMap::try_from).expect("a map of records");
        entries.insert(0, journal, 0).expect("written");
        let probes = open();
        assert_eq!(probes.read().interfaces.len(), 0, "after {writes} writes");
        assert_eq!(ours(&all(&probes)), last, "after {writes} writes");
        assert!(entries.get(&0, 0).is_err(), "the journal is empty afterwards");
    }
}

#[test]
fn a_failed_attachment_leaves_nothing() {
    let _host = TestHost::new();
    let target = veth("blue", "v0", "eth0", None);
    let missing = Target { side: Side::HostEnd { ifindex: 4000 }, ..target.clone() };
    let probes = open();
    let before = pins();
    let error = probes.attach(&missing).expect_err("no such interface");
    assert!(matches!(error, ProbeError::Gone { .. }), "{error}");
    drop(probes);
    // An ingress qdisc stands where clsact would, and has no egress.
    run("tc", "qdisc add dev v0 ingress");
    let probes = open_clsact();
    let error = probes.attach(&target).expect_err("no egress");
    assert!(error.to_string().contains("tc qdisc del dev v0 ingress"), "{error}");
    assert_eq!(filters("", "v0", "ingress"), 0, "not half attached either");
    assert!(run("tc", "qdisc show dev v0").contains("ingress"), "the foreign qdisc stays");
    assert_eq!((probes.read().interfaces.len(), pins()), (0, before));
    run("tc", "qdisc del dev v0 ingress");
    probes.attach(&target).expect("attached");
    assert_eq!(probes.read().interfaces.len(), 1);
}

#[test]
fn reading_does_not_wait_for_an_attachment_in_progress() {
    let _host = TestHost::new();
    ip("netns add blue");
    ip("link add eth0 netns blue type veth peer name v0");
    let (entered, when_entered) = mpsc::channel();
    let (go_on, when_to_go_on) = mpsc::channel();
    let gate = Mutex::new((entered, when_to_go_on));
    let mut options = options(Some(PIN_DIR), AttachChoice::Auto);
    options.enter = Box::new(move |target, act| {
        let gate = gate.lock().expect("no panic");
        gate.0.send(()).expect("somebody listens");
        gate.1.recv_timeout(Duration::from_secs(10)).map_err(|_late| "the reader waited")?;
        inside(&target.netns, act);
        Ok(())
    });
    let probes = Probes::open(options).expect("probes");
    let index = link("blue", "eth0")["ifindex"].as_u64().expect("an index") as u32;
    let target = Target { side: Side::Inside { ifindex: index }, ..host_target("blue", "v0", "eth0") };
    thread::scope(|scope| {
        let attaching = scope.spawn(|| probes.attach(&target));
        when_entered.recv_timeout(Duration::from_secs(10)).expect("attaching");
        assert_eq!(probes.read().interfaces.len(), 0, "read while attaching");
        go_on.send(()).expect("attaching");
        attaching.join().expect("no panic").expect("attached");
    });
    assert_eq!(probes.read().interfaces.len(), 1);
}

#[test]
fn without_privileges_the_error_says_which_are_missing() {
    let _host = TestHost::new();
    // SAFETY: the raw call changes this thread only, which then ends.
    let dropped = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
    assert_eq!(dropped, 0);
    let error = Probes::open(options(None, AttachChoice::Auto)).err().expect("refused");
    assert!(matches!(error, ProbeError::Privilege { .. }), "{error}");
    assert!(error.to_string().contains("CAP_BPF and CAP_NET_ADMIN"), "{error}");
}

#[test]
fn only_root_may_look_at_the_pins() {
    let _host = TestHost::new();
    let probes = open();
    let target = veth("blue", "v0", "eth0", None);
    probes.attach(&target).expect("attached");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(Path::new(PIN_DIR)), 0o700);
    pins().iter().for_each(|pin| assert_eq!(mode(pin), 0o600, "{}", pin.display()));
}
