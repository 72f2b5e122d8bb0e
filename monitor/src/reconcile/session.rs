//! Netlink connections: one for as long as one piece of work takes, or a few kept while a plan is performed.
//!
//! A socket belongs to the namespace it was opened in, whichever thread uses it afterwards. A reply is believed only
//! when it is an acknowledgement, and a dump only when nothing changed underneath.

use std::{
    collections::{HashMap, VecDeque},
    io,
    time::Duration,
};

use futures_util::StreamExt as _;
use rtnetlink::{
    Handle,
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    sys::AsyncSocket as _,
};
use tokio::runtime::{self, Runtime};

use crate::topology::names::Place;

/// The kernel answers at once; more than this means that the answer was lost.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often an interrupted dump is repeated before giving up.
const DUMP_TRIES: u32 = 5;
/// Dumps of a thousand links come faster than they are read.
const BUFFER: usize = 8 << 20;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused.
    #[error("{0}")]
    Refused(#[source] io::Error),
    /// There was no socket, or it broke.
    #[error("netlink: {0}")]
    Socket(#[source] io::Error),
    /// No answer came.
    #[error("netlink: no answer from the kernel within {} s", DEADLINE.as_secs())]
    Deadline,
    /// The connection ended before the kernel acknowledged.
    #[error("netlink: the connection ended before the kernel acknowledged")]
    Unacknowledged,
    /// The kernel's state changed during each of several dumps.
    #[error("netlink: {DUMP_TRIES} dumps in a row were interrupted by changes")]
    Interrupted,
}

impl NetlinkError {
    /// The kernel's error number, where it refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(error) => error.raw_os_error(),
            _ => None,
        }
    }
}

/// Connections that stay open from one step to the next: most steps are about a place that one before was about.
const KEPT: usize = 64;

/// A connection to the kernel.
pub(super) struct Session {
    handle: Handle,
    /// Indexes of links that were found to be ours since it was opened, by name.
    known: HashMap<String, u32>,
}

/// Opens a session in the calling thread's namespace, runs `work`, and closes it.
pub(super) fn session<T, E: From<NetlinkError>>(
    work: impl AsyncFnOnce(&mut Session) -> Result<T, E>,
) -> Result<T, E> {
    session_on(&runtime()?, work)
}

/// The same by a runtime that others use after it.
pub(super) fn session_on<T, E: From<NetlinkError>>(
    runtime: &Runtime,
    work: impl AsyncFnOnce(&mut Session) -> Result<T, E>,
) -> Result<T, E> {
    let mut session = Session::open(runtime.handle())?;
    let done = runtime.block_on(work(&mut session));
    drop(session);
    // The connection ends when its task sees that nobody uses it.
    runtime.block_on(tokio::task::yield_now());
    done
}

/// What drives sessions of one thread.
pub(super) fn runtime() -> Result<Runtime, NetlinkError> {
    runtime::Builder::new_current_thread().enable_all().build().map_err(NetlinkError::Socket)
}

/// Sessions kept while a plan is performed.
pub(super) struct Pool {
    runtime: Runtime,
    /// The one opened last is last.
    sessions: VecDeque<(Place, Session)>,
}

impl Pool {
    pub(super) fn new() -> Result<Self, NetlinkError> {
        Ok(Self { runtime: runtime()?, sessions: VecDeque::new() })
    }

    /// Runs `work` with the session of a place; `open` makes one there if none is open.
    pub(super) fn run<T, E: From<NetlinkError>>(
        &mut self,
        place: &Place,
        open: impl FnOnce(&runtime::Handle) -> Result<Session, E>,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, E>,
    ) -> Result<T, E> {
        let known = self.sessions.iter().position(|(other, _)| other == place);
        let index = match known {
            Some(index) => index,
            None => {
                let session = open(self.runtime.handle())?;
                if self.sessions.len() == KEPT {
                    self.sessions.pop_front();
                }
                self.sessions.push_back((place.clone(), session));
                self.sessions.len() - 1
            }
        };
        self.runtime.block_on(work(&mut self.sessions[index].1))
    }

