//! The programs on frames of our own: classification, sizes, flags and wire units, to the byte.
//!
//! No traffic between namespaces here, and no agent: only what a program makes of one skb.

use std::{process::Command, sync::Mutex};

use aya::programs::{LinkOrder, TcAttachType, tc::TcAttachOptions};
use aya_log::EbpfLogger;
use monitor_ebpf::{
    ClassCounters, Counters, DirectionCounters, EGRESS, INGRESS, SIZE_BOUNDS,
    class::{ARP, ICMP, IPV4, IPV6, OTHER, SCTP, TCP, UDP, UNKNOWN},
    flag,
};
use monitor_tests::{
    frames::{arp, authentication, ethernet, extension, fragment, ipv4, ipv4_with, ipv6, tag, tcp, udp},
    host::{TestHost, ip},
    poll::{SOON, until},
    random::Random,
    raw_socket::{RawSocket, VnetHeader},
    reference::{bucket, classify, count},
    test_run::{Loaded, Skb},
};

const PLAIN: Skb = Skb { ifindex: 1, gso_size: 0, gso_segs: 0 };
/// `TC_ACT_UNSPEC`, which is `TCX_NEXT`: the packet goes on to whoever comes next.
const NEXT: i32 = -1;
const ACK: u8 = 0x10;

#[test]
fn every_frame_is_in_exactly_one_class_to_the_byte_at_both_hooks_of_both_objects() {
    for mut object in [Loaded::shared(1).unwrap(), Loaded::inside().unwrap()] {
        for (name, class, frame) in classes() {
            for hook in [INGRESS, EGRESS] {
                let run = object.run(hook, &frame, PLAIN, 1).unwrap();
                assert_eq!(run.verdict, NEXT, "{name}");
                assert_eq!(run.frame, frame, "{name}: the frame changed");
                let mut expected = DirectionCounters::default();
                expected.classes[class] =
                    ClassCounters { skbs: 1, skb_bytes: frame.len() as u64, ..ClassCounters::default() };
                expected.sizes[bucket(frame.len())] = 1;
                assert_eq!(object.take().unwrap(), at(hook, expected), "{name}, {hook}");
            }
        }
    }
}

#[test]
fn the_reference_agrees_with_the_classes_written_by_hand() {
    for (name, class, frame) in classes() {
        assert_eq!(classify(&frame).class, class, "{name}");
    }
}

