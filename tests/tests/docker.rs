//! Beside a real Docker engine.

use std::{process::Command, rc::Rc};

use monitor_tests::{
    agent::write_config,
    engines::Docker,
    host::{TestHost, inside, ip, run as program},
    http,
    outside::{get, pings, reaches, serve, wire_outside},
    pid_namespace::PidNamespace,
    poll::{SOON, until},
};

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
    let docker = Docker::start(&processes, "192.0.2.1/24");
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
