//! Whether rules that nft lists drop a packet: which of them counted it, else what they say. Pure, and cautious: what is not
//! understood neither matches nor fails to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use serde_json::Value;

/// An echo request or reply, at one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub target: IpAddr,
    /// The link it came in by.
    pub iif: Option<String>,
    /// The link it goes out by.
    pub oif: Option<String>,
    /// A reply, else a request.
    pub reply: bool,
}

/// Which rule, or policy, drops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drop {
    /// Family of the table.
    pub family: String,
    /// Table.
    pub table: String,
    /// Chain that has it.
    pub chain: String,
    /// Handle of the rule; absent for the policy of the chain.
    pub handle: Option<u64>,
    /// The named counter that it adds to.
    pub counter: Option<String>,
    /// Whether that is certain: it counted the packets, or nothing in the way was not understood.
    pub certain: bool,
}

/// Things of one kind in what `nft -j` lists, in its order.
pub(super) fn things<'a>(ruleset: Option<&'a Value>, kind: &str) -> Vec<&'a Value> {
    let all = ruleset.and_then(|ruleset| ruleset.get("nftables")?.as_array());
    all.into_iter().flatten().filter_map(|thing| thing.get(kind)).collect()
}

/// What is matched against, where a match looks at `key` of a thing like `meta` or `ct`.
pub(super) fn left<'a>(expr: &'a Value, thing: &str, key: &str) -> Option<&'a Value> {
    let found = expr.get("match")?;
    (found.get("left")?.get(thing)?.get("key")?.as_str()? == key).then(|| found.get("right")).flatten()
}

/// The same for a field of a header.
pub(super) fn payload<'a>(expr: &'a Value, protocol: &str, field: &str) -> Option<&'a Value> {
    let found = expr.get("match")?;
    let payload = found.get("left")?.get("payload")?;
    let fits = payload.get("protocol")?.as_str()? == protocol && payload.get("field")?.as_str()? == field;
    fits.then(|| found.get("right")).flatten()
}

/// Whether an address is what a match has on its right; absent where that is not understood.
pub(super) fn holds(right: &Value, address: IpAddr) -> Option<bool> {
    match right {
        Value::String(text) if text.starts_with('@') => None,
        Value::String(text) => Some(text.parse::<IpAddr>().ok()? == address),
        Value::Object(object) => match (object.get("prefix"), object.get("set"), object.get("range")) {
            (Some(prefix), ..) => {
                let net: IpAddr = prefix.get("addr")?.as_str()?.parse().ok()?;
                let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
                Some(IpNet::new(net, length).ok()?.contains(&address))
            }
            (_, Some(Value::Array(elements)), _) => any(elements.iter().map(|one| holds(one, address))),
            (.., Some(Value::Array(ends))) => {
                let end = |at: usize| ends.get(at)?.as_str()?.parse::<IpAddr>().ok();
                Some(end(0)? <= address && address <= end(1)?)
            }
            _ => None,
        },
        _ => None,
    }
}

/// The rule that counted as dropped between two listings: of those in chains that are run at these hooks.
pub(super) fn counted(before: Option<&Value>, after: Option<&Value>, hooks: &[&str]) -> Option<Drop> {
    let at = hooks_of_chains(after);
    // Where nobody knows how a chain is come to, it may be from anywhere.
    let concerned = |rule: &Value| {
        whose(rule).is_some_and(|chain| match at.get(&chain) {
            Some(found) => found.iter().any(|hook| hooks.contains(hook)),
            None => true,
        })
    };
    let rules = things(after, "rule");
    let dropping = rules.into_iter().filter(|rule| verdict(rule) == Some(Verdict::Drop));
    for rule in dropping.filter(|rule| concerned(rule)) {
        if let Some(now) = packets(after, rule) {
            let earlier = things(before, "rule").into_iter().find(|old| same(old, rule));
            let earlier = earlier.and_then(|old| packets(before, old)).unwrap_or_default();
            if now > earlier {
                return drop_of(rule, true);
            }
        }
    }
    None
}

/// Family, table and name.
type Chain<'a> = (&'a str, &'a str, &'a str);