/// What a frame is, its class, and the frame.
fn classes() -> Vec<(&'static str, usize, Vec<u8>)> {
    let v4 = |payload: Vec<u8>| ethernet(0x0800, &payload);
    let v6 = |payload: Vec<u8>| ethernet(0x86dd, &payload);
    let ack = || tcp(ACK, 0, b"payload");
    let dns = || udp(53, b"payload");
    let mut wrong_version = ipv4(6, &ack());
    wrong_version[0] = 0x65;
    let mut short_ihl = ipv4(6, &ack());
    short_ihl[0] = 0x44;
    let mut long_ihl = ipv4(6, &[0; 12]);
    long_ihl[0] = 0x4f;
    let mut version_four = ipv6(6, &ack());
    version_four[0] = 0x40;
    vec![
        ("IPv4 TCP", IPV4 + TCP, v4(ipv4(6, &ack()))),
        ("IPv4 UDP", IPV4 + UDP, v4(ipv4(17, &dns()))),
        ("IPv4 UDP without payload", IPV4 + UDP, v4(ipv4(17, &udp(9, &[])))),
        ("IPv4 ICMP", IPV4 + ICMP, v4(ipv4(1, &[8, 0, 0, 0, 0, 1, 0, 1]))),
        ("IPv4 SCTP", IPV4 + SCTP, v4(ipv4(132, &[0; 12]))),
        ("IPv4 GRE", IPV4 + OTHER, v4(ipv4(47, &[0; 8]))),
        ("IPv4 without payload", IPV4 + OTHER, v4(ipv4(253, &[]))),
        ("ICMPv6 in IPv4", IPV4 + OTHER, v4(ipv4(58, &[0; 8]))),
        ("an IPv6 fragment header in IPv4", IPV4 + OTHER, v4(ipv4(44, &fragment(6, 0, &ack())))),
        ("IPv4 with options, TCP", IPV4 + TCP, v4(ipv4_with(6, 10, 0, &ack()))),
        ("IPv4 with options, UDP", IPV4 + UDP, v4(ipv4_with(17, 1, 0, &dns()))),
        ("IPv4 first fragment of TCP", IPV4 + TCP, v4(ipv4_with(6, 0, 0x2000, &ack()))),
        ("IPv4 later fragment of TCP", IPV4 + TCP, v4(ipv4_with(6, 0, 0x20b9, &[0x12; 64]))),
        ("IPv4 last fragment of UDP", IPV4 + UDP, v4(ipv4_with(17, 0, 0x00b9, &[0x12; 5]))),
        ("IPv4 TCP header cut short", IPV4 + TCP, v4(ipv4(6, &ack()[..19]))),
        ("IPv4 with IHL 4", UNKNOWN, v4(short_ihl)),
        ("IPv4 with a header longer than the frame", UNKNOWN, v4(long_ihl)),
        ("IPv4 EtherType, version 6", UNKNOWN, v4(wrong_version)),
        ("IPv6 TCP", IPV6 + TCP, v6(ipv6(6, &ack()))),
        ("IPv6 UDP", IPV6 + UDP, v6(ipv6(17, &dns()))),
        ("ICMPv6", IPV6 + ICMP, v6(ipv6(58, &[128, 0, 0, 0, 0, 1, 0, 1]))),
        ("IPv6 SCTP", IPV6 + SCTP, v6(ipv6(132, &[0; 12]))),
        ("IPv6 ESP", IPV6 + OTHER, v6(ipv6(50, &[0; 16]))),
        ("ICMP in IPv6", IPV6 + OTHER, v6(ipv6(1, &[8, 0, 0, 0]))),
        ("IPv6 no next header", IPV6 + OTHER, v6(ipv6(59, &[]))),
        ("IPv6 TCP header cut short", IPV6 + TCP, v6(ipv6(6, &ack()[..19]))),
        ("IPv6 EtherType, version 4", UNKNOWN, v6(version_four)),
        ("hop-by-hop, TCP", IPV6 + TCP, v6(ipv6(0, &extension(6, 0, &ack())))),
        ("routing, UDP", IPV6 + UDP, v6(ipv6(43, &extension(17, 2, &dns())))),
        ("destination options, ICMPv6", IPV6 + ICMP, v6(ipv6(60, &extension(58, 1, &[0; 8])))),
        ("AH, SCTP", IPV6 + SCTP, v6(ipv6(51, &authentication(132, 3, &[0; 12])))),
        (
            "all kinds, TCP",
            IPV6 + TCP,
            v6(ipv6(
                0,
                &extension(
                    60,
                    0,
                    &extension(43, 0, &fragment(51, 0, &authentication(60, 3, &extension(6, 3, &ack())))),
                ),
            )),
        ),
        ("seven extension headers", IPV6 + OTHER, v6(ipv6(60, &extensions(7, 6, &ack())))),
        ("six extension headers", IPV6 + TCP, v6(ipv6(60, &extensions(6, 6, &ack())))),
        ("six extension headers, no next", IPV6 + OTHER, v6(ipv6(60, &extensions(6, 59, &[])))),
        ("first fragment of UDP", IPV6 + UDP, v6(ipv6(44, &fragment(17, 0, &dns())))),
        ("later fragment of UDP", IPV6 + UDP, v6(ipv6(44, &fragment(17, 181, &[0; 3])))),
        ("later fragment of TCP", IPV6 + TCP, v6(ipv6(44, &fragment(6, 181, &[0x12; 64])))),
        (
            "later fragment, chain goes on",
            IPV6 + OTHER,
            v6(ipv6(44, &fragment(60, 181, &extension(6, 0, &ack())))),
        ),
        ("fragment header cut short", IPV6 + OTHER, v6(ipv6(44, &fragment(6, 0, &[])[..7]))),
        ("extension header longer than the frame", IPV6 + OTHER, v6(ipv6(0, &extension(6, 9, &[])[..40]))),
        ("extension header missing", IPV6 + OTHER, v6(ipv6(43, &[]))),
        ("extension header, then nothing", IPV6 + TCP, v6(ipv6(0, &extension(6, 0, &[])))),
        ("ARP", ARP, ethernet(0x0806, &arp())),
        ("an ARP header cut short", ARP, ethernet(0x0806, &[])),
        ("LLDP", UNKNOWN, ethernet(0x88cc, &[0; 46])),
        ("802.3 length and LLC", UNKNOWN, ethernet(38, &[0x42; 38])),
        ("an Ethernet header alone", UNKNOWN, ethernet(0x1234, &[])),
        ("VLAN, IPv4 TCP", IPV4 + TCP, ethernet(0x8100, &tag(0x0800, &ipv4(6, &ack())))),
        (
            "VLAN, IPv4 with options, UDP",
            IPV4 + UDP,
            ethernet(0x8100, &tag(0x0800, &ipv4_with(17, 3, 0, &dns()))),
        ),
        ("VLAN, IPv6 UDP", IPV6 + UDP, ethernet(0x8100, &tag(0x86dd, &ipv6(17, &dns())))),
        ("VLAN, ARP", ARP, ethernet(0x8100, &tag(0x0806, &arp()))),
        ("VLAN, IPv4 cut short", UNKNOWN, ethernet(0x8100, &tag(0x0800, &ipv4(6, &[])[..19]))),
        ("VLAN, IPv6 cut short", UNKNOWN, ethernet(0x8100, &tag(0x86dd, &ipv6(6, &[])[..39]))),
        ("half a VLAN tag", UNKNOWN, ethernet(0x8100, &[0, 42, 8])),
        ("QinQ, IPv4 TCP", IPV4 + TCP, ethernet(0x88a8, &tag(0x8100, &tag(0x0800, &ipv4(6, &ack()))))),
        ("QinQ, ICMPv6", IPV6 + ICMP, ethernet(0x88a8, &tag(0x8100, &tag(0x86dd, &ipv6(58, &[0; 8]))))),
        ("two VLAN tags, ARP", ARP, ethernet(0x8100, &tag(0x8100, &tag(0x0806, &arp())))),
        ("half a second tag", UNKNOWN, ethernet(0x88a8, &tag(0x8100, &[0]))),
        ("three tags", UNKNOWN, ethernet(0x88a8, &tag(0x8100, &tag(0x8100, &tag(0x0800, &ipv4(6, &ack())))))),
    ]
}

