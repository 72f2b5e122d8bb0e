//! The API over real loopback sockets, from samples made by hand: no kernel feature, no privilege.

#[path = "support/server.rs"]
mod server;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use monitor::{
    export::{App, Hold, Holder, Holders, Limits, Read, Snapshot},
    sample::{
        AttachMode, ByDirection, ClassCounts, ContainerSample, Counts, IdentitySample, InterfaceSample,
        LinkSample, NetnsSample, NetnsState, OtherSample, Sample,
        lost::{Lost, PacketDrops, TcpHealth},
        wiring::{HostLink, Inside, Published, Wiring},
    },
    topology::{
        figures::{Connections, Conntrack, Figures},
        names::{Cookie, MacAddr},
    },
};
use monitor_ebpf::{
    class,
    health::{TcpCounts, failure, kind, role},
};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};
use serde_json::Value;

use server::{PATIENCE, Server, app, fixed};

const GOLDEN: &str = include_str!("golden/api.json");
/// A name that somebody chose to do harm.
const HOSTILE: &str = "<img src=x onerror=alert(1)>\"';\n& 100%";

// ---- shapes

/// Every answer, as one text: what is a contract shows in review when it changes.
#[test]
fn every_answer_is_as_it_was_promised() {
    let server = Server::serving(serving(fixed_read(snapshot())));
    let paths = [
        "/api/v1/status",
        "/api/v1/namespaces",
        "/api/v1/namespaces/blue",
        "/api/v1/namespaces/~host",
        "/api/v1/namespaces/blue/holders",
        "/api/v1/topology",
    ];
    let mut answers: BTreeMap<String, Value> =
        paths.into_iter().map(|path| (path.to_owned(), ask(&server, path))).collect();
    for path in ["/api/v1/namespaces/nobody", "/api/v1/namespaces?limit=x", "/api/v1/nothing"] {
        let answer = server.client().ask(&format!("GET {path} HTTP/1.1"));
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        let json = serde_json::from_str(&answer.text()).expect("JSON");
        answers.insert(format!("{path} {}", answer.code), json);
    }
    let mut events = Events::of(&server);
    let (name, json) = events.next().expect("an event");
    answers.insert(format!("/api/v1/events: {name}"), json);
    let text = format!("{:#}\n", serde_json::json!(answers)).replace(env!("CARGO_PKG_VERSION"), "VERSION");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/api.json");
        std::fs::write(golden, &text).expect("write the golden text");
    }
    let differs = text.lines().zip(GOLDEN.lines()).find(|(is, was)| is != was);
    let meant = "if this is meant: UPDATE_GOLDEN=1 cargo test -p monitor --test api";
    assert!(text == GOLDEN, "first at {differs:?}; {meant}");
}

#[test]
fn the_schema_names_every_field_that_is_answered() {
    let server = Server::serving(serving(fixed_read(snapshot())));
    let schema = ask(&server, "/api/v1/schema");
    for (path, of) in [
        ("/api/v1/status", "/api/v1/status"),
        ("/api/v1/namespaces", "/api/v1/namespaces?offset=N&limit=N&contains=TEXT"),
        ("/api/v1/namespaces/blue", "/api/v1/namespaces/{netns}"),
        ("/api/v1/namespaces/blue/holders", "/api/v1/namespaces/{netns}/holders"),
        ("/api/v1/topology", "/api/v1/topology?limit=N"),
        ("/api/v1/symptoms", "/api/v1/symptoms"),
    ] {
        let (root, answer) = (&schema[of], ask(&server, path));
        assert!(root.is_object(), "{of}");
        described(root, root, &answer, path);
    }
    // The twin: a field that is in no schema is found.
    let status = &schema["/api/v1/status"];
    let odd = serde_json::json!({ "version": "1", "surprise": 1 });
    assert!(std::panic::catch_unwind(|| described(status, status, &odd, "odd")).is_err());
}

/// Follows an answer through its schema.
fn described(root: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(path) = schema["$ref"].as_str() {
        let target = root.pointer(path.trim_start_matches('#')).expect(path);
        return described(root, target, value, at);
    }
    if let Some(ways) = schema["anyOf"].as_array() {
        // A null, or the one shape there is.
        let shape = ways.iter().find(|way| way["type"] != "null").expect("a shape");
        if !value.is_null() {
            described(root, shape, value, at);
        }
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let field = &schema["properties"][name];
                let field = if field.is_null() { &schema["additionalProperties"] } else { field };
                assert!(field.is_object(), "{at}: {name} is in no schema: {schema}");
                described(root, field, value, &format!("{at}.{name}"));
            }
        }
        Value::Array(values) => {
            values.iter().for_each(|value| described(root, &schema["items"], value, &format!("{at}[]")));
        }
        _ => {}
    }
}

