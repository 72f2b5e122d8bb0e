//! A fleet as `dashboards/fleet` has it: three hosts, a Prometheus beside them that finds them by file and by HTTP, one further up that gets
//! what is sent on, and alerts that arrive.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use monitor_tests::{
    agent::{Agent, repository},
    fleet::{Alertmanager, Member, Server, wire},
    host::{TestHost, ip},
    poll::{SOON, until, until_equal, until_stable},
    prometheus::Prometheus,
    scene::{kernels, know_each_other, ours, silence},
};
use serde_json::{Value, json};

/// Two of one group and one of another, on a bridge.
fn config(names: &[&str]) -> String {
    let mut text = "[[bridge]]\nname = \"nm0\"\nsubnet = \"198.51.100.0/24\"\n".to_owned();
    for name in names {
        text += &format!(
            "[[namespace]]\nname = \"{name}\"\ninterface = [{{ name = \"eth0\", bridge = \"nm0\" }}]\n"
        );
    }
    text
}

const HOSTS: [&[&str]; 3] = [&["web-1", "web-2", "db"], &["web-3", "web-4"], &["web-5", "db"]];

/// Packets of all namespaces of a host, receive and transmit: as the agent counts them, and as the kernel does.
fn packets(agent: &Agent, names: &[&str]) -> ([u64; 2], [u64; 2]) {
    let metrics = agent.metrics();
    let (mut counted, mut kernel) = ([0; 2], [0; 2]);
    for name in names {
        let (agents, ends) = (ours(&metrics, name), kernels(&format!("{name}-eth0")));
        for way in [0, 1] {
            counted[way] += agents[way].packets;
            kernel[way] += ends[way].packets;
        }
    }
    (counted, kernel)
}

/// A rule file of the project with each `for:` cut to a second.
fn hurried(path: &str) -> String {
    let text = fs::read_to_string(repository(path)).expect(path);
    let line = |line: &str| match line.trim_start().strip_prefix("for: ") {
        Some(long) => line.replace(long, "1s"),
        None => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// Replaces what is there, once at least.
fn replaced(text: String, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in\n{text}");
        text.replace(from, to)
    })
}

/// The project's own configuration with this test's addresses, and in a hurry. Its files beside it.
fn prometheus_yml(home: &Path, http_sd: &Server, alertmanager: &str, upstream: &str) -> String {
    fs::create_dir_all(home.join("targets")).expect("a folder");
    for (from, to) in [
        ("dashboards/rules/recording.yml", "one.yml"),
        ("dashboards/rules/alerts.yml", "two.yml"),
        ("dashboards/fleet/rules/recording.yml", "three.yml"),
        ("dashboards/fleet/rules/alerts.yml", "four.yml"),
    ] {
        fs::write(home.join(to), hurried(from)).expect(to);
    }
    let text = fs::read_to_string(repository("dashboards/fleet/prometheus.yml")).expect("prometheus.yml");
    replaced(
        text,
        &[
            ("scrape_interval: 30s", "scrape_interval: 250ms"),
            ("scrape_timeout: 10s", "scrape_timeout: 250ms"),
            ("evaluation_interval: 30s", "evaluation_interval: 250ms"),
            ("../rules/recording.yml", "one.yml"),
            ("../rules/alerts.yml", "two.yml"),
            ("- rules/recording.yml", "- three.yml"),
            ("- rules/alerts.yml", "- four.yml"),
            ("alertmanager.example.org:9093", alertmanager),
            ("http://inventory.example.org/netns-monitor", &format!("http://{}/", http_sd.address)),
            ("https://metrics.example.org/api/v1/write", &format!("http://{upstream}/api/v1/write")),
        ],
    )
}

/// The values of an expression by one label.
fn by(prometheus: &Prometheus, label: &str, expression: &str) -> BTreeMap<String, u64> {
    let value = |series: &Value| {
        let text = series["value"][1].as_str().expect("a value");
        (
            series["metric"][label].as_str().unwrap_or_default().to_owned(),
            text.parse().expect("a whole number"),
        )
    };
    prometheus.query(expression).expect("an answer").iter().map(value).collect()
}

