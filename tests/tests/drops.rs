//! Packets that the kernel drops are counted by namespace and by its own reason, to the packet.

use std::{collections::BTreeMap, net::UdpSocket};

use monitor_tests::{
    agent::{Agent, run_well},
    exposition::Metrics,
    host::{TestHost, inside, ip, run},
    oracle::{link, protocol_counters},
    poll::{SOON, until, until_equal},
    raw_socket::{RawSocket, VnetHeader},
    scene::Scene,
};

fn drops(metrics: &Metrics, netns: &str, reason: &str) -> f64 {
    metrics.value("netns_packet_drops_total", &[("netns", netns), ("reason", reason)]).unwrap_or_default()
}

/// Sends datagrams from `blue` to a port of `red`.
fn send(count: usize, port: u16) {
    inside("blue", || {
        let socket = UdpSocket::bind("198.51.100.2:0").expect("a socket");
        for _ in 0..count {
            // An answer that nobody is there is told to the next call.
            while socket.send_to(b"x", ("198.51.100.3", port)).is_err() {}
        }
    });
}

#[test]
fn each_drop_is_counted_in_its_namespace_with_its_reason_and_kept_across_a_kill() {
    let mut scene = Scene::two(&[]);
    let before = scene.settle();
    send(7, 9);
    until_equal(SOON, "seven for want of a socket", || {
        (drops(&scene.agent.metrics(), "red", "NO_SOCKET") - drops(&before, "red", "NO_SOCKET"), 7.0)
    });
    assert_eq!(drops(&scene.agent.metrics(), "blue", "NO_SOCKET"), drops(&before, "blue", "NO_SOCKET"));

    run("ip", "netns exec red nft add table inet t");
    run("ip", "netns exec red nft add chain inet t input { type filter hook input priority 0 ; }");
    run("ip", "netns exec red nft add rule inet t input udp dport 10 drop");
    send(5, 10);
    until_equal(SOON, "five by the firewall", || {
        (drops(&scene.agent.metrics(), "red", "NETFILTER_DROP"), 5.0)
    });
    assert_eq!(drops(&scene.agent.metrics(), "blue", "NETFILTER_DROP"), 0.0);

    let why = run_well(&["why", "red", "--seconds", "0"]).stdout;
    assert!(why.contains("NETFILTER_DROP") && why.contains("NO_SOCKET"), "{why}");

    scene.agent.kill9();
    send(3, 10);
    scene.agent.restart();
    until_equal(SOON, "also what was dropped while no agent ran", || {
        (drops(&scene.agent.metrics(), "red", "NETFILTER_DROP"), 8.0)
    });
}

#[test]
fn what_a_namespace_dropped_that_is_gone_stays_in_the_sum() {
    let _host = TestHost::quiet();
    let agent = Agent::start("", &[]);
    ip("netns add red");
    ip("-n red link set lo up");
    until(SOON, "it is watched", || {
        let metrics = agent.metrics();
        (metrics.value("netns_network_namespaces", &[]) == Some(1.0)).then_some(())
    });
    inside("red", || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for _ in 0..4 {
            while socket.send_to(b"x", "127.0.0.1:9").is_err() {}
        }
    });
    until_equal(SOON, "four for want of a socket", || (drops(&agent.metrics(), "red", "NO_SOCKET"), 4.0));
    ip("netns delete red");
    until_equal(SOON, "they are those of a namespace that is gone", || {
        let metrics = agent.metrics();
        ([drops(&metrics, "red", "NO_SOCKET"), drops(&metrics, "~gone", "NO_SOCKET")], [0.0, 4.0])
    });
}

/// The MAC address of `eth0` of a namespace.
fn mac(netns: &str) -> [u8; 6] {
    let shown = link(Some(netns), "eth0");
    let text = shown["address"].as_str().expect("a MAC address").to_owned();
    let bytes: Vec<u8> = text.split(':').map(|part| u8::from_str_radix(part, 16).expect("hex")).collect();
    bytes.try_into().expect("six bytes")
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!(folded + (folded >> 16)) as u16).to_be_bytes()
}

/// A whole IPv4 packet to red.
fn ipv4(source: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("a short one").to_be_bytes();
    let mut packet = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0];
    packet.extend(source);
    packet.extend([198, 51, 100, 3]);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum);
    packet.extend(payload);
    packet
}

fn frame(to: [u8; 6], from: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from[..], &ethertype.to_be_bytes()[..], payload].concat()
}

const BLUE: [u8; 4] = [198, 51, 100, 2];

