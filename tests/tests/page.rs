//! The live page in a real browser: the agent's own, and the server's with a thousand namespaces made by hand.

use std::{
    net::{Ipv4Addr, UdpSocket},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use monitor::{
    export::{App, Holders, Limits, Snapshot, serve},
    metrics::Collectors,
    sample::{
        AttachMode, ByDirection, ClassCounts, Counts, InterfaceSample, LinkSample, NetnsSample, NetnsState,
        lost::{Lost, PacketDrops, TcpHealth},
        wiring::{HostLink, Wiring},
    },
    topology::names::Cookie,
};
use monitor_tests::{
    agent::Agent,
    browser::Browser,
    host::{TestHost, inside, ip, spawn_inside},
    http,
    ledger::{Ledger, wire},
    poll::{SOON, until},
    scene::{Scene, know_each_other, silence},
    traffic::{send_every_class, tcp_transfer},
};
use serde_json::json;
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot};

const LATE: Duration = Duration::from_secs(2);

/// What the text of a cell of a namespace's row is.
fn cell(netns: &str, column: &str) -> String {
    format!(
        "([...document.querySelectorAll('#rows tr')].find((row) => row.querySelector('.name').textContent === {})\
         ?.querySelector('{column}')?.textContent ?? '')",
        json!(netns)
    )
}

fn address(agent: &Agent) -> String {
    format!("http://{}/", agent.address())
}

/// A picture for a person to look at, where `PAGE_PICTURES` says so.
fn picture(browser: &mut Browser, name: &str) {
    if let Some(folder) = std::env::var_os("PAGE_PICTURES") {
        browser.picture(&PathBuf::from(folder).join(format!("{name}.png")));
    }
}

#[test]
fn a_packet_that_is_sent_now_is_seen_within_two_seconds_exactly_and_the_console_is_silent() {
    let scene = Scene::two(&[]);
    let mut browser = Browser::start(1400, 900);
    browser.open(&address(&scene.agent));
    browser.until("it is live", "document.querySelector('#live').dataset.state === 'live'");
    let shown = |browser: &mut Browser| -> u64 {
        let text = browser.eval(&cell("blue", ".transmit .total"));
        text.as_str().unwrap_or_default().replace(',', "").parse().unwrap_or(0)
    };
    browser.until("a row", &cell("blue", ".transmit .total"));
    let before = wire(&scene.agent.metrics(), "blue", "eth0", "transmit").packets;
    until(SOON, "what was before", || (shown(&mut browser) == before).then_some(()));
    for _ in 0..3 {
        let before = shown(&mut browser);
        let mut sent = Ledger::new();
        inside("blue", || send_every_class("eth0", 3, &mut sent));
        let start = Instant::now();
        until(SOON, "what was sent", || (shown(&mut browser) == before + sent.total().packets).then_some(()));
        assert!(start.elapsed() < LATE, "{:?}", start.elapsed());
    }
    // The picture has the bridge, both namespaces and a way to each.
    browser.until("the picture", "document.querySelectorAll('#picture .tile').length === 2");
    let text = browser.eval("document.querySelector('#picture').textContent");
    for word in ["nm0", "blue", "red", "198.51.100.2/24"] {
        assert!(text.as_str().is_some_and(|text| text.contains(word)), "{word} in {text}");
    }
    assert_eq!(browser.complaints(), [""; 0]);
    // The twin: what the policy forbids is a complaint.
    browser
        .eval("document.head.append(Object.assign(document.createElement('script'), { textContent: '1' }))");
    assert_eq!(browser.complaints().len(), 1);
    // Two watch by one reading.
    let answer = http::get(scene.agent.address(), "/api/v1/namespaces/blue").expect("an answer");
    assert!(answer.body.contains("\"netns\":\"blue\""), "{}", answer.body);
}

