//! `top` on a real terminal, with real namespaces and real traffic: what it shows is what was sent, to the packet.

use std::{fs, net::UdpSocket};

use monitor_tests::{
    agent::{Agent, run, run_well},
    host::{TestHost, inside, ip},
    ledger::Count,
    poll::{SOON, until, until_equal},
    scene::{Scene, ours},
    tmux::Tmux,
};
use serde_json::Value;

/// Looks often, at names alone: all tests share one `/proc`.
const TOP: &str = "$NM --watch.source named top --interval 0.2";

/// Sends datagrams of ten bytes from `blue` to a port of `red` that nobody listens on.
fn send(count: usize) {
    inside("blue", || {
        let socket = UdpSocket::bind("198.51.100.2:0").expect("a socket");
        for _ in 0..count {
            // An answer that nobody is there is told to the next call.
            while socket.send_to(&[0; 10], "198.51.100.3:9").is_err() {}
        }
    });
}

/// The words of the first line that begins with this.
fn words(screen: &str, start: &str) -> Vec<String> {
    let inside = |line: &str| line.trim_matches(|char: char| "│ ●○".contains(char)).to_owned();
    let line = screen.lines().map(inside).find(|line| line.starts_with(start));
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Packets received and sent in all, out of the line of a protocol.
fn totals(screen: &str, protocol: &str) -> [String; 2] {
    let words = words(screen, protocol);
    let [.., received, sent] = words.as_slice() else { return Default::default() };
    [received.clone(), sent.clone()]
}

/// What `blue` sent, by one look.
fn sent_in_all() -> u64 {
    let list: Value =
        serde_json::from_str(&run_well(&["top", "blue", "--once", "--json"]).stdout).expect("JSON");
    assert_eq!(list[0]["netns"], "blue");
    list[0]["counts"]["transmit"]["packets"].as_u64().expect("a number")
}

fn top(tmux: &Tmux) {
    tmux.line(&format!("stty -g > /run/before; {TOP}; echo ended $?; stty -g > /run/after"));
    tmux.until("both namespaces", |screen| screen.contains("blue") && screen.contains("red"));
}

/// The shell has its terminal back as it was.
fn is_given_back(tmux: &Tmux, code: u8) {
    tmux.until("the shell again", |screen| screen.contains(&format!("ended {code}")));
    assert!(!tmux.is_taken(), "{}", tmux.screen());
    let stty =
        |name: &str| until(SOON, name, || fs::read_to_string(name).ok().filter(|text| !text.is_empty()));
    assert_eq!(stty("/run/before"), stty("/run/after"));
    fs::remove_file("/run/after").expect("of the next time");
}

#[test]
fn what_it_shows_is_what_was_sent_and_every_key_does_what_the_help_says() {
    let mut scene = Scene::two(&[]);
    let tmux = Tmux::start(80, 24);
    top(&tmux);
    assert!(tmux.is_taken());
    let before = ours(&scene.agent.metrics(), "blue")[1].packets;
    send(40);
    until_equal(SOON, "forty datagrams", || (ours(&scene.agent.metrics(), "blue")[1].packets, before + 40));

    // One namespace alone: everything of it, to the packet. What came back says that nobody listens.
    tmux.press(&["/", "b", "l", "u"]);
    tmux.until("the search", |screen| screen.contains("/blu_   1 found"));
    tmux.press(&["Enter", "Enter"]);
    tmux.until("forty sent", |screen| totals(screen, "ipv4 udp") == ["0", "40"]);
    let classes = [("netns", "blue"), ("direction", "receive"), ("family", "ipv4"), ("protocol", "icmp")];
    let back = scene.agent.metrics().count("netns_protocol_packets_total", &classes);
    assert!(back > 0, "answers that nobody listens");
    tmux.until("what came back", |screen| totals(screen, "ipv4 icmp") == [back.to_string(), "0".to_owned()]);
    tmux.press(&["Escape"]);
    tmux.until("the table", |screen| screen.contains("NETNS"));
    tmux.press(&["Escape"]);
    tmux.until("both again", |screen| screen.contains("red") && !screen.contains("found"));

    // The other lost them, and it is said which, why, and what to look at.
    tmux.press(&["2", "/", "r", "e", "d", "Enter"]);
    let drops = tmux.until("the reason", |screen| {
        screen.contains("40 in all") && screen.contains("Nobody listens on the port the packet was for")
    });
    assert!(drops.contains("red: why packets were dropped") && drops.contains("look: ss -lntu"), "{drops}");
    let row = words(&drops, "red");
    assert_eq!(row[3], "40", "{drops}");
    tmux.press(&["Escape", "3"]);
    tmux.until("TCP", |screen| screen.contains("RESENT/s") && screen.contains("its TCP"));
    tmux.press(&["4"]);
    let agent = format!("agent {}", scene.agent.pid());
    tmux.until("the agent's cost", |screen| {
        screen.contains(&agent) && screen.contains(&format!("http://{}/metrics", scene.agent.address()))
    });
    tmux.press(&["m"]);
    tmux.until("run times", |screen| screen.contains("measured while this is open"));
    tmux.press(&["?"]);
    tmux.until("the help", |screen| screen.contains(" help ") && screen.contains("pause: nothing is read"));
    tmux.press(&["Escape", "1"]);

    // By name, and the other way round.
    tmux.until("traffic", |screen| screen.contains("TROUBLE"));
    tmux.press(&["S", "S", "S", "S", "S", "S", "S", "S"]);
    let order = |screen: &str| {
        let at = |name: &str| {
            screen.lines().position(|line| words(line, name).first().is_some_and(|word| word == name))
        };
        // The frame of the graph has a name in it too; the table is below it.
        at("blue").zip(at("red")).map(|(blue, red)| blue < red)
    };
    tmux.until("by name", |screen| screen.contains("NETNS▴") && order(screen) == Some(true));
    tmux.press(&["r"]);
    tmux.until("turned", |screen| screen.contains("NETNS▾") && order(screen) == Some(false));

    // Wider: more columns, and what is wrong of the one that one is at.
    tmux.resize(160, 50);
    tmux.until("the larger screen", |screen| screen.contains("all namespaces") && screen.contains("RX ALL"));
    tmux.resize(80, 24);
    tmux.until("the smaller one", |screen| !screen.contains("RX ALL") && screen.contains("NETNS▾"));

    // What comes and goes meanwhile.
    ip("netns add green");
    tmux.until("a new one", |screen| words(screen, "green").first().is_some_and(|word| word == "green"));
    ip("netns delete green");
    tmux.until("it is gone", |screen| !screen.contains("green"));

    tmux.press(&["q"]);
    is_given_back(&tmux, 0);
    // Without an agent it counts on, and it is said that none runs.
    assert_eq!(scene.agent.terminate().code(), Some(0));
    top(&tmux);
    tmux.until("no agent", |screen| screen.contains("no agent runs"));
    send(5);
    tmux.press(&["/", "b", "l", "u", "e", "Enter", "Enter"]);
    tmux.until("counted on", |screen| totals(screen, "ipv4 udp") == ["0", "45"]);
    tmux.press(&["C-c"]);
    is_given_back(&tmux, 0);
}

#[test]
fn a_pause_holds_and_a_signal_gives_the_terminal_back() {
    let _scene = Scene::two(&[]);
    let tmux = Tmux::start(80, 24);
    tmux.line(&format!("stty -g > /run/before; sh -c 'echo $$ > /run/pid; exec {TOP} blue'; echo ended $?; stty -g > /run/after"));
    tmux.until("blue", |screen| screen.contains("1 found"));
    tmux.press(&["Enter"]);
    let others = sent_in_all();
    send(3);
    tmux.until("three", |screen| totals(screen, "ipv4 udp") == ["0", "3"]);
    tmux.press(&["p"]);
    tmux.until("the pause", |screen| screen.contains("PAUSED"));
    send(4);
    // That look takes longer than the screen waits between two of its own.
    until(SOON, "seven for who looks", || (sent_in_all() == others + 7).then_some(()));
    for _ in 0..3 {
        // It draws anew at each key, and what it draws is what was.
        tmux.press(&["u"]);
        tmux.until("bits", |screen| screen.contains("b/s"));
        tmux.press(&["u"]);
        let screen = tmux.until("bytes", |screen| screen.contains("B/s"));
        assert_eq!(totals(&screen, "ipv4 udp"), ["0", "3"], "{screen}");
    }
    tmux.press(&["Space"]);
    tmux.until("seven", |screen| totals(screen, "ipv4 udp") == ["0", "7"] && !screen.contains("PAUSED"));
    let pid: i32 = fs::read_to_string("/run/pid").expect("its pid").trim().parse().expect("a number");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)
        .expect("a signal");
    is_given_back(&tmux, 0);
    // The search that was given is what it began with; colours are there, unless one wants none.
    let has_colour = |command: &str| {
        tmux.line("clear");
        tmux.line(command);
        tmux.until("blue", |screen| {
            screen.contains("blue") && !screen.contains("red") && screen.contains("found")
        });
        let coloured = tmux.coloured();
        tmux.press(&["q"]);
        tmux.until("its end", |screen| !screen.contains("found"));
        let codes = coloured.split("\x1b[").skip(1).filter_map(|rest| Some(rest.split_once('m')?.0));
        let mut codes = codes.flat_map(|codes| codes.split(';')).filter_map(|code| code.parse::<u8>().ok());
        codes.any(|code| matches!(code, 30..=38 | 40..=48 | 90..=107))
    };
    assert!(has_colour(&format!("{TOP} blue")));
    assert!(!has_colour(&format!("NO_COLOR=1 {TOP} blue")));
}

