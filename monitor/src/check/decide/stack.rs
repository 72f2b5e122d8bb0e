//! Settings of the kernel that drop: echoes ignored, forwarding off, the reverse path filter.

use super::{Case, Cause};
use crate::{
    check::scene::{named, within},
    reconcile::site::Way,
    topology::names::{LinkId, Place, SysctlKey},
};

/// Settings by which a namespace ignores echoes: of IPv4 and of IPv6.
pub(super) const IGNORE: [&str; 2] = ["ipv4/icmp_echo_ignore_all", "ipv6/icmp/echo_ignore_all"];

/// A setting as sysctl(8) takes it.
pub(super) fn key(path: &str) -> String {
    let key: Result<SysctlKey, _> = format!("net/{path}").parse();
    key.map_or_else(|_| format!("net/{path}"), |key| key.to_string())
}

impl Case<'_> {
    /// The target does not answer to echoes at all.
    pub(super) fn ignored(&self) -> Option<Cause> {
        let place = &self.probe.at.as_ref()?.place;
        let path = IGNORE[usize::from(self.probe.ipv6)];
        (self.scene.setting(place, path)? == "1").then(|| Cause {
            kind: "echo_ignored",
            place: place.clone(),
            what: format!("{} ignores echoes ({} is 1)", named(place), key(path)),
            mend: Some(set(place, path, "0")),
        })
    }

    /// The host does not send on what comes in, on the way there or back.
    pub(super) fn forwarding(&self) -> Option<Cause> {
        if self.probe.at.is_some() {
            return None;
        }
        let gateway = self.gateway(&self.probe.from)?;
        let inner = self.scene.owner(gateway, &self.probe.from.place)?;
        let uplink = match self.scene.ways.get(&(Place::Host, self.probe.to?)) {
            Some(Way::Out { ifindex, .. }) => self.scene.sites.get(&Place::Host)?.name(*ifindex),
            _ => None,
        };
        let uplink = uplink.map(|name| LinkId::host(name.clone()));
        [Some(inner), uplink].into_iter().flatten().find_map(|link| self.sends_nothing_on(&link))
    }

    fn sends_nothing_on(&self, link: &LinkId) -> Option<Cause> {
        let LinkId { place, name } = link;
        let setting = |path: &str| self.scene.setting(place, path);
        let path = if self.probe.ipv6 {
            let forced = format!("ipv6/conf/{name}/force_forwarding");
            if setting("ipv6/conf/all/forwarding")? != "0" || setting(&forced).is_some_and(|on| on != "0") {
                return None;
            }
            // Before kernel 6.17 there is no switch for one link.
            if setting(&forced).is_some() { forced } else { "ipv6/conf/all/forwarding".to_owned() }
        } else {
            let path = format!("ipv4/conf/{name}/forwarding");
            if setting(&path)? != "0" {
                return None;
            }
            path
        };
        Some(Cause {
            kind: "forwarding_off",
            place: place.clone(),
            what: format!("{} does not forward what comes in by {name} ({} is 0)", named(place), key(&path)),
            mend: Some(set(place, &path, "1")),
        })
    }

    /// The target drops what it would not answer by the same link.
    pub(super) fn reverse_path(&self) -> Option<Cause> {
        let at = self.probe.at.as_ref().filter(|_| !self.probe.ipv6)?;
        let LinkId { place, name } = at;
        let own = format!("ipv4/conf/{name}/rp_filter");
        let of = |path: &str| self.scene.setting(place, path)?.parse::<u8>().ok();
        let strict = of(&own)?.max(of("ipv4/conf/all/rp_filter")?) == 1;
        let back = match self.scene.ways.get(&(place.clone(), self.source()?))? {
            Way::Out { ifindex, .. } => *ifindex,
            _ => return None,
        };
        (strict && self.scene.link(at)?.ifindex != back).then(|| Cause {
            kind: "reverse_path",
            place: place.clone(),
            what: format!(
                "{} drops what comes in by {name} and is answered by another link (rp_filter)",
                named(place)
            ),
            mend: Some(set(place, &own, "2")),
        })
    }
}

fn set(place: &Place, path: &str, value: &str) -> String {
    format!("{}sysctl -w {}={value}", within(place), key(path))
}
