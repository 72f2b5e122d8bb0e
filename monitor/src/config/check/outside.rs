//! Published ports, pairs that may talk, rules of namespaces.

use super::*;
use crate::topology::outside::{Chain, Hook, Party, Ports, Protocol, Publish};

impl Check<'_> {
    /// Every port of the host is published once, and only where there is somebody to send it to.
    pub(super) fn published(&mut self, written: &file::File, topology: &mut Topology) {
        let mut all: Vec<(Publish, NsName)> = Vec::new();
        for namespace in &written.namespace {
            let Some(list) = &namespace.publish else { continue };
            let Ok(netns) = namespace.name.get_ref().parse::<NsName>() else { continue };
            let mut published = Vec::new();
            for (at, text) in file::texts(list) {
                let publish = match publish(text) {
                    Ok(publish) => publish,
                    Err(what) => {
                        self.say(at, what);
                        continue;
                    }
                };
                if let Some((other, whose)) = all.iter().find(|(other, _)| other.collides(&publish)) {
                    self.say(
                        at,
                        format!("{publish} takes a port of {other}, published for namespace {whose}"),
                    );
                    continue;
                }
                if !self.doubtful.contains(&netns)
                    && let Some(what) = unreachable(topology, &netns, &publish)
                {
                    self.say(at, what);
                    continue;
                }
                all.push((publish.clone(), netns.clone()));
                published.push(publish);
            }
            if let Some(found) = topology.namespaces.iter_mut().find(|found| found.name == netns) {
                found.publish = published;
            }
        }
    }

    pub(super) fn allow(&mut self, written: &file::Allow, topology: &Topology) -> Option<[Party; 2]> {
        let names = written.between.get_ref();
        let [a, b] = &names[..] else {
            let what = format!("`between` names {}, it takes two bridges or namespaces", names.len());
            self.say(written.between.span(), what);
            return None;
        };
        let (first, second) = (self.party(a, topology), self.party(b, topology));
        if a.get_ref() == b.get_ref() {
            self.say(
                b.span(),
                format!("{} is named twice: it may talk to itself anyway", a.get_ref().escape_debug()),
            );
            return None;
        }
        Some([first?, second?])
    }

    fn party(&mut self, written: &Spanned<String>, topology: &Topology) -> Option<Party> {
        let name = written.get_ref();
        let bridge = topology.bridges.iter().find(|bridge| bridge.name.as_str() == name);
        let netns = topology.namespaces.iter().find(|netns| netns.name.as_str() == name);
        match (bridge, netns) {
            (Some(bridge), None) => Some(Party::Bridge(bridge.name.clone())),
            (None, Some(netns)) if topology.way(&netns.name).is_some() => {
                Some(Party::Netns(netns.name.clone()))
            }
            (None, Some(_)) if self.doubtful.iter().any(|netns| netns.as_str() == name) => None,
            (None, Some(netns)) => {
                let what =
                    format!("the host has no link to namespace {}: it can let nothing through", netns.name);
                self.say(written.span(), what);
                None
            }
            (Some(_), Some(_)) => {
                let what =
                    format!("`{}` is a bridge and a namespace: give one another name", name.escape_debug());
                self.say(written.span(), what);
                None
            }
            (None, None) if self.broken.contains(name) => None,
            (None, None) => {
                let what = format!("there is no bridge or namespace `{}` in the file", name.escape_debug());
                self.say(written.span(), what);
                None
            }
        }
    }

    pub(super) fn firewall(&mut self, written: &file::Firewall) -> Vec<Chain> {
        let file::Firewall { input, forward, output } = written;
        let chains = [(Hook::Input, input), (Hook::Forward, forward), (Hook::Output, output)];
        let mut checked = Vec::new();
        for (hook, chain) in chains {
            let Some(file::Chain { policy, rule }) = chain else { continue };
            let mut rules = Vec::new();
            for rule in rule {
                match one_rule(rule.get_ref()) {
                    Ok(text) => rules.push(text),
                    Err(what) => self.say(rule.span(), what),
                }
            }
            checked.push(Chain { hook, drop: *policy == file::Policy::Drop, rules });
        }
        checked
    }
}

