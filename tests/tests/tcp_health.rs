//! What TCP meets with is counted by namespace: each test provokes a number of one thing, and that number is read.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
};

use monitor_tests::{
    agent::Agent,
    exposition::Metrics,
    host::{TestHost, inside, ip, run, sysctl_inside},
    oracle::protocol_counters,
    poll::{ONE_PASS, SOON, until, until_equal},
    scene::Scene,
};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, connect as nix_connect, setsockopt, socket, sockopt,
    },
};

const BLUE: &str = "198.51.100.2";
const RED: &str = "198.51.100.3";

/// What one namespace has, without what is zero.
type Found = BTreeMap<String, u64>;

fn found(metrics: &Metrics, netns: &str) -> Found {
    let mut found = Found::new();
    for (name, label, short) in [
        ("netns_tcp_retransmitted_segments_total", "kind", "retransmit"),
        ("netns_tcp_connect_failures_total", "reason", "failure"),
        ("netns_tcp_resets_total", "direction", "reset"),
        ("netns_tcp_connections_opened_total", "role", "opened"),
        ("netns_tcp_handshake_seconds_count", "role", "handshake"),
    ] {
        for (labels, value) in metrics.select(name, &[("netns", netns)]) {
            found.insert(format!("{short} {}", labels[label]), value as u64);
        }
    }
    found.insert("rtt".to_owned(), metrics.count("netns_tcp_rtt_seconds_count", &[("netns", netns)]));
    found.retain(|_, count| *count > 0);
    found
}

fn expected(counts: &[(&str, u64)]) -> Found {
    let counts = counts.iter().filter(|(_, count)| *count > 0);
    counts.map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// Waits until blue and red have exactly this, and nothing else.
fn until_found(agent: &Agent, what: &str, blue: &[(&str, u64)], red: &[(&str, u64)]) {
    let expected = [blue, red].map(expected);
    until_equal(SOON, what, || {
        let metrics = agent.metrics();
        (["blue", "red"].map(|netns| found(&metrics, netns)), expected.clone())
    });
}

fn listen(netns: &str, port: u16) -> TcpListener {
    inside(netns, || TcpListener::bind(("0.0.0.0", port)).expect("a listener"))
}

fn connect(netns: &str, address: &str, port: u16) -> std::io::Result<TcpStream> {
    inside(netns, || TcpStream::connect((address, port)))
}

/// A connection from blue to red: both its ends.
fn connected(listener: &TcpListener, port: u16) -> (TcpStream, TcpStream) {
    let client = connect("blue", RED, port).expect("a connection");
    (client, listener.accept().expect("its other end").0)
}

/// Closing sends a reset.
fn reset_at_close(stream: TcpStream) {
    setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).expect("SO_LINGER");
}

/// Closes one end, then the other when it has heard.
fn close_first(first: TcpStream, mut second: TcpStream) {
    drop(first);
    assert_eq!(second.read(&mut [0]).expect("the end"), 0);
}

/// A connect that is under way.
fn begin(netns: &str, port: u16) -> std::os::fd::OwnedFd {
    inside(netns, || {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
        let to = SockaddrIn::new(198, 51, 100, 3, port);
        assert_eq!(nix_connect(socket.as_raw_fd(), &to), Err(Errno::EINPROGRESS));
        socket
    })
}

/// A rule for what comes into a namespace.
fn rule(netns: &str, rule: &str) {
    run("ip", &format!("netns exec {netns} nft add table inet t"));
    let chain = "chain inet t input { type filter hook input priority 0 ; }";
    run("ip", &format!("netns exec {netns} nft add {chain}"));
    run("ip", &format!("netns exec {netns} nft add rule inet t input {rule}"));
}

