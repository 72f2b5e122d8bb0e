//! One namespace: what goes over its interfaces, and why it loses what it loses.

use std::time::Duration;

use monitor_ebpf::health::{TIME_BOUNDS, TcpCounts, Times};
use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
};

use super::{draw_scrolled, draw_text, traffic};
use crate::{
    cli::{
        ls, mode_name,
        show::class_name,
        top::{
            columns::Tab,
            model::{InterfaceRow, Reason, Row, is_loss},
            numbers::{age, count, middle, rate, seconds, volume},
            state::State,
            theme::Theme,
            trouble::From,
        },
        why::tcp,
    },
    explain::drops::plain,
    sample::{NetnsSample, lost::HOST},
};

const DROPS: &str = "why packets were dropped";
const ITS_TCP: &str = "its TCP";

/// Below the tables of drops and of TCP: the reasons of the namespace one is at.
pub(super) fn draw_reasons(buffer: &mut Buffer, area: Rect, state: &mut State, theme: &Theme) {
    let rows = state.rows();
    let Some(row) = state.current(&rows) else { return };
    let (label, lines) = match state.tab {
        Tab::Drops => (format!(" {}: {DROPS} ", row.label), drops(row, state, theme)),
        _ => (format!(" {}: {ITS_TCP} ", row.label), tcp_lines(row, state, theme)),
    };
    draw_scrolled(buffer, area, theme, Line::from(Span::styled(label, theme.title())), lines, 0);
}

/// One namespace alone.
pub(super) fn draw(buffer: &mut Buffer, area: Rect, state: &mut State, theme: &Theme) {
    let Some(row) = state.selected.and_then(|key| state.model.row(key)).cloned() else {
        let gone = Line::from("This namespace is gone. Esc goes back.");
        draw_text(buffer, area, theme, "", vec![gone]);
        return;
    };
    let graph = if area.height >= 30 { area.height / 4 } else { 6 };
    let graph = if row.special { 0 } else { graph };
    let [above, below] = Layout::vertical([Constraint::Length(graph), Constraint::Min(3)]).areas(area);
    if !row.special {
        traffic::one(buffer, above, &row.label, Some(row.key), state, theme);
    }
    state.scroll = explain(buffer, below, &row, state, theme, state.scroll);
}

/// Everything that is known of one, from this line on; says from which line it then was.
pub(super) fn explain(
    buffer: &mut Buffer,
    area: Rect,
    row: &Row,
    state: &State,
    theme: &Theme,
    scroll: usize,
) -> usize {
    let title = |text: &str| Line::from(Span::styled(format!(" {text} "), theme.title()));
    let mut lines = trouble(row, state, theme);
    lines.extend(facts(row, state, theme));
    // What tells the reason comes first.
    let mut parts = [(DROPS, drops(row, state, theme)), (ITS_TCP, tcp_lines(row, state, theme))];
    if row.troubles.first().is_some_and(|trouble| trouble.from == From::Tcp) {
        parts.reverse();
    }
    let [(name, mut why), (other, more)] = parts;
    why.extend(heading(other, theme));
    why.extend(more);
    if area.width < 120 {
        lines.extend(heading(name, theme));
        lines.extend(why);
        return draw_scrolled(buffer, area, theme, title(&row.label), lines, scroll);
    }
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(area);
    let at = draw_scrolled(buffer, left, theme, title(&row.label), lines, scroll);
    at.max(draw_scrolled(buffer, right, theme, title(name), why, scroll))
}

fn heading(text: &str, theme: &Theme) -> [Line<'static>; 2] {
    [Line::default(), Line::from(Span::styled(text.to_owned(), theme.title()))]
}

