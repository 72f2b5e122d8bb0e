//! Counting where TCX is missing: a filter of ours on the clsact qdisc. The filter holds the program, so it outlives
//! the agent; its handle is always the same, so that a restart replaces it and never adds a second one.
//! Filters and qdiscs of others are never touched.

use std::{io, mem};

use aya::programs::{
    SchedClassifier, TcAttachType,
    tc::{
        NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle, qdisc_add_clsact,
    },
};
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::{TimeVal, TimeValLike as _},
};
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_ECHO, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
        NetlinkPayload,
    },
    packet_route::{
        RouteNetlinkMessage,
        tc::{self, TcAttribute, TcFilterBpfOption, TcHeader, TcMessage, TcOption},
    },
    sys::{Socket, protocols::NETLINK_ROUTE},
};

use super::{Hook, ProbeError, Target, error::errno, tcx};

/// `nm` and 1: no handle the kernel would choose.
const HANDLE: TcHandle = TcHandle::new(0x6e6d, 1);
/// Priorities tried, the foremost first: one may be taken by a filter of another kind.
const PRIORITIES: std::ops::RangeInclusive<u16> = 1..=16;
/// Longest wait for an answer of the kernel, in seconds.
const TIMEOUT: i64 = 5;
/// Dumps begun anew because something changed meanwhile.
const DUMPS: usize = 5;

/// A filter on one hook of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filter {
    handle: u32,
    priority: u16,
    kind: String,
    name: Option<String>,
    program: Option<u32>,
}

impl Filter {
    fn is_ours(&self, hook: Hook) -> bool {
        self.handle == u32::from(HANDLE) && self.kind == "bpf" && self.name.as_deref() == Some(hook.program())
    }
}

/// Attaches in the calling thread's namespace, or replaces the program of our filter. Says whether it made the qdisc.
pub(super) fn attach(
    program: &mut SchedClassifier,
    id: u32,
    target: &Target,
    hook: Hook,
) -> Result<bool, ProbeError> {
    let call = "attach by clsact";
    let name = tcx::interface_name(target)?;
    let made = match qdisc_add_clsact(&name) {
        Ok(()) => true,
        Err(error) if errno(&error) == Some(libc::EEXIST) => match qdisc(target)?.as_deref() {
            Some("clsact") => false,
            // An `ingress` qdisc would take the filter for egress too, and run it for what is received.
            other => {
                let why = format!(
                    "a qdisc of kind {} stands where clsact would: `tc qdisc del dev {name} ingress`, or count by TCX",
                    other.unwrap_or("unknown")
                );
                return Err(ProbeError::failed("add the clsact qdisc", target, why));
            }
        },
        Err(error) => return Err(ProbeError::new("add the clsact qdisc", target, &error)),
    };
    let ours = filters(target, hook)?.into_iter().find(|filter| filter.is_ours(hook));
    let attached = match ours {
        Some(filter) => {
            SchedClassifierLink::attached(&name, TcAttachType::from(hook), filter.priority, HANDLE, None)
                .map_err(|error| ProbeError::new(call, tcx::at(target, hook), &error))
                .and_then(|link| {
                    program
                        .attach_to_link(link)
                        .map_err(|error| ProbeError::new(call, tcx::at(target, hook), &error))
                })
        }
        None => attach_anew(program, &name, target, hook),
    }?;
    let link =
        program.take_link(attached).map_err(|error| ProbeError::new(call, tcx::at(target, hook), &error))?;
    // Dropping the link would remove the filter, which is to outlive us.
    mem::forget(link);
    match attached_program(target, hook)? {
        Some(found) if found == id => Ok(made),
        _ => Err(ProbeError::failed(call, tcx::at(target, hook), "the filter is not there afterwards")),
    }
}

fn attach_anew(
    program: &mut SchedClassifier,
    name: &str,
    target: &Target,
    hook: Hook,
) -> Result<SchedClassifierLinkId, ProbeError> {
    let mut last = None;
    for priority in PRIORITIES {
        let options = TcAttachOptions::Netlink(NlOptions { priority, handle: HANDLE, classid: None });
        match program.attach_with_options(name, TcAttachType::from(hook), options) {
            Ok(link) => return Ok(link),
            // The priority belongs to filters of another kind or protocol.
            Err(error) if matches!(errno(&error), Some(libc::EINVAL | libc::EEXIST | libc::ENOENT)) => {
                last = Some(error);
            }
            Err(error) => return Err(ProbeError::new("attach by clsact", tcx::at(target, hook), &error)),
        }
    }
    let error = last.expect("at least one priority was tried");
    Err(ProbeError::new("attach by clsact", tcx::at(target, hook), &error))
}

/// The program of our filter in the calling thread's namespace, if the filter is there.
pub(super) fn attached_program(target: &Target, hook: Hook) -> Result<Option<u32>, ProbeError> {
    let ours = filters(target, hook)?.into_iter().find(|filter| filter.is_ours(hook));
    Ok(ours.and_then(|filter| filter.program))
}

