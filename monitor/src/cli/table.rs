//! Tables and numbers as a person reads them.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A plain table in the manner of `ip -br`: no rules, columns two spaces apart. Columns from `first_number` on are
/// numbers and aligned right.
pub(super) fn table(
    header: &[&str],
    first_number: usize,
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index >= first_number {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    if text.is_empty() {
        text.push('\n');
    }
    text
}

/// A rate or size with a decimal prefix: `1.5 k`, `12 M`.
pub(super) fn short(value: f64) -> String {
    const PREFIXES: [&str; 5] = ["", "k", "M", "G", "T"];
    let mut value = value;
    let mut prefix = 0;
    while value >= 1000.0 && prefix + 1 < PREFIXES.len() {
        value /= 1000.0;
        prefix += 1;
    }
    let digits = usize::from(value < 10.0);
    let number = format!("{value:.digits$}");
    let number = number.strip_suffix(".0").unwrap_or(&number);
    match PREFIXES[prefix] {
        "" => number.to_owned(),
        letter => format!("{number} {letter}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_get_the_prefix_that_leaves_at_most_three_digits() {
        let shown = [0.0, 2.5, 999.0, 1000.0, 1540.0, 12_000_000.0].map(short);
        assert_eq!(shown, ["0", "2.5", "999", "1 k", "1.5 k", "12 M"]);
    }

    #[test]
    fn a_table_has_no_trailing_spaces_and_aligns_numbers_right() {
        let text = table(&["NAME", "N"], 1, [vec!["a".into(), "1".into()], vec!["bc".into(), "22".into()]]);
        assert_eq!(text, "NAME   N\na      1\nbc    22\n");
    }
}
