//! The verbs: each builds one message and sends it. Names the namespace of the calling thread has.

use std::{
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
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage},
    },
};

use super::session::{NetlinkError, Session};
use crate::topology::{names::MacAddr, step::NewEnd};

/// What `ip link show dev NAME` knows, as far as it is needed before changing the link.
pub(super) struct Found {
    pub(super) ifindex: u32,
    pub(super) alias: Option<String>,
}

pub(super) const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

impl Session {
    /// The link of this name; absent when there is none.
    pub(super) async fn find(&mut self, name: &str) -> Result<Option<Found>, NetlinkError> {
        let mut asked = LinkMessage::default();
        asked.attributes.push(LinkAttribute::IfName(name.to_string()));
        let link = match self.get(RouteNetlinkMessage::GetLink(asked)).await {
            Ok(Some(RouteNetlinkMessage::NewLink(link))) => link,
            Ok(_) => return Ok(None),
            Err(error) if error.errno() == Some(libc::ENODEV) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Found {
            ifindex: link.header.index,
            alias: link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfAlias(alias) => Some(alias),
                _ => None,
            }),
        }))
    }

    pub(super) async fn add_bridge(
        &mut self,
        name: &str,
        mtu: Option<u32>,
        mac: Option<MacAddr>,
    ) -> Result<(), NetlinkError> {
        let mut builder = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Bridge).name(name);
        if let Some(mtu) = mtu {
            builder = builder.mtu(mtu);
        }
        if let Some(MacAddr(mac)) = mac {
            builder = builder.address(mac.to_vec());
        }
        self.request(RouteNetlinkMessage::NewLink(builder.build()), NEW).await
    }

    /// A veth pair: `a` here, `b` in the namespace behind `peer_netns` (or here too), under the names given. Both down: a
    /// peer cannot be set up in the same request.
    pub(super) async fn add_veth(
        &mut self,
        a: (&NewEnd, &str),
        b: (&NewEnd, &str),
        peer_netns: Option<RawFd>,
    ) -> Result<(), NetlinkError> {
        let mut peer = LinkMessageBuilder::<LinkUnspec>::new().name(b.1);
        if let Some(netns) = peer_netns {
            peer = peer.setns_by_fd(netns);
        }
        let peer = properties(peer, b.0).build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(a.1)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        self.request(RouteNetlinkMessage::NewLink(properties(pair, a.0).build()), NEW).await
    }

    pub(super) async fn delete_link(&mut self, ifindex: u32) -> Result<(), NetlinkError> {
        let message = LinkMessageBuilder::<LinkUnspec>::new().index(ifindex).build();
        self.request(RouteNetlinkMessage::DelLink(message), 0).await
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
