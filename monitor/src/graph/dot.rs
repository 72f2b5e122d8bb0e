//! The graph for Graphviz.

use super::{Edge, Graph, Kind, Link, Node};

pub(super) fn write(graph: &Graph) -> String {
    let (summary, wrong) = graph.summary();
    let mut text = format!("graph {} {{\n", quoted(&super::plain(&graph.title)));
    let about: Vec<String> = [Some(summary), wrong].into_iter().flatten().collect();
    text.push_str(&format!("  graph [rankdir=LR, tooltip={}]\n", quoted(&about.join("; "))));
    text.push_str("  node [shape=box, style=rounded, fontname=Courier, fontsize=10]\n");
    text.push_str("  edge [fontname=Courier, fontsize=8]\n");
    for (at, node) in graph.nodes.iter().enumerate() {
        text.push_str(&format!("  n{at} [{}]\n", node_attributes(node)));
    }
    // Devices are the host's; that is no link, and a line all the same.
    if let Some(host) = graph.find(&[Kind::Host], super::HOST) {
        for (at, node) in graph.nodes.iter().enumerate() {
            if matches!(node.kind, Kind::Bridge | Kind::Device | Kind::Lent) {
                text.push_str(&format!("  n{host} -- n{at} [style=dotted]\n"));
            }
        }
    }
    for edge in &graph.edges {
        text.push_str(&format!("  n{} -- n{} [{}]\n", edge.from.node, edge.to.node, edge_attributes(edge)));
    }
    text.push_str("}\n");
    text
}

fn node_attributes(node: &Node) -> String {
    // `\l` ends a line that is aligned left.
    let label: String = node.lines().iter().map(|line| format!("{}\\l", escaped(line))).collect();
    let mut attributes = vec![format!("label=\"{label}\"")];
    match node.kind {
        Kind::Host => attributes.push("shape=house".to_owned()),
        Kind::Bridge => attributes.push("style=filled, fillcolor=\"#dfe9fb\"".to_owned()),
        Kind::Device | Kind::Lent => attributes.push("shape=component".to_owned()),
        Kind::Detached | Kind::Anonymous => attributes.push("style=\"rounded,dashed\"".to_owned()),
        Kind::Netns => {}
    }
    if node.is_down() {
        attributes.push("color=red3".to_owned());
    }
    attributes.join(", ")
}

fn edge_attributes(edge: &Edge) -> String {
    let mut attributes = vec![format!("label={}", quoted(&edge.label()))];
    match edge.kind {
        Link::Veth | Link::Port => {}
        Link::On | Link::Lease => attributes.push("style=bold".to_owned()),
        Link::Publish => attributes.push("style=dashed, dir=forward, constraint=false".to_owned()),
        Link::Allow => attributes.push("style=dashed, dir=both, constraint=false".to_owned()),
    }
    if edge.up == Some(false) {
        attributes.push("color=red3, fontcolor=red3".to_owned());
    }
    attributes.join(", ")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// Graphviz reads `\N` and the like, and entities of HTML, also between quotes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('&', "&amp;")
}
