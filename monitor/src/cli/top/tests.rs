//! A fixed state on a terminal of the tests: golden screens, keys, and what a reading becomes.
//!
//! If a screen is meant to change: `UPDATE_GOLDEN=1 cargo test -p monitor --lib cli::top`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use monitor_ebpf::{
    class,
    health::{TcpCounts, failure, kind},
};
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind},
    style::{Color, Modifier, Style},
};

use super::{
    columns::{Column, Sort, Tab},
    cost::{Cost, Process, Served},
    draw,
    input::{Action, action, apart},
    model::Model,
    state::State,
    theme::{Depth, Theme},
};
use crate::{
    agent::engine::Moment,
    probe::{Costs, ProgramCost},
    sample::{
        AttachMode, ByDirection, ClassCounts, Counts, IdentitySample, InterfaceSample, LinkSample,
        NetnsSample, NetnsState, Sample,
    },
    topology::{
        figures::{Conntrack, Figures},
        names::Cookie,
    },
    trace::{DropReadings, NetnsDrops, Symbols, TcpReadings},
};

const HOST: Cookie = Cookie(1);
const SIZES: [(u16, u16); 2] = [(80, 24), (160, 50)];
const MONO: Theme = Theme { depth: Depth::Mono, unicode: true };

fn counts(packets: [u64; 2], bytes: [u64; 2]) -> Counts {
    let mut counts = Counts::default();
    for (direction, (packets, bytes)) in
        [&mut counts.receive, &mut counts.transmit].into_iter().zip(packets.into_iter().zip(bytes))
    {
        direction.classes[class::IPV4 + class::TCP] =
            ClassCounts { skbs: packets, skb_bytes: bytes, packets, bytes };
    }
    counts
}

fn interface(name: &str, running: bool, counts: Option<Counts>) -> InterfaceSample {
    InterfaceSample {
        name: name.to_owned(),
        mode: counts.map(|_| AttachMode::Tcx),
        counts,
        link: Some(LinkSample {
            ifindex: 2,
            kind: "veth".to_owned(),
            mac: None,
            mtu: 1500,
            running,
            peer_interface: Some(format!("h-{name}")),
            peer_netns: Some(String::new()),
            drops: ByDirection::default(),
            errors: ByDirection::default(),
        }),
        uncounted: None,
    }
}

fn netns(cookie: u64, label: &str, interfaces: Vec<InterfaceSample>) -> NetnsSample {
    NetnsSample {
        label: label.to_owned(),
        cookie: Cookie(cookie),
        inode: Some(4_026_532_000 + cookie),
        state: NetnsState::Named,
        owned: cookie.is_multiple_of(2),
        identity: IdentitySample {
            unit: (cookie == 12).then(|| "nightly.service".to_owned()),
            ..Default::default()
        },
        interfaces,
        retired: Counts::default(),
        drops: BTreeMap::new(),
    }
}

