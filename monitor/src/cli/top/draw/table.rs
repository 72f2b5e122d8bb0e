//! The table of namespaces.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Modifier, Style},
    text::{Line, Span},
};

use super::{bottom_right, graph, panel, put};
use crate::{
    cli::top::{
        columns::{Column, Sort, Tab, Tone},
        input::Action,
        model::{LOST, Row, TCP, is_loss},
        numbers::{cut, middle},
        state::State,
        theme::Theme,
        trouble::From,
    },
    explain::drops::plain,
};

/// A column and where it begins.
struct Placed {
    column: Column,
    x: u16,
    width: u16,
}

pub(super) fn draw(buffer: &mut Buffer, area: Rect, state: &mut State, theme: &Theme) {
    let sort = state.sort();
    let inside = panel(buffer, area, theme, Line::default());
    let [head, body] = [
        Rect { height: 1, ..inside },
        Rect { y: inside.y + 1, height: inside.height.saturating_sub(1), ..inside },
    ];
    let page = usize::from(body.height);
    let rows = state.rows();
    let current = state.current(&rows).map(|row| row.key);
    let longest = rows.iter().map(|row| row.label.chars().count()).max().unwrap_or(0) as u16;
    let all = rows.len();
    let at = rows.iter().position(|row| Some(row.key) == current).unwrap_or(0);
    let first = state.first.min(all.saturating_sub(page)).min(at).max((at + 1).saturating_sub(page));
    let shown: Vec<Row> = rows.into_iter().skip(first).take(page).cloned().collect();
    (state.page, state.first) = (page, first);
    let placed = place(&state.columns(area.width), inside, longest);
    draw_head(buffer, head, &placed, sort, state, theme);
    for (row, line) in shown.iter().zip(body.rows()) {
        let is_current = Some(row.key) == current;
        draw_row(buffer, line, &placed, row, state, theme);
        if is_current {
            // In 24 bits the colours stay on the bar; where it is reversed they would be the bar.
            let style = theme.selected();
            let reversed = style.add_modifier.contains(Modifier::REVERSED);
            for x in line.left()..line.right() {
                let cell = &mut buffer[(x, line.y)];
                if reversed {
                    cell.set_style(Style::reset());
                }
                cell.set_style(style);
            }
        }
        state.hits.push((line, Action::Select(row.key)));
    }
    if all == 0 {
        let text = if state.search.is_empty() { "none" } else { "nothing has such a name" };
        put(
            buffer,
            Rect { height: body.height.min(1), ..body },
            &Line::from(Span::styled(format!(" {text}"), theme.dim())),
        );
    }
    if all > page {
        let end = (first + page).min(all);
        bottom_right(buffer, area, &format!(" {}-{end} of {all} ", first + 1), theme.dim());
    }
}

/// Where each column is: those of numbers as wide as they are, names as wide as the longest, the last takes the rest.
fn place(columns: &[Column], area: Rect, longest: u16) -> Vec<Placed> {
    let shape = if area.width >= 150 { 20 } else { 10 };
    let most = match area.width {
        ..90 => 16,
        90..140 => 24,
        _ => 40,
    };
    let name = longest.clamp(8, most) + 2;
    let mut x = area.x;
    let mut placed = Vec::new();
    for &column in columns {
        let width = match column.width(shape, name) {
            0 => area.right().saturating_sub(x),
            width => width.min(area.right().saturating_sub(x)),
        };
        placed.push(Placed { column, x, width });
        x += width + 1;
    }
    placed
}

fn draw_head(
    buffer: &mut Buffer,
    area: Rect,
    placed: &[Placed],
    sort: Sort,
    state: &mut State,
    theme: &Theme,
) {
    for Placed { column, x, width } in placed {
        let is_sorted = *column == sort.by;
        let mut title = column.title().to_owned();
        if is_sorted {
            title.push_str(theme.arrow(sort.falling));
        }
        let style = if is_sorted { theme.key() } else { theme.dim().add_modifier(Modifier::BOLD) };
        let begin = if *column == Column::Name { x + 2 } else { *x };
        let text =
            if column.is_text() { title } else { format!("{title:>width$}", width = usize::from(*width)) };
        buffer.set_stringn(begin, area.y, text, usize::from(area.right().saturating_sub(begin)), style);
        if *column != Column::Shape {
            state.hits.push((Rect { x: *x, y: area.y, width: *width, height: 1 }, Action::SortBy(*column)));
        }
    }
}

