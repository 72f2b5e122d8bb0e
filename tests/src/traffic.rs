//! Real traffic from inside namespaces, and what it comes to by the sender's arithmetic.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    errno::Errno,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::socket::{setsockopt, sockopt::UdpGsoSegment},
    unistd::Pid,
};

use crate::{
    frames::{arp, authentication, ethernet, extension, fragment, ipv4, ipv4_with, ipv6, tag, tcp, udp},
    host::{inside, spawn_inside},
    ledger::{CLASSES, Class, Ledger},
    raw_socket::{RawSocket, VnetHeader},
};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
/// For experiments on one's own network (IEEE 802).
const LOCAL: u16 = 0x88b5;
/// For experiments (RFC 3692).
const EXPERIMENTAL: u8 = 253;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ACK: u8 = 0x10;

/// A frame of `class` that is `size` bytes long, at least 74.
///
/// # Panics
/// When the size is too small for the headers of the class.
#[must_use]
pub fn frame(class: Class, size: usize) -> Vec<u8> {
    let frame = build(class, 0);
    // ARP has no payload; short frames are padded on a wire.
    let payload = size.checked_sub(frame.len()).unwrap_or_else(|| panic!("{class:?} needs {}", frame.len()));
    let mut frame = build(class, payload);
    frame.resize(size, 0);
    frame
}

fn build(class: Class, payload: usize) -> Vec<u8> {
    let data = vec![0x5a; payload];
    let sctp = |data: &[u8]| [&[0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0][..], data].concat();
    let echo = |kind: u8| [&[kind, 0, 0, 0, 0, 1, 0, 1][..], &data].concat();
    let v4 = |protocol, data: &[u8]| ethernet(IPV4, &ipv4(protocol, data));
    let v6 = |protocol, data: &[u8]| ethernet(IPV6, &ipv6(protocol, data));
    match class {
        Class("ipv4", "tcp") => v4(TCP, &tcp(ACK, 0, &data)),
        Class("ipv4", "udp") => v4(UDP, &udp(9, &data)),
        Class("ipv4", "icmp") => v4(1, &echo(8)),
        Class("ipv4", "sctp") => v4(SCTP, &sctp(&data)),
        Class("ipv4", "other") => v4(EXPERIMENTAL, &data),
        Class("ipv6", "tcp") => v6(TCP, &tcp(ACK, 0, &data)),
        Class("ipv6", "udp") => v6(UDP, &udp(9, &data)),
        Class("ipv6", "icmpv6") => v6(58, &echo(128)),
        Class("ipv6", "sctp") => v6(SCTP, &sctp(&data)),
        Class("ipv6", "other") => v6(EXPERIMENTAL, &data),
        Class("arp", "other") => ethernet(ARP, &arp()),
        Class("other", "other") => ethernet(LOCAL, &data),
        other => panic!("{other:?} is no class"),
    }
}

/// Frames of one class whose headers are not the plain ones: options, extension headers, fragments.
#[must_use]
pub fn unusual_frames() -> Vec<(Class, Vec<u8>)> {
    let data = [0x5a; 100];
    let datagram = udp(9, &data);
    let more_fragments = 0x2000;
    let later = 185;
    vec![
        (Class("ipv4", "udp"), ethernet(IPV4, &ipv4_with(UDP, 3, 0, &datagram))),
        (Class("ipv4", "tcp"), ethernet(IPV4, &ipv4_with(TCP, 10, 0, &tcp(ACK, 10, &data)))),
        (Class("ipv4", "udp"), ethernet(IPV4, &ipv4_with(UDP, 0, more_fragments, &datagram))),
        (Class("ipv4", "udp"), ethernet(IPV4, &ipv4_with(UDP, 0, later, &data))),
        (Class("ipv6", "udp"), ethernet(IPV6, &ipv6(0, &extension(60, 1, &extension(UDP, 0, &datagram))))),
        (Class("ipv6", "tcp"), ethernet(IPV6, &ipv6(43, &extension(TCP, 2, &tcp(ACK, 0, &data))))),
        (Class("ipv6", "icmpv6"), ethernet(IPV6, &ipv6(51, &authentication(58, 3, &data)))),
        (Class("ipv6", "udp"), ethernet(IPV6, &ipv6(44, &fragment(UDP, 0, &datagram)))),
        (Class("ipv6", "udp"), ethernet(IPV6, &ipv6(44, &fragment(UDP, later, &data)))),
        // A version that is neither 4 nor 6 behind an EtherType that says IPv4.
        (Class("other", "other"), ethernet(IPV4, &data)),
    ]
}

/// Frames with one and two VLAN tags.
#[must_use]
pub fn tagged_frames() -> Vec<(Class, Vec<u8>)> {
    let data = [0x5a; 200];
    let (v4, v6) = (ipv4(UDP, &udp(9, &data)), ipv6(TCP, &tcp(ACK, 0, &data)));
    vec![
        (Class("ipv4", "udp"), ethernet(VLAN, &tag(IPV4, &v4))),
        (Class("ipv6", "tcp"), ethernet(VLAN, &tag(IPV6, &v6))),
        (Class("arp", "other"), ethernet(VLAN, &tag(ARP, &arp()))),
        (Class("ipv4", "udp"), ethernet(QINQ, &tag(VLAN, &tag(IPV4, &v4)))),
    ]
}

