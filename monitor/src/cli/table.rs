//! Tables and numbers as a person reads them.
//!
//! A table is as wide as it is where nobody looks at it (a pipe, a file). On a terminal that is too narrow the columns that say
//! least go first, each by its turn, and a line says which; what is still too wide is wrapped in those columns that are text.

use std::io::IsTerminal as _;

use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width, presets};

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    name: &'static str,
    number: bool,
    wraps: bool,
    state: bool,
    /// Where there is no room the lowest goes first; 0 stays.
    turn: u8,
}

/// A column of words.
pub(super) const fn text(name: &'static str) -> Column {
    Column { name, number: false, wraps: false, state: false, turn: 0 }
}

/// A column of numbers, aligned right.
pub(super) const fn number(name: &'static str) -> Column {
    Column { number: true, ..text(name) }
}

/// A column of states, which have colours.
pub(super) const fn state(name: &'static str) -> Column {
    Column { state: true, ..text(name) }
}

impl Column {
    /// One that is left out where there is no room, in this turn.
    pub(super) const fn goes(self, turn: u8) -> Self {
        Self { turn, ..self }
    }

    /// One whose text may go over several lines.
    pub(super) const fn wraps(self) -> Self {
        Self { wraps: true, ..self }
    }
}

/// What text is printed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Screen {
    /// In columns; absent where there is no end.
    pub(super) width: Option<u16>,
    /// In lines.
    pub(super) height: Option<u16>,
    /// Whether there are colours.
    pub(super) colour: bool,
}

impl Screen {
    /// Standard output as it is now.
    pub(super) fn stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let size = terminal_size::terminal_size_of(std::io::stdout()).filter(|_| terminal);
        Self {
            width: size.map(|(width, _)| width.0),
            height: size.map(|(_, height)| height.0),
            colour: colour(set, terminal),
        }
    }

    /// A state with its colour.
    pub(super) fn paint(self, word: &str) -> String {
        let code = match state_colour(word).filter(|_| self.colour) {
            Some(Color::Red) => 31,
            Some(Color::Yellow) => 33,
            Some(_) => 32,
            None => return word.to_owned(),
        };
        format!("\x1b[{code}m{word}\x1b[0m")
    }
}

/// NO_COLOR is never overruled; CLICOLOR_FORCE makes what is no terminal one with colours.
fn colour(set: impl Fn(&str) -> Option<String>, terminal: bool) -> bool {
    match (set("NO_COLOR"), set("CLICOLOR_FORCE")) {
        (Some(_), _) => false,
        (None, Some(force)) if force != "0" => true,
        _ => terminal && set("TERM").is_none_or(|term| term != "dumb"),
    }
}

fn state_colour(word: &str) -> Option<Color> {
    match word {
        "up" | "ok" => Some(Color::Green),
        "down" | "DOWN" | "failed" | "FAILED" | "MISSING" => Some(Color::Red),
        "detached" | "absent" => Some(Color::Yellow),
        _ => None,
    }
}

/// A plain table in the manner of `ip -br`: no rules, columns two spaces apart, fitted to where it is printed.
pub(super) fn fitted(
    columns: &[Column],
    rows: impl IntoIterator<Item = Vec<String>>,
    screen: Screen,
) -> String {
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    let mut whole = Table::new();
    whole.set_header(columns.iter().map(|column| column.name)).add_rows(rows.clone());
    // Empty columns have no width of their own.
    let widths = whole.column_max_content_widths();
    let width = |at: usize| usize::from(widths.get(at).copied().unwrap_or_default());
    let room = screen.width.map_or(usize::MAX, usize::from);
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let mut gone = Vec::new();
    while needed(&kept, &width) > room {
        let next = kept.iter().copied().filter(|at| columns[*at].turn > 0);
        let Some(next) = next.min_by_key(|at| (columns[*at].turn, *at)) else { break };
        kept.retain(|at| *at != next);
        gone.push(next);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    match screen.colour {
        true => table.enforce_styling(),
        false => table.force_no_tty(),
    };
    table.set_header(kept.iter().map(|at| columns[*at].name));
    for row in &rows {
        table.add_row(kept.iter().map(|at| {
            let content = row.get(*at).map_or("", String::as_str);
            let cell = Cell::new(content);
            match state_colour(content).filter(|_| columns[*at].state && screen.colour) {
                Some(colour) => cell.fg(colour),
                None => cell,
            }
        }));
    }
    let too_wide = needed(&kept, &width) > room;
    let wrapped: Vec<usize> = kept.iter().copied().filter(|at| columns[*at].wraps).collect();
    // What the others leave, shared out: none gets more than it needs.
    let mut left = room.saturating_sub(needed(&kept, &|at| if columns[at].wraps { 0 } else { width(at) }));
    let mut shares: Vec<(usize, usize)> = wrapped.iter().map(|at| (width(*at), *at)).collect();
    shares.sort();
    let mut of = vec![0; columns.len()];
    for (number, (wide, at)) in shares.iter().enumerate() {
        of[*at] = (*wide).min(left / (shares.len() - number)).max(8);
        left = left.saturating_sub(of[*at]);
    }
    if too_wide && !wrapped.is_empty() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(u16::MAX);
    }
    let last = kept.len().saturating_sub(1);
    for (place, (column, at)) in table.column_iter_mut().zip(&kept).enumerate() {
        column.set_padding((0, if place == last { 0 } else { 2 }));
        if columns[*at].number {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if too_wide && columns[*at].wraps {
            let width = u16::try_from(of[*at]).unwrap_or(u16::MAX);
            column.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(width)));
        }
    }
    let mut text: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    if text.is_empty() {
        text.push('\n');
    }
    if !gone.is_empty() {
        gone.sort_unstable();
        let names: Vec<&str> = gone.iter().map(|at| columns[*at].name).collect();
        text.push_str(&format!("(no room for {})\n", names.join(", ")));
    }
    text
}

