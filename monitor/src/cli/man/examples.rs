//! What each command is used for: what it does, and the line.

type Example = (&'static str, &'static str);

/// Those of a command, by the name of its page.
pub(super) fn of(name: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(of, _)| *of == name).map_or(&[], |(_, examples)| examples)
}

const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "netns-monitor",
        &[
            ("What namespaces are there, and what was counted of each?", "netns-monitor ls"),
            ("Why are packets of blue lost?", "netns-monitor why blue"),
            (
                "Does what the file says, and keeps it so.",
                "netns-monitor agent --config /etc/netns-monitor.toml",
            ),
        ],
    ),
    (
        "netns-monitor-agent",
        &[
            ("Watches everything, and makes nothing.", "netns-monitor agent"),
            (
                "Keeps the host as the file says, and counts who talks with whom.",
                "netns-monitor agent --config /etc/netns-monitor.toml --collector.flows",
            ),
        ],
    ),
    ("netns-monitor-plan", &[("What would be done.", "netns-monitor plan my.toml")]),
    (
        "netns-monitor-apply",
        &[
            ("Does what the file says.", "netns-monitor apply my.toml"),
            ("The same, without eBPF.", "netns-monitor --attach none apply my.toml"),
        ],
    ),
    ("netns-monitor-destroy", &[("Takes away what the file names.", "netns-monitor destroy my.toml")]),
    ("netns-monitor-gc", &[("What would go.", "netns-monitor gc --dry-run")]),
    ("netns-monitor-ls", &[("All of them, as JSON.", "netns-monitor ls --json")]),
    ("netns-monitor-top", &[("Traffic, drops and TCP as they are now.", "netns-monitor top")]),
    (
        "netns-monitor-show",
        &[
            ("One namespace with interfaces, addresses, routes, counts.", "netns-monitor show blue"),
            ("Anew every five seconds.", "netns-monitor show blue --watch 5"),
        ],
    ),
    (
        "netns-monitor-graph",
        &[
            ("The whole host, as a picture.", "netns-monitor graph > host.svg"),
            (
                "Two namespaces, by Graphviz.",
                "netns-monitor graph --format dot blue red | dot -Tpng -o two.png",
            ),
            (
                "What the file asks for; nothing is looked at.",
                "netns-monitor graph --file my.toml --format mermaid",
            ),
        ],
    ),
    (
        "netns-monitor-flows",
        &[("The heaviest of the next two seconds, with rates.", "netns-monitor flows blue --sample 2")],
    ),
    (
        "netns-monitor-why",
        &[
            ("Looks for five seconds.", "netns-monitor why blue"),
            ("What was counted so far, of the host's own.", "netns-monitor why ~host --seconds 0"),
        ],
    ),
    ("netns-monitor-exec", &[("Addresses inside blue.", "netns-monitor exec blue -- ip address")]),
    (
        "netns-monitor-run",
        &[(
            "A command with an interface on the bridge nm0.",
            "netns-monitor run --network nm0 -- curl http://198.51.100.2/",
        )],
    ),
    (
        "netns-monitor-check",
        &[
            ("Everything that netns-monitor wired.", "netns-monitor check"),
            ("One namespace, also to the outside.", "netns-monitor check blue --outside 203.0.113.9"),
        ],
    ),
    (
        "netns-monitor-holders",
        &[
            ("Who keeps blue alive?", "netns-monitor holders blue"),
            ("One that lost its name.", "netns-monitor holders --inode 4026532670"),
        ],
    ),
    (
        "netns-monitor-doctor",
        &[("What is there, and what is lost without the rest.", "netns-monitor doctor")],
    ),
    ("netns-monitor-config", &[("Begin with a commented file.", "netns-monitor config example > my.toml")]),
    ("netns-monitor-config-check", &[("Every mistake with its line.", "netns-monitor config check my.toml")]),
    ("netns-monitor-config-schema", &[("For an editor that checks TOML.", "netns-monitor config schema")]),
    (
        "netns-monitor-config-example",
        &[("What a container engine sets up.", "netns-monitor config example docker0")],
    ),
    ("netns-monitor-demo", &[("Ends by itself after a minute.", "netns-monitor demo --seconds 60")]),
    (
        "netns-monitor-completions",
        &[(
            "For one user's bash.",
            "netns-monitor completions bash > ~/.local/share/bash-completion/completions/netns-monitor",
        )],
    ),
    (
        "netns-monitor-man",
        &[("Into this folder; then, for example, man ./netns-monitor-show.1", "netns-monitor man .")],
    ),
];