/// Removes our filters in the calling thread's namespace, and the qdisc if it is ours and nobody else uses it.
pub(super) fn detach(target: &Target, made_qdisc: bool) -> Result<(), ProbeError> {
    let mut others = false;
    for hook in Hook::BOTH {
        for filter in filters(target, hook)? {
            if filter.is_ours(hook) {
                delete_filter(target, hook, &filter)?;
            } else {
                others = true;
            }
        }
    }
    if made_qdisc && !others {
        let mut message = TcMessage::with_index(index(target));
        message.header.handle = tc::TcHandle { major: 0xffff, minor: 0 };
        message.header.parent = tc::TcHandle::CLSACT;
        message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        let gone = request(RouteNetlinkMessage::DelQueueDiscipline(message), NLM_F_ACK).map(drop);
        unless_gone("remove the clsact qdisc", target, gone)?;
    }
    Ok(())
}

fn delete_filter(target: &Target, hook: Hook, filter: &Filter) -> Result<(), ProbeError> {
    let mut message = TcMessage::with_index(index(target));
    message.header.parent = parent(hook);
    message.header.handle = filter.handle.into();
    message.header.info = (u32::from(filter.priority) << 16) | u32::from((libc::ETH_P_ALL as u16).to_be());
    message.attributes.push(TcAttribute::Kind(filter.kind.clone()));
    let gone = request(RouteNetlinkMessage::DelTrafficFilter(message), NLM_F_ACK).map(drop);
    unless_gone("remove our filter", target, gone)
}

/// Kind of the qdisc at the place of clsact. The kernel answers the asker only when told to echo.
fn qdisc(target: &Target) -> Result<Option<String>, ProbeError> {
    let mut message = TcMessage::with_index(index(target));
    message.header.parent = tc::TcHandle::CLSACT;
    let answers = request(RouteNetlinkMessage::GetQueueDiscipline(message), NLM_F_ACK | NLM_F_ECHO)
        .map_err(|error| ProbeError::new("look at the qdisc", target, &error))?;
    Ok(answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewQueueDiscipline(qdisc) => {
            qdisc.attributes.into_iter().find_map(|attribute| match attribute {
                TcAttribute::Kind(kind) => Some(kind),
                _ => None,
            })
        }
        _ => None,
    }))
}

/// An interface that went away meanwhile took filters and qdisc with it.
fn unless_gone(call: &'static str, target: &Target, result: io::Result<()>) -> Result<(), ProbeError> {
    match result {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT | libc::EINVAL)) => {
            Err(ProbeError::new(call, target, &error))
        }
        _ => Ok(()),
    }
}

fn filters(target: &Target, hook: Hook) -> Result<Vec<Filter>, ProbeError> {
    let mut message = TcMessage::with_index(index(target));
    message.header.parent = parent(hook);
    let request = RouteNetlinkMessage::GetTrafficFilter(message);
    let answers = self::request(request, NLM_F_DUMP);
    let answers = match answers {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Vec::new(),
        answers => {
            answers.map_err(|error| ProbeError::new("list the filters", tcx::at(target, hook), &error))?
        }
    };
    Ok(answers.iter().filter_map(filter).filter(|filter| filter.handle != 0).collect())
}

fn filter(message: &RouteNetlinkMessage) -> Option<Filter> {
    let RouteNetlinkMessage::NewTrafficFilter(TcMessage {
        header: TcHeader { handle, info, .. },
        attributes,
        ..
    }) = message
    else {
        return None;
    };
    let mut filter = Filter {
        handle: (*handle).into(),
        priority: (info >> 16) as u16,
        kind: String::new(),
        name: None,
        program: None,
    };
    for attribute in attributes {
        match attribute {
            TcAttribute::Kind(kind) => filter.kind.clone_from(kind),
            TcAttribute::Options(options) => {
                for option in options {
                    match option {
                        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.name = Some(name.clone()),
                        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program = Some(*id),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(filter)
}

fn parent(hook: Hook) -> tc::TcHandle {
    let minor = match hook {
        Hook::Ingress => tc::TcHandle::MIN_INGRESS,
        Hook::Egress => tc::TcHandle::MIN_EGRESS,
    };
    tc::TcHandle { major: 0xffff, minor }
}

fn index(target: &Target) -> i32 {
    target.ifindex().cast_signed()
}

/// Asks rtnetlink in the calling thread's namespace and returns every answer; an interrupted dump is begun anew.
fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(TIMEOUT))?;
    for sequence in 1..=DUMPS as u32 {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message.clone()));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        socket.send(&bytes, 0)?;
        if let Some(answers) = answers(&socket, sequence)? {
            return Ok(answers);
        }
    }
    Err(io::Error::other("the kernel's list changed each time it was read"))
}

/// Reads to the end of one answer; nothing when it was interrupted.
fn answers(socket: &Socket, sequence: u32) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
    let mut found = Vec::new();
    let mut interrupted = false;
    loop {
        let (packet, _) = socket.recv_from_full()?;
        let mut rest = packet.as_slice();
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            let length = (message.header.length as usize).next_multiple_of(4).min(rest.len());
            rest = &rest[length.max(1)..];
            if message.header.sequence_number != sequence {
                continue;
            }
            interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => found.push(answer),
                NetlinkPayload::Done(done) if done.code != 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(found)),
                NetlinkPayload::Error(error) => match error.code {
                    Some(code) => return Err(io::Error::from_raw_os_error(-code.get())),
                    None => return Ok(Some(found)),
                },
                _ => {}
            }
        }
    }
}
