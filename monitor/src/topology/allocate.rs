//! Which address an interface without one gets: the one it has, else the lowest that is free.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{Observed, Topology, names::LinkId};

/// A pool has no address left.
#[derive(Debug)]
pub(super) struct Exhausted {
    pub(super) link: LinkId,
    pub(super) pool: IpNet,
}

/// The addresses of every end, given and drawn from pools. Deterministic, and stable: an address that an interface
/// already has stays with it.
pub(super) fn addresses(
    desired: &Topology,
    observed: &Observed,
) -> Result<BTreeMap<LinkId, Vec<IpNet>>, Exhausted> {
    let gateways = desired.bridges.iter().flat_map(|bridge| &bridge.gateways);
    let given = desired.ends().flat_map(|end| &end.addresses);
    let mut taken: BTreeSet<IpAddr> = gateways.chain(given).map(IpNet::addr).collect();

    let mut kept = BTreeMap::new();
    for end in desired.ends() {
        for pool in &end.pools {
            let has = observed.link(&end.link).into_iter().flat_map(|link| &link.addresses);
            let fits = |address: &&IpNet| {
                pool.prefix_len() == address.prefix_len()
                    && pool.contains(&address.addr())
                    && is_host(pool, address.addr())
            };
            if let Some(address) = has.filter(fits).find(|address| taken.insert(address.addr())) {
                kept.insert((&end.link, *pool), *address);
            }
        }
    }

    // What somebody has now is given to somebody else only when nothing else is left.
    let held: BTreeSet<IpAddr> = desired
        .ends()
        .filter_map(|end| observed.link(&end.link))
        .flat_map(|link| &link.addresses)
        .map(IpNet::addr)
        .collect();
    // Where the search of each pool got to: everything below is taken.
    let mut next: BTreeMap<IpNet, IpAddr> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for end in desired.ends() {
        let mut addresses = end.addresses.clone();
        for pool in &end.pools {
            let address = match kept.get(&(&end.link, *pool)) {
                Some(address) => *address,
                None => {
                    let from = next.get(pool).copied();
                    let free =
                        hosts_from(pool, from).find(|free| !held.contains(free) && taken.insert(*free));
                    next.extend(free.map(|free| (*pool, free)));
                    let free = free.or_else(|| hosts_from(pool, None).find(|free| taken.insert(*free)));
                    let free = free.ok_or_else(|| Exhausted { link: end.link.clone(), pool: *pool })?;
                    IpNet::new(free, pool.prefix_len()).unwrap_or(*pool)
                }
            };
            addresses.push(address);
        }
        all.insert(end.link.clone(), addresses);
    }
    Ok(all)
}

/// Whether an address of a subnet can be an interface's: neither the network's own nor its broadcast.
pub(crate) fn is_host(subnet: &IpNet, address: IpAddr) -> bool {
    address != subnet.network() && (address != subnet.broadcast() || address.is_ipv6())
}

/// The lowest address of the network of `gateway` that nobody has, with its prefix length.
pub fn next_free(gateway: &IpNet, taken: &BTreeSet<IpAddr>) -> Option<IpNet> {
    let pool = gateway.trunc();
    let free = hosts_from(&pool, None).find(|free| !taken.contains(free) && *free != gateway.addr())?;
    IpNet::new(free, pool.prefix_len()).ok()
}

/// Host addresses of a pool in order, beginning at `from`.
fn hosts_from(pool: &IpNet, from: Option<IpAddr>) -> impl Iterator<Item = IpAddr> + use<> {
    let pool = *pool;
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let (first, last) = (number(from.unwrap_or(pool.network())), number(pool.broadcast()));
    (first..=last)
        .map(move |number| match pool {
            // The bounds are addresses of the same family.
            IpNet::V4(_) => IpAddr::V4((number as u32).into()),
            IpNet::V6(_) => IpAddr::V6(number.into()),
        })
        .filter(move |address| is_host(&pool, *address))
}
