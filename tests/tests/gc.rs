//! Clearing up: each kind of leftover, made by hand, goes; what stands, and what is not ours, stays.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use monitor::topology::names::stable_hash;
use monitor_tests::{
    agent::{run, run_well, write_config},
    host::{TestHost, ip},
    oracle::{links, pins, wiring},
    poll::{SOON, until},
    scene::{Scene, TWO},
};

const RUN: &str = "/run/netns-monitor";
const NOTHING: &str = "nothing to do\n";

/// `blue` and `red` on a bridge, and one namespace more.
fn three() -> String {
    format!("{TWO}\n[[namespace]]\nname = \"green\"\ninterface = [{{ name = \"eth0\", bridge = \"nm0\" }}]\n")
}

/// Name and group as a link of this run directory has them before it is claimed.
fn unclaimed(number: u32) -> String {
    let group = 0x4000_0000 | (stable_hash(&format!("netns-monitor:{RUN}:")) >> 34);
    format!("left{number} group {group}")
}

/// A file as `ip netns add` makes it before it mounts.
fn placeholder(netns: &str) {
    let path = format!("/run/netns/{netns}");
    fs::write(&path, "").expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).expect("mode 0");
}

fn files(directory: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    found.sort();
    found
}

/// Everything there is, in the host and in `blue`.
fn everything() -> String {
    let blue = if Path::new("/run/netns/blue").exists() { ip("-n blue -d -j addr") } else { String::new() };
    format!("{}\n{blue}\n{:?}\n{:?}", wiring(), pins(), files(&format!("{RUN}/netns")))
}

/// What a dry run says and changes nothing; then it is done, in the same words; and then there is nothing left to do.
fn clear() -> String {
    let before = everything();
    let said = run_well(&["gc", "--dry-run"]).stdout;
    assert_eq!(everything(), before, "a dry run changes nothing");
    assert_eq!(run_well(&["gc"]).stdout, said);
    assert_eq!(run_well(&["gc"]).stdout, NOTHING);
    assert_eq!(run_well(&["gc", "--dry-run"]).stdout, NOTHING);
    said
}

#[test]
fn a_host_where_nothing_was_made_stays_untouched() {
    let _host = TestHost::quiet();
    ip("netns add theirs");
    let before = everything();
    assert_eq!(clear(), NOTHING);
    assert_eq!(everything(), before);
    assert!(!Path::new(RUN).exists());
}

#[test]
fn wiring_that_stands_stays() {
    let _host = TestHost::quiet();
    let file = write_config(TWO);
    run_well(&["apply", file]);
    let before = everything();
    assert_eq!(clear(), NOTHING);
    assert_eq!(everything(), before);
    // Also beside what goes.
    ip(&format!("link add {} type bridge", unclaimed(1)));
    assert_ne!(clear(), NOTHING);
    assert_eq!(everything(), before);
    assert_eq!(run_well(&["plan", file]).stdout, "");
}

#[test]
fn records_of_namespaces_that_are_gone_or_replaced_go_and_their_counts_are_moved() {
    let _host = TestHost::quiet();
    run_well(&["apply", write_config(&three())]);
    ip("netns delete red");
    ip("netns delete green");
    ip("netns add green");
    until(SOON, "their links are gone", || {
        (!links().iter().any(|link| link == "red-eth0" || link == "green-eth0")).then_some(())
    });
    let said = clear();
    let expected = [
        "rm /run/netns-monitor/netns/green  # the record of green, which is another namespace by now",
        "rm /run/netns-monitor/netns/red  # the record of red, which is gone",
        "# red/eth0 is gone: its counts go to what red has retired (no ip equivalent)",
        "# green/eth0 is gone: its counts go to what green has retired (no ip equivalent)",
    ];
    let mut lines: Vec<_> = said.lines().collect();
    lines[2..].sort_by(|a, b| b.cmp(a));
    assert_eq!(lines, expected);
    assert_eq!(files(&format!("{RUN}/netns")), [PathBuf::from("/run/netns-monitor/netns/blue")]);
    assert!(Path::new("/run/netns/green").exists(), "somebody else's");
    assert!(links().contains(&"blue-eth0".to_owned()));
}

#[test]
fn what_a_crash_left_while_it_made_a_namespace_goes_and_a_file_without_record_stays() {
    let _host = TestHost::quiet();
    run_well(&["apply", write_config(TWO)]);
    let before = everything();
    placeholder("ours");
    fs::write(format!("{RUN}/netns/ours"), "boot x cookie 1\n").expect("a record");
    fs::write(format!("{RUN}/netns/.half"), "boot").expect("half a record");
    let said = clear();
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            "rm /run/netns-monitor/netns/.half  # left by a crash: half of a record",
            "rm /run/netns/ours  # left by a crash: ours was never mounted on it",
            "rm /run/netns-monitor/netns/ours  # the record of ours, which is gone",
        ]
    );
    assert_eq!(everything(), before);
    placeholder("theirs");
    fs::write("/run/netns/plain", "text").expect("a file");
    fs::write(format!("{RUN}/netns/plain"), "boot x cookie 1\n").expect("a record");
    assert_eq!(clear(), "rm /run/netns-monitor/netns/plain  # the record of plain, which is gone\n");
    assert!(Path::new("/run/netns/theirs").exists() && Path::new("/run/netns/plain").exists());
}

