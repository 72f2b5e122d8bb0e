//! Routes, policy rules and permanent neighbours of one namespace: reading them, adding, deleting.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Context as _;
use ipnet::IpNet;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{
            RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
            RouteType,
        },
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};

use super::{
    Kernel, is,
    link::NEW,
    session::{NetlinkError, Session},
};
use crate::topology::{
    ObservedLink, Route,
    names::{IfName, MacAddr, Place},
    route::{Neighbour, OURS, RouteKind, Rule},
};

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

impl Kernel {
    pub(super) fn add_route(&self, place: &Place, route: &Route) -> anyhow::Result<()> {
        self.at(place, async |session| {
            let message = route_message(route, index(session, route.dev.as_ref()).await?);
            anyhow::Ok(session.request(RouteNetlinkMessage::NewRoute(message), NEW).await?)
        })
    }

    pub(super) fn delete_route(&self, place: &Place, route: &Route) -> anyhow::Result<()> {
        let deleted = self.at(place, async |session| {
            let message = route_message(route, index(session, route.dev.as_ref()).await?);
            anyhow::Ok(session.request(RouteNetlinkMessage::DelRoute(message), 0).await?)
        });
        deleted.or_else(|error| if is(&error, libc::ESRCH) { Ok(()) } else { Err(error) })
    }

    /// Beside one of somebody else that is the same: it may go.
    pub(super) fn add_rule(&self, place: &Place, rule: &Rule) -> anyhow::Result<()> {
        self.at(place, async |session| {
            session.request(RouteNetlinkMessage::NewRule(rule_message(rule)), NLM_F_CREATE).await
        })
    }

    pub(super) fn delete_rule(&self, place: &Place, rule: &Rule) -> anyhow::Result<()> {
        let deleted = self.at(place, async |session| {
            session.request(RouteNetlinkMessage::DelRule(rule_message(rule)), 0).await
        });
        deleted.or_else(|error| if is(&error, libc::ENOENT) { Ok(()) } else { Err(error) })
    }

    pub(super) fn add_neighbour(&self, place: &Place, neighbour: &Neighbour) -> anyhow::Result<()> {
        self.at(place, async |session| {
            let message = neighbour_message(neighbour, index(session, Some(&neighbour.dev)).await?);
            let flags = NLM_F_CREATE | NLM_F_REPLACE;
            anyhow::Ok(session.request(RouteNetlinkMessage::NewNeighbour(message), flags).await?)
        })
    }

    pub(super) fn delete_neighbour(&self, place: &Place, neighbour: &Neighbour) -> anyhow::Result<()> {
        let deleted = self.at(place, async |session| {
            let message = neighbour_message(neighbour, index(session, Some(&neighbour.dev)).await?);
            anyhow::Ok(session.request(RouteNetlinkMessage::DelNeighbour(message), 0).await?)
        });
        deleted.or_else(|error| if is(&error, libc::ENOENT) { Ok(()) } else { Err(error) })
    }
}

async fn index(session: &mut Session, dev: Option<&IfName>) -> anyhow::Result<Option<u32>> {
    let Some(dev) = dev else { return Ok(None) };
    Ok(Some(session.find(dev.as_str()).await?.with_context(|| format!("there is no link {dev}"))?.ifindex))
}

impl Session {
    /// Routes of all tables that the kernel did not make by itself.
    pub(super) async fn routes(
        &mut self,
        links: &BTreeMap<IfName, ObservedLink>,
    ) -> Result<Vec<Route>, NetlinkError> {
        let names = names(links);
        let mut routes = Vec::new();
        for family in FAMILIES {
            let mut all = RouteMessage::default();
            all.header.address_family = family;
            let all = RouteNetlinkMessage::GetRoute(all);
            let found = self.dump(&all, |message| match message {
                RouteNetlinkMessage::NewRoute(route) => route_of(&route, &names),
                _ => None,
            });
            routes.extend(found.await?);
        }
        routes.sort();
        Ok(routes)
    }