/// The hooks at which each chain is run: its own, and those of the chains that jump to it.
fn hooks_of_chains(ruleset: Option<&Value>) -> BTreeMap<Chain<'_>, BTreeSet<&str>> {
    let mut jumps: BTreeMap<Chain<'_>, BTreeSet<Chain<'_>>> = BTreeMap::new();
    for rule in things(ruleset, "rule") {
        let Some(from @ (family, table, _)) = whose(rule) else { continue };
        let to = targets(rule).into_iter().map(|name| (family, table, name));
        jumps.entry(from).or_default().extend(to);
    }
    let mut at: BTreeMap<Chain<'_>, BTreeSet<&str>> = BTreeMap::new();
    for base in things(ruleset, "chain") {
        let (Some(hook), Some(family), Some(table), Some(name)) =
            (text(base, "hook"), text(base, "family"), text(base, "table"), text(base, "name"))
        else {
            continue;
        };
        let mut next = vec![(family, table, name)];
        while let Some(chain) = next.pop() {
            if at.entry(chain).or_default().insert(hook) {
                next.extend(jumps.get(&chain).into_iter().flatten());
            }
        }
    }
    at
}

/// Chains that a rule jumps or goes to, also by a map.
fn targets(thing: &Value) -> Vec<&str> {
    match thing {
        Value::Object(object) => object
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value.get("target").and_then(Value::as_str)) {
                ("jump" | "goto", Some(target)) => vec![target],
                _ => targets(value),
            })
            .collect(),
        Value::Array(all) => all.iter().flat_map(targets).collect(),
        _ => Vec::new(),
    }
}

/// How much a named counter of a table rose.
pub(super) fn rise(before: Option<&Value>, after: Option<&Value>, table: &str, counter: &str) -> u64 {
    let count = |ruleset| {
        let all = things(ruleset, "counter");
        let named = all
            .into_iter()
            .filter(|found| text(found, "table") == Some(table) && text(found, "name") == Some(counter));
        named.filter_map(|found| found.get("packets")?.as_u64()).sum::<u64>()
    };
    count(after).saturating_sub(count(before))
}

/// What the rules at a hook say of a packet: who drops it, if anybody.
pub(super) fn dropped(ruleset: Option<&Value>, hook: &str, packet: &Packet) -> Option<Drop> {
    let families: &[&str] = if packet.source.is_ipv6() { &["ip6", "inet"] } else { &["ip", "inet"] };
    let chains = things(ruleset, "chain");
    let mut bases: Vec<&Value> = chains
        .into_iter()
        .filter(|chain| text(chain, "hook") == Some(hook) && text(chain, "type") == Some("filter"))
        .filter(|chain| text(chain, "family").is_some_and(|family| families.contains(&family)))
        .collect();
    bases.sort_by_key(|chain| chain.get("prio").and_then(Value::as_i64).unwrap_or_default());
    let mut perhaps = None;
    for base in bases {
        let mut walk = Walk { ruleset, packet, perhaps: None, unsure: false };
        let (Some(family), Some(table), Some(name)) =
            (text(base, "family"), text(base, "table"), text(base, "name"))
        else {
            continue;
        };
        match walk.chain(family, table, name, 0) {
            Outcome::Drop(drop) => return Some(drop),
            Outcome::Accept => {}
            Outcome::On if text(base, "policy") == Some("drop") => {
                return Some(Drop {
                    family: family.to_owned(),
                    table: table.to_owned(),
                    chain: name.to_owned(),
                    handle: None,
                    counter: None,
                    certain: !walk.unsure,
                });
            }
            Outcome::On => {}
        }
        perhaps = perhaps.or(walk.perhaps);
    }
    perhaps
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accept,
    Drop,
    Return,
}

enum Outcome {
    Accept,
    Drop(Drop),
    On,
}

struct Walk<'a> {
    ruleset: Option<&'a Value>,
    packet: &'a Packet,
    /// The first that may drop it.
    perhaps: Option<Drop>,
    /// Whether a rule before may have let it through.
    unsure: bool,
}

/// More than a ruleset can nest (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;

