//! Sends echo requests and waits for the answers, by raw sockets opened in the namespace the packets leave from. Which
//! groups may use other sockets for that (`ping_group_range`) does not matter here.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket},
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};

use super::echo::{self, Heard, Token};
use crate::{
    netns::{self, NetnsError},
    topology::names::Place,
};

/// How many, how fast, how long to wait for the last.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Echoes to each address.
    pub count: u16,
    /// Between two of them.
    pub interval: Duration,
    /// After the last of them.
    pub timeout: Duration,
}

/// Whom to ask from one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The address.
    pub to: IpAddr,
    /// The link, where the address is for one link alone.
    pub scope: u32,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Echo requests that the kernel took.
    pub sent: u32,
    /// Answers to them.
    pub received: u32,
    /// Shortest, mean and longest time to an answer.
    pub rtt: Option<[Duration; 3]>,
    /// Why the kernel did not take one (`errno`).
    pub refused: Option<i32>,
    /// Who said that they did not arrive, with type and code of the message.
    pub told: Option<(IpAddr, u8, u8)>,
}

/// Buffer of a socket that hears of everything at once.
const BUFFER: usize = 4 << 20;

/// Asks from one place, on a thread of that namespace that then ends.
///
/// # Errors
/// The namespace cannot be entered, or gives no such socket.
pub fn ask(
    netns_dir: &Path,
    place: &Place,
    questions: &[Question],
    pace: Pace,
) -> anyhow::Result<Vec<Answer>> {
    let work = || both_families(questions, pace);
    Ok(match place {
        Place::Host => work(),
        Place::Netns(name) => netns::inside(netns_dir, name, work)?,
    }?)
}

fn both_families(questions: &[Question], pace: Pace) -> io::Result<Vec<Answer>> {
    let mut answers = vec![Answer::default(); questions.len()];
    let of = |ipv6: bool| -> Vec<(usize, Question)> {
        let all = questions.iter().copied().enumerate();
        all.filter(|(_, question)| question.to.is_ipv6() == ipv6).collect()
    };
    // A thread inherits the namespace of the one that starts it.
    let results = thread::scope(|scope| {
        [false, true]
            .map(|ipv6| {
                let questions = of(ipv6);
                scope.spawn(move || {
                    if questions.is_empty() { Ok(Vec::new()) } else { family(ipv6, &questions, pace) }
                })
            })
            .map(|thread| thread.join().map_err(|_panic| io::Error::other("a thread that pings panicked"))?)
    });
    for found in results {
        for (index, answer) in found? {
            answers[index] = answer;
        }
    }
    Ok(answers)
}

fn family(ipv6: bool, questions: &[(usize, Question)], pace: Pace) -> io::Result<Vec<(usize, Answer)>> {
    let socket = open(ipv6)?;
    let mut asking = Asking::new(socket, ipv6, questions, pace.count);
    let mut last = Instant::now();
    for seq in 0..pace.count {
        for index in 0..questions.len() {
            asking.send(index, seq);
            asking.hear(None)?;
        }
        last = Instant::now();
        if seq + 1 < pace.count {
            asking.hear(Some(last + pace.interval))?;
        }
    }
    asking.hear_all(last + pace.timeout)?;
    Ok(asking.results())
}

fn open(ipv6: bool) -> io::Result<UdpSocket> {
    let (family, protocol) = match ipv6 {
        false => (AddressFamily::Inet, SockProtocol::Icmp),
        true => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        tracing::debug!("the buffer of a raw socket stays at its default size");
    }
    // Not UDP: the type only lends its calls, which are those of any socket that sends to addresses.
    Ok(socket.into())
}

struct Asking<'a> {
    socket: UdpSocket,
    ipv6: bool,
    token: Token,
    questions: &'a [(usize, Question)],
    answers: Vec<Answer>,
    /// When each was sent; absent once it is answered.
    waiting: BTreeMap<(usize, u16), Instant>,
    times: Vec<Vec<Duration>>,
}

