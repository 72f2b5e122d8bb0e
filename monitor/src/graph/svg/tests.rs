//! Nothing is drawn over anything else, on graphs of every size.

use super::{
    card::{Card, Line},
    layout::{Layout, Rect, layout},
};
use crate::graph::{Edge, End, Graph, HOST, Interface, Kind, Link, Node};

/// Numbers that look random and are the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most.max(1)
    }
}

fn graph(namespaces: usize, bridges: usize, seed: u64) -> Graph {
    let mut random = Random(seed);
    let mut graph = Graph { title: "random".to_owned(), ..Graph::default() };
    let host = graph.add(Node::new(Kind::Host, HOST));
    let mut places = vec![host];
    for number in 0..bridges {
        places.push(graph.add(Node { up: Some(true), ..Node::new(Kind::Bridge, format!("br{number}")) }));
    }
    for number in 0..random.below(5) {
        let kind = [Kind::Device, Kind::Lent][number % 2];
        places.push(graph.add(Node { up: Some(true), ..Node::new(kind, format!("eth{number}")) }));
    }
    let first = graph.nodes.len();
    for number in 0..namespaces {
        let kind = [Kind::Netns, Kind::Detached, Kind::Anonymous][random.below(3)];
        let name = format!("{number}{}", "n".repeat(random.below(70)));
        let interfaces = (0..random.below(12)).map(|number| Interface {
            name: format!("eth{number}"),
            up: [None, Some(true), Some(false)][random.below(3)],
            addresses: vec!["2001:db8:1111:2222:3333:4444:5555:6666/64".to_owned(); random.below(4)],
            ..Interface::default()
        });
        let interfaces = interfaces.collect();
        graph.add(Node { interfaces, ..Node::new(kind, name) });
    }
    for _ in 0..namespaces * 3 / 2 {
        let to = first + random.below(namespaces);
        let from = match random.below(3) {
            0 => first + random.below(namespaces),
            _ => places[random.below(places.len())],
        };
        let kind =
            [Link::Veth, Link::Veth, Link::On, Link::Lease, Link::Publish, Link::Allow][random.below(6)];
        let end = |node| End { node, interface: Some("eth0".to_owned()), ..End::default() };
        graph.edges.push(Edge { kind, from: end(from), to: end(to), up: None, note: String::new() });
    }
    graph
}

fn overlap(a: Rect, b: Rect) -> bool {
    a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h
}

/// The inside of a box: a line may end at its edge.
fn inside(Rect { x, y, w, h }: Rect) -> Rect {
    Rect { x: x + 1, y: y + 1, w: w - 2, h: h - 2 }
}

fn stretch(a: (i32, i32), b: (i32, i32)) -> Rect {
    let (x, y) = (a.0.min(b.0), a.1.min(b.1));
    Rect { x, y, w: (a.0 - b.0).abs().max(1), h: (a.1 - b.1).abs().max(1) }
}

fn check(graph: &Graph) {
    let Layout { width, height, host, devices, bars, cards, wires } = layout(graph);
    let is_netns = |node: &&Node| node.kind.is_netns();
    assert_eq!(cards.len(), graph.nodes.iter().filter(is_netns).count(), "every namespace is there once");
    let bars: Vec<Rect> = bars.iter().map(|bar| bar.rect).collect();
    let boxes: Vec<Rect> = cards.iter().map(|boxed| boxed.rect).collect();
    let devices: Vec<Rect> = devices.iter().map(|boxed| boxed.rect).collect();
    let host = host.map(|(_, rect)| rect);
    let all: Vec<Rect> = bars.iter().chain(&boxes).chain(&host).copied().collect();
    for (at, a) in all.iter().enumerate() {
        assert!(
            a.x >= 0 && a.y >= 0 && a.x + a.w <= width && a.y + a.h <= height,
            "{a:?} of {width} x {height}"
        );
        for b in &all[..at] {
            assert!(!overlap(*a, *b), "{a:?} {b:?}");
        }
    }
    for (at, a) in devices.iter().enumerate() {
        let within = host.is_some_and(|host| {
            a.x >= host.x && a.x + a.w <= host.x + host.w && a.y + a.h <= host.y + host.h
        });
        assert!(within && devices[..at].iter().all(|b| !overlap(*a, *b)), "{a:?}");
    }
    for wire in &wires {
        for pair in wire.points.windows(2) {
            let ([a, b], line) = ([pair[0], pair[1]], stretch(pair[0], pair[1]));
            assert!(a.0 == b.0 || a.1 == b.1, "{a:?} {b:?}");
            assert!(line.x >= 0 && line.x + line.w <= width && line.y + line.h <= height, "{line:?}");
            for card in bars.iter().chain(&boxes) {
                assert!(!overlap(line, inside(*card)), "{line:?} through {card:?}");
            }
        }
    }
    // Of lines between namespaces, no two lie on each other.
    let own: Vec<_> = wires.iter().filter(|wire| wire.edge.is_some() && wire.points.len() > 2).collect();
    for (at, one) in own.iter().enumerate() {
        for other in &own[..at] {
            for (a, b) in one.points.windows(2).flat_map(|a| other.points.windows(2).map(move |b| (a, b))) {
                let upright = |pair: &[(i32, i32)]| pair[0].0 == pair[1].0;
                let long = |pair: &[(i32, i32)]| stretch(pair[0], pair[1]);
                // From a bar all begin at a few places.
                let at_bar = [a, b].iter().any(|pair| {
                    pair.iter().any(|point| {
                        bars.iter().chain(&host).any(|bar| {
                            point.0 == bar.x + bar.w && point.1 >= bar.y && point.1 <= bar.y + bar.h
                        })
                    })
                });
                let is_short = |pair: &[(i32, i32)]| long(pair).h <= 1 && long(pair).w <= 1;
                if upright(a) == upright(b) && !at_bar && !is_short(a) && !is_short(b) {
                    assert!(!overlap(long(a), long(b)), "{a:?} {b:?}");
                }
            }
        }
    }
    for boxed in &cards {
        assert!(boxed.card.width() <= boxed.rect.w, "the text fits");
    }
}

#[test]
fn nothing_is_drawn_over_anything_else() {
    check(&Graph::default());
    for (namespaces, bridges) in [(0, 0), (0, 2), (1, 0), (3, 1), (30, 2), (300, 4)] {
        for seed in 0..if namespaces > 100 { 2 } else { 8 } {
            check(&graph(namespaces, bridges, seed));
        }
    }
}

#[test]
fn the_same_graph_is_the_same_picture() {
    assert_eq!(super::write(&graph(30, 2, 7)), super::write(&graph(30, 2, 7)));
}

#[test]
fn what_is_too_long_is_cut_with_a_mark_and_counted_where_it_is_lines() {
    let line = |left: String| Line { left, ..Line::default() };
    let long = Card::new(vec![line("x".repeat(100)), line("东".repeat(100))]);
    assert_eq!(long.lines[0].left, format!("{}…", "x".repeat(39)));
    assert_eq!(long.lines[1].left, format!("{}…", "东".repeat(19)));
    let tall = Card::new((0..40).map(|number| line(number.to_string())).collect());
    assert_eq!((tall.lines.len(), tall.lines[15].left.as_str()), (16, "and 25 more lines"));
}