#[test]
fn one_look_is_what_ls_says_with_drops_and_tcp() {
    let scene = Scene::two(&[]);
    let [_, Count { packets, bytes }] = ours(&scene.agent.metrics(), "blue");
    send(9);
    let sent = Count { packets: packets + 9, bytes: bytes + 9 * 52 };
    until_equal(SOON, "nine", || (ours(&scene.agent.metrics(), "blue")[1], sent));
    scene.settle();
    let json = |args: &[&str]| -> Value { serde_json::from_str(&run_well(args).stdout).expect("JSON") };
    let (ls, mut once) = (json(&["ls", "--json"]), json(&["top", "--once", "--json"]));
    let red = once.as_array().expect("a list").iter().find(|netns| netns["netns"] == "red").expect("red");
    assert_eq!(red["drops"]["NO_SOCKET"], 9);
    assert_eq!(red["tcp"]["connect_failures"]["refused"]["total"], 0);
    for netns in once.as_array_mut().expect("a list") {
        let object = netns.as_object_mut().expect("an object");
        assert!(object.remove("drops").is_some() && object.remove("tcp").is_some());
    }
    assert_eq!(once, ls, "everything else is what `ls` says");
    let table = run_well(&["top", "--once"]).stdout;
    let of = |name: &str| words(&table, name);
    assert_eq!(of("blue")[4..6], [sent.packets.to_string(), sent.bytes.to_string()], "{table}");
    assert_eq!(of("red")[6], "9", "{table}");
    assert_eq!(run_well(&["top", "--once", "blu"]).stdout.lines().count(), 2);

    // Who is no terminal is told what to do instead.
    let outcome = run(&["top"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""));
    assert!(outcome.stderr.contains("top --once"), "{}", outcome.stderr);
    assert_eq!(run(&["top", "--json"]).code, Some(2));
    assert_eq!(run(&["top", "--interval", "0"]).code, Some(2));
}

