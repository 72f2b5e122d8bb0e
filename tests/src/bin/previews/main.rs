//! Draws the dashboards from what a real Prometheus says of a real agent on a host with some traffic and some trouble, so that they
//! can be looked at without Grafana: `cargo xtask previews`.

mod palette;

use std::{
    collections::BTreeMap,
    env, fs,
    net::{Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use monitor_tests::{
    agent::{Agent, repository},
    host::{TestHost, ip},
    http,
    prometheus::Prometheus,
    scene::silence,
    traffic::tcp_transfer,
    trouble::{Trouble, send_datagrams},
};
use serde_json::{Map, Value, json};

/// How much of the past is shown.
const SHOWN: Duration = Duration::from_secs(120);
const PAGE: &str = include_str!("page.html");
const NAMESPACES: [&str; 10] =
    ["web", "cart", "search", "payments", "ledger", "mail", "images", "metrics", "cache", "batch"];
/// Who sends how many bytes to whom in a round.
const TRANSFERS: [(usize, usize, usize); 7] = [
    (0, 1, 900_000),
    (0, 2, 1_500_000),
    (0, 6, 2_600_000),
    (1, 8, 400_000),
    (2, 8, 700_000),
    (9, 7, 300_000),
    (3, 4, 90_000),
];
/// Each dashboard, and the namespace that is chosen on its picture.
const PICTURES: [(&str, Option<&str>); 5] = [
    ("overview", None),
    ("namespace", Some("payments")),
    ("health", None),
    ("interfaces", None),
    ("agent", None),
];
/// The grid of Grafana: the height of a line, and of what stands above the panels.
const LINE: u64 = 38;
const HEAD: u64 = 68;

fn main() -> Result<()> {
    let folder = repository("dashboards/pictures");
    fs::create_dir_all(&folder)?;
    let work = env::temp_dir().join(format!("netns-monitor-previews-{}", std::process::id()));
    fs::create_dir_all(&work)?;
    let pages = pages(&work);
    let drawn = pages.and_then(|pages| pages.iter().try_for_each(|page| draw(page, &folder, &work)));
    fs::remove_dir_all(&work)?;
    drawn
}

/// A page that is written.
struct Page {
    name: &'static str,
    file: PathBuf,
    height: u64,
}

fn pages(work: &Path) -> Result<Vec<Page>> {
    let _host = TestHost::quiet();
    let agent = Agent::start(&config(), &["--collector.dns"]);
    silence(&NAMESPACES);
    others();
    let prometheus = Prometheus::start_every("1s", &[agent.address()], &[]);
    traffic(&agent);
    let to = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let write = |(name, netns): (&'static str, Option<&str>)| {
        let text = fs::read_to_string(repository(&format!("dashboards/{name}.json")))?;
        let mut dashboard: Value = serde_json::from_str(&text)?;
        let bottom = |panel: &Value| panel["gridPos"]["y"].as_u64().zip(panel["gridPos"]["h"].as_u64());
        let panels = dashboard["panels"].as_array().context("panels")?;
        let lines = panels.iter().filter_map(bottom).map(|(y, h)| y + h).max();
        let height = lines.context("no panels")? * LINE + HEAD;
        let answers = answers(&prometheus, &dashboard, netns, to)?;
        let marks = marks(&prometheus, &dashboard, netns, to)?;
        if let Some(netns) = netns {
            dashboard["chosen"] = json!({ "netns": netns });
        }
        let data = json!({
            "dashboard": dashboard, "answers": answers, "marks": marks, "from": to - SHOWN.as_secs(), "to": to,
        });
        let file = work.join(format!("{name}.html"));
        // A `<` in a string would be read as the page's own.
        fs::write(&file, PAGE.replacen("DATA", &data.to_string().replace('<', "\\u003c"), 1))?;
        Ok(Page { name, file, height })
    };
    PICTURES.into_iter().map(write).collect()
}

fn address(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, 11 + u8::try_from(at).expect("few namespaces"))
}

fn config() -> String {
    let mut text = "[[bridge]]\nname = \"nm0\"\nsubnet = \"198.51.100.0/24\"\n".to_owned();
    for (at, name) in NAMESPACES.iter().enumerate() {
        let wire = format!("{{ name = \"eth0\", bridge = \"nm0\", address = \"{}/24\" }}", address(at));
        text += &format!("\n[[namespace]]\nname = \"{name}\"\ninterface = [{wire}]\n");
        if *name == "ledger" {
            text += "[namespace.firewall]\ninput = { policy = \"drop\", rule = [\"ct state established accept\", \
                     \"tcp dport != 99 accept\", \"udp dport != 99 accept\", \"ip protocol icmp accept\"] }\n";
        }
    }
    text
}

/// Namespaces that others made: packets to `legacy` are too large for it, and `spare` is down.
fn others() {
    for netns in ["legacy", "spare"] {
        ip(&format!("netns add {netns}"));
        ip(&format!("link add {netns}-eth0 type veth peer name eth0 netns {netns}"));
        ip(&format!("link set {netns}-eth0 up"));
    }
    ip("address add 203.0.113.1/24 dev legacy-eth0");
    ip("-n legacy address add 203.0.113.2/24 dev eth0");
    ip("-n legacy link set eth0 mtu 600 up");
}

/// Services that talk with each other, one of which is in trouble.
fn traffic(agent: &Agent) {
    let server = NAMESPACES.iter().position(|name| *name == "ledger").expect("it is there");
    let mut trouble = Trouble::new("payments", "ledger", address(server));
    let legacy = UdpSocket::bind("203.0.113.1:0").expect("a socket");
    let start = Instant::now();
    // A little more than is shown, for the rates at its beginning.
    while start.elapsed() < SHOWN + Duration::from_secs(20) {
        let now = start.elapsed().as_secs_f64();
        for (index, (from, to, bytes)) in TRANSFERS.into_iter().enumerate() {
            let wave = 1.0 + 0.7 * (now / (7.0 + index as f64 * 3.0) + index as f64).sin();
            tcp_transfer(NAMESPACES[from], NAMESPACES[to], address(to), (bytes as f64 * wave) as usize);
        }
        trouble.queries();
        // It begins when a third has passed, so that the pictures show how it begins.
        if start.elapsed() > SHOWN / 3 {
            trouble.connects();
            trouble.datagrams();
            send_datagrams(&legacy, "203.0.113.2:9", &[0; 1000], 2);
        }
        agent.signal(nix::sys::signal::Signal::SIGHUP);
        // A service that is not at its limits.
        thread::sleep(Duration::from_millis(150));
    }
    // What is full shall still be so at the moment that tables show.
    trouble.connects();
}

fn expression(expr: &str, netns: Option<&str>) -> String {
    let netns = netns.unwrap_or(".+");
    let values = [
        ("$__rate_interval", "20s"),
        ("$__interval", "5s"),
        ("$__range", "120s"),
        ("$job", ".+"),
        ("$instance", ".+"),
        ("$netns", netns),
        ("$interface", ".+"),
    ];
    values.iter().fold(expr.to_owned(), |expr, (name, value)| expr.replace(name, value))
}

fn range(prometheus: &Prometheus, expr: &str, to: u64) -> Result<Value> {
    let from = to - SHOWN.as_secs();
    let query = http::escape(expr);
    let asked = prometheus.ask(&format!("query_range?query={query}&start={from}&end={to}&step=1"));
    Ok(asked.map_err(anyhow::Error::msg).context(expr.to_owned())?["result"].take())
}

/// What each query of each panel has for an answer, by the panel's id and the query's.
fn answers(prometheus: &Prometheus, dashboard: &Value, netns: Option<&str>, to: u64) -> Result<Value> {
    let mut all = Map::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        let mut of_panel = Map::new();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = expression(target["expr"].as_str().context("an expression")?, netns);
            let answer = if target["instant"] == true {
                let query = http::escape(&expr);
                let asked = prometheus.ask(&format!("query?query={query}&time={to}"));
                let mut answer = asked.map_err(anyhow::Error::msg).context(expr)?["result"].take();
                for series in answer.as_array_mut().into_iter().flatten() {
                    series["values"] = json!([series["value"].take()]);
                }
                answer
            } else {
                range(prometheus, &expr, to)?
            };
            of_panel.insert(target["refId"].as_str().context("a refId")?.to_owned(), answer);
        }
        all.insert(panel["id"].to_string(), of_panel.into());
    }
    Ok(all.into())
}

