//! The topology as a graph, and how it is written: what there is on the host, and what leads where. Pure: whoever looks at the
//! kernel or reads a file fills it in.

mod dot;
mod json;
mod mermaid;
mod outside;
mod svg;
mod wanted;

use std::collections::BTreeSet;

pub use self::{
    outside::{Outside, is_opaque, outside},
    wanted::wanted,
};

/// What there is, and what leads where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// Whose topology it is.
    pub title: String,
    /// The host first, then its devices and bridges, then namespaces.
    pub nodes: Vec<Node>,
    /// What leads where. Of two ends the one nearer to the host is the first.
    pub edges: Vec<Edge>,
}

/// Something that links lead to. Names are as they are: each writer sees to it that they are harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Its name, unique among those of its kind.
    pub name: String,
    /// Whether netns-monitor made it.
    pub owned: bool,
    /// Whether a device or bridge is up; absent where that is not known, and for what cannot be.
    pub up: Option<bool>,
    /// Addresses of a device or bridge.
    pub addresses: Vec<String>,
    /// Whether what leaves the host from here has the host's address.
    pub nat: bool,
    /// Interfaces of a namespace.
    pub interfaces: Vec<Interface>,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The host's own namespace.
    Host,
    /// A device of the host.
    Device,
    /// A device of the host that is lent to a namespace.
    Lent,
    /// A bridge of the host.
    Bridge,
    /// A namespace with a name.
    Netns,
    /// A namespace that lost its name.
    Detached,
    /// A namespace that never had one.
    Anonymous,
}

/// An interface of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `veth`, `macvlan`, `loopback` and so on; empty where the kernel does not say.
    pub kind: String,
    /// Whether it is up; absent where that is not known.
    pub up: Option<bool>,
    /// MAC address.
    pub mac: Option<String>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
    /// Whether its packets are counted.
    pub counted: bool,
}

/// What leads from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// What it is.
    pub kind: Link,
    /// One end.
    pub from: End,
    /// The other.
    pub to: End,
    /// Whether both ends are up; absent where that is not known, and for what cannot be.
    pub up: Option<bool>,
    /// What else is to be said: the mode of a macvlan, the ports that are published.
    pub note: String,
}

/// Where an edge ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Number of the node.
    pub node: usize,
    /// The interface there; of a bridge, its port.
    pub interface: Option<String>,
    /// Addresses of an end in the host's namespace.
    pub addresses: Vec<String>,
}

/// What an edge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// A veth pair.
    Veth,
    /// A device of the host is a port of a bridge.
    Port,
    /// An interface on a device of the host: a macvlan and the like.
    On,
    /// A device of the host, lent.
    Lease,
    /// Ports of the host whose traffic a namespace gets.
    Publish,
    /// Two that may talk to each other although they are kept apart.
    Allow,
}

/// A name that is none of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// What was asked for.
    pub name: String,
    /// Names that there are.
    pub known: Vec<String>,
}

/// How a graph is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A picture.
    Svg,
    /// For Graphviz.
    Dot,
    /// For Markdown that draws Mermaid.
    Mermaid,
    /// For programs.
    Json,
}

impl Graph {
    /// Writes it.
    pub fn write(&self, format: Format) -> String {
        match format {
            Format::Svg => svg::write(self),
            Format::Dot => dot::write(self),
            Format::Mermaid => mermaid::write(self),
            Format::Json => json::write(self),
        }
    }

