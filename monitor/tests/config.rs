//! The file: what is wrong is found, with its line; what is right becomes the topology it says.

use std::{fs, path::Path};

use monitor::{
    config::{self, DEMO, EXAMPLE},
    topology::{Topology, names::Place},
};

fn good(text: &str) -> Topology {
    config::parse(text, "test.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

/// Each file says in its first line which line is wrong, and what the message contains.
#[test]
fn every_bad_file_is_refused_with_line_and_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut files = 0;
    for entry in fs::read_dir(&folder).expect("the bad files") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a file");
        let expected =
            text.lines().next().and_then(|line| line.strip_prefix("# expect: ")).expect("what to expect");
        let (line, fragment) = expected.split_once(": ").expect("a line and a fragment");
        let line: usize = line.parse().expect("a line number");
        let errors = config::load(&path).expect_err(&path.display().to_string());
        let found = errors
            .errors
            .iter()
            .any(|error| error.at.is_some_and(|(at, _)| at == line) && error.what.contains(fragment));
        assert!(found, "{} should say `{fragment}` of line {line}, but says:\n{errors}", path.display());
        assert!(errors.errors.iter().all(|error| !error.what.contains('\n')), "one line each:\n{errors}");
        files += 1;
    }
    assert!(files >= 45, "only {files} bad files");
}

#[test]
fn a_bad_file_made_good_is_taken() {
    let bad = "[[bridge]]\nname = \"nm0\"\nsubnet = \"198.51.100.7/24\"\n";
    assert!(config::parse(bad, "test.toml").is_err());
    assert_eq!(good(&bad.replace("100.7/24", "100.0/24")).bridges.len(), 1);
}

#[test]
fn every_mistake_of_a_file_is_reported_not_only_the_first() {
    let text = "[[bridge]]\nname = \"\"\nmtu = 1\n\n[[namespace]]\nname = \"a/b\"\n";
    let errors = config::parse(text, "test.toml").expect_err("three mistakes");
    let lines: Vec<_> = errors.errors.iter().filter_map(|error| error.at).map(|(line, _)| line).collect();
    assert_eq!(lines, [2, 3, 6], "{errors}");
    assert!(errors.to_string().starts_with("test.toml:2:8: "), "{errors}");
}

#[test]
fn a_file_that_cannot_be_read_or_is_no_text_is_one_line() {
    let missing = config::load(Path::new("/nonexistent/file.toml")).expect_err("missing").to_string();
    assert!(missing.starts_with("/nonexistent/file.toml: cannot be read: "), "{missing}");
    let path = std::env::temp_dir().join(format!("netns-monitor-{}.toml", std::process::id()));
    fs::write(&path, b"# fine\nname = \"\xff\"\n").expect("a file");
    let binary = config::load(&path).expect_err("no text").to_string();
    fs::remove_file(&path).expect("ours");
    assert!(binary.contains("line 2") && !binary.contains('\n'), "{binary}");
}

#[test]
fn an_empty_file_asks_for_nothing() {
    assert_eq!(good("# nothing\n"), Topology::default());
}

#[test]
fn the_example_and_the_demonstration_are_valid() {
    let example = good(EXAMPLE);
    assert_eq!((example.bridges.len(), example.namespaces.len(), example.veths.len()), (1, 3, 4));
    assert_eq!(good(DEMO).veths.len(), 2);
}

#[test]
fn an_interface_becomes_a_pair_whose_host_end_is_a_port() {
    let topology = good(EXAMPLE);
    let red = topology.veths.iter().find(|veth| veth.b.link.to_string() == "red/eth0").expect("red");
    assert_eq!(red.a.link.to_string(), "red0");
    assert_eq!(red.a.bridge.as_ref().map(ToString::to_string).as_deref(), Some("nm0"));
    assert_eq!((red.a.mtu, red.b.mtu), (Some(1400), Some(1400)));
    assert_eq!(red.b.pools, topology.bridges[0].subnets);
    assert!(red.b.addresses.is_empty());
}

#[test]
fn a_bridge_takes_the_first_address_of_each_subnet() {
    let gateways: Vec<_> = good(EXAMPLE).bridges[0].gateways.iter().map(ToString::to_string).collect();
    assert_eq!(gateways, ["198.51.100.1/24", "2001:db8:100::1/64"]);
}

#[test]
fn the_host_end_of_a_pair_comes_first_wherever_it_is_written() {
    let text = "[[namespace]]\nname = \"n\"\n[[veth]]\na = { name = \"x\", namespace = \"n\" }\nb = { name = \"y\" }\n";
    let veth = &good(text).veths[0];
    assert_eq!((veth.a.link.place.clone(), veth.a.link.name.as_str()), (Place::Host, "y"));
}

#[test]
fn names_of_host_ends_fit_are_unique_and_stay_the_same() {
    let text = "[[bridge]]\nname = \"b\"\n\
        [[namespace]]\nname = \"a-very-long-namespace-name\"\ninterface = [{ name = \"eth0\", bridge = \"b\" }]\n\
        [[namespace]]\nname = \"a-b\"\ninterface = [{ name = \"c\", bridge = \"b\" }]\n\
        [[namespace]]\nname = \"a\"\ninterface = [{ name = \"b-c\", bridge = \"b\" }]\n";
    let names = |topology: &Topology| {
        topology.veths.iter().map(|veth| veth.a.link.name.to_string()).collect::<Vec<_>>()
    };
    let first = names(&good(text));
    assert_eq!(first[1], "a-b-c");
    assert!(
        first[0].starts_with("nm")
            && first[0].len() == 15
            && first[2].starts_with("nm")
            && first[2].len() == 15,
        "{first:?}"
    );
    assert_eq!(first, names(&good(text)));
}

#[test]
fn the_schema_is_json_and_names_every_key() {
    let schema: serde_json::Value = serde_json::from_str(&config::schema()).expect("JSON");
    let text = schema.to_string();
    let keys = [
        "bridge",
        "subnet",
        "gateway",
        "mtu",
        "mac",
        "namespace",
        "name",
        "lo",
        "interface",
        "host",
        "address",
        "route",
        "to",
        "via",
        "dev",
        "veth",
        "a",
        "b",
    ];
    for key in keys {
        assert!(text.contains(&format!("\"{key}\":")), "{key} is missing in the schema");
    }
    assert_eq!(schema["additionalProperties"], false);
}