/// What there is `second` seconds after the start: one busy, one whose port is closed, one that asks it, one with
/// a link that is down, one whose connection tracking is full, and many that are quiet.
fn moment(start: Instant, second: u64) -> Moment {
    let busy = |second: u64| (0..=second).map(|at| 40_000 + 30_000 * ((at * 7) % 11)).sum::<u64>();
    let eth0 = |packets: [u64; 2], bytes: [u64; 2]| interface("eth0", true, Some(counts(packets, bytes)));
    let mut namespaces = vec![
        netns(10, "shop-db", vec![eth0([3 * second, 3 * second], [222 * second, 162 * second])]),
        netns(11, "shop-frontend", vec![eth0([3 * second, 3 * second], [162 * second, 222 * second])]),
        netns(
            12,
            "backup",
            vec![
                eth0([busy(second) / 60, busy(second) / 1000], [busy(second) / 10, busy(second)]),
                interface("eth1", false, Some(Counts::default())),
            ],
        ),
        netns(
            13,
            "kubernetes-ingress-controller-7d9c5b8f4d-x2x9k",
            vec![eth0([second; 2], [100 * second; 2])],
        ),
        netns(14, "fresh", vec![interface("eth0", true, None)]),
    ];
    namespaces
        .extend((20..40).map(|cookie| netns(cookie, &format!("idle-{cookie}"), vec![eth0([0; 2], [0; 2])])));
    let mut sample = Sample { namespaces, ..Sample::default() };
    let tracked = Conntrack { entries: 65_536, limit: 65_536, ..Conntrack::default() };
    let full = Figures { conntrack: Some(tracked), ..Figures::default() };
    sample.lost.figures.insert("kubernetes-ingress-controller-7d9c5b8f4d-x2x9k".to_owned(), full);
    let reasons = |list: &[(&str, u64)]| NetnsDrops {
        reasons: list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        places: [(("NO_SOCKET".to_owned(), 0x1010), list[0].1)].into(),
    };
    let drops = DropReadings {
        namespaces: [
            (HOST, reasons(&[("NOT_SPECIFIED", 40)])),
            (Cookie(10), reasons(&[("NO_SOCKET", 60 + 3 * second), ("NOT_SPECIFIED", 48)])),
            (Cookie(11), NetnsDrops::default()),
        ]
        .into(),
        host: Some(HOST),
        other: [("NO_SOCKET".to_owned(), 2)].into(),
        ..DropReadings::default()
    };
    let mut asks = TcpCounts { opened: [5, 0], ..TcpCounts::default() };
    asks.failures[failure::REFUSED] = 3 * second;
    let mut sends = TcpCounts { opened: [second, 2], ..TcpCounts::default() };
    sends.retransmits[kind::FAST] = second / 2;
    sends.rtt.buckets[2] = 9 * second;
    sends.rtt.buckets[4] = second;
    sends.rtt.nanoseconds = second * 4_000_000;
    let tcp = TcpReadings {
        namespaces: [(Cookie(11), asks), (Cookie(12), sends), (HOST, TcpCounts::default())].into(),
        host: Some(HOST),
        other: TcpCounts::default(),
        gone: TcpCounts::default(),
        missed: 0,
        attached: [true; 5],
    };
    Moment {
        at: start + Duration::from_secs(second),
        sample,
        complete: true,
        drops: Some(drops),
        tcp: Some(tcp),
        host: HOST,
        agent: Some("4242".to_owned()),
        pinned: true,
        notes: Vec::new(),
    }
}

/// After a minute.
fn state() -> State {
    let mut state = State::new(Duration::from_secs(1));
    let start = Instant::now();
    (0..=60).for_each(|second| state.model.take(moment(start, second)));
    state.took = Duration::from_millis(9);
    state.symbols = Some(Symbols::parse("0000000000001000 T tcp_v4_rcv\n").into());
    state
}

fn cost() -> Cost {
    let process = |pid, cpu| Process {
        pid,
        cpu,
        resident: 42_000_000,
        threads: 5,
        descriptors: Some(66),
        age: Some(Duration::from_secs(3600)),
    };
    let objects = |runs: u64| {
        let cost = |nanoseconds| ProgramCost { loaded: 1, links: 25, bytes: 8192, runs, nanoseconds };
        Costs {
            programs: [("ingress".to_owned(), cost(45 * runs)), ("kfree_skb".to_owned(), cost(300 * runs))]
                .into(),
            maps: 19,
            map_bytes: 11_000_000,
            links: 52,
            measured: true,
        }
    };
    let at = Instant::now();
    let before = Cost {
        at: at - Duration::from_secs(2),
        agent: Some(process(4242, 36.0)),
        own: Some(process(4711, 1.0)),
        objects: Ok(objects(1000)),
        served: None,
        before: None,
    };
    let served = Served {
        address: Some("127.0.0.1:10490".parse().expect("an address")),
        passes: Some([240.0, 2.4, 0.0]),
        unattached: Some(1.0),
        reattached: Some(0.0),
        scrape: Some((Duration::from_millis(17), 83_500, at - Duration::from_secs(30))),
    };
    Cost {
        at,
        agent: Some(process(4242, 36.02)),
        own: Some(process(4711, 1.06)),
        objects: Ok(objects(5000)),
        served: Some(served),
        before: Some(Box::new(before)),
    }
}

fn drawn(state: &mut State, theme: &Theme, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw::draw(frame, state, theme)).expect("drawn").buffer.clone()
}

fn text(buffer: &Buffer) -> String {
    let area = buffer.area;
    let row = |y| (0..area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..area.height).map(|y| format!("{}\n", row(y).trim_end())).collect()
}

