//! Where everything is drawn. Layers from the host down: the host, each of its bridges and devices as a bar, and below the bar its
//! namespaces in rows under a rail. What is left, pairs between namespaces and second ways, runs in lanes between the rows and
//! right of everything. Nothing is drawn over anything else, and the same graph always gives the same picture.

use std::collections::BTreeMap;

use super::card::{Card, card, device};
use crate::graph::{Edge, Graph, HOST, Kind, Link};

/// Around everything.
pub(super) const PAD: i32 = 16;
/// Title, summary, legend.
pub(super) const HEAD: i32 = 80;
/// A line of text.
pub(super) const LINE: i32 = 16;
/// Above and below the text of a card.
pub(super) const INSIDE: i32 = 8;
/// Height of a bar.
pub(super) const BAR: i32 = 34;
/// From the left edge of a bar to its cards: here the trunk goes down.
const INDENT: i32 = 24;
/// Between cards of a row.
const GAP: i32 = 12;
/// From the top of a row to its cards; the rail is in the middle.
const RAIL: i32 = 20;
/// Between lines that run side by side.
const LANE: i32 = 7;

/// A rectangle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) w: i32,
    pub(super) h: i32,
}

/// Something drawn as a box with lines of text.
pub(super) struct Boxed {
    pub(super) node: usize,
    pub(super) rect: Rect,
    pub(super) card: Card,
}

/// A bar with what is below it.
pub(super) struct Bar {
    /// The bridge or device, or the host for pairs that are on none; absent for what leads to none of them.
    pub(super) node: Option<usize>,
    pub(super) rect: Rect,
    /// How many namespaces are below it.
    pub(super) namespaces: usize,
}

/// A line.
pub(super) struct Wire {
    pub(super) points: Vec<(i32, i32)>,
    /// The edge it is; absent for rails and trunks, which several share.
    pub(super) edge: Option<usize>,
}

/// Everything.
pub(super) struct Layout {
    pub(super) width: i32,
    pub(super) height: i32,
    pub(super) host: Option<(usize, Rect)>,
    pub(super) devices: Vec<Boxed>,
    pub(super) bars: Vec<Bar>,
    pub(super) cards: Vec<Boxed>,
    pub(super) wires: Vec<Wire>,
}

/// A bar before it has a place.
struct Group {
    anchor: Option<usize>,
    /// Nodes of its namespaces, row by row.
    rows: Vec<Vec<usize>>,
}

/// Where a line that is no drop begins or ends.
#[derive(Clone, Copy)]
enum Port {
    /// At the bottom of a card: its row, among all rows, and how far from the left.
    Card { node: usize, row: usize, x: i32 },
    /// At the right edge of the host or of a bar, by number; the host is 0.
    Edge(usize),
}

pub(super) fn layout(graph: &Graph) -> Layout {
    let cards: BTreeMap<usize, Card> = nodes(graph, Kind::is_netns).map(|at| (at, card(graph, at))).collect();
    let width = cards.values().map(Card::width).max().unwrap_or(0).max(150);
    let tall = cards.values().map(height).max().unwrap_or(0) + RAIL + GAP;
    // About as wide as a screen.
    let ideal = (cards.len() as f64 * f64::from(tall) * 1.7 / f64::from(width + GAP)).sqrt();
    let columns = (ideal.round() as usize).clamp(cards.len().min(3), 16).max(1);
    let groups = groups(graph, columns);
    let most = groups.iter().flat_map(|group| &group.rows).map(Vec::len).max().unwrap_or(0).max(2);
    let inner = INDENT + most as i32 * (width + GAP);
    let right = PAD + INDENT + inner.max(420);
    let mut place =
        Place { graph, cards, width, right, wires: Vec::new(), boxes: Vec::new(), at: BTreeMap::new() };
    place.columns(&groups);
    let lanes = place.lanes(&groups);
    place.draw(groups, lanes)
}

fn nodes(graph: &Graph, of: impl Fn(Kind) -> bool) -> impl Iterator<Item = usize> {
    graph.nodes.iter().enumerate().filter(move |(_, node)| of(node.kind)).map(|(at, _)| at)
}

fn height(card: &Card) -> i32 {
    2 * INSIDE + card.lines.len() as i32 * LINE
}