/// What went wrong lately.
fn trouble(row: &Row, state: &State, theme: &Theme) -> Vec<Line<'static>> {
    if row.troubles.is_empty() {
        return vec![Line::from(Span::styled("nothing went wrong lately", theme.good()))];
    }
    let lines = row.troubles.iter().map(|trouble| {
        let style = if trouble.bad { theme.bad() } else { theme.warn() };
        Line::from(vec![
            Span::styled(format!("{} {}", theme.mark(trouble.bad), trouble.what), style),
            Span::raw(format!(": {}", trouble.means)),
        ])
    });
    let mut lines: Vec<_> = lines.collect();
    let lately =
        format!("in the last {}; netns-monitor why {} tells more", age(state.model.lately()), row.label);
    lines.push(Line::from(Span::styled(lately, theme.dim())));
    lines
}

/// Who it is, its interfaces and protocols.
fn facts(row: &Row, state: &State, theme: &Theme) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(netns) = state.model.netns(row.key) {
        lines.push(Line::default());
        lines.extend(identity(netns, theme));
    }
    let interfaces = state.model.interfaces(row.key);
    if !row.special {
        lines.extend(heading("interfaces", theme));
        if interfaces.is_empty() {
            lines.push(Line::from(Span::styled("none but lo: no packet comes in or out", theme.warn())));
        }
    }
    for row in &interfaces {
        lines.extend(interface(row, state, theme));
    }
    let classes = state.model.classes(row.key);
    if !classes.is_empty() {
        lines.extend(heading("protocols", theme));
        let header =
            format!("{:<14}{:>10}{:>10}{:>11}{:>11}", "", "rx pkt/s", "tx pkt/s", "rx all", "tx all");
        lines.push(Line::from(Span::styled(header, theme.dim())));
    }
    for (class, rates, total) in classes {
        let rates = |at: usize| rates.map_or("-".to_owned(), |rates| count(rates[at]));
        lines.push(Line::from(vec![
            Span::raw(format!("{:<14}", class_name(class))),
            Span::styled(format!("{:>10}", rates(2)), theme.receive()),
            Span::styled(format!("{:>10}", rates(3)), theme.transmit()),
            Span::styled(format!("{:>11}", count(total[2] as f64)), theme.dim()),
            Span::styled(format!("{:>11}", count(total[3] as f64)), theme.dim()),
        ]));
    }
    if let Some(conntrack) = state.model.figures(row.key).and_then(|figures| figures.conntrack)
        && conntrack.entries > 0
    {
        lines.push(Line::default());
        lines.push(Line::from(format!(
            "connection tracking has {} of {} connections",
            conntrack.entries, conntrack.limit
        )));
    }
    lines
}

fn identity(netns: &NetnsSample, theme: &Theme) -> Vec<Line<'static>> {
    let ours = if netns.owned { "made by netns-monitor" } else { "not made by netns-monitor" };
    let inode = netns.inode.map_or_else(String::new, |inode| format!("  inode {inode}"));
    let text = format!("{}  cookie {}{inode}  {ours}", ls::state(netns.state), netns.cookie);
    let mut lines = vec![Line::from(Span::styled(text, theme.dim()))];
    let identity = &netns.identity;
    let containers = identity.containers.iter().map(|one| {
        let name = one.name.as_deref().unwrap_or(&one.id);
        ("container", format!("{} {}", one.runtime, middle(name, 40)))
    });
    let others = [("pod", &identity.pod), ("unit", &identity.unit)].into_iter();
    let others = others.filter_map(|(what, name)| Some((what, name.clone()?)));
    for (what, name) in containers.chain(others) {
        lines.push(Line::from(vec![Span::styled(format!("{what} "), theme.dim()), Span::raw(name)]));
    }
    lines
}

