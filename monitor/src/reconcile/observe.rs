//! The kernel as it is, of one namespace at a time: links, addresses, routes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{
        InfoBridgePort, InfoData, InfoMacVlan, InfoPortData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
        MacVlanMode as KernelMode, State,
    },
};

use super::{
    lease::LENT,
    session::{NetlinkError, Session},
};
use crate::topology::{
    FlowStats, LinkStats, ObservedLink,
    inner::MacvlanMode,
    names::{IfName, MacAddr},
};

impl Session {
    /// Every link of this namespace with its addresses; owned are those whose alias starts with `tag`, unclaimed those
    /// of `group` without an alias.
    pub(super) async fn links(
        &mut self,
        tag: &str,
        group: u32,
    ) -> Result<BTreeMap<IfName, ObservedLink>, NetlinkError> {
        let raw = self
            .dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| match message {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })
            .await?;
        let addresses = self
            .dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| match message {
                RouteNetlinkMessage::NewAddress(address) => address_of(&address),
                _ => None,
            })
            .await?;
        let names: BTreeMap<u32, IfName> =
            raw.iter().filter_map(|link| Some((link.header.index, name_of(link)?))).collect();
        let mut links: BTreeMap<u32, (IfName, ObservedLink)> = raw
            .into_iter()
            .filter_map(|link| {
                Some((link.header.index, (name_of(&link)?, link_of(link, &names, tag, group))))
            })
            .collect();
        for (ifindex, address) in addresses {
            if let Some((_, link)) = links.get_mut(&ifindex) {
                link.addresses.push(address);
            }
        }
        Ok(links
            .into_values()
            .map(|(name, mut link)| {
                link.addresses.sort();
                (name, link)
            })
            .collect())
    }
}

/// Names that a file could not contain are left out: nothing here concerns such a link.
fn name_of(link: &LinkMessage) -> Option<IfName> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => name.parse().ok(),
        _ => None,
    })
}

fn link_of(message: LinkMessage, names: &BTreeMap<u32, IfName>, tag: &str, group: u32) -> ObservedLink {
    let mut tagged = false;
    let up = message.header.flags.contains(LinkFlags::Up);
    let mut link = ObservedLink {
        ifindex: message.header.index,
        kind: if message.header.flags.contains(LinkFlags::Loopback) { "loopback" } else { "" }.to_owned(),
        mac: None,
        mtu: 0,
        up,
        running: false,
        bridge: None,
        isolated: false,
        owned: false,
        unclaimed: false,
        lent: false,
        peer_ifindex: None,
        macvlan: None,
        queues: 1,
        txqueuelen: 0,
        offload: BTreeMap::new(),
        addresses: Vec::new(),
        stats: LinkStats::default(),
        attached: false,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::Address(mac) => link.mac = mac.try_into().ok().map(MacAddr),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::OperState(state) => {
                link.running = up && matches!(state, State::Up | State::Unknown)
            }
            LinkAttribute::Controller(ifindex) => link.bridge = names.get(&ifindex).cloned(),
            LinkAttribute::IfAlias(alias) => {
                tagged = true;
                link.lent = alias.strip_prefix(tag).is_some_and(|rest| rest.starts_with(LENT));
                link.owned = alias.starts_with(tag) && !link.lent;
            }
            LinkAttribute::Group(found) => link.unclaimed = found == group,
            LinkAttribute::NumTxQueues(queues) => link.queues = queues,
            LinkAttribute::TxQueueLen(length) => link.txqueuelen = length,
            LinkAttribute::Link(ifindex) => link.peer_ifindex = Some(ifindex),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(kind_of).unwrap_or(link.kind);
                link.isolated = infos.iter().any(is_isolated);
                link.macvlan = infos.iter().find_map(macvlan_mode);
            }
            LinkAttribute::Stats64(stats) => {
                link.stats = LinkStats {
                    rx: FlowStats {
                        packets: stats.rx_packets,
                        bytes: stats.rx_bytes,
                        errors: stats.rx_errors,
                        dropped: stats.rx_dropped,
                    },
                    tx: FlowStats {
                        packets: stats.tx_packets,
                        bytes: stats.tx_bytes,
                        errors: stats.tx_errors,
                        dropped: stats.tx_dropped,
                    },
                };
            }
            _ => {}
        }
    }
    link.unclaimed &= !tagged;
    link
}

fn kind_of(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

fn macvlan_mode(info: &LinkInfo) -> Option<MacvlanMode> {
    let LinkInfo::Data(InfoData::MacVlan(data)) = info else { return None };
    data.iter().find_map(|data| match data {
        InfoMacVlan::Mode(KernelMode::Bridge) => Some(MacvlanMode::Bridge),
        InfoMacVlan::Mode(KernelMode::Private) => Some(MacvlanMode::Private),
        InfoMacVlan::Mode(KernelMode::Vepa) => Some(MacvlanMode::Vepa),
        InfoMacVlan::Mode(KernelMode::Passthrough) => Some(MacvlanMode::Passthru),
        _ => None,
    })
}

fn is_isolated(info: &LinkInfo) -> bool {
    matches!(info, LinkInfo::PortData(InfoPortData::BridgePort(data)) if data.contains(&InfoBridgePort::Isolated(true)))
}

/// The link's index and the address with its prefix length. Link-local addresses are the kernel's own.
fn address_of(message: &AddressMessage) -> Option<(u32, IpNet)> {
    if message.header.scope == AddressScope::Link && message.header.family == AddressFamily::Inet6 {
        return None;
    }
    let find = |local| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    // IFA_LOCAL is the address of this end; IFA_ADDRESS is the peer's on a point-to-point link.
    let address = find(true).or_else(|| find(false))?;
    Some((message.header.index, IpNet::new(address, message.header.prefix_len).ok()?))
}