impl Walk<'_> {
    fn chain(&mut self, family: &str, table: &str, name: &str, depth: usize) -> Outcome {
        if depth > DEEPEST {
            return Outcome::On;
        }
        let rules = things(self.ruleset, "rule");
        for rule in rules.into_iter().filter(|rule| whose(rule) == Some((family, table, name))) {
            let matches = self.matches(rule);
            if matches == Some(false) {
                continue;
            }
            let jump = expressions(rule).iter().find_map(|expr| {
                let to = |kind: &str| expr.get(kind)?.get("target")?.as_str();
                to("jump").map(|to| (to, false)).or_else(|| to("goto").map(|to| (to, true)))
            });
            if let Some((to, for_good)) = jump {
                match self.chain(family, table, to, depth + 1) {
                    Outcome::On if !for_good || matches.is_none() => {}
                    outcome if matches == Some(true) => return outcome,
                    Outcome::Drop(drop) => self.suspect(drop),
                    Outcome::Accept | Outcome::On => self.unsure = true,
                }
                continue;
            }
            match (verdict(rule), matches) {
                (Some(Verdict::Accept), Some(true)) => return Outcome::Accept,
                (Some(Verdict::Return), Some(true)) => return Outcome::On,
                (Some(Verdict::Drop), Some(true)) => {
                    if let Some(drop) = drop_of(rule, !self.unsure) {
                        return Outcome::Drop(drop);
                    }
                }
                (Some(Verdict::Drop), _) => {
                    if let Some(drop) = drop_of(rule, false) {
                        self.suspect(drop);
                    }
                }
                (Some(_), _) => self.unsure = true,
                (None, _) => {}
            }
        }
        Outcome::On
    }

    fn suspect(&mut self, drop: Drop) {
        self.perhaps.get_or_insert(Drop { certain: false, ..drop });
    }

    fn matches(&self, rule: &Value) -> Option<bool> {
        let mut all = Some(true);
        for expr in expressions(rule) {
            match self.one(expr) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }

    fn one(&self, expr: &Value) -> Option<bool> {
        let Packet { source, target, iif, oif, reply } = self.packet;
        let ipv6 = source.is_ipv6();
        let Some(found) = expr.get("match") else {
            // What acts or counts does not choose; what nft cannot tell of (`xt`), limits and look-ups may.
            let chooses = ["xt", "limit", "vmap", "quota", "ct count", "fib"];
            return if chooses.iter().any(|name| expr.get(name).is_some()) { None } else { Some(true) };
        };
        let negated = match found.get("op").and_then(Value::as_str) {
            Some("==" | "in") => false,
            Some("!=") => true,
            _ => return None,
        };
        let address = |field: &IpAddr, of: &str| {
            let own = payload(expr, if ipv6 { "ip6" } else { "ip" }, of);
            let other = payload(expr, if ipv6 { "ip" } else { "ip6" }, of);
            own.map(|right| holds(right, *field)).or(other.map(|_| Some(false)))
        };
        let protocol: &[&str] = if ipv6 { &["ipv6-icmp", "icmpv6"] } else { &["icmp"] };
        let kind = if *reply { "echo-reply" } else { "echo-request" };
        let state = if *reply { "established" } else { "new" };
        let device = |name: &Option<String>, right: &Value| words(right, &[name.as_deref().unwrap_or("")]);
        let outcome = address(source, "saddr")
            .or_else(|| address(target, "daddr"))
            .or_else(|| left(expr, "meta", "iifname").map(|right| device(iif, right)))
            .or_else(|| left(expr, "meta", "iif").map(|right| device(iif, right)))
            .or_else(|| left(expr, "meta", "oifname").map(|right| device(oif, right)))
            .or_else(|| left(expr, "meta", "oif").map(|right| device(oif, right)))
            .or_else(|| left(expr, "meta", "l4proto").map(|right| words(right, protocol)))
            .or_else(|| left(expr, "meta", "nfproto").map(|right| words(right, &[family_name(ipv6)])))
            .or_else(|| left(expr, "ct", "state").map(|right| words(right, &[state])))
            .or_else(|| payload(expr, "ip", "protocol").map(|right| words(right, protocol)))
            .or_else(|| payload(expr, "ip6", "nexthdr").map(|right| words(right, protocol)))
            .or_else(|| {
                payload(expr, if ipv6 { "icmpv6" } else { "icmp" }, "type").map(|right| words(right, &[kind]))
            })
            .or_else(|| other_protocol(found).then_some(Some(false)));
        outcome?.map(|yes| yes != negated)
    }
}

fn family_name(ipv6: bool) -> &'static str {
    if ipv6 { "ipv6" } else { "ipv4" }
}

/// Whether a match looks into a header that an echo does not have: then it fails, also a negated one.
fn other_protocol(found: &Value) -> bool {
    let protocol = found.get("left").and_then(|left| left.get("payload")?.get("protocol")?.as_str());
    // The header is not there, so `!=` fails as well.
    let op = found.get("op").and_then(Value::as_str);
    op != Some("!=") && matches!(protocol, Some("tcp" | "udp" | "sctp" | "udplite" | "th" | "arp"))
}

/// Whether one of these words is what a match has on its right.
fn words(right: &Value, wanted: &[&str]) -> Option<bool> {
    match right {
        Value::String(text) if text.starts_with('@') => None,
        Value::String(text) => Some(wanted.iter().any(|wanted| match text.strip_suffix('*') {
            Some(start) => wanted.starts_with(start),
            None => text == wanted,
        })),
        Value::Array(elements) => any(elements.iter().map(|one| words(one, wanted))),
        Value::Object(object) => match object.get("set") {
            Some(Value::Array(elements)) => any(elements.iter().map(|one| words(one, wanted))),
            _ => None,
        },
        _ => None,
    }
}

