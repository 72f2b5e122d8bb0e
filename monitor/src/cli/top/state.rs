//! What the screen shows of what was read: tab, order, search, the row one is at. Pure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ratatui::layout::Rect;

use super::{
    columns::{Column, Sort, Tab},
    cost::Cost,
    input::Action,
    model::{Model, Row},
    numbers::Unit,
};
use crate::{
    sample::{IdentitySample, NetnsSample},
    trace::Symbols,
};

/// Shortest and longest time between two readings that keys give.
const INTERVALS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(60)];

/// The screen's state.
pub(super) struct State {
    pub(super) model: Model,
    pub(super) tab: Tab,
    pub(super) sorts: BTreeMap<&'static str, Sort>,
    /// The namespace one is at, by key.
    pub(super) selected: Option<u64>,
    /// The first row that is shown.
    pub(super) first: usize,
    pub(super) search: String,
    /// Whether keys are written to the search.
    pub(super) searching: bool,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// Whether one namespace is shown alone.
    pub(super) detail: bool,
    /// The first line that is shown of a text longer than its place.
    pub(super) scroll: usize,
    pub(super) unit: Unit,
    pub(super) interval: Duration,
    /// How long the last reading took.
    pub(super) took: Duration,
    /// The kernel's functions, once they were asked for.
    pub(super) symbols: Option<Arc<Symbols>>,
    pub(super) cost: Option<Cost>,
    /// Whether run times of programs are measured while this screen is open.
    pub(super) measure: bool,
    /// Why the last reading failed.
    pub(super) failed: Option<String>,
    /// How many rows of the table there was place for.
    pub(super) page: usize,
    /// Whether there was place to explain the row one is at.
    pub(super) explains: bool,
    /// What a click does, by place; the last one wins.
    pub(super) hits: Vec<(Rect, Action)>,
    /// What is to be looked for where nothing is counted.
    pub(super) bpffs: String,
}