impl<'a> Asking<'a> {
    fn new(socket: UdpSocket, ipv6: bool, questions: &'a [(usize, Question)], count: u16) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let times = vec![Vec::with_capacity(count.into()); questions.len()];
        Self {
            socket,
            ipv6,
            token: Token::new(now ^ (u128::from(std::process::id()) << 96), std::process::id()),
            questions,
            answers: vec![Answer::default(); questions.len()],
            waiting: BTreeMap::new(),
            times,
        }
    }

    fn send(&mut self, index: usize, seq: u16) {
        let Question { to, scope } = self.questions[index].1;
        let packet = echo::request(self.ipv6, &self.token, index as u32, seq);
        let to = match to {
            IpAddr::V4(to) => SocketAddr::new(to.into(), 0),
            IpAddr::V6(to) => SocketAddrV6::new(to, 0, 0, scope).into(),
        };
        let now = Instant::now();
        match self.socket.send_to(&packet, to) {
            Ok(_) => {
                self.answers[index].sent += 1;
                self.waiting.insert((index, seq), now);
            }
            Err(error) => self.answers[index].refused = error.raw_os_error(),
        }
    }

    /// Hears until then; only what is there already when there is no time given.
    fn hear(&mut self, until: Option<Instant>) -> io::Result<()> {
        self.hear_while(until, &|_| true)
    }

    /// Hears until everything is answered, or then.
    fn hear_all(&mut self, until: Instant) -> io::Result<()> {
        self.hear_while(Some(until), &|waiting| waiting > 0)
    }

    fn hear_while(&mut self, until: Option<Instant>, on: &dyn Fn(usize) -> bool) -> io::Result<()> {
        let mut buffer = [0; 2048];
        while on(self.waiting.len()) {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match left {
                None => self.socket.set_nonblocking(true)?,
                Some(left) if left.is_zero() => return Ok(()),
                Some(left) => {
                    self.socket.set_nonblocking(false)?;
                    self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
                }
            }
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => self.note(&buffer[..length], from.ip(), Instant::now()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if until.is_none() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn note(&mut self, packet: &[u8], from: IpAddr, now: Instant) {
        match echo::read(self.ipv6, packet, &self.token) {
            Some(Heard::Reply { index, seq }) => {
                let index = index as usize;
                // An answer that comes twice counts once, and who was not asked has not answered.
                let asked = self.questions.get(index).is_some_and(|(_, question)| question.to == from);
                if !asked {
                    return;
                }
                if let Some(sent) = self.waiting.remove(&(index, seq)) {
                    self.answers[index].received += 1;
                    self.times[index].push(now.duration_since(sent));
                }
            }
            Some(Heard::Error { to, kind, code }) => {
                let asked = self.questions.iter().position(|(_, question)| question.to == to);
                if let Some(index) = asked {
                    self.answers[index].told = Some((from, kind, code));
                }
            }
            None => {}
        }
    }

    fn results(self) -> Vec<(usize, Answer)> {
        let Self { questions, answers, times, .. } = self;
        let all = questions.iter().zip(answers).zip(times);
        all.map(|(((index, _), answer), times)| (*index, Answer { rtt: summary(&times), ..answer })).collect()
    }
}

fn summary(times: &[Duration]) -> Option<[Duration; 3]> {
    let (shortest, longest) = (times.iter().min()?, times.iter().max()?);
    let mean = times.iter().sum::<Duration>() / u32::try_from(times.len()).ok()?;
    Some([*shortest, mean, *longest])
}

/// Whether a failure is that of a process without the right to open raw sockets.
pub fn is_forbidden(error: &anyhow::Error) -> bool {
    let of_io = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    let of_netns = match error.downcast_ref() {
        Some(NetnsError::Io { source, .. }) => source.raw_os_error(),
        _ => None,
    };
    matches!(of_io.or(of_netns), Some(libc::EPERM | libc::EACCES))
}
