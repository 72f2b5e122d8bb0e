//! Rules that drop, of ours and of others, and rules that are missing.

use serde_json::Value;

use super::{Case, Cause};
use crate::{
    check::{
        filter::{self, Drop},
        nat::{self, Nat},
        scene::{Other, named, within},
        targets::What,
    },
    reconcile::site::Way,
    topology::names::{LinkId, NsName, Place},
};

/// One hook that the packet passes on its way.
struct Pass {
    place: Place,
    hook: &'static str,
    reply: bool,
    iif: Option<LinkId>,
    oif: Option<LinkId>,
}

/// Where frames meet rules before and beside the hooks of IP.
const BELOW: [&str; 3] = ["ingress", "egress", "prerouting"];

impl Case<'_> {
    /// The kernel did not even take it.
    pub(super) fn refused(&self) -> Option<Cause> {
        let Some(libc::EPERM) = self.answer.refused else { return None };
        let place = &self.probe.from.place;
        let packet = self.packet(false, None, Some(&self.probe.from))?;
        let rules = self.rules(place)[1];
        let drop = filter::dropped(rules, "output", &packet).or_else(|| {
            let [before, after] = self.rules(place);
            filter::counted(before, after, &["output", "postrouting"])
        });
        match drop {
            Some(drop) => Some(self.drop(place, "output", &drop, true)),
            None => Some(Cause {
                kind: "firewall",
                place: place.clone(),
                what: format!("{} may not send that: a rule that nft does not list refuses it", named(place)),
                mend: None,
            }),
        }
    }

    /// A rule that drops it: for certain, or perhaps.
    pub(super) fn dropped(&self, certain: bool) -> Option<Cause> {
        let passes = self.passes();
        passes.iter().filter(|_| certain).find_map(|pass| self.counted(pass)).or_else(|| {
            passes.iter().find_map(|Pass { place, hook, reply, iif, oif }| {
                let packet = self.packet(*reply, iif.as_ref(), oif.as_ref())?;
                let drop = filter::dropped(self.rules(place)[1], hook, &packet)?;
                (drop.certain == certain).then(|| self.drop(place, hook, &drop, certain))
            })
        })
    }

    fn counted(&self, Pass { place, hook, .. }: &Pass) -> Option<Cause> {
        let [before, after] = self.rules(place);
        let hooks: Vec<&str> = BELOW.into_iter().chain([*hook]).collect();
        Some(self.drop(place, hook, &filter::counted(before, after, &hooks)?, true))
    }

    /// What our own rules count as dropped because the two are to be kept apart.
    pub(super) fn dropped_by_isolation(&self) -> bool {
        let [before, after] = self.rules(&Place::Host);
        let ends = [Some(&self.probe.from), self.probe.at.as_ref()];
        let of =
            |netns: &NsName| filter::rise(before, after, &self.scene.table, &format!("from-{netns}")) > 0;
        ends.into_iter().flatten().any(|link| matches!(&link.place, Place::Netns(netns) if of(netns)))
    }

    fn rules(&self, place: &Place) -> [Option<&Value>; 2] {
        match self.scene.closer.get(place) {
            Some([before, after]) => [before.ruleset.as_ref(), after.ruleset.as_ref()],
            None => [None, None],
        }
    }

    /// The hooks it passes, there and back.
    fn passes(&self) -> Vec<Pass> {
        let from = &self.probe.from;
        let mut passes = vec![
            pass(&from.place, "output", false, None, Some(from)),
            pass(&from.place, "postrouting", false, None, Some(from)),
        ];
        match &self.probe.at {
            Some(at) => {
                if self.probe.what == What::Neighbour && self.frames_meet_ip_rules() {
                    let bridge = self.bridge_of(from);
                    for reply in [false, true] {
                        passes.push(pass(&Place::Host, "forward", reply, bridge.as_ref(), bridge.as_ref()));
                    }
                }
                passes.push(pass(&at.place, "prerouting", false, Some(at), None));
                passes.push(pass(&at.place, "input", false, Some(at), None));
                passes.push(pass(&at.place, "output", true, None, Some(at)));
            }
            None => {
                let (inner, uplink) = (self.bridge_of(from), self.uplink());
                let (inner, uplink) = (inner.as_ref(), uplink.as_ref());
                passes.push(pass(&Place::Host, "prerouting", false, inner, None));
                passes.push(pass(&Place::Host, "forward", false, inner, uplink));
                passes.push(pass(&Place::Host, "forward", true, uplink, inner));
            }
        }
        passes.push(pass(&from.place, "prerouting", true, Some(from), None));
        passes.push(pass(&from.place, "input", true, Some(from), None));
        passes
    }

    /// `br_netfilter`.
    fn frames_meet_ip_rules(&self) -> bool {
        self.scene.setting(&Place::Host, "bridge/bridge-nf-call-iptables") == Some("1")
    }

    /// The device of the host behind an interface.
    fn bridge_of(&self, link: &LinkId) -> Option<LinkId> {
        match self.scene.other(link) {
            Other::Bridge { bridge, .. } => Some(bridge),
            Other::End(peer) => Some(peer),
            Other::Unknown => None,
        }
    }

    fn uplink(&self) -> Option<LinkId> {
        match self.scene.ways.get(&(Place::Host, self.probe.to?))? {
            Way::Out { ifindex, .. } => {
                Some(LinkId::host(self.scene.sites.get(&Place::Host)?.name(*ifindex)?.clone()))
            }
            _ => None,
        }
    }

    fn drop(&self, place: &Place, hook: &str, drop: &Drop, certain: bool) -> Cause {
        let Drop { family, table, chain, handle, .. } = drop;
        let ours = *table == self.scene.table;
        let what = match handle {
            Some(handle) => format!("rule {handle} of chain {chain}"),
            None => format!("the policy of chain {chain}"),
        };
        let may = if certain { "drops" } else { "may drop" };
        let whose = match (ours, place) {
            (true, Place::Netns(_)) => {
                ": these are rules of the file, an agent puts them back unless the file is changed"
            }
            (true, Place::Host) => ": these are rules of netns-monitor",
            (false, _) => "",
        };
        let place_name = named(place);
        Cause {
            kind: "firewall",
            place: place.clone(),
            what: format!("{what} in table {family} {table} of {place_name} {may} it (hook {hook}){whose}"),
            mend: self.let_through(place, hook, drop),
        }
    }

    /// The line after which it is not dropped there.
    fn let_through(&self, place: &Place, hook: &str, drop: &Drop) -> Option<String> {
        let Drop { family, table, chain, handle, .. } = drop;
        let nft = format!("{}nft", within(place));
        match (family.as_str(), handle) {
            ("ip" | "ip6" | "inet", _) if hook == "forward" && *place == Place::Host => {
                let device = self.bridge_of(&self.probe.from)?.name;
                let docker = self.has_chain(place, family, table, "DOCKER-USER");
                let at =
                    format!("insert rule {family} {table} {}", if docker { "DOCKER-USER" } else { chain });
                Some(format!("{nft} '{at} iifname \"{device}\" accept; {at} oifname \"{device}\" accept'"))
            }
            ("ip" | "ip6" | "inet", _) => {
                let kinds = match self.probe.ipv6 {
                    false => "icmp type { echo-request, echo-reply }",
                    // Without the latter two nobody finds anybody.
                    true => {
                        "icmpv6 type { echo-request, echo-reply, nd-neighbor-solicit, nd-neighbor-advert }"
                    }
                };
                Some(format!("{nft} 'insert rule {family} {table} {chain} {kinds} accept'"))
            }
            (_, Some(handle)) => Some(format!("{nft} delete rule {family} {table} {chain} handle {handle}")),
            (_, None) => Some(format!("{nft} 'chain {family} {table} {chain} {{ policy accept; }}'")),
        }
    }

    fn has_chain(&self, place: &Place, family: &str, table: &str, name: &str) -> bool {
        filter::things(self.rules(place)[1], "chain").iter().any(|chain| {
            let is = |key: &str, wanted: &str| chain.get(key).and_then(Value::as_str) == Some(wanted);
            is("family", family) && is("table", table) && is("name", name)
        })
    }

    /// Who is asked outside knows no way back to an address that nobody there knows.
    pub(super) fn not_translated(&self) -> Option<Cause> {
        if self.probe.at.is_some() {
            return None;
        }
        let from = &self.probe.from;
        let own = self.scene.addresses(from, self.probe.ipv6);
        let rules = self.rules(&Place::Host)[1]?;
        if nat::of(Some(rules), &self.scene.table, &own) == Nat::Translated {
            return None;
        }
        let (net, device) = (own.first()?.trunc(), self.bridge_of(from)?.name);
        let (ip, table) = if self.probe.ipv6 { ("ip6", "ip6 nat") } else { ("ip", "ip nat") };
        Some(Cause {
            kind: "nat_missing",
            place: Place::Host,
            what: format!(
                "packets of {net} leave the host with addresses that nobody outside knows: there is no NAT"
            ),
            mend: Some(format!(
                "nft 'add table {table}; add chain {table} postrouting {{ type nat hook postrouting priority 100; }}; \
                 add rule {table} postrouting {ip} saddr {net} oifname != \"{device}\" masquerade'"
            )),
        })
    }
}

fn pass(place: &Place, hook: &'static str, reply: bool, iif: Option<&LinkId>, oif: Option<&LinkId>) -> Pass {
    Pass { place: place.clone(), hook, reply, iif: iif.cloned(), oif: oif.cloned() }
}