/// `count` destination option headers, the last of which names `next`.
fn extensions(count: usize, next: u8, payload: &[u8]) -> Vec<u8> {
    (0..count).fold(payload.to_vec(), |inner, n| extension(if n == 0 { next } else { 60 }, 0, &inner))
}

#[test]
fn an_interface_without_a_slot_is_not_counted_and_its_packets_pass() {
    let mut object = Loaded::shared(64).unwrap();
    let frame = ethernet(0x0800, &ipv4(6, &tcp(ACK, 0, &[])));
    let run = object.run(INGRESS, &frame, PLAIN, 1).unwrap();
    assert_eq!(run.verdict, NEXT);
    assert_eq!(run.frame, frame);
    assert_eq!(object.take().unwrap(), Counters::default());
}

#[test]
fn each_interface_counts_into_the_slot_of_its_own_ifindex() {
    let _host = TestHost::new();
    ip("link add big index 7777 type veth peer name small index 7776");
    let mut object = Loaded::shared(7777).unwrap();
    let frame = ethernet(0x0806, &arp());
    // The neighbour in the same chunk, and a place in a chunk that does not exist.
    for ifindex in [7776, 1] {
        object.run(INGRESS, &frame, Skb { ifindex, ..PLAIN }, 1).unwrap();
        assert_eq!(object.take().unwrap(), Counters::default(), "ifindex {ifindex}");
    }
    object.run(INGRESS, &frame, Skb { ifindex: 7777, ..PLAIN }, 1).unwrap();
    assert_eq!(object.take().unwrap().ingress.classes[ARP].skbs, 1);
}

