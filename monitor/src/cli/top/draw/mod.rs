//! The state as one frame. Pure, but that it notes in the state what was drawn where.

mod agent;
mod detail;
mod graph;
mod help;
mod table;
mod traffic;
mod wrap;

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Widget as _, Wrap},
};

use super::{
    columns::Tab,
    input::Action,
    numbers::{age, rate, seconds},
    state::State,
    theme::Theme,
};

/// Least size that anything is drawn at.
const LEAST: (u16, u16) = (40, 10);

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State, theme: &Theme) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    state.hits.clear();
    state.explains = false;
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("{}×{} is too small: {}×{} at least", area.width, area.height, LEAST.0, LEAST.1);
        Paragraph::new(text).wrap(Wrap { trim: true }).render(area, buffer);
        return;
    }
    let [tabs, sums, body, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_tabs(buffer, tabs, state, theme);
    draw_sums(buffer, sums, state, theme);
    if state.help {
        help::draw(buffer, body, state, theme);
    } else if state.model.moment.is_none() {
        draw_text(buffer, body, theme, "", vec![waiting(state, theme)]);
    } else if state.tab == Tab::Agent {
        agent::draw(buffer, body, state, theme);
    } else if is_empty(state) && !state.model.moment.as_ref().is_some_and(|moment| moment.complete) {
        draw_text(buffer, body, theme, "", vec![waiting(state, theme)]);
    } else if is_empty(state) {
        draw_text(buffer, body, theme, " nothing to show yet ", nothing(theme));
    } else if state.detail {
        detail::draw(buffer, body, state, theme);
    } else {
        draw_tab(buffer, body, state, theme);
    }
    draw_keys(buffer, keys, state, theme);
}

/// Whether there is no namespace to be shown.
fn is_empty(state: &State) -> bool {
    state.tab == Tab::Traffic && state.model.rows.iter().all(|row| row.special)
}

/// A table, and beside it what it does not tell.
fn draw_tab(buffer: &mut Buffer, area: Rect, state: &mut State, theme: &Theme) {
    let notes = notes(state);
    let [area, below] = Layout::vertical([
        Constraint::Min(1),
        Constraint::Length(u16::try_from(notes.len()).unwrap_or(0).min(3)),
    ])
    .areas(area);
    for (row, note) in below.rows().zip(&notes) {
        put(buffer, row, &Line::from(vec![Span::styled(" note: ", theme.warn()), Span::raw(note.clone())]));
    }
    match state.tab {
        Tab::Traffic => {
            let height = match area.height {
                ..12 => 0,
                12..30 => 8.min(area.height / 2),
                height => height / 4,
            };
            let [above, rest] =
                Layout::vertical([Constraint::Length(height), Constraint::Min(5)]).areas(area);
            // Where there is place for it, the one that one is at is explained at once.
            let rows = u16::try_from(state.rows().len()).unwrap_or(u16::MAX).saturating_add(3);
            let below = match rest.height {
                ..24 => 0,
                height => height.saturating_sub(rows).max(height / 2),
            };
            let [table, below] =
                Layout::vertical([Constraint::Min(5), Constraint::Length(below)]).areas(rest);
            if height > 0 {
                traffic::draw(buffer, above, state, theme);
            }
            table::draw(buffer, table, state, theme);
            state.explains = below.height > 0;
            let rows = state.rows();
            if let Some(row) = state.current(&rows).filter(|_| below.height > 0).cloned() {
                detail::explain(buffer, below, &row, state, theme, 0);
            }
        }
        _ => {
            let rows = u16::try_from(state.rows().len()).unwrap_or(u16::MAX).saturating_add(3);
            let height = rows.max(6).min(area.height / 2);
            let [table, below] =
                Layout::vertical([Constraint::Length(height), Constraint::Min(3)]).areas(area);
            table::draw(buffer, table, state, theme);
            detail::draw_reasons(buffer, below, state, theme);
        }
    }
}

