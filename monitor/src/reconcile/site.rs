//! One namespace looked at closely: what may keep a packet from its way, beside what a plan is made of. Changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Context as _;
use ipnet::IpNet;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{
        BridgePortState, InfoBridgePort, InfoPortData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use super::{
    Kernel, nft,
    session::{NetlinkError, Session},
};
use crate::{
    netns::sysctl,
    topology::names::{IfName, LinkId, MacAddr, Place, SysctlKey},
};

/// Links, addresses and neighbours of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Links by name.
    pub links: BTreeMap<IfName, SiteLink>,
    /// What is known of neighbours.
    pub neighbours: Vec<SiteNeighbour>,
}

/// A link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteLink {
    /// Interface index.
    pub ifindex: u32,
    /// `veth`, `bridge`, `loopback`, or what the kernel calls it.
    pub kind: String,
    /// MAC address.
    pub mac: Option<MacAddr>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// The other end is there and up (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Whether neighbours are asked for (no `IFF_NOARP`).
    pub arp: bool,
    /// Bridge it is a port of.
    pub bridge: Option<IfName>,
    /// What the bridge lets through it; absent where it is no port.
    pub port: Option<PortState>,
    /// Whether the bridge keeps it apart from other such ports.
    pub isolated: bool,
    /// Interface index of the other end of a veth pair, in its own namespace.
    pub peer_ifindex: Option<u32>,
    /// Whose it is by its alias: the link that it serves, where it is of ours.
    pub serves: Option<String>,
    /// Whether its alias says that it is ours, or lent by us.
    pub ours: bool,
    /// Addresses, link-local ones last.
    pub addresses: Vec<SiteAddress>,
}

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteAddress {
    /// With prefix length.
    pub net: IpNet,
    /// IPv6, for this link alone.
    pub link_local: bool,
    /// Whether it can be used: not `tentative`, not found twice.
    pub usable: bool,
}

/// State of a bridge port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// Nothing passes.
    Disabled,
    /// Nothing passes yet.
    Waiting,
    /// Packets pass.
    Forwarding,
    /// Nothing passes: the spanning tree has another way.
    Blocking,
}

/// An entry of the ARP or neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteNeighbour {
    /// Interface index of the link.
    pub ifindex: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address, where known.
    pub mac: Option<MacAddr>,
    /// What is known.
    pub known: Known,
}

/// How well a neighbour is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It did not answer (`FAILED`), or has not yet (`INCOMPLETE`).
    Silent,
    /// It answered.
    Answered,
    /// Somebody wrote it down (`PERMANENT`).
    Permanent,
}

/// What the routing tables say of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is sent on.
    Out {
        /// Interface index of the link.
        ifindex: u32,
        /// Next hop, where it is not the destination itself.
        via: Option<IpAddr>,
        /// Source address.
        source: Option<IpAddr>,
    },
    /// It is this namespace itself.
    Here,
    /// The route says so: `blackhole`, `unreachable` or `prohibit`.
    Refused(&'static str),
    /// There is no route.
    None,
}

/// Settings, rules and chains of a namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Closer {
    /// Kernel settings by their path below `/proc/sys/net`.
    pub settings: BTreeMap<String, String>,
    /// What `nft -j list ruleset` prints; absent where it cannot be listed.
    pub ruleset: Option<serde_json::Value>,
}