fn needed(kept: &[usize], width: &dyn Fn(usize) -> usize) -> usize {
    kept.iter().map(|at| width(*at) + 2).sum::<usize>().saturating_sub(2)
}

/// The same without an end to its width. Columns from `first_number` on are numbers and aligned right.
pub(super) fn table(
    header: &[&'static str],
    first_number: usize,
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let column =
        |(at, name): (usize, &&'static str)| if at >= first_number { number(name) } else { text(name) };
    let columns: Vec<Column> = header.iter().enumerate().map(column).collect();
    fitted(&columns, rows, Screen::default())
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

    const COLUMNS: [Column; 5] = [
        text("NETNS"),
        state("STATE").goes(3),
        number("MTU").goes(1),
        text("KIND").goes(2),
        text("ADDRESSES").wraps(),
    ];

    fn example(width: Option<u16>, colour: bool) -> String {
        let rows = [
            ["blue", "up", "1500", "veth", "198.51.100.2/24 2001:db8:100::2/64"],
            ["red", "down", "1400", "macvlan", "-"],
        ];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        fitted(&COLUMNS, rows, Screen { width, height: None, colour })
    }

    #[test]
    fn without_an_end_and_where_there_is_room_nothing_is_left_out() {
        let whole = "NETNS  STATE   MTU  KIND     ADDRESSES\n\
                     blue   up     1500  veth     198.51.100.2/24 2001:db8:100::2/64\n\
                     red    down   1400  macvlan  -\n";
        assert_eq!(example(None, false), whole);
        assert_eq!(example(Some(63), false), whole);
    }

    #[test]
    fn what_says_least_goes_first_and_is_named_then_text_is_wrapped() {
        assert_eq!(
            example(Some(62), false),
            "NETNS  STATE  KIND     ADDRESSES\n\
             blue   up     veth     198.51.100.2/24 2001:db8:100::2/64\n\
             red    down   macvlan  -\n(no room for MTU)\n"
        );
        assert_eq!(
            example(Some(30), false),
            "NETNS  ADDRESSES\nblue   198.51.100.2/24\n       2001:db8:100::2/64\nred    -\n(no room for STATE, MTU, KIND)\n"
        );
        for width in 1..80 {
            let text = example(Some(width), false);
            let table = text.lines().filter(|line| !line.starts_with('('));
            let widest = table.map(|line| line.chars().count()).max().unwrap_or_default();
            assert!(widest <= usize::from(width).max(15), "{width}:\n{text}");
        }
    }

    #[test]
    fn only_states_have_colours_and_only_where_there_are_any() {
        let coloured = example(None, true);
        assert_eq!(coloured.matches("\x1b[38;5;").count(), 2, "{coloured:?}");
        let mut plain = coloured;
        for code in ["\x1b[38;5;10m", "\x1b[38;5;9m", "\x1b[39m", "\x1b[0m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, example(None, false));
        let screen = Screen { colour: true, ..Screen::default() };
        assert_eq!(
            (screen.paint("detached"), screen.paint("named")),
            ("\x1b[33mdetached\x1b[0m".into(), "named".into())
        );
        assert_eq!(Screen::default().paint("down"), "down");
    }

    #[test]
    fn who_wants_no_colour_gets_none_and_who_wants_it_everywhere_does() {
        let of = |pairs: &[(&str, &str)], terminal| {
            colour(
                |name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
                terminal,
            )
        };
        assert!(of(&[], true) && !of(&[], false));
        assert!(!of(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], true));
        assert!(of(&[("CLICOLOR_FORCE", "1")], false) && !of(&[("CLICOLOR_FORCE", "0")], false));
        assert!(!of(&[("TERM", "dumb")], true) && of(&[("TERM", "xterm")], true));
    }

    #[test]
    fn a_table_has_no_trailing_spaces_and_aligns_numbers_right() {
        let text = table(&["NAME", "N"], 1, [vec!["a".into(), "1".into()], vec!["bc".into(), "22".into()]]);
        assert_eq!(text, "NAME   N\na      1\nbc    22\n");
    }
}