/// The text with colours, as a terminal is told them: `cat` shows it.
fn ansi(buffer: &Buffer) -> String {
    let (area, mut out) = (buffer.area, String::new());
    for y in 0..area.height {
        let mut last = Style::reset();
        for x in 0..area.width {
            let cell = &buffer[(x, y)];
            let style = cell.style();
            if style != last {
                out.push_str("\x1b[0");
                for (color, base) in [(style.fg, 30), (style.bg, 40)] {
                    out.push_str(&color.map_or(String::new(), |color| code(color, base)));
                }
                let codes = [(Modifier::BOLD, 1), (Modifier::DIM, 2), (Modifier::REVERSED, 7)];
                for (modifier, code) in codes {
                    if style.add_modifier.contains(modifier) {
                        write!(out, ";{code}").expect("a string");
                    }
                }
                out.push('m');
                last = style;
            }
            out.push_str(cell.symbol());
        }
        out.push_str("\x1b[0m\n");
    }
    out
}

fn code(color: Color, base: u8) -> String {
    let number = match color {
        Color::Reset => return String::new(),
        Color::Red => 1,
        Color::Green => 2,
        Color::Yellow => 3,
        Color::Magenta => 5,
        Color::Cyan => 6,
        Color::DarkGray => 60,
        other => panic!("no colour of the sixteen that are used: {other:?}"),
    };
    format!(";{}", base + number)
}

fn golden(name: &str, now: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/top").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
        fs::write(&path, now).expect("write the golden screen");
    }
    let before = fs::read_to_string(&path).unwrap_or_default();
    assert!(now == before, "{name} was\n{before}\nand is\n{now}\nif this is meant: UPDATE_GOLDEN=1");
}

fn key(code: KeyCode) -> Event {
    Event::Key(KeyEvent::new(code, KeyModifiers::NONE))
}

/// Presses keys: characters, `\n` for Enter, `\x1b` for Esc.
fn press(state: &mut State, keys: &str) {
    for char in keys.chars() {
        let code = match char {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\x08' => KeyCode::Backspace,
            char => KeyCode::Char(char),
        };
        let action = action(&key(code), state);
        state.act(action);
    }
}

fn labels(state: &State) -> Vec<String> {
    state.rows().iter().map(|row| row.label.clone()).collect()
}

/// Each screen, and the keys that lead to it.
const SCREENS: [(&str, &str); 6] =
    [("traffic", ""), ("drops", "2"), ("tcp", "3"), ("agent", "4"), ("detail", "jj\n"), ("help", "?")];

#[test]
fn every_screen_is_as_it_is_meant_with_and_without_colour() {
    let cost = cost();
    for (name, keys) in SCREENS {
        for size in SIZES {
            let mut state = state();
            state.cost = Some(cost.clone());
            press(&mut state, keys);
            let mono = drawn(&mut state, &MONO, size);
            let (width, height) = size;
            golden(&format!("{name}-{width}x{height}.txt"), &text(&mono));
            for cell in mono.content() {
                assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "NO_COLOR: {name}");
            }
            for depth in [Depth::Ansi, Depth::Rich] {
                let colour = drawn(&mut state, &Theme { depth, unicode: true }, size);
                assert_eq!(text(&colour), text(&mono), "what is said is not said by colour alone: {name}");
                if depth == Depth::Ansi && ["traffic", "drops"].contains(&name) {
                    golden(&format!("{name}-{width}x{height}.ansi"), &ansi(&colour));
                }
            }
        }
    }
}

#[test]
fn a_terminal_without_unicode_gets_none_and_any_size_is_drawn() {
    let mut state = state();
    state.cost = Some(cost());
    for (_, keys) in SCREENS {
        press(&mut state, &format!("\x1b\x1b\x1b1{keys}"));
        for size in [(1, 1), (39, 9), (40, 10), (79, 23), (100, 30), (300, 90), (80, 10), (40, 60)] {
            drawn(&mut state, &MONO, size);
        }
    }
    press(&mut state, "\x1b\x1b1");
    let plain = text(&drawn(&mut state, &Theme { depth: Depth::Mono, unicode: false }, (80, 24)));
    // But for the sign of what was cut, which is no drawing.
    let strange: Vec<char> = plain.chars().filter(|char| !char.is_ascii() && *char != '…').collect();
    assert_eq!(strange, [], "{plain}");
}

#[test]
fn those_in_trouble_come_first_with_the_reason_and_then_the_busiest() {
    let state = state();
    let first: Vec<(String, String)> = state
        .rows()
        .iter()
        .take(6)
        .map(|row| {
            (row.label.clone(), row.troubles.first().map_or(String::new(), |first| first.what.clone()))
        })
        .collect();
    let expected = [
        ("shop-db", "30 dropped: NO_SOCKET"),
        ("shop-frontend", "30 connects refused"),
        ("kubernetes-ingress-controller-7d9c5b8f4d-x2x9k", "connection tracking is full"),
        ("backup", "5 sent again (0.3 %)"),
        ("idle-20", ""),
        ("idle-21", ""),
    ];
    assert_eq!(first, expected.map(|(label, what)| (label.to_owned(), what.to_owned())));
    let backup = state.model.rows.iter().find(|row| row.label == "backup").expect("backup");
    assert_eq!(backup.troubles[1].what, "eth1 is down");
    assert_eq!(state.in_trouble(), [3, 4]);
}