/// Two lines of one interface: what it is, and what goes over it.
fn interface(row: &InterfaceRow, state: &State, theme: &Theme) -> Vec<Line<'static>> {
    let InterfaceRow { interface, rate: rates, device } = row;
    let (state_text, style) = match interface.link.as_ref().map(|link| link.running) {
        Some(true) => ("up", theme.good()),
        Some(false) => ("DOWN", theme.bad()),
        None => ("unknown", theme.dim()),
    };
    let mut what =
        vec![Span::styled(format!("{:<14}", interface.name), theme.title()), Span::styled(state_text, style)];
    if let Some(link) = &interface.link {
        let peer = link.peer_interface.as_ref().map(|name| match link.peer_netns.as_deref() {
            Some("") | None => format!("  peer {name}"),
            Some(netns) => format!("  peer {netns}/{name}"),
        });
        let text = format!("  {}  mtu {}{}", link.kind, link.mtu, peer.unwrap_or_default());
        what.push(Span::styled(text, theme.dim()));
    }
    match interface.mode {
        Some(_) => what.push(Span::styled(format!("  {}", mode_name(interface.mode)), theme.dim())),
        None => what.push(Span::styled("  not counted", theme.warn())),
    }
    let mut lines = vec![Line::from(what)];
    if let Some(counts) = &interface.counts {
        let rates = rates.map(|rates| [rates[0], rates[1]]);
        let text =
            |at: usize| rates.map_or("-".to_owned(), |rates| format!("{}/s", rate(rates[at], state.unit)));
        let all = |bytes: u64| volume(bytes as f64, state.unit);
        lines.push(Line::from(vec![
            Span::styled(format!("  rx {:<12}", text(0)), theme.receive()),
            Span::styled(format!("tx {:<12}", text(1)), theme.transmit()),
            Span::styled(
                format!(
                    "all: rx {}, tx {}",
                    all(counts.receive.total().bytes),
                    all(counts.transmit.total().bytes)
                ),
                theme.dim(),
            ),
        ]));
    }
    if let Some(link) = &interface.link {
        let of = |what: &str, receive: u64, transmit: u64, lately: u64| -> Option<Line<'static>> {
            (receive + transmit > 0).then(|| {
                let style: Style = if lately > 0 { theme.bad() } else { theme.dim() };
                let rose = if lately > 0 { format!(" (+{lately})") } else { String::new() };
                Line::from(Span::styled(format!("  device {what}: rx {receive}, tx {transmit}{rose}"), style))
            })
        };
        lines.extend(of("drops", link.drops.receive, link.drops.transmit, device[0]));
        lines.extend(of("errors", link.errors.receive, link.errors.transmit, device[1]));
    }
    lines
}

/// Its reasons, each with what it means and what to look at.
fn drops(row: &Row, state: &State, theme: &Theme) -> Vec<Line<'static>> {
    let Some(reasons) = state.model.reasons(row.key).or_else(|| others(row, state)) else {
        return vec![Line::from(Span::styled(
            "not counted: an agent counts drops of what it watches; netns-monitor doctor says what is missing",
            theme.dim(),
        ))];
    };
    if reasons.is_empty() {
        return vec![Line::from(Span::styled("nothing was dropped since counting began", theme.good()))];
    }
    let mut lines = Vec::new();
    for reason in &reasons {
        lines.extend(one_reason(reason, state, theme));
    }
    let missed =
        state.model.moment.as_ref().and_then(|moment| moment.drops.as_ref()).map_or(0, |drops| drops.missed);
    if missed > 0 {
        let text =
            format!("the kernel did not show {missed} drops of the whole host: the program was at work");
        lines.push(Line::from(Span::styled(text, theme.dim())));
    }
    lines
}

fn one_reason(reason: &Reason, state: &State, theme: &Theme) -> Vec<Line<'static>> {
    let loss = is_loss(&reason.name);
    let style = match (loss, reason.lately > 0) {
        (true, true) => theme.bad(),
        (true, false) => theme.warn(),
        (false, _) => theme.dim(),
    };
    let mut first = vec![Span::styled(reason.name.clone(), style)];
    if !loss {
        first.push(Span::styled(" (usual)", theme.dim()));
    }
    if reason.lately > 0 {
        let per = reason.rate.map_or(String::new(), |rate| format!(", {}/s", count(rate)));
        first.push(Span::raw(format!("  +{} in {}{per}", reason.lately, age(state.model.lately()))));
    }
    first.push(Span::styled(format!("  {} in all", reason.total), theme.dim()));
    if let Some(symbols) = &state.symbols {
        let mut places: Vec<(&str, u64)> = Vec::new();
        for (at, count) in &reason.places {
            let function = symbols.function(*at).unwrap_or("elsewhere");
            match places.iter_mut().find(|(name, _)| *name == function) {
                Some((_, sum)) => *sum += count,
                None => places.push((function, *count)),
            }
        }
        let places = places.iter().take(3).map(|(name, count)| format!("{name} {count}"));
        let places: Vec<_> = places.collect();
        if !places.is_empty() {
            first.push(Span::styled(format!("  in {}", places.join(", ")), theme.dim()));
        }
    }
    let mut lines = vec![Line::from(first)];
    match plain(&reason.name) {
        Some(plain) => {
            lines.push(Line::from(format!("  {}", plain.says)));
            lines.push(Line::from(vec![
                Span::styled("  look: ", theme.key()),
                Span::styled(plain.look.to_owned(), theme.dim()),
            ]));
        }
        None => lines.push(Line::from("  The kernel's own name; nothing is known of it here.")),
    }
    lines
}

