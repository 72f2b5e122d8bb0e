//! One TCX link: made, opened from its pin, given a new program.

use std::{io, path::Path, thread, time::Duration};

use aya::programs::{
    LinkOrder, MultiProgLink as _, ProgramId, SchedClassifier, TcAttachType,
    links::{FdLink, LinkError, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
};
use nix::net::if_::if_indextoname;

use super::{
    Hook, ProbeError, Side, Target,
    error::errno,
    sys::{self, LinkInfo},
};

/// Tries against a rename between looking up the name and attaching by it, and the milliseconds waited after each
/// that found an old link of ours still there.
const PAUSES_MS: [u64; 8] = [5, 10, 20, 40, 80, 160, 320, 640];

/// Whether this kernel has TCX: asked, not concluded from a version.
pub(crate) fn is_supported() -> bool {
    // Index 1 is the loopback device; that it is missing would be another error than "no such call".
    !matches!(sys::tcx_links(1, Hook::Ingress), Err(error) if error.raw_os_error() == Some(libc::EINVAL))
}

/// Attaches in the calling thread's namespace: directly behind another program, or at the head of the chain. The link
/// ends when it is dropped unpinned.
pub(crate) fn attach(
    program: &mut SchedClassifier,
    target: &Target,
    hook: Hook,
    behind: Option<u32>,
) -> Result<SchedClassifierLink, ProbeError> {
    let (ifindex, call) = (target.ifindex(), "attach by TCX");
    for pause in PAUSES_MS {
        let name = interface_name(target)?;
        let order = TcAttachOptions::TcxOrder(order(behind));
        let attached = program
            .attach_with_options(&name, TcAttachType::from(hook), order)
            .and_then(|link| program.take_link(link));
        match attached {
            // aya attaches by name, and names change: only the index says which interface it is.
            Ok(link) if info(&link, target)?.ifindex == ifindex => return Ok(link),
            Ok(_elsewhere) => {}
            // A link whose pin was removed is detached by the kernel a little later; a program attaches once.
            Err(error) if errno(&error) == Some(libc::EEXIST) => thread::sleep(Duration::from_millis(pause)),
            Err(error) => return Err(ProbeError::new(call, at(target, hook), &error)),
        }
    }
    Err(ProbeError::failed(
        call,
        at(target, hook),
        "it is renamed all the time, or our program is on it already",
    ))
}

#[allow(unsafe_code, reason = "aya asks for a promise about the number")]
fn order(behind: Option<u32>) -> LinkOrder {
    match behind {
        // SAFETY: a number that is no program's, or not one's on this hook, makes the kernel refuse.
        Some(program) => LinkOrder::after_program_id(unsafe { ProgramId::new(program) }),
        None => LinkOrder::first(),
    }
}

/// Opens a pinned link; none where there is no such pin.
pub(crate) fn open(path: &Path) -> Result<Option<SchedClassifierLink>, ProbeError> {
    let wrong = |error: &LinkError| ProbeError::new("open the pinned link", path.display(), error);
    match PinnedLink::from_pin(path) {
        Ok(link) => {
            SchedClassifierLink::try_from(FdLink::from(link)).map(Some).map_err(|error| wrong(&error))
        }
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(wrong(&error)),
    }
}

/// Pins a link; from then on the pin keeps it, not the agent.
pub(crate) fn pin(link: SchedClassifierLink, path: &Path) -> Result<(), ProbeError> {
    FdLink::try_from(link)
        .map_err(|error| ProbeError::new("pin the link", path.display(), &error))?
        .pin(path)
        .map(drop)
        .map_err(|error| ProbeError::new("pin the link", path.display(), &error))
}

/// Lets a link run another program; no packet passes between the two.
pub(crate) fn update(
    program: &mut SchedClassifier,
    link: SchedClassifierLink,
    of: &Target,
) -> Result<SchedClassifierLink, ProbeError> {
    program
        .attach_to_link(link)
        .and_then(|link| program.take_link(link))
        .map_err(|error| ProbeError::new("update the link", of, &error))
}

/// What a link is attached to.
pub(crate) fn info(link: &SchedClassifierLink, of: &Target) -> Result<LinkInfo, ProbeError> {
    let fd = link.fd().map_err(|error| ProbeError::new("look at the link", of, &error))?;
    sys::link_info(fd).map_err(|error| ProbeError::new("look at the link", of, &error))
}

/// Whether a link is attached to the target.
pub(crate) fn is_on(info: LinkInfo, target: &Target, hook: Hook) -> Result<bool, ProbeError> {
    match target.side {
        _ if info.ifindex != target.ifindex() => Ok(false),
        // Links follow an interface into another namespace, where it may keep its index.
        Side::HostEnd { ifindex } => match sys::tcx_links(ifindex, hook) {
            Ok(links) => Ok(links.contains(&info.id)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(ProbeError::new("list the TCX links", at(target, hook), &error)),
        },
        Side::Inside { .. } => Ok(true),
    }
}

/// Detaches a link, also where it is pinned.
pub(crate) fn detach(link: &SchedClassifierLink, of: &Target) -> Result<(), ProbeError> {
    let fd = link.fd().map_err(|error| ProbeError::new("detach", of, &error))?;
    sys::detach_link(fd).map_err(|error| ProbeError::new("detach", of, &error))
}

/// The interface's name in the calling thread's namespace.
pub(crate) fn interface_name(target: &Target) -> Result<String, ProbeError> {
    let call = "look up the interface";
    let name = if_indextoname(target.ifindex()).map_err(|error| ProbeError::new(call, target, &error))?;
    if name.is_empty() {
        // What nix 0.31 makes of an index that does not exist.
        return Err(ProbeError::new(call, target, &io::Error::from_raw_os_error(libc::ENODEV)));
    }
    name.into_string().map_err(|error| ProbeError::failed(call, target, error))
}

pub(crate) fn at(target: &Target, hook: Hook) -> String {
    format!("{target}, {}", hook.program())
}

impl From<Hook> for TcAttachType {
    fn from(hook: Hook) -> Self {
        match hook {
            Hook::Ingress => Self::Ingress,
            Hook::Egress => Self::Egress,
        }
    }
}