/// Datagrams to a port where nobody listens, until dropped.
struct Astray {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Astray {
    fn start(from: &str, to: (Ipv4Addr, u16)) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = spawn_inside(from, move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
            while !stopped.load(Ordering::Relaxed) {
                // What comes back, that nobody listens, is an error of the next send.
                let _refused = socket.send_to(b"lost", to);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Astray {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("once").join().expect("its thread");
    }
}

#[test]
fn the_sick_one_stands_on_top_with_its_reason_and_its_page_tells_all() {
    let scene = Scene::two(&[]);
    let lost = Astray::start("blue", (Ipv4Addr::new(198, 51, 100, 3), 9));
    let mut browser = Browser::start(1400, 900);
    browser.open(&address(&scene.agent));
    let first = "(document.querySelector('#sick li')?.textContent ?? '')";
    let said = browser.until("somebody is sick", &format!("{first}.includes('red') && {first}"));
    let said = said.as_str().expect("text").to_owned();
    assert!(said.contains("NO_SOCKET") && said.contains("Nobody listens on the port"), "{said}");
    assert!(said.contains("ss -lntu"), "what to look at next: {said}");
    browser.point(700, 5);
    browser.until("it is the first row", "document.querySelector('#rows .name').textContent === 'red'");
    assert_eq!(browser.eval("document.querySelector('#rows tr').className"), "bad");
    browser.until("it is said", "document.querySelector('#said').textContent.includes('red')");
    picture(&mut browser, "sick");
    // By the keyboard alone: the list's link, and what it leads to.
    browser.eval("document.querySelector('#sick a').focus()");
    browser.key("Enter");
    browser.until(
        "the detail",
        "location.hash === '#/netns/red' && document.querySelector('#detail h1')?.textContent === 'red'",
    );
    browser.until(
        "its interfaces",
        "document.querySelector('#detail .grid')?.textContent.includes('198.51.100.3/24')",
    );
    browser.until("its protocols", "document.querySelector('#detail').textContent.includes('ipv4 udp')");
    browser.until(
        "its losses",
        "document.querySelector('#detail details.loss')?.textContent.includes('NO_SOCKET')",
    );
    browser.eval("document.querySelector('#detail details.loss summary').click()");
    browser.until("it stays open", "document.querySelector('#detail details.loss').open");
    // Who holds it: this test's own thread is inside, by a descriptor for one.
    let held = std::fs::File::open("/run/netns/red").expect("a descriptor");
    browser.eval("document.querySelector('#detail .press').click()");
    browser.until("who holds it", "document.querySelector('#detail').textContent.includes('descriptor')");
    drop(held);
    picture(&mut browser, "detail");
    browser.key("Escape");
    browser.until("the overview", "location.hash === '#/' && !document.querySelector('#overview').hidden");
    drop(lost);
    browser.until("it is well again", "document.querySelectorAll('#sick li').length === 0");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn it_sorts_filters_and_leads_by_address_with_the_keyboard() {
    let host = TestHost::quiet();
    let names = ["a-1", "a-2", "a-10", "b"];
    let file: String = names.iter().map(|name| format!("[[namespace]]\nname = \"{name}\"\n")).collect();
    let agent = Agent::start(&file, &[]);
    let mut browser = Browser::start(1200, 800);
    browser.open(&address(&agent));
    let rows = "[...document.querySelectorAll('#rows .name')].map((one) => one.textContent).filter((name) => name[0] !== '~').join(' ')";
    browser.until("all rows", &format!("{rows}.split(' ').length === 4"));
    let sorted = |browser: &mut Browser, how: &str, expected: &str| {
        let said = "document.querySelector('th.netns').getAttribute('aria-sort')";
        browser.until(expected, &format!("{rows} === '{expected}' && {said} === '{how}'"));
    };
    // Nothing moves any more when both are there.
    browser.until("the picture", "document.querySelector('#picture svg') !== null");
    browser.until(
        "the second reading",
        "document.querySelector('#calm').textContent.startsWith('Nothing is lost')",
    );
    browser.click("th.netns button");
    sorted(&mut browser, "ascending", "a-1 a-2 a-10 b");
    // By the keyboard: the button has the focus.
    browser.key("Enter");
    sorted(&mut browser, "descending", "b a-10 a-2 a-1");
    // The key that leads to the filter, and from there into the rows.
    browser.key("Escape");
    browser.eval("document.activeElement.blur()");
    browser.key("/");
    assert_eq!(browser.eval("document.activeElement.id"), "filter");
    browser.type_text("a-1");
    browser.until("the filter", &format!("{rows} === 'a-10 a-1'"));
    assert_eq!(browser.eval("location.hash"), "#/?q=a-1&sort=netns");
    browser.key("ArrowDown");
    assert_eq!(browser.eval("document.activeElement.textContent"), "a-10");
    browser.key("ArrowDown");
    assert_eq!(browser.eval("document.activeElement.textContent"), "a-1");
    assert_ne!(
        browser.eval("getComputedStyle(document.activeElement).outlineStyle"),
        "none",
        "the focus is seen"
    );
    // It stays there while events come.
    let tick = "document.querySelector('#live').dataset.state === 'live' && new Promise((done) => setTimeout(() => done(true), 1500))";
    browser.until("an event", tick);
    assert_eq!(browser.eval("document.activeElement.textContent"), "a-1");
    browser.key("Enter");
    browser.until("the detail", "document.querySelector('#detail h1')?.textContent === 'a-1'");
    // The address leads there again, and the title says where.
    let url = browser.eval("location.href").as_str().expect("an address").to_owned();
    browser.open("about:blank");
    browser.open(&url);
    browser.until("the detail again", "document.querySelector('#detail h1')?.textContent === 'a-1'");
    browser.until("its title", "document.title.startsWith('a-1 · ')");
    let labels = "[...document.querySelectorAll('button, input, select')].filter((one) => !(one.textContent || one.labels?.length)).length";
    assert_eq!(browser.eval(labels), 0, "everything that is operated has a name");
    assert_eq!(browser.complaints(), [""; 0]);
    drop((browser, agent, host));
}

#[test]
fn names_made_to_do_harm_are_only_text() {
    let host = TestHost::quiet();
    let hostile = "<img src=x onerror=document.title=1>";
    // By hand: `ip netns add` takes such a name too.
    let made = std::process::Command::new("ip").args(["netns", "add", hostile]).status().expect("ip");
    assert!(made.success());
    let agent = Agent::start("", &["--watch.source", "named,mount"]);
    let mut browser = Browser::start(1200, 800);
    browser.open(&address(&agent));
    browser.until("a row of it", "document.querySelector('#rows')?.textContent.includes('onerror')");
    browser.until("in the picture", "document.querySelector('#picture svg') !== null");
    browser.eval("document.querySelector('#rows .name').focus()");
    browser.key("Enter");
    browser.until("its page", "document.querySelector('#detail h1')?.textContent.includes('onerror')");
    browser.until("its figures", "document.querySelector('#detail .identity') !== null");
    assert_eq!(browser.eval("document.querySelectorAll('img[src=x]').length"), 0);
    assert_ne!(browser.eval("document.title"), "1");
    assert_eq!(browser.complaints(), [""; 0]);
    drop((browser, agent));
    let gone = std::process::Command::new("ip").args(["netns", "delete", hostile]).status().expect("ip");
    assert!(gone.success());
    drop(host);
}

#[test]
fn an_empty_host_says_what_to_do_and_an_agent_that_comes_back_is_found_again() {
    let host = TestHost::quiet();
    let mut agent = Agent::spawn("", &["--web.listen-address", "127.0.0.1:10490"]);
    agent.wait_ready();
    let mut browser = Browser::start(1200, 800);
    browser.open("http://127.0.0.1:10490/");
    let empty = "!document.querySelector('#empty').hidden && document.querySelector('#empty').innerText";
    let said = browser.until("what to do", empty);
    assert!(said.as_str().is_some_and(|text| text.contains("netns-monitor demo")), "{said}");
    picture(&mut browser, "empty");
    assert_eq!(browser.complaints(), [""; 0]);
    // By an event, without a reload.
    ip("netns add blue");
    browser.until(
        "the first row",
        &format!("document.querySelector('#empty').hidden && {}", cell("blue", ".name")),
    );
    assert_eq!(agent.terminate().code(), Some(0));
    browser.until("it is gone", "document.querySelector('#live').dataset.state === 'gone'");
    let notice = browser.eval("document.querySelector('#notice').textContent");
    assert!(notice.as_str().is_some_and(|text| text.contains("trying again")), "{notice}");
    assert_eq!(browser.eval(&cell("blue", ".name")), "blue", "what was known is still shown");
    assert_eq!(browser.eval("document.querySelector('#said').textContent"), "The agent is gone.");
    picture(&mut browser, "gone");
    agent.restart();
    browser.until("it is back", "document.querySelector('#live').dataset.state === 'live'");
    browser.until("it says no more", "document.querySelector('#notice').hidden");
    let complaints = browser.complaints();
    let refused = |complaint: &String| complaint.contains("ERR_");
    assert!(complaints.iter().all(refused), "nothing but connections that were refused: {complaints:?}");
    ip("netns delete blue");
    drop((browser, agent, host));
}

// ---- a thousand

const THOUSAND: u64 = 1000;

/// A server with a thousand namespaces on four bridges, in each of which packets come at every reading; `n500` loses some.
struct Thousand {
    address: std::net::SocketAddr,
    readings: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    runtime: Option<Runtime>,
}

impl Thousand {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let readings = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&readings);
        let app = App {
            metrics: Arc::new(|_| Box::pin(async { Ok(Vec::new()) })),
            collectors: Collectors::all(),
            snapshot: Arc::new(move || {
                let reading = count.fetch_add(1, Ordering::Relaxed);
                Box::pin(async move { Ok(snapshot(reading)) })
            }),
            hold: Arc::new(|_| Box::pin(async { Ok(Holders::default()) })),
            ready: Arc::new(|| Ok(())),
            requests: Arc::default(),
            limits: Limits::default(),
        };
        runtime.spawn(serve(vec![listener], app, async {
            let _dropped = stopped.await;
        }));
        Self { address, readings, stop: Some(stop), runtime: Some(runtime) }
    }
}

impl Drop for Thousand {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.runtime.take().expect("once").shutdown_timeout(SOON);
    }
}

fn snapshot(reading: u64) -> Snapshot {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs_f64();
    let mut snapshot = Snapshot { time: now, host: "box".to_owned(), ..Snapshot::default() };
    let counts = |n: u64, factor: u64| {
        let mut counts = Counts::default();
        for (direction, share) in [(&mut counts.receive, 1), (&mut counts.transmit, 2)] {
            let packets = reading * (n % 97) * factor / share;
            let bytes = packets * 800;
            direction.classes[n as usize % 5].add(&ClassCounts {
                skbs: packets,
                skb_bytes: bytes,
                packets,
                bytes,
            });
            direction.sizes[4] = packets;
        }
        counts
    };
    let one = |n: u64| NetnsSample {
        label: format!("n{n}"),
        cookie: Cookie(n + 1),
        inode: Some(n),
        state: NetnsState::Named,
        owned: true,
        identity: Default::default(),
        interfaces: vec![InterfaceSample {
            name: "eth0".to_owned(),
            counts: Some(counts(n, 3)),
            mode: Some(AttachMode::Tcx),
            link: Some(LinkSample {
                ifindex: 2,
                kind: "veth".to_owned(),
                mac: None,
                mtu: 1500,
                running: true,
                peer_interface: Some(format!("h{n}")),
                peer_netns: Some(String::new()),
                drops: ByDirection::default(),
                errors: ByDirection::default(),
            }),
            uncounted: None,
        }],
        retired: Counts::default(),
        drops: Default::default(),
    };
    snapshot.sample.namespaces = (0..THOUSAND).map(one).collect();
    let reasons = [("SOCKET_RCVBUFF".to_owned(), reading * 40)].into();
    snapshot.sample.lost = Lost {
        drops: Some(PacketDrops { netns: [("n500".to_owned(), reasons)].into(), missed: 0 }),
        tcp: Some(TcpHealth::default()),
        ..Lost::default()
    };
    let link = |name: String, bridge: Option<String>| HostLink {
        kind: if bridge.is_some() { "veth" } else { "bridge" }.to_owned(),
        name,
        running: true,
        owned: true,
        bridge,
        isolated: false,
        nat: false,
        addresses: Vec::new(),
    };
    let bridges = (0..4).map(|n| link(format!("nm{n}"), None));
    let ports = (0..THOUSAND).map(|n| link(format!("h{n}"), Some(format!("nm{}", n % 4))));
    snapshot.wiring = Wiring { links: bridges.chain(ports).collect(), ..Wiring::default() };
    snapshot
}

#[test]
fn a_thousand_namespaces_are_shown_without_haste() {
    let host = TestHost::quiet();
    let server = Thousand::start();
    let mut browser = Browser::start(1400, 900);
    let start = Instant::now();
    browser.open(&format!("http://{}/", server.address));
    browser.until("all of them", "document.querySelector('#shown').textContent === '1,000'");
    let shown = start.elapsed();
    // Without haste on a busy machine, and far from what a row for each would take.
    assert!(shown < Duration::from_secs(10), "{shown:?}");
    browser.until("rates", "document.querySelector('#rows .receive .now').textContent.endsWith('/s')");
    browser.until("the sick one", "document.querySelector('#rows .name').textContent === 'n500'");
    assert!(
        browser.eval("document.querySelectorAll('#rows tr').length").as_u64() < Some(60),
        "only what is seen"
    );
    assert_eq!(browser.eval("document.querySelector('#table').getAttribute('aria-rowcount')"), "1001");
    // Of each bridge a dozen and the rest as one, whose rule is said.
    browser.until("the picture", "document.querySelectorAll('#picture .tile').length === 4 * 13");
    assert!(
        browser
            .eval("document.querySelector('#rule').textContent")
            .as_str()
            .is_some_and(|text| text.contains("At most 12"))
    );
    let drawn = "document.querySelector('#picture .tile.bad')?.textContent.includes('n500')";
    browser.until("the sick one among them", drawn);
    browser.until(
        "what the rest sums to",
        "document.querySelector('#picture .rest .flow').textContent.includes('↓')",
    );
    picture(&mut browser, "thousand");
    // Some events of it, each of which changes all: how long is the page at work for one?
    let (before, began, events) = (browser.busy(), Instant::now(), server.readings.load(Ordering::Relaxed));
    until(SOON, "two more events", || (server.readings.load(Ordering::Relaxed) >= events + 2).then_some(()));
    let read = server.readings.load(Ordering::Relaxed) - events;
    let busy = (browser.busy() - before) / u32::try_from(read).expect("a few");
    println!(
        "shown after {shown:?}, {busy:?} of work for an event that changes all, {:?} for two",
        began.elapsed()
    );
    assert!(busy < Duration::from_millis(100), "{busy:?}");
    // It goes to the end and back, and the filter answers.
    browser.eval("document.querySelector('#scroll').scrollTop = 1e6");
    browser.until("the last row", "[...document.querySelectorAll('#rows tr')].some((row) => row.getAttribute('aria-rowindex') === '1001')");
    browser.eval("document.querySelector('#rows .name').focus()");
    browser.key("Home");
    browser.until(
        "the first row",
        "document.activeElement.closest('tr')?.getAttribute('aria-rowindex') === '2'",
    );
    browser.key("End");
    browser.until(
        "the last row again",
        "document.activeElement.closest('tr')?.getAttribute('aria-rowindex') === '1001'",
    );
    browser.eval("document.querySelector('#filter').focus()");
    browser.type_text("nm2 n99");
    browser.until("those on one bridge", "document.querySelector('#shown').textContent === '3 of 1,000'");
    assert_eq!(browser.complaints(), [""; 0]);
    drop((browser, server, host));
}

// ---- to look at

/// What a container host is like, for the pictures: it is all there in both colours, and narrow, without a bar at the bottom.
const MANY: &str = r#"
[[bridge]]
name = "nm0"
subnet = "198.51.100.0/24"
nat = true

[[bridge]]
name = "nm1"
subnet = "203.0.113.0/24"

[[namespace]]
name = "web"
interface = [{ name = "eth0", bridge = "nm0", address = "198.51.100.10/24" }, { name = "eth1", bridge = "nm1", address = "203.0.113.10/24" }]
route = [{ to = "default", via = "198.51.100.1" }]
publish = ["8080:80/tcp"]

[[namespace]]
name = "api"
interface = [{ name = "eth0", bridge = "nm0", address = "198.51.100.11/24" }]

[[namespace]]
name = "queue"
interface = [{ name = "eth0", bridge = "nm0", address = "198.51.100.12/24" }]

[[namespace]]
name = "mail"
interface = [{ name = "eth0", bridge = "nm0", address = "198.51.100.13/24" }]

[[namespace]]
name = "db"
interface = [{ name = "eth0", bridge = "nm1", address = "203.0.113.11/24" }]

[[namespace]]
name = "cache"
interface = [{ name = "eth0", bridge = "nm1", address = "203.0.113.12/24" }]

[[veth]]
a = { name = "sync0", namespace = "db", address = "192.0.2.1/30" }
b = { name = "sync0", namespace = "cache", address = "192.0.2.2/30" }
"#;

#[test]
fn light_dark_and_narrow_all_fit() {
    let host = TestHost::quiet();
    ip("link add up0 type veth peer name far");
    ip("link set far up");
    ip("addr add 192.0.2.77/24 dev up0");
    ip("link set up0 up");
    let agent = Agent::start(MANY, &[]);
    silence(&["web", "api", "queue", "mail", "db", "cache"]);
    know_each_other("web", "api", "eth0");
    let lost = Astray::start("web", (Ipv4Addr::new(198, 51, 100, 12), 9));
    let refused = {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = spawn_inside("api", move || {
            while !stopped.load(Ordering::Relaxed) {
                let _refused = std::net::TcpStream::connect((Ipv4Addr::new(198, 51, 100, 13), 25));
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        (stop, thread)
    };
    let mut browser = Browser::start(1400, 1080);
    browser.prefer("light");
    browser.open(&address(&agent));
    browser.until("the picture", "document.querySelectorAll('#picture .tile').length === 9");
    let seconds = if std::env::var_os("PAGE_PICTURES").is_some() { 40 } else { 2 };
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut turn = 0;
    while Instant::now() < end {
        turn += 1;
        tcp_transfer("web", "api", Ipv4Addr::new(198, 51, 100, 11), 200_000 + 150_000 * (turn % 7));
        tcp_transfer("web", "db", Ipv4Addr::new(203, 0, 113, 11), 40_000 + 30_000 * (turn % 5));
        tcp_transfer("db", "cache", Ipv4Addr::new(192, 0, 2, 2), 90_000);
        std::thread::sleep(Duration::from_millis(150));
    }
    let ground = "getComputedStyle(document.body).backgroundColor";
    let light = browser.eval(ground);
    let fits = "document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(browser.eval(fits), true);
    picture(&mut browser, "light");
    browser.prefer("dark");
    let dark = browser.eval(ground);
    assert_ne!(light, dark);
    picture(&mut browser, "dark");
    // The switch wins over the system, and is remembered.
    let wish = |theme: &str| {
        format!(
            "(() => {{ const e = document.querySelector('#theme'); e.value = '{theme}'; e.dispatchEvent(new Event('change')); }})()"
        )
    };
    browser.eval(&wish("light"));
    assert_eq!(browser.eval(ground), light);
    browser.call("Page.reload", &json!({}));
    browser.until("it is live", "document.querySelector('#live')?.dataset.state === 'live'");
    assert_eq!(browser.eval(ground), light);
    browser.until("sentences", "[...document.querySelectorAll('#sick .says')].some((one) => one.textContent.includes('Nobody listens'))");
    browser.eval(&wish("auto"));
    assert_eq!(browser.eval(ground), dark);
    browser.open(&format!("{}#/netns/web", address(&agent)));
    browser.until("the detail", "document.querySelector('#detail .identity') !== null");
    picture(&mut browser, "web");
    let size = json!({ "width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": false });
    browser.call("Emulation.setDeviceMetricsOverride", &size);
    assert_eq!(browser.eval(fits), true, "a narrow detail");
    browser.eval("location.hash = '#/'");
    browser.until("the overview", "!document.querySelector('#overview').hidden");
    assert_eq!(browser.eval(fits), true, "a narrow overview");
    picture(&mut browser, "narrow");
    assert_eq!(browser.complaints(), [""; 0]);
    refused.0.store(true, Ordering::Relaxed);
    refused.1.join().expect("its thread");
    drop((lost, browser, agent, host));
}