#[test]
fn every_symptom_is_explained_and_those_of_an_answer_are_among_them() {
    let server = Server::serving(serving(fixed_read(snapshot())));
    let known = ask(&server, "/api/v1/symptoms");
    let names: Vec<_> = known.as_array().expect("a list").iter().map(|one| one["name"].clone()).collect();
    for name in
        ask(&server, "/api/v1/namespaces/blue")["row"]["symptoms"].as_object().expect("symptoms").keys()
    {
        assert!(names.contains(&name.as_str().into()), "{name}");
    }
    assert!(
        known
            .as_array()
            .expect("a list")
            .iter()
            .all(|one| one["says"].as_str().is_some_and(|s| s.len() > 10))
    );
}

#[test]
fn a_list_is_paged_and_searched_by_any_name() {
    let mut snapshot = Snapshot::default();
    snapshot.sample.namespaces = (0..7).map(|n| netns(&format!("n{n}"), n)).collect();
    snapshot.sample.namespaces[4].identity.pod = Some("the-pod".to_owned());
    let server = Server::serving(serving(fixed_read(snapshot)));
    let labels = |query: &str| -> (u64, Vec<String>) {
        let answer = ask(&server, &format!("/api/v1/namespaces{query}"));
        let rows = answer["namespaces"].as_array().expect("rows").clone();
        let label = |row: Value| row["netns"].as_str().expect("a label").to_owned();
        (answer["total"].as_u64().expect("a number"), rows.into_iter().map(label).collect())
    };
    assert_eq!(labels("?limit=2&offset=5"), (7, vec!["n5".to_owned(), "n6".to_owned()]));
    assert_eq!(labels("?offset=70"), (7, Vec::new()));
    assert_eq!(labels("?contains=the-p"), (1, vec!["n4".to_owned()]));
    assert_eq!(labels("?contains=n3"), (1, vec!["n3".to_owned()]));
    let topology = ask(&server, "/api/v1/topology?limit=3");
    assert_eq!((&topology["total"], topology["namespaces"].as_array().map(Vec::len)), (&7.into(), Some(3)));
}

#[test]
fn hostile_names_come_back_as_they_are_and_are_found_by_them() {
    let mut snapshot = snapshot();
    snapshot.sample.namespaces.push(netns(HOSTILE, 66));
    let server = Server::serving(serving(fixed_read(snapshot)));
    let path: String = HOSTILE.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer = server.client().ask(&format!("GET /api/v1/namespaces/{path} HTTP/1.1"));
    assert_eq!(answer.code, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let json: Value = serde_json::from_str(&answer.text()).expect("JSON");
    assert_eq!(json["row"]["netns"], HOSTILE);
    // In an event too: a line break in a name does not end its line of data.
    let (_, json) = Events::of(&server).next().expect("an event");
    assert!(json["namespaces"].as_array().expect("rows").iter().any(|row| row["netns"] == HOSTILE));
    let counts = server.requests.counts();
    assert_eq!(counts.get(&("/api/v1/namespaces/{netns}", 200)), Some(&1), "one label for all: {counts:?}");
}

#[test]
fn a_large_answer_is_compressed_when_asked_for() {
    let mut snapshot = Snapshot::default();
    snapshot.sample.namespaces = (0..1000).map(|n| netns(&format!("n{n}"), n)).collect();
    let server = Server::serving(serving(fixed_read(snapshot)));
    let answer = server.client().ask("GET /api/v1/namespaces HTTP/1.1\r\nAccept-Encoding: gzip");
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(answer.body.as_slice()).read_to_string(&mut text).expect("gzip");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["namespaces"].as_array().map(Vec::len), Some(1000));
}

// ---- one reading for all