fn draw_row(buffer: &mut Buffer, area: Rect, placed: &[Placed], row: &Row, state: &State, theme: &Theme) {
    for Placed { column, x, width } in placed {
        let place = Rect { x: *x, y: area.y, width: *width, height: 1 };
        let room = usize::from(*width);
        match column {
            Column::Name => {
                let line =
                    Line::from(vec![mark(row, theme), Span::raw(middle(&row.label, room.saturating_sub(2)))]);
                buffer.set_line(place.x, place.y, &line, place.width);
            }
            Column::Shape => draw_shape(buffer, place, row, state, theme),
            Column::Trouble => {
                buffer.set_line(place.x, place.y, &trouble(row, room, state.tab, theme), place.width);
            }
            Column::Reason => {
                buffer.set_line(place.x, place.y, &reason(row, room, theme), place.width);
            }
            column => {
                let (text, tone) = column.cell(row, state.unit);
                buffer.set_stringn(place.x, place.y, format!("{text:>room$}"), room, theme.tone(tone));
            }
        }
    }
}

fn mark(row: &Row, theme: &Theme) -> Span<'static> {
    match row.troubles.first() {
        Some(trouble) if trouble.bad => Span::styled(format!("{} ", theme.mark(true)), theme.bad()),
        Some(_) => Span::styled(format!("{} ", theme.mark(false)), theme.warn()),
        None => Span::raw("  "),
    }
}

/// The worst, how many more there are, and what it means as far as there is place.
fn trouble(row: &Row, room: usize, tab: Tab, theme: &Theme) -> Line<'static> {
    // In the tab of TCP what TCP told.
    let here = row.troubles.iter().find(|trouble| tab == Tab::Tcp && trouble.from == From::Tcp);
    let Some(first) = here.or(row.troubles.first()) else { return Line::default() };
    let more = match row.troubles.len() {
        1 => String::new(),
        more => format!(" +{}", more - 1),
    };
    let style = theme.tone(if first.bad { Tone::Bad } else { Tone::Warn });
    let what = cut(&first.what, room.saturating_sub(more.len()));
    let used = what.chars().count() + more.len();
    let mut spans = vec![Span::styled(what, style), Span::styled(more, theme.dim())];
    if room > used + 12 {
        spans.push(Span::styled(format!("  {}", cut(first.means, room - used - 2)), theme.dim()));
    }
    Line::from(spans)
}

fn reason(row: &Row, room: usize, theme: &Theme) -> Line<'static> {
    let name = row.drops.as_ref().and_then(|drops| drops.first.clone());
    let Some(name) = name else { return Line::from(Span::styled("-", theme.dim())) };
    let says = plain(&name).map_or("", |plain| plain.says);
    let style = if is_loss(&name) { theme.warn() } else { theme.dim() };
    let name = cut(&name, room);
    let left = room.saturating_sub(name.chars().count() + 2);
    let says = if left > 12 { format!("  {}", cut(says, left)) } else { String::new() };
    Line::from(vec![Span::styled(name, style), Span::styled(says, theme.dim())])
}

fn draw_shape(buffer: &mut Buffer, place: Rect, row: &Row, state: &State, theme: &Theme) {
    let Some(history) = state.model.history(Some(row.key)) else { return };
    let values: Vec<f32> = history
        .iter()
        .map(|at| match state.tab {
            Tab::Drops => at[LOST],
            Tab::Tcp => at[TCP],
            _ => at[0] + at[1],
        })
        .collect();
    let style = match state.tab {
        Tab::Drops => theme.bad(),
        Tab::Tcp => theme.warn(),
        _ => theme.receive(),
    };
    let shown = values.len().saturating_sub(2 * usize::from(place.width));
    let most = values[shown..].iter().copied().filter(|value| value.is_finite()).fold(0.0, f32::max);
    graph::half(buffer, place, theme, &values, f64::from(most).max(1.0), style, true);
}