/// The moments that are marked.
fn marks(prometheus: &Prometheus, dashboard: &Value, netns: Option<&str>, to: u64) -> Result<Value> {
    let mut moments = BTreeMap::new();
    for mark in dashboard["annotations"]["list"].as_array().into_iter().flatten() {
        if mark["enable"] != true {
            continue;
        }
        let found =
            range(prometheus, &expression(mark["expr"].as_str().context("an expression")?, netns), to)?;
        for at in found.as_array().into_iter().flatten().filter_map(|series| series["values"][0][0].as_u64())
        {
            moments.insert(at, mark["iconColor"].clone());
        }
    }
    Ok(moments.into_iter().map(|(at, colour)| json!({ "at": at, "colour": colour })).collect())
}

/// Takes the picture of a page.
fn draw(page: &Page, folder: &Path, work: &Path) -> Result<()> {
    let unpacked =
        env::var_os("CHROMIUM_DIR").map_or_else(|| repository("target/tools/chromium"), PathBuf::from);
    let libraries = unpacked.join("usr/lib").join(format!("{}-linux-gnu", env::consts::ARCH));
    let fonts = work.join("fonts.conf");
    let (there, cache) = (unpacked.join("usr/share/fonts"), work.join("fonts"));
    let text = format!(
        "<?xml version=\"1.0\"?>\n<!DOCTYPE fontconfig SYSTEM \"fonts.dtd\">\n\
         <fontconfig><dir>{}</dir><cachedir>{}</cachedir></fontconfig>\n",
        there.display(),
        cache.display()
    );
    fs::write(&fonts, text)?;
    let picture = folder.join(format!("{}.png", page.name));
    let mut chromium = Command::new(unpacked.join("usr/lib/chromium/chromium-headless-shell"));
    chromium
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", work.join("profile").display()))
        .arg(format!("--window-size=1400,{}", page.height))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{}", page.file.display()))
        .env("FONTCONFIG_FILE", &fonts)
        .env("LD_LIBRARY_PATH", format!("{0}:{0}/pulseaudio", libraries.display()));
    let output = chromium.output().context("chromium: cargo xtask setup unpacks it")?;
    ensure!(
        output.status.success() && picture.exists(),
        "chromium failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    palette::reduce(&picture)?;
    println!("{}, {} kB", picture.display(), fs::metadata(&picture)?.len() / 1000);
    Ok(())
}