fn draw_tabs(buffer: &mut Buffer, area: Rect, state: &mut State, theme: &Theme) {
    let mut x = area.x + 1;
    let put_at = |buffer: &mut Buffer, x: u16, text: &str, style: Style| -> u16 {
        buffer.set_stringn(x, area.y, text, usize::from(area.right().saturating_sub(x)), style).0
    };
    if area.width >= 70 {
        x = put_at(buffer, x, "netns-monitor", theme.title()) + 2;
    }
    for (number, (tab, name)) in Tab::ALL.iter().enumerate() {
        let style = if *tab == state.tab { theme.selected() } else { Style::new() };
        let begin = x;
        x = put_at(buffer, x, " ", style);
        let digit = if *tab == state.tab { style } else { theme.key() };
        x = put_at(buffer, x, &(number + 1).to_string(), digit);
        x = put_at(buffer, x, &format!(" {name} "), style);
        state.hits.push((Rect { x: begin, width: x - begin, ..area }, Action::Tab(*tab)));
        x += 1;
    }
    let mut right = Vec::new();
    if state.paused {
        right.push(Span::styled(" PAUSED ", theme.warn().add_modifier(Modifier::REVERSED | Modifier::BOLD)));
        right.push(Span::raw(" "));
    }
    let every = format!("every {} ", short(state.interval));
    right.push(Span::styled(every, theme.dim()));
    let line = Line::from(right);
    let width = u16::try_from(line.width()).unwrap_or(0);
    if x + width < area.right() {
        put(buffer, Rect { x: area.right() - width, width, ..area }, &line);
    }
}

fn short(time: std::time::Duration) -> String {
    match time.as_millis() {
        millis @ ..1000 => format!("{millis} ms"),
        _ => format!("{} s", time.as_secs_f64()),
    }
}

/// What all namespaces together do.
fn draw_sums(buffer: &mut Buffer, area: Rect, state: &State, theme: &Theme) {
    let Some(moment) = &state.model.moment else { return };
    let namespaces = moment.sample.namespaces.len();
    let plural = if namespaces == 1 { "" } else { "s" };
    let mut spans = vec![Span::raw(format!(" {namespaces} namespace{plural}"))];
    if let Some(sum) = state.model.sum() {
        let [receive, transmit] = [sum[0], sum[1]].map(|value| rate(f64::from(value), state.unit));
        spans.push(Span::styled(format!("   rx {receive}/s"), theme.receive()));
        spans.push(Span::styled(format!("   tx {transmit}/s"), theme.transmit()));
    }
    let [bad, any] = state.in_trouble();
    let trouble = match (bad, any) {
        (0, 0) => Span::styled("   no trouble", theme.good()),
        (0, any) => Span::styled(format!("   {any} with a hint"), theme.warn()),
        (bad, _) => Span::styled(format!("   {} {bad} in trouble", theme.mark(true)), theme.bad()),
    };
    spans.push(trouble);
    spans.push(match &moment.agent {
        Some(pid) => Span::styled(format!("   agent {pid}"), theme.dim()),
        None => Span::styled("   no agent runs", theme.warn()),
    });
    if let Some(why) = &state.failed {
        spans.push(Span::styled(format!("   not read: {why}"), theme.bad()));
    } else if state.took > state.interval / 2 {
        let took = seconds(state.took.as_secs_f64());
        spans.push(Span::styled(format!("   a reading takes {took}"), theme.warn()));
    }
    put(buffer, area, &Line::from(spans));
}

fn draw_keys(buffer: &mut Buffer, area: Rect, state: &State, theme: &Theme) {
    if state.searching || !state.search.is_empty() {
        let found = state.rows().len();
        let cursor = if state.searching { "_" } else { "" };
        let mut spans = vec![Span::styled(" /", theme.key()), Span::raw(format!("{}{cursor}", state.search))];
        let hint = if state.searching { "Enter keeps it, Esc drops it" } else { "Esc drops it" };
        spans.push(Span::styled(format!("   {found} found   {hint}"), theme.dim()));
        put(buffer, area, &Line::from(spans));
        return;
    }
    let keys: &[(&str, &str)] = match (state.help, state.detail, state.tab) {
        (true, ..) => &[("↑↓", "scroll"), ("Esc", "back"), ("q", "quit")],
        (_, true, _) => {
            &[("↑↓", "scroll"), ("Esc", "back"), ("1-4", "tab"), ("p", "pause"), ("?", "help"), ("q", "quit")]
        }
        (_, _, Tab::Agent) => {
            &[("m", "measure programs"), ("1-4", "tab"), ("p", "pause"), ("?", "help"), ("q", "quit")]
        }
        _ => &[
            ("?", "help"),
            ("q", "quit"),
            ("Enter", "details"),
            ("/", "search"),
            ("t", "trouble"),
            ("s", "sort"),
            ("p", "pause"),
            ("1-4", "tab"),
            ("u", "units"),
            ("↑↓", "go"),
        ],
    };
    let mut spans: Vec<Span<'_>> = Vec::new();
    for (key, what) in keys {
        let used: usize = spans.iter().map(Span::width).sum();
        if used + key.chars().count() + what.len() + 3 > usize::from(area.width) {
            break;
        }
        let key = if theme.unicode { key } else { &key.replace("↑↓", "j k")[..] };
        spans.push(Span::styled(format!(" {key}"), theme.key()));
        spans.push(Span::styled(format!(" {what} "), theme.dim()));
    }
    put(buffer, area, &Line::from(spans));
}