#[test]
fn refused_connects_are_counted_on_both_sides_and_kept_across_a_kill() {
    let mut scene = Scene::two(&[]);
    let refused = |count: usize| {
        for _ in 0..count {
            let error = connect("blue", RED, 9).expect_err("nobody listens");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
    };
    refused(7);
    let blue = |count| [("failure refused", count), ("reset receive", count)];
    until_found(&scene.agent, "seven refused", &blue(7), &[("reset transmit", 7)]);
    scene.agent.kill9();
    refused(5);
    scene.agent.restart();
    until_found(&scene.agent, "also while no agent ran", &blue(12), &[("reset transmit", 12)]);
    let why = run_why("blue");
    assert!(why.contains("12 connects were refused"), "{why}");
    assert!(why.contains("12 resets came"), "{why}");
}

fn run_why(netns: &str) -> String {
    monitor_tests::agent::run_well(&["why", netns, "--seconds", "0"]).stdout
}

#[test]
fn a_connect_without_an_answer_is_a_timeout_and_one_given_up_is_none() {
    let scene = Scene::two(&[]);
    sysctl_inside("blue", "net/ipv4/tcp_syn_retries", "1");
    sysctl_inside("blue", "net/ipv4/tcp_syn_linear_timeouts", "0");
    rule("red", "tcp dport 9 drop");
    (0..2).for_each(|_| drop(begin("blue", 9)));
    until_found(&scene.agent, "two given up", &[("failure abandoned", 2)], &[]);
    let waiting: Vec<_> = (0..3).map(|_| begin("blue", 9)).collect();
    let blue = [("failure abandoned", 2), ("failure timeout", 3), ("retransmit syn", 3)];
    until_found(&scene.agent, "three that timed out, each after a second SYN", &blue, &[]);
    assert_eq!(protocol_counters("blue")["Tcp.RetransSegs"], 3);
    drop(waiting);
}

#[test]
fn unreachable_is_what_icmp_says_and_what_nobody_answers_for() {
    let scene = Scene::two(&[]);
    rule("red", "tcp dport 9 reject with icmpx type host-unreachable");
    for _ in 0..6 {
        let error = connect("blue", RED, 9).expect_err("rejected");
        assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
    }
    // Where the answer comes while connect() still holds the socket, the kernel keeps it for after the next SYN.
    let again = || protocol_counters("blue")["Tcp.RetransSegs"];
    let blue = |count| [("failure unreachable", count), ("retransmit syn", again())];
    until_found(&scene.agent, "six by ICMP", &blue(6), &[]);
    sysctl_inside("blue", "net/ipv4/neigh/eth0/mcast_solicit", "1");
    sysctl_inside("blue", "net/ipv4/neigh/eth0/retrans_time_ms", "50");
    for _ in 0..2 {
        let error = connect("blue", "198.51.100.99", 9).expect_err("nobody is there");
        assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
    }
    until_found(&scene.agent, "two more by ARP", &blue(8), &[]);
    // Without a route nothing begins.
    let error = connect("blue", "192.0.2.1", 9).expect_err("no route");
    assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
    connect("blue", RED, 10).expect_err("refused");
    let blue = [&blue(8)[..], &[("failure refused", 1), ("reset receive", 1)]].concat();
    until_found(&scene.agent, "no failure beside the last", &blue, &[("reset transmit", 1)]);
}

#[test]
fn a_connect_without_a_free_port_is_unsent() {
    let scene = Scene::two(&[]);
    sysctl_inside("blue", "net/ipv4/ip_local_port_range", "40000 40000");
    let listener = listen("red", 80);
    let only = connected(&listener, 80);
    for _ in 0..4 {
        let error = connect("blue", RED, 80).expect_err("no port is left");
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    }
    let opened = |role| [format!("opened {role}"), format!("handshake {role}")];
    let [client, server] = ["client", "server"].map(opened);
    let blue = [(client[0].as_str(), 1), (client[1].as_str(), 1), ("failure unsent", 4)];
    let red = [(server[0].as_str(), 1), (server[1].as_str(), 1)];
    until_found(&scene.agent, "four without a port", &blue, &red);
    drop(only);
}

#[test]
fn handshakes_and_round_trips_are_one_each_of_every_connection() {
    let scene = Scene::two(&[]);
    let listener = listen("red", 80);
    let count = 20;
    let open: Vec<_> = (0..count).map(|_| connected(&listener, 80)).collect();
    let number = count as u64;
    let blue = [("opened client", number), ("handshake client", number)];
    let red = [("opened server", number), ("handshake server", number)];
    until_found(&scene.agent, "open, and no round trip yet", &blue, &red);
    open.into_iter().for_each(|(client, server)| close_first(client, server));
    let blue = [("opened client", number), ("handshake client", number), ("rtt", number)];
    let red = [("opened server", number), ("handshake server", number), ("rtt", number)];
    until_found(&scene.agent, "closed", &blue, &red);
    let metrics = scene.agent.metrics();
    for (name, netns) in [
        ("netns_tcp_handshake_seconds_sum", "blue"),
        ("netns_tcp_handshake_seconds_sum", "red"),
        ("netns_tcp_rtt_seconds_sum", "blue"),
        ("netns_tcp_rtt_seconds_sum", "red"),
    ] {
        let sum = metrics.value(name, &[("netns", netns)]).expect(name);
        assert!(sum > 1e-6 * f64::from(count) && sum < 0.1 * f64::from(count), "{name} of {netns}: {sum} s");
    }
}

#[test]
fn both_families_are_counted() {
    let scene = Scene::two(&[]);
    sysctl_inside("red", "net/ipv6/conf/lo/disable_ipv6", "0");
    let listener = inside("red", || TcpListener::bind("[::1]:80").expect("a listener"));
    for _ in 0..2 {
        let client = connect("red", "::1", 80).expect("a connection");
        close_first(client, listener.accept().expect("its other end").0);
    }
    for _ in 0..3 {
        connect("red", "::1", 9).expect_err("nobody listens");
    }
    // Both ends of each are here.
    let red = [
        ("opened client", 2),
        ("opened server", 2),
        ("handshake client", 2),
        ("handshake server", 2),
        ("rtt", 4),
        ("failure refused", 3),
        ("reset receive", 3),
        ("reset transmit", 3),
    ];
    until_found(&scene.agent, "two connected, three refused", &[], &red);
}

/// How many of a histogram are in the bucket with this upper bound, and not in one below.
fn between(metrics: &Metrics, netns: &str, role: &str, above: &str, upto: &str) -> u64 {
    let at = |bound| {
        let labels = [("netns", netns), ("role", role), ("le", bound)];
        metrics.count("netns_tcp_handshake_seconds_bucket", &labels)
    };
    at(upto) - at(above)
}

#[test]
fn a_handshake_whose_first_segment_is_lost_takes_a_second_more() {
    let scene = Scene::two(&[]);
    let listener = listen("red", 80);
    // Lost is the first SYN, of 60 bytes, and of another connection the ACK of 52 that ends the handshake.
    rule("red", "tcp dport 80 tcp flags & (syn | ack) == syn quota 61 bytes drop");
    let first = connected(&listener, 80);
    let blue = [("opened client", 1), ("handshake client", 1), ("retransmit syn", 1)];
    let red = [("opened server", 1), ("handshake server", 1)];
    until_found(&scene.agent, "the second SYN came through", &blue, &red);
    let metrics = scene.agent.metrics();
    assert_eq!(between(&metrics, "blue", "client", "1", "2.5"), 1);
    assert_eq!(between(&metrics, "red", "server", "1", "2.5"), 0, "the twin: it saw nothing of that");

    run("ip", "netns exec red nft flush chain inet t input");
    rule("red", "tcp dport 80 tcp flags & (syn | ack) == ack quota 53 bytes drop");
    let second = connected(&listener, 80);
    let blue = [("opened client", 2), ("handshake client", 2), ("retransmit syn", 1)];
    let red = [("opened server", 2), ("handshake server", 2), ("retransmit synack", 1)];
    until_found(&scene.agent, "the second ACK came through", &blue, &red);
    let metrics = scene.agent.metrics();
    assert_eq!(between(&metrics, "red", "server", "0.5", "2.5"), 1);
    assert_eq!(between(&metrics, "blue", "client", "1", "2.5"), 1, "the twin: the one of before");
    for netns in ["blue", "red"] {
        assert_eq!(protocol_counters(netns)["Tcp.RetransSegs"], 1, "{netns}");
    }
    drop((first, second));
}

#[test]
fn segments_sent_again_are_counted_by_what_made_tcp_do_so() {
    let scene = Scene::two(&[]);
    let listener = listen("red", 80);
    let (mut client, mut server) = connected(&listener, 80);
    client.set_nodelay(true).expect("TCP_NODELAY");
    let established = [("opened client", 1), ("handshake client", 1)];
    let red = [("opened server", 1), ("handshake server", 1)];
    let blue = |more: &[(&'static str, u64)]| [&established[..], more].concat();
    // The segment of 53 bytes and the probe for it are lost: then there is a time-out.
    rule("red", "tcp dport 80 tcp flags & (psh | ack) == psh | ack quota 107 bytes drop");
    client.write_all(b"x").expect("sent");
    server.read_exact(&mut [0]).expect("the third came through");
    let retransmits = [("retransmit probe", 1), ("retransmit timeout", 1)];
    until_found(&scene.agent, "a probe and a time-out", &blue(&retransmits), &red);

    // No probe however slow this machine is, and no two writes in one segment.
    sysctl_inside("blue", "net/ipv4/tcp_early_retrans", "0");
    sysctl_inside("blue", "net/ipv4/tcp_autocorking", "0");
    // Of ten segments of 152 bytes the first is lost: the others tell.
    run("ip", "netns exec red nft flush chain inet t input");
    rule("red", "tcp dport 80 tcp flags & (psh | ack) == psh | ack quota 153 bytes drop");
    for _ in 0..10 {
        client.write_all(&[b'x'; 100]).expect("sent");
    }
    server.read_exact(&mut [0; 1000]).expect("all came through");
    let retransmits = [("retransmit probe", 1), ("retransmit timeout", 1), ("retransmit fast", 1)];
    until_found(&scene.agent, "a fast one", &blue(&retransmits), &red);
    assert_eq!(protocol_counters("blue")["Tcp.RetransSegs"], 3);
}

#[test]
fn resets_are_counted_at_who_sends_and_at_who_receives_them() {
    let scene = Scene::two(&[]);
    let listener = listen("red", 80);
    let reset = |by_client: bool| {
        let (client, server) = connected(&listener, 80);
        let (killer, mut victim) = if by_client { (client, server) } else { (server, client) };
        reset_at_close(killer);
        let error = victim.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    };
    (0..3).for_each(|_| reset(true));
    (0..5).for_each(|_| reset(false));
    let common = |role: &str| [format!("opened {role}"), format!("handshake {role}")];
    let [client, server] = ["client", "server"].map(common);
    let all = |role: &'static [String; 2], transmit, receive| {
        [
            (role[0].as_str(), 8),
            (role[1].as_str(), 8),
            ("rtt", 8),
            ("reset transmit", transmit),
            ("reset receive", receive),
        ]
    };
    let [client, server] = [client, server].map(|names| &*Box::leak(Box::new(names)));
    until_found(&scene.agent, "three and five", &all(client, 3, 5), &all(server, 5, 3));
    // A closed port answers without any socket.
    let before = scene.agent.metrics();
    connect("red", BLUE, 9).expect_err("nobody listens");
    until_equal(SOON, "one of no socket", || {
        let since = scene.agent.metrics().since(&before);
        (
            ["blue", "red"].map(|netns| found(&since, netns)),
            [expected(&[("reset transmit", 1)]), expected(&[("failure refused", 1), ("reset receive", 1)])],
        )
    });
}

/// Connections of a namespace by state, without states that none is in.
fn states(metrics: &Metrics, netns: &str) -> Found {
    let labels = [("netns", netns)];
    let some = metrics.select("netns_tcp_connections", &labels).filter(|(_, count)| *count > 0.0);
    some.map(|(labels, count)| (labels["state"].clone(), count as u64)).collect()
}

#[test]
fn connections_are_counted_in_the_state_they_are_in() {
    let scene = Scene::two(&[]);
    assert_eq!(scene.agent.metrics().select("netns_tcp_connections", &[("netns", "red")]).count(), 10);
    let listener = listen("red", 80);
    // Of the other family, on its loopback.
    sysctl_inside("red", "net/ipv6/conf/lo/disable_ipv6", "0");
    let six = inside("red", || TcpListener::bind("[::1]:80").expect("a listener"));
    let connected = |count: usize| (0..count).map(|_| connected(&listener, 80)).collect::<Vec<_>>();
    let open = connected(3);
    let half = connected(2);
    half.iter().for_each(|(client, _)| client.shutdown(std::net::Shutdown::Write).expect("half closed"));
    // Who closes first waits.
    connected(4).into_iter().for_each(|(client, server)| close_first(client, server));
    connected(5).into_iter().for_each(|(client, server)| close_first(server, client));
    rule("red", "tcp dport 9 drop");
    let asking = [begin("blue", 9), begin("blue", 9)];
    let expected = [
        expected(&[("established", 3), ("fin_wait2", 2), ("time_wait", 4), ("syn_sent", 2)]),
        expected(&[("established", 3), ("close_wait", 2), ("time_wait", 5), ("listen", 2)]),
    ];
    until_equal(ONE_PASS, "every connection in its state", || {
        let metrics = scene.agent.metrics();
        (["blue", "red"].map(|netns| states(&metrics, netns)), expected.clone())
    });
    let listed = run("ip", "netns exec red ss -Htan");
    assert_eq!(listed.lines().count(), 12, "the referee: {listed}");
    drop((open, half, asking, six));
}

#[test]
fn what_tcp_met_with_in_a_namespace_that_is_gone_stays_in_the_sum_and_nothing_keeps_it_alive() {
    let _host = TestHost::quiet();
    let mut agent = Agent::start("", &[]);
    ip("netns add red");
    ip("-n red link set lo up");
    // The host's end goes when the namespace itself does, and not before.
    ip("link add there type veth peer name here netns red");
    until(SOON, "it is watched", || {
        agent.metrics().value("netns_tcp_connections_opened_total", &[("netns", "red"), ("role", "client")])
    });
    for _ in 0..4 {
        connect("red", "127.0.0.1", 9).expect_err("nobody listens");
    }
    let four = expected(&[("failure refused", 4), ("reset receive", 4), ("reset transmit", 4)]);
    let both = |agent: &Agent| {
        let metrics = agent.metrics();
        ["red", "~gone"].map(|netns| found(&metrics, netns))
    };
    until_equal(SOON, "four refused", || (both(&agent), [four.clone(), Found::new()]));
    ip("netns delete red");
    until_equal(SOON, "they are those of a namespace that is gone", || {
        (both(&agent), [Found::new(), four.clone()])
    });
    until(SOON, "the namespace itself is gone", || {
        monitor_tests::oracle::links().iter().all(|link| link != "there").then_some(())
    });
    agent.kill9();
    agent.restart();
    assert_eq!(both(&agent), [Found::new(), four], "once, also across a kill");
    let metrics = agent.metrics();
    assert_eq!(metrics.value("netns_monitor_tcp_events_missed_total", &[]), Some(0.0));
    assert_eq!(found(&metrics, "~host").get("failure refused"), None);
}

/// What the agent said of TCP.
fn said(agent: &Agent) -> Vec<String> {
    agent.log().into_iter().filter(|line| line.contains("WARN") && line.contains("TCP")).collect()
}

/// Shows the agent a kernel with these types, and connects to nobody once.
fn with_types(types: &[u8]) -> Scene {
    let host = TestHost::quiet();
    fs::write("/run/types", types).expect("a file");
    let (file, none) = (Some("/run/types"), None::<&str>);
    mount(file, "/sys/kernel/btf/vmlinux", none, MsFlags::MS_BIND, none).expect("a bind mount");
    let agent = Agent::start("", &[]);
    TcpStream::connect("127.0.0.1:9").expect_err("nobody listens");
    Scene { agent, host }
}

#[test]
fn a_tracepoint_that_is_not_there_is_told_once_and_the_others_count() {
    let name = b"btf_trace_tcp_retransmit_synack\0";
    let mut types = fs::read("/sys/kernel/btf/vmlinux").expect("this kernel's types");
    let at = types.windows(name.len()).position(|part| part == name).expect("the name of the tracepoint");
    types[at..at + 3].copy_from_slice(b"xyz");
    let Scene { agent, host: _host } = &with_types(&types);
    until_equal(SOON, "one refused", || {
        let labels = [("netns", "~host"), ("reason", "refused")];
        (agent.metrics().count("netns_tcp_connect_failures_total", &labels), 1)
    });
    let metrics = agent.metrics();
    let of = |kind| [("netns", "~host"), ("kind", kind)];
    let again = |kind| metrics.value("netns_tcp_retransmitted_segments_total", &of(kind));
    assert_eq!((again("syn"), again("synack")), (Some(0.0), None));
    let said = said(agent);
    assert!(said.len() == 1 && said[0].contains("no tracepoint for: tcp_retransmit_synack"), "{said:?}");
}

#[test]
fn without_type_information_the_rest_works_and_the_log_says_what_is_off() {
    let Scene { agent, host: _host } = &with_types(b"none");
    let metrics = agent.metrics();
    assert_eq!(metrics.select("netns_tcp_connect_failures_total", &[]).count(), 0);
    assert_eq!(metrics.value("netns_network_namespaces", &[]), Some(0.0));
    assert_eq!(metrics.select("netns_tcp_connections", &[("netns", "~host")]).count(), 10);
    let said = said(agent);
    assert!(said.len() == 1 && said[0].contains("what TCP meets with is not counted"), "{said:?}");
}