/// Reasons of what belongs to no namespace, of which no more than the sum is known.
fn others(row: &Row, state: &State) -> Option<Vec<Reason>> {
    if !row.special || row.label == HOST {
        return None;
    }
    let drops = state.model.moment.as_ref()?.drops.as_ref()?;
    let reason = |(name, total): (&String, &u64)| Reason {
        name: name.clone(),
        rate: None,
        lately: 0,
        total: *total,
        places: Vec::new(),
    };
    let mut reasons: Vec<_> = drops.other.iter().filter(|(_, total)| **total > 0).map(reason).collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse((is_loss(&reason.name), reason.total)));
    Some(reasons)
}

fn tcp_lines(row: &Row, state: &State, theme: &Theme) -> Vec<Line<'static>> {
    let Some([before, now]) = state.model.tcp(row.key) else {
        let text = "not counted: an agent counts what TCP meets with in what it watches";
        return vec![Line::from(Span::styled(text, theme.dim()))];
    };
    let mut lines = Vec::new();
    for line in tcp::lines(&before, &now) {
        let (what, means) = line.split_once(": ").unwrap_or((&line, ""));
        let style = if what.contains("(+") { theme.bad() } else { Style::new() };
        lines.push(Line::from(vec![
            Span::styled(what.to_owned(), style),
            Span::styled(format!(": {means}"), theme.dim()),
        ]));
    }
    if lines.is_empty() {
        lines.push(Line::from(Span::styled("nothing went wrong since counting began", theme.good())));
    }
    lines.extend(opened(row, &now).into_iter().map(|line| Line::from(Span::styled(line, theme.dim()))));
    lines
}

/// What went well.
fn opened(row: &Row, now: &TcpCounts) -> Vec<String> {
    let [client, server] = now.opened;
    let established = row.tcp.as_ref().and_then(|tcp| tcp.established);
    let established =
        established.map_or(String::new(), |established| format!(", {established} established now"));
    let mut lines =
        vec![format!("{} connections opened, {client} of them by itself{established}", client + server)];
    let lately = row.tcp.as_ref().and_then(|tcp| tcp.rtt);
    let lately = lately.map_or(String::new(), |mean| format!("; lately {} in the mean", seconds(mean)));
    for (what, times, lately) in
        [("round trips", &now.rtt, lately.as_str()), ("handshakes as a client", &now.handshakes[0], "")]
    {
        if let Some((half, most)) = quantiles(times) {
            lines.push(format!("{what}: half under {half}, 95 % under {most}{lately}"));
        }
    }
    lines
}

/// Bounds that half and 95 of 100 are under; absent where nothing was timed, or too much was beyond the last bound.
fn quantiles(times: &Times) -> Option<(String, String)> {
    let all: u64 = times.buckets.iter().sum();
    let under = |part: f64| {
        let mut sum = 0;
        let mut bounds = times.buckets.iter().zip(TIME_BOUNDS);
        let (_, bound) = bounds.find(|(count, _)| {
            sum += **count;
            sum as f64 >= part * all as f64
        })?;
        Some(seconds(Duration::from_micros(bound.into()).as_secs_f64()))
    };
    (all > 0).then(|| Some((under(0.5)?, under(0.95)?)))?
}