#[test]
fn counters_add_up_over_packets() {
    let mut object = Loaded::shared(1).unwrap();
    let frame = ethernet(0x0800, &ipv4(17, &udp(9, &[0; 100])));
    object.run(EGRESS, &frame, PLAIN, 1000).unwrap();
    object.run(EGRESS, &frame, PLAIN, 23).unwrap();
    let counters = object.take().unwrap().egress;
    assert_eq!(counters.classes[IPV4 + UDP].skbs, 1023);
    assert_eq!(counters.classes[IPV4 + UDP].skb_bytes, 1023 * 142);
    assert_eq!(counters.sizes[2], 1023);
}

#[test]
fn size_bounds_are_inclusive() {
    let mut object = Loaded::inside().unwrap();
    for (position, bound) in SIZE_BOUNDS.iter().enumerate() {
        for (size, position) in [(*bound, position), (*bound + 1, position + 1)] {
            // A plain frame where a test run takes one, and then the first of two segments of that size.
            if size < 3700 {
                let frame = ethernet(0x88cc, &vec![0; size as usize - 14]);
                object.run(INGRESS, &frame, PLAIN, 1).unwrap();
                assert_eq!(object.take().unwrap().ingress.sizes[position], 1, "{size} bytes");
            }
            let frame = ethernet(0x0800, &ipv4(6, &tcp(ACK, 0, &[0; 1])));
            let skb = Skb { gso_size: size - 54, gso_segs: 3, ..PLAIN };
            if size > 64 {
                object.run(INGRESS, &frame, skb, 1).unwrap();
                let mut expected = [0; 11];
                expected[0] += 1;
                expected[position] += 2;
                assert_eq!(object.take().unwrap().ingress.sizes, expected, "segments of {size} bytes");
            }
        }
    }
}

#[test]
fn control_flags_are_counted_for_every_combination() {
    let mut object = Loaded::shared(1).unwrap();
    for flags in 0..=255_u8 {
        for frame in [
            ethernet(0x0800, &ipv4(6, &tcp(flags, 0, &[]))),
            ethernet(0x86dd, &ipv6(6, &tcp(flags, 2, &[]))),
            ethernet(0x8100, &tag(0x0800, &ipv4(6, &tcp(flags, 2, &[])))),
            ethernet(0x86dd, &ipv6(0, &extension(6, 0, &tcp(flags, 2, &[])))),
        ] {
            object.run(INGRESS, &frame, PLAIN, 1).unwrap();
            let mut expected = [0; 4];
            expected[flag::SYN] = u64::from(flags & 0x12 == 0x02);
            expected[flag::SYNACK] = u64::from(flags & 0x12 == 0x12);
            expected[flag::FIN] = u64::from(flags & 0x01 != 0);
            expected[flag::RST] = u64::from(flags & 0x04 != 0);
            assert_eq!(object.take().unwrap().ingress.tcp_flags, expected, "flags {flags:#04x}");
        }
    }
}

#[test]
fn no_flags_are_read_from_what_is_not_a_tcp_header() {
    let mut object = Loaded::shared(1).unwrap();
    for frame in [
        ethernet(0x0800, &ipv4_with(6, 0, 0x20b9, &[0xff; 64])),
        ethernet(0x86dd, &ipv6(44, &fragment(6, 181, &[0xff; 64]))),
        ethernet(0x0800, &ipv4(17, &[0xff; 64])),
        ethernet(0x0800, &ipv4(6, &tcp(0xff, 0, &[])[..19])),
    ] {
        object.run(INGRESS, &frame, PLAIN, 1).unwrap();
        assert_eq!(object.take().unwrap().ingress.tcp_flags, [0; 4], "{frame:02x?}");
    }
}