impl Kernel {
    /// Links, addresses and neighbours of a place.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn site(&self, place: &Place) -> anyhow::Result<Site> {
        let look = async |session: &mut Session| session.site(&self.tag).await;
        self.at(place, look).with_context(|| format!("cannot look into {}", named(place)))
    }

    /// Where a place would send packets for these destinations: each with the interface index it is bound to, if any.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn ways(&self, place: &Place, to: &BTreeSet<IpAddr>) -> anyhow::Result<BTreeMap<IpAddr, Way>> {
        let ask = async |session: &mut Session| {
            let mut ways = BTreeMap::new();
            for address in to {
                ways.insert(*address, session.way(*address).await?);
            }
            Ok::<_, NetlinkError>(ways)
        };
        self.at(place, ask).with_context(|| format!("cannot ask for routes in {}", named(place)))
    }

    /// These settings of a place, as far as there are such, and its nft rules.
    ///
    /// # Errors
    /// It cannot be entered.
    pub fn closer(&self, place: &Place, settings: &BTreeSet<String>) -> anyhow::Result<Closer> {
        self.within(place, || {
            let read = |path: &String| {
                let key: SysctlKey = format!("net/{path}").parse().ok()?;
                Some((path.clone(), sysctl::read(&key).ok()?))
            };
            Ok(Closer { settings: settings.iter().filter_map(read).collect(), ruleset: nft::ruleset() })
        })
    }

    /// What `iptables` says of those rules of the host in nf_tables that `nft` cannot show; empty where there is no such
    /// program. The older kind of it is not asked: asking alone would load modules.
    pub fn saved_by_iptables(&self) -> String {
        let programs = ["iptables-nft-save", "ip6tables-nft-save"];
        programs.iter().filter_map(|program| nft::said_by(program, &["-t", "nat"]).ok()).collect()
    }
}

fn named(place: &Place) -> String {
    match place {
        Place::Host => "the host".to_owned(),
        Place::Netns(netns) => format!("namespace {netns}"),
    }
}

impl SiteLink {
    /// Whether it is the host's end of this interface, by its alias.
    pub fn serves(&self, link: &LinkId) -> bool {
        self.serves.as_ref().is_some_and(|serves| *serves == link.to_string())
    }
}

impl Site {
    /// The name of the link with this index.
    pub fn name(&self, ifindex: u32) -> Option<&IfName> {
        self.links.iter().find(|(_, link)| link.ifindex == ifindex).map(|(name, _)| name)
    }
}

impl Session {
    async fn site(&mut self, tag: &str) -> Result<Site, NetlinkError> {
        let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let links = self.dump(&all, |message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        let links = links.await?;
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let addresses = self.dump(&all, |message| match message {
            RouteNetlinkMessage::NewAddress(address) => address_of(&address),
            _ => None,
        });
        let addresses = addresses.await?;
        let all = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let neighbours = self.dump(&all, |message| match message {
            RouteNetlinkMessage::NewNeighbour(neighbour) => neighbour_of(&neighbour),
            _ => None,
        });
        let neighbours = neighbours.await?;
        let names: BTreeMap<u32, IfName> =
            links.iter().filter_map(|link| Some((link.header.index, name_of(link)?))).collect();
        let mut site = Site { links: BTreeMap::new(), neighbours };
        for message in links {
            let Some(name) = names.get(&message.header.index) else { continue };
            let mut link = link_of(&message, &names, tag);
            let own = addresses.iter().filter(|(ifindex, _)| *ifindex == link.ifindex);
            link.addresses = own.map(|(_, address)| *address).collect();
            link.addresses.sort_by_key(|address| (address.link_local, address.net));
            site.links.insert(name.clone(), link);
        }
        Ok(site)
    }

    async fn way(&mut self, to: IpAddr) -> Result<Way, NetlinkError> {
        let mut asked = RouteMessage::default();
        let (family, bits, address) = match to {
            IpAddr::V4(to) => (AddressFamily::Inet, 32, RouteAddress::Inet(to)),
            IpAddr::V6(to) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(to)),
        };
        asked.header.address_family = family;
        asked.header.destination_prefix_length = bits;
        asked.attributes.push(RouteAttribute::Destination(address));
        match self.get(RouteNetlinkMessage::GetRoute(asked)).await {
            Ok(Some(RouteNetlinkMessage::NewRoute(route))) => Ok(way_of(&route)),
            Ok(_) => Ok(Way::None),
            // What `ip route get` calls "RTNETLINK answers": a route that refuses is an error for IPv4.
            Err(error) => match error.errno() {
                Some(libc::ENETUNREACH) => Ok(Way::None),
                Some(libc::EHOSTUNREACH) => Ok(Way::Refused("unreachable")),
                Some(libc::EINVAL) => Ok(Way::Refused("blackhole")),
                Some(libc::EACCES) => Ok(Way::Refused("prohibit")),
                _ => Err(error),
            },
        }
    }
}

