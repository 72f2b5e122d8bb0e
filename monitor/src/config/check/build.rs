//! Interfaces and veth pairs.

use super::*;
use crate::topology::{
    inner::{Inner, InnerKind, MacvlanMode},
    tuning::{Feature, Tuning},
};

impl Check<'_> {
    /// Names that the file gives to host ends are taken before any is made up.
    pub(super) fn reserve_names(&mut self, written: &file::File) {
        for interface in written.namespace.iter().flat_map(|namespace| &namespace.interface) {
            if let Some(host) = &interface.host {
                // Reported here if wrong, looked up later.
                let _name = self.host_name(host);
            }
        }
        for end in
            written.veth.iter().flat_map(|veth| [&veth.a, &veth.b]).filter(|end| end.namespace.is_none())
        {
            let _name = self.host_name(&end.name);
        }
    }

    /// One of three kinds: a veth on a bridge, or one that is no veth.
    pub(super) fn interface(&mut self, netns: &NsName, written: &file::Interface, topology: &mut Topology) {
        let file::Interface { name, bridge, macvlan, mode, device, host, .. } = written;
        let kinds = [bridge, macvlan, device].into_iter().flatten().count();
        if kinds != 1 {
            let shown = name.get_ref().escape_debug();
            let what = match kinds {
                0 => format!("interface {shown} says neither `bridge` nor `macvlan` nor `device`"),
                _ => format!("interface {shown} can be one thing alone: `bridge`, `macvlan` or `device`"),
            };
            return self.say(name.span(), what);
        }
        if let (Some(mode), None) = (mode, macvlan) {
            self.say(mode.span(), "`mode` is of a macvlan".to_owned());
        }
        if let (Some(host), None) = (host, bridge) {
            self.say(
                host.span(),
                "only an interface on a bridge has an end in the host's namespace".to_owned(),
            );
        }
        match bridge {
            Some(bridge) => topology.veths.extend(self.on_bridge(netns, written, bridge)),
            None => topology.inner.extend(self.inner(netns, written)),
        }
    }

    fn inner(&mut self, netns: &NsName, written: &file::Interface) -> Option<Inner> {
        let file::Interface { name, macvlan, mode, device, address, mtu, mac, queues, .. } = written;
        let parent = macvlan.as_ref().or(device.as_ref())?;
        let segment = format!("device {}", parent.get_ref().escape_debug());
        let addresses = self.addresses(address.as_ref(), &segment, None);
        if let (Some(mac), Some(_)) = (mac, device) {
            self.say(
                mac.span(),
                "a device that is lent keeps its MAC address: by that it is known".to_owned(),
            );
        }
        if let (Some(queues), Some(_)) = (queues, device) {
            self.say(queues.span(), "a device that is lent has the queues it has".to_owned());
        }
        let mac = self.mac(mac.as_ref(), &segment);
        let mtu = self.mtu(mtu.as_ref(), &addresses);
        let tuning = self.tuning(&written.queues, &written.txqueuelen, &written.offload);
        let (name, known) = (self.interface_name(name), self.parse::<IfName>(parent)?);
        if device.is_some() && !self.lent.insert(known.clone()) {
            self.say(parent.span(), format!("device {known} is lent twice"));
        }
        let kind = match macvlan {
            None => InnerKind::Device(known),
            Some(_) => InnerKind::Macvlan {
                parent: known,
                mode: match mode.as_ref().map(Spanned::get_ref) {
                    None | Some(file::Mode::Bridge) => MacvlanMode::Bridge,
                    Some(file::Mode::Private) => MacvlanMode::Private,
                    Some(file::Mode::Vepa) => MacvlanMode::Vepa,
                    Some(file::Mode::Passthru) => MacvlanMode::Passthru,
                },
            },
        };
        let link = LinkId::inside(netns.clone(), name?);
        let end = End { link, addresses, pools: Vec::new(), bridge: None, isolated: false, mac, mtu, tuning };
        Some(Inner { end, kind })
    }

    /// Queues and offloads.
    fn tuning(
        &mut self,
        queues: &Option<Spanned<i64>>,
        txqueuelen: &Option<Spanned<i64>>,
        offload: &BTreeMap<Spanned<String>, bool>,
    ) -> Tuning {
        let mut tuning = Tuning {
            // What `rtnl_create_link` takes (net/core/rtnetlink.c).
            queues: queues.as_ref().and_then(|queues| self.number(queues, 1..=4096, "queues")),
            txqueuelen: txqueuelen
                .as_ref()
                .and_then(|length| self.number(length, 0..=i64::from(i32::MAX), "txqueuelen")),
            ..Tuning::default()
        };
        for (name, on) in offload {
            match Feature::ALL.into_iter().find(|feature| feature.to_string() == *name.get_ref()) {
                Some(feature) => drop(tuning.offload.insert(feature, *on)),
                None => {
                    let shown = name.get_ref().escape_debug();
                    self.say(name.span(), format!("`{shown}` is not one of rx, tx, sg, tso, gso, gro"));
                }
            }
        }
        tuning
    }

    fn on_bridge(
        &mut self,
        netns: &NsName,
        written: &file::Interface,
        bridge: &Spanned<String>,
    ) -> Option<Veth> {
        let file::Interface { name, address, mtu, mac, host, queues, txqueuelen, offload, .. } = written;
        let tuning = self.tuning(queues, txqueuelen, offload);
        let known = self.known_bridge(bridge);
        let name = self.interface_name(name);
        let segment = format!("bridge {}", bridge.get_ref().escape_debug());
        let addresses = self.addresses(address.as_ref(), &segment, known.as_ref());
        // An empty list asks for no address; no list asks for the next free ones.
        let pools = match (address, &known) {
            (None, Some(bridge)) => {
                self.bridges.get(bridge).map(|(subnets, _)| subnets.clone()).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let mac = self.mac(mac.as_ref(), &segment);
        let mtu = self.mtu(mtu.as_ref(), &[&addresses[..], &pools].concat());
        let (bridge, name) = (known?, name?);
        let outside = match host {
            Some(host) => host.get_ref().parse().ok()?,
            None => self.made_up(netns, &name)?,
        };
        let a = End {
            link: LinkId::host(outside),
            addresses: Vec::new(),
            pools: Vec::new(),
            bridge: Some(bridge),
            isolated: false,
            mac: None,
            mtu,
            tuning: Tuning::default(),
        };
        let b = End {
            link: LinkId::inside(netns.clone(), name),
            addresses,
            pools,
            bridge: None,
            isolated: false,
            mac,
            mtu,
            tuning,
        };
        Some(Veth { a, b })
    }

    /// The first of the names that is free.
    fn made_up(&mut self, netns: &NsName, name: &IfName) -> Option<IfName> {
        let chosen = host_end(netns, name).find(|name| !self.hosts.contains(name))?;
        self.hosts.insert(chosen.clone());
        Some(chosen)
    }

    pub(super) fn veth(&mut self, written: &file::Veth, namespaces: &BTreeSet<NsName>) -> Option<Veth> {
        // Behind a port is the bridge's segment; a port itself has no address.
        let port = written.a.bridge.as_ref().or(written.b.bridge.as_ref());
        let segment = match port {
            Some(bridge) => format!("bridge {}", bridge.get_ref().escape_debug()),
            None => format!("the pair {} - {}", shown(&written.a), shown(&written.b)),
        };
        let bridge = port.and_then(|bridge| bridge.get_ref().parse::<IfName>().ok());
        let mut end = |end| self.end(end, namespaces, &segment, bridge.as_ref());
        let (a, b) = (end(&written.a), end(&written.b));
        let (a, b) = (a?, b?);
        if a.link.place == Place::Host && b.link.place == Place::Host {
            let what = "neither end is in a namespace: give one a `namespace`".to_owned();
            self.say(written.a.name.span(), what);
        }
        for (end, at) in [(&a, &written.a), (&b, &written.b)] {
            if end.link.place == Place::Host && end.bridge.is_none() {
                let at = at.address.as_ref().map_or(at.name.span(), Spanned::span);
                for address in &end.addresses {
                    self.network(&at, *address, format!("link {}", end.link));
                }
            }
        }
        // The host's end comes first.
        Some(if b.link.place == Place::Host { Veth { a: b, b: a } } else { Veth { a, b } })
    }

    /// The bridge of this name. One that has a mistake of its own is not said to be missing.
    fn known_bridge(&mut self, written: &Spanned<String>) -> Option<IfName> {
        let name = written.get_ref();
        let known = name.parse().ok().filter(|name| self.bridges.contains_key(name));
        if known.is_none() && !self.broken.contains(name) {
            let what = format!("there is no bridge `{}` in the file", name.escape_debug());
            self.say(written.span(), what);
        }
        known
    }

    fn end(
        &mut self,
        written: &file::End,
        namespaces: &BTreeSet<NsName>,
        segment: &str,
        behind: Option<&IfName>,
    ) -> Option<End> {
        let file::End { name, namespace, address, mtu, mac, bridge, queues, txqueuelen, offload } = written;
        let tuning = self.tuning(queues, txqueuelen, offload);
        let place = match namespace {
            None => Some(Place::Host),
            Some(text) => match text.get_ref().parse::<NsName>() {
                Ok(netns) if namespaces.contains(&netns) => Some(Place::Netns(netns)),
                _ => {
                    self.say(
                        text.span(),
                        format!("there is no namespace `{}` in the file", text.get_ref().escape_debug()),
                    );
                    None
                }
            },
        };
        let port_of = match bridge {
            None => None,
            Some(text) => {
                let found = self.known_bridge(text);
                if namespace.is_some() {
                    self.say(text.span(), "only the host's end can be a port of a bridge".to_owned());
                } else if address.is_some() {
                    self.say(
                        text.span(),
                        "a port of a bridge has no address of its own: the bridge has".to_owned(),
                    );
                }
                found
            }
        };
        let behind = behind.filter(|_| bridge.is_none());
        let addresses = self.addresses(address.as_ref(), segment, behind);
        let mac = self.mac(mac.as_ref(), segment);
        let mtu = self.mtu(mtu.as_ref(), &addresses);
        // A host name was checked when names were reserved.
        let name = match namespace {
            None => name.get_ref().parse().ok().filter(|name: &IfName| name.as_str() != "lo"),
            Some(_) => self.interface_name(name),
        };
        let link = LinkId { place: place?, name: name? };
        Some(End { link, addresses, pools: Vec::new(), bridge: port_of, isolated: false, mac, mtu, tuning })
    }

    /// Names within a namespace are used once, by interfaces and ends of pairs alike.
    pub(super) fn inside_names(&mut self, written: &file::File, topology: &Topology) {
        let inside = |end: &&End| end.link.place != Place::Host;
        let mut seen = BTreeSet::new();
        let repeated: BTreeSet<String> = topology
            .ends()
            .filter(inside)
            .filter(|end| !seen.insert(&end.link))
            .map(|end| end.link.to_string())
            .collect();
        if repeated.is_empty() {
            return;
        }
        let interfaces = written.namespace.iter().flat_map(|namespace| {
            let netns = namespace.name.get_ref();
            namespace.interface.iter().map(move |interface| (netns.clone(), &interface.name))
        });
        let ends = written.veth.iter().flat_map(|veth| [&veth.a, &veth.b]);
        let ends = ends.filter_map(|end| Some((end.namespace.as_ref()?.get_ref().clone(), &end.name)));
        let mut first = BTreeSet::new();
        for (netns, name) in interfaces.chain(ends) {
            let link = format!("{netns}/{}", name.get_ref());
            if repeated.contains(&link) && !first.insert(link) {
                self.say(
                    name.span(),
                    format!("namespace {netns} has two interfaces {}: choose another name", name.get_ref()),
                );
            }
        }
    }
}

fn shown(end: &file::End) -> String {
    match &end.namespace {
        Some(netns) => format!("{}/{}", netns.get_ref(), end.name.get_ref()),
        None => end.name.get_ref().clone(),
    }
}
