//! The same wiring by nothing but the needed system calls, one after the other: the floor that the others are held against.
//!
//! Nobody could use this: nothing is checked, recorded, tagged or undone.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    os::fd::AsRawFd as _,
    path::Path,
    thread,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoData, InfoKind, InfoVeth},
    },
    sys::{Socket, protocols::NETLINK_ROUTE},
};

use crate::wiring::{PREFIX, Plan, Segment};

/// A veth gets the first free index of a new namespace, after `lo`.
const ETH0: u32 = 2;
const LO: u32 = 1;

pub(crate) fn build(plan: &Plan) -> Result<()> {
    let host = Socket::new(NETLINK_ROUTE)?;
    plan.bridges.iter().try_for_each(|segment| build_segment(&host, segment))
}

fn build_segment(host: &Socket, segment: &Segment) -> Result<()> {
    let Segment { bridge, gateway, namespaces } = segment;
    let new = LinkMessageBuilder::<LinkBridge>::new(bridge).up().build();
    ask(host, RouteNetlinkMessage::NewLink(new))?;
    let bridge = if_nametoindex(bridge.as_str())?;
    ask(host, address(bridge, *gateway))?;
    for (name, own) in namespaces {
        let path = Path::new("/run/netns").join(name);
        let inside = thread::scope(|scope| scope.spawn(|| namespace(&path)).join());
        let inside = inside.map_err(|_panic| anyhow::anyhow!("a thread panicked"))??;
        let netns = File::open(&path)?;
        let peer =
            LinkMessageBuilder::<LinkUnspec>::new().name("eth0").setns_by_fd(netns.as_raw_fd()).build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(format!("{name}-eth0"))
            .controller(bridge)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        ask(host, RouteNetlinkMessage::NewLink(pair.build()))?;
        ask(&inside, address(ETH0, *own))?;
        ask(&inside, up(LO))?;
        ask(&inside, up(ETH0))?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(*gateway).build();
        ask(&inside, RouteNetlinkMessage::NewRoute(route))?;
    }
    Ok(())
}

/// Deletes the names: the kernel takes the rest apart by itself.
pub(crate) fn delete(plan: &Plan) -> Result<()> {
    let host = Socket::new(NETLINK_ROUTE)?;
    for Segment { bridge, gateway: _, namespaces } in &plan.bridges {
        for (name, _) in namespaces {
            let path = Path::new("/run/netns").join(name);
            umount2(&path, MntFlags::MNT_DETACH)?;
            fs::remove_file(&path)?;
        }
        let bridge = LinkMessageBuilder::<LinkUnspec>::new().index(if_nametoindex(bridge.as_str())?).build();
        ask(&host, RouteNetlinkMessage::DelLink(bridge))?;
    }
    Ok(())
}

/// Makes a namespace at a path; what it returns is a netlink socket inside it.
fn namespace(path: &Path) -> Result<Socket> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    File::create(path)?;
    mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(Socket::new(NETLINK_ROUTE)?)
}

fn up(ifindex: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::SetLink(LinkMessageBuilder::<LinkUnspec>::new().index(ifindex).up().build())
}

fn address(ifindex: u32, address: Ipv4Addr) -> RouteNetlinkMessage {
    let message = AddressMessageBuilder::<Ipv4Addr>::new().index(ifindex).address(address, PREFIX);
    RouteNetlinkMessage::NewAddress(message.build())
}

/// Sends a request and reads the kernel's answer.
fn ask(socket: &Socket, message: RouteNetlinkMessage) -> Result<()> {
    let mut request = NetlinkMessage::from(message);
    // Of a deletion, `NLM_F_EXCL` would mean something else.
    let new = matches!(
        request.payload,
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewLink(_)
                | RouteNetlinkMessage::NewAddress(_)
                | RouteNetlinkMessage::NewRoute(_)
        )
    );
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | if new { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).context("an answer")?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        other => bail!("{:?}: {other:?}", request.payload),
    }
}
