//! The file: every mistake is found, with its line; what is right is read as it was meant. Nothing here touches the kernel.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use monitor::{
    config::{self, ConfigErrors},
    topology::{Topology, names::Place},
};

#[test]
fn every_bad_file_is_refused_for_exactly_its_mistakes_each_with_its_line() {
    let mut wrong = Vec::new();
    let files = bad_files();
    assert!(files.len() >= 45, "{} bad files", files.len());
    for path in &files {
        let expected = expected(path);
        let found = match config::load(path) {
            Ok(_) => Vec::new(),
            Err(ConfigErrors { errors, .. }) => errors,
        };
        let same = found.len() == expected.len()
            && found.iter().zip(&expected).all(|(found, (line, fragment))| {
                found.at.is_some_and(|(at, _)| at == *line) && found.what.contains(fragment)
            });
        if !same || expected.is_empty() {
            wrong.push(format!("{}: expected {expected:?}, found {found:#?}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), files.len(), wrong.join("\n"));
}

/// The twin of the test above: with its mistakes forgiven nothing is left to refuse, so files do not fail by being there.
#[test]
fn a_file_without_a_mistake_is_not_refused() {
    for text in [config::EXAMPLE, config::DEMO, "", "# nothing\n"] {
        assert!(config::parse(text, "good.toml").is_ok(), "{text}");
    }
}

#[test]
fn every_mistake_is_one_line_that_names_file_line_and_column() {
    for path in bad_files() {
        let printed = config::load(&path).expect_err("bad").to_string();
        let lines = expected(&path).len();
        assert_eq!(printed.lines().count(), lines, "{printed}");
        for line in printed.lines() {
            let rest = line.strip_prefix(&format!("{}:", path.display())).expect(line);
            let mut parts = rest.splitn(3, ':');
            let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok()).expect(line);
            assert!(number() >= 1 && number() >= 1, "{line}");
            assert!(parts.next().is_some_and(|what| what.len() > 10), "{line}");
        }
    }
}

#[test]
fn the_column_is_that_of_the_value() {
    let text = "[[bridge]]\nname = \"nm0\"\nmtu = 5\n";
    let errors = config::parse(text, "f").expect_err("bad").errors;
    assert_eq!(errors.iter().map(|error| error.at).collect::<Vec<_>>(), [Some((3, 7))]);
}

#[test]
fn an_empty_file_asks_for_nothing() {
    assert_eq!(config::parse("", "empty.toml").expect("valid"), Topology::default());
}

#[test]
fn a_missing_file_is_one_line_with_its_name() {
    let printed = config::load(Path::new("/nonexistent/file.toml")).expect_err("missing").to_string();
    assert_eq!(printed.lines().count(), 1);
    assert!(printed.starts_with("/nonexistent/file.toml: "), "{printed}");
    assert!(printed.contains("No such file"), "{printed}");
    let printed = config::load(Path::new("/")).expect_err("a directory").to_string();
    assert!(printed.starts_with("/: ") && printed.contains("directory"), "{printed}");
}

#[test]
fn the_demonstration_is_one_bridge_with_blue_and_red_on_it() {
    let demo = config::parse(config::DEMO, "demo").expect("valid");
    let [bridge] = &demo.bridges[..] else { panic!("{:?}", demo.bridges) };
    assert_eq!(bridge.name.as_str(), "nm-demo0");
    assert_eq!(shown(&bridge.subnets), ["198.51.100.0/24", "2001:db8:6e6d::/64"]);
    assert_eq!(shown(&bridge.gateways), ["198.51.100.1/24", "2001:db8:6e6d::1/64"]);
    assert_eq!(shown(demo.namespaces.iter().map(|netns| &netns.name)), ["blue", "red"]);
    assert_eq!(
        shown(demo.veths.iter().flat_map(|veth| [&veth.a.link, &veth.b.link])),
        ["blue-eth0", "blue/eth0", "red-eth0", "red/eth0"]
    );
}

#[test]
fn the_example_holds_the_pair_between_host_and_test_ns() {
    let example = config::parse(config::EXAMPLE, "example").expect("valid");
    let pair = example.veths.iter().find(|veth| veth.a.link.to_string() == "veth0").expect("veth0");
    assert_eq!(pair.b.link.to_string(), "test_ns/veth1");
    assert_eq!(shown(&pair.a.addresses), ["10.1.2.2/24"]);
    assert_eq!(shown(&pair.b.addresses), ["10.1.2.1/24"]);
    let names = shown(example.namespaces.iter().map(|netns| &netns.name));
    assert!(["blue", "red", "test_ns"].iter().all(|name| names.iter().any(|found| found == name)));
    let families: BTreeSet<bool> =
        example.bridges[0].subnets.iter().map(|net| net.addr().is_ipv6()).collect();
    assert_eq!(families.len(), 2, "one subnet of each family");
}

#[test]
fn the_end_in_the_host_is_always_a() {
    let text = r#"
        [[namespace]]
        name = "blue"
        [[veth]]
        a = { name = "inner", namespace = "blue" }
        b = { name = "outer" }
    "#;
    let topology = config::parse(text, "f").expect("valid");
    assert_eq!(topology.veths[0].a.link.to_string(), "outer");
    assert_eq!(topology.veths[0].b.link.to_string(), "blue/inner");
}

#[test]
fn a_host_end_gets_a_readable_name_or_one_from_a_stable_hash() {
    let named = |netns: &str, extra: &str| {
        let text = format!(
            "[[bridge]]\nname = \"nm0\"\n[[namespace]]\nname = \"{netns}\"\n\
             interface = [{{ name = \"eth0\", bridge = \"nm0\" }}]\n{extra}"
        );
        config::parse(&text, "f").expect("valid").veths[0].a.link.to_string()
    };
    assert_eq!(named("blue", ""), "blue-eth0");
    assert_eq!(named("ten-bytes-", ""), "ten-bytes--eth0");
    // Too long by one, and taken: a name that depends on namespace and interface only.
    let long = named("eleven-byte", "");
    assert_eq!(long, hashed("eleven-byte/eth0"));
    let taken = "[[veth]]\na = { name = \"blue-eth0\" }\nb = { name = \"x\", namespace = \"blue\" }\n";
    assert_eq!(named("blue", taken), hashed("blue/eth0"));
}

#[test]
fn thousands_of_namespaces_are_read_and_get_names_of_their_own() {
    let mut text = "[[bridge]]\nname = \"nm0\"\nsubnet = [\"203.0.0.0/16\", \"2001:db8::/64\"]\n".to_owned();
    for n in 0..4200 {
        text += &format!(
            "[[namespace]]\nname = \"namespace-{n}\"\ninterface = [{{ name = \"eth0\", bridge = \"nm0\" }}]\n"
        );
    }
    let topology = config::parse(&text, "f").expect("valid");
    assert_eq!(topology.namespaces.len(), 4200);
    let hosts: BTreeSet<_> =
        topology.ends().filter(|end| end.link.place == Place::Host).map(|end| &end.link).collect();
    assert_eq!(hosts.len(), 4200);
}

#[test]
fn the_same_mac_on_two_bridges_is_no_mistake() {
    let text = r#"
        [[bridge]]
        name = "nm0"
        [[bridge]]
        name = "nm1"
        [[namespace]]
        name = "blue"
        interface = [
            { name = "eth0", bridge = "nm0", mac = "02:00:00:00:00:01" },
            { name = "eth1", bridge = "nm1", mac = "02:00:00:00:00:01" },
        ]
    "#;
    assert!(config::parse(text, "f").is_ok());
}

#[test]
fn the_schema_describes_every_key_the_file_takes() {
    let schema: serde_json::Value = serde_json::from_str(&config::schema()).expect("JSON");
    let mut keys = BTreeSet::new();
    let mut undescribed = Vec::new();
    properties(&schema, &mut |key, described| {
        keys.insert(key.to_owned());
        if !described {
            undescribed.push(key.to_owned());
        }
    });
    let expected = [
        "a",
        "address",
        "adopt",
        "allow",
        "b",
        "between",
        "bridge",
        "dev",
        "device",
        "firewall",
        "forward",
        "from",
        "fwmark",
        "gateway",
        "host",
        "iif",
        "input",
        "interface",
        "ipv6",
        "isolate",
        "lo",
        "mac",
        "macvlan",
        "metric",
        "mode",
        "mtu",
        "name",
        "namespace",
        "nat",
        "neighbour",
        "offload",
        "oif",
        "output",
        "policy",
        "priority",
        "publish",
        "queues",
        "route",
        "rule",
        "src",
        "subnet",
        "sysctl",
        "table",
        "to",
        "txqueuelen",
        "type",
        "veth",
        "via",
    ];
    assert_eq!(keys.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    assert!(undescribed.is_empty(), "{undescribed:?}");
    // Strict as the reader is: unknown keys are refused at every level.
    let strict = schema["$defs"].as_object().expect("definitions").values().chain([&schema]);
    for table in strict.filter(|definition| definition.get("properties").is_some()) {
        assert_eq!(table["additionalProperties"], false, "{table}");
    }
}

fn bad_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path()).collect();
    files.sort();
    files
}

/// The comments a bad file begins with: `# expect: LINE: part of the message`, one for each mistake.
fn expected(path: &Path) -> Vec<(usize, String)> {
    let text = String::from_utf8_lossy(&fs::read(path).expect("read")).into_owned();
    let comments = text.lines().map_while(|line| line.strip_prefix("# expect: "));
    let mut expected: Vec<(usize, String)> = comments
        .map(|comment| comment.split_once(": ").expect("line and message"))
        .map(|(line, what)| (line.parse().expect("line"), what.to_owned()))
        .collect();
    expected.sort_by_key(|(line, _)| *line);
    expected
}

fn shown<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

/// FNV-1a by its definition, byte by byte, apart from the code under test.
fn hashed(text: &str) -> String {
    let mut hash: u64 = 14_695_981_039_346_656_037;
    for byte in text.bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(1_099_511_628_211);
    }
    format!("nm{:013x}", hash >> 12)
}

fn properties(schema: &serde_json::Value, found: &mut dyn FnMut(&str, bool)) {
    match schema {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                if key == "properties" {
                    for (name, property) in value.as_object().expect("properties") {
                        found(name, property.get("description").is_some());
                    }
                }
                properties(value, found);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| properties(item, found)),
        _ => {}
    }
}
