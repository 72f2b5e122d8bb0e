//! What nft lists of addresses that are changed: ports of the host that lead elsewhere, and who leaves under the host's address.
//! What is not understood is left out.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use serde_json::Value;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// Where ports lead to, and which, as a file has it: `8080:80/tcp`.
    pub published: BTreeSet<(IpAddr, String)>,
    /// Sources that get another address on their way out.
    pub hidden: BTreeSet<IpNet>,
    /// Whether some rule hides whatever source.
    pub all_hidden: bool,
}

/// Reads what `nft -j list ruleset` printed, and what `iptables-save` did of those rules that nft cannot show.
pub fn outside(ruleset: Option<&Value>, saved: &str) -> Outside {
    let mut found = Outside::default();
    let rules = ruleset.and_then(|ruleset| ruleset.get("nftables")?.as_array());
    for rule in rules.into_iter().flatten().filter_map(|thing| thing.get("rule")) {
        let exprs = rule.get("expr").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        found.published.extend(published(exprs));
        let hides = |expr: &Value| {
            let target = expr.get("xt").and_then(|xt| xt.get("name")).and_then(Value::as_str);
            expr.get("masquerade").is_some() || expr.get("snat").is_some() || target == Some("MASQUERADE")
        };
        // What is sent back to where it came from is another matter.
        let only_back = exprs.iter().any(|expr| right(expr, "ct", "status").is_some());
        if exprs.iter().any(hides) && !only_back {
            let sources = exprs.iter().filter_map(|expr| payload(expr, "saddr")).map(|(_, right)| right);
            let mut sources = sources.peekable();
            found.all_hidden |= sources.peek().is_none();
            found.hidden.extend(sources.flat_map(nets));
        }
    }
    found.published.extend(saved.lines().filter_map(of_iptables));
    found
}

/// Whether nft cannot show where a port leads to, because `iptables` made the rule.
pub fn is_opaque(ruleset: Option<&Value>) -> bool {
    let things = ruleset.and_then(|ruleset| ruleset.get("nftables")?.as_array());
    let rules = things.into_iter().flatten().filter_map(|thing| thing.get("rule")?.get("expr")?.as_array());
    rules.flatten().any(|expr| expr.get("xt").and_then(|xt| xt.get("name")?.as_str()) == Some("DNAT"))
}

/// What a match of a header's field is compared with, and the protocol of the header.
fn payload<'a>(expr: &'a Value, field: &str) -> Option<(&'a str, &'a Value)> {
    let found = expr.get("match").filter(|found| found.get("op").and_then(Value::as_str) == Some("=="))?;
    let payload = found.get("left")?.get("payload")?;
    (payload.get("field")?.as_str()? == field).then_some(())?;
    Some((payload.get("protocol")?.as_str()?, found.get("right")?))
}

fn right<'a>(expr: &'a Value, thing: &str, key: &str) -> Option<&'a Value> {
    let found = expr.get("match")?;
    (found.get("left")?.get(thing)?.get("key")?.as_str()? == key).then(|| found.get("right")).flatten()
}

fn nets(right: &Value) -> Vec<IpNet> {
    if let Some(Value::Array(elements)) = right.get("set") {
        return elements.iter().flat_map(nets).collect();
    }
    let net = match right {
        Value::String(text) => text.parse::<IpAddr>().ok().map(IpNet::from),
        other => other.get("prefix").and_then(|prefix| {
            let address: IpAddr = prefix.get("addr")?.as_str()?.parse().ok()?;
            IpNet::new(address, u8::try_from(prefix.get("len")?.as_u64()?).ok()?).ok()
        }),
    };
    net.into_iter().collect()
}

/// `first` and `last` of a port or a range of them.
fn ports(right: &Value) -> Option<(u64, u64)> {
    if let Some(port) = right.as_u64() {
        return Some((port, port));
    }
    let ends = right.get("range")?.as_array()?;
    Some((ends.first()?.as_u64()?, ends.get(1)?.as_u64()?))
}

fn published(exprs: &[Value]) -> Option<(IpAddr, String)> {
    let dnat = exprs.iter().find_map(|expr| expr.get("dnat"))?;
    let to: IpAddr = dnat.get("addr")?.as_str()?.parse().ok()?;
    let (protocol, from) = exprs.iter().find_map(|expr| payload(expr, "dport"))?;
    let from = ports(from)?;
    let at = exprs.iter().find_map(|expr| payload(expr, "daddr")).and_then(|(_, right)| right.as_str());
    let inner = match dnat.get("port") {
        None => from,
        Some(port) => ports(port).or_else(|| mapped(port))?,
    };
    Some((to, text(at, from, inner, protocol)))
}

/// First and last of a map that gives each port its own.
fn mapped(port: &Value) -> Option<(u64, u64)> {
    let pairs = port.get("map")?.get("data")?.get("set")?.as_array()?;
    let to: Vec<u64> = pairs.iter().filter_map(|pair| pair.get(1)?.as_u64()).collect();
    Some((*to.iter().min()?, *to.iter().max()?))
}

fn text(at: Option<&str>, from: (u64, u64), to: (u64, u64), protocol: &str) -> String {
    let range = |(first, last): (u64, u64)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let at = match at {
        Some(at) if at.contains(':') => format!("[{at}]:"),
        Some(at) => format!("{at}:"),
        None => String::new(),
    };
    format!("{at}{}:{}/{protocol}", range(from), range(to))
}

/// `-A DOCKER -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.17.0.2:80`.
fn of_iptables(line: &str) -> Option<(IpAddr, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |option: &str| {
        let at = words.iter().position(|word| *word == option)?;
        // What is turned round says where it does not come from.
        (at == 0 || words[at - 1] != "!").then(|| words.get(at + 1).copied()).flatten()
    };
    (*words.first()? == "-A" && after("-j")? == "DNAT").then_some(())?;
    let pair = |text: &str| {
        let (first, last) = text.split_once(['-', ':']).unwrap_or((text, text));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    let from: (u64, u64) = pair(after("--dport")?)?;
    let to = after("--to-destination")?;
    let (address, port) = match to.parse::<IpAddr>() {
        Ok(address) => (address, None),
        Err(_) => {
            let (address, port) = to.rsplit_once(':')?;
            (address.trim_matches(['[', ']']).parse().ok()?, Some(port))
        }
    };
    let inner = port.map_or(Some(from), pair)?;
    let at = after("-d").map(|at| at.split('/').next().unwrap_or(at));
    Some((address, text(at, from, inner, after("-p").unwrap_or("tcp"))))
}