/// The bar that a namespace is below: the first bridge it is on, else the first device, else the host's.
fn anchor(graph: &Graph, node: usize) -> Option<usize> {
    let own = graph.edges.iter().filter(|edge| edge.to.node == node && leads_out(edge));
    own.map(|edge| edge.from.node)
        .filter(|from| !graph.nodes[*from].kind.is_netns())
        .min_by_key(|from| (graph.nodes[*from].kind == Kind::Host, graph.nodes[*from].kind != Kind::Bridge))
}

fn leads_out(edge: &Edge) -> bool {
    matches!(edge.kind, Link::Veth | Link::On | Link::Lease)
}

fn groups(graph: &Graph, columns: usize) -> Vec<Group> {
    let mut members: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for node in nodes(graph, Kind::is_netns) {
        members.entry(anchor(graph, node)).or_default().push(node);
    }
    let host = graph.find(&[Kind::Host], HOST);
    let mut groups = Vec::new();
    let mut add = |anchor: Option<usize>, nodes: Vec<usize>| {
        let rows = nodes.chunks(columns).map(<[usize]>::to_vec).collect();
        groups.push(Group { anchor, rows });
    };
    for node in nodes(graph, |kind| matches!(kind, Kind::Bridge | Kind::Device | Kind::Lent)) {
        match members.remove(&Some(node)) {
            Some(nodes) => add(Some(node), nodes),
            None if graph.nodes[node].kind != Kind::Device => add(Some(node), Vec::new()),
            None => {}
        }
    }
    if let Some(nodes) = members.remove(&host).filter(|_| host.is_some()) {
        add(host, nodes);
    }
    if let Some(nodes) = members.remove(&None) {
        add(None, neighbours_together(graph, nodes));
    }
    groups
}

/// Those that lead to each other side by side.
fn neighbours_together(graph: &Graph, nodes: Vec<usize>) -> Vec<usize> {
    let mut order = Vec::new();
    let mut left: Vec<usize> = nodes;
    left.reverse();
    while let Some(first) = left.pop() {
        let mut waiting = vec![first];
        while let Some(node) = waiting.pop() {
            order.push(node);
            for edge in &graph.edges {
                let other = match (edge.from.node == node, edge.to.node == node) {
                    (true, false) => edge.to.node,
                    (false, true) => edge.from.node,
                    _ => continue,
                };
                if let Some(at) = left.iter().position(|found| *found == other) {
                    waiting.push(left.remove(at));
                }
            }
        }
    }
    order
}

/// What is known while places are given.
struct Place<'a> {
    graph: &'a Graph,
    cards: BTreeMap<usize, Card>,
    width: i32,
    right: i32,
    wires: Vec<Wire>,
    boxes: Vec<Boxed>,
    /// Row, among all rows, and left edge of each card.
    at: BTreeMap<usize, (usize, i32)>,
}

/// A line that is no drop, with its lanes.
struct Run {
    edge: usize,
    from: Port,
    to: Port,
    /// The lane below the row of each end.
    gutters: [Option<usize>; 2],
}

/// All of them, and how many lanes are below each row.
struct Lanes {
    runs: Vec<Run>,
    below: Vec<usize>,
}

