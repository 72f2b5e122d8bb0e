//! A namespace that plays the outside, servers in namespaces, and who reaches whom.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    process::Command,
    thread::JoinHandle,
};

use crate::{
    host::{TestHost, inside, ip, spawn_inside},
    http,
    poll::{SOON, until},
};

/// A host with a namespace that plays the outside: a server at 203.0.113.2, the host at 203.0.113.1.
///
/// # Panics
/// As [`TestHost::quiet`].
#[must_use]
pub fn host_with_outside() -> TestHost {
    let host = TestHost::quiet();
    wire_outside();
    host
}

/// Makes that namespace in the thread's host.
///
/// # Panics
/// When there is one.
pub fn wire_outside() {
    ip("netns add outside");
    ip("link add up0 type veth peer name eth0 netns outside");
    ip("address add 203.0.113.1/24 dev up0");
    ip("-n outside address add 203.0.113.2/24 dev eth0");
    ip("link set up0 up");
    ip("-n outside link set eth0 up");
    ip("-n outside link set lo up");
}

/// Answers so many HTTP requests in a namespace, each with its own name and the address it was asked from.
///
/// # Panics
/// When the port is not free; the thread, when nobody asks properly.
#[must_use]
pub fn serve(netns: &'static str, port: u16, times: usize) -> JoinHandle<()> {
    let listener = inside(netns, || TcpListener::bind(("0.0.0.0", port)).expect("a free port"));
    spawn_inside(netns, move || {
        for _ in 0..times {
            let (mut stream, peer) = listener.accept().expect("a connection");
            stream.set_read_timeout(Some(SOON)).expect("a time-out");
            let mut request = [0; 1024];
            let _length = stream.read(&mut request).expect("a request");
            write!(stream, "HTTP/1.0 200 OK\r\n\r\n{netns} to {}", peer.ip()).expect("answered");
        }
    })
}

/// Asks a server from a namespace, or from the host, and returns what it answers.
///
/// # Panics
/// When it does not.
#[must_use]
pub fn get(from: Option<&str>, server: &str) -> String {
    let server: SocketAddr = server.parse().expect("an address");
    let ask =
        || http::get(server, "/").unwrap_or_else(|error| panic!("{server} from {from:?}: {error}")).body;
    match from {
        Some(netns) => inside(netns, ask),
        None => ask(),
    }
}

/// Whether one echo request out of two is answered.
///
/// # Panics
/// Without ping.
#[must_use]
pub fn pings(netns: &str, to: &str) -> bool {
    let args = ["netns", "exec", netns, "ping", "-c", "2", "-i", "0.2", "-w", "1", to];
    Command::new("ip").args(args).output().expect("ping").status.success()
}

/// Waits until it does: who was asked for in vain is asked for again after a second.
///
/// # Panics
/// When it never does.
pub fn reaches(netns: &str, to: &str) {
    until(SOON, &format!("{netns} reaches {to}"), || pings(netns, to).then_some(()));
}
