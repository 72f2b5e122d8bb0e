//! The keys, and what the columns of the tab mean.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use super::draw_scrolled;
use crate::cli::top::{input::KEYS, state::State, theme::Theme};

pub(super) fn draw(buffer: &mut Buffer, area: Rect, state: &mut State, theme: &Theme) {
    let row = |key: &str, says: &str| {
        Line::from(vec![Span::styled(format!("{key:<10} "), theme.key()), Span::raw(says.to_owned())])
    };
    let mut lines: Vec<Line<'_>> = KEYS.iter().map(|(key, says)| row(key, says)).collect();
    let columns = state.tab.columns().iter().filter(|column| !column.title().is_empty());
    let columns: Vec<_> = columns.map(|column| (column.title(), column.says())).collect();
    if !columns.is_empty() {
        lines.push(Line::default());
        lines.push(Line::from(Span::styled("columns (some need a wider screen)", theme.title())));
        lines.extend(columns.into_iter().map(|(title, says)| row(title, says)));
    }
    lines.push(Line::default());
    for (sign, says) in [
        (theme.mark(true), "something goes wrong: somebody waits for it"),
        (theme.mark(false), "a hint: it may be meant so"),
    ] {
        lines.push(row(sign, says));
    }
    let title = Line::from(Span::styled(" help ", theme.title()));
    state.scroll = draw_scrolled(buffer, area, theme, title, lines, state.scroll);
}