impl Place<'_> {
    fn columns(&mut self, groups: &[Group]) {
        let rows = groups.iter().flat_map(|group| &group.rows);
        for (row, nodes) in rows.enumerate() {
            for (column, node) in nodes.iter().enumerate() {
                let x = PAD + 2 * INDENT + column as i32 * (self.width + GAP);
                self.at.insert(*node, (row, x));
            }
        }
    }

    /// Lines that are no drops: each gets a lane below the row of its ends that no other has at that place.
    fn lanes(&self, groups: &[Group]) -> Lanes {
        let bars: BTreeMap<usize, usize> =
            groups.iter().enumerate().filter_map(|(at, group)| Some((group.anchor?, at + 1))).collect();
        let mut used: BTreeMap<usize, i32> = BTreeMap::new();
        let mut port = |node: usize| match self.at.get(&node) {
            Some((row, x)) => {
                let number = used.entry(node).or_default();
                *number += 1;
                let most = (self.width - 24) / LANE;
                Port::Card { node, row: *row, x: x + self.width - 8 - (*number - 1) % most * LANE }
            }
            None => Port::Edge(bars.get(&node).copied().unwrap_or_default()),
        };
        let rows = groups.iter().map(|group| group.rows.len()).sum();
        let mut taken: Vec<Vec<Vec<(i32, i32)>>> = vec![Vec::new(); rows];
        let mut take = |row: usize, from: i32, to: i32| free(&mut taken[row], from.min(to), from.max(to));
        let mut runs = Vec::new();
        for (edge, found) in self.graph.edges.iter().enumerate() {
            let is_drop = leads_out(found) && anchor(self.graph, found.to.node) == Some(found.from.node);
            let in_text = matches!(found.kind, Link::Port | Link::Publish)
                || (!self.at.contains_key(&found.from.node)
                    && !self.at.contains_key(&found.to.node)
                    && found.kind != Link::Allow);
            if is_drop || in_text || found.from.node == found.to.node {
                continue;
            }
            let (from, to) = (port(found.from.node), port(found.to.node));
            let gutters = match (from, to) {
                (Port::Card { row, x, .. }, Port::Card { row: other, x: end, .. }) if row == other => {
                    let lane = take(row, x, end);
                    [Some(lane), Some(lane)]
                }
                _ => [from, to].map(|port| match port {
                    Port::Card { row, x, .. } => Some(take(row, x, self.right)),
                    Port::Edge(_) => None,
                }),
            };
            runs.push(Run { edge, from, to, gutters });
        }
        let below = taken.iter().map(Vec::len).collect();
        Lanes { runs, below }
    }

    fn draw(mut self, groups: Vec<Group>, Lanes { runs, below }: Lanes) -> Layout {
        let mut y = PAD + HEAD;
        let host = self.graph.find(&[Kind::Host], HOST);
        let (host, devices) = match host {
            Some(node) => {
                let (rect, devices) = self.host(y, &groups);
                y = rect.y + rect.h + GAP;
                (Some((node, rect)), devices)
            }
            None => (None, Vec::new()),
        };
        let mut bars = Vec::new();
        // Bottom of the cards of each row.
        let mut bottoms = Vec::new();
        for group in &groups {
            let rect = Rect { x: PAD + INDENT, y, w: self.right - PAD - INDENT, h: BAR };
            let namespaces = group.rows.iter().map(Vec::len).sum();
            bars.push(Bar { node: group.anchor, rect, namespaces });
            y += BAR;
            for row in &group.rows {
                let top = y + RAIL;
                let tallest =
                    row.iter().filter_map(|node| self.cards.get(node)).map(height).max().unwrap_or(0);
                self.row(group.anchor, rect, row, top);
                bottoms.push(top + tallest);
                y = top + tallest + below.get(bottoms.len() - 1).map_or(0, |lanes| *lanes as i32 * LANE) + 4;
            }
            y += GAP;
        }
        if let Some((_, rect)) = &host {
            self.trunk(*rect, &bars);
        }
        let lanes = self.run(&runs, &bottoms, host.as_ref().map(|(_, rect)| *rect), &bars);
        let margin = if lanes == 0 { 0 } else { 8 + lanes as i32 * LANE };
        let width = self.right + margin + PAD;
        Layout { width, height: y + PAD, host, devices, bars, cards: self.boxes, wires: self.wires }
    }

    /// The host with those of its devices that no namespace is below.
    fn host(&self, y: i32, groups: &[Group]) -> (Rect, Vec<Boxed>) {
        let is_bar = |at: &usize| groups.iter().any(|group| group.anchor == Some(*at));
        let devices = nodes(self.graph, |kind| kind == Kind::Device).filter(|at| !is_bar(at));
        let devices: Vec<(usize, Card)> = devices.map(|at| (at, device(self.graph, at))).collect();
        let mut rect = Rect { x: PAD, y, w: self.right - PAD, h: BAR };
        let width = devices.iter().map(|(_, card)| card.width()).max().unwrap_or(0).max(150);
        let columns = ((rect.w - GAP) / (width + GAP)).max(1) as usize;
        let mut boxes = Vec::new();
        let mut rest = devices.into_iter().peekable();
        while rest.peek().is_some() {
            let row: Vec<_> = rest.by_ref().take(columns).collect();
            let tallest = row.iter().map(|(_, card)| height(card)).max().unwrap_or(0);
            for (column, (node, card)) in row.into_iter().enumerate() {
                let x = rect.x + GAP + column as i32 * (width + GAP);
                let place = Rect { x, y: rect.y + rect.h, w: width, h: height(&card) };
                boxes.push(Boxed { node, rect: place, card });
            }
            rect.h += tallest + GAP;
        }
        (rect, boxes)
    }

    /// The cards of a row, and what they hang on.
    fn row(&mut self, anchor: Option<usize>, bar: Rect, row: &[usize], top: i32) {
        let (trunk, rail) = (bar.x + INDENT / 2, top - RAIL / 2);
        let mut last = trunk;
        for node in row {
            let Some(card) = self.cards.remove(node) else { continue };
            let x = self.at.get(node).map_or(0, |(_, x)| *x);
            let rect = Rect { x, y: top, w: self.width, h: height(&card) };
            let drops = self.graph.edges.iter().enumerate();
            let drops = drops.filter(|(_, edge)| {
                edge.to.node == *node && Some(edge.from.node) == anchor && leads_out(edge)
            });
            for (number, (edge, _)) in drops.enumerate() {
                let x = x + 14 + (number as i32 * 10) % (self.width - 28);
                self.wires.push(Wire { points: vec![(x, rail), (x, top)], edge: Some(edge) });
                last = last.max(x);
            }
            self.boxes.push(Boxed { node: *node, rect, card });
        }
        if last > trunk {
            // From the bar, along the rows before, to here.
            let points = vec![(trunk, bar.y + bar.h), (trunk, rail), (last, rail)];
            self.wires.push(Wire { points, edge: None });
        }
    }

    /// From the host to each of its bridges and devices.
    fn trunk(&mut self, host: Rect, bars: &[Bar]) {
        let x = PAD + INDENT / 2;
        for bar in bars.iter().filter(|bar| bar.node.is_some()) {
            let middle = bar.rect.y + bar.rect.h / 2;
            let points = vec![(x, host.y + host.h), (x, middle), (bar.rect.x, middle)];
            self.wires.push(Wire { points, edge: None });
        }
    }

    /// Lines that are no drops; how many lanes they take at the right.
    fn run(&mut self, runs: &[Run], bottoms: &[i32], host: Option<Rect>, bars: &[Bar]) -> usize {
        let mut taken = Vec::new();
        let mut used: BTreeMap<usize, i32> = BTreeMap::new();
        for Run { edge, from, to, gutters } in runs {
            let mut end = |port: &Port, lane: Option<usize>| match port {
                Port::Card { node, row, x } => {
                    let bottom = bottoms.get(*row).copied().unwrap_or_default();
                    let card = self.boxes.iter().find(|found| found.node == *node);
                    let start = card.map_or(bottom, |card| card.rect.y + card.rect.h);
                    (vec![(*x, start)], bottom + 4 + lane.unwrap_or_default() as i32 * LANE, *x)
                }
                Port::Edge(bar) => {
                    let number = used.entry(*bar).or_default();
                    *number += 1;
                    let rect = bar
                        .checked_sub(1)
                        .and_then(|at| bars.get(at))
                        .map(|bar| bar.rect)
                        .or(host)
                        .unwrap_or_default();
                    let y = rect.y + 5 + (*number - 1) % 5 * 6;
                    (Vec::new(), y, rect.x + rect.w)
                }
            };
            let (mut points, y, x) = end(from, gutters[0]);
            let (back, other_y, other_x) = end(to, gutters[1]);
            let same =
                matches!((from, to), (Port::Card { row, .. }, Port::Card { row: other, .. }) if row == other);
            points.push((x, y));
            if !same {
                let lane = free(&mut taken, y.min(other_y) - 1, y.max(other_y) + 1);
                let x = self.right + 10 + lane as i32 * LANE;
                points.extend([(x, y), (x, other_y)]);
            }
            points.push((other_x, other_y));
            points.extend(back);
            self.wires.push(Wire { points, edge: Some(*edge) });
        }
        taken.len()
    }
}

/// The first lane where this stretch is free; it is taken then.
fn free(lanes: &mut Vec<Vec<(i32, i32)>>, from: i32, to: i32) -> usize {
    let is_free = |lane: &Vec<(i32, i32)>| lane.iter().all(|(start, end)| to + 4 < *start || *end + 4 < from);
    let at = lanes.iter().position(is_free).unwrap_or_else(|| {
        lanes.push(Vec::new());
        lanes.len() - 1
    });
    lanes[at].push((from, to));
    at
}