#[test]
fn links_that_were_never_claimed_go_from_the_host_and_from_namespaces_of_ours() {
    let _host = TestHost::quiet();
    run_well(&["apply", write_config(TWO)]);
    let before = everything();
    let names: Vec<_> = (0..6).map(unclaimed).collect();
    ip(&format!("link add {} type bridge", names[0]));
    ip(&format!("link add {} type veth peer name {}", names[1], names[2]));
    ip(&format!("link add {} type veth peer name {} netns blue", names[3], names[4]));
    // One whose other end was claimed already.
    ip(&format!("link add {} type veth peer name eth7 netns red", names[5]));
    let said = clear();
    let tail = "  # left by a crash before it had its tag";
    let bare = |link: &str| link.split(' ').next().expect("a name").to_owned();
    let line = |link: &str| format!("ip link delete {}{tail}", bare(link));
    let mut lines: Vec<_> = said.lines().map(str::to_owned).collect();
    lines.sort();
    // The other ends go with these.
    let one_of_a_pair = if said.contains(&bare(&names[1])) { &names[1] } else { &names[2] };
    let mut expected = [&names[0], one_of_a_pair, &names[3], &names[5]].map(|name| line(name)).to_vec();
    expected.sort();
    assert_eq!(lines, expected);
    assert_eq!(everything(), before);
    // An end in a namespace of ours whose other end is out of sight.
    ip("netns add theirs");
    ip(&format!("-n blue link add {} type veth peer name x netns theirs", names[0]));
    assert_eq!(clear(), format!("ip -n blue link delete {}{tail}\n", bare(&names[0])));
}

#[test]
fn links_that_only_look_like_ours_stay() {
    let _host = TestHost::quiet();
    ip("netns add theirs");
    run_well(&["apply", write_config(TWO)]);
    let names: Vec<_> = (0..6).map(unclaimed).collect();
    // Of another group; up; with an alias; a port; of another kind; in a namespace that is not ours.
    ip("link add left9 group 1073741824 type bridge");
    ip(&format!("link add {} type bridge", names[0]));
    ip("link set left0 up");
    ip(&format!("link add {} type bridge", names[1]));
    ip("link set left1 alias mine");
    ip(&format!("link add {} type veth peer name far", names[2]));
    ip("link set left2 master nm0");
    ip(&format!("link add {} type veth peer name far0", names[3]));
    ip("link set left3 up");
    ip(&format!("link add {} type ifb", names[4]));
    ip(&format!("-n theirs link add {} type bridge", names[5]));
    ip("link add foreign type veth peer name foreign0");
    let before = (everything(), ip("-n theirs -j link"));
    assert_eq!(clear(), NOTHING);
    assert_eq!((everything(), ip("-n theirs -j link")), before);
}

#[test]
fn a_veth_goes_whose_namespace_is_gone_though_its_other_end_was_moved_away() {
    let _host = TestHost::quiet();
    ip("netns add theirs");
    run_well(&["apply", write_config(TWO)]);
    ip("-n red link set eth0 netns theirs");
    assert_eq!(clear(), NOTHING, "while its namespace stands it is the plan's");
    ip("netns delete red");
    let said = clear();
    assert!(said.starts_with("ip link delete red-eth0  # was for red, which is gone\n"), "{said}");
    assert!(!links().contains(&"red-eth0".to_owned()) && links().contains(&"blue-eth0".to_owned()));
    assert!(!ip("-n theirs link").contains("eth0"));
}

#[test]
fn a_namespace_that_lost_its_name_and_lives_keeps_its_link() {
    let _host = TestHost::quiet();
    run_well(&["apply", write_config(TWO)]);
    let holder = fs::File::open("/run/netns/red").expect("open");
    ip("netns delete red");
    assert_eq!(clear(), "rm /run/netns-monitor/netns/red  # the record of red, which is gone\n");
    assert!(links().contains(&"red-eth0".to_owned()));
    // Twin: once nobody holds it, it goes by itself, and its counts are moved.
    drop(holder);
    until(SOON, "its link is gone", || (!links().contains(&"red-eth0".to_owned())).then_some(()));
    assert_eq!(clear(), "# red/eth0 is gone: its counts go to what red has retired (no ip equivalent)\n");
}

#[test]
fn a_namespace_whose_record_was_lost_is_live_all_the_same() {
    let _host = TestHost::quiet();
    run_well(&["apply", write_config(TWO)]);
    fs::remove_file(format!("{RUN}/netns/red")).expect("a record");
    let before = everything();
    assert_eq!(clear(), NOTHING);
    assert_eq!(everything(), before);
}

#[test]
fn when_nothing_of_ours_is_left_and_nothing_was_counted_the_pins_go() {
    let _host = TestHost::quiet();
    run_well(&["apply", write_config("[[bridge]]\nname = \"nm0\"\nsubnet = \"198.51.100.0/24\"\n")]);
    assert_eq!(clear(), NOTHING);
    assert_ne!(pins(), [""; 0]);
    ip("link delete nm0");
    assert!(clear().starts_with("# nothing of this run directory is left"));
    assert_eq!(pins(), [""; 0]);
    assert!(!Path::new(RUN).exists());
}

#[test]
fn beside_an_agent_it_refuses_in_one_line_that_names_it() {
    let scene = Scene::two(&[]);
    ip(&format!("link add {} type bridge", unclaimed(1)));
    let before = everything();
    for args in [&["gc"][..], &["gc", "--dry-run"]] {
        let outcome = run(args);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:#?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:#?}");
        assert!(outcome.stderr.contains(&format!("process {}", scene.agent.pid())), "{outcome:#?}");
    }
    assert_eq!(everything(), before);
}