#[test]
fn each_reason_that_frames_can_give_is_counted_by_its_name() {
    let scene = Scene::two(&[]);
    let in_red = |command: &str| run("ip", &format!("netns exec red {command}"));
    in_red("sysctl -q -w net.ipv4.conf.all.drop_unicast_in_l2_multicast=1");
    in_red("sysctl -q -w net.ipv4.conf.eth0.drop_unicast_in_l2_multicast=1");
    in_red("sysctl -q -w net.ipv4.conf.eth0.rp_filter=1");
    // Known there, and not by this interface.
    ip("-n red route add 192.0.2.0/24 dev lo");
    let (red, blue) = (mac("red"), mac("blue"));
    let (nobody, all) = ([2, 0, 0, 0, 0, 0x99], [0xff; 6]);
    // A wrong checksum of UDP, and of TCP.
    let udp = [0x30, 0x39, 0, 9, 0, 12, 0x12, 0x34, 1, 2, 3, 4];
    let mut tcp = [0; 20];
    tcp[..14].copy_from_slice(&[0x30, 0x39, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2]);
    let good = ipv4(BLUE, 17, &udp);
    let mut bad_sum = good.clone();
    bad_sum[10] ^= 0xff;
    let mut six = good.clone();
    six[0] = 0x65;
    // Its header says more than there is.
    let mut short = udp;
    short[5] = 40;
    let frames = [
        ("IP_CSUM", 4, frame(red, blue, 0x0800, &bad_sum)),
        ("IP_INHDR", 2, frame(red, blue, 0x0800, &six)),
        ("IP_NOPROTO", 6, frame(red, blue, 0x0800, &ipv4(BLUE, 253, &[0; 8]))),
        ("OTHERHOST", 5, frame(nobody, blue, 0x0800, &good)),
        ("UNHANDLED_PROTO", 3, frame(red, blue, 0x88b5, &[0; 46])),
        ("UDP_CSUM", 7, frame(red, blue, 0x0800, &good)),
        ("TCP_CSUM", 8, frame(red, blue, 0x0800, &ipv4(BLUE, 6, &tcp))),
        ("PKT_TOO_SMALL", 3, frame(red, blue, 0x0800, &ipv4(BLUE, 17, &short))),
        ("UNICAST_IN_L2_MULTICAST", 4, frame(all, blue, 0x0800, &good)),
        ("IP_RPFILTER", 5, frame(red, blue, 0x0800, &ipv4([192, 0, 2, 7], 17, &udp))),
    ];
    let before = scene.agent.metrics();
    inside("blue", || {
        let socket = RawSocket::open("eth0").expect("a socket");
        for (_, times, frame) in &frames {
            (0..*times).for_each(|_| socket.send(frame, VnetHeader::default()).expect("sent"));
        }
    });
    let wanted: BTreeMap<&str, f64> =
        frames.iter().map(|(reason, times, _)| (*reason, f64::from(*times))).collect();
    until_equal(SOON, "each by its reason", || {
        let now = scene.agent.metrics();
        let found =
            wanted.keys().map(|reason| (*reason, drops(&now, "red", reason) - drops(&before, "red", reason)));
        (found.collect::<BTreeMap<_, _>>(), wanted.clone())
    });
    let why = run_well(&["why", "red", "--seconds", "0"]).stdout;
    for reason in wanted.keys() {
        assert!(why.contains(reason), "{reason}: {why}");
    }
}

#[test]
fn what_sockets_neighbours_and_queues_drop_is_what_the_kernel_counts() {
    let scene = Scene::two(&[]);
    let before = scene.agent.metrics();
    let rose = |netns: &str, reason: &str| {
        drops(&scene.agent.metrics(), netns, reason) - drops(&before, netns, reason)
    };
    // A program that never reads.
    let receiver = inside("red", || UdpSocket::bind("198.51.100.3:7").expect("a socket"));
    nix::sys::socket::setsockopt(&receiver, nix::sys::socket::sockopt::RcvBuf, &4096)
        .expect("a small buffer");
    send(100, 7);
    let overflowed = || protocol_counters("red")["Udp.RcvbufErrors"] as f64;
    until(SOON, "the buffer overflows", || (overflowed() > 0.0).then_some(()));
    until_equal(SOON, "what the socket had no room for", || (rose("red", "SOCKET_RCVBUFF"), overflowed()));

    // Nobody has that address: what waits for an answer is dropped when none comes.
    inside("blue", || {
        let socket = UdpSocket::bind("198.51.100.2:0").expect("a socket");
        for _ in 0..3 {
            let _told_later = socket.send_to(b"x", "198.51.100.77:9");
        }
    });
    until_equal(SOON, "what waited for a neighbour", || (rose("blue", "NEIGH_FAILED"), 3.0));

    // A queue with room for little on a slow device.
    run("ip", "netns exec blue tc qdisc add dev eth0 root tbf rate 8kbit burst 2000 limit 3000");
    send(200, 7);
    let queue = || -> f64 {
        let shown = run("ip", "netns exec blue tc -s -j qdisc show dev eth0");
        let queues: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        queues.as_array().expect("queues").iter().filter_map(|queue| queue["drops"].as_f64()).sum()
    };
    assert!(queue() > 0.0);
    until_equal(SOON, "what the queue had no room for", || {
        let all = ["QDISC_DROP", "QDISC_OVERLIMIT"].map(|reason| rose("blue", reason));
        (all.iter().sum::<f64>(), queue())
    });
}