impl State {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            model: Model::default(),
            tab: Tab::Traffic,
            sorts: BTreeMap::new(),
            selected: None,
            first: 0,
            search: String::new(),
            searching: false,
            paused: false,
            help: false,
            detail: false,
            scroll: 0,
            unit: Unit::Bytes,
            interval,
            took: Duration::ZERO,
            symbols: None,
            cost: None,
            measure: false,
            failed: None,
            page: 1,
            explains: false,
            hits: Vec::new(),
            bpffs: String::new(),
        }
    }

    pub(super) fn sort(&self) -> Sort {
        self.sorts.get(self.tab_name()).copied().unwrap_or(self.tab.first_sort())
    }

    fn tab_name(&self) -> &'static str {
        Tab::ALL.iter().find(|(tab, _)| *tab == self.tab).map_or("", |(_, name)| name)
    }

    /// The rows of this tab, as they are ordered.
    pub(super) fn rows(&self) -> Vec<&Row> {
        let namespaces = self.model.moment.iter().flat_map(|moment| &moment.sample.namespaces);
        let mut namespaces = namespaces.peekable();
        let mut rows = Vec::new();
        for row in &self.model.rows {
            // Both are in the same order; the rows of no namespace come last.
            let netns = namespaces.next_if(|netns| netns.cookie.0 == row.key);
            let here = !row.special || self.tab != Tab::Traffic || !row.troubles.is_empty();
            if here && matches(&self.search, row, netns) {
                rows.push(row);
            }
        }
        self.sort().sort(&mut rows);
        rows
    }

    /// The row one is at: the first, unless one went to another that is there.
    pub(super) fn current<'a>(&self, rows: &[&'a Row]) -> Option<&'a Row> {
        let chosen = self.selected.and_then(|key| rows.iter().find(|row| row.key == key));
        chosen.or(rows.first()).copied()
    }

    /// Columns there is place for.
    pub(super) fn columns(&self, width: u16) -> Vec<Column> {
        self.tab.columns().iter().copied().filter(|column| width >= column.from(self.tab)).collect()
    }

    /// Namespaces in which something is wrong: badly, and at all.
    pub(super) fn in_trouble(&self) -> [usize; 2] {
        let of = |bad: bool| {
            let is = |row: &&Row| row.troubles.iter().any(|trouble| trouble.bad || !bad);
            self.model.rows.iter().filter(is).count()
        };
        [of(true), of(false)]
    }

    /// Does what a key or a click stands for.
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Quit | Action::None => {}
            Action::Tab(tab) => self.go_to(tab),
            Action::NextTab(step) => {
                let at = Tab::ALL.iter().position(|(tab, _)| *tab == self.tab).unwrap_or(0);
                let next = (at as isize + step).rem_euclid(Tab::ALL.len() as isize) as usize;
                self.go_to(Tab::ALL[next].0);
            }
            Action::Move(step) => self.step(step),
            Action::Page(pages) => self.step(pages.saturating_mul(self.page.max(1) as isize)),
            Action::Select(key) => self.selected = Some(key),
            Action::Detail => {
                self.detail = !self.detail && self.tab != Tab::Agent;
                self.scroll = 0;
                self.pin();
            }
            Action::Back => self.back(),
            Action::Help => {
                self.help = !self.help;
                self.scroll = 0;
            }
            Action::Search => self.searching = true,
            Action::Type(char) => self.search.push(char),
            Action::Erase => {
                self.search.pop();
            }
            Action::Found => self.searching = false,
            Action::Forget => {
                self.searching = false;
                self.search.clear();
            }
            Action::SortBy(column) => self.sort_by(column),
            Action::NextSort(step) => self.next_sort(step),
            Action::Turn => {
                let Sort { by, falling } = self.sort();
                self.sorts.insert(self.tab_name(), Sort { by, falling: !falling });
            }
            Action::Trouble => {
                let by = if self.tab == Tab::Drops { Column::Lost } else { Column::Trouble };
                self.sorts.insert(self.tab_name(), Sort { by, falling: true });
                (self.selected, self.first) = (None, 0);
            }
            Action::Pause => self.paused = !self.paused,
            Action::Units => {
                self.unit = if self.unit == Unit::Bytes { Unit::Bits } else { Unit::Bytes };
            }
            Action::Slower => self.interval = (self.interval * 2).min(INTERVALS[1]),
            Action::Faster => self.interval = (self.interval / 2).max(INTERVALS[0]),
            Action::Measure => self.measure = !self.measure,
        }
    }

    fn go_to(&mut self, tab: Tab) {
        self.tab = tab;
        (self.help, self.detail, self.scroll, self.first) = (false, false, 0, 0);
    }

    /// Closes what was opened last.
    fn back(&mut self) {
        self.scroll = 0;
        if self.help {
            self.help = false;
        } else if self.detail {
            self.detail = false;
        } else {
            self.search.clear();
        }
    }

    fn step(&mut self, step: isize) {
        let moved = |at: usize, last: usize| at.saturating_add_signed(step).min(last);
        if self.help || self.detail || self.tab == Tab::Agent {
            // What is drawn says where it ends.
            self.scroll = moved(self.scroll, usize::MAX / 2);
            return;
        }
        let rows = self.rows();
        let at = self.current(&rows).and_then(|current| rows.iter().position(|row| row.key == current.key));
        let key = at.map(|at| rows[moved(at, rows.len() - 1)].key);
        self.selected = key;
    }

    /// Stays at the row one is at, wherever it goes.
    fn pin(&mut self) {
        let key = self.current(&self.rows()).map(|row| row.key);
        self.selected = key;
    }

    fn sort_by(&mut self, by: Column) {
        let Sort { by: before, falling } = self.sort();
        let falling = if before == by { !falling } else { by.falls_first() };
        self.sorts.insert(self.tab_name(), Sort { by, falling });
        self.first = 0;
    }

    fn next_sort(&mut self, step: isize) {
        let columns: Vec<Column> =
            self.tab.columns().iter().copied().filter(|column| *column != Column::Shape).collect();
        if columns.is_empty() {
            return;
        }
        let at = columns.iter().position(|column| *column == self.sort().by).unwrap_or(0);
        let next = columns[(at as isize + step).rem_euclid(columns.len() as isize) as usize];
        self.sorts.insert(self.tab_name(), Sort { by: next, falling: next.falls_first() });
        self.first = 0;
    }

    /// Whether names of the kernel's functions are of use now.
    pub(super) fn wants_symbols(&self) -> bool {
        (self.detail || self.explains || self.tab == Tab::Drops) && self.symbols.is_none()
    }
}

/// Whether a search finds it: by its label, or any other name it or an interface of it has.
fn matches(search: &str, row: &Row, netns: Option<&NetnsSample>) -> bool {
    let search = search.to_lowercase();
    let has = |name: &str| name.to_lowercase().contains(&search);
    if search.is_empty() || has(&row.label) {
        return true;
    }
    let Some(netns) = netns else { return false };
    let IdentitySample { aliases, containers, pod, unit } = &netns.identity;
    aliases.iter().any(|(_, name)| has(name))
        || containers.iter().any(|one| has(&one.id) || one.name.as_deref().is_some_and(has))
        || pod.as_deref().is_some_and(has)
        || unit.as_deref().is_some_and(has)
        || netns.interfaces.iter().any(|interface| {
            let peer = interface.link.as_ref().and_then(|link| link.peer_interface.as_deref());
            has(&interface.name) || peer.is_some_and(has)
        })
}