/// What is said before the first reading came.
fn waiting(state: &State, theme: &Theme) -> Line<'static> {
    match &state.failed {
        Some(why) => Line::from(vec![Span::styled("not read: ", theme.bad()), Span::raw(why.clone())]),
        None => Line::from(Span::styled("reading …", theme.dim())),
    }
}

/// What is said where there is no namespace.
fn nothing(theme: &Theme) -> Vec<Line<'static>> {
    let command =
        |text: &str| Line::from(vec![Span::raw("    "), Span::styled(text.to_owned(), theme.key())]);
    vec![
        Line::from("There is no network namespace on this host beside its own."),
        Line::from(""),
        Line::from("Any one that comes is shown here by itself: a container's, or one made by"),
        command("ip netns add blue"),
        command("netns-monitor run -- COMMAND"),
        command("netns-monitor apply FILE        (netns-monitor config example > FILE)"),
        Line::from(""),
        Line::from("What goes over its interfaces is counted while an agent runs, and on after it:"),
        command("netns-monitor agent"),
    ]
}

/// What one should know of what is shown.
fn notes(state: &State) -> Vec<String> {
    let Some(moment) = &state.model.moment else { return Vec::new() };
    let mut notes = moment.notes.clone();
    let counted = state.model.rows.iter().any(|row| row.total.is_some());
    match (&moment.agent, counted) {
        (None, false) => notes.push(format!(
            "nothing is counted below {} yet: start `netns-monitor agent`, here it shows at once",
            state.bpffs
        )),
        (Some(_), false) if !moment.pinned => notes.push(
            "the agent keeps its counts to itself, there is no bpffs: netns-monitor doctor says what is missing"
                .to_owned(),
        ),
        (Some(_), false) => notes.push("the agent counts nothing yet".to_owned()),
        (None, true) => {
            notes.push("no agent runs: what was counted goes on, new interfaces are not counted".to_owned());
        }
        (Some(_), true) => {}
    }
    notes
}

/// A framed panel; returns what is inside of it.
fn panel(buffer: &mut Buffer, area: Rect, theme: &Theme, title: Line<'_>) -> Rect {
    let block = Block::bordered().border_set(theme.lines()).border_style(theme.border()).title_top(title);
    let inside = block.inner(area);
    block.render(area, buffer);
    inside
}

fn draw_text(buffer: &mut Buffer, area: Rect, theme: &Theme, title: &str, lines: Vec<Line<'_>>) {
    let inside = panel(buffer, area, theme, Line::from(Span::styled(title.to_owned(), theme.title())));
    let inside = Rect { x: inside.x + 1, width: inside.width.saturating_sub(2), ..inside };
    Paragraph::new(lines).wrap(Wrap { trim: false }).render(inside, buffer);
}

/// A text that may be longer than its place: draws it from line `scroll` on, and says where it then is.
fn draw_scrolled(
    buffer: &mut Buffer,
    area: Rect,
    theme: &Theme,
    title: Line<'_>,
    lines: Vec<Line<'_>>,
    scroll: usize,
) -> usize {
    let inside = panel(buffer, area, theme, title);
    let inside = Rect { x: inside.x + 1, width: inside.width.saturating_sub(2), ..inside };
    let lines: Vec<Line<'_>> =
        lines.into_iter().flat_map(|line| wrap::wrap(line, usize::from(inside.width))).collect();
    let all = lines.len();
    let height = usize::from(inside.height);
    let scroll = scroll.min(all.saturating_sub(height));
    for (line, row) in lines.iter().skip(scroll).zip(inside.rows()) {
        buffer.set_line(row.x, row.y, line, row.width);
    }
    if all > height {
        let text = format!(" {}-{} of {all} lines ", scroll + 1, (scroll + height).min(all));
        bottom_right(buffer, area, &text, theme.dim());
    }
    scroll
}

/// Writes into the lower border.
fn bottom_right(buffer: &mut Buffer, area: Rect, text: &str, style: Style) {
    let width = u16::try_from(text.chars().count()).unwrap_or(0);
    if width + 3 < area.width {
        buffer.set_string(area.right() - 2 - width, area.bottom() - 1, text, style);
    }
}

fn put(buffer: &mut Buffer, area: Rect, line: &Line<'_>) {
    Clear.render(area, buffer);
    buffer.set_line(area.x, area.y, line, area.width);
}

/// How long ago, in words.
fn ago(time: std::time::Duration) -> String {
    format!("{} ago", age(time))
}
