//! Subnets, gateways, addresses, routes.

use super::*;

impl Check<'_> {
    pub(super) fn subnets(&mut self, written: &Spanned<file::OneOrMany>) -> Vec<IpNet> {
        let mut subnets: Vec<IpNet> = Vec::new();
        for text in written.get_ref().as_slice() {
            match subnet(text) {
                Ok(found) if subnets.iter().any(|other| same_family(other, &found)) => {
                    self.say(
                        written.span(),
                        format!("{found} is the second subnet of its family: a bridge has at most one each"),
                    );
                }
                Ok(found) => subnets.push(found),
                Err(what) => self.say(written.span(), what),
            }
        }
        subnets
    }

    /// One for each subnet: the one given, else the first address.
    pub(super) fn gateways(
        &mut self,
        written: Option<&Spanned<file::OneOrMany>>,
        subnets: &[IpNet],
    ) -> Vec<IpNet> {
        let mut given: Vec<IpNet> = Vec::new();
        for text in written.iter().flat_map(|written| written.get_ref().as_slice()) {
            let at = written.map(Spanned::span).unwrap_or_default();
            let Ok(address) = text.parse::<IpAddr>() else {
                self.say(
                    at,
                    format!(
                        "gateway `{}` is no IP address; it stands without prefix length",
                        text.escape_debug()
                    ),
                );
                continue;
            };
            let Some(subnet) = subnets.iter().find(|subnet| subnet.contains(&address)) else {
                self.say(at, format!("gateway {address} is in no subnet of its bridge"));
                continue;
            };
            if !is_host(subnet, address) {
                self.say(at, format!("gateway {address} is the network or broadcast address of {subnet}"));
            } else if given.iter().any(|other| subnet.contains(&other.addr())) {
                self.say(at, format!("gateway {address} is the second in {subnet}"));
            } else {
                given.extend(IpNet::new(address, subnet.prefix_len()));
            }
        }
        let first = |subnet: &IpNet| {
            let chosen = given.iter().find(|gateway| subnet.contains(&gateway.addr())).copied();
            chosen.or_else(|| {
                IpNet::new(subnet.hosts().find(|host| is_host(subnet, *host))?, subnet.prefix_len()).ok()
            })
        };
        subnets.iter().filter_map(first).collect()
    }

    /// Addresses of an interface on a segment, each at most once there.
    pub(super) fn addresses(
        &mut self,
        written: Option<&Spanned<file::OneOrMany>>,
        segment: &str,
    ) -> Vec<IpNet> {
        let mut addresses = Vec::new();
        let Some(written) = written else { return addresses };
        for text in written.get_ref().as_slice() {
            match interface_address(text) {
                Ok(address) if !self.addresses.insert((segment.to_owned(), address.addr())) => {
                    self.say(
                        written.span(),
                        format!("address {} is used twice on {segment}", address.addr()),
                    );
                }
                Ok(address) => addresses.push(address),
                Err(what) => self.say(written.span(), what),
            }
        }
        addresses
    }

    /// An address on a bridge lies in its subnet, with the subnet's prefix length, and is not the bridge's own.
    pub(super) fn on_bridge(&mut self, at: &Range<usize>, addresses: &[IpNet], bridge: &IfName) {
        let (subnets, gateways) = self.bridges.get(bridge).cloned().unwrap_or_default();
        for address in addresses {
            let subnet = subnets.iter().find(|subnet| same_family(subnet, address));
            let what = match subnet {
                None => continue,
                Some(subnet) if !subnet.contains(&address.addr()) => {
                    format!("address {address} is outside {subnet}, the subnet of bridge {bridge}")
                }
                Some(subnet) if subnet.prefix_len() != address.prefix_len() => {
                    let (ours, theirs) = (address.prefix_len(), subnet.prefix_len());
                    format!(
                        "address {address} has prefix length {ours}, the subnet of bridge {bridge} has {theirs}"
                    )
                }
                Some(_) if gateways.iter().any(|gateway| gateway.addr() == address.addr()) => {
                    format!("address {address} is the gateway: bridge {bridge} has it")
                }
                Some(_) => continue,
            };
            self.say(at.clone(), what);
        }
    }

    /// More interfaces than a pool has addresses is known before anything is tried.
    pub(super) fn pools(&mut self, written: &file::File, topology: &Topology) {
        for (bridge, at) in topology.bridges.iter().zip(&written.bridge) {
            for subnet in &bridge.subnets {
                let members = topology.ends().filter(|end| {
                    end.pools.contains(subnet)
                        || end.addresses.iter().any(|address| subnet.contains(&address.addr()))
                });
                let (members, bits) =
                    (members.count() as u128, subnet.max_prefix_len() - subnet.prefix_len());
                // Network, broadcast (IPv4) and gateway are not to be had.
                let reserved = if subnet.max_prefix_len() == 32 { 3 } else { 2 };
                let room = (1_u128.checked_shl(bits.into()).unwrap_or(u128::MAX)).saturating_sub(reserved);
                if members > room {
                    let at = at.subnet.as_ref().map_or(at.name.span(), Spanned::span);
                    self.say(at, format!("{subnet} has room for {room} interfaces, the file has {members}: use a larger subnet"));
                }
            }
        }
    }

    pub(super) fn route(
        &mut self,
        netns: &NsName,
        written: &file::Route,
        topology: &Topology,
    ) -> Option<Route> {
        let file::Route { to, via, dev } = written;
        let ends: Vec<&End> =
            topology.ends().filter(|end| end.link.place == Place::Netns(netns.clone())).collect();
        let next = match via {
            None => None,
            Some(via) => match via.get_ref().parse::<IpAddr>() {
                Ok(next) => Some(next),
                Err(_) => {
                    self.say(via.span(), format!("`{}` is no IP address", via.get_ref().escape_debug()));
                    return None;
                }
            },
        };
        let destination = match destination(to.get_ref(), next) {
            Ok(destination) => destination,
            Err(what) => {
                self.say(to.span(), what);
                return None;
            }
        };
        if let (Some(next), Some(via)) = (next, via) {
            if next.is_ipv4() != destination.addr().is_ipv4() {
                self.say(via.span(), format!("{next} and {destination} are not of one family"));
            } else if ends.iter().any(|end| end.addresses.iter().any(|address| address.addr() == next)) {
                self.say(via.span(), format!("{next} is an address of {netns} itself"));
            } else if !ends
                .iter()
                .any(|end| end.addresses.iter().chain(&end.pools).any(|net| net.contains(&next)))
            {
                self.say(
                    via.span(),
                    format!("{next} cannot be reached: no interface of {netns} is in its network"),
                );
            }
        }
        let dev = match dev {
            None => None,
            Some(text) => {
                let name: IfName = self.parse(text)?;
                if !ends.iter().any(|end| end.link.name == name) {
                    self.say(text.span(), format!("namespace {netns} has no interface {name} in the file"));
                }
                Some(name)
            }
        };
        if next.is_none() && dev.is_none() {
            self.say(to.span(), format!("the route to {destination} says neither `via` nor `dev`"));
        }
        Some(Route { to: destination, via: next, dev })
    }

    pub(super) fn repeated_routes(&mut self, written: &file::Namespace, routes: &[Route]) {
        let mut seen = BTreeSet::new();
        for (route, at) in routes.iter().zip(&written.route) {
            if !seen.insert(route.to) {
                self.say(at.to.span(), format!("the route to {} is in this namespace twice", route.to));
            }
        }
    }
}

