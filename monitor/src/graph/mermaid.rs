//! The graph for Markdown that draws Mermaid.

use super::{Edge, Graph, Kind, Link, Node};

pub(super) fn write(graph: &Graph) -> String {
    let (summary, wrong) = graph.summary();
    let about: Vec<String> = [Some(summary), wrong].into_iter().flatten().collect();
    let mut text = "flowchart LR\n".to_owned();
    text.push_str(&format!("  accTitle: {}\n", escaped(&super::plain(&graph.title))));
    text.push_str(&format!("  accDescr: {}\n", escaped(&about.join("; "))));
    for (at, node) in graph.nodes.iter().enumerate() {
        text.push_str(&format!("  {}\n", shape(at, node)));
    }
    if let Some(host) = graph.find(&[Kind::Host], super::HOST) {
        for (at, node) in graph.nodes.iter().enumerate() {
            if matches!(node.kind, Kind::Bridge | Kind::Device | Kind::Lent) {
                text.push_str(&format!("  n{host} -.- n{at}\n"));
            }
        }
    }
    for edge in &graph.edges {
        text.push_str(&format!("  {}\n", arrow(edge)));
    }
    let all = || graph.nodes.iter().enumerate();
    let mut class = |name: &str, style: &str, of: Vec<String>| {
        if !of.is_empty() {
            text.push_str(&format!("  classDef {name} {style}\n  class {} {name}\n", of.join(",")));
        }
    };
    let down = all().filter(|(_, node)| node.is_down()).map(|(at, _)| format!("n{at}")).collect();
    class("down", "stroke:#c00,stroke-width:2px", down);
    let nameless = all().filter(|(_, node)| matches!(node.kind, Kind::Detached | Kind::Anonymous));
    class("nameless", "stroke-dasharray:4 3", nameless.map(|(at, _)| format!("n{at}")).collect());
    text
}

fn shape(at: usize, node: &Node) -> String {
    let label: Vec<String> = node.lines().iter().map(|line| escaped(line)).collect();
    let label = label.join("<br/>");
    match node.kind {
        Kind::Host => format!("n{at}{{{{\"{label}\"}}}}"),
        Kind::Bridge => format!("n{at}([\"{label}\"])"),
        Kind::Device | Kind::Lent => format!("n{at}[[\"{label}\"]]"),
        Kind::Netns | Kind::Detached | Kind::Anonymous => format!("n{at}[\"{label}\"]"),
    }
}

fn arrow(edge: &Edge) -> String {
    let line = match (edge.kind, edge.up) {
        (Link::Publish, _) => "-.->",
        (Link::Allow, _) => "<-.->",
        (_, Some(false)) => "-.-",
        (Link::On | Link::Lease, _) => "===",
        (Link::Veth | Link::Port, _) => "---",
    };
    let (from, to) = (edge.from.node, edge.to.node);
    match edge.label() {
        label if label.is_empty() => format!("n{from} {line} n{to}"),
        label => format!("n{from} {line}|\"{}\"| n{to}", escaped(&label)),
    }
}

/// Everything of ASCII that could mean something to Mermaid, to Markdown or to HTML by its number.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || " ./:,-".contains(c) || !c.is_ascii() => escaped.push(c),
            c => escaped.push_str(&format!("#{};", u32::from(c))),
        }
    }
    escaped
}
