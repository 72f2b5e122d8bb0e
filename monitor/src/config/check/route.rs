//! Routes of a namespace: whether the kernel would take them, given the interfaces of the file.

use super::*;

impl Check<'_> {
    /// The routes of one namespace with these ends.
    pub(super) fn routes(
        &mut self,
        netns: &NsName,
        written: &file::Namespace,
        ends: Option<&Vec<&End>>,
    ) -> Vec<Route> {
        let ends = ends.map_or(&[][..], Vec::as_slice);
        let mut seen = BTreeSet::new();
        let mut routes = Vec::new();
        for at in &written.route {
            let Some(route) = self.route(netns, at, ends) else { continue };
            if !seen.insert(route.to) {
                self.say(at.to.span(), format!("the route to {} is in this namespace twice", route.to));
            }
            routes.push(route);
        }
        routes
    }

    fn route(&mut self, netns: &NsName, written: &file::Route, ends: &[&End]) -> Option<Route> {
        let file::Route { to, via, dev } = written;
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
        if next.is_none() && dev.is_none() {
            self.say(to.span(), format!("the route to {destination} says neither `via` nor `dev`"));
        }
        // With a mistake in an interface, the rest cannot be told.
        if self.doubtful.contains(netns) {
            return None;
        }
        if let (Some(name), Some(text)) = (&dev_name, dev)
            && !ends.iter().any(|end| end.link.name == *name)
        {
            self.say(text.span(), format!("namespace {netns} has no interface {name} in the file"));
            return None;
        }
        if let (Some(next), Some(via)) = (next, via)
            && let Some(what) = unreachable(netns, destination, next, dev_name.as_ref(), ends)
        {
            self.say(via.span(), what);
        }
        Some(Route { to: destination, via: next, dev: dev_name })
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
