//! DNS by answer code and latency, as who asks and as who is asked, to the query.

use std::{
    net::{SocketAddr, UdpSocket},
    thread::{self, JoinHandle},
    time::Duration,
};

use monitor_tests::{
    exposition::Metrics,
    frames::{ethernet, ipv6},
    host::{inside, spawn_inside},
    ledger::{Class, Ledger},
    oracle::pins,
    poll::{SOON, until_equal},
    scene::Scene,
    traffic::send,
};

const SERVER: &str = "198.51.100.3:53";
const SLOW: Duration = Duration::from_millis(60);

/// What the server does with a name, by its first letter.
#[derive(Clone, Copy)]
enum Name {
    Good,
    Missing,
    Failing,
    Slow,
    Twice,
    Silent,
    Last,
}

impl Name {
    const ALL: [Self; 7] =
        [Self::Good, Self::Missing, Self::Failing, Self::Slow, Self::Twice, Self::Silent, Self::Last];

    /// Answer code, and how many answers.
    fn answer(self) -> (u8, usize) {
        match self {
            Self::Good | Self::Slow | Self::Last => (0, 1),
            Self::Missing => (3, 1),
            Self::Failing => (2, 1),
            Self::Twice => (0, 2),
            Self::Silent => (0, 0),
        }
    }
}

/// A message with one question: the name is one letter.
fn message(id: u16, flags: [u8; 2], letter: u8) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend(flags);
    bytes.extend([0, 1, 0, 0, 0, 0, 0, 0, 1, letter, 0, 0, 1, 0, 1]);
    bytes
}

fn serve() -> JoinHandle<()> {
    let socket = inside("red", || UdpSocket::bind(SERVER).expect("port 53"));
    spawn_inside("red", move || {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).expect("a query");
            assert_eq!(length, 19);
            let name = Name::ALL[usize::from(buffer[13] - b'a')];
            if matches!(name, Name::Slow) {
                thread::sleep(SLOW);
            }
            let (code, times) = name.answer();
            let id = u16::from_be_bytes([buffer[0], buffer[1]]);
            for _ in 0..times {
                socket.send_to(&message(id, [0x84, 0x80 | code], buffer[13]), from).expect("answered");
            }
            if matches!(name, Name::Last) {
                return;
            }
        }
    })
}

/// Asks for a name and waits for the answers.
fn ask(socket: &UdpSocket, id: u16, name: Name) {
    let letter = b'a' + Name::ALL.iter().position(|other| *other as u8 == name as u8).expect("a name") as u8;
    socket
        .send_to(&message(id, [0x01, 0x00], letter), SERVER.parse::<SocketAddr>().expect("it"))
        .expect("asked");
    for _ in 0..name.answer().1 {
        let (length, _) = socket.recv_from(&mut [0; 512]).expect("an answer");
        assert_eq!(length, 19);
    }
}

/// Queries, answers by code, and those that answer nothing.
fn counts(metrics: &Metrics, netns: &str, role: &str) -> [u64; 7] {
    let labels = [("netns", netns), ("role", role)];
    let code = |code| metrics.count("netns_dns_responses_total", &[&labels[..], &[("rcode", code)]].concat());
    [
        metrics.count("netns_dns_queries_total", &labels),
        code("NOERROR"),
        code("NXDOMAIN"),
        code("SERVFAIL"),
        metrics.count("netns_dns_unmatched_responses_total", &labels),
        metrics.count("netns_dns_latency_seconds_count", &labels),
        metrics.select("netns_dns_responses_total", &labels).map(|(_, value)| value as u64).sum(),
    ]
}

