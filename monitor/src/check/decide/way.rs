//! Routes that are missing or lead elsewhere, neighbours that are wrong or do not answer, both ways.

use std::net::IpAddr;

use super::{Case, Cause};
use crate::{
    check::{
        scene::{Other, ip, named},
        targets::What,
    },
    reconcile::site::{Known, SiteNeighbour, Way},
    topology::{
        Route,
        names::{LinkId, Place},
        route::RouteKind,
    },
};

impl Case<'_> {
    /// From the sender to the target.
    pub(super) fn way_there(&self) -> Option<Cause> {
        // Nothing was asked of who has no address to ask for.
        self.way()?;
        match self.probe.what {
            What::Lo => None,
            _ => self.way_from(&self.probe.from, self.probe.to?),
        }
    }

    /// From the target to the sender.
    pub(super) fn way_back(&self) -> Option<Cause> {
        let at = self.probe.at.as_ref().filter(|_| self.probe.what != What::Lo)?;
        let mut cause = self.way_from(at, self.source()?)?;
        cause.what = format!("{}: echoes arrive, and no answer comes back", cause.what);
        Some(cause)
    }

    /// Whether a place sends packets for an address out by this link.
    fn way_from(&self, link: &LinkId, to: IpAddr) -> Option<Cause> {
        let LinkId { place, name } = link;
        match self.scene.ways.get(&(place.clone(), to))? {
            Way::None => {
                let mend = self.missing_route(link, to);
                Some(Cause {
                    kind: "no_route",
                    place: place.clone(),
                    what: format!("{} has no route to {to}", named(place)),
                    mend: mend.map(|route| format!("{} route add {route}", ip(place))),
                })
            }
            Way::Refused(kind) => {
                let culprit = self.most_specific(place, to, |route| route.kind != RouteKind::Unicast);
                let said = culprit.map(|route| format!(" (`{route}`)")).unwrap_or_default();
                Some(Cause {
                    kind: "route_refuses",
                    place: place.clone(),
                    what: format!("a route of {} says that {to} is {kind}{said}", named(place)),
                    mend: culprit.map(|route| format!("{} route delete {route}", ip(place))),
                })
            }
            Way::Here => Some(Cause {
                kind: "address_twice",
                place: place.clone(),
                what: format!("{} has the address {to} itself: two have the same one", named(place)),
                mend: None,
            }),
            Way::Out { ifindex, .. } => {
                let own = self.scene.link(link)?;
                if own.ifindex == *ifindex || self.probe.at.is_none() {
                    return None;
                }
                let site = self.scene.sites.get(place)?;
                let other =
                    site.name(*ifindex).map_or_else(|| "another link".to_owned(), ToString::to_string);
                let through = |route: &Route| route.dev.as_ref().is_some_and(|dev| dev.as_str() == other);
                let culprit = self.most_specific(place, to, through);
                Some(Cause {
                    kind: "route_elsewhere",
                    place: place.clone(),
                    what: format!(
                        "{} sends packets for {to} out by {other}, and not by {name}",
                        named(place)
                    ),
                    mend: culprit.map(|route| format!("{} route delete {route}", ip(place))),
                })
            }
        }
    }

    /// The route that should be there.
    fn missing_route(&self, link: &LinkId, to: IpAddr) -> Option<String> {
        let own = self.scene.addresses(link, to.is_ipv6());
        if let Some(net) = own.iter().find(|net| net.contains(&to)) {
            return Some(format!("{} dev {}", net.trunc(), link.name));
        }
        let gateway = self.gateway(link)?;
        Some(format!("default via {gateway} dev {}", link.name))
    }

    /// The address behind an interface by which the rest of the world is reached.
    pub(super) fn gateway(&self, link: &LinkId) -> Option<IpAddr> {
        let behind = match self.scene.other(link) {
            Other::Bridge { bridge, .. } => bridge,
            Other::End(peer) => peer,
            Other::Unknown => return None,
        };
        let own = self.scene.addresses(link, self.probe.ipv6);
        let theirs = self.scene.addresses(&behind, self.probe.ipv6);
        let near = theirs.iter().find(|net| own.iter().any(|own| own.contains(&net.addr())));
        near.map(ipnet::IpNet::addr)
    }

    fn most_specific(&self, place: &Place, to: IpAddr, fits: impl Fn(&Route) -> bool) -> Option<&Route> {
        let routes = self.scene.routes.get(place)?.iter();
        routes.filter(|route| route.to.contains(&to) && fits(route)).max_by_key(|route| route.to.prefix_len())
    }

    /// The next hop of the sender.
    fn next_hop(&self) -> Option<IpAddr> {
        let to = self.probe.to?;
        match self.way() {
            Some(Way::Out { via, .. }) => Some(via.unwrap_or(to)),
            Some(_) => None,
            None => Some(to),
        }
    }

    /// A neighbour that somebody wrote down with another MAC address than it has, on either side.
    pub(super) fn fixed_neighbour(&self) -> Option<Cause> {
        if self.probe.what == What::Lo {
            return None;
        }
        let back = || self.wrong_mac(self.probe.at.as_ref()?, self.source()?);
        self.wrong_mac(&self.probe.from, self.next_hop()?).or_else(back)
    }

    fn known(&self, link: &LinkId, address: IpAddr) -> Option<&SiteNeighbour> {
        let ifindex = self.scene.link(link)?.ifindex;
        let neighbours = &self.scene.sites.get(&link.place)?.neighbours;
        neighbours.iter().find(|known| known.ifindex == ifindex && known.address == address)
    }

    fn wrong_mac(&self, link: &LinkId, address: IpAddr) -> Option<Cause> {
        let LinkId { place, name } = link;
        let known = self.known(link, address)?;
        let has = known.mac.filter(|_| known.known != Known::Silent)?;
        let owner = self.scene.owner(address, place)?;
        let is = self.scene.link(&owner)?.mac.filter(|is| *is != has)?;
        let fixed = known.known == Known::Permanent;
        let by = if fixed { "somebody wrote it down" } else { "somebody else answers for it" };
        Some(Cause {
            kind: "wrong_neighbour",
            place: place.clone(),
            what: format!(
                "{} takes {has} for the MAC address of {address} on {name}, and it is {is}: {by}",
                named(place)
            ),
            mend: Some(format!("{} neighbour delete {address} dev {name}", ip(place))),
        })
    }

    /// A neighbour that does not answer, on either side.
    pub(super) fn silent(&self) -> Option<Cause> {
        let back = || self.no_answer(self.probe.at.as_ref()?, self.source()?);
        self.no_answer(&self.probe.from, self.next_hop()?).or_else(back)
    }

    fn no_answer(&self, link: &LinkId, address: IpAddr) -> Option<Cause> {
        let LinkId { place, name } = link;
        self.known(link, address).filter(|known| known.known == Known::Silent)?;
        let asks = if address.is_ipv6() { "neighbour discovery" } else { "ARP" };
        Some(Cause {
            kind: "no_neighbour",
            place: place.clone(),
            what: format!("{address} does not answer to {asks} of {} on {name}", named(place)),
            mend: None,
        })
    }

    /// Behind the gateway, where that is the host: its own way to the target.
    pub(super) fn beyond(&self) -> Option<Cause> {
        if self.probe.at.is_some() {
            return None;
        }
        let to = self.probe.to?;
        let host = Place::Host;
        match self.scene.ways.get(&(host.clone(), to))? {
            Way::Out { ifindex, via, .. } => {
                let site = self.scene.sites.get(&host)?;
                let uplink = LinkId::host(site.name(*ifindex)?.clone());
                let next = via.unwrap_or(to);
                self.link_is_dead(&uplink).or_else(|| self.no_answer(&uplink, next))
            }
            Way::Here => None,
            Way::None | Way::Refused(_) => {
                // Which link it should leave by, nobody can know here.
                let nowhere = LinkId::host(self.probe.from.name.clone());
                let cause = self.way_from(&nowhere, to)?;
                Some(Cause { what: format!("{}, so nobody behind it has", cause.what), ..cause })
            }
        }
    }

    fn link_is_dead(&self, link: &LinkId) -> Option<Cause> {
        let seen = self.scene.link(link)?;
        (!seen.carrier).then(|| Cause {
            kind: "no_carrier",
            place: link.place.clone(),
            what: format!("{} of the host, by which it leaves, has no carrier", link.name),
            mend: None,
        })
    }
}