fn way_of(route: &RouteMessage) -> Way {
    match route.header.kind {
        RouteType::Local => return Way::Here,
        RouteType::BlackHole => return Way::Refused("blackhole"),
        RouteType::Unreachable => return Way::Refused("unreachable"),
        RouteType::Prohibit => return Way::Refused("prohibit"),
        _ => {}
    }
    let address = |address: &RouteAddress| match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    };
    let (mut oif, mut via, mut source) = (None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => oif = Some(*ifindex),
            RouteAttribute::Gateway(gateway) => via = address(gateway),
            RouteAttribute::PrefSource(found) => source = address(found),
            _ => {}
        }
    }
    oif.map_or(Way::None, |ifindex| Way::Out { ifindex, via, source })
}

fn name_of(link: &LinkMessage) -> Option<IfName> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => name.parse().ok(),
        _ => None,
    })
}

fn link_of(message: &LinkMessage, names: &BTreeMap<u32, IfName>, tag: &str) -> SiteLink {
    let flags = message.header.flags;
    let mut link = SiteLink {
        ifindex: message.header.index,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        arp: !flags.contains(LinkFlags::Noarp),
        ..SiteLink::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(mac) => link.mac = mac.clone().try_into().ok().map(MacAddr),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::OperState(State::LowerLayerDown) => link.carrier = false,
            LinkAttribute::Controller(ifindex) => link.bridge = names.get(ifindex).cloned(),
            LinkAttribute::Link(ifindex) => link.peer_ifindex = Some(*ifindex),
            LinkAttribute::IfAlias(alias) => {
                link.serves = alias.strip_prefix(tag).map(ToOwned::to_owned);
                link.ours = link.serves.is_some();
            }
            LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| note(&mut link, info)),
            _ => {}
        }
    }
    if flags.contains(LinkFlags::Loopback) {
        link.kind = "loopback".to_owned();
    }
    link
}

fn note(link: &mut SiteLink, info: &LinkInfo) {
    match info {
        LinkInfo::Kind(kind) => link.kind = kind.to_string(),
        LinkInfo::PortData(InfoPortData::BridgePort(data)) => {
            for data in data {
                match data {
                    InfoBridgePort::State(state) => link.port = Some(port_state(*state)),
                    InfoBridgePort::Isolated(isolated) => link.isolated = *isolated,
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn port_state(state: BridgePortState) -> PortState {
    match state {
        BridgePortState::Forwarding => PortState::Forwarding,
        BridgePortState::Blocking => PortState::Blocking,
        BridgePortState::Listening | BridgePortState::Learning => PortState::Waiting,
        _ => PortState::Disabled,
    }
}

fn address_of(message: &AddressMessage) -> Option<(u32, SiteAddress)> {
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let (mut local, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            AddressAttribute::Flags(found) => flags = *found,
            _ => {}
        }
    }
    let net = IpNet::new(local.or(other)?, message.header.prefix_len).ok()?;
    let link_local = net.addr().is_ipv6() && message.header.scope == AddressScope::Link;
    let usable = !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
    Some((message.header.index, SiteAddress { net, link_local, usable }))
}

fn neighbour_of(message: &NeighbourMessage) -> Option<SiteNeighbour> {
    let known = match message.header.state {
        NeighbourState::Failed | NeighbourState::Incomplete => Known::Silent,
        NeighbourState::Permanent => Known::Permanent,
        NeighbourState::Noarp | NeighbourState::None | NeighbourState::Other(_) => return None,
        _ => Known::Answered,
    };
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => address = Some((*found).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some((*found).into())
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(MacAddr)
            }
            _ => {}
        }
    }
    Some(SiteNeighbour { ifindex: message.header.ifindex, address: address?, mac, known })
}
