//! The page, as it is built into the program: nothing of it comes from elsewhere.

/// A part of the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Its name below `/page/`.
    name: &'static str,
    /// Its media type.
    pub(super) kind: &'static str,
    /// Itself.
    pub(super) text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page itself.
pub(super) const PAGE: Part =
    Part { name: "page.html", kind: "text/html; charset=utf-8", text: include_str!("page/page.html") };

macro_rules! script {
    ($name:literal) => {
        Part { name: $name, kind: SCRIPT, text: include_str!(concat!("page/", $name)) }
    };
}

/// What it loads.
const PARTS: [Part; 9] = [
    Part { name: "page.css", kind: "text/css; charset=utf-8", text: include_str!("page/page.css") },
    Part { name: "icon.svg", kind: "image/svg+xml", text: include_str!("page/icon.svg") },
    script!("main.js"),
    script!("store.js"),
    script!("table.js"),
    script!("picture.js"),
    script!("detail.js"),
    script!("words.js"),
    script!("dom.js"),
];

/// What there is, for who reads text.
pub(super) const LIST: &str = concat!(
    "netns-monitor ",
    env!("CARGO_PKG_VERSION"),
    ": counts every packet of the network namespaces of this host.\n\n",
    "/                                    the live page, in a browser\n",
    "/metrics                             the counts, for Prometheus\n",
    "/-/healthy                           whether the agent lives\n",
    "/-/ready                             whether it counts, and if not, why\n",
    "/api/v1/status                       the agent, as JSON\n",
    "/api/v1/namespaces                   every namespace (?offset=N&limit=N&contains=TEXT)\n",
    "/api/v1/namespaces/NETNS             everything of one\n",
    "/api/v1/namespaces/NETNS/holders     who keeps it alive\n",
    "/api/v1/topology                     how the host is wired (?limit=N)\n",
    "/api/v1/symptoms                     what can go wrong, in sentences\n",
    "/api/v1/events                       what changes, once a second (server-sent events)\n",
    "/api/v1/schema                       the JSON schema of all of these\n",
);

/// A part by its name.
pub(super) fn part(name: &str) -> Option<&'static Part> {
    PARTS.iter().find(|part| part.name == name)
}
