//! The test hosts themselves.

use monitor_tests::host::{TestHost, ip};

#[test]
fn a_test_host_has_no_link_but_its_own_loopback() {
    let _host = TestHost::new();
    let links = ip("-o link");
    // The kernel puts fallback devices of loaded modules into every namespace; none of them is an Ethernet card or a veth.
    assert!(links.lines().any(|line| line.contains("lo:") && line.contains("LOOPBACK,UP")), "{links}");
    assert!(!links.contains("eth0"), "{links}");
    ip("netns add blue");
    assert_eq!(ip("netns list").trim(), "blue");
}
