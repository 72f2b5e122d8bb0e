//! Long lines broken at words, what follows two further in than the line began. Pure.

use ratatui::text::{Line, Span};

/// The lines that one becomes at this width.
pub(super) fn wrap(line: Line<'_>, width: usize) -> Vec<Line<'_>> {
    if line.width() <= width || width < 8 {
        return vec![line];
    }
    let text: String = line.iter().map(|span| span.content.as_ref()).collect();
    let indent = text.chars().take_while(|char| *char == ' ').count() + 2;
    let indent = if indent * 2 < width { indent } else { 0 };
    let (mut lines, mut now, mut used) = (Vec::new(), Vec::<Span<'_>>::new(), 0);
    for span in &line.spans {
        // Each word with the spaces behind it.
        for word in span.content.split_inclusive(' ') {
            let bare = Span::raw(word.trim_end()).width();
            if used + bare > width && !now.is_empty() {
                lines.push(Line::from(std::mem::take(&mut now)));
                now.push(Span::raw(" ".repeat(indent)));
                used = indent;
            }
            let word = Span::styled(word.to_owned(), span.style);
            used += word.width();
            now.push(word);
        }
    }
    lines.push(Line::from(now));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_words_and_styles_stay_with_theirs() {
        let line = Line::from(vec![Span::raw("  one two "), Span::raw("three four")]);
        let lines: Vec<String> =
            wrap(line, 12).iter().map(|line| line.to_string().trim_end().to_owned()).collect();
        assert_eq!(lines, ["  one two", "    three", "    four"]);
        assert_eq!(wrap(Line::from("short"), 12).len(), 1);
        // A word that fits nowhere has a line of its own.
        assert_eq!(wrap(Line::from("a verylongwordindeed b"), 10).len(), 3);
    }
}
