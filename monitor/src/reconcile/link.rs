//! The verbs: each builds one message and sends it. Names the namespace of the calling thread has.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::RawFd,
};

use ipnet::IpNet;
use rtnetlink::{
    AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, LinkVeth,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressMessage},
        link::{
            InfoBridgePort, InfoData, InfoKind, InfoMacVlan, InfoPortData, InfoPortKind, InfoVeth,
            LinkAttribute, LinkExtentMask, LinkMessage, MacVlanMode as KernelMode,
        },
    },
};

use super::session::{NetlinkError, Session};
use crate::topology::{inner::MacvlanMode, names::MacAddr, step::NewEnd};

/// What `ip link show dev NAME` knows, as far as it is needed before changing the link.
pub(super) struct Found {
    pub(super) ifindex: u32,
    pub(super) alias: Option<String>,
    pub(super) group: u32,
}

pub(super) const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

impl Session {
    /// The link of this name; absent when there is none.
    pub(super) async fn find(&mut self, name: &str) -> Result<Option<Found>, NetlinkError> {
        let mut asked = LinkMessage::default();
        asked.attributes.push(LinkAttribute::IfName(name.to_string()));
        // Most of the answer, and of the time it takes.
        asked.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let link = match self.get(RouteNetlinkMessage::GetLink(asked)).await {
            Ok(Some(RouteNetlinkMessage::NewLink(link))) => link,
            Ok(_) => return Ok(None),
            Err(error) if error.errno() == Some(libc::ENODEV) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut found = Found { ifindex: link.header.index, alias: None, group: 0 };
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfAlias(alias) => found.alias = Some(alias),
                LinkAttribute::Group(group) => found.group = group,
                _ => {}
            }
        }
        Ok(Some(found))
    }

    pub(super) async fn add_bridge(
        &mut self,
        name: &str,
        group: u32,
        mtu: Option<u32>,
        mac: Option<MacAddr>,
    ) -> Result<(), NetlinkError> {
        let mut builder = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Bridge)
            .name(name)
            .link_group(group);
        if let Some(mtu) = mtu {
            builder = builder.mtu(mtu);
        }
        if let Some(MacAddr(mac)) = mac {
            builder = builder.address(mac.to_vec());
        }
        self.request(RouteNetlinkMessage::NewLink(builder.build()), NEW).await
    }

    /// A veth pair: `a` here, `b` in the namespace behind `peer_netns` (or here too). Both down: a peer cannot be set up
    /// in the same request.
    pub(super) async fn add_veth(
        &mut self,
        a: &NewEnd,
        b: &NewEnd,
        group: u32,
        peer_netns: Option<RawFd>,
    ) -> Result<(), NetlinkError> {
        let mut peer = LinkMessageBuilder::<LinkUnspec>::new().name(b.link.name.as_str()).link_group(group);
        if let Some(netns) = peer_netns {
            peer = peer.setns_by_fd(netns);
        }
        let peer = properties(peer, b).build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(a.link.name.as_str())
            .link_group(group)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        self.request(RouteNetlinkMessage::NewLink(properties(pair, a).build()), NEW).await
    }

    /// A macvlan of the device `parent` of this namespace, in the namespace behind `netns`. Down.
    pub(super) async fn add_macvlan(
        &mut self,
        parent: u32,
        mode: MacvlanMode,
        end: &NewEnd,
        group: u32,
        netns: RawFd,
    ) -> Result<(), NetlinkError> {
        let mode = match mode {
            MacvlanMode::Bridge => KernelMode::Bridge,
            MacvlanMode::Private => KernelMode::Private,
            MacvlanMode::Vepa => KernelMode::Vepa,
            MacvlanMode::Passthru => KernelMode::Passthrough,
        };
        let link = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::MacVlan)
            .name(end.link.name.as_str())
            .link(parent)
            .link_group(group)
            .setns_by_fd(netns)
            .set_info_data(InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)]));
        self.request(RouteNetlinkMessage::NewLink(properties(link, end).build()), NEW).await
    }

    pub(super) async fn delete_link(&mut self, ifindex: u32) -> Result<(), NetlinkError> {
        let message = LinkMessageBuilder::<LinkUnspec>::new().index(ifindex).build();
        self.request(RouteNetlinkMessage::DelLink(message), 0).await
    }

    /// Deletes every link of a group of this namespace, in one go; with them their peers.
    pub(super) async fn delete_group(&mut self, group: u32) -> Result<(), NetlinkError> {
        let message = LinkMessageBuilder::<LinkUnspec>::new().link_group(group).build();
        self.request(RouteNetlinkMessage::DelLink(message), 0).await
    }

    /// Indexes of the links of a group.
    pub(super) async fn members(&mut self, group: u32) -> Result<BTreeSet<u32>, NetlinkError> {
        let members = self
            .dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| match message {
                RouteNetlinkMessage::NewLink(link)
                    if link.attributes.contains(&LinkAttribute::Group(group)) =>
                {
                    Some(link.header.index)
                }
                _ => None,
            })
            .await?;
        Ok(members.into_iter().collect())
    }

    /// Changes what `change` sets.
    pub(super) async fn set_link(
        &mut self,
        ifindex: u32,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), NetlinkError> {
        let message = change(LinkMessageBuilder::<LinkUnspec>::new().index(ifindex)).build();
        self.request(RouteNetlinkMessage::SetLink(message), 0).await
    }

    /// Keeps a port of a bridge apart from its other isolated ports, or not.
    pub(super) async fn set_isolated(&mut self, ifindex: u32, on: bool) -> Result<(), NetlinkError> {
        let data = InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(on)]);
        let link = LinkMessageBuilder::<LinkUnspec>::new().index(ifindex);
        let message = link.set_port_kind(InfoPortKind::Bridge).set_port_data(data).build();
        // RTM_SETLINK takes no data of ports.
        self.request(RouteNetlinkMessage::NewLink(message), 0).await
    }

    pub(super) async fn add_address(&mut self, ifindex: u32, address: IpNet) -> Result<(), NetlinkError> {
        self.request(RouteNetlinkMessage::NewAddress(self::address(ifindex, address)), NEW).await
    }

    pub(super) async fn delete_address(&mut self, ifindex: u32, address: IpNet) -> Result<(), NetlinkError> {
        self.request(RouteNetlinkMessage::DelAddress(self::address(ifindex, address)), 0).await
    }
}

fn properties<T>(mut builder: LinkMessageBuilder<T>, end: &NewEnd) -> LinkMessageBuilder<T> {
    if let Some(mtu) = end.mtu {
        builder = builder.mtu(mtu);
    }
    if let Some(MacAddr(mac)) = end.mac {
        builder = builder.address(mac.to_vec());
    }
    if let Some(queues) = end.queues {
        builder = builder
            .append_extra_attribute(LinkAttribute::NumTxQueues(queues))
            .append_extra_attribute(LinkAttribute::NumRxQueues(queues));
    }
    builder
}

fn address(ifindex: u32, address: IpNet) -> AddressMessage {
    match address {
        IpNet::V4(net) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(ifindex)
            .address(net.addr(), net.prefix_len())
            .build(),
        IpNet::V6(net) => {
            let mut message = AddressMessageBuilder::<Ipv6Addr>::new()
                .index(ifindex)
                .address(net.addr(), net.prefix_len())
                .build();
            // Usable at once: nobody else is given this address.
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            message
        }
    }
}
