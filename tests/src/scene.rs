//! The usual scene: `blue` and `red` on one bridge, an agent that counts them, and silence.

use std::time::Duration;

use crate::{
    agent::Agent,
    exposition::Metrics,
    host::{TestHost, disable_ipv6, inside, ip},
    ledger::{Count, skbs},
    oracle::{link, stats},
    poll::{SOON, until, until_equal, until_stable},
};

/// `blue` and `red` on one bridge.
pub const TWO: &str = r#"
[[bridge]]
name = "nm0"
subnet = "198.51.100.0/24"

[[namespace]]
name = "blue"
interface = [{ name = "eth0", bridge = "nm0", address = "198.51.100.2/24" }]

[[namespace]]
name = "red"
interface = [{ name = "eth0", bridge = "nm0", address = "198.51.100.3/24" }]
"#;

/// A host with an agent on it.
#[derive(Debug)]
pub struct Scene {
    /// The agent. Before the host, so that it ends first.
    pub agent: Agent,
    /// The host.
    pub host: TestHost,
}

impl Scene {
    /// [`TWO`] on a quiet host: the agent is ready, no packet is on its way, and none comes by itself.
    ///
    /// # Panics
    /// When the agent does not come so far.
    #[must_use]
    pub fn two(args: &[&str]) -> Self {
        let host = TestHost::quiet();
        let scene = Self { agent: Agent::start(TWO, args), host };
        silence(&["blue", "red"]);
        know_each_other("blue", "red", "eth0");
        scene.settle();
        scene
    }

    /// Waits until no counter moves and the agent's are the kernel's, and returns the scrape of that moment.
    ///
    /// # Panics
    /// When that does not come soon.
    pub fn settle(&self) -> Metrics {
        until_stable(SOON, Duration::from_millis(200), "no packet moves", || {
            ["blue-eth0", "red-eth0"].map(stats)
        });
        for netns in ["blue", "red"] {
            until_equal(SOON, &format!("skbs of {netns} as the kernel counts them"), || {
                (ours(&self.agent.metrics(), netns), kernels(&format!("{netns}-eth0")))
            });
        }
        self.agent.metrics()
    }
}

/// Switches off IPv6 inside namespaces.
///
/// # Panics
/// When there is no such namespace.
pub fn silence(namespaces: &[&str]) {
    namespaces.iter().for_each(|netns| inside(netns, disable_ipv6));
}

/// Tells two namespaces each other's MAC address, so that neither asks.
///
/// # Panics
/// When one of them has no such device.
pub fn know_each_other(one: &str, other: &str, device: &str) {
    for (netns, neighbour) in [(one, other), (other, one)] {
        let link = link(Some(neighbour), device);
        let mac = link["address"].as_str().expect("a MAC address");
        let address = link["addr_info"][0]["local"].as_str().expect("an address");
        ip(&format!("-n {netns} neigh replace {address} lladdr {mac} dev {device} nud permanent"));
    }
}

/// What the agent says of `eth0` of a namespace in the kernel's units: receive, then transmit.
#[must_use]
pub fn ours(metrics: &Metrics, netns: &str) -> [Count; 2] {
    ["receive", "transmit"].map(|direction| skbs(metrics, netns, "eth0", direction))
}

/// What the kernel says at the host end: what it sent, the namespace received. In the same order as [`ours`].
///
/// # Panics
/// When there is no such device, and when it dropped something, which the program at its egress has seen.
#[must_use]
pub fn kernels(host_end: &str) -> [Count; 2] {
    let stats = stats(host_end);
    assert_eq!(stats.tx_dropped, 0, "{host_end} dropped: {stats:?}");
    [
        Count { packets: stats.tx_packets, bytes: stats.tx_bytes },
        Count { packets: stats.rx_packets, bytes: stats.rx_bytes },
    ]
}

/// Waits until a link of a namespace (or of the host) is there and up, and returns it.
///
/// # Panics
/// When that does not come soon.
pub fn until_up(netns: Option<&str>, device: &str, within: Duration) -> serde_json::Value {
    let at = netns.map(|netns| format!("-n {netns} ")).unwrap_or_default();
    until(within, &format!("{device} is up {at}"), || {
        let output = std::process::Command::new("ip")
            .args(format!("{at}-j -d addr show dev {device}").split_whitespace())
            .output()
            .expect("ip");
        let links: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        (links[0]["operstate"] == "UP").then(|| links[0].clone())
    })
}