#[test]
fn where_nothing_is_counted_it_says_what_to_do_and_shows_what_comes() {
    let host = TestHost::quiet();
    let tmux = Tmux::start(80, 24);
    tmux.line(&format!("{TOP}; echo ended $?"));
    tmux.until("nothing", |screen| screen.contains("There is no network namespace"));
    ip("netns add blue");
    tmux.until("it, and what is missing", |screen| {
        words(screen, "blue").first().is_some_and(|word| word == "blue")
            && screen.contains("start `netns-monitor agent`")
    });
    ip("link add v0 type veth peer name eth0 netns blue");
    let agent = Agent::start("", &[]);
    // No row of numbers, but a line: it is counted once the agent has it.
    tmux.until("it is counted", |screen| words(screen, "blue").get(1).is_some_and(|word| word == "0"));
    tmux.press(&["q"]);
    tmux.until("its end", |screen| screen.contains("ended 0"));
    // Nobody but root can enter namespaces.
    let path = monitor_tests::agent::binary();
    fs::copy(path, "/run/netns-monitor-of-all").expect("a copy that others can run");
    tmux.line("setpriv --reuid 65534 --clear-groups /run/netns-monitor-of-all top; echo ended $?");
    tmux.until("no rights", |screen| screen.contains("run it as root") && screen.contains("ended 3"));
    assert!(!tmux.is_taken());
    drop((tmux, agent, host));
}