#[test]
fn gso_packets_count_as_the_packets_they_become() {
    let inner = |family: fn(u8, &[u8]) -> Vec<u8>| family(6, &tcp(ACK, 3, &[0; 2500]));
    let bridged = || ethernet(0x0800, &inner(ipv4));
    let with = |head: &[u8], rest: &[u8]| [head, rest].concat();
    // Headers that each segment repeats, and the frame; 2,500 bytes of payload in each.
    let cases = [
        ("IPv4 TCP", 14 + 20 + 32, ethernet(0x0800, &inner(ipv4))),
        ("IPv6 TCP", 14 + 40 + 32, ethernet(0x86dd, &inner(ipv6))),
        ("VLAN IPv4 TCP", 18 + 20 + 32, ethernet(0x8100, &tag(0x0800, &inner(ipv4)))),
        (
            "IPv4 with options, TCP",
            14 + 28 + 32,
            ethernet(0x0800, &ipv4_with(6, 2, 0, &tcp(ACK, 3, &[0; 2500]))),
        ),
        (
            "IPv6 with an extension, TCP",
            14 + 48 + 32,
            ethernet(0x86dd, &ipv6(60, &extension(6, 0, &tcp(ACK, 3, &[0; 2500])))),
        ),
        ("IPv4 UDP", 14 + 20 + 8, ethernet(0x0800, &ipv4(17, &udp(9, &[0; 2500])))),
        ("IPv6 UDP", 14 + 40 + 8, ethernet(0x86dd, &ipv6(17, &udp(9, &[0; 2500])))),
        ("IPv4 in IPv4", 14 + 20 + 20 + 32, ethernet(0x0800, &ipv4(4, &inner(ipv4)))),
        ("IPv6 in IPv4", 14 + 20 + 40 + 32, ethernet(0x0800, &ipv4(41, &inner(ipv6)))),
        ("IPv4 in IPv6", 14 + 40 + 20 + 32, ethernet(0x86dd, &ipv6(4, &inner(ipv4)))),
        ("GRE", 14 + 20 + 4 + 20 + 32, ethernet(0x0800, &ipv4(47, &with(&[0, 0, 8, 0], &inner(ipv4))))),
        (
            "GRE with key, bridged",
            14 + 20 + 8 + 14 + 20 + 32,
            ethernet(0x0800, &ipv4(47, &with(&[0x20, 0, 0x65, 0x58, 0, 0, 0, 9], &bridged()))),
        ),
        (
            "VXLAN",
            14 + 20 + 8 + 8 + 14 + 20 + 32,
            ethernet(0x0800, &ipv4(17, &udp(4789, &with(&[8, 0, 0, 0, 0, 0, 9, 0], &bridged())))),
        ),
        (
            "Geneve with an option",
            14 + 40 + 8 + 12 + 14 + 20 + 32,
            ethernet(
                0x86dd,
                &ipv6(17, &udp(6081, &with(&[1, 0, 0x65, 0x58, 0, 0, 9, 0, 1, 1, 1, 0], &bridged()))),
            ),
        ),
    ];
    let mut object = Loaded::shared(1).unwrap();
    for (name, headers, frame) in cases {
        assert_eq!(frame.len(), headers + 2500, "{name}: the test's own arithmetic");
        // 2,500 bytes are two full segments of 1,000 and one of 500, whether the kernel knows or we work it out.
        for gso_segs in [3, 0] {
            let run = object.run(EGRESS, &frame, Skb { gso_size: 1000, gso_segs, ..PLAIN }, 1).unwrap();
            assert_eq!((run.verdict, &run.frame), (NEXT, &frame), "{name}");
            let counters = object.take().unwrap().egress;
            let class = counters.classes[classify(&frame).class];
            let expected = ClassCounters {
                skbs: 1,
                skb_bytes: frame.len() as u64,
                extra_packets: 2,
                extra_bytes: 2 * headers as u64,
            };
            assert_eq!(class, expected, "{name}, gso_segs {gso_segs}");
            let mut sizes = [0; 11];
            sizes[bucket(headers + 1000)] += 2;
            sizes[bucket(headers + 500)] += 1;
            assert_eq!(counters.sizes, sizes, "{name}, gso_segs {gso_segs}");
        }
    }
}

