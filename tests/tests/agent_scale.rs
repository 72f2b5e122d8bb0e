//! A thousand interfaces: adopted after a crash, and none forgotten.

use std::{fmt::Write as _, time::Duration};

use monitor_tests::{
    agent::Agent,
    host::{TestHost, inside},
    ledger::{Ledger, wire},
    oracle::{links, pins},
    poll::{SOON, until_equal},
    scene::silence,
    traffic::send_every_class,
};

const NAMESPACES: usize = 50;
const PAIRS_OF_EACH: usize = 20;
/// To attach and to detach, each of two thousand hooks waits for the kernel's grace period.
const EACH_WAITS: Duration = Duration::from_secs(120);

fn thousand() -> String {
    let mut file = String::new();
    for netns in 0..NAMESPACES {
        writeln!(file, "[[namespace]]\nname = \"n{netns}\"").expect("a string");
        for pair in 0..PAIRS_OF_EACH {
            writeln!(
                file,
                "[[veth]]\na = {{ name = \"h{netns}-{pair}\" }}\nb = {{ name = \"e{pair}\", namespace = \"n{netns}\" }}"
            )
            .expect("a string");
        }
    }
    file
}

#[test]
fn a_killed_agent_adopts_a_thousand_interfaces() {
    let _host = TestHost::quiet();
    let mut agent = Agent::spawn(&thousand(), &["--cleanup"]);
    agent.wait_ready_within(EACH_WAITS);
    let attached = |agent: &Agent| agent.metrics().count("netns_interface_attached", &[("mode", "tcx")]);
    assert_eq!(attached(&agent), (NAMESPACES * PAIRS_OF_EACH) as u64);
    silence(&["n49"]);
    let before = agent.metrics();
    let mut sent = Ledger::new();
    let send = |sent: &mut Ledger| inside("n49", || send_every_class("e19", 2, sent));
    send(&mut sent);
    agent.kill9();
    send(&mut sent);
    agent.restart();
    assert_eq!(attached(&agent), (NAMESPACES * PAIRS_OF_EACH) as u64);
    until_equal(SOON, "frames sent meanwhile", || {
        (wire(&agent.metrics().since(&before), "n49", "e19", "transmit"), sent.total())
    });
    // Here and now, and not by the kernel in the background, where it would keep the next test waiting.
    assert_eq!(agent.terminate_within(EACH_WAITS).code(), Some(0));
    assert_eq!(links(), ["lo"]);
    assert_eq!(pins(), [""; 0]);
}