/// Why a published port would lead nowhere.
fn unreachable(topology: &Topology, netns: &NsName, publish: &Publish) -> Option<String> {
    let Some((_, inner)) = topology.way(netns) else {
        return Some(format!(
            "{publish}: the host has no link to namespace {netns}: give it an interface on a bridge, or a veth"
        ));
    };
    let end = topology.ends().find(|end| end.link == *inner)?;
    let families: Vec<bool> =
        end.addresses.iter().chain(&end.pools).map(|address| address.addr().is_ipv6()).collect();
    match publish.at {
        None if families.is_empty() => Some(format!("{publish}: {inner} has no address to send to")),
        Some(at) if !families.contains(&at.is_ipv6()) => {
            let family = if at.is_ipv6() { "IPv6" } else { "IPv4" };
            Some(format!("{publish}: {inner} has no {family} address to send to"))
        }
        _ => None,
    }
}

/// `[ADDRESS:]PORT[-PORT]:PORT[-PORT][/PROTOCOL]`.
fn publish(text: &str) -> Result<Publish, String> {
    let wrong = |why: &str| format!("`{}` is no published port like 8080:80/tcp: {why}", text.escape_debug());
    let (ports, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return Err(wrong(&format!("`{}` is not tcp, udp or sctp", other.escape_debug()))),
    };
    let (rest, to) = ports.rsplit_once(':').ok_or_else(|| wrong("it has no port of the namespace"))?;
    let (at, ports) = match rest.rsplit_once(':') {
        Some((at, ports)) => (Some(at), ports),
        None => (None, rest),
    };
    let at = match at {
        None => None,
        Some(at) => {
            let plain = at.strip_prefix('[').and_then(|at| at.strip_suffix(']')).unwrap_or(at);
            let at: IpAddr = plain.parse().map_err(|_error| {
                wrong(&format!(
                    "`{}` is no address of the host (an IPv6 address stands in brackets)",
                    at.escape_debug()
                ))
            })?;
            if at.is_loopback() && at.is_ipv6() {
                return Err(wrong(
                    "the kernel cannot send what comes to ::1 anywhere else; publish at 127.0.0.1",
                ));
            }
            // The address that means all of them.
            Some(at).filter(|at| !at.is_unspecified())
        }
    };
    let (ports, to) = (range(ports).map_err(|why| wrong(&why))?, range(to).map_err(|why| wrong(&why))?);
    let many = |range: Ports| u32::from(range.last - range.first) + 1;
    if many(ports) != many(to) {
        return Err(wrong(&format!("{} ports of the host lead to {}", many(ports), many(to))));
    }
    Ok(Publish { at, ports, to, protocol })
}

fn range(text: &str) -> Result<Ports, String> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err(format!("`{}` is no port from 1 to 65535", text.escape_debug())),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    match first <= last {
        true => Ok(Ports { first, last }),
        false => Err(format!("{first}-{last} goes backwards")),
    }
}

/// A rule is one statement: nothing in it ends it and begins another.
fn one_rule(text: &str) -> Result<String, String> {
    let wrong = |why: &str| Err(format!("`{}` is not one rule of nft: {why}", text.escape_debug()));
    let paired = || {
        let mut depth = 0_i32;
        let never_below = text.chars().all(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth >= 0
        });
        never_below && depth == 0
    };
    match text {
        _ if text.trim().is_empty() => wrong("it is empty"),
        _ if text.contains(|c: char| c.is_control()) => wrong("it has a control character"),
        _ if text.contains(';') => wrong("it has a `;`, which begins another statement"),
        _ if text.ends_with('\\') => wrong("it goes on after its end"),
        _ if text.contains('#') => wrong("it has a comment"),
        _ if !paired() => wrong("its braces are not paired"),
        _ => Ok(text.trim().to_owned()),
    }
}