    /// What has this name there next is another link.
    pub(super) fn forget(&mut self, place: &Place, name: &str) {
        for (_, session) in self.sessions.iter_mut().filter(|(other, _)| other == place) {
            session.known.remove(name);
        }
    }

    /// Closes the session of a place: what has its name next is another one.
    pub(super) fn close(&mut self, place: &Place) {
        self.sessions.retain(|(other, _)| other != place);
        // The connection ends when its task sees that nobody uses it.
        self.runtime.block_on(tokio::task::yield_now());
    }
}

impl Session {
    /// Opens a connection in the calling thread's namespace; it is driven by the runtime.
    pub(super) fn open(runtime: &runtime::Handle) -> Result<Self, NetlinkError> {
        let _entered = runtime.enter();
        let (mut connection, handle, _unsolicited) =
            rtnetlink::new_connection().map_err(NetlinkError::Socket)?;
        // A smaller buffer is slower, not wrong: what is lost shows as a missing answer.
        if connection.socket_mut().socket_mut().set_rx_buf_sz(BUFFER).is_err() {
            tracing::debug!("the netlink buffer stays at its default size");
        }
        // By default both are swallowed, and a broken connection looks like success.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        runtime.spawn(connection);
        Ok(Self { handle, known: HashMap::new() })
    }

    /// The index of a link that was found to be ours.
    pub(super) fn known(&self, name: &str) -> Option<u32> {
        self.known.get(name).copied()
    }

    /// Notes that a link is ours, so that the next step need not look for it.
    pub(super) fn remember(&mut self, name: &str, ifindex: u32) {
        self.known.insert(name.to_owned(), ifindex);
    }

    /// Sends a request and waits for its acknowledgement.
    pub(super) async fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.handle.request(request).map_err(lost)?;
        let answer = async {
            while let Some(answer) = answers.next().await {
                if let NetlinkPayload::Error(error) = answer.payload {
                    return match error.code {
                        None => Ok(()),
                        Some(_) => Err(NetlinkError::Refused(error.to_io())),
                    };
                }
            }
            Err(NetlinkError::Unacknowledged)
        };
        tokio::time::timeout(DEADLINE, answer).await.unwrap_or(Err(NetlinkError::Deadline))
    }

    /// Asks for one thing.
    pub(super) async fn get(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST;
        let mut answers = self.handle.request(request).map_err(lost)?;
        match tokio::time::timeout(DEADLINE, answers.next()).await {
            Err(_late) => Err(NetlinkError::Deadline),
            Ok(None) => Err(NetlinkError::Unacknowledged),
            Ok(Some(answer)) => match answer.payload {
                NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
                NetlinkPayload::Error(error) => Err(NetlinkError::Refused(error.to_io())),
                _ => Ok(None),
            },
        }
    }

    /// Everything of one kind; `pick` takes what it wants from each message. Repeated when the kernel says that
    /// something changed meanwhile.
    pub(super) async fn dump<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        mut pick: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_TRIES {
            let dumped = tokio::time::timeout(DEADLINE, self.dump_once(message, &mut pick)).await;
            if let Some(items) = dumped.unwrap_or(Err(NetlinkError::Deadline))? {
                return Ok(items);
            }
        }
        Err(NetlinkError::Interrupted)
    }

    /// Nothing where the dump was interrupted.
    async fn dump_once<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        pick: &mut impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Option<Vec<T>>, NetlinkError> {
        let mut request = NetlinkMessage::from(message.clone());
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.handle.request(request).map_err(lost)?;
        let (mut items, mut interrupted) = (Vec::new(), false);
        while let Some(answer) = answers.next().await {
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => items.extend(pick(message)),
                NetlinkPayload::Error(error) => return Err(NetlinkError::Refused(error.to_io())),
                NetlinkPayload::Done(done) if done.code != 0 => {
                    return Err(NetlinkError::Refused(io::Error::from_raw_os_error(
                        done.code.saturating_abs(),
                    )));
                }
                NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(items)),
                _ => {}
            }
        }
        Err(NetlinkError::Unacknowledged)
    }
}

fn lost(error: rtnetlink::Error) -> NetlinkError {
    NetlinkError::Socket(io::Error::other(error.to_string()))
}