#[test]
fn rows_sort_by_any_column_and_what_is_not_known_comes_last() {
    let mut state = state();
    for (by, falling, first) in [
        (Column::Name, false, "backup"),
        (Column::Name, true, "shop-frontend"),
        (Column::Rx, true, "backup"),
        (Column::Tx, true, "backup"),
        (Column::RxTotal, true, "backup"),
        (Column::Lost, true, "shop-db"),
        (Column::Failed, true, "shop-frontend"),
        (Column::Rtt, true, "backup"),
    ] {
        state.sorts.insert("Traffic", Sort { by, falling });
        assert_eq!(labels(&state)[0], first, "{by:?}");
        if by != Column::Name {
            state.sorts.insert("Traffic", Sort { by, falling: !falling });
            let last = labels(&state).pop().expect("rows");
            assert!(last == first || state.model.rows.iter().any(|row| row.label == last), "{by:?}");
        }
    }
    state.sorts.insert("Traffic", Sort { by: Column::Rx, falling: false });
    assert_eq!(labels(&state).pop().as_deref(), Some("fresh"), "its rate is not known");
    // The keys: the column after TROUBLE is the first again, and names begin at a.
    press(&mut state, "tsrs");
    assert_eq!(state.sort(), Sort { by: Column::Rx, falling: true });
    press(&mut state, "S");
    assert_eq!(state.sort(), Sort { by: Column::Name, falling: false });
}

#[test]
fn a_search_finds_any_name_and_a_row_stays_chosen_wherever_it_goes() {
    let mut state = state();
    press(&mut state, "/SHOP");
    assert_eq!(labels(&state), ["shop-db", "shop-frontend"]);
    press(&mut state, "\x08\x08\x08\x08nightly\n");
    assert_eq!((labels(&state), state.searching), (vec!["backup".to_owned()], false), "by its unit");
    press(&mut state, "\x1b/h-eth1");
    assert_eq!(labels(&state), ["backup"], "by the peer of its interface");
    press(&mut state, "\x1b");
    assert_eq!(labels(&state).len(), 25);
    press(&mut state, "jj");
    let chosen = state.selected;
    press(&mut state, "s");
    assert_eq!(state.current(&state.rows()).map(|row| row.key), chosen);
    let gone = Some(999);
    state.selected = gone;
    assert_eq!(state.current(&state.rows()).map(|row| row.label.as_str()), Some(&*labels(&state)[0]));
}

#[test]
fn escape_and_a_key_that_come_at_once_are_both() {
    let at_once = Event::Key(KeyEvent::new(KeyCode::Char('3'), KeyModifiers::ALT));
    assert_eq!(apart(at_once), [key(KeyCode::Esc), key(KeyCode::Char('3'))]);
    let control = Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert_eq!(apart(control.clone()), [control]);
}

#[test]
fn a_click_chooses_sorts_and_changes_the_tab() {
    let mut state = state();
    let screen = text(&drawn(&mut state, &MONO, (80, 24)));
    let at = |word: &str| {
        let (row, line) = screen.lines().enumerate().find(|(_, line)| line.contains(word)).expect("drawn");
        let column = line[..line.find(word).expect("there")].chars().count();
        MouseEvent {
            kind: MouseEventKind::Down(MouseButton::Left),
            column: column as u16,
            row: row as u16,
            modifiers: KeyModifiers::NONE,
        }
    };
    let clicked = |state: &State, word: &str| action(&Event::Mouse(at(word)), state);
    assert_eq!(clicked(&state, "TX pkt/s"), Action::SortBy(Column::TxPackets));
    assert_eq!(clicked(&state, "Drops"), Action::Tab(Tab::Drops));
    assert_eq!(clicked(&state, "backup"), Action::Select(12));
    state.act(Action::Select(12));
    assert_eq!(clicked(&state, "backup"), Action::Detail);
    let nowhere = MouseEvent { column: 79, row: 0, ..at("backup") };
    assert_eq!(action(&Event::Mouse(nowhere), &state), Action::None);
}

