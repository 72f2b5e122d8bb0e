//! Words for what is wrong: the same table of the kernel's reasons that `netns-monitor why` speaks from.

use monitor::explain::drops::PLAIN;

/// What an expression excludes: reasons that occur where nothing is wrong, joined for a regular expression.
pub(crate) fn usual() -> String {
    PLAIN.iter().filter(|plain| plain.usual).map(|plain| plain.reason).collect::<Vec<_>>().join("|")
}

/// Each reason with its sentence, for a column that shows reasons.
pub(super) fn drops() -> Vec<(String, String, Option<&'static str>)> {
    PLAIN.iter().map(|plain| worded(plain.reason, plain.says)).collect()
}

fn worded(value: &str, says: &str) -> (String, String, Option<&'static str>) {
    (value.to_owned(), format!("{value}: {says}"), None)
}

/// The other reasons that a line of "What is wrong" may have, each with its sentence.
const OTHERS: &[(&str, &str)] = &[
    // netns_tcp_connect_failures_total
    ("refused", "Nobody listens on that port there, or a firewall answers in its place."),
    ("timeout", "No answer came at all, or no acknowledgement in time."),
    ("unreachable", "No way to the other end: a router said so, or nobody answers for the address."),
    ("abandoned", "The program gave up before an answer came."),
    ("unsent", "No local port was free, mostly."),
    ("other", "The program knows the error."),
    // netns_tcp_retransmitted_segments_total
    ("syn", "No answer to a connection request in time; each time costs a second or more."),
    ("synack", "Who connected did not answer in time: the way back loses packets."),
    ("fast", "Lost on the way, and found out at once."),
    ("probe", "The last segments before a pause were not acknowledged in time."),
    // netns_socket_overflows_total
    ("udp_receive", "The program does not read its UDP socket fast enough."),
    ("udp_send", "The program sends UDP faster than its buffer takes."),
    ("tcp_listen", "The program does not accept connections fast enough."),
    ("tcp_syn", "More connection requests at once than the backlog has room for."),
    ("tcp_backlog", "Segments came faster than the socket took them."),
    ("tcp_receive", "The program does not read its connection fast enough."),
    ("listen", "A listening socket dropped a connection request."),
    // conntrack
    ("table full", "Connection tracking has no room: new connections are dropped."),
    ("thrown out", "Tracked connections were thrown out to make room for others."),
    ("not entered", "A connection could not be entered into the table; its packet was dropped."),
    // the IP layer
    ("no route", "There is no route to where the packet was to go."),
    ("discarded", "Discarded with nothing wrong about the packet: memory, mostly."),
    // DNS
    ("SERVFAIL", "The resolver could not find out."),
    ("REFUSED", "The resolver does not answer this client."),
    ("FORMERR", "The resolver did not understand the query."),
    ("unanswered", "No response came, or it is not there yet."),
    // netns_interface_*
    ("receive", "On its way into the namespace."),
    ("transmit", "On its way out of the namespace."),
    // the file's own firewall
    ("isolation", "Kept apart: the packet was for a bridge or port this namespace may not reach."),
    ("inbound", "From outside, and not published."),
    ("input", "A rule of the namespace for what comes in."),
    ("forward", "A rule of the namespace for what passes through."),
    ("output", "A rule of the namespace for what goes out."),
];

/// Every word that the column of reasons may show.
pub(super) fn every() -> Vec<(String, String, Option<&'static str>)> {
    drops().into_iter().chain(OTHERS.iter().map(|(value, says)| worded(value, says))).collect()
}
