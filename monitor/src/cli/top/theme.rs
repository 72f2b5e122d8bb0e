//! Colours and characters, as far as the terminal has them. Pure but for [`Theme::of_terminal`].

use std::env;

use ratatui::{
    style::{Color, Modifier, Style},
    symbols::border,
};

use super::columns::Tone;

/// How many colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// `NO_COLOR`: bold, dim and reversed alone.
    Mono,
    /// The sixteen of every terminal, in its own palette.
    Ansi,
    /// 24 bits.
    Rich,
}

/// How it looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    pub(super) depth: Depth,
    /// Whether it draws braille and box characters.
    pub(super) unicode: bool,
}

impl Theme {
    /// What the environment says of the terminal.
    pub(super) fn of_terminal() -> Self {
        let var = |name: &str| env::var(name).unwrap_or_default();
        let depth = match (var("NO_COLOR").as_str(), var("COLORTERM").as_str(), var("TERM").as_str()) {
            ("", "truecolor" | "24bit", _) => Depth::Rich,
            ("", _, term) if term != "dumb" => Depth::Ansi,
            _ => Depth::Mono,
        };
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(var).into_iter().find(|value| !value.is_empty());
        let locale = locale.unwrap_or_default().to_lowercase();
        // A console of the kernel has no braille. Where no locale is set nothing is known, and most can.
        let ascii = ["c", "posix"].contains(&locale.as_str()) || var("TERM") == "linux";
        let unicode = !ascii && (locale.is_empty() || locale.contains("utf"));
        Self { depth, unicode }
    }

    fn color(&self, ansi: Color, rich: (u8, u8, u8)) -> Style {
        match self.depth {
            Depth::Mono => Style::new(),
            Depth::Ansi => Style::new().fg(ansi),
            Depth::Rich => Style::new().fg(Color::Rgb(rich.0, rich.1, rich.2)),
        }
    }

    pub(super) fn receive(&self) -> Style {
        self.color(Color::Cyan, (86, 182, 255))
    }

    pub(super) fn transmit(&self) -> Style {
        self.color(Color::Magenta, (224, 130, 255))
    }

    pub(super) fn good(&self) -> Style {
        self.color(Color::Green, (126, 211, 133))
    }

    pub(super) fn warn(&self) -> Style {
        self.color(Color::Yellow, (240, 190, 90))
    }

    pub(super) fn bad(&self) -> Style {
        self.color(Color::Red, (255, 108, 107)).add_modifier(Modifier::BOLD)
    }

    pub(super) fn dim(&self) -> Style {
        match self.depth {
            Depth::Mono => Style::new().add_modifier(Modifier::DIM),
            _ => self.color(Color::DarkGray, (112, 122, 140)),
        }
    }

    pub(super) fn border(&self) -> Style {
        match self.depth {
            Depth::Mono => Style::new(),
            _ => self.color(Color::DarkGray, (72, 82, 100)),
        }
    }

    pub(super) fn title(&self) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        // In a border it would have the border's colour.
        if self.depth == Depth::Mono { bold } else { bold.fg(Color::Reset) }
    }

    /// A key in the bottom line.
    pub(super) fn key(&self) -> Style {
        self.color(Color::Yellow, (240, 190, 90)).add_modifier(Modifier::BOLD)
    }

    /// The row one is at, and the tab.
    pub(super) fn selected(&self) -> Style {
        match self.depth {
            Depth::Rich => Style::new().bg(Color::Rgb(44, 54, 74)).add_modifier(Modifier::BOLD),
            _ => Style::new().add_modifier(Modifier::REVERSED),
        }
    }

    pub(super) fn tone(&self, tone: Tone) -> Style {
        match tone {
            Tone::Plain => Style::new(),
            Tone::Dim => self.dim(),
            Tone::Receive => self.receive(),
            Tone::Transmit => self.transmit(),
            Tone::Warn => self.warn(),
            Tone::Bad => self.bad(),
        }
    }

    /// A colour of a graph at `part` (0 to 1) of its height: stronger further out.
    pub(super) fn slope(&self, style: Style, part: f64) -> Style {
        let Some(Color::Rgb(red, green, blue)) = style.fg else { return style };
        let shade = |value: u8| (f64::from(value) * (0.55 + 0.45 * part)).round() as u8;
        style.fg(Color::Rgb(shade(red), shade(green), shade(blue)))
    }

    pub(super) fn lines(&self) -> border::Set<'static> {
        if self.unicode { border::ROUNDED } else { ASCII }
    }

    /// The sign of a row in trouble.
    pub(super) fn mark(&self, bad: bool) -> &'static str {
        match (self.unicode, bad) {
            (true, true) => "●",
            (true, false) => "○",
            (false, true) => "!",
            (false, false) => "?",
        }
    }

    pub(super) fn arrow(&self, falling: bool) -> &'static str {
        match (self.unicode, falling) {
            (true, true) => "▾",
            (true, false) => "▴",
            (false, true) => "v",
            (false, false) => "^",
        }
    }
}

const ASCII: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};