/// Sends each of `frames` `times` times through `device` of the calling thread's namespace, and notes it.
///
/// # Panics
/// When the kernel refuses one.
pub fn send(device: &str, frames: &[(Class, Vec<u8>)], times: u64, ledger: &mut Ledger) {
    let socket = RawSocket::open(device).unwrap_or_else(|error| panic!("{device}: {error}"));
    for (class, frame) in frames {
        for _ in 0..times {
            socket.send(frame, VnetHeader::default()).unwrap_or_else(|error| panic!("{class:?}: {error}"));
        }
        ledger.add(*class, times, times * frame.len() as u64);
    }
}

/// Sends `times` frames of each class and of several sizes, so that no two classes come to the same bytes.
///
/// # Panics
/// When the kernel refuses one.
pub fn send_every_class(device: &str, times: u64, ledger: &mut Ledger) {
    for (index, class) in CLASSES.into_iter().enumerate() {
        let frames = [74 + index, 513 + 7 * index, 1500 - index].map(|size| (class, frame(class, size)));
        send(device, &frames, times + index as u64, ledger);
    }
}

/// Sends one TCP packet over IPv4 that stands for many, as a virtual machine's NIC does: without telling how many.
/// Each segment carries `segment` bytes, the last one the rest.
///
/// # Panics
/// When the kernel refuses it.
pub fn send_gso(device: &str, payload: usize, segment: usize, ledger: &mut Ledger) {
    const HEADERS: usize = 14 + 20 + 20;
    let frame = ethernet(IPV4, &ipv4(TCP, &tcp(ACK, 0, &vec![0x5a; payload])));
    assert_eq!(frame.len(), HEADERS + payload);
    let header = VnetHeader {
        gso_type: 1,
        header_length: HEADERS as u16,
        gso_size: segment as u16,
        checksum: Some((34, 16)),
    };
    let socket = RawSocket::open(device).unwrap_or_else(|error| panic!("{device}: {error}"));
    socket.send(&frame, header).expect("a GSO frame");
    let packets = payload.div_ceil(segment);
    ledger.add(Class("ipv4", "tcp"), packets as u64, (payload + packets * HEADERS) as u64);
}

/// Sends one UDP datagram of `payload` bytes from inside `netns` that the kernel cuts into datagrams of `segment` bytes.
///
/// # Panics
/// When the kernel refuses it.
pub fn send_udp_gso(netns: &str, to: SocketAddr, payload: usize, segment: usize, ledger: &mut Ledger) {
    const HEADERS: usize = 14 + 20 + 8;
    inside(netns, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a UDP socket");
        setsockopt(&socket, UdpGsoSegment, &(segment as i32)).expect("UDP_SEGMENT");
        assert_eq!(socket.send_to(&vec![0x5a; payload], to).expect("sent"), payload);
    });
    let packets = payload.div_ceil(segment);
    ledger.add(Class("ipv4", "udp"), packets as u64, (payload + packets * HEADERS) as u64);
}

/// Carries `bytes` over one TCP connection from one namespace to `to` inside another, until both ends are closed.
/// Everything runs on one CPU, so that the segments stay in order.
///
/// # Panics
/// When the connection fails or bytes are lost.
pub fn tcp_transfer(from: &str, receiver: &str, to: Ipv4Addr, bytes: usize) {
    let (tell, told) = mpsc::channel();
    let receiver = spawn_inside(receiver, move || -> io::Result<usize> {
        stay_on_one_cpu();
        let listener = TcpListener::bind((to, 0))?;
        tell.send(listener.local_addr()?).map_err(io::Error::other)?;
        let (mut stream, _) = listener.accept()?;
        let (mut buffer, mut received) = (vec![0; 1 << 17], 0);
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(received),
                some => received += some,
            }
        }
    });
    let address = told.recv_timeout(Duration::from_secs(10)).expect("the receiver listens");
    inside(from, || {
        stay_on_one_cpu();
        let mut stream = TcpStream::connect(address).expect("a connection");
        let (chunk, mut left) = (vec![0x5a; 1 << 16], bytes);
        while left > 0 {
            let now = left.min(chunk.len());
            stream.write_all(&chunk[..now]).expect("sent");
            left -= now;
        }
        stream.shutdown(std::net::Shutdown::Write).expect("an end");
        assert_eq!(stream.read(&mut [0]).expect("the receiver's end"), 0);
    });
    let received = receiver.join().expect("the receiver's thread").expect("received");
    assert_eq!(received, bytes);
}

fn stay_on_one_cpu() {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("the thread's CPUs");
    let first = (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu).unwrap_or(false)).expect("a CPU");
    let mut one = CpuSet::new();
    one.set(first).expect("a CPU of the set");
    sched_setaffinity(Pid::from_raw(0), &one).expect("an affinity");
}

/// Frames sent as fast as possible from inside a namespace, until dropped or stopped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Flood {
    /// Starts to send UDP frames of 200 bytes through `device` of `netns`.
    ///
    /// # Panics
    /// When there is no such namespace.
    #[must_use]
    pub fn start(netns: &str, device: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let frame = frame(Class("ipv4", "udp"), 200);
        let thread = spawn_inside(netns, move || {
            let socket = RawSocket::open(device).unwrap_or_else(|error| panic!("{device}: {error}"));
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                match socket.send(&frame, VnetHeader::default()) {
                    Ok(()) => sent += 1,
                    // The device's queue is full, or the device went away: the kernel's counters are the judge.
                    Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                    Err(_) => break,
                }
            }
            sent
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends the flood; returns how many frames were sent.
    ///
    /// # Panics
    /// When its thread did.
    pub fn stop(mut self) -> u64 {
        self.end().expect("the flood's thread")
    }

    fn end(&mut self) -> std::thread::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(0), JoinHandle::join)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // A panic of its thread has been printed already.
        self.end().unwrap_or_default();
    }
}
