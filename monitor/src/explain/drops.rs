//! The kernel's reasons for dropping packets in plain sentences, each with what to look at next.

/// One reason explained.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// The kernel's name.
    pub reason: &'static str,
    /// What happened.
    pub says: &'static str,
    /// What to look at or try.
    pub look: &'static str,
    /// Whether it happens where nothing is wrong.
    pub usual: bool,
}

/// The explanation of a reason, where there is one.
pub fn plain(reason: &str) -> Option<&'static Plain> {
    PLAIN.iter().find(|plain| plain.reason == reason)
}

const fn loss(reason: &'static str, says: &'static str, look: &'static str) -> Plain {
    Plain { reason, says, look, usual: false }
}

const fn usual(reason: &'static str, says: &'static str, look: &'static str) -> Plain {
    Plain { reason, says, look, usual: true }
}

/// In the order of the kernel's list, the most frequent ones of it and all that a person can do something about.
pub const PLAIN: &[Plain] = &[
    usual(
        "NOT_SPECIFIED",
        "The kernel does not say why: this part of it gives no reasons yet.",
        "the kernel function in the column WHERE tells which part it is",
    ),
    loss(
        "NO_SOCKET",
        "Nobody listens on the port the packet was for, or the connection it belongs to is gone.",
        "ss -lntu: is the program running, and does it listen on this address and port?",
    ),
    usual(
        "SOCKET_CLOSE",
        "A socket was closed while data waited in it, or came when it was closed already.",
        "whether a program ends before it has read everything",
    ),
    loss(
        "SOCKET_FILTER",
        "A filter that the receiving program put on its socket did not let the packet through.",
        "ss -0 -b, ss -b: filters of sockets; packet captures have some, and mean it",
    ),
    loss(
        "SOCKET_RCVBUFF",
        "The receiving program does not read fast enough: its receive buffer is full.",
        "ss -um for the buffer's size; give the program more CPU, or a larger buffer (net.core.rmem_max, SO_RCVBUF)",
    ),
    usual(
        "UNIX_DISCONNECT",
        "A Unix datagram socket was connected elsewhere, and what waited in it was given up.",
        "nothing, if the program means it",
    ),
    loss(
        "PKT_TOO_SMALL",
        "The packet is shorter than its header says.",
        "tcpdump -vv: who sends it; a broken driver or offload may cut packets",
    ),
    loss(
        "TCP_CSUM",
        "The TCP checksum is wrong.",
        "ethtool -k: checksum offload of the sender's device; damage on the way",
    ),
    loss(
        "UDP_CSUM",
        "The UDP checksum is wrong.",
        "ethtool -k: checksum offload of the sender's device; damage on the way",
    ),
    loss(
        "NETFILTER_DROP",
        "A firewall rule dropped the packet, or connection tracking had no room for it.",
        "nft list ruleset, iptables-save -c in the namespace; conntrack below says whether it is full",
    ),
    usual(
        "OTHERHOST",
        "The packet was not for this host's MAC address: a bridge floods, or a capture lets everything in.",
        "bridge fdb: flooding for long means that the sender's neighbour entry is wrong",
    ),
    loss(
        "IP_CSUM",
        "The checksum of the IPv4 header is wrong.",
        "damage on the way, or a broken offload: ethtool -k",
    ),
    loss(
        "IP_INHDR",
        "The IP header is malformed, or its TTL was used up by forwarding.",
        "tcpdump -vv; a routing loop uses up the TTL",
    ),
    loss(
        "IP_RPFILTER",
        "The packet came in where the answer would not go out: reverse path filtering took it for forged.",
        "ip route get SOURCE; net.ipv4.conf.*.rp_filter (2 is looser)",
    ),
    loss(
        "UNICAST_IN_L2_MULTICAST",
        "The packet is for one host, but its frame was for many.",
        "the sender's neighbour entry for the address",
    ),
    loss(
        "XFRM_POLICY",
        "An IPsec policy forbids the packet as it came, unencrypted for example.",
        "ip xfrm policy, ip xfrm state",
    ),
    loss(
        "IP_NOPROTO",
        "No protocol of this kernel handles the packet.",
        "whether the module for it is loaded",
    ),
    loss(
        "PROTO_MEM",
        "All sockets of the protocol together use as much memory as they may.",
        "cat /proc/net/sockstat; net.ipv4.tcp_mem, net.ipv4.udp_mem",
    ),
    loss(
        "TCP_AUTH_HDR",
        "The packet's TCP authentication options are malformed or contradict each other.",
        "both ends' TCP-MD5 or TCP-AO keys",
    ),
    loss(
        "TCP_MD5NOTFOUND",
        "A signature (TCP-MD5) was expected, and the packet has none.",
        "the keys of both ends; BGP speakers use them",
    ),
    loss(
        "TCP_MD5UNEXPECTED",
        "The packet is signed (TCP-MD5), and no key is known for the sender.",
        "the keys of both ends; BGP speakers use them",
    ),
    loss(
        "TCP_MD5FAILURE",
        "The packet's signature (TCP-MD5) is wrong.",
        "whether both ends have the same key",
    ),
    loss(
        "TCP_AONOTFOUND",
        "A signature (TCP-AO) was expected, and the packet has none.",
        "the keys of both ends",
    ),
    loss(
        "TCP_AOUNEXPECTED",
        "The packet is signed (TCP-AO), and no key is known for it.",
        "the keys of both ends",
    ),
    loss(
        "TCP_AOKEYNOTFOUND",
        "The packet's signature (TCP-AO) is by a key that is not known.",
        "the keys of both ends",
    ),
    loss("TCP_AOFAILURE", "The packet's signature (TCP-AO) is wrong.", "whether both ends have the same key"),
    loss(
        "SOCKET_BACKLOG",
        "Packets came faster than the socket could take them while its program was at work in it.",
        "CPU of the receiving program; net.core.rmem_max",
    ),
    usual(
        "TCP_FLAGS",
        "The segment's flags make no sense in the state of the connection.",
        "port scans do this; tcpdump shows who",
    ),
    usual(
        "TCP_ABORT_ON_DATA",
        "Data came for a connection that the program has closed already; the peer is told by a reset.",
        "whether the program closes before it has read everything",
    ),
    loss(
        "TCP_ZEROWINDOW",
        "Data came though the receiver said that it has no room.",
        "whether the receiving program reads: ss -tm",
    ),
    usual(
        "TCP_OLD_DATA",
        "The data was received already: sent twice.",
        "nothing; much of it means lost or late ACKs",
    ),
    loss(
        "TCP_OVERWINDOW",
        "The data is beyond what the receiver said it takes.",
        "ss -tm; a middlebox may rewrite windows",
    ),
    usual("TCP_OFOMERGE", "The data is in the queue of out-of-order data already.", "nothing: it came twice"),
    loss(
        "TCP_RFC7323_PAWS",
        "The segment's time stamp is older than what came before: taken for a stray of long ago.",
        "several hosts behind one NAT address with different clocks",
    ),
    usual(
        "TCP_RFC7323_PAWS_ACK",
        "A pure acknowledgement with an old time stamp: late, but harmless.",
        "nothing",
    ),
    loss(
        "TCP_RFC7323_TW_PAWS",
        "A connection request has an older time stamp than the connection just closed at the same ports.",
        "several hosts behind one NAT address with different clocks",
    ),
    usual(
        "TCP_RFC7323_TSECR",
        "The segment answers a time stamp that was never sent.",
        "nothing, if it is rare",
    ),
    loss(
        "TCP_LISTEN_OVERFLOW",
        "A program does not accept connections fast enough: its listen queue is full.",
        "ss -lnt: Recv-Q has reached Send-Q; a larger backlog (listen(), net.core.somaxconn), or more workers",
    ),
    usual("TCP_OLD_SEQUENCE", "The segment ends before what was received already.", "nothing: sent twice"),
    loss(
        "TCP_INVALID_SEQUENCE",
        "The segment's sequence number is outside of what the receiver takes.",
        "a middlebox that rewrites numbers, or an attempt to inject",
    ),
    loss(
        "TCP_INVALID_END_SEQUENCE",
        "The segment's end is outside of what the receiver takes.",
        "ss -tm; a middlebox that rewrites windows",
    ),
    loss(
        "TCP_INVALID_ACK_SEQUENCE",
        "The segment acknowledges something that was never sent.",
        "a middlebox that rewrites numbers, or an attempt to inject",
    ),
    usual(
        "TCP_RESET",
        "The peer has reset the connection.",
        "why the peer gives up: its log, or a firewall between",
    ),
    usual(
        "TCP_INVALID_SYN",
        "A connection request came in the middle of a connection.",
        "a peer that restarted with the same ports",
    ),
    usual("TCP_CLOSE", "The segment came for a connection that is closed.", "nothing, if it is rare"),
    usual("TCP_FASTOPEN", "The data came by TCP Fast Open, and was there already.", "nothing"),
    usual("TCP_OLD_ACK", "The acknowledgement says nothing new: it was overtaken by a later one.", "nothing"),
    usual(
        "TCP_TOO_OLD_ACK",
        "The acknowledgement is older than any that may still come.",
        "nothing, if it is rare",
    ),
    loss(
        "TCP_ACK_UNSENT_DATA",
        "The segment acknowledges data that was not sent yet.",
        "a middlebox that rewrites numbers, or an attempt to inject",
    ),
    loss(
        "TCP_OFO_QUEUE_PRUNE",
        "Memory ran short, and out-of-order data that waited was thrown away; it is sent again.",
        "ss -tm; net.ipv4.tcp_rmem, net.ipv4.tcp_mem",
    ),
    loss(
        "TCP_OFO_DROP",
        "There was no memory for data that came out of order.",
        "ss -tm; net.ipv4.tcp_rmem, net.ipv4.tcp_mem",
    ),
    loss(
        "IP_OUTNOROUTES",
        "There is no route to where the packet was sent.",
        "ip route, ip route get DESTINATION in the namespace; is a default route missing?",
    ),
    loss(
        "BPF_CGROUP_EGRESS",
        "A BPF program of the sender's cgroup did not let the packet out.",
        "bpftool cgroup tree; systemd's IPAddressDeny= does this",
    ),
    loss("IPV6DISABLED", "IPv6 is switched off at the device.", "net.ipv6.conf.*.disable_ipv6"),
    loss(
        "NEIGH_CREATEFAIL",
        "No entry for the neighbour could be made: the table is full.",
        "ip -s neigh; net.ipv4.neigh.default.gc_thresh3",
    ),
    loss(
        "NEIGH_FAILED",
        "The next hop does not answer: nobody has the address, or it does not hear us.",
        "ip neigh: who is FAILED or INCOMPLETE; is the peer up, in the same subnet and bridge?",
    ),
    loss(
        "NEIGH_QUEUEFULL",
        "Too many packets waited for the next hop's MAC address.",
        "ip neigh; net.ipv4.neigh.*.unres_qlen_bytes",
    ),
    loss("NEIGH_DEAD", "The entry of the next hop was removed while packets waited.", "ip monitor neigh"),
    loss(
        "NEIGH_HH_FILLFAIL",
        "The frame's header for the next hop could not be made.",
        "ip neigh, ip -d link",
    ),
    loss(
        "TC_EGRESS",
        "A filter or BPF program at the device's exit (tc egress) dropped the packet.",
        "tc filter show dev DEVICE egress; bpftool net",
    ),
    loss(
        "SECURITY_HOOK",
        "A security module (SELinux, AppArmor, BPF LSM) forbade it.",
        "ausearch -m avc, dmesg",
    ),
    loss(
        "QDISC_DROP",
        "The device's queueing discipline dropped the packet: its queue is full, or it shapes.",
        "tc -s qdisc show dev DEVICE: dropped, overlimits",
    ),
    loss(
        "QDISC_OVERLIMIT",
        "The queue of the device has reached its limit.",
        "tc -s qdisc show dev DEVICE; a slower sender, or a larger limit",
    ),
    loss(
        "QDISC_CONGESTED",
        "The queueing discipline dropped the packet so that the sender slows down (CoDel and others).",
        "tc -s qdisc; it is meant so when the link is full",
    ),
    loss("CAKE_FLOOD", "CAKE took the flow for a flood.", "tc -s qdisc"),
    loss("FQ_BAND_LIMIT", "The packet's priority band in fq is full.", "tc -s qdisc"),
    loss(
        "FQ_HORIZON_LIMIT",
        "The packet asked to be sent too far in the future (fq).",
        "the clock of the sender",
    ),
    loss("FQ_FLOW_LIMIT", "One flow has too many packets in fq.", "tc -s qdisc: flow_limit"),
    loss(
        "CPU_BACKLOG",
        "A CPU could not take received packets fast enough: its backlog is full. On a veth this loses the packet on its way in.",
        "/proc/net/softnet_stat, second column; net.core.netdev_max_backlog, or spread the load (RPS)",
    ),
    loss("XDP", "An XDP program dropped the packet.", "ip link: xdp; bpftool net"),
    loss(
        "TC_INGRESS",
        "A filter or BPF program at the device's entry (tc ingress) dropped the packet.",
        "tc filter show dev DEVICE ingress; bpftool net",
    ),
    usual(
        "UNHANDLED_PROTO",
        "Nobody in this kernel handles frames of this type: LLDP, STP, IPv6 where it is off.",
        "tcpdump -e: the frame's type",
    ),
    loss("SKB_CSUM", "A checksum had to be computed, and could not be.", "ethtool -k: checksum offload"),
    loss("SKB_GSO_SEG", "A large packet could not be cut into segments.", "ethtool -k: tso, gso"),
    loss(
        "SKB_UCOPY_FAULT",
        "The packet's data could not be copied from the program's memory.",
        "tun, tap or vhost users",
    ),
    loss("DEV_HDR", "The device could not read or make the frame's header.", "ip -d link"),
    loss(
        "DEV_READY",
        "The device was not ready: down, or without a program at its other end (tun).",
        "ip link; who should have the tun or tap device open",
    ),
    loss(
        "FULL_RING",
        "The ring to the reader (tun, tap, virtual machine) is full: it does not read fast enough.",
        "the program behind the tun or tap device; its queue length (txqueuelen)",
    ),
    loss("NOMEM", "The kernel had no memory for it.", "free, dmesg; memory limits of the cgroup"),
    loss("HDR_TRUNC", "The packet ends within its headers.", "tcpdump -vv"),
    loss(
        "TAP_FILTER",
        "The BPF filter of a tap device did not let it through.",
        "the program that has the device",
    ),
    usual("TAP_TXFILTER", "The frame was not for the MAC address of the tap device's user.", "nothing"),
    loss("ICMP_CSUM", "The ICMP checksum is wrong.", "damage on the way"),
    loss(
        "INVALID_PROTO",
        "The protocol does not fit the packet, or is none that is taken here.",
        "tcpdump -vv",
    ),
    loss(
        "IP_INADDRERRORS",
        "The packet was for an address that this host does not have, or may not be used so, and forwarding is off here.",
        "ip address; net.ipv4.ip_forward if it shall be forwarded",
    ),
    loss(
        "IP_INNOROUTES",
        "A packet came in, and there is no route to where it was to go.",
        "ip route get DESTINATION from SOURCE iif DEVICE in the namespace",
    ),
    loss(
        "IP_LOCAL_SOURCE",
        "A packet came from outside with an address of this very host as its source.",
        "the same address given to two hosts; a loop in the wiring",
    ),
    loss(
        "IP_INVALID_SOURCE",
        "The packet's source can be nobody's: multicast, broadcast, 0.0.0.0.",
        "who sends it: tcpdump -e",
    ),
    loss(
        "IP_LOCALNET",
        "The packet has an address of 127.0.0.0/8, but did not come over lo.",
        "net.ipv4.conf.*.route_localnet, where a port of 127.0.0.1 is published",
    ),
    loss("IP_INVALID_DEST", "The packet's destination can be nobody's.", "who sends it: tcpdump -e"),
    loss(
        "PKT_TOO_BIG",
        "The packet is larger than the MTU of the way on, and may not be cut.",
        "ip link: MTU of both ends; are ICMP \"fragmentation needed\" messages dropped on the way back?",
    ),
    usual("DUP_FRAG", "A fragment came twice.", "nothing, if it is rare"),
    loss(
        "FRAG_REASM_TIMEOUT",
        "Not all fragments of a packet came in time: one was lost.",
        "why packets are cut at all: MTU; what is lost on the way",
    ),
    loss("FRAG_TOO_FAR", "Fragments of one sender came too far apart.", "net.ipv4.ipfrag_max_dist"),
    loss(
        "TCP_MINTTL",
        "The packet's TTL is lower than the program demands (GTSM).",
        "the number of hops; BGP speakers do this",
    ),
    loss("IPV6_BAD_EXTHDR", "An IPv6 extension header is malformed or not known.", "tcpdump -vv"),
    loss(
        "IPV6_NDISC_FRAG",
        "A neighbour discovery message was cut into fragments, which is forbidden.",
        "who sends it: tcpdump -e",
    ),
    loss(
        "IPV6_NDISC_HOP_LIMIT",
        "A neighbour discovery message came over a router: forged, or a wrong hop limit.",
        "who sends it: tcpdump -e",
    ),
    loss("IPV6_NDISC_BAD_CODE", "A neighbour discovery message is malformed.", "who sends it: tcpdump -e"),
    loss(
        "IPV6_NDISC_BAD_OPTIONS",
        "A neighbour discovery message has malformed options.",
        "who sends it: tcpdump -e",
    ),
    usual("IPV6_NDISC_NS_OTHERHOST", "A neighbour asked for another host's address.", "nothing"),
    usual(
        "QUEUE_PURGE",
        "A queue was emptied because its socket or device went away.",
        "nothing, if something was closed or removed just then",
    ),
    loss("TC_COOKIE_ERROR", "A tc action could not be carried on where it stopped.", "tc -s filter"),
    loss(
        "PACKET_SOCK_ERROR",
        "A packet capture lost a copy: its buffer is full. The packet itself went on.",
        "the capture's buffer: tcpdump -B",
    ),
    loss(
        "TC_CHAIN_NOTFOUND",
        "A tc filter sent the packet to a chain that does not exist.",
        "tc filter show",
    ),
    loss("TC_RECLASSIFY_LOOP", "tc filters sent the packet in a circle.", "tc filter show"),
    loss("VXLAN_INVALID_HDR", "The VXLAN header is malformed.", "tcpdump -vv on the underlay"),
    loss(
        "VXLAN_VNI_NOT_FOUND",
        "No VXLAN device has the packet's network number.",
        "ip -d link show type vxlan",
    ),
    loss("MAC_INVALID_SOURCE", "The frame's source MAC address can be nobody's.", "who sends it: tcpdump -e"),
    loss("VXLAN_ENTRY_EXISTS", "The frame's source is known at another place already (VXLAN).", "bridge fdb"),
    usual(
        "NO_TX_TARGET",
        "A bridge or VXLAN device had nobody to send the frame to.",
        "bridge link, bridge fdb: whether ports are missing or down",
    ),
    loss(
        "IP_TUNNEL_ECN",
        "A tunnel's outer and inner congestion marks contradict each other.",
        "who sends it: tcpdump -vv",
    ),
    loss(
        "TUNNEL_TXINFO",
        "A packet came to a tunnel device without saying where to.",
        "the routes or tc filters to it",
    ),
    usual(
        "LOCAL_MAC",
        "The frame's source is a MAC address of this host: our own frame came back.",
        "a loop in the wiring, if there are many",
    ),
    loss(
        "ARP_PVLAN_DISABLE",
        "An ARP request would have to be answered on the port it came from.",
        "net.ipv4.conf.*.proxy_arp_pvlan",
    ),
    usual(
        "MAC_IEEE_MAC_CONTROL",
        "A frame for the bridge itself (pause frames) that bridges never forward.",
        "nothing",
    ),
    loss(
        "BRIDGE_INGRESS_STP_STATE",
        "The bridge port does not forward yet, or is blocked by the spanning tree.",
        "bridge link: the port's state",
    ),
    loss(
        "PFMEMALLOC",
        "Memory was so short that only packets which free memory were taken.",
        "free, dmesg; vm.min_free_kbytes",
    ),
    loss("DUALPI2_STEP_DROP", "DualPI2 dropped the packet so that the sender slows down.", "tc -s qdisc"),
    loss(
        "PSP_INPUT",
        "An encrypted connection (PSP) got a packet that is not, or the other way round.",
        "the keys of both ends",
    ),
    loss(
        "PSP_OUTPUT",
        "A packet of an encrypted connection (PSP) could not be sent so.",
        "the keys of both ends",
    ),
    loss(
        "RECURSION_LIMIT",
        "The packet went through too many devices inside each other.",
        "a loop among tunnels, bonds or macvlans",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_reason_is_explained_once_and_in_whole_sentences() {
        let names: BTreeSet<_> = PLAIN.iter().map(|plain| plain.reason).collect();
        assert_eq!(names.len(), PLAIN.len());
        assert!(PLAIN.len() >= 60, "{}", PLAIN.len());
        for Plain { reason, says, look, .. } in PLAIN {
            assert!(says.ends_with('.') && !look.ends_with('.') && !look.is_empty(), "{reason}");
            assert!(
                reason.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
            );
        }
    }

    #[test]
    fn what_is_not_in_the_table_has_no_explanation() {
        assert!(plain("NO_SOCKET").is_some_and(|plain| !plain.usual));
        assert!(plain("TCP_OLD_ACK").is_some_and(|plain| plain.usual));
        assert!(plain("OPENVSWITCH_3").is_none());
    }
}
