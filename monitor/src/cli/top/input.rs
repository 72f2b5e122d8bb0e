//! What keys and clicks stand for. Pure.

use ratatui::{
    crossterm::event::{
        Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
    },
    layout::Position,
};

use super::{
    columns::{Column, Tab},
    state::State,
};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    Tab(Tab),
    NextTab(isize),
    Move(isize),
    Page(isize),
    Select(u64),
    Detail,
    Back,
    Help,
    Search,
    Type(char),
    Erase,
    Found,
    Forget,
    SortBy(Column),
    NextSort(isize),
    Turn,
    Trouble,
    Pause,
    Units,
    Slower,
    Faster,
    Measure,
}

/// The keys, as the help tells them.
pub(super) const KEYS: [(&str, &str); 16] = [
    ("↑ ↓ j k", "go to a namespace (in a text: scroll); PgUp PgDn Home End"),
    ("Enter", "everything of this namespace: interfaces, protocols, drops, TCP; Esc goes back"),
    ("/", "search names, containers, pods, units, interfaces; Enter keeps it, Esc drops it"),
    ("1 2 3 4", "Traffic, Drops, TCP, Agent; Tab goes on"),
    ("t", "those in trouble first"),
    ("s S < >", "sort by the next or the last column; a click on a title does too"),
    ("r", "turn the order"),
    ("p Space", "pause: nothing is read until it is pressed again"),
    ("u", "bytes or bits"),
    ("+ -", "look more often, or less"),
    ("m", "in Agent: measure the run time of eBPF programs, which costs each run some ns"),
    ("?", "this"),
    ("q Ctrl-C", "end"),
    ("", ""),
    ("lately", "the last ten readings: what TROUBLE is about"),
    (
        "lost",
        "dropped for a reason that means a loss; what the kernel drops where all is well is in DROPS alone",
    ),
];

/// The events that one is: Esc and the next key arrive as one, with Alt, where they come at once over a slow line.
pub(super) fn apart(event: Event) -> Vec<Event> {
    match event {
        Event::Key(key) if key.modifiers.contains(KeyModifiers::ALT) => {
            let modifiers = key.modifiers - KeyModifiers::ALT;
            let escape = KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE);
            vec![Event::Key(escape), Event::Key(KeyEvent { modifiers, ..key })]
        }
        event => vec![event],
    }
}

/// What an event stands for.
pub(super) fn action(event: &Event, state: &State) -> Action {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => key_action(*key, state),
        Event::Mouse(mouse) => mouse_action(*mouse, state),
        _ => Action::None,
    }
}

fn key_action(key: KeyEvent, state: &State) -> Action {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    if control {
        return match key.code {
            KeyCode::Char('c') => Action::Quit,
            KeyCode::Char('u') if state.searching => Action::Forget,
            KeyCode::Char('d') | KeyCode::Char('f') => Action::Page(1),
            KeyCode::Char('u') | KeyCode::Char('b') => Action::Page(-1),
            _ => Action::None,
        };
    }
    match key.code {
        KeyCode::Up => return Action::Move(-1),
        KeyCode::Down => return Action::Move(1),
        KeyCode::PageUp => return Action::Page(-1),
        KeyCode::PageDown => return Action::Page(1),
        KeyCode::Home => return Action::Move(isize::MIN / 2),
        KeyCode::End => return Action::Move(isize::MAX / 2),
        _ => {}
    }
    if state.searching {
        return match key.code {
            KeyCode::Char(char) => Action::Type(char),
            KeyCode::Backspace => Action::Erase,
            KeyCode::Enter => Action::Found,
            KeyCode::Esc => Action::Forget,
            _ => Action::None,
        };
    }
    match key.code {
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Char('?') | KeyCode::Char('h') | KeyCode::F(1) => Action::Help,
        KeyCode::Esc | KeyCode::Backspace => Action::Back,
        KeyCode::Enter => Action::Detail,
        KeyCode::Tab | KeyCode::Right => Action::NextTab(1),
        KeyCode::BackTab | KeyCode::Left => Action::NextTab(-1),
        KeyCode::Char('j') => Action::Move(1),
        KeyCode::Char('k') => Action::Move(-1),
        KeyCode::Char('g') => Action::Move(isize::MIN / 2),
        KeyCode::Char('G') => Action::Move(isize::MAX / 2),
        KeyCode::Char('/') => Action::Search,
        KeyCode::Char('s' | '>') => Action::NextSort(1),
        KeyCode::Char('S' | '<') => Action::NextSort(-1),
        KeyCode::Char('r') => Action::Turn,
        KeyCode::Char('t') => Action::Trouble,
        KeyCode::Char('p' | ' ') => Action::Pause,
        KeyCode::Char('u') => Action::Units,
        KeyCode::Char('+' | '=') => Action::Faster,
        KeyCode::Char('-') => Action::Slower,
        KeyCode::Char('m') if state.tab == Tab::Agent => Action::Measure,
        KeyCode::Char(digit) => {
            let at = digit.to_digit(10).and_then(|digit| Tab::ALL.get((digit as usize).checked_sub(1)?));
            at.map_or(Action::None, |(tab, _)| Action::Tab(*tab))
        }
        _ => Action::None,
    }
}

fn mouse_action(mouse: MouseEvent, state: &State) -> Action {
    match mouse.kind {
        MouseEventKind::ScrollUp => Action::Move(-3),
        MouseEventKind::ScrollDown => Action::Move(3),
        MouseEventKind::Down(MouseButton::Left) => {
            let at = Position { x: mouse.column, y: mouse.row };
            let hit =
                state.hits.iter().rev().find(|(place, _)| place.contains(at)).map(|(_, action)| *action);
            match hit {
                // A second click on a row opens it.
                Some(Action::Select(key)) if state.selected == Some(key) => Action::Detail,
                Some(action) => action,
                None => Action::None,
            }
        }
        _ => Action::None,
    }
}