#[test]
fn segments_of_unequal_size_keep_the_packet_count_and_the_bytes() {
    let mut object = Loaded::shared(1).unwrap();
    let frame = ethernet(0x0800, &ipv4(132, &[0; 12 + 2000]));
    object.run(INGRESS, &frame, Skb { gso_size: 0xffff, gso_segs: 4, ..PLAIN }, 1).unwrap();
    let counters = object.take().unwrap().ingress;
    let class = counters.classes[IPV4 + SCTP];
    assert_eq!((class.extra_packets, class.extra_bytes), (3, 3 * 46));
    assert_eq!(counters.sizes[4], 4);
}

#[test]
fn diagnostics_name_malformed_frames_and_missing_slots_at_debug_level_only() {
    let broken = ethernet(0x0800, &[0x44; 40]);
    let foreign = ethernet(0x88cc, &[0; 46]);
    for (level, expected) in [
        (aya_log::Level::Debug, vec!["ifindex 1: malformed frame of 54 bytes counted as unknown"]),
        (aya_log::Level::Info, vec![]),
    ] {
        let mut object = Loaded::shared_logging(1, level as u8).unwrap();
        object.run(INGRESS, &foreign, PLAIN, 1).unwrap();
        object.run(INGRESS, &broken, PLAIN, 1).unwrap();
        assert_eq!(logged(&mut object), expected);
        // Logged or not, both are counted.
        assert_eq!(object.take().unwrap().ingress.classes[UNKNOWN].skbs, 2);
    }
    let mut elsewhere = Loaded::shared_logging(64, aya_log::Level::Debug as u8).unwrap();
    elsewhere.run(EGRESS, &foreign, PLAIN, 1).unwrap();
    assert_eq!(logged(&mut elsewhere), ["ifindex 1: no slot, packet not counted"]);
}

/// What the program has logged since it was loaded.
fn logged(object: &mut Loaded) -> Vec<String> {
    struct Lines(Mutex<Vec<String>>);
    impl log::Log for Lines {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            assert_eq!(record.level(), log::Level::Debug);
            self.0.lock().unwrap().push(record.args().to_string());
        }
        fn flush(&self) {}
    }
    let lines = Lines(Mutex::default());
    EbpfLogger::init_with_logger(object.ebpf(), &lines).unwrap().flush();
    lines.0.into_inner().unwrap()
}

/// The kernel reads programs of a loader without CAP_PERFMON more strictly.
#[test]
fn bpf_and_net_admin_are_all_the_privileges_the_programs_need() {
    let counted = "every_frame_is_in_exactly_one_class_to_the_byte_at_both_hooks_of_both_objects";
    let logged = "diagnostics_name_malformed_frames_and_missing_slots_at_debug_level_only";
    let opt_in = "flows_of_any_frame_come_to_what_the_default_counters_say_of_ip";
    for (capabilities, enough) in [("-all,+bpf,+net_admin", true), ("-all,+net_admin", false)] {
        let output = Command::new("setpriv")
            .args(["--bounding-set", capabilities, "--inh-caps", capabilities])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", counted, logged, opt_in])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), enough, "{capabilities}: {said}");
        assert!(said.contains("running 3 tests"), "{said}");
    }
}

#[test]
fn flows_of_any_frame_come_to_what_the_default_counters_say_of_ip() {
    let mut random = Random::seeded(0x666c_6f77_735f_6d6f);
    let (mut default, flows, dns) =
        (Loaded::shared(1).unwrap(), Loaded::flows().unwrap(), Loaded::dns().unwrap());
    let mut before = [0; 2];
    for n in 0..6000_u32 {
        let frame = random.frame();
        let skb = Skb { ifindex: 1, ..random.skb() };
        let hook = if n % 3 == 0 { EGRESS } else { INGRESS };
        default.run(hook, &frame, skb, 1).unwrap();
        for object in [&flows, &dns] {
            let run = object.run(hook, &frame, skb, 1).unwrap();
            assert_eq!((run.verdict, &run.frame), (NEXT, &frame), "frame {n}");
        }
        let counters = default.take().unwrap();
        let ip = counters.ingress.classes[..ARP].iter().chain(&counters.egress.classes[..ARP]);
        let expected = ip.fold(before, |[packets, bytes], class| {
            [packets + class.skbs + class.extra_packets, bytes + class.skb_bytes + class.extra_bytes]
        });
        // Reading the whole table for each frame takes long: for some, and where it must be exact, at the end.
        if n % 100 == 99 {
            assert_eq!(flows.flows_total().unwrap(), expected, "up to frame {n}");
        }
        before = expected;
    }
    assert!(before[0] > 6000, "{before:?}: packets that stand for many are among them");
}

