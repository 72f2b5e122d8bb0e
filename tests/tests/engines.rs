//! Beside real container engines.

use std::{process::Command, rc::Rc, time::Duration};

use monitor_tests::{
    agent::{Agent, write_config},
    engines::Engine,
    exposition::Metrics,
    host::{TestHost, inside, ip, run as program},
    http,
    ledger::Count,
    outside::{get, pings, reaches, serve, wire_outside},
    pid_namespace::PidNamespace,
    poll::{ONE_PASS, SOON, until, until_stable},
    scene::{kernels, ours},
};
use serde_json::Value;

/// Docker's tables, without what they counted.
fn tables_of_docker() -> String {
    ["nat", "filter"].map(|table| program("nft", &format!("-s list table ip {table}"))).concat()
}

fn answers(server: &str) -> bool {
    inside("outside", || http::get(server.parse().expect("an address"), "/").is_ok())
}

#[test]
fn what_docker_drops_is_told_with_the_rule_to_add_and_its_own_tables_are_never_touched() {
    let host = TestHost::with_cgroups();
    wire_outside();
    let processes = Rc::new(PidNamespace::new(&host));
    let docker = Engine::docker(&processes, "192.0.2.1/24");
    docker.run("run --detach --name theirs --publish 9090:80 box httpd -f -p 80");
    until(SOON, "Docker's own port is published", || answers("203.0.113.1:9090").then_some(()));
    let before = tables_of_docker();
    assert!(before.contains("policy drop"), "{before}");

    let file = processes.run_well(&["config", "example", "docker0"]).stdout;
    let outcome = processes.run_well(&["--attach", "none", "apply", write_config(&file)]);
    assert_eq!(tables_of_docker(), before);
    assert!(!pings("web", "203.0.113.2"), "Docker drops what it does not know");
    let said = outcome.stderr.lines().find(|line| line.contains("chain FORWARD of table ip filter"));
    let (_, rule) = said.expect("it is told").split_once("nm0: ").expect("for the bridge");
    assert!(rule.contains("DOCKER-USER"), "{rule}");

    // Whoever asks later is told the same.
    let check = processes.run(&[], &["--attach", "none", "check", "web", "--outside", "203.0.113.2"]);
    assert_eq!(check.code, Some(1), "{check:#?}");
    assert!(
        check.stdout.contains("the policy of chain FORWARD in table ip filter of the host drops it"),
        "{}",
        check.stdout
    );
    assert!(check.stdout.contains("insert rule ip filter DOCKER-USER"), "{}", check.stdout);

    assert!(Command::new("sh").args(["-c", rule]).status().expect("sh").success(), "{rule}");
    reaches("web", "203.0.113.2");
    let served = serve("web", 80, 1);
    assert_eq!(get(Some("outside"), "203.0.113.1:8080"), "web to 203.0.113.2");
    served.join().expect("served");
    assert_eq!(processes.run_well(&["--attach", "none", "apply", write_config(&file)]).stderr, "");
    let with_rule = tables_of_docker();

    // Docker goes on beside ours, and after ours.
    docker.run("run --rm box ping -c 1 -W 5 203.0.113.2");
    assert!(answers("203.0.113.1:9090"));
    processes.run_well(&["--attach", "none", "destroy", write_config(&file)]);
    assert_eq!(tables_of_docker(), with_rule);
    assert!(answers("203.0.113.1:9090"), "a port that Docker publishes");
    docker.run("run --rm box ping -c 1 -W 5 203.0.113.2");
    assert!(ip("-br link").contains("docker0"));
}

/// Everything that there is to look at.
const SOURCES: [&str; 2] = ["--watch.source", "named,mount,process,held"];

/// The host's end of `eth0` of a container.
fn host_end(engine: &Engine, container: &str) -> Option<String> {
    let number: u64 = engine.run(&format!("exec {container} cat /sys/class/net/eth0/iflink")).parse().ok()?;
    let links: Value = serde_json::from_str(&ip("-j link show")).expect("JSON");
    let links = links.as_array().expect("links").clone();
    let found = links.into_iter().find(|link| link["ifindex"].as_u64() == Some(number))?;
    Some(found["ifname"].as_str().expect("a name").to_owned())
}

fn rise(after: [Count; 2], before: [Count; 2]) -> [u64; 2] {
    [0, 1].map(|at| after[at].packets - before[at].packets)
}

fn gone(metrics: &Metrics) -> [f64; 2] {
    ["receive", "transmit"].map(|direction| {
        let with = [("netns", "~gone"), ("direction", direction)];
        metrics.value("netns_retired_packets_total", &with).unwrap_or_default()
    })
}