/// True where one is, unknown where none is and one is unknown.
fn any(mut all: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    all.try_fold(Some(false), |sum, one| match (sum, one) {
        (_, Some(true)) => Err(()),
        (Some(false), Some(false)) => Ok(Some(false)),
        _ => Ok(None),
    })
    .unwrap_or(Some(true))
}

fn expressions(rule: &Value) -> &[Value] {
    rule.get("expr").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn verdict(rule: &Value) -> Option<Verdict> {
    expressions(rule).iter().find_map(|expr| {
        let has = |name: &str| expr.get(name).is_some();
        match () {
            () if has("accept") => Some(Verdict::Accept),
            () if has("drop") || has("reject") => Some(Verdict::Drop),
            () if has("return") => Some(Verdict::Return),
            () => None,
        }
    })
}

fn text<'a>(thing: &'a Value, key: &str) -> Option<&'a str> {
    thing.get(key)?.as_str()
}

fn whose(rule: &Value) -> Option<(&str, &str, &str)> {
    Some((text(rule, "family")?, text(rule, "table")?, text(rule, "chain")?))
}

fn same(a: &Value, b: &Value) -> bool {
    whose(a) == whose(b) && a.get("handle") == b.get("handle")
}

fn drop_of(rule: &Value, certain: bool) -> Option<Drop> {
    let (family, table, chain) = whose(rule)?;
    Some(Drop {
        family: family.to_owned(),
        table: table.to_owned(),
        chain: chain.to_owned(),
        handle: rule.get("handle").and_then(Value::as_u64),
        counter: named_counter(rule).map(ToOwned::to_owned),
        certain,
    })
}

fn named_counter(rule: &Value) -> Option<&str> {
    expressions(rule).iter().find_map(|expr| expr.get("counter")?.as_str())
}