pub(super) fn same_family(a: &IpNet, b: &IpNet) -> bool {
    a.max_prefix_len() == b.max_prefix_len()
}

fn is_host(subnet: &IpNet, address: IpAddr) -> bool {
    address != subnet.network() && (address != subnet.broadcast() || address.is_ipv6())
}

fn subnet(text: &str) -> Result<IpNet, String> {
    let shown = text.escape_debug();
    let net: IpNet = text.parse().map_err(|_error| format!("`{shown}` is no subnet like 198.51.100.0/24"))?;
    if net.addr() != net.network() {
        return Err(format!("{net} has bits set after its prefix: did you mean {}?", net.trunc()));
    }
    usable(net.addr()).map_err(|why| format!("{net} {why}"))?;
    if net.max_prefix_len() - net.prefix_len() < 2 {
        return Err(format!(
            "{net} has no room for a gateway and an interface: /{} is the smallest",
            net.max_prefix_len() - 2
        ));
    }
    Ok(net)
}

fn interface_address(text: &str) -> Result<IpNet, String> {
    let shown = text.escape_debug();
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!(
            "address {shown} has no prefix length: write {shown}/24, or what its network has"
        ));
    }
    let net: IpNet =
        text.parse().map_err(|_error| format!("`{shown}` is no address like 198.51.100.2/24"))?;
    usable(net.addr()).map_err(|why| format!("address {net} {why}"))?;
    if net.prefix_len() == 0 {
        return Err(format!("address {net} has prefix length 0, which makes everything its network"));
    }
    if net.prefix_len() + 1 < net.max_prefix_len() && !is_host(&net, net.addr()) {
        return Err(format!("address {net} is the network or broadcast address of {}", net.trunc()));
    }
    Ok(net)
}

/// What no interface of ours can have.
fn usable(address: IpAddr) -> Result<(), &'static str> {
    let link_local = match address {
        IpAddr::V4(address) if address.is_broadcast() => return Err("is the broadcast address"),
        IpAddr::V4(_) => false,
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            return Err("is IPv4-mapped: write the IPv4 address");
        }
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    match address {
        _ if link_local => Err("is link-local: the kernel gives those itself"),
        address if address.is_unspecified() => Err("is the unspecified address"),
        address if address.is_multicast() => Err("is a multicast address"),
        address if address.is_loopback() => Err("is a loopback address"),
        _ => Ok(()),
    }
}

fn destination(text: &str, via: Option<IpAddr>) -> Result<IpNet, String> {
    let shown = text.escape_debug();
    if text == "default" {
        let any = match via {
            Some(IpAddr::V4(_)) => "0.0.0.0/0",
            Some(IpAddr::V6(_)) => "::/0",
            None => {
                return Err(
                    "a default route without `via`: write 0.0.0.0/0 or ::/0 to say which family".to_owned()
                );
            }
        };
        return any.parse().map_err(|_error| "no default prefix".to_owned());
    }
    let net: IpNet = match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => text
            .parse()
            .map_err(|_error| format!("`{shown}` is neither `default` nor a prefix like 203.0.113.0/24"))?,
    };
    match net.addr() == net.network() {
        true => Ok(net),
        false => Err(format!("{net} has bits set after its prefix: did you mean {}?", net.trunc())),
    }
}
