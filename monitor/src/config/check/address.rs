//! Subnets, gateways, addresses.

use super::*;

impl Check<'_> {
    pub(super) fn subnets(&mut self, written: &Spanned<file::OneOrMany>) -> Vec<IpNet> {
        let mut subnets: Vec<IpNet> = Vec::new();
        for (at, text) in file::texts(written) {
            match subnet(text) {
                Ok(found) if subnets.iter().any(|other| same_family(other, &found)) => {
                    self.say(
                        at,
                        format!("{found} is the second subnet of its family: a bridge has at most one each"),
                    );
                }
                Ok(found) => subnets.push(found),
                Err(what) => self.say(at, what),
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
        for (at, text) in written.map(file::texts).unwrap_or_default() {
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

    /// Addresses of an interface on a segment, each at most once there; on a bridge each fits the bridge.
    pub(super) fn addresses(
        &mut self,
        written: Option<&Spanned<file::OneOrMany>>,
        segment: &str,
        bridge: Option<&IfName>,
    ) -> Vec<IpNet> {
        let mut addresses = Vec::new();
        for (at, text) in written.map(file::texts).unwrap_or_default() {
            let address = match interface_address(text) {
                Ok(address) => address,
                Err(what) => {
                    self.say(at, what);
                    continue;
                }
            };
            if !self.addresses.insert((segment.to_owned(), address.addr())) {
                self.say(at, format!("address {} is used twice on {segment}", address.addr()));
                continue;
            }
            if let Some(what) = bridge.and_then(|bridge| self.misfit(&address, bridge)) {
                self.say(at, what);
            }
            addresses.push(address);
        }
        addresses
    }

    /// Why an address cannot be on a bridge: it lies in the subnet of its family, with the subnet's prefix length, and is
    /// not the bridge's own. A bridge without any subnet takes every address.
    fn misfit(&self, address: &IpNet, bridge: &IfName) -> Option<String> {
        let (subnets, gateways) = self.bridges.get(bridge)?;
        if subnets.is_empty() || self.broken.contains(bridge.as_str()) {
            return None;
        }
        let Some(subnet) = subnets.iter().find(|subnet| same_family(subnet, address)) else {
            let family = if address.addr().is_ipv6() { "IPv6" } else { "IPv4" };
            return Some(format!("address {address}: bridge {bridge} has no {family} subnet, give it one"));
        };
        if !subnet.contains(&address.addr()) {
            return Some(format!("address {address} is outside {subnet}, the subnet of bridge {bridge}"));
        }
        if subnet.prefix_len() != address.prefix_len() {
            let (ours, theirs) = (address.prefix_len(), subnet.prefix_len());
            return Some(format!(
                "address {address} has prefix length {ours}, the subnet of bridge {bridge} has {theirs}"
            ));
        }
        let own = gateways.iter().any(|gateway| gateway.addr() == address.addr());
        own.then(|| format!("address {address} is the gateway: bridge {bridge} has it"))
    }

    /// More interfaces than a pool has addresses is known before anything is tried.
    pub(super) fn pools(&mut self, written: &file::File, topology: &Topology) {
        for at in &written.bridge {
            let Some(bridge) = topology.bridges.iter().find(|b| b.name.as_str() == at.name.get_ref()) else {
                continue;
            };
            let members: Vec<&End> = topology
                .veths
                .iter()
                .filter(|veth| veth.a.bridge.as_ref() == Some(&bridge.name))
                .map(|veth| &veth.b)
                .collect();
            for subnet in &bridge.subnets {
                let asked: usize = members
                    .iter()
                    .map(|end| {
                        let given = end.addresses.iter().filter(|address| subnet.contains(&address.addr()));
                        given.count() + usize::from(end.pools.contains(subnet))
                    })
                    .sum();
                // Network, broadcast (IPv4) and gateway are not to be had.
                let reserved = if subnet.max_prefix_len() == 32 { 3 } else { 2 };
                let bits = u32::from(subnet.max_prefix_len() - subnet.prefix_len());
                let room = 1_u128.checked_shl(bits).unwrap_or(u128::MAX).saturating_sub(reserved);
                if asked as u128 > room {
                    let at = at.subnet.as_ref().map_or(at.name.span(), Spanned::span);
                    let s = if room == 1 { "" } else { "es" };
                    let what = format!(
                        "{subnet} has room for {room} address{s} of interfaces, the file asks for {asked}: \
                         use a larger subnet"
                    );
                    self.say(at, what);
                }
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
    let last = net.broadcast();
    usable(last).map_err(|why| format!("{net} reaches to {last}, which {why}"))?;
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
        IpAddr::V4(_) => false,
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            return Err("is IPv4-mapped: write the IPv4 address");
        }
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    match link_local {
        true => Err("is link-local: the kernel gives those itself"),
        false => of_one_host(address),
    }
}

/// What can be no host's address.
pub(crate) fn of_one_host(address: IpAddr) -> Result<(), &'static str> {
    match address {
        IpAddr::V4(address) if address.is_broadcast() => Err("is the broadcast address"),
        address if address.is_unspecified() => Err("is the unspecified address"),
        address if address.is_multicast() => Err("is a multicast address"),
        address if address.is_loopback() => Err("is a loopback address"),
        _ => Ok(()),
    }
}