#[test]
fn any_number_of_requests_share_one_reading() {
    let reads = Reads::default();
    let server = Server::serving(serving(reads.read()));
    assert_eq!(reads.count(), 0, "nobody looks");
    for _ in 0..5 {
        ask(&server, "/api/v1/namespaces");
        ask(&server, "/api/v1/status");
        ask(&server, "/api/v1/topology");
    }
    let in_time = server.requests.counts();
    // Fifteen requests may take longer than a second on a busy machine, and never fifteen seconds.
    assert!(reads.count() < 15, "{} readings for {in_time:?}", reads.count());
    let slow = Limits { reading: Duration::from_secs(3600), ..Limits::default() };
    let (reads, slow) = (Reads::default(), slow);
    let server = Server::serving(App { limits: slow, ..serving(reads.read()) });
    let mut watchers: Vec<_> = (0..5).map(|_| Events::of(&server)).collect();
    watchers.iter_mut().for_each(|events| assert_eq!(events.next().expect("an event").0, "all"));
    ask(&server, "/api/v1/namespaces/n0");
    assert_eq!(reads.count(), 1);
}

#[test]
fn events_tell_all_and_then_what_changed_exactly() {
    let reads = Reads::default();
    let server = Server::serving(App { limits: quick(), ..serving(reads.read()) });
    let mut events = Events::of(&server);
    let (name, all) = events.next().expect("an event");
    assert_eq!((name.as_str(), all["namespaces"].as_array().map(Vec::len)), ("all", Some(2)));
    let mut total = all["namespaces"][0]["receive"]["packets"].as_u64().expect("a count");
    let mut bytes = all["namespaces"][0]["receive"]["bytes"].as_u64().expect("a count");
    for packets in [1, 17, 4000] {
        reads.packets.fetch_add(packets, Ordering::SeqCst);
        let row = loop {
            let (name, change) = events.next().expect("an event");
            assert_eq!(name, "change");
            assert_eq!(change["gone"].as_array().map(Vec::len), Some(0));
            match change["changed"].as_array().expect("rows").as_slice() {
                // A tick between two packets.
                [] => {}
                [row] => break row.clone(),
                more => panic!("n1 did not change: {more:?}"),
            }
        };
        assert_eq!(row["netns"], "n0");
        assert_eq!(row["receive"]["packets"], total + packets);
        assert_eq!(row["receive"]["bytes"], bytes + 100 * packets);
        (total, bytes) = (total + packets, bytes + 100 * packets);
    }
    // One that comes later gets everything first, and the sum is the same.
    let (name, all) = Events::of(&server).next().expect("an event");
    assert_eq!((name.as_str(), &all["namespaces"][0]["receive"]["packets"]), ("all", &total.into()));
    reads.gone.store(1, Ordering::SeqCst);
    let gone = loop {
        let (_, change) = events.next().expect("an event");
        if change["gone"].as_array().is_some_and(|gone| !gone.is_empty()) {
            break change["gone"].clone();
        }
    };
    assert_eq!(gone, serde_json::json!(["n1"]));
}

