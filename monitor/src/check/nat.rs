//! Whether packets of a subnet get another source address on their way out, by what nft lists. Pure.

use ipnet::IpNet;
use serde_json::Value;

use super::filter;

/// What is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nat {
    /// They do.
    Translated,
    /// They do not, and a table of ours has such rules for others.
    OthersAre,
    /// There is no such rule, or nobody can tell.
    Unknown,
}

/// Looks through the rules of the host; `ours` is the name of our table.
pub(super) fn of(ruleset: Option<&Value>, ours: &str, addresses: &[IpNet]) -> Nat {
    let rules = filter::things(ruleset, "rule");
    let mut nat = Nat::Unknown;
    for rule in rules {
        let exprs = rule.get("expr").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let translates =
            exprs.iter().any(|expr| expr.get("masquerade").is_some() || expr.get("snat").is_some());
        // What is sent back to where it came from is another matter.
        if !translates || exprs.iter().any(|expr| filter::left(expr, "ct", "status").is_some()) {
            continue;
        }
        let mut sources = exprs.iter().filter_map(source);
        let fits = match sources.next() {
            None => true,
            Some(source) => addresses.iter().any(|own| filter::holds(source, own.addr()) == Some(true)),
        };
        if fits {
            return Nat::Translated;
        }
        if rule.get("table").and_then(Value::as_str) == Some(ours) {
            nat = Nat::OthersAre;
        }
    }
    nat
}

fn source(expr: &Value) -> Option<&Value> {
    let found = |protocol| filter::payload(expr, protocol, "saddr");
    found("ip").or_else(|| found("ip6"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(source: &str, table: &str) -> Value {
        json!({ "nftables": [{ "rule": { "family": "inet", "table": table, "chain": "postrouting", "expr": [
            { "match": { "op": "==", "left": { "payload": { "protocol": "ip", "field": "saddr" } },
              "right": { "prefix": { "addr": source, "len": 24 } } } },
            { "masquerade": null },
        ] } }] })
    }

    #[test]
    fn a_subnet_is_translated_when_a_rule_has_it_and_not_by_intention_when_ours_has_others() {
        let own: [IpNet; 1] = ["198.51.100.2/24".parse().unwrap()];
        assert_eq!(of(Some(&rules("198.51.100.0", "ours")), "ours", &own), Nat::Translated);
        assert_eq!(of(Some(&rules("203.0.113.0", "ours")), "ours", &own), Nat::OthersAre);
        assert_eq!(of(Some(&rules("203.0.113.0", "theirs")), "ours", &own), Nat::Unknown);
        assert_eq!(of(None, "ours", &own), Nat::Unknown);
    }
}
