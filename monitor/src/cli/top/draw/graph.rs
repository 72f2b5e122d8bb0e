//! Graphs in braille: two readings in each column, four steps in each row. What is received goes up, what is sent down.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use crate::cli::top::theme::Theme;

/// Draws both halves of a mirrored graph; each ends at its own `most`. The newest reading is at the right.
pub(super) fn mirrored(
    buffer: &mut Buffer,
    area: Rect,
    theme: &Theme,
    values: &[(f32, f32)],
    most: [f64; 2],
    styles: [Style; 2],
) {
    let upper = area.height.div_ceil(2);
    let (up, down) =
        (Rect { height: upper, ..area }, Rect { y: area.y + upper, height: area.height - upper, ..area });
    let one = |at: fn(&(f32, f32)) -> f32| values.iter().map(at).collect::<Vec<f32>>();
    half(buffer, up, theme, &one(|value| value.0), most[0], styles[0], true);
    half(buffer, down, theme, &one(|value| value.1), most[1], styles[1], false);
}

/// One half, from its base upwards or downwards.
pub(super) fn half(
    buffer: &mut Buffer,
    area: Rect,
    theme: &Theme,
    values: &[f32],
    most: f64,
    style: Style,
    upwards: bool,
) {
    if area.is_empty() {
        return;
    }
    let rows = usize::from(area.height);
    let steps = rows * 4;
    let height = |back: usize| -> usize {
        let value = values.len().checked_sub(back + 1).map_or(f32::NAN, |at| values[at]);
        if value.is_nan() || value <= 0.0 {
            return 0;
        }
        // What is there at all is seen.
        ((f64::from(value) / most * steps as f64).round() as usize).clamp(1, steps)
    };
    for column in 0..area.width {
        let back = 2 * usize::from(area.width - 1 - column);
        let (left, right) = (height(back + 1), height(back));
        for row in 0..rows {
            let filled = |height: usize| height.saturating_sub(4 * row).min(4);
            let (left, right) = (filled(left), filled(right));
            if left + right == 0 {
                continue;
            }
            let y = if upwards { area.bottom() - 1 - row as u16 } else { area.y + row as u16 };
            let style = theme.slope(style, (row + 1) as f64 / rows as f64);
            let text = if theme.unicode { braille(left, right, upwards) } else { ascii(left.max(right)) };
            buffer[(area.x + column, y)].set_char(text).set_style(style);
        }
    }
}

/// So many dots of each side, from the base.
fn braille(left: usize, right: usize, upwards: bool) -> char {
    // The dots of a cell from the top: 1 2 3 7 and 4 5 6 8.
    const LEFT: [u32; 4] = [0x01, 0x02, 0x04, 0x40];
    const RIGHT: [u32; 4] = [0x08, 0x10, 0x20, 0x80];
    let dots = |side: [u32; 4], count: usize| -> u32 {
        let from = if upwards { 4 - count } else { 0 };
        side[from..from + count].iter().sum()
    };
    char::from_u32(0x2800 + dots(LEFT, left) + dots(RIGHT, right)).unwrap_or(' ')
}

fn ascii(dots: usize) -> char {
    [' ', '.', '.', ':', '#'][dots.min(4)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::theme::Depth;

    fn drawn(values: &[(f32, f32)], unicode: bool) -> Vec<String> {
        let area = Rect::new(0, 0, 3, 4);
        let mut buffer = Buffer::empty(area);
        let theme = Theme { depth: Depth::Mono, unicode };
        mirrored(&mut buffer, area, &theme, values, [8.0, 8.0], [Style::new(); 2]);
        let row = |y| (0..3).map(|x| buffer[(x, y)].symbol().to_owned()).collect();
        (0..4).map(row).collect()
    }

    #[test]
    fn a_mirrored_graph_has_its_newest_reading_at_the_right_and_shows_the_least() {
        // Eight steps each way: full, half, one thousandth; and not known.
        let values = [(8.0, 0.0), (4.0, 8.0), (0.001, 4.0), (f32::NAN, 8.0)];
        assert_eq!(drawn(&values, true), [" ⡇ ", " ⣿⡀", " ⢸⣿", " ⢸⢸"]);
        assert_eq!(drawn(&values, false), [" # ", " #.", " ##", " ##"]);
        assert_eq!(drawn(&[], true), ["   "; 4]);
    }
}
