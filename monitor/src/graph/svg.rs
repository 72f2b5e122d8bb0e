//! The graph as a picture: no script, no font and no picture of elsewhere, dark where the reader's screen is.

mod card;
mod layout;

use std::fmt::Write as _;

use self::{
    card::{Line, Mark, Style},
    layout::{BAR, Bar, Boxed, INSIDE, LINE, Layout, PAD, Rect, Wire, layout},
};
use super::{Edge, End, Graph, Kind, Link, plain};

/// Colours twice: not by variables, which not every program that draws SVG knows.
const STYLE: &str = "
text { font: 12px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #1c2330 }
.paper { fill: #ffffff } .title { font-size: 16px; font-weight: bold }
.name { font-weight: bold } .small { fill: #566075 } .wrong { fill: #b3261e } .open { fill: #0b6b3a }
.host { fill: #eef1f6; stroke: #8a94a6 } .bar { fill: #dfe9fb; stroke: #4a72b8 } .bare { fill: none; stroke: #8a94a6; stroke-dasharray: 3 3 }
.card { fill: #f8fafc; stroke: #8a94a6 } .nameless { stroke-dasharray: 5 3 } .broken { stroke: #b3261e; stroke-width: 2 }
.wire { fill: none; stroke: #4a72b8; stroke-width: 1.5 } .cut { stroke: #b3261e; stroke-dasharray: 5 3 }
.between { stroke: #7a4fb0 } .allowed { stroke: #0b6b3a; stroke-dasharray: 2 3 }
.up { fill: #0b6b3a } .bad { fill: #b3261e } .ring { fill: none; stroke: #9a6700; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
text { fill: #e4e8f0 } .paper { fill: #12161e } .small { fill: #a0aabd } .wrong { fill: #ff8a80 } .open { fill: #5fd39a }
.host { fill: #1b212c; stroke: #5d6880 } .bar { fill: #1d2f52; stroke: #6f9be8 } .bare { stroke: #5d6880 }
.card { fill: #1a202b; stroke: #5d6880 } .broken { stroke: #ff8a80 }
.wire { stroke: #6f9be8 } .cut { stroke: #ff8a80 } .between { stroke: #b795ea } .allowed { stroke: #5fd39a }
.up { fill: #5fd39a } .bad { fill: #ff8a80 } .ring { stroke: #e3b341 }
}
";

pub(super) fn write(graph: &Graph) -> String {
    let layout = layout(graph);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _infallible = draw(&mut text, graph, &layout);
    text
}

fn draw(text: &mut String, graph: &Graph, layout: &Layout) -> std::fmt::Result {
    let Layout { width, height, host, devices, bars, cards, wires } = layout;
    let (summary, wrong) = graph.summary();
    let title = plain(&graph.title);
    // Text of the head is never cut.
    let wide = |text: &str, columns: i32| 2 * PAD + text.chars().count() as i32 * columns / 10;
    let head = [
        wide(&title, 100),
        wide(&summary, 74),
        wide(wrong.as_deref().unwrap_or_default(), 74),
        legend_width(graph),
    ];
    let width = head.into_iter().fold(*width, i32::max);
    let about: Vec<&str> = [Some(summary.as_str()), wrong.as_deref()].into_iter().flatten().collect();
    writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-labelledby=\"title about\">\n<title id=\"title\">{}</title>\n<desc id=\"about\">{}</desc>",
        escaped(&title),
        escaped(&about.join("; "))
    )?;
    writeln!(text, "<style>{STYLE}</style>\n<rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>")?;
    writeln!(text, "<text class=\"title\" x=\"{PAD}\" y=\"{}\">{}</text>", PAD + 14, escaped(&title))?;
    writeln!(text, "<text class=\"small\" x=\"{PAD}\" y=\"{}\">{}</text>", PAD + 34, escaped(&summary))?;
    if let Some(wrong) = &wrong {
        writeln!(text, "<text class=\"wrong\" x=\"{PAD}\" y=\"{}\">{}</text>", PAD + 52, escaped(wrong))?;
    }
    legend(text, graph)?;
    if let Some((node, rect)) = host {
        let host = &graph.nodes[*node];
        writeln!(text, "{}", rectangle("host", *rect))?;
        let (x, y) = (rect.x + 12, rect.y + 21);
        writeln!(text, "<text class=\"name\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(&plain(&host.name)))?;
    }
    wires.iter().try_for_each(|wire| line(text, graph, wire))?;
    bars.iter().try_for_each(|bar| draw_bar(text, graph, bar))?;
    devices.iter().chain(cards).try_for_each(|boxed| draw_box(text, graph, boxed))?;
    text.push_str("</svg>\n");
    Ok(())
}

/// What the marks mean, and those lines that are there.
fn legend(text: &mut String, graph: &Graph) -> std::fmt::Result {
    let (y, mut x) = (PAD + 70, PAD);
    let mut put = |symbol: &dyn Fn(i32) -> String, word: &str| {
        let at = x;
        x += 44 + word.len() as i32 * 8;
        writeln!(text, "{}<text class=\"small\" x=\"{}\" y=\"{y}\">{word}</text>", symbol(at), at + 26)
    };
    for (mark, word) in MARKS {
        put(&|x| symbol(mark, x + 16, y - 4), word)?;
    }
    for (class, word) in lines_of(graph) {
        put(&|x| format!("<path class=\"wire{class}\" d=\"M{x} {}h20\"/>", y - 4), word)?;
    }
    Ok(())
}

const MARKS: [(Mark, &str); 3] =
    [(Mark::Counted, "up, counted"), (Mark::Uncounted, "up, not counted"), (Mark::Down, "down")];

const LINES: [(&str, &str); 3] = [
    (" between", "pair of two namespaces"),
    (" allowed", "may talk all the same"),
    (" cut", "an end is down"),
];

/// Those lines that are there.
fn lines_of(graph: &Graph) -> impl Iterator<Item = (&'static str, &'static str)> {
    let is_there = |class: &str| graph.edges.iter().any(|edge| edge_class(graph, edge) == class);
    LINES.into_iter().filter(move |(class, _)| is_there(class))
}

fn legend_width(graph: &Graph) -> i32 {
    let words = MARKS.into_iter().map(|(_, word)| word).chain(lines_of(graph).map(|(_, word)| word));
    2 * PAD + words.map(|word| 44 + word.len() as i32 * 8).sum::<i32>()
}

/// Beside the class of all lines.
fn edge_class(graph: &Graph, edge: &Edge) -> &'static str {
    let is_netns = |end: &End| graph.nodes[end.node].kind.is_netns();
    match edge.kind {
        _ if edge.up == Some(false) => " cut",
        Link::Allow => " allowed",
        Link::Veth if is_netns(&edge.from) && is_netns(&edge.to) => " between",
        _ => "",
    }
}

fn rectangle(class: &str, Rect { x, y, w, h }: Rect) -> String {
    format!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"5\"/>")
}

/// Told by its shape, not by its colour alone.
fn symbol(mark: Mark, x: i32, y: i32) -> String {
    match mark {
        Mark::Counted => format!("<circle class=\"up\" cx=\"{x}\" cy=\"{y}\" r=\"4\"/>"),
        Mark::Uncounted => format!("<circle class=\"ring\" cx=\"{x}\" cy=\"{y}\" r=\"3\"/>"),
        Mark::Down => format!("<path class=\"bad\" d=\"M{} {}h10l-5 9z\"/>", x - 5, y - 4),
    }
}

fn line(text: &mut String, graph: &Graph, Wire { points, edge }: &Wire) -> std::fmt::Result {
    let path: Vec<String> = points.iter().map(|(x, y)| format!("{x} {y}")).collect();
    let path = format!("M{}", path.join("L"));
    let Some(edge) = edge.map(|at| &graph.edges[at]) else {
        return writeln!(text, "<path class=\"wire\" d=\"{path}\"/>");
    };
    let class = format!("wire{}", edge_class(graph, edge));
    writeln!(text, "<path class=\"{class}\" d=\"{path}\"><title>{}</title></path>", escaped(&edge.label()))
}

fn draw_bar(text: &mut String, graph: &Graph, Bar { node, rect, namespaces }: &Bar) -> std::fmt::Result {
    let Rect { x, y, w, .. } = *rect;
    let base = y + BAR / 2 + 4;
    let count = format!("{namespaces} namespace{}", if *namespaces == 1 { "" } else { "s" });
    let Some(at) = *node else {
        writeln!(text, "{}", rectangle("bare", *rect))?;
        writeln!(
            text,
            "<text class=\"small\" x=\"{}\" y=\"{base}\">on no bridge or device of the host</text>",
            x + 10
        )?;
        return right(text, x + w - 10, base, "small", &count);
    };
    let node = &graph.nodes[at];
    let (mut words, mut class) = (Vec::new(), "bar".to_owned());
    let name = match node.kind {
        Kind::Host => "pairs with the host itself".to_owned(),
        _ => {
            words.push(node.word().to_owned());
            words.extend(node.addresses.iter().map(|address| plain(address)));
            plain(&node.name)
        }
    };
    if node.nat {
        words.push("NAT".to_owned());
    }
    for edge in graph.edges.iter().filter(|edge| edge.kind == Link::Port) {
        let name = |end: &End| plain(&graph.nodes[end.node].name);
        if edge.to.node == at {
            words.push(format!("port of {}", name(&edge.from)));
        } else if edge.from.node == at {
            words.push(format!("port {}", name(&edge.to)));
        }
    }
    if node.up == Some(false) {
        words.push("down".to_owned());
        class.push_str(" broken");
    }
    writeln!(text, "<g><title>{}</title>", escaped(&node.lines().join("\n")))?;
    writeln!(text, "{}", rectangle(&class, *rect))?;
    // As much as there is room for, beside the count.
    let room = (w / 8 - count.len() as i32 - 4).max(8) as usize;
    let mut rest: String = words.join("  ");
    let name: String = name.chars().take(room).collect();
    let left = room.saturating_sub(name.chars().count() + 2);
    if rest.chars().count() > left {
        rest = rest.chars().take(left.saturating_sub(1)).chain(['…']).collect();
    }
    writeln!(
        text,
        "<text x=\"{}\" y=\"{base}\"><tspan class=\"name\">{}</tspan><tspan class=\"small\" dx=\"12\">{}</tspan></text>",
        x + 10,
        escaped(&name),
        escaped(&rest)
    )?;
    right(text, x + w - 10, base, "small", &count)?;
    text.push_str("</g>\n");
    Ok(())
}

fn right(text: &mut String, x: i32, y: i32, class: &str, what: &str) -> std::fmt::Result {
    writeln!(text, "<text class=\"{class}\" text-anchor=\"end\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(what))
}

fn draw_box(text: &mut String, graph: &Graph, Boxed { node, rect, card }: &Boxed) -> std::fmt::Result {
    let node = &graph.nodes[*node];
    let mut class = "card".to_owned();
    if matches!(node.kind, Kind::Detached | Kind::Anonymous) {
        class.push_str(" nameless");
    }
    if node.is_down() {
        class.push_str(" broken");
    }
    writeln!(text, "<g><title>{}</title>{}", escaped(&node.lines().join("\n")), rectangle(&class, *rect))?;
    for (at, Line { left, right: at_right, style, mark }) in card.lines.iter().enumerate() {
        let y = rect.y + INSIDE + 12 + at as i32 * LINE;
        let (class, indent) = match style {
            Style::Name => ("name", if mark.is_some() { 22 } else { 10 }),
            Style::Usual => ("", 22),
            Style::Small => ("small", 22),
            Style::Wrong => ("wrong", 22),
            Style::Open => ("open", 10),
        };
        if let Some(mark) = mark {
            text.push_str(&symbol(*mark, rect.x + 12, y - 4));
        }
        writeln!(
            text,
            "<text class=\"{class}\" x=\"{}\" y=\"{y}\">{}</text>",
            rect.x + indent,
            escaped(left)
        )?;
        if !at_right.is_empty() {
            right(text, rect.x + rect.w - 8, y, "small", at_right)?;
        }
    }
    text.push_str("</g>\n");
    Ok(())
}

/// What XML would read as something else.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests;