    /// Adds a node; its number.
    pub fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// The number of a node of one of these kinds.
    pub fn find(&self, kinds: &[Kind], name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| kinds.contains(&node.kind) && node.name == name)
    }

    /// These namespaces with what they lead to, and the host.
    ///
    /// # Errors
    /// There is no namespace of such a name.
    pub fn only(&self, names: &[String]) -> Result<Self, Unknown> {
        let mut asked = BTreeSet::new();
        for name in names {
            let found = self.nodes.iter().position(|node| node.kind.is_netns() && node.name == *name);
            asked.insert(found.ok_or_else(|| Unknown {
                name: name.clone(),
                known: self.namespaces().map(|node| node.name.clone()).collect(),
            })?);
        }
        let other = |edge: &Edge, of: &BTreeSet<usize>| match (
            of.contains(&edge.from.node),
            of.contains(&edge.to.node),
        ) {
            (true, _) => Some(edge.to.node),
            (_, true) => Some(edge.from.node),
            _ => None,
        };
        let mut kept = asked.clone();
        kept.extend(self.edges.iter().filter_map(|edge| other(edge, &asked)));
        // Of those at the far ends, too, what they are on.
        let near: BTreeSet<usize> =
            kept.iter().copied().filter(|at| self.nodes[*at].kind.is_netns()).collect();
        let on = self.edges.iter().filter_map(|edge| other(edge, &near));
        kept.extend(on.filter(|at| !self.nodes[*at].kind.is_netns()));
        kept.extend(self.find(&[Kind::Host], HOST));
        // What leads out of a bridge that is kept.
        let ports =
            self.edges.iter().filter(|edge| edge.kind == Link::Port && kept.contains(&edge.from.node));
        let ports: Vec<usize> = ports.map(|edge| edge.to.node).collect();
        kept.extend(ports);
        let within = |edge: &&Edge| kept.contains(&edge.from.node) && kept.contains(&edge.to.node);
        let edges: Vec<&Edge> = self.edges.iter().filter(within).collect();
        let kept: Vec<usize> = kept.into_iter().collect();
        let moved =
            |end: &End| End { node: kept.binary_search(&end.node).unwrap_or_default(), ..end.clone() };
        let edge = |edge: &&Edge| Edge { from: moved(&edge.from), to: moved(&edge.to), ..(*edge).clone() };
        Ok(Self {
            title: self.title.clone(),
            nodes: kept.iter().map(|at| self.nodes[*at].clone()).collect(),
            edges: edges.iter().map(edge).collect(),
        })
    }

    fn namespaces(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.kind.is_netns())
    }

    /// What it is in one sentence, and what is wrong at first sight in another; nothing where nothing is.
    fn summary(&self) -> (String, Option<String>) {
        let count = |kinds: &[Kind]| self.nodes.iter().filter(|node| kinds.contains(&node.kind)).count();
        let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let interfaces = self.namespaces().flat_map(|node| &node.interfaces);
        let interfaces = interfaces.filter(|interface| !interface.is_loopback()).count();
        let all = [
            many(self.namespaces().count(), "namespace"),
            many(interfaces, "interface"),
            many(count(&[Kind::Bridge]), "bridge"),
        ];
        let those = |of: &dyn Fn(&Interface) -> bool| -> Vec<String> {
            let each = self
                .namespaces()
                .flat_map(|node| node.interfaces.iter().map(move |interface| (node, interface)));
            let each = each.filter(|(_, interface)| of(interface));
            each.map(|(node, interface)| format!("{}/{}", plain(&node.name), plain(&interface.name)))
                .collect()
        };
        let mut down = those(&|interface| interface.up == Some(false) && !interface.is_loopback());
        let devices = self.nodes.iter().filter(|node| node.kind == Kind::Bridge && node.up == Some(false));
        down.extend(devices.map(|node| plain(&node.name)));
        let mut wrong: Vec<String> = some(&down).map(|names| format!("down: {names}")).into_iter().collect();
        match self.counts() {
            true => wrong
                .extend(some(&those(&Interface::is_uncounted)).map(|names| format!("not counted: {names}"))),
            false if interfaces > 0 => wrong.push("nothing is counted".to_owned()),
            false => {}
        }
        (all.join(", "), (!wrong.is_empty()).then(|| wrong.join("; ")))
    }

    /// Whether anything is counted at all; where nothing is, that is said once.
    fn counts(&self) -> bool {
        self.namespaces().flat_map(|node| &node.interfaces).any(|interface| interface.counted)
    }
}