/// What a rule has counted: by its own counter, or by a named one.
fn packets(ruleset: Option<&Value>, rule: &Value) -> Option<u64> {
    let own = expressions(rule).iter().find_map(|expr| expr.get("counter")?.get("packets")?.as_u64());
    own.or_else(|| {
        let (family, table, _) = whose(rule)?;
        let name = named_counter(rule)?;
        let counters = things(ruleset, "counter");
        let found = counters.into_iter().find(|counter| {
            text(counter, "family") == Some(family)
                && text(counter, "table") == Some(table)
                && text(counter, "name") == Some(name)
        });
        found?.get("packets")?.as_u64()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn packet() -> Packet {
        let address = |text: &str| text.parse().unwrap();
        Packet {
            source: address("198.51.100.2"),
            target: address("203.0.113.9"),
            iif: Some("nm0".into()),
            oif: Some("up0".into()),
            reply: false,
        }
    }

    fn ruleset(policy: &str, rules: &[Value]) -> Value {
        let mut all = vec![json!({ "chain": { "family": "inet", "table": "t", "name": "c", "type": "filter",
            "hook": "forward", "prio": 0, "policy": policy } })];
        all.extend(rules.iter().enumerate().map(|(at, rule)| {
            json!({ "rule": { "family": "inet", "table": "t", "chain": "c", "handle": at + 10, "expr": rule } })
        }));
        json!({ "nftables": all })
    }

    fn verdict_of(policy: &str, rules: &[Value]) -> Option<(Option<u64>, bool)> {
        let drop = dropped(Some(&ruleset(policy, rules)), "forward", &packet())?;
        Some((drop.handle, drop.certain))
    }

    fn device(key: &str, right: Value) -> Value {
        json!({ "match": { "op": "==", "left": { "meta": { "key": key } }, "right": right } })
    }

    fn field(protocol: &str, field: &str, op: &str, right: Value) -> Value {
        json!({ "match": { "op": op, "left": { "payload": { "protocol": protocol, "field": field } }, "right": right } })
    }

    #[test]
    fn a_policy_drops_what_no_rule_accepts() {
        assert_eq!(verdict_of("accept", &[]), None);
        assert_eq!(verdict_of("drop", &[]), Some((None, true)));
        assert_eq!(verdict_of("drop", &[json!([device("iifname", json!("nm0")), { "accept": null }])]), None);
        let other = json!([device("iifname", json!("nm1")), { "accept": null }]);
        assert_eq!(verdict_of("drop", &[other]), Some((None, true)));
        let set = json!([device("oifname", json!({ "set": ["nm0", "up*"] })), { "accept": null }]);
        assert_eq!(verdict_of("drop", &[set]), None);
        let tcp = json!([field("tcp", "dport", "==", json!(80)), { "accept": null }]);
        assert_eq!(verdict_of("drop", &[tcp]), Some((None, true)));
        let opaque = json!([{ "xt": { "type": "match", "name": "comment" } }, { "accept": null }]);
        assert_eq!(verdict_of("drop", &[opaque]), Some((None, false)), "nobody can tell");
    }

    #[test]
    fn a_rule_drops_what_it_matches_and_the_first_one_counts() {
        let to = |right| json!([field("ip", "daddr", "==", right), { "drop": null }]);
        let prefix = json!({ "prefix": { "addr": "203.0.113.0", "len": 24 } });
        assert_eq!(verdict_of("accept", &[to(prefix.clone())]), Some((Some(10), true)));
        assert_eq!(verdict_of("accept", &[to(json!("203.0.113.8"))]), None);
        assert_eq!(
            verdict_of("accept", &[to(json!({ "range": ["203.0.113.1", "203.0.113.20"] }))]),
            Some((Some(10), true))
        );
        let accept = json!([field("icmp", "type", "==", json!("echo-request")), { "accept": null }]);
        assert_eq!(verdict_of("accept", &[accept.clone(), to(prefix.clone())]), None);
        assert_eq!(verdict_of("accept", &[to(prefix), accept]), Some((Some(10), true)));
        let not = json!([field("ip", "daddr", "!=", json!("203.0.113.9")), { "drop": null }]);
        assert_eq!(verdict_of("accept", &[not]), None);
        let state = json!([
            { "match": { "op": "in", "left": { "ct": { "key": "state" } }, "right": ["established", "related"] } },
            { "drop": null }
        ]);
        assert_eq!(verdict_of("accept", &[state]), None, "a request is new");
        let named = json!([field("ip", "saddr", "==", json!("@blocked")), { "reject": null }]);
        assert_eq!(verdict_of("accept", &[named]), Some((Some(10), false)), "it may be in the set");
    }

    #[test]
    fn the_other_family_and_another_hook_do_not_concern_it() {
        let rules = ruleset("drop", &[]);
        assert_eq!(dropped(Some(&rules), "input", &packet()), None);
        let mut six = rules.clone();
        six["nftables"][0]["chain"]["family"] = json!("ip6");
        assert_eq!(dropped(Some(&six), "forward", &packet()), None);
    }

    #[test]
    fn the_rule_whose_counter_rose_is_the_one() {
        let rule =
            |packets: u64| json!([{ "counter": { "packets": packets, "bytes": 0 } }, { "drop": null }]);
        let (before, after) = (ruleset("accept", &[rule(4)]), ruleset("accept", &[rule(7)]));
        assert_eq!(counted(Some(&before), Some(&after), &["forward"]).unwrap().handle, Some(10));
        assert_eq!(counted(Some(&before), Some(&before), &["forward"]), None);
        assert_eq!(counted(Some(&before), Some(&after), &["input"]), None);
    }

    #[test]
    fn a_chain_that_is_jumped_to_is_run_at_the_hook_of_the_one_that_jumps() {
        let rules = |packets: u64| {
            let drop = json!([{ "counter": { "packets": packets, "bytes": 0 } }, { "drop": null }]);
            let map = json!([{ "vmap": { "key": { "meta": { "key": "iifname" } },
                "data": { "set": [["nm0", { "jump": { "target": "other" } }]] } } }]);
            let mut rules = ruleset("accept", &[map]);
            let all = rules["nftables"].as_array_mut().unwrap();
            all.push(json!({ "chain": { "family": "inet", "table": "t", "name": "other" } }));
            all.push(json!({ "rule": { "family": "inet", "table": "t", "chain": "other", "handle": 20,
                "expr": drop } }));
            rules
        };
        let at = |hook| counted(Some(&rules(1)), Some(&rules(3)), &[hook]).map(|drop| drop.handle);
        assert_eq!(at("forward"), Some(Some(20)));
        assert_eq!(at("input"), None);
    }

    #[test]
    fn a_jump_is_followed() {
        let mut rules = ruleset("accept", &[json!([{ "jump": { "target": "other" } }])]);
        let all = rules["nftables"].as_array_mut().unwrap();
        all.push(json!({ "chain": { "family": "inet", "table": "t", "name": "other" } }));
        all.push(json!({ "rule": { "family": "inet", "table": "t", "chain": "other", "handle": 20,
            "expr": [{ "drop": null }] } }));
        assert_eq!(dropped(Some(&rules), "forward", &packet()).unwrap().handle, Some(20));
    }
}