fn map(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
}

/// Every expression of the fleet dashboard, its variables standing for everything.
fn expressions() -> Vec<String> {
    let text = fs::read_to_string(repository("dashboards/fleet/fleet.json")).expect("fleet.json");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let substitute = |expression: &str| {
        let pairs = [("$__rate_interval", "10s"), ("$job", ".+"), ("$instance", ".+"), ("$group", ".+")];
        pairs.into_iter().fold(expression.to_owned(), |text, (from, to)| text.replace(from, to))
    };
    targets.map(|target| substitute(target["expr"].as_str().expect("an expression"))).collect()
}

fn firing(prometheus: &Prometheus, alert: &str) -> Vec<Value> {
    let expression = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}");
    let all = prometheus.query(&expression).expect("an answer");
    all.into_iter().map(|series| series["metric"].clone()).collect()
}

/// Alerts of a name that a receiver was told of.
fn told(receiver: &Server, alert: &str) -> Vec<Value> {
    let messages =
        receiver.received().into_iter().map(|body| serde_json::from_str::<Value>(&body).expect("JSON"));
    let alerts = messages.flat_map(|message| message["alerts"].as_array().cloned().unwrap_or_default());
    alerts.filter(|found| found["labels"]["alertname"] == alert).collect()
}

#[test]
fn three_hosts_are_found_summed_to_the_packet_and_what_is_wrong_arrives() {
    let _host = TestHost::quiet();
    wire();
    let members: Vec<Member> =
        (1..=3).zip(HOSTS).map(|(number, names)| Member::start(number, &config(names))).collect();
    for (member, names) in members.iter().zip(HOSTS) {
        member.on(move |_agent| {
            silence(names);
            know_each_other(names[0], names[1], "eth0");
        });
    }

    // What is further up, and who is told.
    let receiver = Server::answering(&json!({}));
    let text = fs::read_to_string(repository("dashboards/fleet/alertmanager.yml")).expect("alertmanager.yml");
    let url = format!("http://{}/", receiver.address);
    let pairs =
        [("group_wait: 30s", "group_wait: 100ms"), ("http://pager.example.org/netns-monitor", url.as_str())];
    let _alertmanager = Alertmanager::start(([127, 0, 0, 1], 9093).into(), &replaced(text, &pairs));
    let upstream = Prometheus::run(
        Path::new("/run/upstream"),
        ([127, 0, 0, 1], 9091).into(),
        "global: { scrape_interval: 250ms }\n",
        &["--web.enable-remote-write-receiver"],
    );

    // The first by file, the last by HTTP, the one between by both.
    let target = |member: &Member| json!({ "targets": [member.address.to_string()], "labels": { "instance": member.name } });
    let inventory = Server::answering(&json!([target(&members[1]), target(&members[2])]));
    let home = Path::new("/run/prometheus");
    let config = prometheus_yml(home, &inventory, "127.0.0.1:9093", &upstream.address().to_string());
    let files = json!([target(&members[0]), target(&members[1])]).to_string();
    // JSON is YAML.
    fs::write(home.join("targets/hosts.yml"), files).expect("targets");
    let prometheus = Prometheus::run(home, ([127, 0, 0, 1], 9090).into(), &config, &[]);
    let all = map(&[("host-1", 1), ("host-2", 1), ("host-3", 1)]);
    until(SOON, "every host is found, and up", || (by(&prometheus, "instance", "up") == all).then_some(()));
    let targets = prometheus.ask("targets?state=active").expect("targets");
    assert_eq!(
        targets["activeTargets"].as_array().map(Vec::len),
        Some(3),
        "one that is found twice is scraped once"
    );
    assert!(!inventory.received().is_empty());

    // Traffic, and then silence: the sums of the fleet are what the kernels counted.
    for (member, names) in members.iter().zip(HOSTS) {
        member.on(move |_agent| {
            ip(&format!("netns exec {} ping -q -c 30 -i 0.01 -W 5 198.51.100.3", names[0]));
        });
    }
    let mut kernel = BTreeMap::new();
    let mut ways = [0, 0];
    for (member, names) in members.iter().zip(HOSTS) {
        let of_host = member.on(move |agent| {
            until_stable(SOON, Duration::from_millis(300), "no packet moves", || packets(agent, names));
            until_equal(SOON, "the agent's packets and the kernel's", || packets(agent, names));
            packets(agent, names).1
        });
        assert!(of_host.iter().all(|packets| *packets >= 60), "{of_host:?}");
        kernel.insert(member.name.clone(), of_host.iter().sum::<u64>());
        ways = [ways[0] + of_host[0], ways[1] + of_host[1]];
    }
    let ways = map(&[("receive", ways[0]), ("transmit", ways[1])]);
    for at in [&prometheus, &upstream] {
        until_equal(SOON, "packets by host", || {
            (by(at, "instance", "sum by (instance) (instance:netns_packets:sum)"), kernel.clone())
        });
        until_equal(SOON, "packets by direction", || {
            (by(at, "direction", "sum by (direction) (instance:netns_packets:sum)"), ways.clone())
        });
        until_equal(SOON, "namespaces by group", || {
            (
                by(at, "netns_group", "sum by (netns_group) (instance_group:netns_namespaces:count)"),
                map(&[("db", 2), ("web", 5)]),
            )
        });
    }
    // Only what is sent on is up there: no series of a namespace.
    let label = upstream.ask("label/netns/values").expect("an answer");
    assert_eq!(label, json!([]));
    assert!(
        !prometheus.ask("label/netns/values").expect("an answer").as_array().expect("a list").is_empty(),
        "the twin"
    );
    let count = |at: &Prometheus| by(at, "", "count({job=\"netns-monitor\"})")[""];
    assert!(count(&upstream) * 5 < count(&prometheus), "{} of {}", count(&upstream), count(&prometheus));

    // A link is down in a namespace that somebody else made on one host: who it is arrives at whoever is told.
    members[2].on(|_agent| {
        ip("netns add cache-7");
        ip("link add cache-7-eth0 type veth peer name eth0 netns cache-7");
    });
    let down =
        until(SOON, "the alert fires", || firing(&prometheus, "NetnsInterfaceDown").into_iter().next());
    let who = ["instance", "netns", "interface"].map(|label| down[label].clone());
    assert_eq!(who, ["host-3", "cache-7", "eth0"]);
    let arrived = until(SOON, "it arrives", || told(&receiver, "NetnsInterfaceDown").into_iter().next());
    assert_eq!(arrived["labels"]["instance"], "host-3");
    assert_eq!(arrived["annotations"]["summary"], "cache-7/eth0 on host-3 is down.");

    // A host dies: it is named, alone.
    assert_eq!(firing(&prometheus, "NetnsMonitorDown"), Vec::<Value>::new());
    members[1].die();
    until(SOON, "it is not up", || {
        (by(&prometheus, "instance", "up == 0") == map(&[("host-2", 0)])).then_some(())
    });
    let dead = until(SOON, "the alert fires", || firing(&prometheus, "NetnsMonitorDown").into_iter().next());
    assert_eq!(dead["instance"], "host-2");
    until(SOON, "it arrives", || told(&receiver, "NetnsMonitorDown").into_iter().next());
    let named: Vec<_> =
        told(&receiver, "NetnsMonitorDown").iter().map(|alert| alert["labels"]["instance"].clone()).collect();
    assert!(named.iter().all(|name| name == "host-2"), "{named:?}");
    assert_eq!(firing(&prometheus, "NetnsFleetManyHostsDown"), Vec::<Value>::new());

    // The fleet dashboard has data where only what is sent on arrives, but for losses where nothing is lost.
    let mut without = expressions();
    without.retain(|expression| !expression.contains("packet_drops"));
    assert!(without.len() > 20);
    let none = |expression: &String| upstream.query(expression).expect("an answer").is_empty();
    until(SOON, "every panel has data", || {
        without.retain(|expression| none(expression));
        without.is_empty().then_some(())
    });
}
