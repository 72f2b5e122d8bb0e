//! Graphs of what is received and sent: of the namespace one is at, and of all.

use std::collections::VecDeque;

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
};

use super::{bottom_right, graph, panel};
use crate::cli::top::{
    model::SERIES,
    numbers::{ceiling, middle, rate},
    state::State,
    theme::Theme,
};

pub(super) fn draw(buffer: &mut Buffer, area: Rect, state: &State, theme: &Theme) {
    let rows = state.rows();
    let current = state.current(&rows).map(|row| (row.key, row.label.as_str()));
    match (current, area.width >= 120) {
        (Some((key, label)), true) => {
            let [left, right] =
                Layout::horizontal([Constraint::Percentage(40), Constraint::Percentage(60)]).areas(area);
            one(buffer, left, "all namespaces", None, state, theme);
            one(buffer, right, label, Some(key), state, theme);
        }
        (Some((key, label)), false) => one(buffer, area, label, Some(key), state, theme),
        (None, _) => one(buffer, area, "all namespaces", None, state, theme),
    }
}

/// Of one namespace, or of all.
pub(super) fn one(
    buffer: &mut Buffer,
    area: Rect,
    name: &str,
    key: Option<u64>,
    state: &State,
    theme: &Theme,
) {
    let nothing = VecDeque::new();
    let history = state.model.history(key).unwrap_or(&nothing);
    let inside_width = usize::from(area.width.saturating_sub(2));
    let shown = history.len().saturating_sub(2 * inside_width);
    let values: Vec<(f32, f32)> = history.iter().skip(shown).map(|at| (at[0], at[1])).collect();
    let most = |of: fn(&(f32, f32)) -> f32| {
        let most = values.iter().map(of).filter(|value| value.is_finite()).fold(0.0, f32::max);
        ceiling(f64::from(most))
    };
    let most = [most(|value| value.0), most(|value| value.1)];
    let now = |at: usize| -> String {
        let last: Option<&[f32; SERIES]> = history.back();
        last.map(|last| last[at])
            .filter(|value| value.is_finite())
            .map_or("-".to_owned(), |value| format!("{}/s", rate(f64::from(value), state.unit)))
    };
    let room = inside_width.saturating_sub(40);
    let title = Line::from(vec![
        Span::styled(format!(" {} ", middle(name, room.max(8))), theme.title()),
        Span::styled(format!(" rx {} ", now(0)), theme.receive()),
        Span::styled(format!(" tx {} ", now(1)), theme.transmit()),
    ]);
    let inside = panel(buffer, area, theme, title);
    graph::mirrored(buffer, inside, theme, &values, most, [theme.receive(), theme.transmit()]);
    let [up, down] = most.map(|most| rate(most, state.unit));
    if usize::from(area.width) >= 60 {
        let top = Rect { height: 1, ..area };
        bottom_right(buffer, top, &format!(" to {up}/s "), theme.dim());
    }
    bottom_right(buffer, area, &format!(" to {down}/s "), theme.dim());
    let span = state.interval.as_secs_f64() * (2 * inside_width) as f64;
    let text = format!(" {} ", super::age(std::time::Duration::from_secs_f64(span)));
    if area.width >= 60 {
        buffer.set_string(area.x + 2, area.bottom() - 1, text, theme.dim());
    }
}