/// As many names as stand in a line.
fn some(names: &[String]) -> Option<String> {
    let mut room = 60_usize;
    let fits = |name: &&String| {
        let fits = room > 0;
        room = room.saturating_sub(name.chars().count() + 2);
        fits
    };
    let shown: Vec<&str> = names.iter().take_while(fits).map(String::as_str).collect();
    let more = match names.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!names.is_empty()).then(|| format!("{}{more}", shown.join(", ")))
}

/// The name of the host's node.
pub const HOST: &str = "host";

impl Node {
    /// One without anything.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        let (addresses, interfaces) = (Vec::new(), Vec::new());
        Self { kind, name: name.into(), owned: false, up: None, addresses, nat: false, interfaces }
    }

    /// Interfaces that are worth a line: loopback is where it is down.
    fn shown(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces.iter().filter(|interface| !interface.is_loopback() || interface.up == Some(false))
    }

    /// What it is in words, where its name alone does not say it.
    fn word(&self) -> &'static str {
        match self.kind {
            Kind::Host | Kind::Netns => "",
            Kind::Device => "device",
            Kind::Lent => "lent device",
            Kind::Bridge => "bridge",
            Kind::Detached => "detached",
            Kind::Anonymous => "anonymous",
        }
    }

    /// A line each for what there is to say, the name first.
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![match self.word() {
            "" => plain(&self.name),
            word => format!("{} ({word})", plain(&self.name)),
        }];
        lines.extend(self.addresses.iter().map(|address| plain(address)));
        if self.nat {
            lines.push("NAT".to_owned());
        }
        if self.up == Some(false) {
            lines.push("down".to_owned());
        }
        for interface in self.shown() {
            let mut line = plain(&interface.name);
            if let Some(first) = interface.addresses.first() {
                line.push_str(&format!(" {}", plain(first)));
            }
            line.push_str(if interface.up == Some(false) { " down" } else { "" });
            line.push_str(if interface.is_uncounted() { " not counted" } else { "" });
            lines.push(line);
            lines.extend(interface.addresses.iter().skip(1).map(|address| format!("  {}", plain(address))));
        }
        lines
    }

    /// Whether something of it is down; loopback, which nobody has put up in many a namespace, is told, and is no alarm.
    fn is_down(&self) -> bool {
        let is_down = |interface: &Interface| interface.up == Some(false) && !interface.is_loopback();
        self.up == Some(false) || self.interfaces.iter().any(is_down)
    }
}

impl Kind {
    /// Whether it is a namespace other than the host's.
    pub fn is_netns(self) -> bool {
        matches!(self, Self::Netns | Self::Detached | Self::Anonymous)
    }
}

impl Interface {
    fn is_uncounted(&self) -> bool {
        !self.counted && !self.is_loopback()
    }

    fn is_loopback(&self) -> bool {
        self.kind == "loopback"
    }
}

impl Edge {
    /// What stands at the line.
    fn label(&self) -> String {
        let end = |end: &End| {
            let mut words: Vec<String> = end.interface.iter().map(|name| plain(name)).collect();
            words.extend(end.addresses.iter().map(|address| plain(address)));
            words.join(" ")
        };
        let ends: Vec<String> =
            [end(&self.from), end(&self.to)].into_iter().filter(|text| !text.is_empty()).collect();
        let mut words = vec![ends.join(" - ")];
        words.push(match self.kind {
            Link::Veth => String::new(),
            Link::Port => "port".to_owned(),
            Link::On => plain(&self.note),
            Link::Lease => "lent".to_owned(),
            Link::Publish => format!("publishes {}", plain(&self.note)),
            Link::Allow => "may talk".to_owned(),
        });
        if self.up == Some(false) {
            words.push("down".to_owned());
        }
        words.retain(|word| !word.is_empty());
        words.join(", ")
    }
}

/// A name with nothing in it that moves a cursor, turns the direction of text, or may not be in XML. The kernel takes nearly any
/// byte in a name.
fn plain(name: &str) -> String {
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(c, '\u{feff}' | '\u{fff0}'..='\u{fffc}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e0fff}')
    };
    let mut text = String::new();
    for c in name.chars() {
        match is_odd(c) {
            true => text.extend(c.escape_unicode()),
            false => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests;
