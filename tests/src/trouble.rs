//! A little of each trouble that a namespace may have, so that what tells of it has something to tell.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, listen, setsockopt, socket,
        sockopt,
    },
};

use crate::{
    host::{inside, ip, spawn_inside},
    ledger::Ledger,
    traffic::send_every_class,
};

/// Where nobody listens, where a rule is expected to drop, where nothing is accepted, and where nothing is read.
const CLOSED: u16 = 9;
const DROPPED: u16 = 99;
const FULL: u16 = 81;
const UNREAD: u16 = 7;
const DNS: u16 = 53;

/// What has to stay for trouble to go on: between a namespace that asks and one that should answer. A rule in the latter has to drop
/// what comes to port 99.
#[derive(Debug)]
pub struct Trouble {
    client: &'static str,
    server: Ipv4Addr,
    round: usize,
    /// Connects that nobody answers, each with when it began.
    unanswered: Vec<(Instant, OwnedFd)>,
    /// A listener that never accepts, and a socket that is never read.
    _deaf: (OwnedFd, UdpSocket),
    resolver: Option<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

impl Trouble {
    /// Opens what is deaf in the namespace `server`, which has the address `at`, and a resolver that answers some queries.
    ///
    /// # Panics
    /// When there is no such namespace, or a port is taken.
    #[must_use]
    pub fn new(client: &'static str, server: &'static str, at: Ipv4Addr) -> Self {
        let deaf = inside(server, || {
            let listener = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
            let listener = listener.expect("a socket");
            bind(listener.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(at, FULL))).expect("the port");
            listen(&listener, Backlog::new(0).expect("none")).expect("it listens");
            let unread = UdpSocket::bind((at, UNREAD)).expect("the port");
            setsockopt(&unread, sockopt::RcvBuf, &4096).expect("a small buffer");
            (listener, unread)
        });
        let ended = Arc::new(AtomicBool::new(false));
        let resolver = Some(resolve(server, at, Arc::clone(&ended)));
        Self { client, server: at, round: 0, unanswered: Vec::new(), _deaf: deaf, resolver, ended }
    }

    /// Connects that are refused, without a route, dropped by a rule, and beyond what a listener takes.
    ///
    /// # Panics
    /// When one fails in another way.
    pub fn connects(&mut self) {
        let server = self.server;
        inside(self.client, || {
            TcpStream::connect((server, CLOSED)).expect_err("nobody listens");
            let error = TcpStream::connect("192.0.2.1:9").expect_err("no route");
            assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
        });
        for port in [DROPPED, FULL, FULL, FULL] {
            self.unanswered.push((Instant::now(), self.begin(port)));
        }
        // Long enough for a second SYN.
        self.unanswered.retain(|(since, _)| since.elapsed() < Duration::from_millis(1500));
    }

    /// A connect that is under way.
    fn begin(&self, port: u16) -> OwnedFd {
        let to = SockaddrIn::from(SocketAddrV4::new(self.server, port));
        inside(self.client, || {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
            assert_eq!(connect(socket.as_raw_fd(), &to), Err(Errno::EINPROGRESS));
            socket
        })
    }

    /// Datagrams to nobody, to somebody who does not read, and to a rule that drops.
    ///
    /// # Panics
    /// When there is no socket for them.
    pub fn datagrams(&self) {
        let server = self.server;
        inside(self.client, || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            for (port, times) in [(CLOSED, 3), (UNREAD, 50), (DROPPED, 3)] {
                send_datagrams(&socket, (server, port), b"x", times);
            }
        });
    }

    /// Queries that are answered, answered twice, answered with an error, and not answered.
    ///
    /// # Panics
    /// When there is no socket for them.
    pub fn queries(&self) {
        let server = self.server;
        inside(self.client, || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            for (id, letter) in (0..).zip(b"aabbcc") {
                let query = [7, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, *letter, 0, 0, 1, 0, 1];
                send_datagrams(&socket, (server, DNS), &query, 1);
            }
        });
    }

    /// A namespace with an interface is made, and the one of the round before last goes.
    ///
    /// # Panics
    /// When one cannot be made.
    pub fn comings_and_goings(&mut self) {
        self.round += 1;
        let guest = |round: usize| format!("guest{round}");
        let new = guest(self.round);
        ip(&format!("netns add {new}"));
        ip(&format!("link add {new} type veth peer name eth0 netns {new}"));
        ip(&format!("link set {new} up"));
        ip(&format!("-n {new} link set eth0 up"));
        if let Some(before) = self.round.checked_sub(2).filter(|round| *round > 0) {
            inside(&guest(before), || send_every_class("eth0", 1, &mut Ledger::new()));
            ip(&format!("netns del {}", guest(before)));
        }
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(Err(error)) = self.resolver.take().map(JoinHandle::join) {
            eprintln!("the resolver: {error:?}");
        }
    }
}

/// Sends one datagram some times.
pub fn send_datagrams(
    socket: &UdpSocket,
    to: impl std::net::ToSocketAddrs + Copy,
    bytes: &[u8],
    times: usize,
) {
    // An answer that nobody is there is told to the next call.
    (0..times).for_each(|_| while socket.send_to(bytes, to).is_err() {});
}

/// Answers what is asked for `a`, twice, and says of `b` that it could not find out.
fn resolve(server: &'static str, at: Ipv4Addr, ended: Arc<AtomicBool>) -> JoinHandle<()> {
    let socket = inside(server, || UdpSocket::bind(SocketAddr::from((at, DNS))).expect("port 53"));
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
    spawn_inside(server, move || {
        let mut message = [0; 512];
        while !ended.load(Ordering::Relaxed) {
            let Ok((length, from)) = socket.recv_from(&mut message) else { continue };
            let answers: &[u8] = match message[13] {
                b'a' => &[0x80, 0x80],
                b'b' => &[0x82],
                _ => &[],
            };
            for code in answers {
                (message[2], message[3]) = (0x84, *code);
                socket.send_to(&message[..length], from).expect("answered");
            }
        }
    })
}