#[test]
fn a_name_that_is_used_again_begins_with_nothing() {
    let start = Instant::now();
    let mut model = Model::default();
    let only = |second: u64, cookie: u64, bytes: u64| {
        let mut moment = moment(start, second);
        let eth0 = interface("eth0", true, Some(counts([bytes / 100; 2], [bytes; 2])));
        moment.sample.namespaces = vec![netns(cookie, "blue", vec![eth0])];
        moment
    };
    let rate = |model: &Model| model.rows[0].rate.map(|rate| rate[0]);
    model.take(only(0, 7, 1_000_000));
    model.take(only(1, 7, 1_000_500));
    assert_eq!(rate(&model), Some(500.0));
    // Deleted and made again, with more than the old one had: neither a spike nor a negative rate.
    model.take(only(2, 8, 5_000_000));
    assert_eq!(rate(&model), None);
    assert_eq!(model.history(Some(8)).map(|history| history.len()), Some(0));
    model.take(only(3, 8, 5_000_100));
    assert_eq!(rate(&model), Some(100.0));
    assert!(model.history(Some(7)).is_none(), "nothing is kept of one that is gone");
    // Its counters began anew.
    model.take(only(4, 8, 10));
    assert_eq!(rate(&model), None);
    model.take(only(5, 8, 40));
    assert_eq!(rate(&model), Some(30.0));
}

#[test]
fn a_reason_that_appears_is_counted_from_nothing_and_one_that_is_usual_is_no_loss() {
    let start = Instant::now();
    let mut model = Model::default();
    let with = |second: u64, reasons: &[(&str, u64)]| {
        let mut moment = moment(start, second);
        let reasons = reasons.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let drops = NetnsDrops { reasons, ..NetnsDrops::default() };
        moment.drops.as_mut().expect("drops").namespaces.insert(Cookie(10), drops);
        moment
    };
    model.take(with(0, &[]));
    model.take(with(2, &[("NO_SOCKET", 6), ("NOT_SPECIFIED", 10)]));
    let drops = model.row(10).expect("shop-db").drops.clone().expect("counted");
    assert_eq!((drops.lost_rate, drops.rate, drops.lost, drops.all), (3.0, 8.0, 6, 16));
    assert_eq!(drops.first.as_deref(), Some("NO_SOCKET"));
    let reasons = model.reasons(10).expect("counted");
    assert_eq!((reasons[0].name.as_str(), reasons[0].lately, reasons[0].total), ("NO_SOCKET", 6, 6));
    // Seen for the first time with what it had: that is no rate.
    let mut fresh = Model::default();
    fresh.take(with(0, &[("NO_SOCKET", 6)]));
    assert_eq!(fresh.row(10).expect("shop-db").drops.clone().expect("counted").lost_rate, 0.0);
    assert!(fresh.row(10).expect("shop-db").troubles.is_empty());
}

#[test]
fn before_the_first_reading_and_where_there_is_nothing_it_says_so() {
    let mut state = State::new(Duration::from_secs(1));
    assert!(text(&drawn(&mut state, &MONO, (80, 24))).contains("reading …"));
    state.failed = Some("no such thing".to_owned());
    assert!(text(&drawn(&mut state, &MONO, (80, 24))).contains("not read: no such thing"));
    let mut nothing = moment(Instant::now(), 0);
    nothing.sample.namespaces.clear();
    state.model.take(nothing);
    let screen = text(&drawn(&mut state, &MONO, (80, 24)));
    assert!(
        screen.contains("There is no network namespace") && screen.contains("ip netns add blue"),
        "{screen}"
    );
    // There are some, and nothing is counted.
    let mut uncounted = moment(Instant::now(), 0);
    uncounted.agent = None;
    for netns in &mut uncounted.sample.namespaces {
        netns.interfaces.iter_mut().for_each(|interface| (interface.counts, interface.mode) = (None, None));
    }
    state.model.take(uncounted);
    let screen = text(&drawn(&mut state, &MONO, (80, 24)));
    assert!(screen.contains("start `netns-monitor agent`"), "{screen}");
}

#[test]
fn one_namespace_alone_stays_what_is_shown_and_says_when_it_is_gone() {
    let mut state = state();
    press(&mut state, "/backup\n\n");
    assert!(state.detail);
    let start = Instant::now();
    let mut without = moment(start, 61);
    without.sample.namespaces.retain(|netns| netns.label != "backup");
    state.model.take(without);
    assert!(text(&drawn(&mut state, &MONO, (80, 24))).contains("This namespace is gone"));
    press(&mut state, "\x1b\x1b");
    assert!(!state.detail && state.search.is_empty());
}
