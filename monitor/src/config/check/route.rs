//! Routes of a namespace: whether the kernel would take them, given the interfaces of the file.

use std::ops::RangeInclusive;

use super::*;
use crate::topology::{
    names::SysctlKey,
    route::{MAIN, Neighbour, OURS, RouteKind, Rule, default_metric},
};

impl Check<'_> {
    /// The routes of one namespace with these ends.
    pub(super) fn routes(
        &mut self,
        netns: &NsName,
        written: &file::Namespace,
        ends: Option<&Vec<&End>>,
    ) -> Vec<Route> {
        // It may have interfaces that the file does not know.
        let adopted = written.adopt.is_some();
        let ends = ends.map_or(&[][..], Vec::as_slice);
        let mut seen = BTreeSet::new();
        let mut routes = Vec::new();
        for at in &written.route {
            let Some(route) = self.route(netns, at, ends, adopted) else { continue };
            if !seen.insert((route.to, route.table, route.metric)) {
                self.say(at.to.span(), format!("the route to {} is in this namespace twice", route.to));
            }
            routes.push(route);
        }
        routes
    }

    fn route(
        &mut self,
        netns: &NsName,
        written: &file::Route,
        ends: &[&End],
        adopted: bool,
    ) -> Option<Route> {
        let file::Route { to, via, dev, table, metric, src, kind } = written;
        let kind = match kind {
            file::RouteKind::Unicast => RouteKind::Unicast,
            file::RouteKind::Blackhole => RouteKind::Blackhole,
            file::RouteKind::Unreachable => RouteKind::Unreachable,
            file::RouteKind::Prohibit => RouteKind::Prohibit,
        };
        if let Some(at) = via.as_ref().or(dev.as_ref()).filter(|_| kind != RouteKind::Unicast) {
            self.say(at.span(), "a route that drops packets sends them nowhere".to_owned());
        }
        let next = match via.as_ref().map(|via| (via, via.get_ref().parse::<IpAddr>())) {
            None => None,
            Some((_, Ok(next))) => Some(next),
            Some((via, Err(_))) => {
                self.say(via.span(), format!("`{}` is no IP address", via.get_ref().escape_debug()));
                return None;
            }
        };
        let destination = match destination(to.get_ref(), next) {
            Ok(destination) => destination,
            Err(what) => {
                self.say(to.span(), what);
                return None;
            }
        };
        let dev_name: Option<IfName> = match dev {
            None => None,
            Some(text) => Some(self.parse(text)?),
        };
        let table = table.as_ref().map_or(Some(MAIN), |table| self.table(table))?;
        let metric = match metric {
            None => default_metric(&destination),
            Some(metric) => self.number(metric, 0..=i64::from(u32::MAX), "metric")?,
        };
        let src = match src {
            None => None,
            Some(text) => match text.get_ref().parse::<IpAddr>() {
                Ok(src) if src.is_ipv4() == destination.addr().is_ipv4() => Some(src),
                Ok(src) => {
                    self.say(text.span(), format!("{src} and {destination} are not of one family"));
                    None
                }
                Err(_) => {
                    self.say(text.span(), format!("`{}` is no IP address", text.get_ref().escape_debug()));
                    None
                }
            },
        };
        if next.is_none() && dev.is_none() && kind == RouteKind::Unicast {
            self.say(to.span(), format!("the route to {destination} says neither `via` nor `dev`"));
        }
        // With a mistake in an interface, the rest cannot be told.
        if self.doubtful.contains(netns) {
            return None;
        }
        if let (Some(name), Some(text)) = (&dev_name, dev)
            && !adopted
            && !ends.iter().any(|end| end.link.name == *name)
        {
            self.say(text.span(), format!("namespace {netns} has no interface {name} in the file"));
            return None;
        }
        if let (Some(next), Some(via)) = (next, via)
            && !adopted
            && let Some(what) = unreachable(netns, destination, next, dev_name.as_ref(), ends)
        {
            self.say(via.span(), what);
        }
        if let (Some(address), Some(text)) = (src, written.src.as_ref())
            && !adopted
            && !ends
                .iter()
                .any(|end| end.addresses.iter().chain(&end.pools).any(|net| net.contains(&address)))
        {
            self.say(text.span(), format!("{address} is in no network of {netns}"));
        }
        Some(Route { kind, table, metric, src, ..Route::new(destination, next, dev_name) })
    }

    /// The number of a routing table.
    fn table(&mut self, written: &Spanned<i64>) -> Option<u32> {
        self.number(written, 1..=i64::from(u32::MAX), "table")
    }

    pub(super) fn number(
        &mut self,
        written: &Spanned<i64>,
        range: RangeInclusive<i64>,
        what: &str,
    ) -> Option<u32> {
        let number = *written.get_ref();
        match u32::try_from(number).ok().filter(|_| range.contains(&number)) {
            Some(number) => Some(number),
            None => {
                let (first, last) = (range.start(), range.end());
                self.say(written.span(), format!("{what} {number} is not from {first} to {last}"));
                None
            }
        }
    }

    /// Policy rules of one namespace.
    pub(super) fn rules(&mut self, written: &file::Namespace) -> Vec<Rule> {
        let mut rules = Vec::new();
        for at in &written.rule {
            let file::Rule { priority, from, to, iif, oif, fwmark, table, ipv6 } = at;
            let prefixes = [from, to].map(|text| {
                let text = text.as_ref()?;
                match destination(text.get_ref(), Some(IpAddr::from([0; 4]))) {
                    Ok(prefix) => Some(prefix),
                    Err(what) => {
                        self.say(text.span(), what);
                        None
                    }
                }
            });
            let families: Vec<bool> =
                prefixes.iter().flatten().map(|prefix| prefix.addr().is_ipv6()).collect();
            if let ([a, b], Some(to)) = (&families[..], to)
                && a != b
            {
                self.say(to.span(), "`from` and `to` are not of one family".to_owned());
            }
            let names = [iif, oif].map(|text| text.as_ref().and_then(|text| self.parse(text)));
            let [from, to] = prefixes;
            let [iif, oif] = names;
            let fwmark =
                fwmark.as_ref().and_then(|mark| self.number(mark, 0..=i64::from(u32::MAX), "fwmark"));
            let priority_ = self.number(priority, 1..=32765, "priority");
            let (Some(priority_), Some(table)) = (priority_, self.table(table)) else { continue };
            let ipv6 = families.first().copied().unwrap_or(*ipv6);
            let rule = Rule { priority: priority_, ipv6, from, to, iif, oif, fwmark, table };
            if rules.contains(&rule) {
                self.say(priority.span(), format!("this rule, `{rule}`, is in this namespace twice"));
                continue;
            }
            rules.push(rule);
        }
        rules
    }

    /// Permanent neighbours of one namespace.
    pub(super) fn neighbours(&mut self, written: &file::Namespace) -> Vec<Neighbour> {
        let mut neighbours: Vec<Neighbour> = Vec::new();
        for file::Neighbour { address, mac, dev } in &written.neighbour {
            let Ok(found) = address.get_ref().parse::<IpAddr>() else {
                let what = format!("`{}` is no IP address", address.get_ref().escape_debug());
                self.say(address.span(), what);
                continue;
            };
            let (mac, dev) = (self.parse::<MacAddr>(mac), self.parse::<IfName>(dev));
            let (Some(mac), Some(dev)) = (mac, dev) else { continue };
            if neighbours.iter().any(|other| other.address == found && other.dev == dev) {
                self.say(address.span(), format!("neighbour {found} on {dev} is in this namespace twice"));
                continue;
            }
            neighbours.push(Neighbour { dev, address: found, mac: Some(mac), protocol: OURS });
        }
        neighbours
    }

    /// Kernel settings of one namespace: those that set others first.
    pub(super) fn sysctls(&mut self, written: &file::Namespace) -> Vec<(SysctlKey, String)> {
        let mut sysctls: Vec<(SysctlKey, String)> = Vec::new();
        for (name, value) in &written.sysctl {
            let Some(key) = self.parse::<SysctlKey>(name) else { continue };
            let text = match value.get_ref() {
                file::Setting::Number(number) => number.to_string(),
                file::Setting::Text(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
            };
            if text.is_empty() || text.contains(|c: char| c.is_control()) {
                self.say(value.span(), format!("sysctl {key} has no value that could be written"));
            } else if sysctls.iter().any(|(other, _)| *other == key) {
                self.say(name.span(), format!("sysctl {key} is in this namespace twice"));
            } else {
                sysctls.push((key, text));
            }
        }
        let sets_others =
            |key: &SysctlKey| key.path().contains("/all/") || key.path().ends_with("/ip_forward");
        sysctls.sort_by_key(|(key, _)| (!sets_others(key), key.clone()));
        sysctls
    }
}

/// Why the kernel would refuse this next hop.
fn unreachable(
    netns: &NsName,
    to: IpNet,
    next: IpAddr,
    dev: Option<&IfName>,
    ends: &[&End],
) -> Option<String> {
    if next.is_ipv4() != to.addr().is_ipv4() {
        return Some(format!("{next} and {to} are not of one family"));
    }
    if ends.iter().any(|end| end.addresses.iter().any(|address| address.addr() == next)) {
        return Some(format!("{next} is an address of {netns} itself"));
    }
    if matches!(next, IpAddr::V6(next) if next.is_unicast_link_local()) {
        let what = format!("{next} is link-local: say through which interface with `dev`");
        return dev.is_none().then_some(what);
    }
    let reaches = |end: &&&End| end.addresses.iter().chain(&end.pools).any(|net| net.contains(&next));
    match dev {
        Some(dev) => {
            let reached = ends.iter().filter(|end| end.link.name == *dev).any(|end| reaches(&end));
            (!reached).then(|| format!("{next} is not in a network of {dev}"))
        }
        None => {
            let reached = ends.iter().any(|end| reaches(&end));
            (!reached).then(|| format!("{next} cannot be reached: no interface of {netns} is in its network"))
        }
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