#[test]
fn random_frames_are_counted_as_the_reference_counts_them_and_come_back_unchanged() {
    let mut random = Random::seeded(0x6e65_746e_735f_6d6f);
    let mut objects = [Loaded::shared(1).unwrap(), Loaded::inside().unwrap()];
    let mut seen = [0_u64; 12];
    for n in 0..40_000_u32 {
        let frame = random.frame();
        let skb = Skb { ifindex: 1, ..random.skb() };
        let hook = if n % 3 == 0 { EGRESS } else { INGRESS };
        let object = &mut objects[n as usize % 2];
        let run = object.run(hook, &frame, skb, 1).unwrap();
        assert_eq!((run.verdict, &run.frame), (NEXT, &frame), "frame {n}");
        let counters = object.take().unwrap();
        let expected = at(hook, count(&frame, skb, false));
        assert!(counters == expected, "frame {n}: {skb:?} {frame:02x?}: {counters:?}, not {expected:?}");
        let direction = if hook == INGRESS { counters.ingress } else { counters.egress };
        let packets: u64 = direction.classes.iter().map(|class| class.skbs + class.extra_packets).sum();
        assert_eq!(direction.sizes.iter().sum::<u64>(), packets, "frame {n}: {skb:?} {frame:02x?}");
        seen[classify(&frame).class] += 1;
    }
    assert!(seen.iter().all(|count| *count > 300), "some class was hardly tried: {seen:?}");
}

#[test]
fn the_comparison_with_the_reference_would_notice_one_byte_one_class_or_one_packet() {
    let mut object = Loaded::shared(1).unwrap();
    let frame = ethernet(0x0800, &ipv4(6, &tcp(ACK, 0, &[0; 2000])));
    let skb = Skb { gso_size: 1000, ..PLAIN };
    object.run(INGRESS, &frame, skb, 1).unwrap();
    let counted = object.take().unwrap();
    assert_eq!(counted, at(INGRESS, count(&frame, skb, false)));
    assert_ne!(counted, at(EGRESS, count(&frame, skb, false)));
    assert_ne!(counted, at(INGRESS, count(&frame, skb, true)));
    assert_ne!(counted, at(INGRESS, count(&frame, PLAIN, false)));
    assert_ne!(counted, at(INGRESS, count(&frame[..frame.len() - 1], skb, false)));
    let udp = ethernet(0x0800, &ipv4(17, &tcp(ACK, 0, &[0; 2000])));
    assert_ne!(counted, at(INGRESS, count(&udp, skb, false)));
}