/// Containers are found, named, counted to the packet, and gone when they are; one that starts again begins at nothing.
fn containers(engine: &Engine, processes: &Rc<PidNamespace>, runtime: &str) {
    let agent = Agent::start_among(processes, &SOURCES);
    let info = |name: &str| {
        let with = [("netns", name), ("container", name), ("runtime", runtime)];
        agent.metrics().value("netns_container_info", &with)
    };
    let attached = |name: &str| {
        let with = [("netns", name), ("interface", "eth0"), ("mode", "tcx")];
        agent.metrics().value("netns_interface_attached", &with)
    };
    let ping = |from: &str, to: &str| {
        engine.run(&format!("exec {from} ping -q -c 20 -i 0.01 -W 5 {to}"));
    };
    for name in ["web", "db"] {
        engine.run(&format!("run --detach --name {name} box sleep 1000"));
        until(SOON, "it has the name that its engine gave", || info(name));
        until(SOON, "it is counted", || attached(name));
    }
    let address = |name: &str| {
        let shown = engine.run(&format!("exec {name} ip -o -4 address show dev eth0"));
        let net = shown.split_whitespace().nth(3).expect("an address").to_owned();
        net.split('/').next().expect("a part").to_owned()
    };
    let db = address("db");
    // They know each other now, and what the kernel says by itself has been said.
    ping("web", &db);
    let both = |name: &str, end: &str| (ours(&agent.metrics(), name), kernels(end));
    let still = |name: &str, end: &str| {
        until_stable(SOON, Duration::from_millis(500), "no packet is on its way", || both(name, end))
    };
    let end = host_end(engine, "web").expect("an end in the host");
    let before = still("web", &end);
    ping("web", &db);
    let after = still("web", &end);
    let [counted, kernel] = [rise(after.0, before.0), rise(after.1, before.1)];
    assert_eq!(counted, kernel, "of web, to the packet");
    assert!(counted.iter().all(|packets| *packets >= 20), "{counted:?}");
    let listed = processes.run_well(&[&SOURCES[..], &["ls"]].concat()).stdout;
    for name in ["web ", "db "] {
        assert_eq!(listed.lines().filter(|line| line.starts_with(name)).count(), 1, "{listed}");
    }

    // It starts again: another namespace with the same name.
    let earlier = gone(&agent.metrics());
    let cookie = |metrics: &Metrics| {
        let info = metrics.select("netns_info", &[("netns", "web")]).next();
        info.and_then(|(labels, _)| labels.get("cookie").cloned())
    };
    let old = cookie(&agent.metrics()).expect("its cookie");
    let last = after.0;
    engine.run("restart --time 0 web");
    until(SOON, "it is another one", || cookie(&agent.metrics()).filter(|new| *new != old));
    until(SOON, "it is counted again", || attached("web"));
    until(SOON, "it has its name again", || info("web"));
    let end = host_end(engine, "web").expect("an end in the host");
    let (now, kernel) = still("web", &end);
    for at in [0, 1] {
        assert!(now[at].packets <= kernel[at].packets, "nothing inherited: {now:?} of {kernel:?}");
    }
    until(SOON, "what the first counted is kept", || {
        let retired = gone(&agent.metrics());
        (0..2).all(|at| retired[at] - earlier[at] >= last[at].packets as f64).then_some(())
    });

    for name in ["web", "db"] {
        engine.run(&format!("kill {name}"));
        engine.run(&format!("rm --force {name}"));
        until(ONE_PASS, "it is gone", || {
            agent.metrics().select("netns_info", &[("netns", name)]).next().is_none().then_some(())
        });
    }
    assert!(!ip("-br link").contains(&end), "nothing of ours kept it");
    assert!(!agent.log().iter().any(|line| line.contains(" WARN ") || line.contains(" ERROR ")));
}

#[test]
fn containers_of_docker_are_found_named_counted_and_gone() {
    let host = TestHost::with_cgroups();
    let processes = Rc::new(PidNamespace::new(&host));
    let engine = Engine::docker(&processes, "192.0.2.1/24");
    containers(&engine, &processes, "docker");
}

#[test]
fn containers_of_podman_are_found_named_counted_and_gone() {
    let host = TestHost::with_cgroups();
    let processes = Rc::new(PidNamespace::new(&host));
    let engine = Engine::podman(&processes, "198.51.100.0/24");
    containers(&engine, &processes, "podman");
}