#[test]
fn queries_are_matched_with_their_answers_also_across_a_kill() {
    let mut scene = Scene::two(&["--collector.dns"]);
    let server = serve();
    let socket = || {
        let socket = inside("blue", || UdpSocket::bind("198.51.100.2:0").expect("a socket"));
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        socket
    };
    let one = socket();
    let mut id = 0;
    let mut some = |socket: &UdpSocket, name, times| {
        for _ in 0..times {
            id += 1;
            ask(socket, id, name);
        }
    };
    some(&one, Name::Good, 5);
    some(&one, Name::Missing, 3);
    some(&one, Name::Silent, 4);
    some(&one, Name::Failing, 2);
    let both = |expected: [u64; 7], scene: &Scene| {
        for (netns, role) in [("blue", "client"), ("red", "server")] {
            until_equal(SOON, &format!("{netns} as {role}"), || {
                (counts(&scene.agent.metrics(), netns, role), expected)
            });
        }
    };
    both([14, 5, 3, 2, 0, 10, 10], &scene);
    // The second of two answers is to nobody.
    some(&one, Name::Twice, 1);
    both([15, 6, 3, 2, 1, 11, 11], &scene);
    // The same question again is a query of its own, and one answer is to both.
    let again = socket();
    ask(&again, 1000, Name::Silent);
    ask(&again, 1000, Name::Good);
    both([17, 7, 3, 2, 1, 12, 12], &scene);

    scene.agent.kill9();
    some(&one, Name::Missing, 2);
    scene.agent.restart();
    some(&one, Name::Slow, 1);
    both([20, 8, 5, 2, 1, 15, 15], &scene);
    let metrics = scene.agent.metrics();
    let latency = |what: &str, more: &[(&str, &str)]| {
        let labels = [&[("netns", "blue"), ("role", "client")][..], more].concat();
        metrics.value(&format!("netns_dns_latency_seconds_{what}"), &labels).expect("a series")
    };
    assert!(latency("sum", &[]) >= SLOW.as_secs_f64(), "{}", latency("sum", &[]));
    assert!(latency("bucket", &[("le", "0.05")]) <= 14.0, "the slow one is above");
    // Who only asks is no server, and who only answers asks nothing.
    assert_eq!(counts(&metrics, "red", "client"), [0; 7]);
    assert_eq!(
        metrics.select("netns_dns_queries_total", &[("netns", "blue"), ("role", "server")]).count(),
        0
    );

    // Over IPv6, and what is no DNS.
    let datagram = |from: u16, to: u16, payload: &[u8]| {
        let mut bytes = [from.to_be_bytes(), to.to_be_bytes()].concat();
        bytes.extend(((8 + payload.len()) as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        bytes
    };
    let frame = |datagram: &[u8], swapped: bool| {
        let mut packet = ipv6(17, datagram);
        if swapped {
            packet[8..40].rotate_left(16);
        }
        vec![(Class("ipv6", "udp"), ethernet(0x86dd, &packet))]
    };
    let query = datagram(4000, 53, &message(7, [0x01, 0x00], b'a'));
    let response = datagram(53, 4000, &message(7, [0x84, 0x83], b'a'));
    let short = datagram(4000, 53, &[0; 11]);
    let elsewhere = datagram(4000, 54, &message(7, [0x01, 0x00], b'a'));
    inside("blue", || {
        for datagram in [&query, &short, &elsewhere] {
            send("eth0", &frame(datagram, false), 1, &mut Ledger::new());
        }
    });
    both([21, 8, 5, 2, 1, 15, 15], &scene);
    inside("red", || send("eth0", &frame(&response, true), 1, &mut Ledger::new()));
    both([21, 8, 6, 2, 1, 16, 16], &scene);
    some(&one, Name::Last, 1);
    server.join().expect("the server");
}

#[test]
fn without_the_switch_nothing_is_there() {
    let scene = Scene::two(&[]);
    assert!(!pins().iter().any(|pin| pin.contains("/dns-v") || pin.contains("/flows-v")), "{:?}", pins());
    let metrics = scene.agent.metrics();
    assert_eq!(metrics.select("netns_dns_queries_total", &[]).count(), 0);
}