/// What a test run cannot do: tags in metadata, IP headers cut short, headers outside the linear part, GSO as the
/// kernel makes it, frames beyond a page.
#[test]
fn real_skbs_through_a_veth_are_counted_as_the_reference_counts_them() {
    let _host = TestHost::new();
    for scope in ["all", "default"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").unwrap();
    }
    ip("link add near mtu 65535 type veth peer name far mtu 65535");
    let mut far = Loaded::inside().unwrap();
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    far.program(INGRESS).unwrap().attach_with_options("far", TcAttachType::Ingress, options).unwrap();
    ip("link set near up");
    ip("link set far up");
    far.take().unwrap();
    let socket = RawSocket::open("near").unwrap();
    let gso = |gso_type, start: u16, offset| VnetHeader {
        gso_type,
        header_length: 0,
        gso_size: 1000,
        checksum: Some((start, offset)),
    };
    let v4_tcp = |payload: usize| ipv4(6, &tcp(ACK, 0, &vec![0; payload]));
    let none = VnetHeader::default();
    let linear = |header_length| VnetHeader { header_length, ..none };
    let skb = Skb::default();
    let tcp_gso = Skb { gso_size: 1000, ..skb };
    let tagged = |frame: Vec<u8>| [&frame[..12], &[0x81, 0, 0, 42], &frame[12..]].concat();
    // The frame as the program sees it, its skb, whether a tag was taken out of it, and how it is sent.
    let mut cases = vec![
        ("plain", ethernet(0x0800, &v4_tcp(10)), skb, false, none),
        ("20,000 bytes", ethernet(0x0800, &v4_tcp(20_000)), skb, false, none),
        ("65,000 bytes, UDP", ethernet(0x0800, &ipv4(17, &udp(9, &[0; 65_000]))), skb, false, none),
        (
            "only Ethernet linear, IPv4 TCP",
            ethernet(0x0800, &ipv4(6, &tcp(0x02, 0, &[0; 8000]))),
            skb,
            false,
            linear(14),
        ),
        (
            "IPv4 without TCP linear",
            ethernet(0x0800, &ipv4(6, &tcp(0x11, 5, &[0; 8000]))),
            skb,
            false,
            linear(34),
        ),
        (
            "only Ethernet linear, IPv6 UDP",
            ethernet(0x86dd, &ipv6(17, &udp(9, &[0; 8000]))),
            skb,
            false,
            linear(14),
        ),
        (
            "extension headers not linear",
            ethernet(0x86dd, &ipv6(0, &extensions(4, 6, &tcp(0x04, 0, &[0; 8000])))),
            skb,
            false,
            linear(60),
        ),
        ("a tag, TCP", ethernet(0x0800, &v4_tcp(100)), skb, true, none),
        ("a tag, ARP", ethernet(0x0806, &arp()), skb, true, none),
        ("a tag, and one in band", ethernet(0x8100, &tag(0x0800, &v4_tcp(100))), skb, true, none),
        ("TCP GSO", ethernet(0x0800, &v4_tcp(10_500)), tcp_gso, false, gso(1, 34, 16)),
        (
            "TCP GSO over IPv6",
            ethernet(0x86dd, &ipv6(6, &tcp(ACK, 0, &[0; 10_500]))),
            tcp_gso,
            false,
            gso(4, 54, 16),
        ),
        ("UDP GSO", ethernet(0x0800, &ipv4(17, &udp(9, &[0; 10_500]))), tcp_gso, false, gso(5, 34, 6)),
    ];
    for length in [14, 15, 20, 33] {
        cases.push(("IPv4 cut short", ethernet(0x0800, &v4_tcp(10))[..length].to_vec(), skb, false, none));
    }
    for length in [14, 40, 53] {
        cases.push(("IPv6 cut short", ethernet(0x86dd, &ipv6(17, &[]))[..length].to_vec(), skb, false, none));
    }
    for (name, frame, skb, has_tag, header) in cases {
        let sent = if has_tag { tagged(frame.clone()) } else { frame.clone() };
        socket.send(&sent, header).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(next_count(&mut far).ingress, count(&frame, skb, has_tag), "{name}");
    }
    let twin = ethernet(0x0800, &v4_tcp(100));
    socket.send(&tagged(twin.clone()), none).unwrap();
    assert_ne!(next_count(&mut far).ingress, count(&twin, skb, false), "a tag makes a difference");
}

/// Waits until something has been counted.
fn next_count(object: &mut Loaded) -> Counters {
    until(SOON, "something was counted", || {
        Some(object.take().unwrap()).filter(|counters| *counters != Counters::default())
    })
}

/// Both hooks, of which only one counted.
fn at(hook: &str, counters: DirectionCounters) -> Counters {
    match hook {
        INGRESS => Counters { ingress: counters, ..Counters::default() },
        _ => Counters { egress: counters, ..Counters::default() },
    }
}