    /// Policy rules of ours.
    pub(super) async fn rules(&mut self) -> Result<Vec<Rule>, NetlinkError> {
        let mut rules = Vec::new();
        for family in FAMILIES {
            let mut all = RuleMessage::default();
            all.header.family = family;
            let all = RouteNetlinkMessage::GetRule(all);
            let found = self.dump(&all, |message| match message {
                RouteNetlinkMessage::NewRule(rule) => rule_of(&rule),
                _ => None,
            });
            match found.await {
                // A kernel without policy rules for this family has none.
                Err(error) if matches!(error.errno(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => {}
                found => rules.extend(found?),
            }
        }
        rules.sort();
        Ok(rules)
    }

    /// Permanent neighbours.
    pub(super) async fn neighbours(
        &mut self,
        links: &BTreeMap<IfName, ObservedLink>,
    ) -> Result<Vec<Neighbour>, NetlinkError> {
        let names = names(links);
        let all = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let found = self.dump(&all, |message| match message {
            RouteNetlinkMessage::NewNeighbour(neighbour) => neighbour_of(&neighbour, &names),
            _ => None,
        });
        let mut found = found.await?;
        found.sort();
        Ok(found)
    }
}

fn names(links: &BTreeMap<IfName, ObservedLink>) -> BTreeMap<u32, &IfName> {
    links.iter().map(|(name, link)| (link.ifindex, name)).collect()
}

fn route_message(route: &Route, oif: Option<u32>) -> RouteMessage {
    let Route { to, via, dev: _, kind, table, metric, src, protocol } = route;
    let mut message = RouteMessage::default();
    message.header.address_family = family(to.addr());
    message.header.destination_prefix_length = to.prefix_len();
    message.header.protocol = RouteProtocol::from(*protocol);
    message.header.scope = match (kind, via) {
        (RouteKind::Unicast, None) => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    message.header.kind = match kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Prohibit => RouteType::Prohibit,
    };
    // The number is in the attribute, where it may be larger.
    message.header.table = u8::try_from(*table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes.push(RouteAttribute::Table(*table));
    if to.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(address(to.network())));
    }
    message.attributes.push(RouteAttribute::Priority(*metric));
    message.attributes.extend(via.map(|via| RouteAttribute::Gateway(address(via))));
    message.attributes.extend(src.map(|src| RouteAttribute::PrefSource(address(src))));
    message.attributes.extend(oif.map(RouteAttribute::Oif));
    message
}

fn route_of(message: &RouteMessage, names: &BTreeMap<u32, &IfName>) -> Option<Route> {
    let header = &message.header;
    if header.protocol == RouteProtocol::Kernel || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let kind = match header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        _ => return None,
    };
    let anywhere: IpAddr = match header.address_family {
        AddressFamily::Inet => [0; 4].into(),
        AddressFamily::Inet6 => [0; 16].into(),
        _ => return None,
    };
    let (mut to, mut via, mut dev, mut src) = (anywhere, None, None, None);
    let (mut table, mut metric) = (u32::from(header.table), 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address)?,
            RouteAttribute::Gateway(address) => via = Some(ip(address)?),
            RouteAttribute::Oif(ifindex) => dev = names.get(ifindex).copied().cloned(),
            RouteAttribute::PrefSource(address) => src = Some(ip(address)?),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(number) => metric = *number,
            _ => {}
        }
    }
    // The kernel keeps IPv6 routes that lead nowhere on `lo`.
    let dev = dev.filter(|_| kind == RouteKind::Unicast);
    let to = IpNet::new(to, header.destination_prefix_length).ok()?;
    Some(Route { to, via, dev, kind, table, metric, src, protocol: header.protocol.into() })
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let Rule { priority, ipv6, from, to, iif, oif, fwmark, table } = rule;
    let mut message = RuleMessage::default();
    message.header.family = if *ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(*table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(*priority));
    attributes.push(RuleAttribute::Table(*table));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(OURS)));
    if let Some(from) = from {
        message.header.src_len = from.prefix_len();
        attributes.push(RuleAttribute::Source(from.network()));
    }
    if let Some(to) = to {
        message.header.dst_len = to.prefix_len();
        attributes.push(RuleAttribute::Destination(to.network()));
    }
    attributes.extend(iif.as_ref().map(|name| RuleAttribute::Iifname(name.to_string())));
    attributes.extend(oif.as_ref().map(|name| RuleAttribute::Oifname(name.to_string())));
    if let Some(mark) = fwmark {
        attributes.push(RuleAttribute::FwMark(*mark));
        attributes.push(RuleAttribute::FwMask(u32::MAX));
    }
    message
}

/// A rule of ours; one that says so and is of another form is none that a file can have.
fn rule_of(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let ipv6 = header.family == AddressFamily::Inet6;
    let mut rule = Rule {
        priority: 0,
        ipv6,
        from: None,
        to: None,
        iif: None,
        oif: None,
        fwmark: None,
        table: header.table.into(),
    };
    let mut ours = false;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Protocol(protocol) => ours = u8::from(*protocol) == OURS,
            RuleAttribute::Priority(number) => rule.priority = *number,
            RuleAttribute::Table(number) => rule.table = *number,
            RuleAttribute::Source(address) => rule.from = IpNet::new(*address, header.src_len).ok(),
            RuleAttribute::Destination(address) => rule.to = IpNet::new(*address, header.dst_len).ok(),
            RuleAttribute::Iifname(name) => rule.iif = Some(name.parse().ok()?),
            RuleAttribute::Oifname(name) => rule.oif = Some(name.parse().ok()?),
            RuleAttribute::FwMark(mark) => rule.fwmark = Some(*mark),
            _ => {}
        }
    }
    (ours && header.action == RuleAction::ToTable).then_some(rule)
}

fn neighbour_message(neighbour: &Neighbour, ifindex: Option<u32>) -> NeighbourMessage {
    let Neighbour { dev: _, address, mac, protocol } = neighbour;
    let mut message = NeighbourMessage::default();
    message.header.family = family(*address);
    message.header.ifindex = ifindex.unwrap_or_default();
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(NeighbourAttribute::Destination((*address).into()));
    message.attributes.extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
    message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::from(*protocol)));
    message
}

fn neighbour_of(message: &NeighbourMessage, names: &BTreeMap<u32, &IfName>) -> Option<Neighbour> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let dev = (*names.get(&message.header.ifindex)?).clone();
    let (mut address, mut mac, mut protocol) = (None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => address = Some((*found).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some((*found).into())
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.clone().try_into().ok().map(MacAddr),
            NeighbourAttribute::Protocol(found) => protocol = (*found).into(),
            _ => {}
        }
    }
    Some(Neighbour { dev, address: address?, mac, protocol })
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

fn address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