#[test]
fn nothing_is_read_once_the_last_watcher_left_and_the_next_one_gets_everything() {
    let reads = Reads::default();
    let server = Server::serving(App { limits: quick(), ..serving(reads.read()) });
    let mut events = Events::of(&server);
    (0..3).for_each(|_| drop(events.next().expect("an event")));
    drop(events);
    // The server finds out when it writes; from then on the number stands still.
    let end = Instant::now() + PATIENCE;
    let mut stood = (reads.count(), Instant::now());
    while stood.1.elapsed() < Duration::from_millis(500) {
        assert!(Instant::now() < end, "still reading");
        if reads.count() != stood.0 {
            stood = (reads.count(), Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    reads.packets.fetch_add(5, Ordering::SeqCst);
    let (name, all) = Events::of(&server).next().expect("an event");
    assert_eq!((name.as_str(), &all["namespaces"][0]["receive"]["packets"]), ("all", &5.into()));
}

#[test]
fn who_cannot_read_the_counts_says_so_and_goes_on() {
    let reads = Reads::default();
    reads.failing.store(1, Ordering::SeqCst);
    let server = Server::serving(App { limits: quick(), ..serving(reads.read()) });
    let answer = server.client().ask("GET /api/v1/status HTTP/1.1");
    assert_eq!(answer.code, 500);
    assert!(!answer.text().contains("/sys/fs/bpf"), "no path of the host: {}", answer.text());
    let mut events = Events::of(&server);
    let (name, trouble) = events.next().expect("an event");
    assert_eq!(name, "trouble");
    assert!(!trouble.to_string().contains("/sys/fs/bpf"), "{trouble}");
    reads.failing.store(0, Ordering::SeqCst);
    while events.next().expect("an event").0 != "all" {}
}

#[test]
fn as_many_watch_as_may_and_a_seat_is_free_when_one_leaves() {
    let limits = Limits { watchers: 2, ..quick() };
    let server = Server::serving(App { limits, ..serving(Reads::default().read()) });
    let mut watchers = [Events::of(&server), Events::of(&server)];
    watchers.iter_mut().for_each(|events| drop(events.next().expect("an event")));
    let refused = server.client().ask("GET /api/v1/events HTTP/1.1");
    assert_eq!((refused.code, refused.header("retry-after")), (503, Some("5")));
    assert_eq!(ask(&server, "/api/v1/status")["ready"], true, "the rest is served all the same");
    drop(watchers);
    let end = Instant::now() + PATIENCE;
    while Events::of(&server).next().is_none() {
        assert!(Instant::now() < end, "no seat came free");
    }
}

#[test]
fn a_watcher_gives_its_seat_to_who_asks() {
    let limits = Limits { connections: 1, ..quick() };
    let server = Server::serving(App { limits, ..serving(Reads::default().read()) });
    let mut events = Events::of(&server);
    drop(events.next().expect("an event"));
    // Between two events it is idle; while one is written the seat is busy.
    let end = Instant::now() + PATIENCE;
    while server.client().try_ask("GET /metrics HTTP/1.1").is_none() {
        assert!(Instant::now() < end, "the scraper is locked out");
    }
    while events.next().is_some() {}
}

#[test]
fn watchers_end_when_the_server_stops() {
    let mut server = Server::serving(App { limits: quick(), ..serving(Reads::default().read()) });
    let mut events = Events::of(&server);
    drop(events.next().expect("an event"));
    // One that has not got its first event yet, too.
    let slow = Limits { reading: Duration::from_secs(3600), ..Limits::default() };
    let mut waiting = Server::serving(App { limits: slow, ..serving(Reads::default().read()) });
    let mut second = Events::of(&waiting);
    drop(second.next().expect("an event"));
    let start = Instant::now();
    server.stop();
    waiting.stop();
    while events.next().is_some() {}
    assert!(second.next().is_none());
    server.wait();
    waiting.wait();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_watcher_that_reads_nothing_is_cut_off_and_holds_nobody_up() {
    // More than the kernel's buffers of both sides hold.
    let mut snapshot = Snapshot::default();
    snapshot.sample.namespaces = vec![netns(&"x".repeat(12 << 20), 1)];
    let limits = Limits { watchers: 1, write: Duration::from_millis(800), ..quick() };
    let server = Server::serving(App { limits, ..serving(fixed_read(snapshot)) });
    let mut asleep = server.connect();
    // Or its buffer would grow to what this machine allows.
    setsockopt(&asleep, RcvBuf, &4096).expect("a small buffer");
    asleep.write_all(b"GET /api/v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("send");
    while asleep.peek(&mut [0]).expect("the beginning") == 0 {}
    assert!(Events::of(&server).next_text().is_none(), "it has the only place");
    let end = Instant::now() + PATIENCE;
    while Events::of(&server).next_text().is_none() {
        assert!(Instant::now() < end, "it still has");
    }
}

// ---- holders

#[test]
fn one_look_for_holders_at_a_time_and_the_next_one_after_a_rest() {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let hold: Hold = Arc::new(move |inode| {
        counted.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(inode, 4_026_532_001);
            Ok(holders())
        })
    });
    let server = Server::serving(App { hold, ..serving(fixed_read(snapshot())) });
    let path = "/api/v1/namespaces/blue/holders";
    assert_eq!(ask(&server, path)["holders"][0]["program"], "nginx");
    let refused = server.client().ask(&format!("GET {path} HTTP/1.1"));
    assert_eq!((refused.code, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(looks.load(Ordering::SeqCst), 1);
    let end = Instant::now() + PATIENCE;
    while server.client().ask(&format!("GET {path} HTTP/1.1")).code != 200 {
        assert!(Instant::now() < end, "never again");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(looks.load(Ordering::SeqCst), 2);
    assert_eq!(server.client().ask("GET /api/v1/namespaces/nobody/holders HTTP/1.1").code, 404);
}

// ---- what is served

fn serving(snapshot: Read) -> App {
    let hold: Hold = Arc::new(|_| Box::pin(async { Ok(holders()) }));
    App { snapshot, hold, ..app(fixed("")) }
}

fn quick() -> Limits {
    Limits { reading: Duration::from_millis(20), ..Limits::default() }
}

fn fixed_read(snapshot: Snapshot) -> Read {
    Arc::new(move || {
        let snapshot = snapshot.clone();
        Box::pin(async { Ok(snapshot) })
    })
}

/// Two namespaces, the first of which got so many packets of 100 bytes.
#[derive(Clone, Default)]
struct Reads {
    packets: Arc<AtomicU64>,
    reads: Arc<AtomicUsize>,
    /// How many are gone.
    gone: Arc<AtomicUsize>,
    failing: Arc<AtomicUsize>,
}

impl Reads {
    fn count(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    fn read(&self) -> Read {
        let this = self.clone();
        Arc::new(move || {
            this.reads.fetch_add(1, Ordering::SeqCst);
            let snapshot = this.snapshot();
            Box::pin(async { snapshot })
        })
    }

    fn snapshot(&self) -> Result<Snapshot, String> {
        if self.failing.load(Ordering::SeqCst) > 0 {
            return Err("open /sys/fs/bpf/netns-monitor: denied".to_owned());
        }
        let mut snapshot = Snapshot::default();
        let left = 2 - self.gone.load(Ordering::SeqCst);
        snapshot.sample.namespaces = (0..left).map(|n| netns(&format!("n{n}"), n as u64)).collect();
        let packets = self.packets.load(Ordering::SeqCst);
        snapshot.sample.namespaces[0].interfaces.push(interface("eth0", counts(packets, 0)));
        Ok(snapshot)
    }
}

fn holders() -> Holders {
    let holder = |kind, at: &str| Holder {
        kind,
        pid: Some(7),
        uid: Some(33),
        program: Some("nginx".to_owned()),
        at: at.to_owned(),
    };
    Holders {
        holders: vec![holder("process", "2 threads"), holder("socket", "fd 3")],
        notes: vec!["process 9: not allowed".to_owned()],
    }
}

fn snapshot() -> Snapshot {
    let mut blue = netns("blue", 8030);
    blue.inode = Some(4_026_532_001);
    blue.owned = true;
    blue.identity = IdentitySample {
        aliases: vec![("named", "blue".to_owned()), ("mount", "/run/elsewhere/b".to_owned())],
        containers: vec![ContainerSample {
            runtime: "docker",
            id: "0123456789ab".to_owned(),
            name: Some("web".to_owned()),
        }],
        pod: None,
        unit: Some("web.service".to_owned()),
    };
    let mut eth0 = interface("eth0", counts(5, 3));
    eth0.uncounted = Some(ByDirection { receive: 0, transmit: 2 });
    blue.interfaces = vec![eth0];
    blue.drops = [("input", 4)].into();
    let mut red = netns("red", 8031);
    red.state = NetnsState::Detached;
    let mut down = interface("eth0", counts(0, 0));
    (down.counts, down.mode) = (None, None);
    down.link.as_mut().expect("a link").running = false;
    red.interfaces = vec![down];
    let mut tcp = TcpCounts { opened: [0; 2], ..TcpCounts::default() };
    tcp.opened[role::CLIENT] = 6;
    tcp.failures[failure::REFUSED] = 3;
    tcp.retransmits[kind::FAST] = 2;
    tcp.resets = [1, 0];
    tcp.rtt.buckets[3] = 6;
    tcp.handshakes[role::CLIENT].buckets[2] = 6;
    let reasons = [("NO_SOCKET".to_owned(), 7), ("TCP_OLD_ACK".to_owned(), 9)];
    let drops =
        [("blue".to_owned(), reasons.into()), ("~host".to_owned(), [("NEIGH_FAILED".to_owned(), 1)].into())];
    let mut connections = Connections::default();
    [1, 1, 10].into_iter().for_each(|state| connections.add(state));
    let figures = Figures {
        overflows: [("udp_receive", 5), ("tcp_listen", 0)].into(),
        conntrack: Some(Conntrack { entries: 5, limit: 100, ..Conntrack::default() }),
        connections: Some(connections),
        ..Figures::default()
    };
    let mut sample = Sample {
        namespaces: vec![red, blue],
        other: OtherSample { namespaces: 3, counts: Some(counts(1, 1)) },
        lost: Lost {
            drops: Some(PacketDrops { netns: drops.into(), missed: 0 }),
            tcp: Some(TcpHealth { netns: [("blue".to_owned(), tcp)].into(), missed: 0, attached: [true; 5] }),
            figures: [("blue".to_owned(), figures)].into(),
        },
        ..Sample::default()
    };
    (sample.agent.mode, sample.agent.pinned) = (Some(AttachMode::Tcx), true);
    sample.agent.unattached = 1;
    Snapshot {
        time: 1_764_000_000.5,
        host: "box".to_owned(),
        unready: Some("1 interfaces are not counted".to_owned()),
        sample,
        wiring: wiring(),
    }
}

fn wiring() -> Wiring {
    let addresses = |list: &[&str]| list.iter().map(|address| address.parse().expect("an address")).collect();
    let link = |name: &str, kind: &str| HostLink {
        name: name.to_owned(),
        kind: kind.to_owned(),
        running: true,
        owned: true,
        bridge: None,
        isolated: false,
        nat: false,
        addresses: Vec::new(),
    };
    let inside = Inside {
        addresses: [("eth0".to_owned(), addresses(&["198.51.100.2/24", "2001:db8::2/64"]))].into(),
        routes: vec!["default via 198.51.100.1 dev eth0".to_owned()],
    };
    Wiring {
        links: vec![
            HostLink { bridge: Some("nm0".to_owned()), isolated: true, ..link("eth0-host", "veth") },
            HostLink { nat: true, addresses: addresses(&["198.51.100.1/24"]), ..link("nm0", "bridge") },
            HostLink { owned: false, addresses: addresses(&["192.0.2.7/24"]), ..link("uplink", "") },
        ],
        routes: vec!["default via 192.0.2.1 dev uplink".to_owned()],
        forwards_ipv4: true,
        forwards_ipv6: false,
        inside: [(Cookie(8030), inside)].into(),
        published: vec![Published { netns: "blue".to_owned(), port: "8080:80/tcp".to_owned() }],
    }
}

fn netns(label: &str, cookie: u64) -> NetnsSample {
    NetnsSample {
        label: label.to_owned(),
        cookie: Cookie(cookie),
        inode: None,
        state: NetnsState::Named,
        owned: false,
        identity: IdentitySample::default(),
        interfaces: Vec::new(),
        retired: Counts::default(),
        drops: BTreeMap::new(),
    }
}

fn interface(name: &str, counts: Counts) -> InterfaceSample {
    InterfaceSample {
        name: name.to_owned(),
        counts: Some(counts),
        mode: Some(AttachMode::Tcx),
        link: Some(LinkSample {
            ifindex: 2,
            kind: "veth".to_owned(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 0x1f])),
            mtu: 1500,
            running: true,
            peer_interface: Some(format!("{name}-host")),
            peer_netns: Some(String::new()),
            drops: ByDirection { receive: 4, transmit: 5 },
            errors: ByDirection { receive: 0, transmit: 6 },
        }),
        uncounted: None,
    }
}

/// TCP packets of 100 bytes received, and of ARP sent.
fn counts(received: u64, sent: u64) -> Counts {
    let mut counts = Counts::default();
    for (direction, class, packets) in
        [(&mut counts.receive, class::IPV4 + class::TCP, received), (&mut counts.transmit, class::ARP, sent)]
    {
        let bytes = packets * 100;
        direction.classes[class].add(&ClassCounts { skbs: packets, skb_bytes: bytes, packets, bytes });
        direction.sizes[1] += packets;
    }
    counts
}

// ---- the client

fn ask(server: &Server, path: &str) -> Value {
    let answer = server.client().ask(&format!("GET {path} HTTP/1.1"));
    assert_eq!(answer.code, 200, "{path}: {}", answer.text());
    serde_json::from_str(&answer.text()).expect("JSON")
}

/// Events by HTTP/1.0, whose answer is as it is and ends with the connection.
struct Events(BufReader<std::net::TcpStream>);

impl Events {
    fn of(server: &Server) -> Self {
        let mut connection = server.connect();
        connection.write_all(b"GET /api/v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("send");
        Self(BufReader::new(connection))
    }

    /// The next one, with its name; none when the server has ended the connection, or refused.
    fn next(&mut self) -> Option<(String, Value)> {
        let (name, data) = self.next_text()?;
        Some((name, serde_json::from_str(&data).expect("JSON")))
    }

    /// The same, its data unread.
    fn next_text(&mut self) -> Option<(String, String)> {
        let mut name = String::new();
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).ok()?;
            if read == 0 || line.starts_with("HTTP/1.0 503") {
                return None;
            }
            if let Some(event) = line.strip_prefix("event: ") {
                name = event.trim_end().to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((name, data.to_owned()));
            }
        }
    }
}
