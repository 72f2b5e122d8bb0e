//! What stands in the box of a namespace or device.

use crate::graph::{Graph, Interface, Kind, Link, Node, plain};

/// More lines than that are counted instead.
const MOST: usize = 16;
/// As many columns of text as a box is wide at most.
const WIDEST: usize = 40;
/// Width of a column in tenths of a pixel: of the widest of the usual fonts of fixed width, at 12 pixels.
const COLUMN: i32 = 74;
/// Left and right of the text of a line, with the mark.
const SIDES: i32 = 34;

/// Text of a box.
pub(super) struct Card {
    pub(super) lines: Vec<Line>,
}

/// A line of text.
#[derive(Default)]
pub(super) struct Line {
    pub(super) left: String,
    pub(super) right: String,
    pub(super) style: Style,
    pub(super) mark: Option<Mark>,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Style {
    /// The name of the box.
    Name,
    /// An interface.
    #[default]
    Usual,
    /// What belongs to the line before.
    Small,
    /// What is wrong.
    Wrong,
    /// What is reached from outside.
    Open,
}

/// The mark before an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Up and counted.
    Counted,
    /// Up and not counted.
    Uncounted,
    /// Down.
    Down,
}

impl Card {
    pub(super) fn new(mut lines: Vec<Line>) -> Self {
        if lines.len() > MOST {
            let more = lines.len() - MOST + 1;
            lines.truncate(MOST - 1);
            lines.push(small(format!("and {more} more lines")));
        }
        for line in &mut lines {
            let right = columns(&line.right).min(WIDEST / 2);
            line.right = cut(&line.right, right);
            let room = if right == 0 { WIDEST } else { WIDEST - right - 1 };
            line.left = cut(&line.left, room);
        }
        Self { lines }
    }

    /// In pixels, as wide as its text.
    pub(super) fn width(&self) -> i32 {
        let line = |line: &Line| match columns(&line.right) {
            0 => columns(&line.left),
            right => columns(&line.left) + 1 + right,
        };
        let widest = self.lines.iter().map(line).max().unwrap_or(0) as i32;
        SIDES + widest * COLUMN / 10
    }
}

/// A character of East Asia may be as wide as two.
fn columns(text: &str) -> usize {
    text.chars().map(|c| if c >= '\u{1100}' { 2 } else { 1 }).sum()
}

fn cut(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    let mut cut = String::new();
    for c in text.chars() {
        if columns(&cut) + columns(c.encode_utf8(&mut [0; 4])) + 1 > most {
            break;
        }
        cut.push(c);
    }
    cut + "…"
}

fn small(left: String) -> Line {
    Line { left, style: Style::Small, ..Line::default() }
}

/// A namespace.
pub(super) fn card(graph: &Graph, at: usize) -> Card {
    let node = &graph.nodes[at];
    let word = if matches!(node.kind, Kind::Netns) { "" } else { node.word() };
    let mut lines = vec![named(node, word)];
    let mut any = false;
    for interface in node.shown() {
        any = true;
        lines.extend(interface_lines(graph, at, interface));
    }
    if !any {
        lines.push(small("no interface".to_owned()));
    }
    for edge in graph.edges.iter().filter(|edge| edge.kind == Link::Publish && edge.to.node == at) {
        let left = format!("publishes {}", plain(&edge.note));
        lines.push(Line { left, style: Style::Open, ..Line::default() });
    }
    Card::new(lines)
}

fn named(node: &Node, word: &str) -> Line {
    Line { left: plain(&node.name), right: word.to_owned(), style: Style::Name, mark: None }
}

fn interface_lines(graph: &Graph, at: usize, interface: &Interface) -> Vec<Line> {
    let mark = match (interface.up, interface.is_uncounted()) {
        (Some(false), _) => Mark::Down,
        (_, false) => Mark::Counted,
        (_, true) => Mark::Uncounted,
    };
    let (right, theirs) = other_end(graph, at, &interface.name);
    let line = Line { left: plain(&interface.name), right, style: Style::Usual, mark: Some(mark) };
    let mut lines = vec![line];
    // Side by side with those of the host's end.
    for number in 0..interface.addresses.len().max(theirs.len()) {
        let of = |list: &[String]| list.get(number).map(|address| plain(address)).unwrap_or_default();
        lines.push(Line { right: of(&theirs), ..small(of(&interface.addresses)) });
    }
    let mut wrong = Vec::new();
    if interface.up == Some(false) {
        wrong.push("down");
    }
    if interface.is_uncounted() && graph.counts() {
        wrong.push("not counted");
    }
    if !wrong.is_empty() {
        lines.push(Line { left: wrong.join(", "), style: Style::Wrong, ..Line::default() });
    }
    lines
}

/// Where an interface leads, in a few words, and the addresses there.
fn other_end(graph: &Graph, at: usize, name: &str) -> (String, Vec<String>) {
    let is_it = |end: &crate::graph::End| end.node == at && end.interface.as_deref() == Some(name);
    for edge in &graph.edges {
        let other = match (is_it(&edge.from), is_it(&edge.to)) {
            (_, true) => &edge.from,
            (true, _) => &edge.to,
            _ => continue,
        };
        let node = &graph.nodes[other.node];
        let device = other.interface.as_deref().map(plain).unwrap_or_default();
        let text = match edge.kind {
            Link::On => plain(&edge.note),
            Link::Lease => "lent".to_owned(),
            _ if node.kind.is_netns() => format!("{}/{device}", plain(&node.name)),
            _ => device,
        };
        return (text, other.addresses.clone());
    }
    Default::default()
}

/// A device of the host.
pub(super) fn device(graph: &Graph, at: usize) -> Card {
    let node = &graph.nodes[at];
    let (mark, word) = match node.up {
        Some(false) => (Mark::Down, "down"),
        _ => (Mark::Counted, ""),
    };
    let mut lines = vec![Line { mark: Some(mark).filter(|_| node.up.is_some()), ..named(node, word) }];
    lines.extend(node.addresses.iter().map(|address| small(plain(address))));
    for edge in graph.edges.iter() {
        let other = match (edge.kind, edge.from.node == at, edge.to.node == at) {
            (Link::Port, _, true) => format!("port of {}", plain(&graph.nodes[edge.from.node].name)),
            (Link::Veth, true, false) => format!("pair with {}", plain(&graph.nodes[edge.to.node].name)),
            (Link::Veth, false, true) => format!("pair with {}", plain(&graph.nodes[edge.from.node].name)),
            _ => continue,
        };
        lines.push(small(other));
    }
    Card::new(lines)
}
