//! Links that are missing or down, ports that are in no bridge, addresses that are missing or of another subnet.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Case, Cause};
use crate::{
    check::{
        scene::{Other, ip, named, within},
        targets::What,
    },
    reconcile::site::{PortState, SiteAddress},
    topology::{
        allocate,
        names::{LinkId, Place},
    },
};

impl Case<'_> {
    /// Something on the wire itself.
    pub(super) fn wire(&self) -> Option<Cause> {
        let links = self.scene.wire(&self.probe.from, self.probe.at.as_ref());
        let first = |check: &dyn Fn(&LinkId) -> Option<Cause>| links.iter().find_map(check);
        first(&|link| self.missing(link))
            .or_else(|| first(&|link| self.down(link)))
            .or_else(|| first(&|link| self.port(link)))
            .or_else(|| first(&|link| self.no_carrier(link)))
            .or_else(|| first(&|link| self.no_arp(link)))
    }

    fn missing(&self, link: &LinkId) -> Option<Cause> {
        self.scene.link(link).is_none().then(|| Cause {
            kind: "link_missing",
            place: link.place.clone(),
            what: format!("there is no link {} in {}", link.name, named(&link.place)),
            mend: None,
        })
    }

    fn down(&self, link: &LinkId) -> Option<Cause> {
        let LinkId { place, name } = link;
        let seen = self.scene.link(link).filter(|seen| !seen.up)?;
        Some(Cause {
            kind: if seen.kind == "loopback" { "lo_down" } else { "link_down" },
            place: place.clone(),
            what: format!("{name} of {} is down", named(place)),
            mend: Some(format!("{} link set {name} up", ip(place))),
        })
    }

    fn no_carrier(&self, link: &LinkId) -> Option<Cause> {
        let LinkId { place, name } = link;
        // A bridge has one while a port of it has.
        self.scene.link(link).filter(|seen| !seen.carrier && seen.kind != "bridge")?;
        Some(Cause {
            kind: "no_carrier",
            place: place.clone(),
            what: format!(
                "{name} of {} is up and has no carrier: its other end is down or gone",
                named(place)
            ),
            mend: None,
        })
    }

    fn no_arp(&self, link: &LinkId) -> Option<Cause> {
        let LinkId { place, name } = link;
        let seen = self.scene.link(link).filter(|seen| !seen.arp && seen.kind == "veth")?;
        // A port of a bridge has no neighbours of its own.
        seen.bridge.is_none().then(|| Cause {
            kind: "arp_off",
            place: place.clone(),
            what: format!("{name} of {} neither asks for neighbours nor answers (NOARP)", named(place)),
            mend: Some(format!("{} link set {name} arp on", ip(place))),
        })
    }

    /// Only of the interface that is behind it: the wire has both.
    fn port(&self, link: &LinkId) -> Option<Cause> {
        if link.place == Place::Host {
            return None;
        }
        let Other::Bridge { port, bridge } = self.scene.other(link) else { return None };
        let seen = self.scene.link(&port)?;
        let (name, bridge) = (&port.name, &bridge.name);
        if seen.bridge.as_ref() != Some(bridge) {
            let host = &self.scene.sites.get(&Place::Host)?.links;
            let apart = host.values().any(|other| other.bridge.as_ref() == Some(bridge) && other.isolated);
            let isolate = format!(" && ip link set {name} type bridge_slave isolated on");
            let isolate = if apart { isolate.as_str() } else { "" };
            let is = match &seen.bridge {
                Some(other) => format!("a port of {other}"),
                None => "a port of no bridge".to_owned(),
            };
            return Some(Cause {
                kind: "not_in_bridge",
                place: Place::Host,
                what: format!("{name} is {is}: the address of {link} is of the subnet of {bridge}"),
                mend: Some(format!("ip link set {name} master {bridge}{isolate}")),
            });
        }
        let why = match seen.port? {
            PortState::Forwarding => return None,
            PortState::Disabled => "disabled",
            PortState::Waiting => "listening or learning, and not forwarding yet",
            PortState::Blocking => "blocking: the spanning tree has another way",
        };
        Some(Cause {
            kind: "port_state",
            place: Place::Host,
            what: format!("port {name} of {bridge} is {why}"),
            mend: Some(format!("bridge link set dev {name} state 3")),
        })
    }

    /// Whether the two are kept apart on purpose.
    pub(super) fn isolated(&self) -> bool {
        let both = self.probe.at.as_ref().is_some_and(|at| self.scene.kept_apart(&self.probe.from, at));
        both || self.dropped_by_isolation()
    }

    /// Addresses of either side.
    pub(super) fn addresses(&self) -> Option<Cause> {
        let from = &self.probe.from;
        if self.probe.what == What::Lo {
            return self.no_loopback_address();
        }
        let family = self.probe.ipv6;
        let own = self.scene.addresses(from, family);
        let Some(at) = &self.probe.at else {
            return own.is_empty().then(|| self.no_address(from, &self.nets_beside(from)));
        };
        let theirs = self.scene.addresses(at, family);
        match (own.is_empty(), theirs.is_empty()) {
            // For one link alone: link-local ones are not looked at.
            (true, true) => return None,
            (true, false) => return Some(self.no_address(from, &theirs)),
            (false, true) => return Some(self.no_address(at, &own)),
            (false, false) => {}
        }
        self.unusable(from).or_else(|| self.unusable(at)).or_else(|| self.prefixes(&own, at, &theirs))
    }

    fn no_loopback_address(&self) -> Option<Cause> {
        let LinkId { place, name } = &self.probe.from;
        let to = self.probe.to?;
        let lo = self.scene.link(&self.probe.from)?;
        let has = lo.addresses.iter().any(|address| address.net.contains(&to));
        let length = if to.is_ipv6() { 128 } else { 8 };
        (!has).then(|| Cause {
            kind: "address_missing",
            place: place.clone(),
            what: format!("{name} of {} has no address {to}", named(place)),
            mend: Some(format!("{} address add {to}/{length} dev {name}", ip(place))),
        })
    }

    /// What is behind an interface has addresses of these subnets.
    fn nets_beside(&self, id: &LinkId) -> Vec<IpNet> {
        match self.scene.other(id) {
            Other::Bridge { bridge, .. } => self.scene.addresses(&bridge, self.probe.ipv6),
            Other::End(peer) => self.scene.addresses(&peer, self.probe.ipv6),
            Other::Unknown => Vec::new(),
        }
    }

    fn no_address(&self, link: &LinkId, beside: &[IpNet]) -> Cause {
        let LinkId { place, name } = link;
        let all = self.scene.links().flat_map(|(_, link)| &link.addresses);
        let taken: BTreeSet<_> = all.map(|address| address.net.addr()).collect();
        let free = beside.first().and_then(|net| allocate::next_free(net, &taken));
        let family = if self.probe.ipv6 { "IPv6" } else { "IPv4" };
        let off = format!("ipv6/conf/{name}/disable_ipv6");
        let switched_off = self.probe.ipv6 && self.scene.setting(place, &off) == Some("1");
        let (why, turn_on) = match switched_off {
            true => {
                let key = super::stack::key(&off);
                (": IPv6 is switched off there", format!("{}sysctl -w {key}=0 && ", within(place)))
            }
            false => ("", String::new()),
        };
        let nodad = if self.probe.ipv6 { " nodad" } else { "" };
        let subnet = beside.first().map(|net| format!(" of {}, which is behind it", net.trunc()));
        Cause {
            kind: "address_missing",
            place: place.clone(),
            what: format!(
                "{name} of {} has no {family} address{}{why}",
                named(place),
                subnet.unwrap_or_default()
            ),
            mend: free.map(|free| format!("{turn_on}{} address add {free} dev {name}{nodad}", ip(place))),
        }
    }

    fn unusable(&self, link: &LinkId) -> Option<Cause> {
        let LinkId { place, name } = link;
        let fits = |address: &&SiteAddress| {
            !address.usable && !address.link_local && address.net.addr().is_ipv6() == self.probe.ipv6
        };
        let SiteAddress { net, .. } = self.scene.link(link)?.addresses.iter().find(fits)?;
        let at = format!("{} address", ip(place));
        Some(Cause {
            kind: "address_unusable",
            place: place.clone(),
            what: format!(
                "{net} of {name} in {} is not used: somebody else has it, or may have",
                named(place)
            ),
            mend: Some(format!("{at} delete {net} dev {name} && {at} add {net} dev {name} nodad")),
        })
    }

    /// One side is outside of what the other takes for its subnet.
    fn prefixes(&self, own: &[IpNet], at: &LinkId, theirs: &[IpNet]) -> Option<Cause> {
        let to = self.probe.to?;
        let there = theirs.iter().find(|net| net.addr() == to)?;
        let near = own.iter().find(|net| net.contains(&to) && there.contains(&net.addr()));
        if near.is_some() {
            return None;
        }
        let one_way = own.iter().find(|net| net.contains(&to) || there.contains(&net.addr()));
        let from = &self.probe.from;
        let Some(here) = one_way else {
            return Some(Cause {
                kind: "wrong_subnet",
                place: from.place.clone(),
                what: format!(
                    "{} of {} and {there} of {} are of different subnets",
                    own.first()?,
                    named(&from.place),
                    named(&at.place)
                ),
                mend: None,
            });
        };
        // Who has the longer prefix does not see the other; a bridge of ours is right.
        let (link, wrong, right) = match here.contains(&to) {
            false => (from, here, there),
            true => (at, there, here),
        };
        let good = IpNet::new(wrong.addr(), right.prefix_len()).ok()?;
        let LinkId { place, name } = link;
        let at = format!("{} address", ip(place));
        let mend = match wrong.addr().is_ipv6() {
            // The last IPv4 address takes the routes with it.
            false => format!("{at} add {good} dev {name} && {at} delete {wrong} dev {name}"),
            true => format!("{at} delete {wrong} dev {name} && {at} add {good} dev {name} nodad"),
        };
        Some(Cause {
            kind: "wrong_prefix",
            place: place.clone(),
            what: format!(
                "{wrong} of {name} in {} has another prefix length than {right}, so {} is not of its subnet",
                named(place),
                right.addr()
            ),
            mend: Some(mend),
        })
    }
}
